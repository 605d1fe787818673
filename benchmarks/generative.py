"""Generative models against pythae: quality of samples and time, on the same networks and the same rows, in one run.

Every side trains the networks that this package chooses for the shape of the data. In each round the rows are divided
anew into training and held-out ones, and all sides are fitted, ours and theirs in turn, and sampled; so a difference
between two sides is a mean over rounds of paired differences, with a t interval.

- "ours" are the defaults: a tenth of the training rows is kept back inside, and the fit stops by itself.
- "pythae" are its defaults: pixels between 0 and 1, a sigmoid at the end of the decoder, 100 epochs at rate 1e-4 in
  batches of 64, the VAE's reconstruction by squares with σ = 1, the WAE's penalty .03.
- "pythae, set well": rate 1e-3 and the best state on a tenth that is kept back; for the VAE centred pixels divided by
  --sigma, the scale that ours learns, and no sigmoid, or with --binarise its cross-entropy; for the WAE the penalty
  10/.05 of its paper. Its sampler returns the decoder's mean; "with noise" draws from the likelihood around it.

Energy distance, and other measures of ``evaluate``, to held-out rows: of the same number of samples from all sides. An
autoencoder has no samples; compared is how well held-out rows are reconstructed.
Timed is the fit, wall clock and CPU; the ratio is the median over rounds.

    python benchmarks/generative.py [--rounds 5] [--threads 1] [--latent-dim 8]
    python benchmarks/generative.py --mnist t10k-images-idx3-ubyte.gz --rounds 1 --latent-dim 16 --only VAE --binarise
"""

import argparse
import gzip
import io
import logging
import math
import platform
import statistics
import tempfile
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

import probdl.models
from probdl import data
from probdl.models import evaluate
from probdl.models.networks import chosen_decoder, chosen_encoder

MEASURES = ["energy", "mmd2", "sliced_wasserstein", "precision", "recall", "density", "coverage"]
LEVEL = {2: 12.71, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}  # t, 97.5 %


def idx_images(path):
    """Return the images of an IDX file, gzipped or not, as (n, 1, h, w) between 0 and 1."""
    raw = Path(path).read_bytes()
    raw = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    if raw[:4] != b"\x00\x00\x08\x03":
        raise ValueError(f"{path} must be an IDX file of images (magic number 2051); it begins with {raw[:4].hex()}.")
    n, h, w = np.frombuffer(raw[4:16], ">u4").tolist()
    return torch.tensor(np.frombuffer(raw, np.uint8, offset=16).reshape(n, 1, h, w) / 255.0)


def divided(x, seed, held):
    """Return training rows and held-out ones."""
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    return x[order[held:]], x[order[:held]]


class Ours:
    """A model of this package at its defaults; ``settings`` beyond the latent dimension are named in the table."""

    def __init__(self, name, latent, **settings):
        self.name, self.latent, self.settings = name, latent, settings

    def fit(self, x, seed):
        fixed = {} if self.name == "GAN" else {"latent_dim": self.latent}
        self.model = getattr(probdl.models, self.name)(**fixed, **self.settings)
        self.model.fit(x, seed=seed, device="cpu", progress=False)

    def samples(self, n, seed):
        """Return samples by what is to be added to the side's name; an autoencoder has none."""
        return {} if self.name == "Autoencoder" else {"": self.model.sample(n, seed=seed)}

    def reconstruct(self, x):
        return self.model.reconstruct(x) if hasattr(self.model, "reconstruct") else None

    def said(self):
        return self.model.message


