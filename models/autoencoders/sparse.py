"""The autoencoder whose codes a penalty keeps sparse."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from probdl.models.arguments import not_negative, one_of
from probdl.models.autoencoders.base import Loss, squared_error
from probdl.models.autoencoders.codes import PlainAutoencoder
from probdl.models.unsupervised import Batch
from probdl.nn import MLP

WEIGHTS = {"l1": 0.5, "kl": 1.0}
DECAY = 1e-2


class SparseAutoencoder(PlainAutoencoder):
    r"""Codes with more entries than a row, of which each row uses few.

    .. math:: \min_{f, g} E\,|u - g(f(u))|^2 + Ω(f), \qquad
              Ω = λ \sum_j E\,|w_j| |z_j| \text{ ("l1")} \quad\text{or}\quad
              Ω = β \sum_j \mathrm{KL}(ρ ‖ \hat ρ_j) + \tfrac{δ}{2} ‖W‖^2 \text{ ("kl")}.

    Rows u are in standardised units, and squares are summed over their entries. Under "l1" codes are positive or zero
    (ReLU), and |w_j| is the length of the atom :math:`w_j` that entry j adds to the reconstruction: without it a
    smaller code and a longer atom would evade the penalty. At best each row is then reconstructed as a lasso would.
    Under "kl" codes are between 0 and 1 (sigmoid), :math:`\hat ρ_j` is the mean of entry j over the rows of a batch, KL
    the divergence of two coins, in nats, and the decay of all weights W holds the decoder in bounds.

    Without epochs and steps, at most 2000 steps are taken, or 20 epochs if these are more.

    Args:
        latent_dim: the number of entries of a code.
        penalty: "l1" or "kl".
        weight: λ or β; None: .5 for "l1", 1 for "kl".
        target: ρ, the mean that "kl" presses for.
        weight_decay: δ, for "kl".
        encoder: a network (n, ...) → (n, latent_dim), before the ReLU or sigmoid. None: an MLP of ``hidden``.
        decoder: a network (n, latent_dim) → (n, ...); then "l1" takes |w_j| as 1, and bounding its slope is up to the
            network. None: an affine map, whose columns are the atoms.
        hidden: the widths of the hidden layers of the encoder; None: none.
        standardise, learning_rate, decay, patience, dtype: as of ``Autoencoder``.

    Raises:
        ValueError, TypeError: for an argument that cannot be used.

    Reference:
        Ranzato, Boureau and LeCun (2007), Sparse feature learning for deep belief networks, NeurIPS. Ng (2011), Sparse
        autoencoder, CS294A lecture notes.

    Example:
        >>> import torch
        >>> x = torch.randn(300, 4, generator=torch.Generator().manual_seed(0))
        >>> codes = SparseAutoencoder(8).fit(x, epochs=50, progress=False).encode(x)
        >>> codes.shape, bool((codes >= 0).all()), bool((codes == 0).float().mean() > 0.4)
        (torch.Size([300, 8]), True, True)
    """

    SETTINGS = (*PlainAutoencoder.SETTINGS, "penalty", "weight", "target", "weight_decay")
    OVERCOMPLETE = True
    FLAT = True

    def __init__(
        self,
        latent_dim: int = 100,
        *,
        penalty: str = "l1",
        weight: float | None = None,
        target: float = 0.05,
        weight_decay: float = DECAY,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        hidden: Sequence[int] | None = None,
        standardise: str = "auto",
        learning_rate: float = 2e-3,
        decay: bool = True,
        patience: int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(
            latent_dim, {"encoder": encoder, "decoder": decoder}, hidden=hidden, standardise=standardise,
            learning_rate=learning_rate, decay=decay, patience=patience, dtype=dtype,
        )  # fmt: skip
        self.penalty = one_of(penalty, [*WEIGHTS], "penalty")
        self.weight = WEIGHTS[self.penalty] if weight is None else not_negative(weight, "weight")
        self.weight_decay = not_negative(weight_decay, "weight_decay")
        if not 0 < target < 1:
            raise ValueError(f"target must be a number between 0 and 1, the mean of an entry; got {target!r}.")
        self.target = float(target)

    @property
    def atoms(self) -> Tensor:
        """What each entry of a code adds to the reconstruction, (latent_dim, ...), in standardised units."""
        self._rows("atoms")
        if (columns := self._columns) is None:
            raise ValueError("atoms are those of an affine decoder; this one has a decoder of your own.")
        return columns.detach().T.reshape(self.latent_dim, *self._form.shape)

    def _chosen_encoder(self, shape: tuple[int, ...]) -> nn.Module:
        return MLP(shape, self.latent_dim, hidden=self.hidden or ())

    def _chosen_decoder(self, shape: tuple[int, ...]) -> nn.Module:
        return MLP(self.latent_dim, shape, hidden=())

    def _code(self, u: Tensor, c: Tensor | None) -> Tensor:
        code = super()._code(u, c)
        return code.relu() if self.penalty == "l1" else code.sigmoid()

    @property
    def _columns(self) -> Tensor | None:
        """The matrix of the decoder that was chosen, (entries, latent_dim), or None for one that was passed."""
        if self._given["decoder"] is not None:
            return None
        assert isinstance(self.decoder, MLP)
        return self.decoder.layers[0].weight  # type: ignore[return-value]

    def _loss(self, batch: Batch, noise: torch.Generator) -> Loss:
        z = self._code(batch[0], None)
        error = squared_error(batch[0], self._back(z, None)).mean()
        penalty = self.weight * (
            self._length(z) if self.penalty == "l1" else bernoulli_kl(self.target, z.mean(0)).sum()
        )
        if self.penalty == "kl":
            penalty = penalty + self.weight_decay / 2 * sum(p.square().sum() for p in self.parameters() if p.ndim > 1)
        return error + penalty, {"error": error, "penalty": penalty}

    def _length(self, z: Tensor) -> Tensor:
        """Return the mean over rows of the lengths of all atoms in use."""
        columns = self._columns
        return (z if columns is None else z * columns.norm(dim=0)).sum(1).mean()


def bernoulli_kl(target: float, means: Tensor) -> Tensor:
    r"""Return the divergence of a coin from others, in nats.

    .. math:: \mathrm{KL}(ρ ‖ \hat ρ) = ρ \log \frac{ρ}{\hat ρ} + (1 - ρ) \log \frac{1 - ρ}{1 - \hat ρ}

    Args:
        target: ρ.
        means: of any shape, between 0 and 1.

    Example:
        >>> bernoulli_kl(0.5, torch.tensor([0.5, 0.25]))
        tensor([0.0000, 0.1438])
    """
    safe = means.clamp(1e-6, 1 - 1e-6)  # a mean of 0 or 1 in float32 has no finite logarithm
    rho = torch.full_like(safe, target)
    return rho * (rho / safe).log() + (1 - rho) * ((1 - rho) / (1 - safe)).log()
