r"""Hyperparameters of a Gaussian process by its log evidence: values, gradients, the best of several starts.

At a fixed point of expectation propagation the sites are stationary, so that the gradient in the kernel is
:math:`\tfrac12\mathrm{tr}\{(ww^\top - W)\,\partial K\}`, and that in the likelihood an expectation under the tilted
distributions. Positive hyperparameters are moved on the log scale.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from probdl.errors import ConvergenceError
from probdl.inference.propagation.function_space import FunctionSpaceFit, FunctionSpacePropagation
from probdl.models.gaussian_process_likelihoods import Likelihood, Tilted
from probdl.models.kernel_algebra import Kernel
from probdl.natural import NormalFactor

FEW = 500  # rows on which several starts are tried
REACH = math.log(1e5)  # how far from the start a hyperparameter may go, on the log scale
SWEEPS = 100  # while hyperparameters are sought; the fit at the best of them may take more
POWERS = (1.0, 0.5, 0.25, 0.1)  # where expectation propagation does not converge, power EP does, nearer to a bound


@dataclass(frozen=True)
class Setting:
    """A prior and a likelihood: what a Gaussian process is before it sees its inputs.

    Attributes:
        kernel: the covariance function.
        likelihood: with its parameters and observations.
        mean: the prior mean, one number.
        free_mean: whether a fit may change it.
        unit: of the mean, in which it is moved.
    """

    kernel: Kernel
    likelihood: Likelihood
    mean: float = 0.0
    free_mean: bool = False
    unit: float = 1.0

    @property
    def names(self) -> list[str]:
        """One name for each number that a fit moves, such as "rbf.length[1]"."""
        return [name for name, _ in self._numbers()]

    def vector(self) -> np.ndarray:
        """Return those numbers, on the scale on which they are moved."""
        return np.array([value for _, value in self._numbers()])

    def _numbers(self) -> Iterator[tuple[str, float]]:
        values = {name: self.kernel.hyperparameters[name] for name in self.kernel.free} | self.likelihood.parameters
        for name, value in values.items():
            if value.ndim:
                yield from ((f"{name}[{j}]", v) for j, v in enumerate(value.log().tolist()))
            else:
                yield name, value.log().item()
        if self.free_mean:
            yield "mean", self.mean / self.unit

    def moved(self, vector: np.ndarray) -> Setting:
        """Return the setting with other numbers."""
        kernel, parameters, rest = self._split(torch.as_tensor(vector))
        mean = rest.item() * self.unit if self.free_mean else self.mean
        likelihood = self.likelihood.replaced(parameters)
        return Setting(self.kernel.replaced(kernel), likelihood, mean, self.free_mean, self.unit)

    def _split(self, vector: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
        """Return kernel values, likelihood values, and what is left for the mean."""
        kernel, at = {}, 0
        for name in self.kernel.free:
            value = self.kernel.hyperparameters[name]
            kernel[name] = vector[at : at + value.numel()].exp().reshape(value.shape)
            at += value.numel()
        parameters = {k: vector[at + i].exp() for i, k in enumerate(self.likelihood.parameters)}
        return kernel, parameters, vector[at + len(parameters) :]

    def rows(self, rows: Tensor) -> Setting:
        """Return the setting of some of the observations."""
        return Setting(self.kernel, self.likelihood.rows(rows), self.mean, self.free_mean, self.unit)

    def propagated(self, x: Tensor, start: NormalFactor | None = None, tolerance: float = 1e-7) -> FunctionSpaceFit:
        """Return the fixed point of expectation propagation for g = f − mean at these inputs.

        Raises:
            ConvergenceError: if neither expectation propagation nor power EP has one.
        """
        return self._fixed_point(self.kernel(x).detach(), start, tolerance, 500)[0]

    def _fixed_point(
        self, covariance: Tensor, start: NormalFactor | None, tolerance: float, sweeps: int
    ) -> tuple[FunctionSpaceFit, Tilted]:
        """Try expectation propagation and then power EP, each from the given sites and from those of the likelihood."""
        likelihood = self.likelihood.shifted(self.mean)
        if likelihood.exact:  # the first sweep only confirms the sites, to the rounding that tiny noise brings
            start, tolerance = None, 1e-3
        zero = torch.zeros(len(covariance), dtype=covariance.dtype)
        for power in POWERS:
            for sites in (start, likelihood.first_sites()) if start is not None else (likelihood.first_sites(),):
                tilted = likelihood.tilted(power)
                try:
                    problem = FunctionSpacePropagation(zero, covariance, tilted, power)
                    return problem.run(tolerance, sweeps, sites), tilted
                except ConvergenceError as error:
                    failure = error
        raise failure

    def value_and_gradient(
        self, x: Tensor, start: NormalFactor | None = None, tolerance: float = 1e-6
    ) -> tuple[FunctionSpaceFit, np.ndarray]:
        """Return the fixed point and the gradient of its log evidence in ``vector()``."""
        vector = torch.as_tensor(self.vector()).requires_grad_()
        with torch.enable_grad():
            covariance = self.kernel.replaced(self._split(vector)[0])(x)
        fit, tilted = self._fixed_point(covariance.detach(), start, tolerance, SWEEPS)
        if covariance.requires_grad:
            covariance.backward(fit.covariance_gradient())
        gradient = np.zeros(len(vector)) if vector.grad is None else vector.grad.numpy().copy()
        inner = self.likelihood.shifted(self.mean).parameter_gradient(fit.cavity, tilted, fit.power)
        at = len(gradient) - len(inner) - self.free_mean
        gradient[at : at + len(inner)] = list(inner.values())
        if self.free_mean:
            gradient[-1] = fit.mean_gradient().sum().item() * self.unit
        return fit, gradient


@dataclass
class Objective:
    """Minus the log evidence, and minus the log prior of the hyperparameters where there is one, for SciPy.

    Attributes:
        setting: where the fit starts.
        x: the inputs.
        prior_sd: of a Normal around the start on the log scale; None for a flat one.
    """

    setting: Setting
    x: Tensor
    prior_sd: float | None = None
    evaluations: int = 0
    failures: int = 0
    _site: NormalFactor | None = None
    _worst: float = 0.0

    def __call__(self, vector: np.ndarray) -> tuple[float, np.ndarray]:
        """Return value and gradient; where there is no fixed point, a value worse than any other."""
        self.evaluations += 1
        try:
            fit, gradient = self.setting.moved(vector).value_and_gradient(self.x, self._site)
        except (ConvergenceError, ValueError):
            self.failures += 1
            return self._worst + 1e3, np.zeros_like(vector)
        self._site = fit.site
        value = -fit.log_evidence.item()
        self._worst = max(self._worst, value)
        if self.prior_sd is None:
            return value, -gradient
        away = (vector - self.setting.vector()) / self.prior_sd
        return value + 0.5 * away @ away, away / self.prior_sd - gradient

    def minimised(self, start: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the smallest value near a start, and where."""
        from scipy.optimize import minimize

        centre = self.setting.vector()
        bounds = list(zip(centre - REACH, centre + REACH))
        options = {"ftol": 1e-9, "gtol": 1e-3}  # nats per unit of a log; standard errors are some tenths of it
        found = minimize(self, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
        return float(found.fun), found.x

    def curvature(self, at: np.ndarray, step: float = 1e-2) -> np.ndarray:
        """Return the Hessian at a point by central differences of the gradient."""
        rows = [self(at + step * e)[1] - self(at - step * e)[1] for e in np.eye(len(at))]
        hessian = np.array(rows) / (2 * step)
        return (hessian + hessian.T) / 2


@dataclass(frozen=True)
class Optimum:
    """Where the log evidence is largest.

    Attributes:
        setting: there.
        stderr: of the moved numbers, from the curvature of the log evidence; NaN where it is not curved.
        message: what was done.
        notes: what a careful reader should know.
    """

    setting: Setting
    stderr: np.ndarray
    message: str
    notes: tuple[str, ...] = ()


def maximised(setting: Setting, x: Tensor, restarts: int, prior_sd: float | None, seed: int) -> Optimum:
    """Return the hyperparameters with the largest log evidence.

    Several starts, the given one and random ones around it, are tried on at most 500 rows; the best goes on to all.
    """
    names = setting.names
    if not names:
        return Optimum(setting, np.zeros(0), "All hyperparameters are fixed.")
    few = _some_rows(len(x), seed)
    small = Objective(setting.rows(few), x[few], prior_sd)
    tried = [small.minimised(start) for start in _starts(setting.vector(), restarts, seed)]
    best = min(tried, key=lambda found: found[0])[1]
    whole = small
    if len(few) < len(x):
        whole = Objective(setting, x, prior_sd)
        best = whole.minimised(best)[1]
    if whole.failures == whole.evaluations:
        raise ConvergenceError(
            "Expectation propagation found no fixed point at any of the hyperparameters tried. Give the kernel and the "
            "noise starting values in the units of the data, or use noise='normal'."
        )
    stderr, notes = _errors(whole, best, names)
    return Optimum(setting.moved(best), stderr, _message(names, tried, small, whole, len(few), len(x), prior_sd), notes)


def _some_rows(n: int, seed: int) -> Tensor:
    if n <= FEW:
        return torch.arange(n)
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:FEW].sort().values


