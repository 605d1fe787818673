r"""Draws for the moments of a tilted distribution, the exact likelihood of one group under the rest (its cavity).

For draws :math:`z_i` from a proposal r and ratios :math:`\rho_i = f_k(z_i)/r(z_i)`, the moments under any cavity c are
weighted by :math:`c(z_i)\rho_i`: the group is seen once, its moments are matched as often as the cavities change.

*Importance sampling*: the proposal is the present approximation q, which at the fixed point has the moments of every
tilted distribution. Its draws come from a scrambled Sobol sequence and are shifted and scaled to have exactly the mean
and the covariance of q; so where the likelihood is nearly Gaussian the moments have nearly no error, however few draws
there are. A group's own latents are proposed at their mode given z, with the curvature there.

*NUTS*: draws of the tilted distribution itself, so that :math:`\rho = 1/c`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace

import torch
from torch import Tensor

from probdl.errors import ConvergenceError
from probdl.inference.groups.density import GroupDensity
from probdl.inference.groups.inner import find_blocks, find_modes
from probdl.inference.nuts import NUTS, _Potential
from probdl.inference.programs.derivatives import recorded_gradient, value_and_gradient
from probdl.inference.programs.recording import NotRecordable


@dataclass(frozen=True)
class TiltedDraws:
    """Draws of one group.

    Attributes:
        z: of the shared latents, (n, d).
        own: of the group's own latents, (n, m).
        log_ratio: log ρ, (n,).
        normalised: whether they are importance draws, so that ρ holds all constants.
        exact: whether the draws of z have exactly the mean and the covariance of q.
        effective: the number of independent draws that they are worth.
        rhat: the largest split R-hat of a sampler, else 1.
    """

    z: Tensor
    own: Tensor
    log_ratio: Tensor
    normalised: bool
    exact: bool
    effective: float
    rhat: float = 1.0


def importance_draws(
    density: GroupDensity, mean: Tensor, root: Tensor, draws: int, seed: int, wide: bool = False
) -> TiltedDraws:
    """Return at least ``draws`` draws of q = N(mean, root rootᵀ), with the likelihood of the group there over q.

    Where ``wide``, half of the draws are further out by a factor of 1 + d^(−1/2), for tilted distributions with
    heavier tails than q: the proposal is then the mixture of both.
    """
    draws = max(enough_draws(draws, density.dim), 32 * 2 ** math.ceil(math.log2(density.dim + density.own)))
    noise = standard_draws(draws, density.dim + density.own, seed).to(mean)
    e, xi = noise[:, : density.dim], noise[:, density.dim :]
    e, log_e = _widened(e) if wide else (e, _log_standard(e))
    z = mean + e @ root.T
    own, log_own = _own_draws(density, z, xi)
    log_q = log_e - root.diagonal().log().sum()
    log_ratio = density.values(z, own) - log_own - log_q
    if not bool(torch.isfinite(log_ratio).any()) or bool(torch.isnan(log_ratio).any()):
        bad = int((~torch.isfinite(log_ratio)).sum())
        raise ConvergenceError(
            f"The likelihood of a group is zero or NaN at {bad} of {draws} draws of the approximation. Use logits= in "
            "place of probs=, or give scales tighter priors."
        )
    return TiltedDraws(z, own, log_ratio, True, not wide, float(draws))


def _own_draws(density: GroupDensity, z: Tensor, xi: Tensor) -> tuple[Tensor, Tensor]:
    """Return own latents at their modes given z with the curvature there, and their log proposal density."""
    if not density.own:
        return xi, torch.zeros_like(z[:, 0])
    blocks = find_blocks(density)
    modes = find_modes(density, blocks, z, density.start[1])
    step = torch.linalg.solve_triangular(modes.root.mT, blocks.split(xi)[..., None], upper=True)[..., 0]
    return modes.own + blocks.join(step), _log_standard(xi) + modes.half_log_det()


def _widened(e: Tensor) -> tuple[Tensor, Tensor]:
    """Move half of the standard draws out; return them with their density under the mixture.

    The halves of a Sobol sequence are both spread evenly; its even and odd members are not.
    """
    d = e.shape[1]
    factor = 1 + d**-0.5  # a constant factor would leave the draws of many dimensions without weight
    scale = torch.where(torch.arange(len(e), device=e.device) < len(e) // 2, 1.0, factor).to(e)
    e = scale[:, None] * e
    parts = torch.stack([_log_standard(e), _log_standard(e / factor) - d * math.log(factor)])
    return e, torch.logsumexp(parts, 0) - math.log(2)


def _log_standard(e: Tensor) -> Tensor:
    return -0.5 * (e**2).sum(1) - 0.5 * e.shape[1] * math.log(2 * math.pi)


def standard_draws(n: int, dim: int, seed: int) -> Tensor:
    """Return standard Normal draws (n, dim) whose mean is exactly zero and whose covariance is the identity."""
    engine = torch.quasirandom.SobolEngine(dim, scramble=True, seed=seed + 1)
    e = torch.special.ndtri(engine.draw(n, dtype=torch.float64).clamp(2.0**-40, 1 - 2.0**-40))
    e = e - e.mean(0)
    root = torch.linalg.cholesky(e.T @ e / n)
    return torch.linalg.solve_triangular(root, e.T, upper=False).T


def enough_draws(draws: int, dim: int) -> int:
    """Return a power of 2, at least ``draws`` and 8 for every first and second moment of ``dim`` entries."""
    return 2 ** math.ceil(math.log2(max(draws, 4 * dim * (dim + 3))))


def sampled_draws(
    density: GroupDensity, mean: Tensor, root: Tensor, shift: Tensor, precision: Tensor, sampler: NUTS, seed: int
) -> TiltedDraws:
    """Return draws of the tilted distribution under the cavity exp(shiftᵀz − ½ zᵀ precision z), by NUTS.

    The sampler moves in coordinates in which q, with the own latents at their mode, is a standard Normal.
    """
    from pyro.ops.stats import effective_sample_size, split_gelman_rubin

    centre, whole = _whitened(density, mean, root)

    def log_tilted(x: Tensor) -> Tensor:
        z = x[: density.dim]
        return density.graph(z, x[density.dim :]) + shift @ z - 0.5 * z @ (precision @ z)

    gradient_and_value = _with_gradient(log_tilted, centre)
    like = SimpleNamespace(dim=len(centre), dtype=mean.dtype, device=mean.device)
    kept, _ = sampler._sample(_Potential(gradient_and_value, centre, whole), like, seed, False)  # type: ignore[arg-type]
    chains = centre + torch.stack([torch.stack(chain.draws) for chain in kept]) @ whole.T
    halves = torch.cat(chains[:, : 4 * (chains.shape[1] // 4)].chunk(2, 1))
    flat = chains.flatten(0, 1)
    z, own = flat[:, : density.dim], flat[:, density.dim :]
    log_cavity = z @ shift - 0.5 * ((z @ precision) * z).sum(1)
    effective = float(effective_sample_size(halves[..., : density.dim]).min())
    return TiltedDraws(z, own, -log_cavity, False, False, effective, float(split_gelman_rubin(halves).max()))


def _with_gradient(f: Callable[[Tensor], Tensor], like: Tensor) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Return x → (gradient, value), recorded as one graph where that is possible."""
    try:
        recorded = recorded_gradient(f, like)
        return lambda x: recorded(x)[::-1]
    except NotRecordable:
        return lambda x: value_and_gradient(f, x)[::-1]


def _whitened(density: GroupDensity, mean: Tensor, root: Tensor) -> tuple[Tensor, Tensor]:
    """Return centre and root of q with the own latents at their mode given its mean."""
    if not density.own:
        return mean, root
    own, below = density.start[1], torch.eye(density.own, dtype=mean.dtype, device=mean.device)
    try:
        blocks = find_blocks(density)
        modes = find_modes(density, blocks, mean[None], own)
        inverse = torch.linalg.solve_triangular(
            modes.root.mT, torch.eye(blocks.size, dtype=mean.dtype).to(mean).expand_as(modes.root), upper=True
        )
        own = modes.own[0]
        columns = [blocks.join(blocks.split(e[None])[..., None, :].mul(inverse).sum(-1))[0] for e in below]
        below = torch.stack(columns, 1)
    except ConvergenceError:
        pass  # plain coordinates: NUTS finds its own scales
    return torch.cat([mean, own]), torch.block_diag(root, below)
