"""What classification and regression by a Gaussian process share: the fit, the hyperparameters, the latent function."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from probdl.access import column_names
from probdl.divergences.estimate import Estimate
from probdl.inference.propagation.function_space import FunctionSpaceFit
from probdl.models.arguments import one_of
from probdl.models.gaussian_process_evidence import Optimum, Setting, maximised
from probdl.models.gaussian_process_inputs import check_kernel, read_new_inputs, read_training_inputs
from probdl.models.gaussian_process_likelihoods import Likelihood
from probdl.models.kernel_algebra import Kernel
from probdl.threads import one_thread

if TYPE_CHECKING:
    import pandas as pd

SMALL = 1000  # rows up to which one thread is as fast as several
BLOCK = 2000  # new rows at a time


class GaussianProcess:
    """A latent function f with a Gaussian process prior, seen through a likelihood at the rows of X.

    Attributes:
        fitted_kernel: the kernel with the hyperparameters of the fit.
        mean: the prior mean of the fit, one number.
        log_evidence: log p(y | X, hyperparameters), in nats.
        message: what was optimised, and what a careful reader should know.
        notes: the latter alone.
        hyperparameters: DataFrame; value, standard error and 95 % interval of each.
        history: DataFrame; the sweeps of the last fit.
        seconds: time of the fit.
    """

    def __init__(
        self, kernel: Kernel | None, mean: float | str, optimise: bool, restarts: int, prior_sd: float | None
    ) -> None:
        if kernel is not None and not isinstance(kernel, Kernel):
            raise TypeError(f"kernel must be one of probdl.models.kernels, such as RBF(); got {type(kernel).__name__}.")
        if isinstance(mean, str):
            one_of(mean, ("constant",), "mean")
        if not isinstance(restarts, int) or restarts < 0:
            raise ValueError(f"restarts must be a whole number, 0 or more; got {restarts!r}.")
        if prior_sd is not None and not prior_sd > 0:
            raise ValueError(f"prior_sd must be positive, or None for no prior; got {prior_sd!r}.")
        self.kernel, self._mean, self.optimise = kernel, mean, optimise
        self.restarts, self.prior_sd = restarts, prior_sd
        self._fit: FunctionSpaceFit | None = None

    def _learn(self, X: Any, x: Tensor, likelihood: Likelihood, setting: Setting, seed: int) -> None:
        """Optimise the hyperparameters where that is asked, and run to the fixed point there."""
        started = time.perf_counter()
        self._x, self._columns = x, column_names(X)
        with one_thread(len(x) <= SMALL):
            check_kernel(setting.kernel, x)
            optimum = (
                maximised(setting, x, self.restarts, self.prior_sd, seed)
                if self.optimise
                else Optimum(setting, np.full(len(setting.names), np.nan), "Hyperparameters as given.")
            )
            self._setting, self._fit = optimum.setting, optimum.setting.propagated(x)
        self._optimum = optimum
        self._report(time.perf_counter() - started)

    def _report(self, seconds: float) -> None:
        fit, optimum = self._fitted(), self._optimum
        exact = self._is_exact()
        negative = int((fit.site.precision * fit.gaussian.variance < -1e-6).sum())
        self.fitted_kernel, self.mean = self._setting.kernel, self._setting.mean
        self.notes = (
            *optimum.notes,
            *(("plain expectation propagation has no fixed point that was found here",) * (fit.power != 1)),
            *(
                (f"{negative} observations lost their influence: their sites have a negative precision",)
                * (negative > 0)
            ),
        )
        how = "closed form" if exact else self._how(fit)
        error_note = () if exact else ("the error of expectation propagation is unknown",)
        self.log_evidence = Estimate(
            fit.log_evidence.item(), 0.0 if exact else None, how, "population" if exact else "approximation",
            notes=error_note,
        )  # fmt: skip
        posterior = "exact" if exact else f"by {how}, in {len(fit.history.rows)} sweeps"
        parts = [f"Gaussian process with {self.fitted_kernel!r}; posterior {posterior}.", optimum.message]
        self.message = " ".join([*parts, *(f"Note: {note}." for note in self.notes)])
        self.history, self.seconds = fit.history.frame(), seconds

    def _how(self, fit: FunctionSpaceFit) -> str:
        return "expectation propagation" if fit.power == 1 else f"power expectation propagation (power {fit.power:g})"

    def _is_exact(self) -> bool:
        return False

    def _fitted(self) -> FunctionSpaceFit:
        if self._fit is None:
            raise RuntimeError(f"This {type(self).__name__} has not been fitted. Call fit(X, y) first.")
        return self._fit

    @property
    def hyperparameters(self) -> pd.DataFrame:
        """One row for each: value, standard error, 95 % interval (by the curvature in logs), and whether it moved."""
        import pandas as pd

        self._fitted()
        moved = dict(zip(self._optimum.setting.names, self._optimum.stderr)) if self.optimise else {}
        rows = {name: _row(name, value, moved, self._setting.unit) for name, value in self._values().items()}
        return pd.DataFrame.from_dict(rows, orient="index", columns=["value", "sd", "2.5%", "97.5%", "optimised"])

    def _values(self) -> dict[str, float]:
        values = self._setting.kernel.hyperparameters | self._setting.likelihood.parameters
        flat = {}
        for name, value in values.items():
            numbers = {name: value} if not value.ndim else {f"{name}[{j}]": v for j, v in enumerate(value)}
            flat.update({k: v.item() for k, v in numbers.items()})
        return {**flat, "mean": self._setting.mean}

    def latent(self, X: Any) -> tuple[Tensor, Tensor]:
        """Return posterior mean and standard deviation of the latent function at new rows, (n,) each.

        Raises:
            ValueError, TypeError: for columns other than those of the fit, or values that are not finite.
        """
        fit = self._fitted()
        x = read_new_inputs(X, self._columns, self._x.shape[1])
        with one_thread(len(self._x) <= SMALL):
            parts = [self._latent(rows, fit) for rows in x.split(BLOCK)]
        return torch.cat([m for m, _ in parts]), torch.cat([s for _, s in parts])

    def _latent(self, x: Tensor, fit: FunctionSpaceFit) -> tuple[Tensor, Tensor]:
        kernel = self._setting.kernel
        moved, variance = fit.gaussian.conditional_moments(kernel(x, self._x), kernel.diagonal(x))
        return self._setting.mean + moved, variance.sqrt()

    def __repr__(self) -> str:
        kernel = self.kernel if self._fit is None else self.fitted_kernel
        state = "" if self._fit is None else f", log evidence {self.log_evidence.value:.4f}"
        return f"{type(self).__name__}({kernel!r}{state})"


def starting_mean(mean: float | str, level: float) -> tuple[float, bool]:
    """Return where the prior mean starts, and whether it is free."""
    return (level, True) if mean == "constant" else (float(mean), False)


def checked_inputs(X: Any) -> Tensor:
    """Return the inputs of a fit."""
    return read_training_inputs(X)


def _row(name: str, value: float, moved: dict[str, float], unit: float) -> list[Any]:
    """Value, standard error and interval: normal in logs for what is positive, in its unit for the mean."""
    if name not in moved:
        return [value, np.nan, np.nan, np.nan, False]
    spread = moved[name]
    if name == "mean":
        return [value, spread * unit, value - 1.96 * spread * unit, value + 1.96 * spread * unit, True]
    return [value, spread * value, value * np.exp(-1.96 * spread), value * np.exp(1.96 * spread), True]
