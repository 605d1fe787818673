"""Bundled real data, and toy laws whose truths are known exactly.

- ``digits`` and ``breast_cancer`` read the files that scikit-learn ships: no download.
- ``ring`` and ``grid`` are mixtures with well separated modes; ``mode_coverage`` counts which of them draws reach.
- ``parallel_lines`` is the pair of laws on which only the Wasserstein distance sees how far apart they are.
- ``draws`` draws from any torch distribution and leaves the global random state as it was.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Categorical, Distribution, Independent, MixtureSameFamily, Normal

from probdl.access import tensor
from probdl.divergences.estimate import Estimate

if TYPE_CHECKING:
    import pandas as pd


class Digits(NamedTuple):
    """Handwritten digits: ``images`` (1797, 1, 8, 8) in [0, 1], float64, and ``labels`` (1797,), int64."""

    images: Tensor
    labels: Tensor


class Regression(NamedTuple):
    """Covariates ``X`` of shape (n, d) and the response ``y`` of shape (n,)."""

    X: Any
    y: Any


def digits() -> Digits:
    """Return the 1797 handwritten digits of 8×8 pixels, the ink of each pixel divided by 16.

    Source: E. Alpaydin and C. Kaynak (1998), Optical Recognition of Handwritten Digits, UCI repository (its test
    part), as shipped with scikit-learn.

    Example:
        >>> images, labels = digits()
        >>> images.shape, float(images.max()), labels[:3]
        (torch.Size([1797, 1, 8, 8]), 1.0, tensor([0, 1, 2]))
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return Digits(torch.from_numpy(bunch.images / 16.0).unsqueeze(1), torch.from_numpy(bunch.target).long())


def breast_cancer(standardise: bool = False, as_frame: bool = False) -> Regression:
    """Return 30 measurements of cell nuclei from 569 biopsies, and whether each was benign.

    Args:
        standardise: subtract each column's mean and divide by its standard deviation (divisor n).
        as_frame: return a DataFrame with the names of the measurements, and a Series called "benign".

    Returns:
        ``X, y``: (569, 30) and (569,), float64; y is 1 for a benign tumour and 0 for a malignant one.

    Source: W. Wolberg, O. Mangasarian and W. Street (1995), Breast Cancer Wisconsin (Diagnostic), UCI repository,
    as shipped with scikit-learn.

    Example:
        >>> X, y = breast_cancer(standardise=True)
        >>> X.shape, int(y.sum())
        (torch.Size([569, 30]), 357)
    """
    from sklearn.datasets import load_breast_cancer

    bunch = load_breast_cancer(as_frame=True)
    X: pd.DataFrame = bunch.data
    if standardise:
        X = (X - X.mean()) / X.std(ddof=0)
    y = bunch.target.astype("float64").rename("benign")
    return Regression(X, y) if as_frame else Regression(tensor(X, "X"), tensor(y, "y"))


def draws(law: Distribution, n: int, seed: int = 0) -> Tensor:
    """Return ``n`` draws from ``law``, the same for the same seed; the global random state stays as it was.

    Args:
        law: any torch distribution, on any device.
        n: the number of draws.
        seed: of a random state that lives only during this call.

    Returns:
        A tensor of shape (n, *batch_shape, *event_shape), without gradient.

    Raises:
        TypeError: if ``law`` is not a torch distribution.
        ValueError: if ``n`` is not a positive integer.

    Example:
        >>> bool((draws(ring(), 5, seed=1) == draws(ring(), 5, seed=1)).all())
        True
    """
    if not isinstance(law, Distribution):
        raise TypeError(f"law must be a torch.distributions.Distribution; got {type(law).__name__}.")
    _check_count(n, "n")
    # torch.manual_seed would also queue a seed for CUDA devices that are not initialised yet, and so outlive the fork.
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(seed)
        if devices:
            torch.cuda.manual_seed_all(seed)
        return law.sample(torch.Size([n]))


def ring(modes: int = 8, radius: float = 1.0, sigma: float = 0.01) -> MixtureSameFamily:
    r"""Return the mixture of equally likely round Gaussians whose means stand on a circle.

    .. math:: \frac1K \sum_{k=0}^{K-1} N\bigl(r(\cos 2\pi k/K, \sin 2\pi k/K),\ \sigma^2 I\bigr)

    Args:
        modes: the number K of Gaussians.
        radius: of the circle.
        sigma: the standard deviation of each Gaussian along each axis, in the unit of ``radius``.

    Raises:
        ValueError: if ``modes`` is not a positive integer, or ``radius`` or ``sigma`` is not positive.

    Source: A. Srivastava et al. (2017), VEEGAN, NeurIPS, section 4.1.

    Example:
        >>> ring().component_distribution.mean[0]
        tensor([1., 0.], dtype=torch.float64)
    """
    _check_count(modes, "modes")
    _check_positive(radius, "radius")
    angle = 2 * math.pi * torch.arange(modes, dtype=torch.float64) / modes
    return _mixture(radius * torch.stack([angle.cos(), angle.sin()], 1), sigma)


