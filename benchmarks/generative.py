"""Generative models against pythae: quality of samples and time, on the same networks and the same rows, in one run.

Every side trains the networks that this package chooses for the shape of the data. In each round the rows are divided
anew into training and held-out ones, and all sides are fitted, ours and theirs in turn, and sampled; so a difference
between two sides is a mean over rounds of paired differences, with a t interval.

- "ours" are the defaults: a tenth of the training rows is kept back inside, and the fit stops by itself.
- "pythae" are its defaults: pixels between 0 and 1, a sigmoid at the end of the decoder, 100 epochs at rate 1e-4 in
  batches of 64, the VAE's reconstruction by squares with σ = 1, the WAE's penalty .03.
- "pythae, set well": rate 1e-3 and the best state on a tenth that is kept back; for the VAE pixels divided by --sigma,
  the scale that ours learns, and no sigmoid; for the WAE the penalty 10/.05 of its paper. Its sampler returns the
  decoder's mean; "with noise" adds the noise of that σ to it, as the likelihood has it.

Energy distance (and the other measures of ``evaluate``) to held-out rows: of the same number of samples from all sides.
Timed is the fit, wall clock and CPU; the ratio is the median over rounds.

    python benchmarks/generative.py [--rounds 5] [--threads 1] [--latent-dim 8]
    python benchmarks/generative.py --mnist t10k-images-idx3-ubyte.gz --rounds 1 --latent-dim 16
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

DISTANCES = ["energy", "mmd2", "sliced_wasserstein", "precision", "recall", "density", "coverage"]
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

    def sample(self, n, seed):
        return self.model.sample(n, seed=seed)

    def said(self):
        return self.model.message


class Theirs:
    """A model of pythae around the same layers."""

    def __init__(self, name, latent, well=False, sigma=None, noise=False, **settings):
        self.name, self.latent, self.well, self.noise, self.settings = name, latent, well, noise, settings
        self.unit = sigma if well and name == "VAE" else 1.0

    def fit(self, x, seed):
        import pythae.models
        from pythae.data.datasets import BaseDataset
        from pythae.trainers import BaseTrainer, BaseTrainerConfig

        torch.manual_seed(seed)
        shape, latent = tuple(x.shape[1:]), self.latent
        rows = (x / self.unit).float()
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
        self.rows = rows

    def sample(self, n, seed):
        from pythae.samplers import GaussianMixtureSampler, NormalSampler

        torch.manual_seed(seed)
        with torch.no_grad(), redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()):
            sampler = (GaussianMixtureSampler if self.name == "AE" else NormalSampler)(self.model)
            if self.name == "AE":
                from pythae.data.datasets import BaseDataset

                sampler.fit(BaseDataset(self.rows, torch.ones(len(self.rows))))
            found = sampler.sample(num_samples=n).double().cpu()
        if self.noise:
            found += torch.randn(found.shape, dtype=torch.float64)
        return found * self.unit

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


def sides(latent, sigma, only):
    """Return what builds each side, ours and theirs of one kind after another."""
    every = {
        "VAE, ours": lambda: Ours("VAE", latent),
        "VAE, pythae": lambda: Theirs("VAE", latent),
        "VAE, pythae, set well": lambda: Theirs("VAE", latent, True, sigma),
        "VAE, pythae, set well, with noise": lambda: Theirs("VAE", latent, True, sigma, noise=True),
        "WAE-MMD, ours": lambda: Ours("WAEMMD", latent),
        "WAE-MMD, pythae": lambda: Theirs("WAE", latent),
        "WAE-MMD, pythae, set well": lambda: Theirs("WAE", latent, True, reg_weight=200.0),
        "AE, ours": lambda: Ours("Autoencoder", latent),
        "AE, pythae": lambda: Theirs("AE", latent),
        "GAN, ours": lambda: Ours("GAN", latent),
    }
    names = {"VAE": "VAE", "WAE-MMD": "WAEMMD", "AE": "Autoencoder", "GAN": "GAN"}
    there = [name for name in every if names[name.split(",")[0]] in probdl.models.__all__]
    return {name: every[name] for name in there if any(name.startswith(start) for start in only)}


def timed(side, x, seed):
    """Fit a side; return wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    side.fit(x, seed)
    return time.perf_counter() - wall, time.process_time() - cpu


