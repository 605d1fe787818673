"""The Wasserstein GAN."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from probdl.divergences import Estimate, LipschitzCritic, gradient_penalty, ipm
from probdl.divergences.lipschitz import clip
from probdl.models.adversarial.duelling import DuellingModel
from probdl.models.adversarial.slopes import held_out_w1
from probdl.models.arguments import count, one_of, positive
from probdl.models.cards import GENERATOR, NONE, Card
from probdl.models.row_model import home
from probdl.models.unsupervised import Batch

VALUED = 5000  # held-out rows on which the critic is valued at each record
EARLY = 25  # steps of the generator before each of which the critic may take more
DEFAULTS: dict[str, dict[str, Any]] = {
    "clip": {"optimiser": "rmsprop", "learning_rates": (5e-5, 5e-5), "decay": False, "ema": None},
    "penalty": {"optimiser": "adam", "learning_rates": (1e-3, 1e-3), "decay": True, "ema": 0.999},
}


class WGAN(DuellingModel):
    r"""A generator that learns from a critic with bounded slopes, whose gap is a Wasserstein distance.

    .. math:: \min_G \max_f\; E_x f(x) - E_z f(G(z)), \qquad |f(a) - f(b)| \le |a - b|, \quad z \sim N(0, I)

    Over all such f the maximum is :math:`W_1`. A network is held to a slope in one of two ways: "clip", the algorithm
    of the paper, moves each weight into [−c, c] after each step, so that the slope is at most some K that nobody
    knows, and the gap is in a unit of its own; "penalty" adds λ times the squared excess of the slope over 1, between
    data and samples, and the gap is near W1.

    ``history`` has the critic's gap on its batches as ``critic_w1``, and on held-out rows the gap over a bound on the
    slope as ``w1``: under "clip" the product of the layers' spectral norms, which makes it a lower bound, in
    expectation; under "penalty" the largest slope that was met (and for networks that are no chain of dense layers).
    They are in the data's units if one scale serves all entries of a row (images, ``standardise="shared"``), else in
    standardised units. ``validation`` is the energy distance of samples from held-out rows; the fit ends with the
    latest state for which it is, within its noise, the smallest. ``divergence`` estimates W1 by a fresh critic.

    Args:
        latent_dim: the dimension of z.
        constraint: "penalty" or "clip".
        clipping: c of "clip". A small one makes the critic flat and its gradients vanish, a large one makes it slow.
        penalty: λ of "penalty".
        two_sided: whether slopes below 1 are penalised too, as in the paper of the penalty.
        critic_steps: of the critic before each of the generator.
        early_critic_steps: the same for the first 25 steps of the generator, so that the critic is near its best when
            the generator first listens; the authors' code takes 100. None: as later.
        optimiser: "adam" (β = 0, 0.9), "rmsprop", "momentum" (0.9) or "sgd", of both. None: "rmsprop" for "clip".
        learning_rates: of the critic and the generator. None: 5e-5 and 5e-5 for "clip", 1e-3 and 1e-3 for "penalty".
        decay: whether both fall to zero along half a cosine. None: for "penalty".
        ema: the decay of the average of the generator's weights that makes the samples, or None for its last weights;
            "auto": 0.999 for "penalty", None for "clip".
        generator: a network (n, latent_dim [+ size of the condition]) → (n, ...), rows in standardised units. None:
            chosen by the shape of a row, a transposed CNN for images (c, h, w), an MLP for anything else.
        critic: a network (n, ...) → (n,) or (n, 1).
        hidden: the widths of the chosen MLPs (None: 128, 128, 128) or the channels of the chosen CNNs (None: 32, 64).
        standardise: "shared", one shift and scale for all entries of a row, as images need; "column", one for each
            entry; "none"; "auto", "column" for tables and "shared" for the rest.
        dtype: of the networks.

    ``fit`` takes 5,000 steps of the generator, 2,000 for images, in batches of 64, unless told otherwise; it may be
    given a condition.

    Raises:
        ValueError, TypeError: for an argument that cannot be used.

    Reference:
        Arjovsky, Chintala and Bottou (2017), Wasserstein generative adversarial networks, ICML, algorithm 1. Gulrajani
        et al. (2017), Improved training of Wasserstein GANs, NeurIPS; one-sided as of Petzka, Fischer and Lukovnikov
        (2018), On the regularization of Wasserstein GANs, ICLR.

    Example:
        >>> import torch
        >>> x = 5 + torch.randn(400, 2, generator=torch.Generator().manual_seed(0)) @ torch.tensor([[2.0, 1], [0, 1]])
        >>> wgan = WGAN(2, hidden=(16,), standardise="shared").fit(x, steps=50, progress=False)
        >>> wgan.sample(3).shape, wgan.history[["critic_w1", "w1", "slope"]].shape
        (torch.Size([3, 2]), (50, 3))
    """

    CARD = Card(
        "WGAN", "distribution through transformation", decoder=GENERATOR, prior="normal", encoder=NONE,
        objective="Wasserstein distance", side="dual", critic="f_w",
    )  # fmt: skip
    SETTINGS = (
        "latent_dim", "constraint", "clipping", "penalty", "two_sided", "critic_steps", "early_critic_steps",
        "optimiser", "learning_rates", "decay", "ema", "hidden", "standardise",
    )  # fmt: skip
    SEEN = ("validation", "w1", "slope")
    INSTEAD = "divergence(x), W1 by a fresh critic, and probdl.models.evaluate(model, x)"
    BATCH = 64
    STEPS = 5_000
    STEPS_OF_IMAGES = 2_000
    BETAS = (0.0, 0.9)

    def __init__(
        self,
        latent_dim: int = 8,
        *,
        constraint: str = "penalty",
        clipping: float = 0.01,
        penalty: float = 10.0,
        two_sided: bool = False,
        critic_steps: int = 5,
        early_critic_steps: int | None = None,
        optimiser: str | None = None,
        learning_rates: Sequence[float] | None = None,
        decay: bool | None = None,
        ema: float | str | None = "auto",
        generator: nn.Module | None = None,
        critic: nn.Module | None = None,
        hidden: Sequence[int] | None = None,
        standardise: str = "auto",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        usual = DEFAULTS[one_of(constraint, [*DEFAULTS], "constraint")]
        if isinstance(ema, str):
            one_of(ema, ["auto"], "ema")
        super().__init__(
            latent_dim, {"generator": generator, "critic": critic}, dtype, hidden=hidden, standardise=standardise,
            critic_steps=critic_steps,
            optimiser=usual["optimiser"] if optimiser is None else optimiser,
            learning_rates=usual["learning_rates"] if learning_rates is None else learning_rates,
            decay=usual["decay"] if decay is None else decay,
            ema=usual["ema"] if isinstance(ema, str) else ema,
        )  # fmt: skip
        self.constraint, self.clipping = constraint, positive(clipping, "clipping")
        self.penalty, self.two_sided = positive(penalty, "penalty"), bool(two_sided)
        self.early_critic_steps = early_critic_steps
        if early_critic_steps is not None:
            count(early_critic_steps, "early_critic_steps")

    def potential(self, x: Any, *, condition: Any = None) -> Tensor:
        """Return f(x), the critic's value as it ended, (n,): larger where data are, smaller where samples are.

        It is given up to a constant, and in a unit of its own: only its differences mean something, over its slope.

        Args:
            x: rows like those of ``fit``.
            condition: of these rows, for a model fitted with a condition.

        Raises:
            ValueError, TypeError: before ``fit``, or for rows unlike those of ``fit``.
        """
        return self._values(x, condition).to(home(x))

    def divergence(self, x: Any, draws: int = 1000, *, condition: Any = None, seed: int = 0) -> Estimate:
        """Estimate W1 between held-out rows and samples by a fresh critic under the same constraint.

        Args:
            x: at least 40 rows that ``fit`` did not see.
            draws: fresh samples, at least 40; for each row's condition, in turn, if there is one.
            condition: of these rows, for a model fitted with a condition; the pairs of row and condition are compared.
            seed: of the samples and of the critic.

        Returns:
            An ``Estimate`` in the data's units (Euclidean distance of whole rows, in which a column of large numbers
            counts most; a category is √2 from another), valued on rows that did not train the critic; it may be
            negative. Under "penalty" an "approximation", under "clip" a "lower bound", which is about half.

        Raises:
            ValueError, TypeError: before ``fit``, or for rows unlike those of ``fit``, or fewer than 40.

        Reference:
            See ``probdl.divergences.ipm``.
        """
        critic = LipschitzCritic(constraint=self.constraint)
        return self._between(partial(ipm, critic=critic, seed=seed), x, draws, condition, seed)

    def _seen(self, held: Batch, noise: torch.Generator) -> tuple[float, ...]:
        some = tuple(part[:VALUED] for part in held)
        fake, c = self._fakes(some, noise), some[1] if len(some) > 1 else None
        w1, slope = held_out_w1(self._players[0], some[0], fake, c, noise, self.constraint == "clip")
        return w1 * self._unit, slope / self._unit

    def _critic_loss(self, batch: Batch, noise: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        critic, fakes = self._players[0], self._fakes(batch, noise).detach()
        gap = critic(*batch).mean() - critic(fakes, *batch[1:]).mean()
        terms = {"w1": gap * self._unit}
        if self.constraint == "clip":
            return -gap, terms
        given = partial(critic, c=batch[1]) if len(batch) > 1 else critic
        terms["penalty"] = gradient_penalty(given, batch[0], fakes, noise, two_sided=self.two_sided)
        return -gap + self.penalty * terms["penalty"], terms

    def _generator_loss(self, batch: Batch, noise: torch.Generator) -> Tensor:
        return -self._players[0](self._fakes(batch, noise), *batch[1:]).mean()

    @property
    def _unit(self) -> float:
        """One standardised unit in the data's units, if it is the same for all entries of a row; else 1."""
        low, high = self._rows("fit")[1].scale.aminmax()
        return high.item() if low == high else 1.0

    @property
    def _turns(self) -> int | Callable[[int], int]:
        early, later = self.early_critic_steps, self.critic_steps
        return later if early is None else (lambda step: early if step < EARLY else later)

    @property
    def _more(self) -> dict[str, Any]:
        size = self.clipping
        return {"after_critic": lambda critic: clip(critic, size)} if self.constraint == "clip" else {}