def _starts(centre: np.ndarray, restarts: int, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [centre, *(centre + rng.normal(size=len(centre)) for _ in range(restarts))]


def _errors(objective: Objective, best: np.ndarray, names: list[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Standard errors where the optimum is inside the bounds and the log evidence curved, and notes where not."""
    stderr, notes = np.full(len(best), np.nan), []
    inside = np.abs(best - objective.setting.vector()) < REACH - 1e-6
    if not inside.all():
        outside = ", ".join(n for n, i in zip(names, inside) if not i)
        notes.append(f"the log evidence still rises where {outside} reached 100,000 times, or that part of, its start")
    hessian = objective.curvature(best)[np.ix_(inside, inside)]
    if inside.any() and np.linalg.eigvalsh(hessian).min() > 1e-6:
        stderr[inside] = np.sqrt(np.linalg.inv(hessian).diagonal())
    elif inside.any():
        notes.append("the log evidence is flat or not at a maximum in some direction, so there are no standard errors")
    if objective.failures:
        notes.append(f"{objective.failures} of the hyperparameters tried gave no fixed point and were passed over")
    return stderr, tuple(notes)


def _message(
    names: list[str],
    tried: list[tuple[float, np.ndarray]],
    small: Objective,
    whole: Objective,
    few: int,
    n: int,
    prior_sd: float | None,
) -> str:
    what = "Log evidence" if prior_sd is None else f"Log evidence plus log-normal priors (log sd {prior_sd:g})"
    near = sum(value < min(v for v, _ in tried) + 0.01 for value, _ in tried)
    starts = f"{len(tried)} starts, of which {near} met at the best" if len(tried) > 1 else "1 start"
    where = "" if few == n else f" on {few} of the rows, then on all {n}"
    evaluations = small.evaluations + (whole.evaluations if whole is not small else 0)
    return f"{what} maximised over {', '.join(names)} by L-BFGS from {starts}{where} ({evaluations} evaluations)."
