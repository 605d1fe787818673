"""Pictures: t-SNE against scikit-learn's two methods and openTSNE; maps on the input against Captum.

t-SNE of the 8 × 8 digits, 1797 rows of 64: all sides take perplexity 30, a start at the principal components, their own
learning rate and the given number of iterations (openTSNE: 250 early ones and the rest). Every picture is judged by the
same three numbers: KL(P ‖ Q) in nats on the exact P, with scales found in float64; the trustworthiness of 12
neighbours; CPU seconds of the process, after imports. Pictures are deterministic, so that only seconds vary between
rounds: their median and range are printed. openTSNE is left out where it is not installed.

Maps of images of 28 × 28 pixels by a convolutional network: occlusion by windows of 4 × 4 pixels at stride 1, of one
image, ours at its default of 64 covered images in a pass, Captum's at its default of one and at the fastest of several
``perturbations_per_eval``; saliency and guided back-propagation of 16 images. A call's CPU time is the mean of several
calls of a round; what is compared is the ratio of Captum's time to ours within each round. The largest difference of
the maps stands beside.

Sides run one after the other in alternating order, on the same threads.

    python benchmarks/pictures.py --rounds 3 --map-rounds 9
"""

import argparse
import platform
import statistics
import time
import warnings

import torch
from results import add_flag, keep, ranged, save
from torch import nn

from probdl.nn import seeded
from probdl.viz import guided_backprop, occlusion, saliency, tsne
from probdl.viz.embeddings.affinities import affinities
from probdl.viz.embeddings.similarity import Divergence

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
    parser.add_argument("--rounds", type=int, default=3, help="of t-SNE; 0 leaves it out")
    parser.add_argument("--map-rounds", type=int, default=9, help="of maps; 0 leaves them out")
    parser.add_argument("--calls", type=int, default=5, help="of each map in a round")
    parser.add_argument("--threads", type=int, default=1)
    add_flag(parser)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, {platform.machine()}, {options.threads} thread(s) of torch")
    if options.map_rounds:
        maps(options)
    if options.rounds:
        digits(options)
    save(options, __file__, ("captum", "openTSNE"))


def network():
    with seeded(0):
        return nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(1568, 10),
        ).eval()


def occlusions(model, x):
    """Return by side a function that returns the map of the first image, each pixel's mean drop."""
    from captum.attr import Occlusion

    theirs, windows = Occlusion(model), 25 * 25  # all of them at once

    def by_captum(at_once):
        return lambda: theirs.attribute(x[:1], (1, 4, 4), (1, 1, 1), 0.0, 3, perturbations_per_eval=at_once)[:, 0]

    sides = {"probdl": lambda: occlusion(model, x[:1], 3, window=4).map, "Captum, 1 a pass": by_captum(1)}
    return sides | {f"Captum, {k} a pass": by_captum(k) for k in (8, 16, 32, 64, 128, windows)}


def saliencies(model, x):
    from captum.attr import Saliency

    theirs = Saliency(model)
    return {
        "probdl": lambda: saliency(model, x, 3),
        "Captum": lambda: theirs.attribute(x.clone().requires_grad_(), 3)[:, 0],
    }


def guided(model, x):
    from captum.attr import GuidedBackprop

    theirs = GuidedBackprop(model)
    return {
        "probdl": lambda: guided_backprop(model, x, 3),
        "Captum": lambda: theirs.attribute(x.clone().requires_grad_(), 3),
    }


def maps(options):
    model, g = network(), torch.Generator().manual_seed(0)
    x = torch.rand(16, 1, 28, 28, generator=g)
    warnings.simplefilter("ignore")  # Captum's, that it hooks modules
    for title, sides in (("occlusion", occlusions), ("saliency", saliencies), ("guided", guided)):
        compared(title, sides(model, x), options.map_rounds, options.calls)


def compared(title, sides, rounds, calls):
    """Print what each side takes, how much longer than ours, and how far its map is from ours."""
    ours, *others = sides
    results = {name: run() for name, run in sides.items()}
    seconds = {name: [] for name in sides}
    for number in range(rounds):
        for name in list(sides) if number % 2 == 0 else list(sides)[::-1]:
            cpu = time.process_time()
            for _ in range(calls):
                sides[name]()
            seconds[name].append((time.process_time() - cpu) / calls)
    print(f"\n{title}, {rounds} rounds of {calls} calls")
    print(f"  {ours:<20} {spread([1e3 * s for s in seconds[ours]])} ms CPU a call")
    title, columns = f"{title} of 28 × 28 pixels", ("ms of CPU a call", "its time ÷ ours", "largest difference")
    keep(title, side=ours, **dict(zip(columns, (ranged([1e3 * s for s in seconds[ours]]), "1", 0))))
    for name in others:
        ratios = [theirs / own for theirs, own in zip(seconds[name], seconds[ours])]
        apart = float((results[name] - results[ours]).abs().max())
        print(
            f"  {name:<20} {spread([1e3 * s for s in seconds[name]])} ms CPU a call; "
            f"times ours: {spread(ratios)}; largest difference {apart:.1e}"
        )
        cells = ranged([1e3 * s for s in seconds[name]]), ranged(ratios), apart
        keep(title, side=name, **dict(zip(columns, cells)))


def spread(values):
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


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
        ratios = ranged(theirs / ours for theirs, ours in zip(seconds[name], seconds["probdl.viz.tsne"]))
        cells = {"KL (nats)": kl, "trustworthiness": trust, "CPU s": ranged(seconds[name]), "its time ÷ ours": ratios}
        keep(f"t-SNE of {len(X)} digits, {options.iterations} iterations", side=name, **cells)


if __name__ == "__main__":
    main()