def run(x, held, rounds, build, draws, measures, threads):
    """Return a record for each round and side."""
    found = []
    for number in range(rounds):
        train, test = divided(x, number, held)
        names = list(build)
        for name in names if number % 2 else names[::-1]:
            side = build[name]()
            seconds, cpu = timed(side, train, number)
            torch.set_num_threads(threads)
            record = {"round": number, "side": name, "seconds": seconds, "cpu": cpu, "said": side.said()}
            if hasattr(getattr(side, "model", None), "sample") or isinstance(side, Theirs):
                table = evaluate(side.sample(draws, number), test, train=train, measures=measures).table
                record |= {measure: table.loc[measure, "value"] for measure in measures}
                record |= {f"{measure}, se": table.loc[measure, "stderr"] for measure in measures}
            if hasattr(getattr(side, "model", None), "log_likelihood") and isinstance(side, Ours):
                record |= likelihood(side.model, test)
            found.append(record)
            energy, error = (record.get(key, math.nan) for key in ("energy", "energy, se"))
            print(
                f"  round {number}, {name}: {seconds:.1f} s, energy {energy:.4f} ± {error:.4f} ({side.said()})",
                flush=True,
            )
    return pd.DataFrame(found)


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
    n = len(values)
    return statistics.mean(values), LEVEL[n] * statistics.stdev(values) / math.sqrt(n) if n in LEVEL else math.nan


def report(found, measures):
    """Print the tables."""
    rounds = found["round"].nunique()
    print(f"\nMean over {rounds} rounds ± half of the 95 % t interval")
    for name, rows in found.groupby("side", sort=False):
        cells = [f"{m} {a:.4f} ± {b:.4f}" for m in measures if rows[m].notna().all() for a, b in [interval(rows[m])]]
        print(f"  {name:<34} {'; '.join(cells)}")
        print(f"  {'':<34} median {rows.seconds.median():.1f} s, {rows.cpu.median():.1f} CPU-s")
        if "log-likelihood" in rows and rows["log-likelihood"].notna().all():
            of_rows = ", ".join(
                f"{v:.2f} ± {se:.2f} (over rows; Monte Carlo {mc:.2f})"
                for v, se, mc in zip(*(rows[f"log-likelihood{end}"] for end in ("", ", se", ", mc")))
            )
            print(f"  {'':<34} held-out log-likelihood, nats an image: {of_rows}")
    wide = found.pivot(index="round", columns="side")
    print("\nPaired differences in energy distance (below 0: ours is closer), and ratios of time (median; range)")
    for ours in [name for name in wide["energy"] if name.endswith("ours")]:
        for theirs in [name for name in wide["energy"] if "pythae" in name]:
            gap, half = interval((wide["energy"][ours] - wide["energy"][theirs]).tolist())
            ratios = [(wide[c][ours] / wide[c][theirs]).sort_values().tolist() for c in ("seconds", "cpu")]
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
    parser.add_argument("--only", default="VAE,WAE,AE,GAN", help="kinds, by commas")
    parser.add_argument("--csv", help="where to write every round")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    logging.disable(logging.WARNING)
    x = idx_images(options.mnist) if options.mnist else data.digits().images
    held = len(x) // 5
    print(
        f"torch {torch.__version__}, {platform.machine()}, {options.threads} thread(s); {len(x) - held} rows train, of "
        f"shape {tuple(x.shape[1:])}, {held} held out, {options.draws} samples, latent_dim {options.latent_dim}"
    )
    build = sides(options.latent_dim, options.sigma, options.only.split(","))
    found = run(x, held, options.rounds, build, options.draws, DISTANCES, options.threads)
    if options.csv:
        found.to_csv(options.csv, index=False)
    report(found, DISTANCES)


if __name__ == "__main__":
    main()
