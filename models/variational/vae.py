"""The variational autoencoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from probdl.models.arguments import count, not_negative, one_of
from probdl.models.cards import Card
from probdl.models.variational.answers import Answers
from probdl.models.variational.decoders import SCALES
from probdl.models.variational.likelihoods import checked_likelihood

OBJECTIVES = ("elbo", "iwae")


class VAE(Answers):
    r"""A latent variable model fitted together with an approximation to its posterior.

    .. math:: \log p(x) ≥ E_{q(z|x)} \log p(x | z) - \mathrm{KL}(q(z | x) ‖ p(z)), \qquad p(z) = N(0, I).

    The decoder p(x | z) is a distribution around a network of z, the encoder q(z | x) a normal with mean and scale
    from a network of x; ``fit`` maximises the mean of the right-hand side over rows, with M reparameterised draws.
    Sums run over all dimensions of a row. All likelihoods are in nats and in the data's own units; validation is always
    by the bound itself, whatever ``beta``, ``kl_warm_up`` and ``free_bits`` do in training. Entries may be missing (NaN
    or None): they have no term in the likelihood, the encoder gets zeros for them and, beside the row, which are there.
    With a ``condition`` c, both networks get it too: p(x | z, c), q(z | x, c).

    Args:
        latent_dim: the dimension of z.
        likelihood: "gaussian"; "bernoulli", for zeros and ones; "poisson", for counts; "categorical", for rows that are
            zeros and a single one; or {column: name} for a table, where columns that are left out are "auto". "auto":
            categorical for columns of text or categories, Bernoulli for columns of a DataFrame that hold only 0 and 1
            and for arrays that hold nothing else, Gaussian elsewhere; ``message`` says what it was. Grey values between
            0 and 1 are Gaussian: their cross-entropy is not a likelihood.
        scale: of Gaussian entries. "shared": one σ that is learnt (closed form in each batch; after the fit fixed at
            its maximum-likelihood value given the training rows, so that all rows are scored by one density).
            "column": one for each entry, likewise. "network": from a network of z that shares all but its last layer
            with the mean.
        encoder: a network (n, ...) → (n, 2·latent_dim), read as mean and raw scale (softplus). None: chosen by the
            shape of a row, a CNN for images (c, h, w), an MLP for anything else. With missing entries it gets rows that
            are twice as long along their first axis (columns, channels): values, and then whether they are there. A
            condition of k numbers follows, as k further columns or channels.
        decoder: a network (n, latent_dim) → (n, ...): the mean in standardised units, logits, or the logarithm of a
            rate in units of the mean count. With scale="network" it returns twice as many along the first axis, means
            and then raw scales; for a mixed table the raw scales of the Gaussian columns follow the row. With a
            condition it gets (n, latent_dim + k).
        draws: M, the draws of z for each row and step.
        objective: "elbo"; or "iwae", which maximises the tighter bound :math:`\log \frac1M \sum_m w_m` with its
            importance weights, and validates by it; σ is then a parameter, for it has no closed form.
        beta: the weight of the KL in training.
        kl_warm_up: steps over which that weight rises from 0.
        free_bits: nats of KL that each latent dimension has for nothing in training.
        hidden: the widths of the chosen MLPs (None: 128, 128; (): linear) or the channels of the chosen CNNs (None: 32,
            64).
        standardise: for Gaussian likelihoods; "shared", one shift and scale for all entries of a row, as images need;
            "column", one for each entry; "none"; "auto", "column" for tables and "shared" for the rest.
        learning_rate: of Adam. None: 1.5e-3; for linear networks, ``hidden=()``, 0.03 with ``decay``.
        decay: whether it falls to zero along half a cosine over the steps or epochs that ``fit`` is given.
        clip: the largest norm of the gradient.
        ema: the decay of a moving average of the parameters, such as 0.999, which validates and is the result.
        patience: epochs without a better validation bound until the fit stops; None: as many as make 300 steps, at
            least 5.
        dtype: of the networks.

    Warns:
        ConvergenceWarning: by ``fit``, if the posterior collapses: for more than half of the latent dimensions q(z | x)
            is the prior.

    Raises:
        ValueError, TypeError: for an argument that cannot be used.

    Reference:
        Kingma and Welling (2014), Auto-encoding variational Bayes, ICLR. Higgins et al. (2017), beta-VAE, ICLR. Kingma
        et al. (2016), Improved variational inference with inverse autoregressive flow, NeurIPS (free bits). Burda,
        Grosse and Salakhutdinov (2016), Importance weighted autoencoders, ICLR. Nazábal et al. (2020), Handling
        incomplete heterogeneous data using VAEs, Pattern Recognition (missing entries, mixed tables).

    Example:
        >>> import torch
        >>> z = torch.randn(400, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        >>> x = torch.cat([z, 2 * z, -z], 1) + 0.1 * z.roll(1)
        >>> vae = VAE(1, dtype=torch.float64).fit(x, epochs=20, progress=False)
        >>> vae.sample(5).shape, vae.encode(x).shape, vae.log_likelihood(x).value.shape
        (torch.Size([5, 3]), torch.Size([400, 1]), torch.Size([400]))
    """

    CARD = Card(
        "VAE", "conditional distribution", decoder="p(x | z)", prior="normal", encoder="q(z | x)",
        objective="KL divergence",
    )  # fmt: skip
    SETTINGS = (
        "latent_dim", "likelihood", "scale", "draws", "objective", "beta", "kl_warm_up", "free_bits", "hidden",
        "standardise", "learning_rate", "decay", "clip", "ema", "patience",
    )  # fmt: skip

    def __init__(
        self,
        latent_dim: int = 2,
        likelihood: str | Mapping[Any, str] = "auto",
        *,
        scale: str = "shared",
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        draws: int = 1,
        objective: str = "elbo",
        beta: float = 1.0,
        kl_warm_up: int = 0,
        free_bits: float = 0.0,
        hidden: Sequence[int] | None = None,
        standardise: str = "auto",
        learning_rate: float | None = None,
        decay: bool = False,
        clip: float | None = None,
        ema: float | None = None,
        patience: int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__({"encoder": encoder, "decoder": decoder}, dtype, standardise)
        self.latent_dim, self.draws = count(latent_dim, "latent_dim"), count(draws, "draws")
        self.likelihood, self.scale = checked_likelihood(likelihood), one_of(scale, SCALES, "scale")
        self.objective = one_of(objective, OBJECTIVES, "objective")
        self.beta, self.free_bits = not_negative(beta, "beta"), not_negative(free_bits, "free_bits")
        self.kl_warm_up = count(kl_warm_up, "kl_warm_up", least=0)
        if self.objective == "iwae" and (beta != 1 or kl_warm_up or free_bits):
            raise ValueError("beta, kl_warm_up and free_bits must be left out for objective='iwae': it has no KL term.")
        self.hidden = None if hidden is None else tuple(hidden)
        self.patience = None if patience is None else count(patience, "patience")
        self.learning_rate, self.decay, self.clip, self.ema = learning_rate, decay, clip, ema