def grid(side: int = 5, spacing: float = 2.0, sigma: float = 0.05) -> MixtureSameFamily:
    r"""Return the mixture of ``side``² equally likely round Gaussians on a square grid centred at the origin.

    Args:
        side: the number of Gaussians along each axis.
        spacing: between neighbouring means.
        sigma: the standard deviation of each Gaussian along each axis, in the unit of ``spacing``.

    Raises:
        ValueError: if ``side`` is not a positive integer, or ``spacing`` or ``sigma`` is not positive.

    Source: A. Srivastava et al. (2017), VEEGAN, NeurIPS, section 4.1.

    Example:
        >>> grid().component_distribution.mean.unique()
        tensor([-4., -2.,  0.,  2.,  4.], dtype=torch.float64)
    """
    _check_count(side, "side")
    _check_positive(spacing, "spacing")
    axis = spacing * (torch.arange(side, dtype=torch.float64) - (side - 1) / 2)
    return _mixture(torch.cartesian_prod(axis, axis), sigma)


def _mixture(means: Tensor, sigma: float) -> MixtureSameFamily:
    _check_positive(sigma, "sigma")
    weights = Categorical(probs=torch.ones(len(means), dtype=means.dtype))
    return MixtureSameFamily(weights, Independent(Normal(means, torch.full_like(means, sigma)), 1))


@dataclass(frozen=True)
class ModeCoverage:
    """Which modes of a mixture some draws reach.

    Attributes:
        reached: the number of modes with at least one good draw.
        populated: the number of modes whose good draws make up at least ``share`` of what the law would send there.
        modes: the number of modes of the law.
        good: the fraction of draws within ``radius`` standard deviations of a mode, with its binomial error.
        reverse_kl: KL of the draws' mode frequencies (each draw at its nearest mode) from the law's weights, nats.
        table: a DataFrame with one row a mode: its weight, the good draws there, their fraction and its error.
    """

    reached: int
    populated: int
    modes: int
    good: Estimate
    reverse_kl: Estimate
    table: pd.DataFrame

    def __repr__(self) -> str:
        return (
            f"ModeCoverage: {self.reached} of {self.modes} modes reached, {self.populated} populated; "
            f"good draws {self.good!r}; reverse KL {self.reverse_kl!r}"
        )


def mode_coverage(x: Any, law: MixtureSameFamily, radius: float = 3.0, share: float = 0.2) -> ModeCoverage:
    r"""Count the modes of ``law`` that the draws ``x`` reach.

    A draw is good if :math:`\lVert (x - \mu_k)/\sigma_k \rVert \le` ``radius`` for some mode k. Draws of the law itself
    are good with probability :math:`1 - e^{-9/2} = 0.989` in two dimensions at the default radius.

    Args:
        x: draws of shape (n, d), array-like; 2500 are usual.
        law: a mixture of Gaussians, such as ``ring()`` or ``grid()``.
        radius: in standard deviations.
        share: the part of its expected draws that a mode needs to be called populated.

    Raises:
        TypeError: if ``law`` is not a ``MixtureSameFamily``, or ``x`` does not hold numbers.
        ValueError: if the columns of ``x`` are not those of the law, or ``radius`` or ``share`` is not positive.

    Source: Z. Lin et al. (2018), PacGAN, NeurIPS, section 4.1.

    Example:
        >>> mode_coverage(draws(ring(), 2500), ring()).reached
        8
    """
    if not isinstance(law, MixtureSameFamily):
        raise TypeError(f"law must be a MixtureSameFamily, such as data.ring(); got {type(law).__name__}.")
    _check_positive(radius, "radius")
    _check_positive(share, "share")
    x = tensor(x, "x").cpu()
    if x.shape[1:] != law.event_shape:
        raise ValueError(f"x must have shape (n, {law.event_shape[0]}) to fit the law; got {tuple(x.shape)}.")
    distance, mode = _nearest_mode(x, law)
    weights = law.mixture_distribution.probs.double().cpu()
    hits = torch.bincount(mode[distance <= radius], minlength=len(weights))
    return ModeCoverage(
        reached=int((hits > 0).sum()),
        populated=int((hits >= share * weights * len(x)).sum()),
        modes=len(weights),
        good=_fraction(int(hits.sum()), len(x)),
        reverse_kl=_reverse_kl(torch.bincount(mode, minlength=len(weights)), weights),
        table=_mode_table(hits, weights, len(x)),
    )


