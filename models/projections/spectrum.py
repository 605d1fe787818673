"""Eigenvalues of a covariance or correlation matrix, their standard errors, and axes whose signs are fixed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Principal axes of rows, as scikit-learn finds them.

    Attributes:
        mean: of the rows, (d,).
        axes: unit vectors, (k, d), the entry of largest size positive.
        values: all eigenvalues that can differ from 0, (min(n, d),), divisor n − 1, largest first.
    """

    mean: Tensor
    axes: Tensor
    values: Tensor

    @classmethod
    def of(cls, rows: Tensor, k: int | str) -> Spectrum:
        """Return k axes of rows (n, d), or with "mle" as many as Minka's approximate evidence is largest for."""
        from sklearn.decomposition import PCA

        x = rows.double().cpu().numpy()
        found = PCA(k, svd_solver="full").fit(x)
        values = torch.linalg.svdvals(rows.double() - rows.double().mean(0)).square() / (len(rows) - 1)
        return cls(torch.as_tensor(found.mean_).to(rows), signed(torch.as_tensor(found.components_).to(rows)), values)


def signed(axes: Tensor) -> Tensor:
    """Return vectors, one a row, each with the sign that makes its entry of largest size positive."""
    largest = axes.gather(1, axes.abs().argmax(1, keepdim=True))
    return axes * torch.where(largest < 0, -1.0, 1.0).to(axes)


def value_errors(rows: Tensor, found: Spectrum, correlation: bool) -> Tensor:
    r"""Return standard errors of the eigenvalues of the axes, (k,), for many independent normal rows.

    With :math:`dλ = \operatorname{tr}(A\,dS)` the variance is :math:`\tfrac2n \operatorname{tr}(ASAS)`: of a covariance
    :math:`A = vv^T`, which gives :math:`λ\sqrt{2/n}`; of a correlation matrix
    :math:`A = vv^T - λ \operatorname{diag}(v^2)`, since its columns are scaled by their own standard deviations.

    Reference:
        Anderson (1963), Asymptotic theory for principal component analysis; Konishi (1979), Asymptotic expansions for
        the distributions of statistics based on the sample correlation matrix in principal component analysis.
    """
    n, values = len(rows), found.values[: len(found.axes)]
    factor = torch.ones_like(values)
    if correlation:
        r = rows.T.corrcoef().reshape(rows.shape[1], -1)
        v = found.axes.square()
        factor = 1 - 2 * values * v.square().sum(1) + torch.einsum("ki,ij,kj->k", v, r.square(), v)
    return values * (2 * factor.clamp(min=0) / n).sqrt()


def share_errors(values: Tensor, k: int, n: int) -> Tensor:
    r"""Return standard errors of :math:`r_i = λ_i / \sum_j λ_j`, (k,), where the λ are independent as of a covariance.

    .. math:: \operatorname{Var} r_i = \tfrac2n r_i^2 \bigl(1 - 2 r_i + \textstyle\sum_j r_j^2\bigr)
    """
    shares = values / values.sum()
    return shares[:k] * (2 / n * (1 - 2 * shares[:k] + shares.square().sum())).clamp(min=0).sqrt()


def normal_log_prob(z: Tensor, rest: Tensor, values: Tensor, noise: Tensor, d: int) -> Tensor:
    r"""Return the log-density of probabilistic PCA, (n,).

    .. math:: -\tfrac12 \Bigl(d \log 2π + \sum_{i≤k} (\log λ_i + z_i^2/λ_i) + (d - k) \log σ^2 + r^2/σ^2\Bigr)

    Args:
        z: scores, (n, k).
        rest: r², the squared distance of each row from the plane, (n,).
        values: λ, (k,).
        noise: σ².
        d: the number of entries of a row.
    """
    k = len(values)
    total = d * math.log(2 * math.pi) + values.log().sum() + (z.square() / values).sum(1)
    if k < d:
        total = total + (d - k) * noise.log() + rest / noise
    return -total / 2
