"""The variational autoencoder."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from probdl.divergences.estimate import Estimate
from probdl.families import BernoulliHead, Conditional, MeanFieldNormal, NormalHead, reparameterised
from probdl.loops import batches
from probdl.models.arguments import count, one_of
from probdl.models.elbo import elbo_estimate, elbo_terms, importance_estimate, log_weights
from probdl.models.form import Form
from probdl.models.generative import CHUNK, Encoding, GenerativeModel
from probdl.models.network_model import Training
from probdl.models.networks import check_network, chosen_decoder, chosen_encoder, is_small
from probdl.models.row_model import home
from probdl.models.units import Units
from probdl.models.unsupervised import Batch
from probdl.nn import seeded

HEADS: dict[str, type[Conditional]] = {"gaussian": NormalHead, "bernoulli": BernoulliHead}
STEPS = 20_000


class VAE(Encoding, GenerativeModel):
    r"""A latent variable model fitted together with an approximation to its posterior.

    .. math:: \log p(x) ≥ E_{q(z|x)} \log p(x | z) - \mathrm{KL}(q(z | x) ‖ p(z)), \qquad p(z) = N(0, I).

    The decoder p(x | z) is a distribution around a network of z, the encoder q(z | x) a normal with mean and scale
    from a network of x; ``fit`` maximises the mean of the right-hand side over rows, with M reparameterised draws.
    Sums run over all dimensions of a row. All likelihoods are in nats and in the data's own units.

    Args:
        latent_dim: the dimension of z.
        likelihood: "gaussian", one scale σ that is learnt (closed form in each batch; after the fit fixed at its
            maximum-likelihood value given the training rows, so that all rows are scored by one density);
            "bernoulli", for zeros and ones only; "auto", Bernoulli where all data are 0 or 1, Gaussian elsewhere.
            Grey values between 0 and 1 are Gaussian: their cross-entropy is not a likelihood.
        encoder: a network (n, ...) → (n, 2·latent_dim), read as mean and raw scale (softplus). None: chosen by the
            shape of a row, a CNN for images (c, h, w), an MLP for anything else.
        decoder: a network (n, latent_dim) → (n, ...), the mean in standardised units, or for "bernoulli" the logits.
        draws: M, the draws of z for each row and step.
        hidden: the widths of the chosen MLPs (None: 128, 128) or the channels of the chosen CNNs (None: 32, 64).
        standardise: for Gaussian likelihoods; "shared", one shift and scale for all entries of a row, as images need;
            "column", one for each entry; "none"; "auto", "column" for tables and "shared" for the rest.
        learning_rate: of Adam.
        decay: whether it falls to zero along half a cosine over the steps or epochs that ``fit`` is given.
        patience: epochs without a better validation bound until the fit stops; None: as many as make 1000 steps, at
            least 5.
        dtype: of the networks.

    Raises:
        ValueError, TypeError: for an argument that cannot be used.

    Reference:
        Kingma and Welling (2014), Auto-encoding variational Bayes, ICLR.

    Example:
        >>> import torch
        >>> z = torch.randn(400, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        >>> x = torch.cat([z, 2 * z, -z], 1) + 0.1 * z.roll(1)
        >>> vae = VAE(1, dtype=torch.float64).fit(x, epochs=20, progress=False)
        >>> vae.sample(5).shape, vae.encode(x).shape, vae.log_likelihood(x).value.shape
        (torch.Size([5, 3]), torch.Size([400, 1]), torch.Size([400]))
    """

    SETTINGS = ("latent_dim", "likelihood", "draws", "hidden", "standardise", "learning_rate", "decay", "patience")

    def __init__(
        self,
        latent_dim: int = 2,
        likelihood: str = "auto",
        *,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        draws: int = 1,
        hidden: Sequence[int] | None = None,
        standardise: str = "auto",
        learning_rate: float = 1e-3,
        decay: bool = False,
        patience: int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__({"encoder": encoder, "decoder": decoder}, dtype, standardise=standardise)
        self.latent_dim, self.draws = count(latent_dim, "latent_dim"), count(draws, "draws")
        self.likelihood = one_of(likelihood, ("auto", *HEADS), "likelihood")
        self.hidden = None if hidden is None else tuple(hidden)
        self.patience = None if patience is None else count(patience, "patience")
        self.learning_rate, self.decay = learning_rate, decay
        self.family = ""
        self.encoder: MeanFieldNormal | None = None
        self.decoder: Conditional | None = None

    def _study(self, train: Tensor, held: Tensor | None) -> None:
        self.family = self._chosen(train, held)
        super()._study(train, held)
        if self.family == "bernoulli":
            self.units = Units.plain(self._form.shape)

    def _learn(self, train: Batch, held: Batch | None, how: Training) -> None:
        one = is_small(train[0][: how.size])
        try:
            self._train_in_batches(self._loss(), train, held, how, one=one, most=STEPS)
        finally:
            if self.fitted:
                self._finish(train, how.seed)

    def _draws(self, n: int, c: Tensor | None, mean: bool, noise: torch.Generator) -> Tensor:
        decoder, z = self._parts("sample")[3], self._prior(n, noise, self.latent_dim)
        return decoder(z).mean if mean else decoder.draw(z, noise)

    def _code(self, u: Tensor, c: Tensor | None) -> Tensor:
        return self._parts("encode")[2](u).mean

    def _back(self, z: Tensor, c: Tensor | None) -> Tensor:
        return self._parts("reconstruct")[3](z).mean

    def log_likelihood(self, x: Any, draws: int = 100, *, seed: int = 0) -> Estimate:
        r"""Estimate log p(x) of each row by importance weighting with the encoder.

        .. math:: \log \frac1K \sum_{k=1}^K \frac{p(x | z_k)\,p(z_k)}{q(z_k | x)}, \qquad z_k \sim q(z | x).

        Args:
            x: rows like those of ``fit``; only held-out rows say how good the model is.
            draws: K, at least 2.
            seed: of the draws.

        Returns:
            Value and stderr (delta method) of shape (n,), in nats, in the data's units; a lower bound in expectation,
            which rises to log p(x) with K.

        Raises:
            ValueError, TypeError: before ``fit``, or for rows unlike those of ``fit``.

        Reference:
            Burda, Grosse and Salakhutdinov (2016), Importance weighted autoencoders, ICLR.
        """
        log_w = self._scores("log_likelihood", log_weights, x, count(draws, "draws", least=2), seed)[0]
        return importance_estimate(log_w.to(home(x)), self._parts("log_likelihood")[1].log_jacobian)

    def elbo(self, x: Any, draws: int = 100, *, seed: int = 0) -> Estimate:
        r"""Estimate the evidence lower bound of each row, :math:`E_q \log p(x|z) - \mathrm{KL}(q ‖ p(z))`.

        Args:
            x: rows like those of ``fit``.
            draws: of z for each row, at least 2; the KL is in closed form.
            seed: of the draws.

        Returns:
            Value and stderr of shape (n,), in nats, in the data's units.

        Raises:
            ValueError, TypeError: before ``fit``, or for rows unlike those of ``fit``.
        """
        log_p, kl = self._scores("elbo", elbo_terms, x, count(draws, "draws", least=2), seed)
        return elbo_estimate(log_p.to(home(x)), kl.to(home(x)), self._parts("elbo")[1].log_jacobian)

    @property
    def scale(self) -> Tensor:
        """The standard deviation σ of a Gaussian decoder in the data's units: one number, or one for each column."""
        _, units, _, decoder = self._parts("scale")
        if not isinstance(decoder, NormalHead):
            raise ValueError("scale is a Gaussian decoder's; this model has likelihood 'bernoulli'.")
        return decoder.variance.double().sqrt() * units.scale

    def _chosen(self, *rows: Tensor | None) -> str:
        """Return the likelihood's name, after a look at the data if it is "auto"."""
        if self.likelihood != "auto":
            return self.likelihood
        return "bernoulli" if all(is_binary(x) for x in rows if x is not None) else "gaussian"

    def _build(self, seed: int) -> None:
        """Put the families around the networks that were passed, or around new ones."""
        shape = self._form.shape
        encoder, decoder = (self._restarted(name) for name in ("encoder", "decoder"))
        if encoder is not None:
            check_network(encoder, "encoder", shape, (2 * self.latent_dim,), "mean and raw scale")
        if decoder is not None:
            check_network(decoder, "decoder", (self.latent_dim,), shape, "the shape of a row")
        with seeded(seed):
            encoder = encoder if encoder is not None else chosen_encoder(shape, 2 * self.latent_dim, self.hidden)
            decoder = decoder if decoder is not None else chosen_decoder(self.latent_dim, shape, self.hidden)
        self.encoder = MeanFieldNormal(encoder).to(self.dtype)
        self.decoder = HEADS[self.family](decoder).to(self.dtype)

    def _found(self) -> dict[str, Any]:
        return {**super()._found(), "family": self.family}

    def _rebuild(self, found: dict[str, Any]) -> None:
        self.family = found["family"]
        super()._rebuild(found)

    def _loss(self) -> Callable[[tuple[Tensor, ...], torch.Generator], tuple[Tensor, dict[str, Tensor]]]:
        """Return the negative bound in the data's units, a function of a batch and a generator."""
        _, units, encoder, decoder = self._parts("fit")
        jacobian = units.log_jacobian

        def loss(batch: tuple[Tensor, ...], generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
            log_p, kl = elbo_terms(encoder, decoder, batch[0], self.draws, generator)
            reconstruction, divergence = -log_p.mean() - jacobian, kl.mean()
            return reconstruction + divergence, {"reconstruction": reconstruction, "kl": divergence}

        return loss

    def _finish(self, train: Batch, seed: int) -> None:
        """Fix what training left open (the decoder's scale), given the training rows."""
        _, _, encoder, decoder = self._parts("fit")
        # With n draws in all, the error of the variance costs 1/(2n) nats a row.
        noise, passes = self._noise(seed), math.ceil(5000 / len(train[0]))
        with torch.no_grad():
            decoder.settle(
                (rows, reparameterised(encoder(rows), noise, 1)[0])
                for _ in range(passes)
                for (rows,) in batches(train, CHUNK)
            )
        self.message = f"{self.family} likelihood; {self.message}"

    def _check_support(self, x: Tensor) -> None:
        if self.family == "bernoulli" and not is_binary(x):
            raise ValueError(
                f"x must hold only 0 and 1 for likelihood='bernoulli'; its values are between {x.min().item():g} "
                f"and {x.max().item():g}. Use likelihood='gaussian', or binarise them, as in (x > 0.5)."
            )

    def _scores(self, what: str, score: Callable[..., Any], x: Any, draws: int, seed: int) -> tuple[Tensor, ...]:
        """Return what ``score`` says of all rows, in float64, some rows at a time."""
        _, _, encoder, decoder = self._parts(what)
        noise, found = self._noise(seed), []
        with self._quietly():
            for rows in self._inward(x).split(max(1, CHUNK // draws)):
                out = score(encoder, decoder, rows, draws, noise)
                found.append((out,) if isinstance(out, Tensor) else out)
        return tuple(torch.cat(parts, -1).double() for parts in zip(*found))

    def _parts(self, what: str) -> tuple[Form, Units, MeanFieldNormal, Conditional]:
        """Return what a fitted model has, or raise."""
        form, units = self._rows(what)
        assert self.encoder is not None  # both are built together with the form
        assert self.decoder is not None
        return form, units, self.encoder, self.decoder


def is_binary(x: Tensor) -> bool:
    """Whether all values are 0 or 1."""
    return bool(((x == 0) | (x == 1)).all())
