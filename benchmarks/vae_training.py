"""Training a VAE: ``VAE.fit`` against a hand-written PyTorch loop over a DataLoader.

Both train the same network on the same rows with the same loss, batch size, number of epochs, floating type and
number of threads, with Adam at the same settings; the hand-written loop is what one writes from the tutorials
(``DataLoader`` with ``shuffle=True``, ``torch.optim.Adam``). Pairs run one after the other, in alternating order; the
ratio of the seconds of a pair is free of most of what else the machine does; the ratio of CPU seconds, which a busy
machine disturbs less, stands beside it. Data are standardised beforehand, and imports and a first short run of each
are outside the clock. What ``VAE.fit`` does beside the loop (checks, the final scale of the decoder from one more pass
over the rows) is inside.

    python benchmarks/vae_training.py --rows 10000 --epochs 10
"""

import argparse
import math
import platform
import statistics
import time

import torch
from torch.nn.functional import softplus
from torch.utils.data import DataLoader, TensorDataset

from probdl.models import VAE
from probdl.models.networks import chosen_decoder, chosen_encoder
from probdl.nn import seeded

BATCH, RATE, LATENT = 128, 1e-3, 2


def table(rows):
    """Return standardised rows of 20 columns that lie near a curved surface."""
    g = torch.Generator().manual_seed(0)
    z, a = torch.randn(rows, 2, generator=g), torch.randn(2, 20, generator=g)
    x = torch.tanh(z @ a) + 0.1 * torch.randn(rows, 20, generator=g)
    return (x - x.mean(0)) / x.std(0)


def images(rows):
    """Return the 8 × 8 digits of scikit-learn, repeated to the wanted number of rows, standardised."""
    from sklearn.datasets import load_digits

    x = torch.tensor(load_digits().images, dtype=torch.float32)[:, None] / 16
    x = x.repeat(math.ceil(rows / len(x)), 1, 1, 1)[:rows]
    return (x - x.mean()) / x.std()


def by_hand(x, epochs, seed):
    """Train as the tutorials do; return the mean loss of the last epoch."""
    torch.manual_seed(seed)
    encoder, decoder = chosen_encoder(x.shape[1:], 2 * LATENT, None), chosen_decoder(LATENT, x.shape[1:], None)
    optimiser = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=RATE)
    loader, size = DataLoader(TensorDataset(x), batch_size=BATCH, shuffle=True), x[0].numel()
    for _ in range(epochs):
        total = 0.0
        for (batch,) in loader:
            mean, raw = encoder(batch).chunk(2, dim=1)
            scale = softplus(raw) + 1e-6
            z = mean + scale * torch.randn_like(scale)
            squares = (batch - decoder(z)).pow(2).flatten(1).sum(1)
            variance = squares.detach().mean() / size + 1e-5
            nll = 0.5 * (squares / variance + size * torch.log(2 * math.pi * variance))
            kl = 0.5 * (mean.pow(2) + scale.pow(2) - 1 - 2 * scale.log()).sum(1)
            loss = (nll + kl).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += loss.item() * len(batch)
    return total / len(x)


def by_fit(x, epochs, seed):
    """Train with ``VAE.fit``; return the mean loss of the last epoch."""
    vae = VAE(LATENT, "gaussian", standardise="none", learning_rate=RATE)
    vae.fit(x, epochs=epochs, batch_size=BATCH, validation=None, device="cpu", seed=seed, progress=False)
    return vae.history.loss.iloc[-1]


def timed(train, *args):
    wall, cpu = time.perf_counter(), time.process_time()
    loss = train(*args)
    return time.perf_counter() - wall, time.process_time() - cpu, loss


def compare(name, x, epochs, pairs):
    """Time interleaved pairs and print the median ratio with its spread."""
    by_hand(x[: 2 * BATCH], 1, 0), by_fit(x[: 2 * BATCH], 1, 0)
    ours, theirs = [], []
    for pair in range(pairs):
        order = [(by_fit, ours), (by_hand, theirs)]
        for train, found in order if pair % 2 else order[::-1]:
            found.append(timed(train, x, epochs, pair))
    print(f"\n{name}: {len(x)} rows of {tuple(x.shape[1:])}, {epochs} epochs, batch {BATCH}, {pairs} pairs")
    for label, found in (("VAE.fit", ours), ("DataLoader loop", theirs)):
        seconds, _, losses = zip(*found)
        print(
            f"  {label:<16} median {statistics.median(seconds):6.2f} s ({min(seconds):.2f} to {max(seconds):.2f}); "
            f"loss of the last epoch {statistics.mean(losses):8.3f} nats a row (sd over seeds "
            f"{statistics.stdev(losses) if pairs > 1 else math.nan:.3f})"
        )
    for clock, label in enumerate(("seconds", "CPU seconds")):
        ratios = sorted(a[clock] / b[clock] for a, b in zip(ours, theirs))
        spread = f"({ratios[0]:.3f} to {ratios[-1]:.3f})"
        print(f"  ratio of {label}, ours ÷ theirs: median {statistics.median(ratios):.3f} {spread}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, {platform.machine()}, {options.threads} thread(s)")
    with seeded(0):
        compare("MLP on a table", table(options.rows), options.epochs, options.pairs)
        compare("CNN on digits", images(options.rows), options.epochs, options.pairs)


if __name__ == "__main__":
    main()
