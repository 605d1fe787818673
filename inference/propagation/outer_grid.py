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
from probdl.inference.programs.program import Program
from probdl.inference.propagation.evidence import Evidence
from probdl.inference.propagation.factors import Factors, NotApplicable
from probdl.inference.propagation.lattice import Cells, Lattice, explore_lattice
from probdl.inference.propagation.report import describe, site_notes
from probdl.inference.propagation.solving import Attempt, Solution, solve

if TYPE_CHECKING:
    import pandas as pd

MOST_OUTSIDE = 3  # entries of latents that a lattice can hold
_SPACING = {1: 0.5, 2: 0.75, 3: 1.0}  # in sds at the mode
_MOST_HELD = 60_000_000  # numbers in the covariances of all nodes
_FAR = 1e10
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
    walk = _Walk(factors, attempt, evidence.solution(mode))
    lattice = explore_lattice(walk, mode, root, _SPACING[len(mode)])
    return _posterior(program, factors, walk, lattice)


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
        self.solutions: list[Solution] = []
        self.phi: list[Tensor] = []

    def __call__(self, phi: Tensor, neighbour: int | None) -> float:
        start = self.first if neighbour is None else self.solutions[neighbour]
        solution = solve(self.factors, phi, self.attempt, start, progress=False)
        self.solutions.append(solution)
        self.phi.append(phi)
        return solution.log_evidence()

    def history(self, lattice: Lattice) -> pd.DataFrame:
        """One row for each node."""
        import pandas as pd

        rows = [
            {"point": i + 1, "sweeps": len(s.history.rows), "gap": s.history.last, "log density": float(v)}
            for i, (s, v) in enumerate(zip(self.solutions, lattice.log_density))
        ]
        return pd.DataFrame(rows)


def _posterior(program: Program, factors: Factors, walk: _Walk, lattice: Lattice) -> Posterior:
    if len(walk.solutions) * len(walk.first.mean) ** 2 > _MOST_HELD:
        raise NotApplicable(
            f"A grid of {len(walk.solutions)} nodes with a covariance of {len(walk.first.mean)} latents at each does "
            f"not fit the memory. Name {', '.join(map(repr, factors.outside))} in optimise=."
        )
    means = torch.stack([s.mean for s in walk.solutions])
    covariances = torch.stack([s.covariance() for s in walk.solutions])
    inner, outer = factors.given.inner, factors.given.outer
    worst = max(walk.solutions, key=lambda s: sum(g.negative for g in s.state.groups))
    notes = (*program.notes, *site_notes(worst.state.groups))
    held = ", ".join(map(repr, factors.outside))
    sentence = (
        f"{held}, not Gaussian given the other latents, {'was' if len(factors.outside) == 1 else 'were'} held on a "
        f"grid of {len(lattice.nodes)} points, with the evidence as their weight."
    )
    return Posterior(
        method="expectation propagation",
        approximation=GridMixture(program.latents, inner, outer, Cells.of(lattice), means, covariances),
        converged=True,
        message=" ".join([_given(factors, walk.first), sentence, *(f"Note: {note}." for note in notes)]),
        seconds=0.0,
        history=walk.history(lattice),
        log_evidence=_evidence(factors, lattice),
        notes=(*notes, sentence),
    )


def _given(factors: Factors, solution: Solution) -> str:
    held = ", ".join(factors.outside)
    if not factors.projected:
        return f"Given {held}, every factor is Gaussian in the other latents, so their posterior is exact."
    return f"Given {held}: {describe(factors, solution)}"


def _evidence(factors: Factors, lattice: Lattice) -> Estimate:
    value = lattice.log_integral()
    even = (lattice.nodes % 2 == 0).all(1)
    coarse = float(lattice.log_density[even].logsumexp(0) - lattice.log_density.logsumexp(0)) + np.log(2.0) * len(
        lattice.centre
    )
    keywords: dict[str, Any] = {"n": len(lattice.nodes)}
    if factors.projected:
        note = "the error of expectation propagation is unknown"
        grid = f"that of the grid is below {max(abs(coarse), 1e-4):.1g} nats"
        return Estimate(value, None, "expectation propagation", target="approximation", notes=(note, grid), **keywords)
    return Estimate(value, max(abs(coarse), 5e-5), "quadrature", target="population", **keywords)
