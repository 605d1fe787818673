"""Expected statistics by quadrature on the line, for a distribution and for an unnormalised log-density."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Distribution, biject_to, constraints

from probdl.access import LogDensity
from probdl.divergences.distributions import log_density
from probdl.divergences.quadrature import edges_of, integrate
from probdl.natural.exponential import ExponentialFamily
from probdl.natural.supports import is_lattice, support_of_family

Function = Callable[[Tensor], Tensor]
REACH, LOG_REACH = 1e20, 300.0  # of the search on the line, and for a variable that is exponentiated
ZOOMS, POINTS = 25, 65
MODES, FAINT = 20, 60.0  # the modes that are followed, and how far below the highest, in nats, one is left out


def over_distribution(family: ExponentialFamily, p: Distribution) -> tuple[Tensor, Tensor]:
    """Return E_p[u] of a continuous distribution on the line, and a bound on its error."""
    return _ratio(family, lambda z: log_density(p, z[:, None]), lambda z: z, edges_of(p))


def over_density(family: ExponentialFamily, p: LogDensity) -> tuple[Tensor, Tensor]:
    """Return E_p[u] under a density on the support of the family, and a bound on its error.

    The support is mapped to the line, and pieces are laid around the modes that a scan of it finds.

    Raises:
        ValueError: for a discrete family, or a density in more dimensions.
    """
    if p.dim != 1 or family.event or is_lattice(family):
        raise ValueError(
            f"A LogDensity is matched in one dimension, to a continuous family; got dim {p.dim} and {family.name}. "
            "Pass draws, such as those of a fitted posterior, or a torch Distribution."
        )
    if family.name == "VonMises":
        return _ratio(family, lambda z: _checked(p, z), lambda z: z, torch.linspace(-math.pi, math.pi, 65).double())
    support = support_of_family(family)
    to_support, reach = biject_to(support), REACH if support is constraints.real else LOG_REACH

    def log_p(t: Tensor) -> Tensor:
        z = to_support(t)
        # Rounding may carry z to the border.
        inside = (t.abs() <= reach) & support.check(z) & torch.isfinite(family.statistics(z)).all(1)
        value = _checked(p, torch.where(inside, z, to_support(torch.zeros_like(t))))
        return torch.where(inside, value + to_support.log_abs_det_jacobian(t, z), -torch.inf)

    modes = _modes(log_p, reach)
    return _ratio(family, lambda t: log_p(t) - modes[0][1], to_support, _pieces(log_p, modes, reach))


def _checked(p: LogDensity, z: Tensor) -> Tensor:
    value = p(z[:, None]).detach().double()
    if bool((torch.isnan(value) | (value == torch.inf)).any()):
        at = z[int((torch.isnan(value) | (value == torch.inf)).nonzero()[0])]
        raise ValueError(f"The log-density of p must be finite or minus infinity; it is {float(p(at[None, None])):g}"
                         f" at {float(at):g}.")  # fmt: skip
    return value


def _modes(log_p: Function, reach: float) -> list[tuple[float, float]]:
    """Scan the line, more finely near zero, and return the local maxima and their heights, the highest first."""
    steps = torch.logspace(-6, math.log10(reach), 600, dtype=torch.float64)
    net = torch.linspace(-50, 50, 2001).double()
    t = torch.cat([-steps, torch.zeros(1).double(), steps, net]).sort().values
    t = t[t.abs() <= reach]
    value = log_p(t)
    if float(value.max()) == -math.inf:
        raise ValueError("The log-density of p is minus infinity wherever it was looked at: p has no mass to match.")
    end = torch.full((1,), -torch.inf, dtype=torch.float64)
    padded = torch.cat([end, value, end])
    peaks = ((value > -torch.inf) & (value >= padded[:-2]) & (value >= padded[2:])).nonzero().flatten()
    peaks = peaks[value[peaks].argsort(descending=True)][:MODES]
    found = [_zoomed(log_p, t[max(k - 1, 0)], t[min(k + 1, len(t) - 1)], t[k]) for k in peaks.tolist()]
    return sorted(found, key=lambda mode: -mode[1])


def _zoomed(log_p: Function, low: Tensor, high: Tensor, best: Tensor) -> tuple[float, float]:
    """Return the highest point between two, of which one is known."""
    for _ in range(ZOOMS):
        t = torch.cat([torch.linspace(0, 1, POINTS).double() * (high - low) + low, best[None]]).sort().values
        value = log_p(t)
        k = int(value.argmax())
        low, high, best, top = t[max(k - 1, 0)], t[min(k + 1, len(t) - 1)], t[k], value[k]
    return float(best), float(top)


def _pieces(log_p: Function, modes: list[tuple[float, float]], reach: float) -> Tensor:
    """Edges around each mode that is not negligible beside the highest."""
    edges = [_around(log_p, mode, top) for mode, top in modes if top > modes[0][1] - FAINT]
    last = torch.tensor(
        [-0.9 * reach, 0.9 * reach]
    ).double()  # so that what the outermost pieces hold tells of divergence
    return torch.cat([*edges, last]).clamp(-reach, reach).unique()


def _around(log_p: Function, mode: float, top: float) -> Tensor:
    """Edges at the mode ± width·4^k, the width being where the density falls to 60% of its height, and an even net."""
    widths = 2.0 ** torch.arange(-60, 70, dtype=torch.float64)
    falls = torch.minimum(top - log_p(mode + widths), top - log_p(mode - widths))
    fallen = (falls > 0.5).nonzero().flatten()
    width = widths[int(fallen[0])] if len(fallen) else torch.tensor(1.0).double()
    steps = width * 4.0 ** torch.arange(-2, 101, dtype=torch.float64)
    net = mode + 8 * width * torch.linspace(-1, 1, 33).double()
    return torch.cat([mode - steps, torch.tensor([mode]).double(), mode + steps, net])


def _ratio(family: ExponentialFamily, log_p: Function, to_support: Function, edges: Tensor) -> tuple[Tensor, Tensor]:
    """Integrate p and p·u, and divide."""

    def columns(t: Tensor) -> Tensor:
        p, z = log_p(t).exp(), to_support(t)
        # 0·∞ = 0: where p vanishes, u does not matter.
        u = torch.where(p[:, None] > 0, family.statistics(z), 0.0)
        return torch.cat([p[:, None], p[:, None] * u], 1)

    result = integrate(columns, edges)
    total, sums = result.pieces[:, 0].sum(), result.pieces[:, 1:].sum(0)
    mean, size = sums / total, result.pieces[:, 1:].abs().sum(0) / total
    outermost = result.pieces[[0, -1]].abs().amax(0) / torch.cat([total[None], (size + 1e-3) * total])
    if not bool(torch.isfinite(mean).all()) or bool((outermost > 1e-6).any() and _unbounded(to_support, edges)):
        raise ValueError(
            f"The moments E[u] of p for {family.name} diverge, or hang on values of p too close to the end of the "
            "support for rounding. Choose a family whose moments p has."
        )
    return mean, (result.bound[1:] + result.bound[0] * mean.abs()) / total


def _unbounded(to_support: Function, edges: Tensor) -> bool:
    """Whether the outermost pieces stand for an unbounded tail: not on the circle, nor at the ends of a density."""
    return float(edges.abs().max()) >= LOG_REACH
