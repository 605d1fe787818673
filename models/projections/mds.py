"""Multidimensional scaling: points in few dimensions whose distances are those given."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from probdl.divergences.estimate import Estimate
from probdl.errors import ConvergenceWarning
from probdl.models.arguments import count, one_of
from probdl.models.classical import ClassicalModel, flat
from probdl.models.projections.distances import between, check_distances, doubly_centred, notes_on
from probdl.models.projections.quality import stress_of
from probdl.models.projections.spectrum import signed
from probdl.models.row_model import home
from probdl.models.units import Units

METHODS = ("classical", "metric")
TOLERANCE = 1e-9  # relative change of the stress at which SMACOF stops


class MDS(ClassicalModel):
    r"""Multidimensional scaling, classical or metric.

    .. math:: \text{classical: } Y = V_k Λ_k^{1/2}, \quad V Λ V^T = -\tfrac12 J Δ^2 J, \qquad
              \text{metric: } \min_Y \sum_{i<j} (δ_{ij} - |y_i - y_j|)^2,

    for distances δ of standardised rows or as given, and :math:`J = I - 11^T/n`. Of Euclidean distances the classical
    points are the scores of ``PCA``. The metric ones start from the classical ones and descend by majorisation
    (scikit-learn's SMACOF), so that nothing is random. Memory is O(n²), time O(n³) for the eigenvalues
    and O(n²) an iteration: for 1800 rows a second, and twenty for the metric points, on one core.

    Args:
        latent_dim: k, the dimension of the points.
        method: "classical" or "metric".
        precomputed: whether ``fit`` takes a table of distances (n, n) instead of rows.
        iterations: of SMACOF, at most.
        standardise: "column", each to variance 1 ("auto" for tables); "shared", one scale for all ("auto" for images);
            or "none". Distances that are given are taken as they are.
        dtype: of the points.

    Attributes:
        notes: what there is to say of distances that no points have, or that are not a metric.

    Raises:
        ValueError, TypeError: for an argument that cannot be used.

    Reference:
        Torgerson (1952), Multidimensional scaling: theory and method; Gower (1968), Adding a point to vector diagrams;
        de Leeuw (1977), Applications of convex analysis to multidimensional scaling.

    Example:
        >>> model = MDS(1, precomputed=True).fit([[0.0, 3.0, 5.0], [3.0, 0.0, 2.0], [5.0, 2.0, 0.0]])
        >>> (model.Y - model.Y[0]).abs().flatten().round(decimals=6).tolist()
        [0.0, 3.0, 5.0]
    """

    SETTINGS = ("latent_dim", "method", "precomputed", "iterations", "standardise")
    points: Tensor
    apart: Tensor
    spectrum: Tensor
    rows: Tensor

    def __init__(
        self,
        latent_dim: int = 2,
        *,
        method: str = "classical",
        precomputed: bool = False,
        iterations: int = 1000,
        standardise: str = "auto",
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__(dtype, standardise=standardise)
        self.latent_dim, self.method = count(latent_dim, "latent_dim"), one_of(method, METHODS, "method")
        self.precomputed, self.iterations = bool(precomputed), count(iterations, "iterations")

    @property
    def Y(self) -> Tensor:  # noqa: N802
        """The points of the rows of ``fit``, (n, latent_dim), centred; of an axis the largest entry is positive."""
        return self.points.to(self._rows("Y")[0].home)

    @property
    def eigenvalues(self) -> Tensor:
        """All eigenvalues of the inner products, largest first, (n,); negative ones say that no points fit exactly."""
        self._rows("eigenvalues")
        return self.spectrum

    @property
    def goodness(self) -> float:
        """The sum of the kept eigenvalues as a share of that of all absolute ones; 1 if nothing is lost."""
        self._rows("goodness")
        return float(self.spectrum[: self.latent_dim].sum() / self.spectrum.abs().sum())

    @property
    def stress(self) -> Estimate:
        """Kruskal's stress-1 of the best scaling, 0 if the picture loses nothing; its error is over the rows."""
        self._rows("stress")
        return stress_of([(self.apart, between(self.points, self.points))])

    @property
    def raw_stress(self) -> float:
        """The sum over pairs of squared differences between distances as given and of the points; no rescaling."""
        self._rows("raw_stress")
        return float(torch.nn.functional.pdist(self.points).sub(_upper(self.apart)).square().sum())

    @property
    def notes(self) -> tuple[str, ...]:
        """What there is to say of the distances."""
        self._rows("notes")
        return notes_on(self.spectrum, self.apart)

    def encode(self, x: Any) -> Tensor:
        """Return the classical points of new rows, (m, latent_dim), among those of ``fit``, which stay where they are.

        Args:
            x: rows like those of ``fit``; or, of a model of distances, those from the new rows to the fitted, (m, n).

        Raises:
            NotImplementedError: for metric scaling, which places all points together.
            ValueError, TypeError: before ``fit``, or for rows unlike those of ``fit``.
        """
        self._rows("encode")
        if self.method != "classical":
            raise NotImplementedError("Metric scaling places all points together and has no rule for new ones; the "
                                      "fitted points are Y. MDS(method='classical') has one.")  # fmt: skip
        u = flat(self._inward(x))
        if self.precomputed and bool((u < 0).any()):
            raise ValueError(f"x must hold distances, none below 0; the least is {float(u.min()):.4g}.")
        apart = u if self.precomputed else between(u, self.rows)
        inner = (self.apart.square().mean(0) - apart.square()) / 2
        return (inner @ self.points / self.spectrum[: self.latent_dim]).to(home(x))

    def _study(self, train: Tensor, held: Tensor | None) -> None:
        if not self.precomputed:
            return super()._study(train, held)
        check_distances(train)
        self.units = Units.plain(tuple(train.shape[1:]))
        return None

    def _estimate(self, u: Tensor, seed: int) -> None:
        rows = flat(u).double()
        apart = check_distances(rows) if self.precomputed else between(rows, rows)
        values, vectors = torch.linalg.eigh(doubly_centred(apart))
        values, vectors = values.flip(0), vectors.flip(1)
        if (rank := int((values > 1e-9 * values[0]).sum())) < self.latent_dim:
            raise ValueError(
                f"latent_dim must be at most the number of positive eigenvalues, {rank}; got {self.latent_dim}."
            )
        points = signed((vectors[:, : self.latent_dim] * values[: self.latent_dim].sqrt()).T).T
        self.message = "classical scaling"
        if self.method == "metric":
            points = self._descended(apart, points)
        kept = {"points": points, "apart": apart, "spectrum": values, "rows": rows[:0] if self.precomputed else rows}
        self._keep(**{name: value.to(u.dtype).contiguous() for name, value in kept.items()})
        self.message += f": stress {self.stress.value:.3g}" + "".join(f"; {note}" for note in self.notes)

    def _descended(self, apart: Tensor, start: Tensor) -> Tensor:
        """Return where SMACOF comes to from a start."""
        from sklearn.manifold import smacof

        found, _, steps = smacof(
            apart.double().cpu().numpy(), n_components=self.latent_dim, init=start.double().cpu().numpy(), n_init=1,
            max_iter=self.iterations, eps=TOLERANCE, return_n_iter=True, normalized_stress=False, random_state=0,
        )  # fmt: skip
        self.message = f"metric scaling, {steps} iterations"
        if steps >= self.iterations:
            warnings.warn(
                f"SMACOF had not settled after {steps} iterations. Pass a larger iterations=.",
                ConvergenceWarning,
                stacklevel=7,
            )
        points = torch.as_tensor(found).to(apart)
        return points - points.mean(0)


def _upper(d: Tensor) -> Tensor:
    """Return the entries of a table above its diagonal, in the order of ``pdist``."""
    i, j = torch.triu_indices(len(d), len(d), 1, device=d.device)
    return d[i, j]
