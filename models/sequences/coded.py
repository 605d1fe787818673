"""What a variational autoencoder of sequences finds in its data, how it is built, and how it learns."""

from __future__ import annotations

import math
import warnings
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from probdl.errors import ConvergenceWarning
from probdl.families import MeanFieldNormal, reparameterised
from probdl.loops import batches
from probdl.models.elbo import drawn_terms
from probdl.models.network_model import Training
from probdl.models.networks import is_small_step
from probdl.models.sequences.heads import FrameHead, SequenceHead, TokenHead
from probdl.models.sequences.reader import Reader
from probdl.models.sequences.rows import PADDING, SequenceForm
from probdl.models.units import Units
from probdl.models.unsupervised import Batch, UnsupervisedModel
from probdl.models.variational.activity import activity_of, collapse
from probdl.models.variational.objective import Objective
from probdl.nn import seeded

CHUNK = 512  # sequences that are scored or drawn at a time


class Reading(nn.Module):
    """Sequences, as rows of ``SequenceForm``, through a recurrent network that ends in 2·latent numbers."""

    def __init__(self, reader: Reader, latent: int) -> None:
        super().__init__()
        self.reader, self.out = reader, nn.Linear(reader.outputs, 2 * latent)

    def forward(self, u: Tensor) -> Tensor:
        """Return (n, 2·latent)."""
        if u.is_floating_point():
            lengths, rows = (~u[..., 0].isnan()).sum(1), u.nan_to_num()
        else:
            lengths, rows = (u != PADDING).sum(1), u.clamp(min=0)
        longest = int(lengths.max())
        return self.out(self.reader.last(rows[:, :longest], lengths))


class CodedSequences(UnsupervisedModel):
    """Sequences with a code each; ``SequenceVAE`` explains the arguments, which it sets."""

    BATCH = 64
    STEPS: ClassVar[int] = 5_000
    latent_dim: int
    hidden: int
    cell: str
    layers: int
    bidirectional: bool
    words: bool
    rare: int
    max_length: int | None
    draws: int
    beta: float
    kl_warm_up: int
    free_bits: float
    dropout: float
    word_dropout: float
    encoder: MeanFieldNormal
    decoder: SequenceHead
    bound: Objective

    def _form_of(self, x: Any) -> SequenceForm:
        return SequenceForm.of_sequences(x, rare=self.rare, words=self.words, max_length=self.max_length)

    def _study(self, train: Tensor, held: Tensor | None) -> None:
        if self._sequences.vocabulary is not None:
            self.units = Units.plain(())
        else:
            self.units = Units.of(train[~train[..., 0].isnan()], self.standardise)

    def _build(self, seed: int) -> None:
        form = self._sequences
        how: dict[str, Any] = {"cell": self.cell, "layers": self.layers}
        with seeded(seed):
            if form.vocabulary is not None:
                size = min(64, len(form.vocabulary))
                steps: nn.Module = nn.Embedding(len(form.vocabulary), size)
                drops: dict[str, Any] = {"dropout": self.dropout, "word_dropout": self.word_dropout}
                decoder: SequenceHead = TokenHead(
                    len(form.vocabulary), self.latent_dim, self.hidden, most=form.most, **how, **drops
                )
            else:
                steps, size = nn.Identity(), form.shape[0]
                decoder = FrameHead(self.latent_dim, self.hidden, size, most=form.most, **how)
            reader = Reader(steps, size, self.hidden, bidirectional=self.bidirectional, dropout=self.dropout, **how)
            encoder = MeanFieldNormal(Reading(reader, self.latent_dim))
        self.encoder, self.decoder = encoder.to(self.dtype), decoder.to(self.dtype)
        self.bound = Objective(self.beta, self.kl_warm_up, self.free_bits, weighted=False)

    def _learn(self, train: Batch, held: Batch | None, how: Training) -> None:
        one = is_small_step(train[0].device, how.size, self.hidden)
        patience = self._epochs_of_patience(how, len(train[0]), self.kl_warm_up)
        try:
            self._train_in_batches(self._loss, train, held, how, one=one, most=self.STEPS, patience=patience)
        finally:
            if self.fitted:
                self._settle(train[0], how.seed)
        self._warn_of_collapse(train[0])

    def _loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the negative bound of a batch in the data's units, with the options that bend it in training."""
        (u,) = batch
        q, z, log_p = drawn_terms(self.encoder, self.decoder, u, self.draws, generator)
        return self.bound(q, z, log_p + self._jacobian(u))

    def _warn_of_collapse(self, rows: Tensor) -> None:
        """Say how many latent dimensions are in use, and warn if the decoder has learnt to do without z."""
        with self._quietly():
            found = activity_of(self.encoder(rows[: 8 * CHUNK]))
        said, warning = collapse(found, self.latent_dim)
        self.message += f"; {said}"
        if warning:
            warnings.warn(f"{warning} Or more word_dropout=.", ConvergenceWarning, stacklevel=4)

    @torch.no_grad()
    def _settle(self, rows: Tensor, seed: int) -> None:
        """Fix what training left open (the scale of frames), given the training rows."""
        noise, passes = self._noise(seed), math.ceil(5000 / len(rows))
        self.decoder.settle(
            (u, reparameterised(self.encoder(u), noise, 1)[0])
            for _ in range(passes)
            for (u,) in batches((rows,), CHUNK)
        )

    def _jacobian(self, u: Tensor) -> Tensor:
        """Return log |du/dx| of each sequence, (n,); it has as many numbers as it has steps."""
        assert self.units is not None
        if self._sequences.vocabulary is not None:
            return torch.zeros(len(u), dtype=self.dtype, device=u.device)
        of_step = Units(self.units.shift, self.units.scale, self._form.shape).log_jacobian
        return self._sequences.lengths(u).to(self.dtype) * of_step

    def _standardised(self, rows: Tensor) -> Tensor:
        return rows.to(self._device) if self._sequences.vocabulary is not None else super()._standardised(rows)

    def _outward(self, rows: Tensor) -> list[Any]:
        """Return rows as sequences, in the data's units."""
        assert self.units is not None
        if self._sequences.vocabulary is None:
            rows = self.units.outward(rows).to(self.dtype)
        return self._sequences.sequences(rows.cpu())

    @property
    def _sequences(self) -> SequenceForm:
        assert isinstance(self.form, SequenceForm)
        return self.form

    @staticmethod
    def _form_and_units(found: dict[str, Any]) -> tuple[SequenceForm, Units]:
        form = SequenceForm.from_json(found["form"])
        return form, Units.plain(form.shape, found["each"])