class Theirs:
    """A model of pythae around the same layers."""

    def __init__(self, name, latent, well=False, sigma=None, **settings):
        self.name, self.latent, self.well, self.settings = name, latent, well, settings
        self.unit = sigma or 1.0
        self.binary = settings.get("reconstruction_loss") == "bce"

    def fit(self, x, seed):
        import pythae.models
        from pythae.data.datasets import BaseDataset
        from pythae.trainers import BaseTrainer, BaseTrainerConfig

        torch.manual_seed(seed)
        shape, latent = tuple(x.shape[1:]), self.latent
        self.shift = x.mean() if self.unit != 1.0 else 0.0
        rows = self._inward(x)
        variational = self.name == "VAE"
        encoder = wrapped(chosen_encoder(shape, latent * (1 + variational), None), encoder=True, split=variational)
        end = [] if self.unit != 1.0 else [nn.Sigmoid()]
        decoder = wrapped(nn.Sequential(chosen_decoder(latent, shape, None), *end), encoder=False)
        kind = {"VAE": "VAE", "WAE": "WAE_MMD", "AE": "AE"}[self.name]
        config = getattr(pythae.models, f"{kind}{'_' if '_' in kind else ''}Config")
        self.model = getattr(pythae.models, kind)(
            config(input_dim=shape, latent_dim=latent, **self.settings), encoder=encoder, decoder=decoder
        )
        how = {"learning_rate": 1e-3} if self.well else {}
        with tempfile.TemporaryDirectory() as folder, redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()):
            config = BaseTrainerConfig(output_dir=folder, no_cuda=True, seed=seed, **how)
            keep = len(rows) // 10 if self.well else 0
            parts = [BaseDataset(part, torch.ones(len(part))) for part in (rows[keep:], rows[:keep])]
            trainer = BaseTrainer(self.model, parts[0], parts[1] if keep else None, training_config=config)
            trainer.train()
            if keep:  # the best state is in the folder only
                weights = next(Path(folder).rglob("final_model/model.pt"))
                self.model.load_state_dict(torch.load(weights, weights_only=False)["model_state_dict"])
        self.model.eval()

    def samples(self, n, seed):
        from pythae.samplers import NormalSampler

        if self.name == "AE":
            return {}
        torch.manual_seed(seed)
        with torch.no_grad(), redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()):
            found = NormalSampler(self.model).sample(num_samples=n).double().cpu()
        scaled = {"": found * self.unit + self.shift}
        if self.binary:
            scaled[", with noise"] = found.bernoulli()
        elif self.unit != 1.0:
            scaled[", with noise"] = scaled[""] + self.unit * torch.randn(found.shape, dtype=torch.float64)
        return scaled

    def reconstruct(self, x):
        with torch.no_grad():
            return self.model.reconstruct(self._inward(x)).double() * self.unit + self.shift

    def _inward(self, x):
        return ((x - self.shift) / self.unit).float()

    def said(self):
        return "100 epochs"


def wrapped(net, encoder, split=False):
    """Return a network as pythae takes them."""
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

    class Wrapped(BaseEncoder if encoder else BaseDecoder):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            out = self.net(x)
            if not encoder:
                return ModelOutput(reconstruction=out)
            if not split:
                return ModelOutput(embedding=out)
            mean, raw = out.chunk(2, dim=1)
            return ModelOutput(embedding=mean, log_covariance=raw)

    return Wrapped()


def sides(latent, sigma, binary, only):
    """Return what builds each side, ours and theirs of one kind after another."""
    well = {"reconstruction_loss": "bce"} if binary else {"sigma": sigma}
    every = {
        "VAE, ours": lambda: Ours("VAE", latent),
        "VAE, pythae": lambda: Theirs("VAE", latent),
        "VAE, pythae, set well": lambda: Theirs("VAE", latent, True, **well),
        "WAE-MMD, ours": lambda: Ours("WAEMMD", latent),
        "WAE-MMD, pythae": lambda: Theirs("WAE", latent),
        "WAE-MMD, pythae, set well": lambda: Theirs("WAE", latent, True, reg_weight=200.0),
        "AE, ours": lambda: Ours("Autoencoder", latent),
        "AE, pythae": lambda: Theirs("AE", latent),
        "AE, pythae, set well": lambda: Theirs("AE", latent, True),
        "GAN, ours": lambda: Ours("GAN", latent),
    }
    return {name: build for name, build in every.items() if any(name.startswith(start) for start in only)}


def timed(side, x, seed):
    """Fit a side; return wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    side.fit(x, seed)
    return time.perf_counter() - wall, time.process_time() - cpu


def run(x, held, rounds, build, draws, threads):
    """Return a record for each round, side and kind of samples."""
    found = []
    for number in range(rounds):
        train, test = divided(x, number, held)
        names = list(build)
        for name in names if number % 2 else names[::-1]:
            side = build[name]()
            seconds, cpu = timed(side, train, number)
            torch.set_num_threads(threads)
            record = {"round": number, "seconds": seconds, "cpu": cpu, **squared_error(side, test)}
            if isinstance(side, Ours):
                record |= likelihood(side.model, test)
            print(f"  round {number}, {name}: {seconds:.1f} s, {cpu:.1f} CPU-s ({side.said()})", flush=True)
            for more, samples in (side.samples(draws, number) or {"": None}).items():
                found.append({**record, "side": name + more, **quality(samples, test)})
    return pd.DataFrame(found)


def quality(samples, test):
    """Return the measures of samples."""
    if samples is None:
        return {}
    table = evaluate(samples, test, measures=MEASURES).table
    print(f"    energy {table.value.energy:.4f} ± {table.stderr.energy:.4f}", flush=True)
    return table["value"].to_dict() | table["stderr"].add_suffix(", se").to_dict()


def squared_error(side, test):
    """Return the squared error of reconstructed held-out rows, a row's sum over pixels."""
    back = side.reconstruct(test)
    return {} if back is None else {"error": float((back - test).square().flatten(1).sum(1).mean())}


