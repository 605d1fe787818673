"""A script as a user writes it: the same for one process, and for several under torchrun. Its argument: a folder."""

import os
import sys
from pathlib import Path

import torch
from torch import nn

from probdl import divergences, files
from probdl.loops import NotFiniteError, cosine, descend, duel
from probdl.models import VAE
from probdl.nn import MLP

FOLDER, PART = Path(sys.argv[1]), sys.argv[2]
RANK = os.environ.get("RANK", "0")


def table(rows=101):
    g = torch.Generator().manual_seed(1)
    x = torch.randn(rows, 3, generator=g, dtype=torch.float64)
    return x, x.sin().sum(1, keepdim=True), torch.randn(rows, 3, generator=g, dtype=torch.float64)


def descent():
    torch.manual_seed(int(RANK))  # other weights in each process: the first one's count
    net, (x, y, _) = MLP(3, 1, hidden=(8,)).double(), table()
    seen = []

    def loss(batch, noise):
        if net.training:
            seen.append(len(batch[0]))
        return (net(batch[0]) - batch[1]).square().mean()

    how = descend(
        net, loss, (x, y), validation=(x[:31], y[:31]), epochs=12, batch_size=20, clip=1.0, ema=0.9, seed=3,
        learning_rate=cosine(0.02), checkpoint=FOLDER / "checkpoint", progress=False,
    )  # fmt: skip
    return net, how, seen


def game():
    torch.manual_seed(5)
    critic, generator = MLP(3, 1, hidden=(8,)).double(), MLP(3, 3, hidden=(8,)).double()
    x, _, z = table()

    def critic_loss(batch, noise):
        rows, codes = batch
        gap = (critic(generator(codes).detach()) - critic(rows)).mean()
        mid = (rows + generator(codes).detach()).div(2).requires_grad_()
        slope = torch.autograd.grad(critic(mid).sum(), mid, create_graph=True)[0]
        return gap + slope.norm(dim=1).sub(1).square().mean(), {"gap": gap}

    how = duel(
        critic, generator, critic_loss, lambda b, noise: -critic(generator(b[1])).mean(), (x, z), steps=40, seed=3,
        critic_steps=2, batch_size=32, ema=0.9, score=lambda g: (generator(z).mean(0) - x.mean(0)).norm(), every=10,
        learning_rates=(0.01, 0.01), progress=False,
    )  # fmt: skip
    return nn.ModuleDict({"critic": critic, "generator": generator}), how, []


def model():
    vae = VAE(1, hidden=(4,), dtype=torch.float64).fit(table()[0], epochs=4, batch_size=16, progress=False)
    vae.save(FOLDER / "vae")
    if RANK == "0":  # a critic is trained by each process alone: nobody waits for the others
        divergences.f_divergence(table()[0], vae.sample(100))
    return vae, vae, []


def noisy():
    torch.manual_seed(2)
    net, (x, y, _) = nn.Sequential(MLP(3, 6, hidden=()), nn.Dropout(0.3), nn.Tanh(), nn.Linear(6, 1)).double(), table()

    def loss(batch, noise):
        moved = batch[0] + 0.1 * torch.randn(batch[0].shape, generator=noise, dtype=torch.float64)
        return (net(moved) - batch[1]).square().mean()

    how = descend(
        net, loss, (x, y), validation=(x[:31], y[:31]), epochs=int(sys.argv[3]), batch_size=20, ema=0.9, seed=3,
        learning_rate=0.02, checkpoint=FOLDER / "checkpoint", resume=True, progress=False,
    )  # fmt: skip
    return net, how, []


def broken():
    net, (x, y, _) = MLP(3, 1).double(), table()
    calls = []

    def loss(batch, noise):
        calls.append(1)
        bad = float("nan") if RANK == "1" and len(calls) == 7 else 0.0  # in one process only
        return (net(batch[0]) - batch[1]).square().mean() + bad

    try:
        descend(net, loss, (x, y), epochs=4, batch_size=20, progress=False)
    except NotFiniteError as error:
        (FOLDER / f"error {RANK}").write_text(str(error))
    raise SystemExit


module, how, seen = {"descent": descent, "game": game, "model": model, "noisy": noisy, "broken": broken}[PART]()
history = how.history.drop(columns="seconds")
os.environ.pop("WORLD_SIZE", None)  # from here on, each process writes for itself
columns = {c: history[c].tolist() for c in history}
header = {"columns": {c: [repr(v) for v in values] for c, values in columns.items()}, "seen": seen}
files.write(FOLDER / f"result {RANK}", module.state_dict(), header)
