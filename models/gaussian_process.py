"""Gaussian processes for two classes and for measurements with noise, robust or not."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from probdl.models.arguments import one_of
from probdl.models.gaussian_process_base import GaussianProcess, checked_inputs, starting_mean
from probdl.models.gaussian_process_evidence import Setting
from probdl.models.gaussian_process_inputs import median_distance, read_labels, read_response
from probdl.models.gaussian_process_intervals import predictive_quantiles
from probdl.models.gaussian_process_likelihoods import Label, LaplaceNoise, Noise, NormalNoise, StudentNoise
from probdl.models.gaussian_process_pictures import plot_classifier, plot_regressor
from probdl.models.kernel_algebra import Kernel
from probdl.models.kernels import RBF
from probdl.natural import NormalFactor

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

LINKS = ("probit", "logit")
NOISES = ("normal", "student", "laplace")
JITTER = 1e-8  # of the mean prior variance, in the Pyro program alone: its MultivariateNormal needs a Cholesky factor


class GaussianProcessClassifier(GaussianProcess):
    r"""Two classes by a Gaussian process, with expectation propagation.

    .. math:: f \sim GP(m, k), \qquad P(y = 1 \mid f(x)) = \Phi(f(x)) \text{ or } 1 / (1 + e^{-f(x)}).

    The posterior of f at the rows of X is approximated by a Gaussian whose sites match the moments of each tilted
    distribution; its log evidence, maximised by its gradient, chooses the hyperparameters. Memory grows with the square
    of the rows and time with the cube.

    Args:
        kernel: of ``probdl.models.kernels``, with starting values; None: an RBF kernel with variance 1 and the median
            distance between rows as its length.
        link: "probit" or "logit".
        mean: the prior mean of f, or "constant" to optimise it with the rest.
        optimise: whether a fit maximises the log evidence over the free hyperparameters.
        restarts: random starts beside the given one.
        prior_sd: of log-normal priors on the hyperparameters around their starts, on the log scale; None: flat.

    Raises:
        ValueError, TypeError: for an argument that cannot be used.

    Source: Rasmussen & Williams (2006), *Gaussian Processes for Machine Learning*, sections 3.6 and 5.5.

    Example:
        >>> import torch
        >>> x = torch.linspace(-2, 2, 20)
        >>> gp = GaussianProcessClassifier(optimise=False).fit(x, ["low"] * 10 + ["high"] * 10)
        >>> gp.predict([-1.5, 1.5])
        array(['low', 'high'], dtype='<U4')
        >>> gp.predict_proba([0.0])  # columns: "high", "low"
        tensor([[0.5000, 0.5000]], dtype=torch.float64)
        >>> gp.log_evidence
        -7.712, error unknown (expectation propagation)
    """

    def __init__(
        self,
        kernel: Kernel | None = None,
        link: str = "probit",
        *,
        mean: float | str = 0.0,
        optimise: bool = True,
        restarts: int = 2,
        prior_sd: float | None = None,
    ) -> None:
        super().__init__(kernel, mean, optimise, restarts, prior_sd)
        self.link = one_of(link, LINKS, "link")

    def fit(self, X: Any, y: Any, *, seed: int = 0) -> GaussianProcessClassifier:
        """Fit to labelled rows, anew each time.

        Args:
            X: array-like (n, d) or (n,).
            y: n labels of two classes: numbers, booleans or text.
            seed: of the random starts.

        Returns:
            The model itself.

        Raises:
            ValueError, TypeError: for inputs or labels that cannot be used, or a kernel that is no covariance.
            ConvergenceError: if expectation propagation has no fixed point.
        """
        x = checked_inputs(X)
        self.classes, self._labels = read_labels(y, len(x))
        likelihood = Label(self._labels, self.link)
        kernel = self.kernel or RBF(1.0, median_distance(x))
        level, free = starting_mean(self._mean, 0.0)
        self._learn(X, x, likelihood, Setting(kernel.for_columns(x.shape[1]), likelihood, level, free), seed)
        return self

    def predict_proba(self, X: Any) -> Tensor:
        """Return the predictive probabilities of both classes, (n, 2), columns in the order of ``classes``.

        Raises:
            ValueError, TypeError: for columns other than those of the fit, or values that are not finite.
        """
        second = self._probability(*self.latent(X))
        return torch.stack([1 - second, second], 1)

    def _probability(self, mean: Tensor, sd: Tensor) -> Tensor:
        """E[link(f)] for Normal f: the log normaliser of a site that says so."""
        variance = (sd**2).clamp(min=1e-12)
        seen = Label(torch.ones_like(mean), self.link).tilted()
        return seen(NormalFactor.from_moments(mean, variance)).log_normaliser.exp()

    def _probability_band(self, X: Any, level: float) -> tuple[Tensor, Tensor, Tensor]:
        """Quantiles of link(f(x)), and in the middle the predictive probability."""
        mean, sd = self.latent(X)
        reach = sd * torch.special.ndtri(torch.tensor((1 + level) / 2, dtype=sd.dtype))
        inverse = torch.special.ndtr if self.link == "probit" else torch.sigmoid
        return inverse(mean - reach), self._probability(mean, sd), inverse(mean + reach)

    def predict(self, X: Any) -> Tensor | np.ndarray:
        """Return the more probable class of each row: a tensor, or a NumPy array where the labels are text."""
        second = (self.predict_proba(X)[:, 1] > 0.5).long()
        labels = self.classes[second.numpy()]
        return torch.from_numpy(labels) if labels.dtype.kind in "biuf" else labels

    @property
    def model(self) -> Callable:
        """The fitted model as a Pyro program ``model(X, y=None)`` with the site "f", for y of 0 and 1 and any method.

        Its prior covariance has 1e-8 of its mean variance added to the diagonal, as a MultivariateNormal needs.
        """
        self._fitted()
        prior, probit = _prior(self._setting), self.link == "probit"

        def model(X: Tensor, y: Tensor | None = None) -> Tensor:
            f = pyro.sample("f", prior(X))
            likelihood = dist.Bernoulli(torch.special.ndtr(f)) if probit else dist.Bernoulli(logits=f)
            with pyro.plate("rows", len(X)):
                return pyro.sample("y", likelihood, obs=y)

        return model

    def plot(self, level: float = 0.9, ax: Axes | None = None) -> Axes:
        """Draw the probability of the second class over one column with its band, or over two as filled contours.

        Args:
            level: of the band.
            ax: where to draw; None makes a figure.

        Raises:
            ValueError: if the model has more than two columns.
        """
        self._fitted()
        return plot_classifier(self, level, ax)


class GaussianProcessRegressor(GaussianProcess):
    r"""A function by a Gaussian process, seen with Normal, Student-t or Laplace noise.

    .. math:: f \sim GP(m, k), \qquad y_i = f(x_i) + \sigma\varepsilon_i.

    With Normal noise posterior and evidence are exact. With Student-t or Laplace noise, which outliers pull less, they
    are found by expectation propagation; where the density of Student-t noise is not log-concave, sites have negative
    precisions. The scale of the noise is optimised with the hyperparameters of the kernel.

    Args:
        kernel: of ``probdl.models.kernels``, with starting values; None: an RBF kernel with the variance of y and the
            median distance between rows as its length.
        noise: "normal", "student" or "laplace".
        scale: σ where the fit starts, in the unit of y; None: half the standard deviation of y, or for robust noise
            half its median absolute deviation × 1.48.
        df: degrees of freedom of Student-t noise, not optimised.
        mean: the prior mean of f, or "constant" to optimise it with the rest.
        optimise: whether a fit maximises the log evidence over the free hyperparameters.
        restarts: random starts beside the given one.
        prior_sd: of log-normal priors on the hyperparameters around their starts, on the log scale; None: flat.

    Raises:
        ValueError, TypeError: for an argument that cannot be used.

    Source: Rasmussen & Williams (2006), *Gaussian Processes for Machine Learning*, chapters 2 and 5; Jylänki, Vanhatalo
    & Vehtari (2011), *Robust Gaussian process regression with a Student-t likelihood*.

    Example:
        >>> import torch
        >>> from probdl.models import kernels
        >>> x = torch.linspace(0, 6, 30)
        >>> y = torch.sin(x)
        >>> y[10] = 9.0  # an outlier
        >>> gp = GaussianProcessRegressor(kernels.RBF(), noise="student", scale=0.1, optimise=False).fit(x, y)
        >>> gp.predict([2.0], of="f").round(2)  # sin 2 = 0.91
           mean    sd  lower  upper
        0  0.91  0.06   0.81    1.0
    """

    def __init__(
        self,
        kernel: Kernel | None = None,
        noise: str = "normal",
        *,
        scale: float | None = None,
        df: float = 4.0,
        mean: float | str = "constant",
        optimise: bool = True,
        restarts: int = 2,
        prior_sd: float | None = None,
    ) -> None:
        super().__init__(kernel, mean, optimise, restarts, prior_sd)
        self.noise = one_of(noise, NOISES, "noise")
        for name, value in (("scale", scale), ("df", df)):
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"{name} must be positive and finite; got {value!r}.")
        self.scale, self.df = scale, df

    def fit(self, X: Any, y: Any, *, seed: int = 0) -> GaussianProcessRegressor:
        """Fit to measured rows, anew each time.

        Args:
            X: array-like (n, d) or (n,).
            y: n measurements.
            seed: of the random starts.

        Returns:
            The model itself.

        Raises:
            ValueError, TypeError: for data that cannot be used, or a kernel that is no covariance.
            ConvergenceError: if neither expectation propagation nor power EP has a fixed point.
        """
        x = checked_inputs(X)
        self._y = read_response(y, len(x))
        likelihood = self._likelihood(self._y)
        level, spread = self._y.median().item(), _spread(self._y, robust=self.noise != "normal")
        if self.optimise and spread == 0:
            raise ValueError(
                f"y holds {len(x)} values that do not differ, from which no variance or noise can be learnt. Pass "
                "optimise=False with a kernel and a scale of your own."
            )
        kernel = self.kernel or RBF(spread**2 or 1.0, median_distance(x))
        start, free = starting_mean(self._mean, level)
        setting = Setting(kernel.for_columns(x.shape[1]), likelihood, start, free, unit=spread or 1.0)
        self._learn(X, x, likelihood, setting, seed)
        return self

    def _likelihood(self, y: Tensor) -> Noise:
        scale = self.scale or 0.5 * _spread(y, robust=self.noise != "normal") or 1.0
        if self.noise == "student":
            return StudentNoise(y, scale, self.df)
        return (LaplaceNoise if self.noise == "laplace" else NormalNoise)(y, scale)

    def _noise(self) -> Noise:
        assert isinstance(self._setting.likelihood, Noise)
        return self._setting.likelihood

    def _is_exact(self) -> bool:
        return self.noise == "normal"

    def predict(self, X: Any, level: float = 0.9, of: str = "y") -> pd.DataFrame:
        """Return mean, standard deviation and interval at new rows, in the unit of y.

        Args:
            X: array-like with the columns of the fit.
            level: of the interval between "lower" and "upper".
            of: "y", a new measurement with its noise, or "f", the function.

        Raises:
            ValueError, TypeError: for columns other than those of the fit, or values that are not finite.
        """
        import pandas as pd

        one_of(of, ("y", "f"), "of")
        if not 0 < level < 1:
            raise ValueError(f"level must be between 0 and 1; got {level!r}.")
        mean, sd = self.latent(X)
        noise = self._noise() if of == "y" else None
        ends = predictive_quantiles(mean, sd, noise, [(1 - level) / 2, (1 + level) / 2])
        total = sd if noise is None else (sd**2 + noise.variance()).sqrt()
        table = {"mean": mean.numpy(), "sd": total.numpy(), "lower": ends[0], "upper": ends[1]}
        return pd.DataFrame(table, index=X.index if hasattr(X, "index") and hasattr(X, "columns") else None)

    @property
    def model(self) -> Callable:
        """The fitted model as a Pyro program ``model(X, y=None)`` with the site "f", for any method.

        Its prior covariance has 1e-8 of its mean variance added to the diagonal, as a MultivariateNormal needs.
        """
        self._fitted()
        prior, kind, df = _prior(self._setting), self.noise, self.df
        scale = self._noise().scale.item()

        def model(X: Tensor, y: Tensor | None = None) -> Tensor:
            f = pyro.sample("f", prior(X))
            noise = {"normal": dist.Normal, "laplace": dist.Laplace}.get(kind)
            likelihood = dist.StudentT(df, f, scale) if noise is None else noise(f, scale)
            with pyro.plate("rows", len(X)):
                return pyro.sample("y", likelihood, obs=y)

        return model

    def plot(self, level: float = 0.9, ax: Axes | None = None) -> Axes:
        """Draw mean and intervals of f and of new measurements over one column, or the mean over two.

        Args:
            level: of the intervals.
            ax: where to draw; None makes a figure.

        Raises:
            ValueError: if the model has more than two columns.
        """
        self._fitted()
        return plot_regressor(self, level, ax)


def _prior(setting: Setting) -> Callable[[Tensor], dist.MultivariateNormal]:
    def prior(X: Tensor) -> dist.MultivariateNormal:
        x = X[:, None] if X.ndim == 1 else X
        covariance = setting.kernel(x)
        covariance = covariance + JITTER * covariance.diagonal().mean() * torch.eye(len(x), dtype=x.dtype)
        return dist.MultivariateNormal(torch.full((len(x),), setting.mean, dtype=x.dtype), covariance)

    return prior


def _spread(y: Tensor, robust: bool) -> float:
    """The standard deviation, or its estimate from the median absolute deviation where that is not zero."""
    spread = 1.4826 * (y - y.median()).abs().median().item() if robust else 0.0
    return spread or (y.std(correction=0).item() if len(y) > 1 else 0.0)
