"""A variational autoencoder of sequences: one recurrent network reads, another writes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from probdl.divergences.estimate import Estimate
from probdl.models.arguments import count, not_negative, one_of
from probdl.models.elbo import (
    ImportanceEstimate,
    elbo_estimate,
    elbo_terms,
    importance_estimate,
    log_weights,
)
from probdl.models.sequences.coded import CHUNK, CodedSequences
from probdl.models.sequences.reader import CELLS, checked_dropout


class SequenceVAE(CodedSequences):
    r"""A latent code for each sequence: a recurrent network reads it, and another writes it from the code.

    .. math:: \log p(x) ≥ E_{q(z|x)} \log p(x | z) - \mathrm{KL}(q(z | x) ‖ N(0, I))

    Tokens are written one after another, :math:`p(x|z) = \prod_{t=1}^{T+1} p(x_t | x_{<t}, z)` with the end as the last
    one. Frames are independent given the code and their number, :math:`p(x|z) = p(T|z) \prod_t N(x_t; μ_t(z), σ^2 I)`,
    with :math:`μ_t` from a recurrent network that is given z at each step.

    Args:
        latent_dim: the dimension of z.
        hidden: the size of both networks' states.
        cell: "rnn", "lstm" or "gru".
        layers: of both networks.
        bidirectional: whether the encoder reads in both directions.
        words: whether strings are split at white space into words; else they are read as characters.
        rare: tokens that occur fewer times than this in ``fit``, and those that it did not see, are one unknown token.
        max_length: steps of a sequence, at most; None: as many as the longest of ``fit`` has.
        draws: M, the draws of z for each sequence and step.
        beta, kl_warm_up, free_bits: the weight of the KL in training, steps over which it rises from 0, and nats of it
            that each latent dimension has for nothing, so that the code is used before the decoder has learnt to do
            without; what is reported and validated is always the bound itself.
        word_dropout: the probability with which the token before is hidden from the decoder, in training.
        dropout: the probability with which a number is dropped, in training, of what goes into the networks and out.
        standardise: frames, by "column", "shared" or "none"; "auto": "column".
        learning_rate, decay, patience, clip: of Adam, its fall to zero along half a cosine, epochs without a better
            validation bound until the fit stops (None: as many as make 1000 steps, at least 5), and the largest norm
            of the gradient.
        dtype: of the networks.

    Warns:
        ConvergenceWarning: by ``fit``, if the posterior collapses: for more than half of the latent dimensions q(z | x)
            is the prior.

    ``fit`` takes 5,000 steps in batches of 64 if it is not told otherwise.

    Raises:
        ValueError, TypeError: for an argument that cannot be used.

    Reference:
        Bowman et al. (2016), Generating sentences from a continuous space, CoNLL. Fabius and van Amersfoort (2014),
        Variational recurrent auto-encoders, arXiv:1412.6581.

    Example:
        >>> model = SequenceVAE(2, hidden=16).fit(["abab", "abababab", "cc", "cccc"] * 20, steps=20, progress=False)
        >>> model.encode(["abab", "ccc"]).shape, len(model.sample(3)), model.log_likelihood(["ab"]).value.shape
        (torch.Size([2, 2]), 3, torch.Size([1]))
    """

    SETTINGS = (
        "latent_dim",
        "hidden",
        "cell",
        "layers",
        "bidirectional",
        "words",
        "rare",
        "max_length",
        "draws",
        "beta",
        "kl_warm_up",
        "free_bits",
        "word_dropout",
        "dropout",
        "standardise",
        "learning_rate",
        "decay",
        "patience",
        "clip",
    )

    def __init__(
        self,
        latent_dim: int = 8,
        *,
        hidden: int = 64,
        cell: str = "gru",
        layers: int = 1,
        bidirectional: bool = True,
        words: bool = False,
        rare: int = 0,
        max_length: int | None = None,
        draws: int = 1,
        beta: float = 1.0,
        kl_warm_up: int = 0,
        free_bits: float = 0.0,
        word_dropout: float = 0.25,
        dropout: float = 0.0,
        standardise: str = "auto",
        learning_rate: float = 3e-3,
        decay: bool = True,
        patience: int | None = None,
        clip: float | None = 5.0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__({}, dtype, standardise=standardise)
        self.latent_dim, self.hidden, self.layers = (
            count(value, name) for value, name in ((latent_dim, "latent_dim"), (hidden, "hidden"), (layers, "layers"))
        )
        self.max_length, self.patience = (
            None if value is None else count(value, name)
            for value, name in ((max_length, "max_length"), (patience, "patience"))
        )
        self.cell, self.bidirectional, self.words = one_of(cell, [*CELLS], "cell"), bool(bidirectional), bool(words)
        self.rare, self.kl_warm_up = count(rare, "rare", least=0), count(kl_warm_up, "kl_warm_up", least=0)
        self.draws = count(draws, "draws")
        self.beta, self.free_bits = not_negative(beta, "beta"), not_negative(free_bits, "free_bits")
        self.dropout = checked_dropout(dropout)
        self.word_dropout = checked_dropout(word_dropout, "word_dropout")
        self.learning_rate, self.decay, self.clip = learning_rate, decay, clip

    def sample(self, n: int, *, seed: int = 0) -> list[Any]:
        """Draw ``n`` sequences, z from the prior and x given z.

        Args:
            n: how many.
            seed: of the draws.

        Returns:
            Strings, lists of tokens, or tensors (T, d) in the data's units.

        Raises:
            ValueError: before ``fit``, or if ``n`` is not a positive integer.
        """
        self._check_fitted("sample")
        noise, sizes = self._noise(seed), [CHUNK] * (count(n, "n") // CHUNK) + [n % CHUNK] * (n % CHUNK > 0)
        found = []
        with self._quietly():
            for size in sizes:
                z = torch.randn((size, self.latent_dim), generator=noise, dtype=self.dtype, device=noise.device)
                found += self._outward(self.decoder.draw(z, noise))
        return found

    def encode(self, x: Any) -> Tensor:
        """Return the mean of q(z | x) for each sequence, (n, latent_dim); deterministic.

        Raises:
            ValueError, TypeError: before ``fit``, or for sequences unlike those of ``fit``.
        """
        with self._quietly():
            return torch.cat([self.encoder(u).mean for u in self._inward(x).split(CHUNK)]).cpu()

    def reconstruct(self, x: Any) -> list[Any]:
        """Return the sequence at the mean of q(z | x): of tokens a most probable one, of frames their means.

        Raises:
            ValueError, TypeError: before ``fit``, or for sequences unlike those of ``fit``.
        """
        found = []
        with self._quietly():
            for u in self._inward(x).split(CHUNK):
                found += self._outward(self.decoder.best(self.encoder(u).mean, u))
        return found

    def between(self, one: Any, other: Any, steps: int = 7) -> list[Any]:
        """Return the sequences on the line between the codes of two, both ends included.

        Args:
            one, other: two sequences like those of ``fit``.
            steps: how many sequences, at least 2.

        Raises:
            ValueError, TypeError: before ``fit``, or for sequences or steps that cannot be used.
        """
        a, b = self.encode([one, other]).to(self._device)
        share = torch.linspace(0, 1, count(steps, "steps", least=2), dtype=a.dtype, device=a.device)[:, None]
        with self._quietly():
            return self._outward(self.decoder.best(a + share * (b - a)))

    def log_likelihood(self, x: Any, draws: int = 100, *, seed: int = 0) -> ImportanceEstimate:
        r"""Estimate log p(x) of each sequence by importance weighting with the encoder, as ``VAE.log_likelihood`` does.

        Args:
            x: sequences like those of ``fit``; only held-out ones say how good the model is.
            draws: K, at least 2.
            seed: of the draws.

        Returns:
            Value and stderr (delta method) of shape (n,), in nats, the end of each sequence (or its length) included;
            a lower bound in expectation, which rises to log p(x) with K.

        Raises:
            ValueError, TypeError: before ``fit``, or for sequences unlike those of ``fit``.
        """
        u, found = self._inward(x), []
        noise, size = self._noise(seed), max(1, CHUNK // count(draws, "draws", least=2))
        with self._quietly():
            for rows in u.split(size):
                found.append(
                    log_weights(self.encoder, self.decoder, rows, draws, noise).double() + self._jacobian(rows)
                )
        return importance_estimate(torch.cat(found, 1).cpu(), 0.0)

    def elbo(self, x: Any, draws: int = 100, *, seed: int = 0) -> Estimate:
        r"""Estimate the evidence lower bound of each sequence, with the KL in closed form; arguments and returns as of
        ``log_likelihood``.

        Raises:
            ValueError, TypeError: before ``fit``, or for sequences unlike those of ``fit``.
        """
        u, noise, size = self._inward(x), self._noise(seed), max(1, CHUNK // count(draws, "draws", least=2))
        terms = []
        with self._quietly():
            for rows in u.split(size):
                log_p, kl = elbo_terms(self.encoder, self.decoder, rows, draws, noise)
                terms.append((log_p.double() + self._jacobian(rows), kl.double()))
        return elbo_estimate(torch.cat([p for p, _ in terms], 1).cpu(), torch.cat([k for _, k in terms]).cpu(), 0.0)
