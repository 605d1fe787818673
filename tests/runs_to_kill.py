"""Runs of the loops that a test kills and takes up again; they use all that a checkpoint must hold."""

import os

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from probdl.loops import cosine, descend, duel, one_thread
from probdl.models import VAE
from probdl.nn import MLP, seeded

ROWS = 90


def table():
    g = torch.Generator().manual_seed(1)
    x = torch.randn(ROWS, 4, generator=g)
    return x, x.sin().sum(1, keepdim=True) + 0.1 * torch.randn(ROWS, 1, generator=g)


class Noisy(nn.Module):
    """A network with dropout (the global generator), a buffer that moves, and noise from the loss's generator."""

    def __init__(self):
        super().__init__()
        with seeded(3):
            self.net = nn.Sequential(
                MLP(4, 8, hidden=()), nn.Dropout(0.3), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 1)
            )

    def loss(self, batch, noise):
        x, y = batch
        moved = x + 0.1 * torch.randn(x.shape, generator=noise)
        value = (self.net(moved) - y).square().mean()
        return value, {"size": moved.square().mean()}


def _counted(loss, count):
    def counting(batch, noise):
        count.value += 1
        return loss(batch, noise)

    return counting


def descent(path, resume, count, data="rows", steps=200):
    module, (x, y) = Noisy(), table()
    rows = (x, y)
    if data == "loader":
        rows = DataLoader(TensorDataset(x, y), batch_size=16, shuffle=True)
    how = descend(
        module, _counted(module.loss, count), rows, validation=(x[:20], y[:20]), steps=steps, batch_size=16, clip=1.0,
        learning_rate=cosine(0.02, warm_up=0.1), ema=0.9, checkpoint=path, checkpoint_seconds=0.0, resume=resume,
        seed=5, progress=False,
    )  # fmt: skip
    return module, how


def game(path, resume, count, steps=80):
    with seeded(4):
        critic, generator = MLP(1, 1, hidden=(8,)), nn.Sequential(nn.Linear(2, 8), nn.Dropout(0.2), nn.Linear(8, 1))
    both = nn.ModuleDict({"critic": critic, "generator": generator})

    def fake(rows, noise):
        return generator(torch.randn(len(rows), 2, generator=noise))

    def gap(batch, noise):
        return critic(fake(batch[0], noise)).mean() - critic(batch[0]).mean()

    def slope(module):
        for p in module.parameters():
            p.data.clamp_(-0.3, 0.3)

    how = duel(
        critic, generator, _counted(gap, count), lambda b, g: -gap(b, g), (table()[1],), steps=steps, critic_steps=2,
        batch_size=32, after_critic=slope, ema=0.9, score=lambda g: fake(torch.zeros(64), g).mean().abs(), every=7,
        learning_rates=(0.01, cosine(0.01)), checkpoint=path, checkpoint_seconds=0.0, resume=resume, seed=6,
        progress=False,
    )  # fmt: skip
    return both, how


def model(path, resume, count, steps=60):
    class Counting(VAE):
        def _train(self, loss, data, **how):
            return super()._train(_counted(loss, count), data, checkpoint_seconds=0.0, **how)

    vae = Counting(2, hidden=(8,), draws=2)
    vae.fit(table()[0], steps=steps, batch_size=32, checkpoint=path, resume=resume, seed=8, progress=False)
    return vae, vae


RUNS = {
    "model": model,
    "rows": descent,
    "loader": lambda *how, **more: descent(*how, data="loader", **more),
    "duel": game,
}


def run(kind, path, resume, count, result, **more):
    """Run to the end, in a process of its own, and write what came out."""
    with one_thread():
        module, how = RUNS[kind](path, resume, count, **more)
    torch.save({"module": module.state_dict(), "history": how.history.drop(columns="seconds"), "message": how.message},
               f"{result}.part")  # fmt: skip
    os.replace(f"{result}.part", result)
