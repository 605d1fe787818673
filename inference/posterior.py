"""The result of ``fit``: one object for every method, with the same columns."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from probdl.divergences.estimate import Estimate
from probdl.inference.posteriors import saved
from probdl.inference.posteriors.approximations import Approximation
from probdl.inference.posteriors.diagnostics import Check, importance_check, mixing_check
from probdl.inference.posteriors.exchange import to_arviz
from probdl.inference.programs import predictive
from probdl.inference.programs.densities import comes_in_batches
from probdl.inference.programs.predictive import Source
from probdl.inference.programs.program import Program

if TYPE_CHECKING:
    import pandas as pd


@dataclass
class Posterior:
    """What was learned about the latent sites of a model.

    Attributes:
        method: how it was found, such as "expectation propagation".
        approximation: the Gaussian or the draws behind it.
        converged: whether the iteration reached its fixed point or optimum.
        message: what was done, and what a careful reader should know.
        seconds: time of the fit.
        history: one row for each step of the iteration.
        elbo: the evidence lower bound where the method has one, in nats.
        log_evidence: the log marginal likelihood where the method has it, in nats.
        notes: what a careful reader should know.
        program: the model with its data, which ``check`` and ``predict`` run; None after ``load`` without them.
        source: the model without its data, which ``predict`` runs; of a program where there is one.
        khat: the Pareto tail index that ``check`` found; None before it is called, and for samplers.

    Example:
        >>> import pyro, pyro.distributions as dist, torch
        >>> from probdl.inference import fit
        >>> def model(x, y=None):
        ...     slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
        ...     with pyro.plate("rows", len(x)):
        ...         pyro.sample("y", dist.Normal(slope * x, 1.0), obs=y)
        >>> posterior = fit(model, torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.0]))
        >>> posterior.summary().round(2)
               mean    sd    5%   50%  95%
        slope  0.83  0.41  0.16  0.83  1.5
        >>> posterior.check()  # doctest: +ELLIPSIS
        k-hat -inf, ESS 4000 of 4000, log evidence -3.15042 ± 0 (pareto-smoothed importance sampling, n=4000). ...
        >>> posterior.predict(torch.tensor([10.0]), draws=2000)["y"].mean() > 8  # exactly 8.3
        tensor(True)
    """

    method: str
    approximation: Approximation
    converged: bool
    message: str
    seconds: float
    history: pd.DataFrame
    elbo: Estimate | None = None
    log_evidence: Estimate | None = None
    notes: tuple[str, ...] = field(default=())
    program: Program | None = field(default=None, repr=False)
    source: Source | None = field(default=None, repr=False)
    khat: float | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The latent sites."""
        return tuple(self.approximation.latents)

    def mean(self, name: str) -> Tensor:
        """Return the posterior mean of a site, in the site's shape and unit.

        Raises:
            ValueError: if there is no such site.
        """
        return self.approximation.mean(self._known(name))

    def sd(self, name: str) -> Tensor:
        """Return the posterior standard deviation of a site, in the site's shape and unit."""
        return self.approximation.sd(self._known(name))

    def cov(self, *names: str) -> Tensor:
        """Return the posterior covariance of the flattened sites, stacked in the order given (default: all)."""
        return self.approximation.cov(tuple(self._known(name) for name in names or self.names))

    def probabilities(self, name: str) -> Tensor:
        """Return the posterior probabilities of a discrete site's values, such as responsibilities, (*shape, K).

        Raises:
            ValueError: if there is no such site, or it is continuous.
        """
        return self.approximation.probabilities(self._known(name))

    def quantile(self, name: str, q: float) -> Tensor:
        """Return the posterior q-quantile of a site, in the site's shape.

        Raises:
            ValueError: if q is not in (0, 1).
        """
        if not 0 < q < 1:
            raise ValueError(f"q must be between 0 and 1; got {q}.")
        return self.approximation.quantile(self._known(name), q)

    def draws(self, n: int | None = None, *, seed: int = 0) -> dict[str, Tensor]:
        """Return draws of all sites in their own spaces, each (n, *shape).

        Args:
            n: how many; None gives all that a sampler kept, or 4000 from an approximation.
            seed: of a local generator.

        Raises:
            ValueError: if n is not positive, or more than a sampler kept.
        """
        if n is not None and n < 1:
            raise ValueError(f"n must be positive; got {n}.")
        return self.approximation.draws(n, seed)

    def log_prob(self, values: dict[str, Any]) -> Tensor:
        """Return the log-density of the approximation at sites' values, each (..., *shape), in nats.

        Raises:
            ValueError: if the posterior is known by draws only, or a site is missing.
        """
        missing = [name for name in self.names if name not in values]
        if missing:
            raise ValueError(f"values must hold every site; {', '.join(missing)} are missing.")
        return self.approximation.log_prob({k: torch.as_tensor(values[k]) for k in self.names})

    def summary(self, level: float = 0.9) -> pd.DataFrame:
        """Return one row for each entry of each site, such as ``w[0]``: mean, sd and quantiles.

        Args:
            level: coverage of the outer quantiles; 0.9 gives the columns 5%, 50% and 95%.

        Returns:
            A DataFrame; linear response adds sd_lr, a sampler rhat and ess. Its ``attrs`` hold the method, and k-hat
            once ``check`` was called.

        Raises:
            ValueError: if ``level`` is not in (0, 1).
        """
        import pandas as pd

        if not 0 < level < 1:
            raise ValueError(f"level must be between 0 and 1; got {level}.")
        names = self.approximation.tabled
        quantiles = {f"{100 * q:.3g}%": q for q in ((1 - level) / 2, 0.5, (1 + level) / 2)}
        columns = {"mean": {k: self.mean(k) for k in names}, "sd": {k: self.sd(k) for k in names}}
        columns |= {label: {k: self.quantile(k, q) for k in names} for label, q in quantiles.items()}
        columns |= self.approximation.columns(0)
        data = {label: torch.cat([per[k].reshape(-1) for k in names]).cpu() for label, per in columns.items()}
        table = pd.DataFrame(
            {k: v.numpy() for k, v in data.items()}, index=[entry for k in names for entry in self.entries(k)]
        )
        table.attrs = {"method": self.method, "khat": self.khat}
        return table

    def check(self, draws: int = 4000, *, seed: int = 0) -> Check:
        r"""Measure how far the posterior can be trusted, and say what to do.

        An approximation q is judged by the weights :math:`p(x, z_s)/q(z_s)` of its draws, Pareto-smoothed: their tail
        index k-hat, their effective sample size, and the evidence and moments that they correct. Below 0.5 all is
        well, below 0.7 the corrected numbers are usable, above they are withheld. It sees only where q has mass: a
        mode that q missed goes unnoticed. A sampler is judged by split R-hat, effective sample size and divergences.

        Args:
            draws: from q; 4000 determine k-hat to about 0.1.
            seed: of the draws.

        Returns:
            A ``Check``: khat, ess, log_evidence, table and advice.

        Raises:
            ValueError: if the posterior was loaded without its model, or a plate draws its rows at random.

        Source: Vehtari, Simpson, Gelman, Yao & Gabry (2024), JMLR 25(72); Yao, Vehtari, Simpson & Gelman (2018).
        """
        if self.approximation.is_sampled:
            return mixing_check(self)
        if draws < 25:
            raise ValueError(f"draws must be at least 25, to see a tail; got {draws}.")
        result = importance_check(self, draws, seed)
        self.khat = result.khat
        return result

    def predict(self, *args: Any, draws: int = 1000, seed: int = 0, **kwargs: Any) -> dict[str, Tensor]:
        r"""Draw the observed sites anew, :math:`\tilde x \sim \int p(\tilde x \mid z)\,q(z)\,dz`.

        The model runs forwards with draws of its latents, all observations removed. Discrete latents that the fit
        summed out, and those of new rows, are drawn from their prior given the others.

        Args:
            args: the model's arguments, array-like, such as new covariates; the observations may be left out or None.
                Without any, those of the fit.
            draws: how many; where a sampler kept fewer, its draws are used several times.
            seed: of a local generator.
            kwargs: the model's keyword arguments.

        Returns:
            By observed site, (draws, *shape).

        Raises:
            ValueError: if a latent does not fit the new data, as one for each row of the old does not; it names it.
            TypeError: if the arguments do not fit the model.

        Example:
            >>> import pyro, pyro.distributions as dist, torch
            >>> from probdl.inference import fit
            >>> def model(x, y=None):
            ...     slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
            ...     with pyro.plate("rows", len(x)):
            ...         pyro.sample("y", dist.Normal(slope * x, 1.0), obs=y)
            >>> posterior = fit(model, torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.0]))
            >>> posterior.predict(torch.tensor([3.0, 4.0, 5.0]), draws=500)["y"].shape
            torch.Size([500, 3])
        """
        if draws < 1:
            raise ValueError(f"draws must be positive; got {draws}.")
        source, values = self._source(), self.approximation.repeated_draws(draws, seed)
        if args or kwargs:
            args, kwargs = source.tensors(args, kwargs)
            values = {name: x for name, x in values.items() if name not in source.of_rows}
        else:
            program = self.require_program("predict without arguments")
            if comes_in_batches(program):
                raise ValueError("predict needs arguments: the data came in batches, and none is kept.")
            args, kwargs = program.args, program.kwargs
        return predictive.predict(source, values, args, kwargs, seed)

    def _source(self) -> Source:
        source = self.source if self.program is None else Source.of(self.program)
        if source is None or source.model is None:
            raise ValueError("predict needs the model; load with Posterior.load(path, model=model).")
        return source

    def require_program(self, what: str) -> Program:
        """Return the program, or raise a ValueError that says how to load a posterior together with its data."""
        if self.program is None:
            raise ValueError(
                f"{what} needs the model with its data; load with Posterior.load(path, model=model, args=(X, y))."
            )
        return self.program

    def plot(
        self,
        names: list[str] | None = None,
        ax: Any = None,
        kind: str = "marginals",
        label: str | None = None,
    ) -> Any:
        """Draw the posterior.

        Args:
            names: sites to draw, or single entries of them, such as "w[0]"; None draws those of ``summary``.
            ax: where to draw; None makes a figure. Pass what an earlier call returned to overlay another posterior.
            kind: "marginals", the density of each entry; "forest", median, 50 % and 90 % interval of each entry;
                "pairs", the joint density of each two entries, at most 8 of them, by the regions that hold 50 % and
                90 %; "trace", the bound (or what the method drives to zero) against its steps, or a sampler's chains.
            label: in the legend; None gives the method.

        Returns:
            What the function of ``probdl.viz`` returns: axes, by name where there is one for each entry.

        Raises:
            ValueError: if there is no such site, entry or kind, the method kept no trace, or "pairs" got too many.
        """
        from probdl.inference.posteriors.pictures import KINDS

        if kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(map(repr, KINDS))}; got {kind!r}.")
        return KINDS[kind](self, self._entries_of(names or self.approximation.tabled), ax, label or self.method)

    def _entries_of(self, names: Iterable[str]) -> dict[str, tuple[str, int]]:
        """Return by label the site and the place of each entry of sites, or of single entries."""
        known = {e: (site, i) for site in self.names for i, e in enumerate(self.entries(site))}
        chosen = [[name] if name in known else self.entries(self._known(name)) for name in names]
        return {entry: known[entry] for some in chosen for entry in some}

    def to_arviz(self, draws: int = 1000, *, seed: int = 0) -> Any:
        """Return the posterior for ArviZ: draws, log-likelihood of each observation, and the observations.

        Args:
            draws: from an approximation, as one chain; a sampler gives all its chains.
            seed: of the draws.

        Returns:
            An ``arviz.InferenceData``, or from ArviZ 1.0 on an ``xarray.DataTree``, whose dimensions have the names
            of the plates. Log-likelihoods are left out where discrete latents were summed out, and data too where the
            posterior was loaded without them or the rows come in batches.

        Raises:
            ImportError: if ArviZ is not installed.
        """
        return to_arviz(self, draws, seed)

    def save(self, path: str | os.PathLike) -> None:
        """Write the posterior, without model and data, to one safetensors file: data only, never a program.

        Raises:
            TypeError: if a site's support, or the kind of posterior, cannot be written down.
        """
        saved.save(self, path)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike,
        model: Callable | None = None,
        args: tuple = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Posterior:
        """Return a posterior that ``save`` wrote; it answers as before, to the last bit.

        Args:
            path: of the file.
            model: the Pyro program that was fitted, which ``predict`` needs; it is not in the file.
            args: the data that it was fitted on, which ``check`` needs.
            kwargs: its keyword arguments.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if the file holds something else, a pickle say, or is damaged; or the model does not fit it.

        Example:
            >>> import pyro, pyro.distributions as dist, tempfile, torch
            >>> from probdl.inference import fit
            >>> def model(y):
            ...     mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
            ...     pyro.sample("y", dist.Normal(mu, 1.0), obs=y)
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     fit(model, torch.tensor(2.0)).save(f"{folder}/mu.safetensors")
            ...     posterior = Posterior.load(f"{folder}/mu.safetensors")
            >>> round(float(posterior.mean("mu")), 4)
            1.0
        """
        posterior = cls(**saved.load(path, model))
        if model is not None:
            posterior.program = saved.program_for(posterior, model, args, kwargs or {})
        return posterior

    def entries(self, name: str) -> list[str]:
        """Return the labels of a site's entries, such as ``w[0]``, in the order in which they are flattened."""
        shape = self.approximation.latents[name].shape
        if not shape:
            return [name]
        index = torch.cartesian_prod(*(torch.arange(s) for s in shape)).reshape(-1, len(shape))
        return [f"{name}[{','.join(map(str, row))}]" for row in index.tolist()]

    def _known(self, name: str) -> str:
        if name not in self.approximation.latents:
            raise ValueError(f"There is no latent site {name!r}; the sites are {', '.join(self.names)}.")
        return name

    def __repr__(self) -> str:
        evidence = "" if self.log_evidence is None else f", log evidence {self.log_evidence.value:.4f}"
        state = "converged" if self.converged else "not converged"
        khat = "" if self.khat is None else f", k-hat {self.khat:.2f}"
        return f"Posterior of {', '.join(self.names)} by {self.method} ({state}, {self.seconds:.2f} s{evidence}{khat})"
