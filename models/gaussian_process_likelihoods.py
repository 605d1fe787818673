"""What is seen of the values of a Gaussian process: labels through a link, or measurements with noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

from probdl.inference.propagation.closed_forms import laplace_moments, mixture_moments, probit_moments
from probdl.inference.propagation.tilted import TiltedMoments, TiltedQuadrature
from probdl.natural import NormalFactor

Tilted = Callable[[NormalFactor], TiltedMoments]
L = TypeVar("L", bound="Likelihood")


class Likelihood:
    """One observation for each entry of f, given that entry alone.

    Attributes:
        parameters: positive parameters by name, such as "noise.scale".
    """

    parameters: dict[str, Tensor]
    exact = False  # whether its sites are known, so that expectation propagation starts at its fixed point

    def __init__(self, y: Tensor, **parameters: Any) -> None:
        self.y, self.parameters = y, {k: torch.as_tensor(v, dtype=y.dtype) for k, v in parameters.items()}

    def replaced(self, parameters: Mapping[str, Any]) -> Likelihood:
        """Return the likelihood with other parameters, by name."""
        raise NotImplementedError

    def rows(self, rows: Tensor) -> Likelihood:
        """Return the likelihood of some of the observations."""
        return self._with(self.y[rows])

    def shifted(self, level: Tensor | float) -> Likelihood:
        """Return the likelihood of g = f − level."""
        raise NotImplementedError

    def _with(self: L, y: Tensor) -> L:
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other.y = y
        return other

    def log_likelihood(self, f: Tensor) -> Tensor:
        """Return log p(y | f), (k, n) for f of that shape."""
        raise NotImplementedError

    def tilted(self, power: float = 1.0) -> Tilted:
        """Return the moments of cavity × likelihood raised to ``power``."""
        return TiltedQuadrature(lambda f: power * self.log_likelihood(f))

    def first_sites(self) -> NormalFactor | None:
        """Return sites from which expectation propagation may start better than from none."""
        return None

    def parameter_gradient(self, cavity: NormalFactor, tilted: Tilted, power: float) -> dict[str, float]:
        """Return ∂ log evidence / ∂ log parameter, E[∂ log p(y|f)] under the tilted distributions of a fixed point."""
        if not self.parameters:
            return {}
        logs = {k: v.detach().log().requires_grad_() for k, v in self.parameters.items()}
        with torch.enable_grad():
            moved = self.replaced({k: v.exp() for k, v in logs.items()})
            total = moved.expected_log_likelihood(cavity, tilted, power)
            gradients = torch.autograd.grad(total, list(logs.values()))
        return {k: g.item() for k, g in zip(logs, gradients)}

    def expected_log_likelihood(self, cavity: NormalFactor, tilted: Tilted, power: float) -> Tensor:
        """Return what has the gradient of the log normalisers in the parameters."""
        if isinstance(tilted, TiltedQuadrature):
            f, weights = tilted.nodes(cavity)
            return (weights * self.log_likelihood(f)).sum()
        return self.tilted(power)(cavity).log_normaliser.sum() / power


class Label(Likelihood):
    """Labels y of −1 and 1 through a link; f = ``level`` + g where a level was taken out."""

    def __init__(self, y: Tensor, link: str) -> None:
        super().__init__(y)
        self.link, self.level = link, 0.0

    def shifted(self, level: Tensor | float) -> Likelihood:
        """Return the likelihood of g = f − level."""
        other = self._with(self.y)
        other.level = self.level + float(level)
        return other

    def replaced(self, parameters: Mapping[str, Any]) -> Likelihood:
        """Return the likelihood itself, which has no parameters."""
        return self

    def log_likelihood(self, f: Tensor) -> Tensor:
        """Return log Φ(y f), or log 1/(1 + e^{−y f})."""
        signed = self.y * (f + self.level)
        return torch.special.log_ndtr(signed) if self.link == "probit" else torch.nn.functional.logsigmoid(signed)

    def tilted(self, power: float = 1.0) -> Tilted:
        """Return the moments, in closed form for the probit link."""
        if self.link == "probit" and power == 1.0:
            return lambda cavity: probit_moments(cavity, self.y, self.y * self.level)
        return super().tilted(power)


class Noise(Likelihood):
    """Measurements y = f + noise, with a scale in the unit of y."""

    kind = "normal"

    def __init__(self, y: Tensor, scale: Any) -> None:
        super().__init__(y, **{"noise.scale": scale})

    @property
    def scale(self) -> Tensor:
        """The scale of the noise."""
        return self.parameters["noise.scale"]

    def shifted(self, level: Tensor | float) -> Likelihood:
        """Return the likelihood of g = f − level."""
        return self._with(self.y - level)

    def replaced(self, parameters: Mapping[str, Any]) -> Likelihood:
        """Return the likelihood with another scale."""
        other = self._with(self.y)
        scale = parameters.get("noise.scale", self.scale)
        other.parameters = {"noise.scale": torch.as_tensor(scale, dtype=self.y.dtype)}
        return other

    def first_sites(self) -> NormalFactor | None:
        """Return the sites of Normal noise with this scale."""
        precision = (1 / self.scale.detach() ** 2).expand(len(self.y)).clone()
        return NormalFactor(self.y * precision, precision)

    def cdf(self, z: Any) -> Any:
        """Return the distribution function of the noise in units of its scale, of a NumPy array."""
        raise NotImplementedError

    def variance(self) -> float:
        """Return the variance of the noise; infinite where it has none."""
        return self.scale.item() ** 2


class NormalNoise(Noise):
    """Normal noise: one Normal site for each observation, hence exact."""

    exact = True

    def log_likelihood(self, f: Tensor) -> Tensor:
        """Return log N(y; f, σ²)."""
        return -0.5 * ((self.y - f) / self.scale) ** 2 - self.scale.log() - 0.5 * math.log(2 * math.pi)

    def tilted(self, power: float = 1.0) -> Tilted:
        """Return the moments in closed form, as of one component around y."""
        around = self.y.detach()[:, None]

        def moments(cavity: NormalFactor) -> TiltedMoments:
            gap = NormalFactor(cavity.shift - cavity.precision * self.y, cavity.precision)
            precision = (power / self.scale**2).expand_as(around)
            constant = (-power * (self.scale.log() + 0.5 * math.log(2 * math.pi))).expand_as(around)
            found = mixture_moments(gap, constant, torch.zeros_like(around), precision)
            return TiltedMoments(found.log_normaliser, self.y + found.mean, found.variance, 0.0)

        return moments

    def cdf(self, z: Any) -> Any:
        """Return Φ(z)."""
        from scipy.special import ndtr

        return ndtr(z)


class LaplaceNoise(Noise):
    """Laplace noise: the posterior mode takes medians where Normal noise takes means."""

    kind = "laplace"

    def log_likelihood(self, f: Tensor) -> Tensor:
        """Return −|y − f|/b − log 2b."""
        return -(self.y - f).abs() / self.scale - (2 * self.scale).log()

    def tilted(self, power: float = 1.0) -> Tilted:
        """Return the moments in closed form; a power of the density is one with another scale."""
        constant = (2 * self.scale / power).log() - power * (2 * self.scale).log()

        def moments(cavity: NormalFactor) -> TiltedMoments:
            found = laplace_moments(cavity, self.y, self.scale / power)
            return TiltedMoments(found.log_normaliser + constant, found.mean, found.variance, 0.0)

        return moments

    def cdf(self, z: Any) -> Any:
        """Return the distribution function of the Laplace distribution with b = 1."""
        from scipy.stats import laplace

        return laplace.cdf(z)

    def variance(self) -> float:
        """Return 2b²."""
        return 2 * self.scale.item() ** 2


class StudentNoise(Noise):
    """Student-t noise: an observation far off loses its influence, and its site has a negative precision."""

    kind = "student"

    def __init__(self, y: Tensor, scale: Any, df: float) -> None:
        super().__init__(y, scale)
        self.df = df

    def log_likelihood(self, f: Tensor) -> Tensor:
        """Return the log-density of t with ``df`` degrees of freedom."""
        df, z = self.df, (self.y - f) / self.scale
        constant = math.lgamma((df + 1) / 2) - math.lgamma(df / 2) - 0.5 * math.log(df * math.pi)
        return constant - self.scale.log() - 0.5 * (df + 1) * torch.log1p(z**2 / df)

    def cdf(self, z: Any) -> Any:
        """Return the distribution function of t with ``df`` degrees of freedom."""
        from scipy.special import stdtr

        return stdtr(self.df, z)

    def variance(self) -> float:
        """Return σ² df/(df − 2)."""
        return self.scale.item() ** 2 * self.df / (self.df - 2) if self.df > 2 else math.inf
