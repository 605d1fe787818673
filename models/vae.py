"""The variational autoencoder."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from probdl.divergences.estimate import Estimate
from probdl.families import BernoulliHead, Conditional, MeanFieldNormal, NormalHead, reparameterised
from probdl.loops import NotFiniteError, batches
from probdl.models.arguments import count, one_of
from probdl.models.elbo import CHUNK, elbo_estimate, elbo_terms, importance_estimate, log_weights
from probdl.models.form import Form
from probdl.models.held_out import chosen_device, split
from probdl.models.networks import check_network, chosen_decoder, chosen_encoder, is_small
from probdl.models.row_model import RowModel, home
from probdl.models.units import WAYS, Units
from probdl.nn import seeded

if TYPE_CHECKING:
    import pandas as pd

HEADS: dict[str, type[Conditional]] = {"gaussian": NormalHead, "bernoulli": BernoulliHead}
STEPS = 20_000


class VAE(RowModel):
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
        super().__init__({"encoder": encoder, "decoder": decoder}, dtype)
        self.latent_dim, self.draws = count(latent_dim, "latent_dim"), count(draws, "draws")
        self.likelihood = one_of(likelihood, ("auto", *HEADS), "likelihood")
        self.standardise = one_of(standardise, WAYS, "standardise")
        self.hidden = None if hidden is None else tuple(hidden)
        self.patience = None if patience is None else count(patience, "patience")
        self.learning_rate, self.decay = learning_rate, decay
        self.family = ""
        self.encoder: MeanFieldNormal | None = None
        self.decoder: Conditional | None = None

    def fit(
        self,
        x: Any,
        y: None = None,
        *,
        epochs: int | None = None,
        steps: int | None = None,
        batch_size: int | None = None,
        validation: Any = "auto",
        device: str | torch.device = "auto",
        seed: int = 0,
        progress: bool | None = None,
        checkpoint: str | os.PathLike | None = None,
        resume: bool = False,
    ) -> VAE:
        """Fit to the rows of ``x``, anew each time; networks that were passed start from the weights they came with.

        Args:
            x: array-like (n, ...): a table, or images (n, c, h, w).
            y: must be None; a VAE learns from ``x`` alone.
            epochs, steps: how long at most; None: 20,000 steps.
            batch_size: rows in a step; None: 128.
            validation: "auto" keeps a tenth back (nothing of fewer than 20 rows), stops when the bound on it no
                longer rises, and returns to the best epoch; a fraction; rows of your own; or None: all rows train,
                and the fit runs to its end.
            device: where to compute; "auto": a GPU if ``x`` is there or one is found, else the CPU.
            seed: of the initial weights, the rows kept back, the order of rows and the noise.
            progress: whether to show a bar; None: where stderr is a terminal.
            checkpoint: a file that holds the whole state of the fit, written every minute and at its end.
            resume: whether to go on from the checkpoint, if it is there; the result is that of an uninterrupted fit.

        Returns:
            The model, in eval mode. Ctrl-C stops the fit with a ``ConvergenceWarning``, and the model is usable with
            what it has learnt; ``message`` says how the fit ended, and ``history`` has a row an epoch, its losses in
            nats for one row in the data's units.

        Raises:
            ValueError, TypeError: for data or arguments that cannot be used.
            ConvergenceError: if the loss becomes NaN or infinite; the model has its last good state.
        """
        if y is not None:
            raise ValueError("y must be None: a VAE learns from x alone. Put further columns into x.")
        form = Form.of(x)
        train, held = split(form.check(x), validation, form, seed)
        family = self._family(train, held)
        units = Units.of(train, self.standardise) if family == "gaussian" else Units.plain(form.shape)
        self._assemble(form, units, family, seed)
        self.to(chosen_device(device, x))
        data = [self._inward(rows) for rows in (train, held) if rows is not None]
        size = min(128 if batch_size is None else count(batch_size, "batch_size"), len(train))
        try:
            self._train_in_batches(
                self._loss(),
                (data[0],),
                (data[1],) if len(data) > 1 else None,
                size,
                one=is_small(data[0][:size]),
                epochs=epochs,
                steps=steps,
                most=STEPS,
                seed=seed,
                progress=progress,
                checkpoint=checkpoint,
                resume=resume,
            )
        except NotFiniteError:
            self._finish(data, seed)
            raise
        return self._finish(data, seed)

    def sample(self, n: int, *, mean: bool = False, seed: int = 0) -> Tensor | pd.DataFrame:
        """Draw ``n`` rows from the model, z from the prior and x given z; in the data's units and form.

        Args:
            n: the number of rows.
            mean: whether to return the decoder's mean for each z, without its noise.
            seed: of the draws.

        Returns:
            (n, ...) on the device where the data of ``fit`` were, or a DataFrame if ``fit`` got one.

        Raises:
            ValueError: before ``fit``, or if ``n`` is not a positive integer.
        """
        form, units, _, decoder = self._parts("sample")
        noise, shape = self._noise(seed), (count(n, "n"), self.latent_dim)
        z = torch.randn(shape, generator=noise, dtype=self.dtype, device=noise.device)
        with self._quietly():
            rows = [decoder(c).mean if mean else decoder.draw(c, noise) for c in z.split(CHUNK)]
        return form.dress(units.outward(torch.cat(rows)), self.dtype, draws=not mean)

    def encode(self, x: Any) -> Tensor:
        """Return the mean of q(z | x) for each row, (n, latent_dim); deterministic.

        Raises:
            ValueError, TypeError: before ``fit``, or for rows unlike those of ``fit``.
        """
        encoder = self._parts("encode")[2]
        with self._quietly():
            return torch.cat([encoder(u).mean for u in self._inward(x).split(CHUNK)]).to(home(x))

    def reconstruct(self, x: Any) -> Tensor | pd.DataFrame:
        """Return the decoder's mean at ``encode(x)``, of x's shape and in its units; deterministic.

        Raises:
            ValueError, TypeError: before ``fit``, or for rows unlike those of ``fit``.
        """
        _, units, encoder, decoder = self._parts("reconstruct")
        with self._quietly():
            rows = [decoder(encoder(u).mean).mean for u in self._inward(x).split(CHUNK)]
        index = x.index if hasattr(x, "columns") else None
        return Form.of(x).dress(units.outward(torch.cat(rows)), self.dtype, index=index)

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

    def _family(self, *rows: Tensor | None) -> str:
        """Return the likelihood's name, after a look at the data if it is "auto"."""
        if self.likelihood != "auto":
            return self.likelihood
        return "bernoulli" if all(is_binary(x) for x in rows if x is not None) else "gaussian"

    def _assemble(self, form: Form, units: Units, family: str, seed: int) -> None:
        """Put the families around the networks that were passed, or around new ones."""
        encoder, decoder = (self._restarted(name) for name in ("encoder", "decoder"))
        if encoder is not None:
            check_network(encoder, "encoder", form.shape, (2 * self.latent_dim,), "mean and raw scale")
        if decoder is not None:
            check_network(decoder, "decoder", (self.latent_dim,), form.shape, "the shape of a row")
        with seeded(seed):
            encoder = encoder if encoder is not None else chosen_encoder(form.shape, 2 * self.latent_dim, self.hidden)
            decoder = decoder if decoder is not None else chosen_decoder(self.latent_dim, form.shape, self.hidden)
        self.form, self.units, self.family = form, units, family
        self.encoder = MeanFieldNormal(encoder).to(self.dtype)
        self.decoder = HEADS[family](decoder).to(self.dtype)

    def _found(self) -> dict[str, Any]:
        return {**super()._found(), "family": self.family}

    def _rebuild(self, found: dict[str, Any]) -> None:
        self._assemble(*self._form_and_units(found), found["family"], seed=0)

    def _loss(self) -> Callable[[tuple[Tensor, ...], torch.Generator], tuple[Tensor, dict[str, Tensor]]]:
        """Return the negative bound in the data's units, a function of a batch and a generator."""
        _, units, encoder, decoder = self._parts("fit")
        jacobian = units.log_jacobian

        def loss(batch: tuple[Tensor, ...], generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
            log_p, kl = elbo_terms(encoder, decoder, batch[0], self.draws, generator)
            reconstruction, divergence = -log_p.mean() - jacobian, kl.mean()
            return reconstruction + divergence, {"reconstruction": reconstruction, "kl": divergence}

        return loss

    def _finish(self, data: list[Tensor], seed: int) -> VAE:
        """Fix what training left open (the decoder's scale), given the training rows."""
        _, _, encoder, decoder = self._parts("fit")
        # With n draws in all, the error of the variance costs 1/(2n) nats a row.
        noise, passes = self._noise(seed), math.ceil(5000 / len(data[0]))
        with torch.no_grad():
            decoder.settle(
                (rows, reparameterised(encoder(rows), noise, 1)[0])
                for _ in range(passes)
                for (rows,) in batches((data[0],), CHUNK)
            )
        self.message = f"{self.family} likelihood; {self.message}"
        return self

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
