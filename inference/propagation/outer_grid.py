"""Expectation propagation with a few latents outside: a solution at each node of a lattice, weighted by evidence."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from probdl.divergences.estimate import Estimate
from probdl.errors import ConvergenceError
from probdl.inference.posterior import Posterior
from probdl.inference.posteriors.grid_mixture import GridMixture
from probdl.inference.posteriors.lattice import Cells, Lattice, explore_lattice
from probdl.inference.programs.program import Program
from probdl.inference.propagation.evidence import Evidence
from probdl.inference.propagation.factors import Factors, NotApplicable
from probdl.inference.propagation.report import describe, named, powers, site_notes
from probdl.inference.propagation.solving import Attempt, Solution, Start, solve

if TYPE_CHECKING:
    import pandas as pd

MOST_OUTSIDE = 3  # entries of latents that a lattice can hold
_SPACING = {1: 0.5, 2: 0.75, 3: 1.0}  # in sds at the mode
_MOST_HELD = 60_000_000  # numbers in the covariances of all nodes
_FAR = 1e10
_REFINEMENTS = 3
_CLOSE = 0.01  # sds, by which interpolated moments may differ from sums over the nodes
_ENOUGH = 1e-5  # sds: the evidence errs by the square of the distance to the fixed point


def explore(program: Program, outside: tuple[str, ...], attempt: Attempt, progress: bool | None = None) -> Posterior:
    """Return the posterior with the named latents on a lattice.

    Raises:
        NotApplicable: if they have more than three entries.
        ConvergenceError: if there is no mode, or no fixed point at a node.
    """
    _check_size(program, outside)
    factors = Factors(program, outside)
    attempt = replace(attempt, tolerance=max(attempt.tolerance, _ENOUGH))
    evidence = Evidence(factors, attempt)
    mode = _mode(evidence, factors.start)
    root = _root(evidence, mode)
    first, spacing = evidence.solution(mode), _SPACING[len(mode)]
    for _ in range(_REFINEMENTS):
        walk = _Walk(factors, attempt, first)
        cells = Cells.of(explore_lattice(walk, mode, root, spacing))
        if cells.error() < _CLOSE and not cells.lattice.has_cliffs():
            break
        spacing /= 2
    return _posterior(program, factors, walk, cells)


def _check_size(program: Program, outside: tuple[str, ...]) -> None:
    sizes = {k: program.latents[k].place.stop - program.latents[k].place.start for k in outside}
    if sum(sizes.values()) > MOST_OUTSIDE:
        held = ", ".join(f"{k!r} ({n})" for k, n in sizes.items())
        raise NotApplicable(
            f"Expectation propagation holds latents that are not Gaussian given the others on a grid of at most "
            f"{MOST_OUTSIDE} entries; this model has {sum(sizes.values())}: {held}. Name some in optimise=, or use "
            "method='meanfield' or 'nuts'."
        )


def _mode(evidence: Evidence, start: Tensor) -> Tensor:
    """The mode of the density of φ on unconstrained space."""
    from scipy.optimize import minimize

    failures: list[str] = []

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        try:
            value, gradient = evidence(torch.as_tensor(x).to(start))
        except (ConvergenceError, torch.linalg.LinAlgError) as error:
            failures.append(str(error))
            return _FAR, np.zeros_like(x)
        return -value, -gradient.cpu().double().numpy()

    result = minimize(loss, start.cpu().double().numpy(), jac=True, method="BFGS", options={"gtol": 1e-3})
    if not result.fun < _FAR:
        raise ConvergenceError(failures[0])
    if np.abs(result.jac).max() > 1.0:
        raise ConvergenceError(
            f"The density of the latents that are held on a grid has no maximum that could be found: {result.message} "
            f"{' '.join(failures[-1:])} Give them proper priors, or use method='nuts'."
        )
    return torch.as_tensor(result.x).to(start)


def _root(evidence: Evidence, mode: Tensor) -> Tensor:
    """The lower root of the inverse curvature at the mode, by differences of gradients; wide where it is flat."""
    step, eye = 0.05, torch.eye(len(mode)).to(mode)
    slopes = [(evidence(mode - step * e)[1] - evidence(mode + step * e)[1]) / (2 * step) for e in eye]
    curvature = torch.stack(slopes)
    values, vectors = torch.linalg.eigh((curvature + curvature.T) / 2)
    covariance = (vectors / values.clamp(min=0.1)) @ vectors.T  # no sd above three: priors on logarithms are tighter
    return torch.linalg.cholesky(covariance)


class _Walk:
    """The solutions at the nodes, each started from that of a neighbour."""

    def __init__(self, factors: Factors, attempt: Attempt, first: Solution) -> None:
        self.factors, self.attempt, self.first = factors, attempt, first
        self.worst = first  # of all, the one with the most sites of negative precision
        self.starts: list[Start] = []
        self.moments: list[tuple[Tensor, Tensor]] = []
        self.rows: list[dict[str, float]] = []

    def __call__(self, phi: Tensor, neighbour: int | None) -> float:
        start = self.first.start() if neighbour is None else self.starts[neighbour]
        solution = solve(self.factors, phi, self.attempt, start, progress=False)
        value = solution.log_evidence()
        self.starts.append(solution.start())
        self._keep(solution.mean, solution.covariance())
        self.worst = max(self.worst, solution, key=lambda s: sum(g.negative for g in s.state.groups))
        sweeps = len(solution.history.rows)
        row = {"point": len(self.starts), "sweeps": sweeps, "gap": solution.history.last, "log density": value}
        self.rows.append(row)
        return value

    def _keep(self, mean: Tensor, covariance: Tensor) -> None:
        """Hold the moments of a node, as long as those of all fit the memory."""
        if len(self.starts) * covariance.numel() > _MOST_HELD:
            raise NotApplicable(
                f"A grid with a covariance of {len(mean)} latents at each of more than {len(self.moments)} nodes does "
                f"not fit the memory. Name {', '.join(map(repr, self.factors.outside))} in optimise=."
            )
        self.moments.append((mean, covariance))

    def history(self) -> pd.DataFrame:
        """One row for each node."""
        import pandas as pd

        return pd.DataFrame(self.rows)


def _posterior(program: Program, factors: Factors, walk: _Walk, cells: Cells) -> Posterior:
    means, covariances = (torch.stack(each) for each in zip(*walk.moments))
    inner, outer = factors.given.inner, factors.given.outer
    notes = (
        *program.notes,
        *site_notes(walk.worst.state.groups),
        *powers(s.attempt for s in walk.starts),
        *_curved(cells),
    )
    held = ", ".join(map(repr, factors.outside))
    sentence = (
        f"{held}, not Gaussian given the other latents, {'was' if len(factors.outside) == 1 else 'were'} held on a "
        f"grid of {len(cells.lattice.nodes)} points, with the evidence as their weight."
    )
    return Posterior(
        method=named(walk.first),
        approximation=GridMixture(program.latents, inner, outer, cells, means, covariances),
        converged=True,
        message=" ".join([_given(factors, walk.first), sentence, *(f"Note: {note}." for note in notes)]),
        seconds=0.0,
        history=walk.history(),
        log_evidence=_evidence(factors, cells.lattice, named(walk.first)),
        notes=(*notes, sentence),
    )


def _curved(cells: Cells) -> tuple[str, ...]:
    """A note where the density is too curved for its grid."""
    if cells.error() < _CLOSE and not cells.lattice.has_cliffs():
        return ()
    return (
        f"the density on the grid is strongly curved: its moments are good to {max(cells.error(), _CLOSE):.2g} sd, and "
        "mass that no node came near would be missing; compare with method='nuts'",
    )


def _given(factors: Factors, solution: Solution) -> str:
    held = ", ".join(factors.outside)
    if not factors.projected:
        return f"Given {held}, every factor is Gaussian in the other latents, so their posterior is exact."
    return f"Given {held}: {describe(factors, solution)}"


def _evidence(factors: Factors, lattice: Lattice, how: str) -> Estimate:
    value = lattice.log_integral()
    even = (lattice.nodes % 2 == 0).all(1)
    coarse = float(lattice.log_density[even].logsumexp(0) - lattice.log_density.logsumexp(0)) + np.log(2.0) * len(
        lattice.centre
    )
    keywords: dict[str, Any] = {"n": len(lattice.nodes)}
    if factors.projected:
        note = "the error of expectation propagation is unknown"
        grid = f"that of the grid is below {max(abs(coarse), 1e-4):.1g} nats"
        return Estimate(value, None, how, target="approximation", notes=(note, grid), **keywords)
    return Estimate(value, max(abs(coarse), 5e-5), "quadrature", target="population", **keywords)
