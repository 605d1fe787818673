"""Cluster analysis by k-means."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from probdl.models.arguments import count
from probdl.models.classical import ClassicalModel, flat
from probdl.models.row_model import home

if TYPE_CHECKING:
    import pandas as pd


class KMeans(ClassicalModel):
    r"""Clusters around k centres, by Lloyd's algorithm (scikit-learn's) from k-means++ starts.

    .. math:: \min_{m_1, …, m_k} \sum_i \min_j |u_i - m_j|^2, \qquad u \text{ the standardised rows}.

    Args:
        clusters: k.
        starts: the number of starts, of which the best end is kept.
        standardise: "column", each to variance 1 ("auto" for tables); "shared", one scale for all ("auto" for images);
            or "none".
        dtype: of the centres.

    Attributes:
        inertia: the sum at its minimum, in standardised units.

    Raises:
        ValueError, TypeError: for an argument that cannot be used.

    Reference:
        Lloyd (1982), Least squares quantization in PCM; Arthur and Vassilvitskii (2007), k-means++.

    Example:
        >>> model = KMeans(2).fit([[0.0], [1.0], [10.0], [11.0]])
        >>> model.centres.flatten().sort().values
        tensor([ 0.5000, 10.5000], dtype=torch.float64)
        >>> labels = model.predict([[2.0], [9.0]])
        >>> bool(labels[0] != labels[1])
        True
    """

    SETTINGS = ("clusters", "starts", "standardise")
    nodes: Tensor
    cost: Tensor

    def __init__(
        self, clusters: int = 8, *, starts: int = 10, standardise: str = "auto", dtype: torch.dtype = torch.float64
    ) -> None:
        super().__init__(dtype, standardise=standardise)
        self.clusters, self.starts = count(clusters, "clusters"), count(starts, "starts")

    @property
    def centres(self) -> Tensor | pd.DataFrame:
        """The centres in the data's units, (clusters, ...), or a DataFrame if ``fit`` got one."""
        form, units = self._rows("centres")
        return form.dress(units.outward(self.nodes.reshape(-1, *form.shape)), self.dtype)

    @property
    def inertia(self) -> float:
        """The sum of squared distances of the rows of ``fit`` from their centres, in standardised units."""
        self._rows("inertia")
        return float(self.cost)

    def predict(self, x: Any) -> Tensor:
        """Return the nearest centre of each row, (n,), from 0 to clusters − 1.

        Raises:
            ValueError, TypeError: before ``fit``, or for rows unlike those of ``fit``.
        """
        return torch.cdist(flat(self._inward(x)), self.nodes).argmin(1).to(home(x))

    def _estimate(self, u: Tensor, seed: int) -> None:
        from sklearn.cluster import KMeans as Lloyd

        rows = flat(u)
        distinct = len(rows.unique(dim=0))
        if distinct < self.clusters:
            raise ValueError(
                f"x must have at least as many distinct rows as clusters, {self.clusters}; got {distinct}."
            )
        found = Lloyd(self.clusters, n_init=self.starts, random_state=seed).fit(rows.cpu().numpy())
        self._keep(nodes=torch.as_tensor(found.cluster_centers_).to(rows), cost=rows.new_tensor(found.inertia_))
        self.message = f"k-means: best of {self.starts} starts, {found.n_iter_} iterations"
