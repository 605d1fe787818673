"""Training: a VAE, a convolutional classifier and an LSTM language model, against loops written by hand and pythae.

All sides train the same networks on the same rows with the same loss, batch size, number of epochs, floating type and
number of threads that torch may use, with Adam at the same rate. The hand-written loop is what one writes from the
tutorials: a ``DataLoader`` with ``shuffle=True`` and ``torch.optim.Adam``. pythae's side is its ``BaseTrainer`` with
its ``VAE`` around the same layers (its decoder's σ is fixed at 1, ours is learnt). Sides run one after the other in
alternating order; the ratio within a round is free of most of what else the machine does, and the ratio of CPU seconds
stands beside it. Data are standardised beforehand; imports and a first short run of each side are outside the clock.
What ``fit`` does beside the loop (checks, the final scale of a decoder from more passes over the rows, the best state
that it keeps) is inside.

    python benchmarks/training.py --rows 100000 --epochs 2
"""

import argparse
import io
import logging
import math
import platform
import statistics
import tempfile
import time
from contextlib import redirect_stderr, redirect_stdout

import torch
from results import add_flag, keep, ranged, save
from torch import nn
from torch.nn.functional import cross_entropy, softplus
from torch.utils.data import DataLoader, TensorDataset

from probdl.models import VAE, ImageClassifier, LanguageModel
from probdl.models.networks import chosen_decoder, chosen_encoder
from probdl.nn import CNN, seeded

BATCH, RATE, LATENT = 128, 1e-3, 2
WIDTH, WINDOW, STREAMS = 128, 64, 32  # of the language model


def table(rows):
    """Return standardised rows of 20 columns that lie near a curved surface."""
    g = torch.Generator().manual_seed(0)
    z, a = torch.randn(rows, 2, generator=g), torch.randn(2, 20, generator=g)
    x = torch.tanh(z @ a) + 0.1 * torch.randn(rows, 20, generator=g)
    return ((x - x.mean(0)) / x.std(0),)


def digits(rows):
    """Return the 8 × 8 digits of scikit-learn and their labels, repeated to the wanted number of rows, standardised."""
    from sklearn.datasets import load_digits

    found = load_digits()
    x, y = torch.tensor(found.images, dtype=torch.float32)[:, None] / 16, torch.tensor(found.target)
    times = math.ceil(rows / len(x))
    x, y = x.repeat(times, 1, 1, 1)[:rows], y.repeat(times)[:rows]
    return (x - x.mean()) / x.std(), y


def trained(modules, loader, epochs, loss, seed, clip=None):
    """Train as the tutorials do; return the mean loss of the last epoch."""
    torch.manual_seed(seed)
    parameters = [p for m in modules for p in m.parameters()]
    optimiser = torch.optim.Adam(parameters, lr=RATE)
    for _ in range(epochs):
        total = rows = 0
        for batch in loader:
            value = loss(*batch)
            optimiser.zero_grad()
            value.backward()
            if clip is not None:
                nn.utils.clip_grad_norm_(parameters, clip)
            optimiser.step()
            total, rows = total + value.item() * len(batch[0]), rows + len(batch[0])
    return total / rows


def vae_by_hand(data, epochs, seed):
    torch.manual_seed(seed)
    shape, size = data[0].shape[1:], data[0][0].numel()
    encoder, decoder = chosen_encoder(shape, 2 * LATENT, None), chosen_decoder(LATENT, shape, None)

    def loss(x):
        mean, raw = encoder(x).chunk(2, dim=1)
        scale = softplus(raw) + 1e-6
        z = mean + scale * torch.randn_like(scale)
        squares = (x - decoder(z)).pow(2).flatten(1).sum(1)
        variance = squares.detach().mean() / size + 1e-5
        nll = 0.5 * (squares / variance + size * torch.log(2 * math.pi * variance))
        kl = 0.5 * (mean.pow(2) + scale.pow(2) - 1 - 2 * scale.log()).sum(1)
        return (nll + kl).mean()

    return trained([encoder, decoder], DataLoader(TensorDataset(*data), BATCH, shuffle=True), epochs, loss, seed)


def vae_by_fit(data, epochs, seed):
    vae = VAE(LATENT, "gaussian", standardise="none", learning_rate=RATE)
    vae.fit(*data, epochs=epochs, batch_size=BATCH, validation=None, device="cpu", seed=seed, progress=False)
    return vae.history.loss.iloc[-1]


def vae_by_pythae(data, epochs, seed):
    import pythae.models
    from pythae.data.datasets import BaseDataset
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    torch.manual_seed(seed)
    shape = data[0].shape[1:]

    class Encoder(BaseEncoder):
        def __init__(self):
            super().__init__()
            self.net = chosen_encoder(shape, 2 * LATENT, None)

        def forward(self, x):
            mean, raw = self.net(x).chunk(2, dim=1)
            return ModelOutput(embedding=mean, log_covariance=raw)

    class Decoder(BaseDecoder):
        def __init__(self):
            super().__init__()
            self.net = chosen_decoder(LATENT, shape, None)

        def forward(self, z):
            return ModelOutput(reconstruction=self.net(z))

    config = pythae.models.VAEConfig(input_dim=tuple(shape), latent_dim=LATENT, reconstruction_loss="mse")
    model = pythae.models.VAE(config, encoder=Encoder(), decoder=Decoder())
    with tempfile.TemporaryDirectory() as folder, redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()):
        how = BaseTrainerConfig(
            output_dir=folder, num_epochs=epochs, learning_rate=RATE, per_device_train_batch_size=BATCH, seed=seed,
            no_cuda=True, keep_best_on_train=True,
        )  # fmt: skip
        BaseTrainer(model, BaseDataset(data[0], torch.ones(len(data[0]))), training_config=how).train()
    return math.nan  # its loss has another scale


