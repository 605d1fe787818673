"""What models share that make up rows, and what those share that encode them."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from probdl.access import tensor
from probdl.models.arguments import count
from probdl.models.form import Form
from probdl.models.row_model import home
from probdl.models.unsupervised import UnsupervisedModel

if TYPE_CHECKING:
    import pandas as pd

CHUNK = 4096  # rows that go through a network at once where no gradient is kept


class GenerativeModel(UnsupervisedModel):
    """A model of rows that can be sampled."""

    def sample(self, n: int, *, condition: Any = None, mean: bool = False, seed: int = 0) -> Tensor | pd.DataFrame:
        """Draw ``n`` rows from the model, in the data's units and form.

        Args:
            n: the number of rows.
            condition: what each row is given, for a model fitted with a condition: n labels or rows of covariates, or
                a single one for all.
            mean: whether to return the decoder's mean for each z, without its noise.
            seed: of the draws.

        Returns:
            (n, ...) on the device where the data of ``fit`` were; or a DataFrame, of the same columns and types, if
            ``fit`` got one.

        Raises:
            ValueError, TypeError: before ``fit``, or for arguments that cannot be used.
        """
        form, units = self._rows("sample")
        c, noise = self._condition_of(condition, count(n, "n")), self._noise(seed)
        sizes = [min(CHUNK, n - start) for start in range(0, n, CHUNK)]
        given = [None] * len(sizes) if c is None else c.split(CHUNK)
        with self._quietly():
            rows = [self._draws(size, part, mean, noise) for size, part in zip(sizes, given)]
        return form.dress(units.outward(torch.cat(rows)), self.dtype, draws=not mean)

    @abstractmethod
    def _draws(self, n: int, c: Tensor | None, mean: bool, noise: torch.Generator) -> Tensor:
        """Return n rows in standardised units.

        Args:
            n: how many.
            c: their condition (n, k), or None.
            mean: whether without the decoder's noise.
            noise: the generator of all randomness, on the model's device.
        """

    def _prior(self, n: int, noise: torch.Generator, size: int) -> Tensor:
        """Return n draws from the standard normal of ``size`` dimensions."""
        return torch.randn((n, size), generator=noise, dtype=self.dtype, device=noise.device)


class Encoding(UnsupervisedModel):
    """A model of rows that has a code for each, and a way back."""

    latent_dim: int

    def encode(self, x: Any, *, condition: Any = None) -> Tensor:
        """Return the code of each row, (n, latent_dim), of a distribution over codes its mean; deterministic.

        Args:
            x: rows like those of ``fit``.
            condition: of these rows, for a model fitted with a condition.

        Raises:
            ValueError, TypeError: before ``fit``, or for rows unlike those of ``fit``.
        """
        with self._quietly():
            return torch.cat([self._code(*part) for part in self._chunks(x, condition)]).to(home(x))

    def reconstruct(self, x: Any, *, condition: Any = None) -> Tensor | pd.DataFrame:
        """Return what becomes of each row by its code and back, of x's shape and in its units; deterministic.

        Args:
            x: rows like those of ``fit``.
            condition: of these rows, for a model fitted with a condition.

        Raises:
            ValueError, TypeError: before ``fit``, or for rows unlike those of ``fit``.
        """
        units = self._rows("reconstruct")[1]
        with self._quietly():
            rows = [self._back(self._code(u, c), c) for u, c in self._chunks(x, condition)]
        return self._as_given(units.outward(torch.cat(rows)), x)

    def decode(self, z: Any, *, condition: Any = None) -> Tensor | pd.DataFrame:
        """Return the row of each code in the data's units and form, of a distribution over rows the mean; deterministic

        ``decode(encode(x))`` is ``reconstruct(x)``.

        Args:
            z: codes, array-like (n, latent_dim).
            condition: of these codes, for a model fitted with a condition.

        Raises:
            ValueError, TypeError: before ``fit``, or for codes of another shape.
        """
        form, units = self._rows("decode")
        codes = tensor(z, "z").to(self._device, self.dtype)
        if codes.ndim != 2 or codes.shape[1] != self.latent_dim:
            raise ValueError(f"z must have shape (n, {self.latent_dim}), a code in each row; got {tuple(codes.shape)}.")
        c = self._condition_of(condition, len(codes))
        given = [None] * math.ceil(len(codes) / CHUNK) if c is None else c.split(CHUNK)
        with self._quietly():
            rows = [self._back(*part) for part in zip(codes.split(CHUNK), given)]
        return form.dress(units.outward(torch.cat(rows)), self.dtype)

    @abstractmethod
    def _code(self, u: Tensor, c: Tensor | None) -> Tensor:
        """Return the codes of rows in standardised units."""

    @abstractmethod
    def _back(self, z: Tensor, c: Tensor | None) -> Tensor:
        """Return the rows of codes, in standardised units."""

    def _chunks(self, x: Any, condition: Any) -> list[tuple[Tensor, Tensor | None]]:
        """Return rows, and their condition or None, some at a time."""
        u, *c = self._batch(x, condition)
        rows = u.split(CHUNK)
        return list(zip(rows, c[0].split(CHUNK) if c else [None] * len(rows)))

    def _as_given(self, rows: Tensor, x: Any) -> Tensor | pd.DataFrame:
        """Return rows in the data's units in the form of ``x``: with its index, if it is a table, or on its device."""
        if not hasattr(x, "columns"):
            return rows.to(home(x), self.dtype)
        form = Form.of(x, categories=True, missing=self.MISSING) if self._form.columns is None else self._form
        return form.dress(rows, self.dtype, index=x.index)
