"""Maximise the evidence lower bound of a Gaussian family as an ordinary function: what MeanField and FullRank share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from probdl.errors import ConvergenceError
from probdl.inference.deterministic.expectations import Expectation
from probdl.inference.deterministic.gaussian_families import Family
from probdl.inference.deterministic.linear_response import (
    Curvature,
    location_hessian,
    pooled_optimum,
    response_covariance,
)
from probdl.inference.deterministic.trust_region import Minimum, Smooth, minimise
from probdl.inference.programs.derivatives import at_least
from probdl.inference.programs.program import Program

_FIRST_STEPS = 15
_MOST_GROWTH = 1e16  # of a variance in the first steps


@dataclass(frozen=True)
class Settings:
    """What a user may set.

    Attributes:
        draw_error: largest error of a location, in linear-response sd units, and half that of a log-scale, at which
            points are no longer doubled.
        max_points: where doubling stops.
        max_steps: of the optimiser, at each number of points.
    """

    draw_error: float
    max_points: int
    max_steps: int


def check_settings(method: Any) -> None:
    """Raise a ValueError for settings that no method can run with; it names the argument."""
    if method.draws is not None and (method.draws < 2 or method.draws % 2):
        raise ValueError(f"draws must be an even number of at least 2, since they come in pairs; got {method.draws}.")
    if not method.draw_error > 0:
        raise ValueError(f"draw_error must be positive; got {method.draw_error}.")
    for name in ("max_draws", "max_steps"):
        if getattr(method, name) < 1:
            raise ValueError(f"{name} must be positive; got {getattr(method, name)}.")


@dataclass
class Optimum:
    """The best member of a family, with its linear response and the errors that the fixed points leave."""

    family: Family
    phi: Tensor
    expectation: Expectation
    covariance: Tensor
    mean_hessian: Tensor
    curvature: Curvature
    location_error: float
    scale_error: float
    converged: bool
    rows: list[dict[str, float]] = field(default_factory=list)

    @property
    def response_sd(self) -> Tensor:
        """The linear-response standard deviations of z, (d,)."""
        return self.covariance.diagonal().sqrt()


def maximise(
    program: Program, family: Family, expectation: Expectation, settings: Settings, has_scales: bool = True
) -> Optimum:
    """Maximise the bound, doubling the points until their error is small.

    Args:
        program: the model with its data.
        family: whose start is where the optimiser starts.
        expectation: of the log-density.
        settings: a user's.
        has_scales: whether the scales of the start are those of the posterior, so that they whiten the problem.

    Raises:
        ConvergenceError: if the bound is not finite at the start, or not curved where the optimiser stopped; it names
            the site.
    """
    family = _backtracked(program, family, expectation)
    rows: list[dict[str, float]] = []
    if not has_scales:
        family = _scaled(program, family, expectation, rows)
    while True:
        optimum = _maximise_once(program, family, expectation, settings, rows)
        enough = min(settings.draw_error, expectation.tolerance)
        is_precise = optimum.location_error <= enough and optimum.scale_error <= 2 * enough
        if is_precise or 2 * expectation.points > min(settings.max_points, expectation.most):
            return optimum
        expectation = expectation.refined()
        family = optimum.family.restarted(optimum.phi, optimum.covariance)
        if not bool(torch.isfinite(expectation(family, family.zero()))):
            return optimum  # more points reach where the density is zero, which the check of the bound says


def _backtracked(program: Program, family: Family, expectation: Expectation) -> Family:
    """Narrow the family until the bound is finite at its start."""
    for _ in range(40):
        if bool(torch.isfinite(expectation(family, family.zero()))):
            return family
        family = family.narrowed(0.5)
    site = program.site_at(int(family.scale.argmax()))
    raise ConvergenceError(
        f"The bound is not finite however narrow the approximation is around its start (the widest site is {site!r}): "
        "the log-density is not finite nearby. Use logits= in place of probs=, or method='nuts'."
    )


def _scaled(program: Program, family: Family, expectation: Expectation, rows: list[dict[str, float]]) -> Family:
    """Take the first steps in the scales of the start, and go on in those that they found."""
    smooth = Smooth(lambda phi: -expectation(family, phi) - family.entropy(phi), family.centre)
    found = minimise(smooth, family.zero(), 1e-2, _FIRST_STEPS)
    _note(rows, found, expectation)
    variances, start = (family.covariance(phi).diagonal() for phi in (found.x, family.zero()))
    growth = (variances / start).nan_to_num(torch.inf)
    if not bool((growth < _MOST_GROWTH).all()):
        site = program.site_at(int(growth.argmax()))
        raise ConvergenceError(
            f"Deterministic VI: the approximation grows without limit along {site!r}. {_improper(site)}"
        )
    return family.restarted(found.x, torch.diag(variances))


def _maximise_once(
    program: Program, family: Family, expectation: Expectation, settings: Settings, rows: list[dict[str, float]]
) -> Optimum:
    smooth = Smooth(lambda phi: -expectation(family, phi) - family.entropy(phi), family.centre)
    scale = abs(float(smooth.at(family.zero())[0]))
    tolerance = max(1e-5, 30 * (torch.finfo(program.dtype).eps * (1 + scale)) ** 0.5)
    found = minimise(smooth, family.zero(), tolerance, settings.max_steps)
    _note(rows, found, expectation)
    try:
        curvature = Curvature(smooth, found.x)
    except ConvergenceError as reason:
        raise ConvergenceError(_not_curved(program, family, smooth, found, str(reason))) from reason
    phi, converged = _polished(smooth, curvature, found, tolerance)
    covariance = response_covariance(family, curvature)
    mean_hessian = location_hessian(family, curvature)
    phi, location_error, scale_error = pooled_optimum(family, phi, curvature, expectation)
    errors = float((location_error / covariance.diagonal().sqrt()).max()), float(scale_error.max())
    return Optimum(family, phi, expectation, covariance, mean_hessian, curvature, *errors, converged, rows)


def _note(rows: list[dict[str, float]], found: Minimum, expectation: Expectation) -> None:
    """Add a row for each step, the very first of them for the start."""
    points = expectation.unit.split()[-1]
    for value, norm in found.history[bool(rows) :]:
        rows.append({"step": len(rows), "elbo": -value, "gradient": norm, points: expectation.points})


def _polished(smooth: Smooth, curvature: Curvature, found: Minimum, tolerance: float) -> tuple[Tensor, bool]:
    """Take one last Newton step, which is nearly exact so close to the optimum; say whether it was that close."""
    value, gradient = smooth.at(found.x)
    step = curvature.solve(gradient[:, None])[:, 0]
    decrement = float((gradient @ step).clamp(min=0).sqrt())
    converged = decrement <= 10 * max(tolerance, at_least(1e-4, gradient.dtype))
    after, _ = smooth.at(found.x - step)
    near = after <= value + 1e-9 * (1 + value.abs())
    return (found.x - step if converged and bool(near) else found.x), converged


def _not_curved(program: Program, family: Family, smooth: Smooth, found: Minimum, reason: str) -> str:
    rows = torch.eye(family.dim, family.size).to(found.x)
    block = torch.stack([smooth.product(found.x, row)[: family.dim] for row in rows])
    inverse = torch.linalg.inv(family.root)
    site, smallest = program.weakest_site(inverse.T @ ((block + block.T) / 2) @ inverse)
    return (
        f"Deterministic VI stopped after {found.steps} steps ({found.message}) where {reason}: along {site!r} the "
        f"smallest curvature is {smallest:.2g} of the largest. {_improper(site)}"
    )


def _improper(site: str) -> str:
    return (
        f"The posterior may be improper or unbounded there: give {site!r} a proper prior, remove what the data cannot "
        "tell apart, or use method='nuts'."
    )