def _nearest_mode(x: Tensor, law: MixtureSameFamily) -> tuple[Tensor, Tensor]:
    """Return for each draw the distance, in standard deviations, from its nearest mode, and that mode."""
    means, sds = (t.double().cpu() for t in (law.component_distribution.mean, law.component_distribution.stddev))
    distance = torch.stack([((x - mean) / sd).norm(dim=1) for mean, sd in zip(means, sds)], 1).min(1)
    return distance.values, distance.indices


def _fraction(count: int, n: int) -> Estimate:
    p = count / n
    notes = ("all draws fell on one side; the binomial error of zero is too small",) if p in (0.0, 1.0) else ()
    return Estimate(p, math.sqrt(p * (1 - p) / n), "binomial", n=n, notes=notes)


def _reverse_kl(counts: Tensor, weights: Tensor) -> Estimate:
    """Return the plug-in KL of frequencies from weights with its delta-method error."""
    n = int(counts.sum())
    p = counts / n
    log_ratio = torch.where(counts > 0, (p / weights).log(), 0.0)
    kl = float((p * log_ratio).sum())
    stderr = float(((p * log_ratio**2).sum() - kl**2).clamp(min=0) / n) ** 0.5
    bias = (int((weights > 0).sum()) - 1) / (2 * n)
    notes = (f"equal frequencies would still give about {bias:.2g} at this n",)
    return Estimate(kl, stderr, "plug-in", target="expected estimate", n=n, notes=notes)


def _mode_table(hits: Tensor, weights: Tensor, n: int) -> pd.DataFrame:
    import pandas as pd

    p = hits / n
    columns = {"weight": weights, "good": hits, "fraction": p, "stderr": (p * (1 - p) / n).sqrt()}
    return pd.DataFrame({name: column.numpy() for name, column in columns.items()}).rename_axis("mode")


@dataclass(frozen=True)
class ParallelLines:
    r"""The uniform laws on two vertical segments, of (0, U) and of (θ, U) with U uniform on [0, 1].

    For θ ≠ 0 the supports do not touch: every f-divergence stands at its largest value and is blind to θ, while
    :math:`W_1 = |\theta|`. All values are exact: ``wasserstein`` in the unit of θ, ``js`` and ``kl`` in nats.

    Attributes:
        theta: the distance between the lines, with its sign.
    """

    theta: float

    def draws(self, n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Return ``n`` independent draws from each law: x from (0, U) and y from (θ, U), both (n, 2), float64.

        Raises:
            ValueError: if ``n`` is not a positive integer.
        """
        _check_count(n, "n")
        generator = torch.Generator().manual_seed(seed)
        x, y = torch.rand(2, n, 2, dtype=torch.float64, generator=generator)
        x[:, 0], y[:, 0] = 0.0, self.theta
        return x, y

    @property
    def wasserstein(self) -> float:
        """W_p of any order, |θ|."""
        return abs(self.theta)

    @property
    def js(self) -> float:
        """Jensen–Shannon divergence, log 2 unless θ = 0 (nats, with the factor ½)."""
        return self._apart(math.log(2))

    @property
    def tv(self) -> float:
        """Total variation, 1 unless θ = 0."""
        return self._apart(1.0)

    @property
    def kl(self) -> float:
        """Kullback–Leibler divergence, infinite in both directions unless θ = 0."""
        return self._apart(math.inf)

    @property
    def hellinger2(self) -> float:
        """Squared Hellinger distance 1 − ∫√(pq), 1 unless θ = 0."""
        return self._apart(1.0)

    def _apart(self, value: float) -> float:
        return value if self.theta != 0 else 0.0


def parallel_lines(theta: float) -> ParallelLines:
    """Return the two parallel lines at distance ``theta``, with their exact divergences and draws.

    Args:
        theta: a finite number.

    Raises:
        ValueError: if ``theta`` is not finite.

    Source: M. Arjovsky, S. Chintala and L. Bottou (2017), Wasserstein GAN, ICML, example 1.

    Example:
        >>> lines = parallel_lines(0.5)
        >>> lines.wasserstein, lines.tv, round(lines.js, 4), lines.kl
        (0.5, 1.0, 0.6931, inf)
    """
    _check(math.isfinite(theta), f"theta must be a finite number; got {theta!r}.")
    return ParallelLines(float(theta))


def _check_count(n: int, name: str) -> None:
    _check(isinstance(n, int) and n >= 1, f"{name} must be a positive integer; got {n!r}.")


def _check_positive(value: float, name: str) -> None:
    _check(math.isfinite(value) and value > 0, f"{name} must be a positive number; got {value!r}.")


def _check(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)
