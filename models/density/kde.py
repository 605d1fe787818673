"""Kernel density estimation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from probdl.access import Draws
from probdl.divergences.estimate import Estimate
from probdl.models.arguments import count, one_of
from probdl.models.classical import ClassicalModel, flat
from probdl.models.density import bandwidths, boundary
from probdl.models.density.band import Band, simultaneous_band
from probdl.models.density.distribution import KernelDensity
from probdl.models.density.smoothing import KERNELS, Kernel
from probdl.models.row_model import home

if TYPE_CHECKING:
    import pandas as pd

Model = TypeVar("Model", bound="KDE")


class KDE(ClassicalModel):
    r"""A density without parameters: the mean of kernels around the rows.

    .. math:: \hat p(x) = \sum_i w_i\, |H|^{-1/2} K\big(H^{-1/2} (x - x_i)\big).

    Sums run over tiles of near points, in O(n + m) memory; what is left out is below 10⁻¹⁵ of each sum.

    Args:
        bandwidth: a rule: "scott" and "silverman", a factor times the covariance of the rows; "lscv" (least squares)
            and "likelihood", cross-validation of that factor; "isj", Improved Sheather–Jones, of one column; "auto",
            which takes "isj" for one column and "silverman" for several, and says so in ``message``. Or in the data's
            units: a number h, H = h²I; d numbers, H = diag(h²); or H itself, (d, d), in their squares. Rules are those
            of the Gaussian kernel; another gets the bandwidth of the same smoothing (Marron and Nolan).
        kernel: "gaussian", whose standard deviation is h; or "epanechnikov", ∝ (1 − |u|²)₊, whose half-width is h.
        product: whether K is the product of d kernels in one dimension, and H diagonal.
        bounds: where the data end: a pair (low, high) for all columns, or a list of a pair or None for each; None or
            an infinity is no bound. Kernels are reflected there, so that no mass is lost, and K is a product. The bias
            at a bound is O(h) where the density has a slope there, else O(h²).
        dtype: of draws.

    Attributes:
        distribution: the estimate as a torch ``Distribution``.
        bandwidth_matrix: H, (d, d), in the squared units of the data.
        effective_rows: 1/Σw², the number of rows of equal weight that the bandwidth is chosen for.

    Raises:
        ValueError, TypeError: for an argument that cannot be used.

    Reference:
        Wand and Jones (1995), Kernel Smoothing; Silverman (1986), Density Estimation, section 2.10 for reflection.

    Example:
        >>> model = KDE(1.0).fit([[0.0], [3.0]])
        >>> [round(log, 4) for log in model.log_prob([[0.0], [60.0]]).tolist()]
        [-1.601, -1626.1121]
        >>> model.message
        'gaussian kernel, bandwidth as given'
        >>> KDE(1.0, bounds=(0.0, None)).fit([[0.0], [3.0]]).log_prob([[-1.0]])
        tensor([-inf], dtype=torch.float64)
    """

    SETTINGS = ("bandwidth", "kernel", "product", "bounds")
    points: Tensor
    weights: Tensor
    root: Tensor

    def __init__(
        self,
        bandwidth: Any = "auto",
        *,
        kernel: str = "gaussian",
        product: bool = False,
        bounds: Any = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__(dtype)
        self.bandwidth = bandwidths.checked(bandwidth)
        self.kernel = one_of(kernel, KERNELS, "kernel")
        self.product = bool(product)
        self.bounds = boundary.checked(bounds)
        self._given_weights: Draws | None = None

    def fit(  # type: ignore[override]
        self: Model,
        x: Any,
        y: None = None,
        *,
        weights: Any = None,
        device: str | torch.device = "auto",
        seed: int = 0,
    ) -> Model:
        """Keep the rows of ``x``, and choose the bandwidth.

        Args:
            x: array-like (n, ...) of numbers: a table, or images (n, c, h, w), each of which is a row of pixels.
            y: must be None.
            weights: array-like (n,), not negative; divided by their sum, which ``message`` tells.
            device: where to compute; "auto": a GPU if ``x`` is there or one is found, else the CPU.
            seed: nothing is drawn here.

        Returns:
            The model; ``message`` says how the bandwidth was had.

        Raises:
            ValueError, TypeError: for data or arguments that cannot be used; the model is then as it was before.
            ConvergenceError: where the criterion of the bandwidth has no minimum, as with many duplicates.
        """
        with self._or_as_before():
            self._given_weights = None if weights is None else Draws(_numbers(len(x)), weights, name="x")
            super().fit(x, y, device=device, seed=seed)
            self._given_weights = None
        return self

    @property
    def distribution(self) -> KernelDensity:
        """The estimate as a torch ``Distribution`` on numbers, for data (n,), or on vectors (d,)."""
        form = self._rows("distribution")[0]
        low, high = self._ends
        return KernelDensity(self.points, self.weights, self.root, self._kernel, low, high, scalar=not form.shape)

    @property
    def bandwidth_matrix(self) -> Tensor:
        """H, (d, d)."""
        self._rows("bandwidth_matrix")
        return self.root @ self.root.T

    @property
    def effective_rows(self) -> float:
        """1/Σw²."""
        self._rows("effective_rows")
        return 1 / float(self.weights.square().sum())

    def log_prob(self, x: Any) -> Tensor:
        """Return the log-density of each row, (n,), in the data's units; −∞ outside the bounds.

        Raises:
            ValueError, TypeError: before ``fit``, or for rows unlike those of ``fit``.
        """
        return self.distribution.log_prob(self._points_of(x)).to(home(x), self.dtype)

    def log_likelihood(self, x: Any) -> Estimate:
        """Return the log-density of each row, as other models estimate it: here its stderr is 0.

        Raises:
            ValueError, TypeError: as ``log_prob``.
        """
        value = self.log_prob(x)
        return Estimate(value, torch.zeros_like(value), "kernel sum")

    def sample(self, n: int, *, seed: int = 0) -> Tensor | pd.DataFrame:
        """Draw ``n`` rows from the estimate, in the form of the data of ``fit``.

        Raises:
            ValueError: before ``fit``, or for an n that is no whole number of at least 1.
        """
        form = self._rows("sample")[0]
        rows = self.distribution.draws(count(n, "n"), self._noise(seed))
        return form.dress(rows.reshape(n, *form.shape), self.dtype, draws=True)

    def band(self, x: Any, level: float = 0.95, *, draws: int = 1000, seed: int = 0) -> Band:
        """Return a confidence band for the smoothed density p_h = E p̂ at the points x, simultaneous over them.

        It covers p_h, and not the density p of the data, from which p_h differs by the bias of the bandwidth.

        Args:
            x: points like the rows of ``fit``, (m, ...).
            level: the probability that p_h lies in the band at all of them.
            draws: of the bootstrap.
            seed: of the draws.

        Raises:
            ValueError, TypeError: before ``fit``, for points unlike those of ``fit``, or a level outside (0, 1).
        """
        return simultaneous_band(self.distribution, self._points_of(x), level, count(draws, "draws", 100), seed)

    def _estimate(self, u: Tensor, seed: int) -> None:
        if self._form.blocks:
            columns = [block.column for block in self._form.blocks]
            raise ValueError(
                f"x must hold numbers only: columns {columns} are categories, which have no density. Drop them."
            )
        assert self.units is not None
        x = flat(self.units.outward(u)).contiguous()
        given = self._given_weights
        weights = x.new_full((len(x),), 1 / len(x)) if given is None else self._weights_of(given, x)
        self._keep(points=x, weights=weights)
        self._check_bounds(x)
        bandwidths.warn_of_ties(x, self.bandwidth)
        sample = bandwidths.Sample(x, weights, self._kernel, self._ends)
        root, how = bandwidths.chosen(self.bandwidth, sample)
        self._keep(root=root.contiguous())  # as a file gives it back
        notes = () if given is None else given.notes
        self.message = "; ".join((f"{self.kernel} kernel, {how}", *notes))

    @staticmethod
    def _weights_of(given: Draws, x: Tensor) -> Tensor:
        weights = given.weights
        assert weights is not None
        if int((weights > 0).sum()) < 2:
            raise ValueError("weights must be positive for at least 2 rows, of which a density can be learnt; got 1.")
        return weights.to(x)

    def _check_bounds(self, x: Tensor) -> None:
        low, high = self._ends
        outside = int(((x < low) | (x > high)).any(1).sum())
        if outside:
            raise ValueError(
                f"x must lie inside bounds {self.bounds}; {outside} of {len(x)} rows do not. Widen the bounds."
            )

    def _points_of(self, x: Any) -> Tensor:
        form = self._rows("this")[0]
        rows = form.check(x).to(self.points)
        return rows if not form.shape else flat(rows)

    @property
    def _ends(self) -> Tensor:
        return boundary.ends(self.bounds, self.points.shape[1]).to(self.points)

    @property
    def _kernel(self) -> Kernel:
        return Kernel(self.kernel, self.product or self.bounds is not None, self.points.shape[1])


def _numbers(n: int) -> Tensor:
    return torch.zeros(n, 1, dtype=torch.float64)