def likelihood(model, test, draws=200):
    """Return the mean held-out log-likelihood, importance-weighted, with its errors over rows and of Monte Carlo."""
    try:
        rows = model.log_likelihood(test, draws=draws)
    except (NotImplementedError, TypeError, ValueError):
        return {}
    n = len(rows.value)
    return {
        "log-likelihood": float(rows.value.mean()),
        "log-likelihood, se": float(rows.value.std()) / math.sqrt(n),
        "log-likelihood, mc": float(rows.stderr.square().sum().sqrt()) / n,
    }


def interval(values):
    """Return mean and half-width of the 95 % t interval."""
    values, n = list(values), len(values)
    return statistics.mean(values), LEVEL[n] * statistics.stdev(values) / math.sqrt(n) if n in LEVEL else math.nan


def report(found):
    """Print the tables."""
    rounds = found["round"].nunique()
    print(f"\nMean over {rounds} rounds ± half of the 95 % t interval; error: of reconstructed held-out rows, squared")
    for name, rows in found.groupby("side", sort=False):
        means = [(m, *interval(rows[m])) for m in (*MEASURES, "error") if m in rows and rows[m].notna().all()]
        print(f"  {name}: median {rows.seconds.median():.1f} s, {rows.cpu.median():.1f} CPU-s")
        print("     " + "; ".join(f"{m} {mean:.4f} ± {half:.4f}" for m, mean, half in means))
        kept(name, rows, rounds)
        if "log-likelihood" in rows and rows["log-likelihood"].notna().all():
            of_rows = ", ".join(
                f"{v:.2f} ± {se:.2f} (Monte Carlo {mc:.2f})"
                for v, se, mc in zip(*(rows[f"log-likelihood{end}"] for end in ("", ", se", ", mc")))
            )
            print(f"     held-out log-likelihood, nats an image, ± standard error over rows: {of_rows}")
    compare(found, "energy" if "energy" in found else "error")


def kept(name, rows, rounds):
    """Keep the row of a side: its times, and means over rounds with their standard errors."""
    from results import keep, ranged, uncertain

    cells = {"seconds": ranged(rows.seconds), "CPU s": ranged(rows.cpu)}
    for measure in ("energy", "precision", "recall", "error", "log-likelihood"):
        if measure in rows and rows[measure].notna().all():
            mean = rows[measure].mean()
            error = rows[measure].std(ddof=1) / math.sqrt(rounds)
            cells[measure] = uncertain(mean, error) if rounds > 1 else mean
    keep("distance of samples from held-out rows, and squared error of reconstruction", side=name, **cells)


def compare(found, measure):
    """Print what ours and theirs differ by."""
    wide = found.pivot(index="round", columns="side")
    print(f"\nPaired differences in {measure} (below 0: ours is closer), and ratios of time (median; range)")
    names = [name for name in wide[measure] if wide[measure][name].notna().all()]
    for ours in [name for name in names if name.endswith("ours")]:
        for theirs in [name for name in names if "pythae" in name]:
            gap, half = interval(wide[measure][ours] - wide[measure][theirs])
            ratios = [(wide[clock][ours] / wide[clock][theirs]).sort_values().tolist() for clock in ("seconds", "cpu")]
            said = [f"{statistics.median(r):.2f} ({r[0]:.2f} to {r[-1]:.2f})" for r in ratios]
            print(f"  {ours} − {theirs}: {gap:+.4f} ± {half:.4f}; seconds ÷ {said[0]}, CPU ÷ {said[1]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--latent-dim", type=int, default=8)
    parser.add_argument("--sigma", type=float, default=0.1, help="what pythae's pixels are divided by, set well")
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--mnist", help="an IDX file of images, gzipped or not; a fifth of them is held out")
    parser.add_argument("--binarise", action="store_true", help="draw each pixel once, black with its grey value")
    parser.add_argument("--only", nargs="+", default=["VAE", "WAE", "AE", "GAN"], help="what names of sides begin with")
    parser.add_argument("--csv", help="where to write every round")
    from results import add_flag, save  # of this folder; whoever reads this file as a module may not have it

    add_flag(parser)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    logging.disable(logging.WARNING)
    x = idx_images(options.mnist) if options.mnist else data.digits().images
    if options.binarise:
        x = x.bernoulli(generator=torch.Generator().manual_seed(0))
    held = len(x) // 5
    print(
        f"torch {torch.__version__}, {platform.machine()}, {options.threads} thread(s); {len(x) - held} rows train, of "
        f"shape {tuple(x.shape[1:])}, {held} held out, {options.draws} samples, latent_dim {options.latent_dim}"
    )
    build = sides(options.latent_dim, options.sigma, options.binarise, options.only)
    found = run(x, held, options.rounds, build, options.draws, options.threads)
    if options.csv:
        found.to_csv(options.csv, index=False)
    report(found)
    save(options, __file__, ("pythae",))


if __name__ == "__main__":
    main()
