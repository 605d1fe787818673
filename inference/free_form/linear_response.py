r"""Linear response: what mean field loses in spread, recovered from how the optimum moves.

Tilting the posterior by :math:`e^{t g(z)}` moves the mean of g by t times its variance. Under the mean field, the
factor that holds g gets the expected statistics u + t c, with :math:`c = \partial E[g] / \partial\eta`; all others
follow by sweeps, and move its natural parameters in turn. Hence

.. math:: \mathrm{Var}_{LR}(g) = \mathrm{Var}_q(g) + \frac{d}{dt} E_{\eta(t)}[g],

by central differences between two tilted optima, which few sweeps reach from the untilted one.

Source: Giordano, Broderick & Jordan (2018), *Covariances, robustness, and variational Bayes*, JMLR 19.
"""

from __future__ import annotations

import torch
from torch import Tensor

from probdl.inference.free_form.answers import marginals_of
from probdl.inference.free_form.ascent import FreeForm
from probdl.inference.free_form.blocks import Block
from probdl.inference.free_form.marginals import DiscreteMarginals, Marginals

MOST = 300  # entries of one site
_TILT = 1e-3  # of a mean, in sd units
_SWEEPS = 400
_CLOSE = 1e-4  # of the variance, at which the response is taken as found


def responses(field: FreeForm) -> dict[str, Tensor]:
    """Return the linear-response sd of each continuous site; NaN for sites of more than 300 entries."""
    optimum = field.state()
    out: dict[str, Tensor] = {}
    for block in field.blocks:
        marginals = marginals_of(block)
        if not isinstance(marginals, DiscreteMarginals):
            out |= {name: _site(field, block, marginals, name) for name in block.names}
            field.restore(optimum)
    return out


def narrowest(field: FreeForm, most: int) -> tuple[str, float] | None:
    """Return the site whose sd falls shortest of linear response, and the ratio; None above ``most`` entries.

    It is also left alone where there are discrete latents, whose sweeps are many.
    """
    blocks = [marginals_of(b) for b in field.blocks]
    if any(isinstance(m, DiscreteMarginals) for m in blocks):
        return None
    if sum(m.sd(name).numel() for m in blocks for name in m.block.names) > most:
        return None
    found = responses(field)
    ratios = {name: float((found[name] / m.sd(name)).nan_to_num().max()) for m in blocks for name in m.block.names}
    return max(ratios.items(), key=lambda pair: pair[1])


def _site(field: FreeForm, block: Block, marginals: Marginals, name: str) -> Tensor:
    sd = marginals.sd(name)
    if sd.numel() > MOST:
        return torch.full_like(sd, torch.nan)
    optimum = field.state()
    flat = sd.reshape(-1)
    squared = []
    for entry in range(len(flat)):
        if not 0 < float(flat[entry]) < float("inf"):  # such as an inverse Gamma of few observations, without variance
            squared.append(flat.new_tensor(torch.nan))
            continue
        c = _directions(block, marginals, name, entry)
        step = _TILT / float(flat[entry])
        moved = [_tilted_mean(field, optimum, block, marginals, name, entry, c, t) for t in (step, -step)]
        squared.append(flat[entry] ** 2 + (moved[0] - moved[1]) / (2 * step))
    var = torch.stack(squared)
    return torch.where(var > 0, var, torch.full_like(var, torch.nan)).sqrt().reshape(sd.shape)


def _directions(block: Block, marginals: Marginals, name: str, entry: int) -> tuple[Tensor, ...]:
    """How the expected statistics move with a tilt of one entry: ∂E[g]/∂η, one tensor for each of the moments."""
    state = block.state()
    leaves = tuple(x.detach().clone().requires_grad_() for x in state)
    with torch.enable_grad():
        block.restore(leaves)
        mean = marginals.mean(name).reshape(-1)[entry]
        found = torch.autograd.grad(mean, leaves, allow_unused=True)
    block.restore(state)
    slopes = tuple(torch.zeros_like(x) if g is None else g for x, g in zip(leaves, found))
    convert = getattr(block, "by_gradient", None)
    return slopes if convert is None else convert(*slopes)


def _tilted_mean(
    field: FreeForm,
    optimum: list[tuple[Tensor, ...]],
    tilted: Block,
    marginals: Marginals,
    name: str,
    entry: int,
    c: tuple[Tensor, ...],
    t: float,
) -> float:
    """The mean of an entry under the natural parameters that its factor has where all others follow the tilt."""
    field.restore(optimum)
    tilted.moments = tuple(m + t * x.reshape(m.shape) for m, x in zip(tilted.moments, c))
    scale = abs(t) * float(marginals.sd(name).reshape(-1)[entry]) ** 2
    means: list[float] = []
    for _ in range(_SWEEPS):
        for block in field.blocks:
            field.plain_update(block)
            if block is tilted:
                means.append(float(marginals.mean(name).reshape(-1)[entry]))
                block.moments = tuple(m + t * x.reshape(m.shape) for m, x in zip(block.moments, c))
        if len(means) > 3 and abs(_limit(means[-3:]) - _limit(means[-4:-1])) < _CLOSE * scale:
            break
    return _limit(means[-3:])


def _limit(means: list[float]) -> float:
    """Aitken's limit of a sequence that converges geometrically, or its last member where it stands still."""
    a, b, c = means
    bend = (c - b) - (b - a)
    return c if abs(bend) <= 1e-14 * (1 + abs(c)) else c - (c - b) ** 2 / bend