def cnn_by_hand(data, epochs, seed):
    torch.manual_seed(seed)
    net = CNN(tuple(data[0].shape[1:]), 10)
    loader = DataLoader(TensorDataset(*data), BATCH, shuffle=True)
    return trained([net], loader, epochs, lambda x, y: cross_entropy(net(x), y), seed)


def cnn_by_fit(data, epochs, seed):
    net = ImageClassifier(standardise="none", learning_rate=RATE, decay=False)
    net.fit(*data, epochs=epochs, batch_size=BATCH, validation=None, device="cpu", seed=seed, progress=False)
    return net.history.loss.iloc[-1]


def text(characters):
    """Return text that comes with Python, repeated to the wanted length."""
    from pydoc_data.topics import topics

    found = "\n".join(topics.values())
    return (found * math.ceil(characters / len(found)))[:characters]


def lstm_by_hand(data, epochs, seed):
    torch.manual_seed(seed)
    index = {c: i for i, c in enumerate(sorted(set(data)))}
    tokens = torch.tensor([index[c] for c in data])
    rows = (len(tokens) - 1) // WINDOW
    x, y = (tokens[shift:][: rows * WINDOW].view(rows, WINDOW) for shift in (0, 1))
    embed, cell = nn.Embedding(len(index), 64), nn.LSTM(64, WIDTH, batch_first=True)
    out, loader = nn.Linear(WIDTH, len(index)), DataLoader(TensorDataset(x, y), STREAMS, shuffle=True)

    def loss(x, y):
        return cross_entropy(out(cell(embed(x))[0]).flatten(0, 1), y.flatten())

    return trained([embed, cell, out], loader, epochs, loss, seed, clip=5.0)


def lstm_by_fit(data, epochs, seed):
    model = LanguageModel(WIDTH, embedding=64, window=WINDOW, learning_rate=RATE, decay=False, clip=5.0)
    model.fit(data, epochs=epochs, batch_size=STREAMS, validation=None, device="cpu", seed=seed, progress=False)
    return model.history.loss.iloc[-1]


def timed(train, *args):
    wall, cpu = time.perf_counter(), time.process_time()
    loss = train(*args)
    return time.perf_counter() - wall, time.process_time() - cpu, loss


def compare(name, data, short, epochs, rounds, sides):
    """Time interleaved rounds and print the median ratios with their spread."""
    found = {label: [] for label in sides}
    for train in sides.values():
        train(short, 1, 0)
    for number in range(rounds):
        for label in list(sides) if number % 2 else list(sides)[::-1]:
            found[label].append(timed(sides[label], data, epochs, number))
    print(f"\n{name}, {epochs} epochs, {rounds} rounds")
    ours, *others = sides
    for label, runs in found.items():
        seconds, _, losses = zip(*runs)
        per = [s / epochs for s in seconds]
        said = f"; loss of the last epoch {statistics.mean(losses):.3f}" if math.isfinite(losses[0]) else ""
        print(f"  {label:<19} median {statistics.median(per):.3f} s an epoch ({min(per):.3f} to {max(per):.3f}){said}")
        cpu = ranged(theirs[1] / own[1] for theirs, own in zip(runs, found[ours]))
        loss = statistics.mean(losses) if said else "on another scale"
        keep(name, side=label, **{"seconds an epoch": ranged(per), "its CPU ÷ ours": cpu, "loss of the last": loss})
    for other in others:
        for clock, label in enumerate(("seconds", "CPU seconds")):
            ratios = sorted(a[clock] / b[clock] for a, b in zip(found[ours], found[other]))
            print(
                f"  {ours} ÷ {other}, {label}: median {statistics.median(ratios):.3f} "
                f"({ratios[0]:.3f} to {ratios[-1]:.3f})"
            )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=["vae", "cnn", "lstm"])
    add_flag(parser)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    logging.disable(logging.WARNING)
    print(f"torch {torch.__version__}, {platform.machine()}, {options.threads} thread(s)")
    with seeded(0):
        for name, task in TASKS.items():
            if options.only in (None, name):
                task(options)
    save(options, __file__, ("pythae",))


def vae(options):
    sides = {"VAE.fit": vae_by_fit, "DataLoader loop": vae_by_hand, "pythae": vae_by_pythae}
    title = f"VAE: MLPs on a table of {options.rows} × 20, batch {BATCH}"
    compare(title, table(options.rows), table(2 * BATCH), options.epochs, options.rounds, sides)


def cnn(options):
    rows = max(2 * BATCH, options.rows // 10)
    sides = {"ImageClassifier.fit": cnn_by_fit, "DataLoader loop": cnn_by_hand}
    title = f"CNN: {rows} digits of 8 × 8, batch {BATCH}"
    compare(title, digits(rows), digits(2 * BATCH), options.epochs, options.rounds, sides)


def lstm(options):
    characters = max(2 * STREAMS * WINDOW, 2 * options.rows)
    sides = {"LanguageModel.fit": lstm_by_fit, "DataLoader loop": lstm_by_hand}
    title = f"LSTM of {WIDTH}: {characters} characters of text in {STREAMS} windows of {WINDOW}"
    compare(title, text(characters), text(2 * STREAMS * WINDOW), options.epochs, options.rounds, sides)


TASKS = {"vae": vae, "cnn": cnn, "lstm": lstm}

if __name__ == "__main__":
    main()
