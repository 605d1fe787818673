"""The linear autoencoder, which finds the principal components."""

from __future__ import annotations

import math
import warnings
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from probdl.errors import ConvergenceWarning
from probdl.models.autoencoders.base import Loss, squared_error
from probdl.models.autoencoders.codes import PlainAutoencoder
from probdl.models.network_model import Training
from probdl.models.unsupervised import Batch
from probdl.nn import seeded

STEPS, EVERY = 3000, 30
BETAS = (0.97, 0.98)  # whole steps have no noise to average: a short memory of squares follows the curvature
FAR = 1e-3  # excess of the loss over its minimum, relative, from which the fit warns


class LinearAutoencoder(PlainAutoencoder):
    r"""Principal components by an autoencoder whose two maps are linear.

    .. math:: \min_W E\,|x - W W^T x|^2 \text{ (tied)}, \qquad \min_{V, W} E\,|x - W V x|^2 \text{ (untied)},

    for x less its mean. At the minimum the loss is the sum of the discarded eigenvalues of the covariance of x, and the
    columns of W span the leading eigenvectors: compare subspaces, since any rotation of W (for the untied, any
    invertible map between V and W) does as well. ``message`` says how close the fit came to that minimum, and it warns
    where it came not within 0.1 %.

    By default these are the principal components of the covariance of x in its own units, as in the formula;
    ``standardise="column"`` makes it those of the correlation matrix, which tables of different units need.

    The loss depends on the rows only by their covariance, so by default a step takes them all, at the price of as many
    rows as there are entries in one: 3000 steps take a second, also for a million rows. A ``batch_size`` takes
    ordinary batches instead, whose noise keeps the loss above its minimum. "auto" holds no rows back.

    Args:
        latent_dim: k, the number of components.
        tied: whether the decoder is the transpose of the encoder.
        standardise: "shared" or "none", the components of the covariance; "column", of the correlation matrix; "auto",
            "column" for tables and "shared" for the rest.
        learning_rate: of Adam, with β = (.97, .98).
        decay: whether it falls to zero along half a cosine over the steps or epochs.
        patience: epochs (with validation rows) without a better loss until the fit stops; None: never.
        dtype: of the weights.

    Raises:
        ValueError, TypeError: for an argument that cannot be used.

    Reference:
        Baldi and Hornik (1989), Neural networks and principal component analysis, Neural Networks 2(1).

    Example:
        >>> import torch
        >>> noise = torch.Generator().manual_seed(0)
        >>> x = torch.randn(500, 3, generator=noise) * torch.tensor([3.0, 2.0, 1.0])
        >>> model = LinearAutoencoder(2).fit(x, progress=False)
        >>> discarded = torch.linalg.eigvalsh(torch.cov(x.T, correction=0))[0]
        >>> abs(float((x - model.reconstruct(x)).square().sum(1).mean() / discarded) - 1) < 1e-4
        True
    """

    BATCH = 2**62  # all rows
    SETTINGS = ("latent_dim", "tied", "standardise", "learning_rate", "decay", "patience")
    centre: Tensor

    def __init__(
        self,
        latent_dim: int = 2,
        *,
        tied: bool = True,
        standardise: str = "shared",
        learning_rate: float = 0.1,
        decay: bool = True,
        patience: int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(
            latent_dim, {}, hidden=None, standardise=standardise, learning_rate=learning_rate, decay=decay,
            patience=patience, dtype=dtype,
        )  # fmt: skip
        self.tied = bool(tied)
        self.register_buffer("centre", torch.zeros(0))
        self.register_parameter("weight", None)
        self.register_parameter("untied", None)

    @property
    def components(self) -> Tensor:
        """The rows of the encoder, (latent_dim, ...), of the shape of a row each: what a code's entries measure."""
        self._rows("components")
        return self._weight.detach().reshape(self.latent_dim, *self._form.shape)

    def _divided(self, rows: Tensor, given: Tensor | None, validation: Any, seed: int) -> tuple[Batch, Batch | None]:
        automatic = isinstance(validation, str) and validation == "auto"
        return super()._divided(rows, given, None if automatic else validation, seed)

    def _study(self, train: Tensor, held: Tensor | None) -> None:
        super()._study(train, held)
        assert self.units is not None
        self.centre = self.units.inward(train.double()).reshape(len(train), -1).mean(0).to(self.dtype)

    def _build(self, seed: int) -> None:
        entries = math.prod(self._form.shape)
        with seeded(seed):
            basis = torch.linalg.qr(torch.randn(entries, self.latent_dim, dtype=torch.float64))[0].T.to(self.dtype)
        if len(self.centre) != entries:
            self.centre = torch.zeros(entries, dtype=self.dtype)
        self.weight = nn.Parameter(basis.contiguous())
        self.untied = None if self.tied else nn.Parameter(basis.T.clone())

    def _learn(self, train: Batch, held: Batch | None, how: Training) -> None:
        rows = train[0].reshape(len(train[0]), -1) - self.centre
        whole = how.size == len(rows)
        data = (compressed(rows) if whole else rows,)
        kept = None if held is None else (held[0].reshape(len(held[0]), -1) - self.centre,)
        size = len(data[0]) if whole else how.size
        how = Training(how.epochs, how.steps, size, how.seed, how.progress, how.checkpoint, how.resume)
        steps_each = math.ceil(len(data[0]) / size)
        adam = partial(torch.optim.Adam, lr=self.learning_rate, betas=BETAS, fused=True)
        self._train_in_batches(
            self._loss, data, kept, how, one=True, most=STEPS, every=max(EVERY, steps_each), optimiser=adam
        )
        self._compare(rows)

    @property
    def _weight(self) -> Tensor:
        assert self.weight is not None
        return self.weight

    @property
    def _decoder(self) -> Tensor:
        return self._weight.T if self.untied is None else self.untied

    def _loss(self, batch: Batch, noise: torch.Generator) -> Loss:
        (u,) = batch
        return squared_error(u, u @ self._weight.T @ self._decoder.T).mean()

    def _code(self, u: Tensor, c: Tensor | None) -> Tensor:
        return (u.reshape(len(u), -1) - self.centre) @ self._weight.T

    def _back(self, z: Tensor, c: Tensor | None) -> Tensor:
        return (z @ self._decoder.T + self.centre).reshape(len(z), *self._form.shape)

    def _compare(self, rows: Tensor) -> None:
        """Say how far the loss is from its minimum, and warn where it is far."""
        rows = compressed(rows.double())
        squares = torch.linalg.svdvals(rows).square() / len(rows)
        least, total = float(squares[self.latent_dim :].sum()), float(squares.sum())
        with torch.no_grad():
            weight, decoder = self._weight.double(), self._decoder.double()
            loss = float((rows - rows @ weight.T @ decoder.T).square().sum(1).mean())
        excess = max(0.0, loss - least) / max(least, 1e-6 * total)
        self.message += f"; its loss exceeds the sum of the discarded eigenvalues by {excess:.1e} of it"
        if excess > FAR:
            warnings.warn(
                f"The loss {loss:.6g} is {excess:.1%} above the sum of the discarded eigenvalues, {least:.6g}. Let "
                "the fit take more steps, or with columns of very different spread pass standardise='column'.",
                ConvergenceWarning,
                stacklevel=4,
            )


def compressed(rows: Tensor) -> Tensor:
    r"""Return at most d rows (m, d) with the same mean of squares along every direction as n rows.

    With :math:`X = QR`, :math:`|XA|^2 = |RA|^2` for every matrix A, and the rows of R are scaled by √(m/n).

    Args:
        rows: (n, d), centred.

    Example:
        >>> x = torch.arange(6.0).reshape(3, 2)
        >>> y = compressed(x)
        >>> torch.allclose(x.T @ x / 3, y.T @ y / 2)
        True
    """
    n, d = rows.shape
    if n <= d:
        return rows
    return torch.linalg.qr(rows, mode="r")[1] * math.sqrt(d / n)
