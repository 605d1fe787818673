"""What a fitted VAE answers: likelihoods, missing entries, which latent dimensions are active, a Pyro program."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from probdl import ConvergenceWarning
from probdl.divergences.estimate import Estimate
from probdl.models.arguments import count
from probdl.models.elbo import ImportanceEstimate, elbo_estimate, elbo_terms, importance_estimate, log_weights
from probdl.models.form import Form
from probdl.models.generative import CHUNK
from probdl.models.row_model import home
from probdl.models.variational.activity import Activity, activity_of
from probdl.models.variational.decoders import scales
from probdl.models.variational.imputation import imputed
from probdl.models.variational.latent_rows import LatentRows

if TYPE_CHECKING:
    import pandas as pd

    from probdl.models.variational.program import Programs

FEW = 10  # effective draws below which an imputation is too coarse


class Answers(LatentRows):
    """What can be asked of a fitted model of rows with latent variables."""

    def log_likelihood(self, x: Any, draws: int = 100, *, condition: Any = None, seed: int = 0) -> ImportanceEstimate:
        r"""Estimate log p(x) of each row, of its entries that are there, by importance weighting with the encoder.

        .. math:: \log \frac1K \sum_{k=1}^K \frac{p(x | z_k)\,p(z_k)}{q(z_k | x)}, \qquad z_k \sim q(z | x).

        Args:
            x: rows like those of ``fit``; only held-out rows say how good the model is.
            draws: K, at least 2.
            condition: of these rows, for a model fitted with a condition.
            seed: of the draws.

        Returns:
            Value, stderr (delta method) and ``ess``, the effective number of draws, of shape (n,); in nats, in the
            data's units; a lower bound in expectation, which rises to log p(x) with K.

        Raises:
            ValueError, TypeError: before ``fit``, or for rows unlike those of ``fit``.

        Reference:
            Burda, Grosse and Salakhutdinov (2016), Importance weighted autoencoders, ICLR.
        """
        log_w, jacobian = self._scores("log_likelihood", log_weights, x, condition, draws, seed)
        return importance_estimate(log_w.to(home(x)), jacobian.to(home(x)))

    def elbo(self, x: Any, draws: int = 100, *, condition: Any = None, seed: int = 0) -> Estimate:
        r"""Estimate the evidence lower bound of each row, :math:`E_q \log p(x|z) - \mathrm{KL}(q ‖ p(z))`.

        Args:
            x: rows like those of ``fit``.
            draws: of z for each row, at least 2; the KL is in closed form.
            condition: of these rows, for a model fitted with a condition.
            seed: of the draws.

        Returns:
            Value and stderr of shape (n,), in nats, in the data's units.

        Raises:
            ValueError, TypeError: before ``fit``, or for rows unlike those of ``fit``.
        """
        log_p, kl, jacobian = self._scores("elbo", elbo_terms, x, condition, draws, seed)
        return elbo_estimate(log_p.to(home(x)), kl.to(home(x)), jacobian.to(home(x)))

    def impute(
        self, x: Any, draws: int = 1000, *, mean: bool = False, condition: Any = None, seed: int = 0
    ) -> Tensor | pd.DataFrame:
        r"""Fill in missing entries, given those that are there; the latter stay exactly as they are.

        By importance resampling: z is drawn from q(z | what is there), weighted as for ``log_likelihood``, and the
        missing entries come from the decoder. With many draws that is the model's own conditional distribution.

        Args:
            x: rows like those of ``fit``, NaN or None where an entry is missing.
            draws: of z for each row, at least 2.
            mean: whether to return the conditional mean (of a category: the most probable one); else one draw, and
                with another ``seed`` another one, so that several of them are a multiple imputation.
            condition: of these rows, for a model fitted with a condition.
            seed: of the draws.

        Returns:
            Of the form of ``x``, with no entry missing.

        Warns:
            ConvergenceWarning: if some rows have fewer than 10 effective draws.

        Raises:
            ValueError, TypeError: before ``fit``, or for rows unlike those of ``fit``.

        Reference:
            Mattei and Frellsen (2019), MIWAE: deep generative modelling and imputation of incomplete data sets, ICML.
        """
        _, units = self._rows("impute")
        (u, *c), size = self._batch(x, condition), max(1, CHUNK // count(draws, "draws", least=2))
        noise, some = self._noise(seed), u.isnan().reshape(len(u), -1).any(1).nonzero()[:, 0]
        found, ess = u.clone(), []
        with self._quietly():
            for rows in some.split(size) if len(some) else ():
                part = imputed(*self._pair(), u[rows], c[0][rows] if c else None, draws, mean, noise)
                found[rows] = part.rows.to(found)
                ess.append(part.ess)
        self._warn_of_few(ess, draws)
        filled = units.outward(found)
        # What is there is taken from x itself, and has not been through the units.
        own = self._form.check(x, missing=True).to(filled)
        return self._in_form(torch.where(own.isnan(), filled, own), x, draws=not mean)

    def active_units(self, x: Any, *, condition: Any = None) -> pd.DataFrame:
        r"""Say which latent dimensions tell rows apart, :math:`\mathrm{Var}_x\, E_{q(z|x)} z_j > .01`.

        Args:
            x: rows like those of ``fit``, at least 2.
            condition: of these rows, for a model fitted with a condition.

        Returns:
            A row for each latent dimension: ``variance`` over rows, its ``stderr``; ``kl``, the mean KL of q to the
            prior in nats, its ``kl_stderr``; and ``active``.

        Raises:
            ValueError, TypeError: before ``fit``, or for rows unlike those of ``fit``.

        Reference:
            Burda, Grosse and Salakhutdinov (2016), Importance weighted autoencoders, ICLR, section 5.3.
        """
        self._rows("active_units")
        with self._quietly():
            batch = self._batch(x, condition)
            return self._activity(batch).table()

    def to_pyro(self) -> Programs:
        """Return the trained model and its guide as Pyro programs, in the data's units.

        Returns:
            ``model`` and ``guide``, functions of ``x`` (rows like those of ``fit``, or None), ``n`` (the number of rows
            where x is None) and ``condition``; with sites "z" and "x", and of a mixed table one site for each
            likelihood, such as "x.gaussian". Networks are fixed, in float64. They work with
            ``pyro.infer.Predictive``, ``Trace_ELBO``, and ``probdl.inference.fit``.

        Raises:
            ValueError: before ``fit``.

        Example:
            >>> import torch, pyro
            >>> from probdl.models import VAE
            >>> x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
            >>> model, guide = VAE(1, hidden=(4,)).fit(x, epochs=1, progress=False).to_pyro()
            >>> trace = pyro.poutine.trace(model).get_trace(x)
            >>> [name for name in trace.stochastic_nodes + trace.observation_nodes if name != "rows"]
            ['z', 'x']
        """
        from probdl.models.variational.program import programs

        self._rows("to_pyro")
        return programs(self)

    @property
    def sigma(self) -> Tensor:
        """The standard deviation σ of a Gaussian decoder in the data's units: one number, or one for each entry.

        Of a mixed table one for each entry, NaN where it is not Gaussian.
        """
        form, units = self._rows("sigma")
        return scales(self._pair()[1], self.layout, form.shape, units.scale)

    def _scores(
        self, what: str, score: Callable[..., Any], x: Any, condition: Any, draws: int, seed: int
    ) -> tuple[Tensor, ...]:
        """Return what ``score`` says of all rows, some at a time, and their Jacobian; in float64."""
        self._rows(what)
        size, found = max(1, CHUNK // count(draws, "draws", least=2)), []
        noise, (u, *c) = self._noise(seed), self._batch(x, condition)
        with self._quietly():
            for rows in torch.arange(len(u), device=u.device).split(size):
                out = score(*self._pair(), u[rows], draws, noise, c[0][rows] if c else None)
                out = (out,) if isinstance(out, Tensor) else out
                found.append((*out, self._jacobian(u[rows].double())))
        return tuple(torch.cat(parts, -1).double() for parts in zip(*found))

    def _activity(self, batch: tuple[Tensor, ...]) -> Activity:
        return activity_of(self._pair()[0](*batch))

    def _warn_of_few(self, ess: list[Tensor], draws: int) -> None:
        least, rows = min(FEW, draws / 2), sum(map(len, ess))
        few = int((torch.cat(ess) < least).sum()) if ess else 0
        if few:
            trained = "" if self.masked else " Fit with missing entries, so that the encoder knows of them."
            warnings.warn(
                f"{few} of {rows} rows with missing entries have fewer than {least:g} effective draws of {draws}; "
                f"their imputations vary too little. Pass more draws=.{trained}",
                ConvergenceWarning,
                stacklevel=3,
            )

    def _in_form(self, rows: Tensor, x: Any, draws: bool) -> Tensor | pd.DataFrame:
        """Return completed rows in the form of ``x``: a table with its index, or a tensor on its device, as precise."""
        if not hasattr(x, "columns"):
            floating = isinstance(x, Tensor) and x.is_floating_point()
            return rows.to(home(x), x.dtype if floating else torch.float64)
        form = Form.of(x, categories=True, missing=True) if self._form.columns is None else self._form
        return form.dress(rows, self.dtype, index=x.index, draws=draws)
