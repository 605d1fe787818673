"""Generators that need no critic: the divergence of a batch of data and one of samples is itself the loss."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from probdl.divergences import RBF, Estimate, mmd2, mmd2_loss, sliced_wasserstein, sliced_wasserstein_loss
from probdl.divergences.kernels import median_bandwidth
from probdl.models.adversarial.implicit import ImplicitModel, with_condition
from probdl.models.arguments import count
from probdl.models.network_model import Training
from probdl.models.networks import is_small
from probdl.models.unsupervised import Batch

STEPS = 5_000
BANDWIDTHS = (0.125, 0.25, 0.5, 1.0, 2.0)  # in units of the median distance between training rows


class MatchingGenerator(ImplicitModel):
    """A generator that descends a divergence of batches of draws.

    Args:
        latent_dim, hidden, standardise, dtype: as of ``ImplicitModel``.
        generator: a network (n, latent_dim [+ size of the condition]) → (n, ...).
        learning_rate: of Adam.
        decay: whether it falls to zero along half a cosine.
        patience: records without a better divergence from held-out rows until the fit stops.
        ema: the decay of the average of the weights that makes the samples.
    """

    BATCH = 256

    def __init__(
        self,
        latent_dim: int,
        *,
        generator: nn.Module | None,
        hidden: Sequence[int] | None,
        standardise: str,
        learning_rate: float,
        decay: bool,
        patience: int | None,
        ema: float | None,
        dtype: torch.dtype,
    ) -> None:
        super().__init__(latent_dim, {"generator": generator}, dtype, hidden=hidden, standardise=standardise)
        self.learning_rate, self.decay, self.ema = learning_rate, decay, ema
        self.patience = None if patience is None else count(patience, "patience")

    @abstractmethod
    def _between_batches(self, x: Tensor, y: Tensor, noise: torch.Generator) -> Tensor:
        """Return the divergence of data (n, d) and samples (n, d), with gradients."""

    def _loss(self, batch: Batch, noise: torch.Generator) -> Tensor:
        if len(batch[0]) == 1:  # taken twice: the terms among data alone have no gradient
            batch = tuple(torch.cat([part, part]) for part in batch)
        fakes = (self._fakes(batch, noise), *batch[1:])
        return self._between_batches(with_condition(batch), with_condition(fakes), noise)

    def _learn(self, train: Batch, held: Batch | None, how: Training) -> None:
        one = is_small(train[0][: how.size])
        self._train_in_batches(self._loss, train, held, how, one=one, most=STEPS, ema=self.ema)


class GMMN(MatchingGenerator):
    r"""A generative moment matching network: a generator that descends the squared MMD.

    .. math:: \min_G \mathrm{MMD}^2(p, q) = \sup_{\|f\|_H \le 1} \bigl(E_x f(x) - E_z f(G(z))\bigr)^2

    The critic of a kernel has its best f in closed form, so there is no game. The kernel is a mean of Gaussians of
    1/8 to 2 times the median distance of training rows; the estimate from a batch is unbiased, and may be negative.

    Args:
        latent_dim: the dimension of z.
        generator: a network (n, latent_dim [+ size of the condition]) → (n, ...), rows in standardised units. None:
            chosen by the shape of a row, a transposed CNN for images (c, h, w), an MLP for anything else.
        hidden: the widths of the chosen MLP (None: 128, 128, 128) or the channels of the chosen CNN (None: 32, 64).
        standardise: "shared", one shift and scale for all entries of a row, as images need; "column", one for each
            entry; "none"; "auto", "column" for tables and "shared" for the rest.
        learning_rate: of Adam.
        decay: whether it falls to zero along half a cosine.
        patience: epochs without a better held-out MMD² until the fit stops; None: as many as make 1000 steps, at least
            5.
        ema: the decay of the average of the weights that makes the samples; None: the last weights.
        dtype: of the network.

    ``fit`` takes at most 5,000 steps, in batches of 256, unless told otherwise, and may be given a condition.

    Raises:
        ValueError, TypeError: for an argument that cannot be used.

    Reference:
        Li, Swersky and Zemel (2015), Generative moment matching networks, ICML; Dziugaite, Roy and Ghahramani (2015),
        Training generative neural networks via maximum mean discrepancy optimization, UAI.

    Example:
        >>> import torch
        >>> x = 5 + torch.randn(400, 2, generator=torch.Generator().manual_seed(0)) @ torch.tensor([[2.0, 1], [0, 1]])
        >>> GMMN(2, hidden=(16,)).fit(x, steps=50, progress=False).sample(3).shape
        torch.Size([3, 2])
    """

    SETTINGS = ("latent_dim", "hidden", "standardise", "learning_rate", "decay", "patience", "ema")
    INSTEAD = "divergence(x), MMD² with an interval, and probdl.models.evaluate(model, x)"

    def __init__(
        self,
        latent_dim: int = 8,
        *,
        generator: nn.Module | None = None,
        hidden: Sequence[int] | None = None,
        standardise: str = "auto",
        learning_rate: float = 1e-3,
        decay: bool = True,
        patience: int | None = None,
        ema: float | None = 0.99,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(
            latent_dim, generator=generator, hidden=hidden, standardise=standardise, learning_rate=learning_rate,
            decay=decay, patience=patience, ema=ema, dtype=dtype,
        )  # fmt: skip
        self.bandwidth = 1.0

    def divergence(self, x: Any, draws: int = 1000, *, condition: Any = None, seed: int = 0) -> Estimate:
        """Estimate MMD² between held-out rows and samples, with the kernel of ``mmd2`` in the data's units.

        Args:
            x: rows that ``fit`` did not see.
            draws: fresh samples; for each row's condition, in turn, if there is one.
            condition: of these rows, for a model fitted with a condition; the pairs of row and condition are compared.
            seed: of the samples.

        Returns:
            An ``Estimate``, as of ``probdl.divergences.mmd2``.

        Raises:
            ValueError, TypeError: before ``fit``, or for rows unlike those of ``fit``.
        """
        return self._between(partial(mmd2, seed=seed), x, draws, condition, seed)

    def _between_batches(self, x: Tensor, y: Tensor, noise: torch.Generator) -> Tensor:
        return mmd2_loss(x, y, RBF([self.bandwidth * b for b in BANDWIDTHS]))

    def _study(self, train: Tensor, held: Tensor | None) -> None:
        super()._study(train, held)
        u = with_condition((self._rows("fit")[1].inward(train).double(),))
        self.bandwidth = median_bandwidth(u[::2], u[1::2], 0)

    def _found(self) -> dict[str, Any]:
        return {**super()._found(), "bandwidth": self.bandwidth}

    def _rebuild(self, found: dict[str, Any]) -> None:
        self.bandwidth = found["bandwidth"]
        super()._rebuild(found)


class SlicedWassersteinGenerator(MatchingGenerator):
    r"""A generator that descends the sliced Wasserstein distance, the mean of that of projections, where it is sorting.

    .. math:: \min_G SW_2(p, q), \qquad SW_2^2(p, q) = E_θ\,W_2^2(θ^\top x, θ^\top G(z))

    Args:
        latent_dim: the dimension of z.
        directions: random directions in each step.
        generator, hidden, standardise, learning_rate, decay, patience, ema, dtype: as of :class:`GMMN`.

    ``fit`` takes at most 5,000 steps, in batches of 256, unless told otherwise, and may be given a condition.

    Raises:
        ValueError, TypeError: for an argument that cannot be used.

    Reference:
        Deshpande, Zhang and Schwing (2018), Generative modeling using the sliced Wasserstein distance, CVPR.

    Example:
        >>> import torch
        >>> x = 5 + torch.randn(400, 2, generator=torch.Generator().manual_seed(0)) @ torch.tensor([[2.0, 1], [0, 1]])
        >>> SlicedWassersteinGenerator(2, hidden=(16,)).fit(x, steps=50, progress=False).sample(3).shape
        torch.Size([3, 2])
    """

    SETTINGS = ("latent_dim", "directions", "hidden", "standardise", "learning_rate", "decay", "patience", "ema")
    INSTEAD = "divergence(x), SW₂ with an interval, and probdl.models.evaluate(model, x)"

    def __init__(
        self,
        latent_dim: int = 8,
        *,
        directions: int = 100,
        generator: nn.Module | None = None,
        hidden: Sequence[int] | None = None,
        standardise: str = "auto",
        learning_rate: float = 1e-3,
        decay: bool = True,
        patience: int | None = None,
        ema: float | None = 0.99,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(
            latent_dim, generator=generator, hidden=hidden, standardise=standardise, learning_rate=learning_rate,
            decay=decay, patience=patience, ema=ema, dtype=dtype,
        )  # fmt: skip
        self.directions = count(directions, "directions")

    def divergence(self, x: Any, draws: int = 1000, *, condition: Any = None, seed: int = 0) -> Estimate:
        """Estimate SW₂ between held-out rows and samples, in the data's units.

        Args:
            x: rows that ``fit`` did not see.
            draws: fresh samples; for each row's condition, in turn, if there is one.
            condition: of these rows, for a model fitted with a condition; the pairs of row and condition are compared.
            seed: of the samples and the directions.

        Returns:
            An ``Estimate``, as of ``probdl.divergences.sliced_wasserstein``.

        Raises:
            ValueError, TypeError: before ``fit``, or for rows unlike those of ``fit``.
        """
        return self._between(partial(sliced_wasserstein, seed=seed), x, draws, condition, seed)

    def _between_batches(self, x: Tensor, y: Tensor, noise: torch.Generator) -> Tensor:
        seed = int(torch.randint(2**31, (), generator=noise, device=noise.device))
        return sliced_wasserstein_loss(x, y, directions=self.directions, seed=seed)
