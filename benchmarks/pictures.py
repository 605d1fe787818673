"""Pictures: t-SNE of the 8 × 8 digits, 1797 rows of 64, against scikit-learn's two methods and openTSNE.

All sides take perplexity 30, a start at the principal components, their own learning rate and the given number of
iterations (openTSNE: 250 early ones and the rest). Every picture is judged by the same three numbers: KL(P ‖ Q) in nats
on the exact P, with scales found in float64; the trustworthiness of 12 neighbours; CPU seconds of the process, after
imports. Pictures are deterministic, so that only seconds vary between rounds: their median and range are printed. Sides
run one after the other in alternating order. openTSNE is left out where it is not installed.

    python benchmarks/pictures.py --rounds 3
"""

import argparse
import platform
import statistics
import time

import torch

from probdl.viz import tsne
from probdl.viz.affinities import affinities
from probdl.viz.similarity import Divergence

PERPLEXITY = 30


def by_us(X, iterations):
    return tsne(X, perplexity=PERPLEXITY, n_iter=iterations, device="cpu").Y


def by_sklearn(method):
    def run(X, iterations):
        from sklearn.manifold import TSNE

        model = TSNE(2, perplexity=PERPLEXITY, max_iter=iterations, init="pca", method=method, random_state=0)
        return torch.tensor(model.fit_transform(X.numpy()), dtype=torch.float64)

    return run


def by_opentsne(X, iterations):
    from openTSNE import TSNE

    early = min(250, iterations // 4)
    model = TSNE(2, PERPLEXITY, early_exaggeration_iter=early, n_iter=iterations - early, random_state=0, n_jobs=1)
    return torch.tensor(model.fit(X.numpy()), dtype=torch.float64)


SIDES = {
    "probdl.viz.tsne": by_us,
    "scikit-learn, exact": by_sklearn("exact"),
    "scikit-learn, Barnes-Hut": by_sklearn("barnes_hut"),
    "openTSNE": by_opentsne,
}


def timed(run, X, iterations):
    cpu = time.process_time()
    Y = run(X, iterations)
    return time.process_time() - cpu, Y


def sides_here():
    from importlib.util import find_spec

    return {name: run for name, run in SIDES.items() if name != "openTSNE" or find_spec("openTSNE")}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1797)
    parser.add_argument("--iterations", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, {platform.machine()}, {options.threads} thread(s) of torch")
    digits(options)


def digits(options):
    from sklearn.datasets import load_digits
    from sklearn.manifold import trustworthiness

    X = torch.tensor(load_digits().data[: options.rows], dtype=torch.float64)
    divergence, sides = Divergence(affinities(X, PERPLEXITY)[0]), sides_here()
    for run in sides.values():
        run(X[:200], 250)
    seconds, points = {name: [] for name in sides}, {}
    for number in range(options.rounds):
        for name in list(sides) if number % 2 == 0 else list(sides)[::-1]:
            cpu, points[name] = timed(sides[name], X, options.iterations)
            seconds[name].append(cpu)
    print(f"\nt-SNE of {len(X)} digits, {options.iterations} iterations, {options.rounds} rounds")
    for name, Y in points.items():
        kl, trust = float(divergence(Y)), trustworthiness(X.numpy(), Y.numpy(), n_neighbors=12)
        low, high = min(seconds[name]), max(seconds[name])
        print(
            f"  {name:<25} KL {kl:.4f}  trustworthiness(12) {trust:.4f}  "
            f"CPU seconds: median {statistics.median(seconds[name]):.1f} ({low:.1f} to {high:.1f})"
        )


if __name__ == "__main__":
    main()
