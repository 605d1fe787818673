"""Rows with latent variables: what is found in the data, built, trained and drawn."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from probdl import ConvergenceWarning
from probdl.families import Conditional
from probdl.loops import batches, cosine
from probdl.loops.player import Rate
from probdl.models.elbo import drawn_terms
from probdl.models.generative import CHUNK, Encoding, GenerativeModel
from probdl.models.network_model import Training
from probdl.models.networks import check_network, chosen_decoder, chosen_encoder, is_small, joined
from probdl.models.units import Units
from probdl.models.unsupervised import Batch
from probdl.models.variational.activity import activity_of, collapse
from probdl.models.variational.decoders import Making, built_decoder, mean_counts, output_shape
from probdl.models.variational.encoders import Inputs, RowEncoder, input_shape
from probdl.models.variational.layout import Group, Layout, entries_of, plain_entries, says
from probdl.models.variational.likelihoods import chosen_layout
from probdl.models.variational.objective import Objective, Terms
from probdl.models.variational.support import check_entries, check_support
from probdl.nn import seeded

STEPS = 20_000
RATE, LINEAR_RATE = 1.5e-3, 0.03
DRAWS = 5000  # of z, at least, that a decoder's scale rests on; n of them cost 1/(2n) nats a row


class LatentRows(Encoding, GenerativeModel):
    """Rows x given latent z, p(x | z), and z given x, q(z | x); its constructor is in ``VAE``."""

    CONDITIONAL: ClassVar[bool] = True
    MISSING: ClassVar[bool] = True
    PATIENCE: ClassVar[int] = 300
    latent_dim: int
    likelihood: str | dict[Any, str]
    scale: str
    draws: int
    objective: str
    beta: float
    kl_warm_up: int
    free_bits: float
    hidden: tuple[int, ...] | None
    learning_rate: float | None  # type: ignore[assignment]
    ema: float | None

    def __init__(self, networks: dict[str, nn.Module | None], dtype: torch.dtype, standardise: str) -> None:
        super().__init__(networks, dtype, standardise=standardise)
        self.layout: Layout = ()
        self.masked = False
        self._rate: Tensor | None = None
        self.encoder: RowEncoder | None = None
        self.decoder: Conditional | None = None
        self.bound: Objective | None = None

    def _study(self, train: Tensor, held: Tensor | None) -> None:
        rows = [train] if held is None else [train, held]
        form = self._form
        self.layout = chosen_layout(self.likelihood, form, rows)
        for x in rows:
            check_support(x, self.layout, form)
        check_entries(train, form)
        self.masked = any(bool(x.isnan().any()) for x in rows)
        plain = plain_entries(self.layout, form.shape)
        everything = bool(plain.all())
        self.units = Units.plain(form.shape) if everything else Units.of(train, self.standardise, form, plain)
        self._rate = mean_counts(train)

    def _build(self, seed: int) -> None:
        """Put the families around the networks that were passed, or around new ones."""
        shape, codes = self._form.shape, self.latent_dim + self._condition_size
        before = input_shape(shape, self.masked, self._condition_size)
        after = output_shape(self.layout, shape, self.scale)
        encoder, decoder = (self._restarted(name) for name in ("encoder", "decoder"))
        if encoder is not None:
            check_network(encoder, "encoder", before, (2 * self.latent_dim,), "mean and raw scale" + self._sees())
        if decoder is not None:
            check_network(decoder, "decoder", (codes,), after, "the shape of a row" + self._gives(after))
        with seeded(seed):
            encoder = encoder if encoder is not None else chosen_encoder(before, 2 * self.latent_dim, self.hidden)
            decoder = decoder if decoder is not None else chosen_decoder(codes, after, self.hidden)
        counts = entries_of(self.layout, ("poisson",), shape)
        inputs = Inputs(shape, self.masked, counts if counts.any() else None)
        rate = torch.ones(shape) if self._rate is None else self._rate
        making = Making(shape, self.scale, self.objective == "iwae", rate)
        self.encoder = RowEncoder(encoder, inputs).to(self.dtype)
        self.decoder = built_decoder(decoder, self.layout, making).to(self.dtype)
        self.bound = Objective(self.beta, self.kl_warm_up, self.free_bits, self.objective == "iwae")

    def _learn(self, train: Batch, held: Batch | None, how: Training) -> None:
        encoder, _ = self._pair()
        encoder.inputs.learn(train[0])
        one = is_small(train[0][: how.size])
        # What is held out may get worse until the KL has its weight.
        patience = self._epochs_of_patience(how, len(train[0]), self.kl_warm_up)
        more = {"ema": self.ema, "learning_rate": self._rate_of_learning(), "patience": patience}
        try:
            self._train_in_batches(self._loss(), train, held, how, one=one, most=STEPS, **more)
        finally:
            if self.fitted:
                self._finish(train, how.seed)
        self._warn_of_collapse(train)

    def _rate_of_learning(self) -> Rate:
        """Return what was asked for; else what is best for digits, or brings linear networks to their optimum."""
        if self.learning_rate is not None:
            return cosine(self.learning_rate) if self.decay else self.learning_rate
        return cosine(LINEAR_RATE) if self.hidden == () else cosine(RATE) if self.decay else RATE

    def _loss(self) -> Callable[[Batch, torch.Generator], tuple[Tensor, Terms]]:
        """Return the negative bound in the data's units, a function of a batch and a generator."""
        assert self.units is not None
        assert self.bound is not None
        (encoder, decoder), bound, shift = self._pair(), self.bound, self.units.log_jacobian
        jacobian = self._jacobian if self.masked else lambda u: shift

        def loss(batch: Batch, generator: torch.Generator) -> tuple[Tensor, Terms]:
            u, c = batch[0], batch[1] if len(batch) > 1 else None
            q, z, log_p = drawn_terms(encoder, decoder, u, self.draws, generator, c)
            return bound(q, z, log_p + jacobian(u))

        return loss

    def _jacobian(self, u: Tensor) -> Tensor:
        """Return log |du/dx| of the entries of each row that are there, (n,)."""
        assert self.units is not None
        each = -self.units.scale.log().to(u).expand(u.shape[1:])
        return (~u.isnan() * each).reshape(len(u), -1).sum(1)

    def _finish(self, train: Batch, seed: int) -> None:
        """Fix what training left open (the decoder's scale), given the training rows."""
        encoder, decoder = self._pair()
        noise, passes = self._noise(seed), math.ceil(DRAWS / len(train[0]))
        with torch.no_grad():
            decoder.settle(
                (u, joined(encoder.draw(u, noise, *c), c[0] if c else None))
                for _ in range(passes)
                for u, *c in batches(train, CHUNK)
            )
        self.message = f"{says(self.layout, self._form)}; {self.message}"

    def _warn_of_collapse(self, train: Batch) -> None:
        """Say how many latent dimensions are in use, and warn if the decoder has learnt to do without z."""
        with self._quietly():
            found = activity_of(self._pair()[0](*(t[:CHUNK] for t in train)))
        entries = math.prod(self._form.shape)
        said, warning = collapse(found, entries)
        self.message += f"; {said}"
        if warning:
            warnings.warn(warning, ConvergenceWarning, stacklevel=4)

    def _draws(self, n: int, c: Tensor | None, mean: bool, noise: torch.Generator) -> Tensor:
        decoder, z = self._pair()[1], joined(self._prior(n, noise, self.latent_dim), c)
        return decoder(z).mean if mean else decoder.draw(z, noise)

    def _code(self, u: Tensor, c: Tensor | None) -> Tensor:
        return self._pair()[0](u, c).mean

    def _back(self, z: Tensor, c: Tensor | None) -> Tensor:
        return self._pair()[1](joined(z, c)).mean

    def _check_support(self, x: Tensor) -> None:
        check_support(x, self.layout, self._form)

    def _found(self) -> dict[str, Any]:
        return {**super()._found(), "layout": [[g.name, g.entries] for g in self.layout], "masked": self.masked}

    def _rebuild(self, found: dict[str, Any]) -> None:
        self.layout = tuple(Group(name, entries and tuple(entries)) for name, entries in found["layout"])
        self.masked = found["masked"]
        super()._rebuild(found)

    def _pair(self) -> tuple[RowEncoder, Conditional]:
        """Return encoder and decoder; both are built together with the form, which is checked first."""
        assert self.encoder is not None
        assert self.decoder is not None
        return self.encoder, self.decoder

    def _sees(self) -> str:
        return "; it also gets which entries are there, 0 or 1, for some are missing" if self.masked else ""

    def _gives(self, after: tuple[int, ...]) -> str:
        more = after != tuple(self._form.shape)
        return ", means, and then raw scales for scale='network'" if more else ""
