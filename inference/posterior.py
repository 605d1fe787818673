"""The result of ``fit``: one object for every method, with the same columns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from probdl.divergences.estimate import Estimate
from probdl.inference.approximations import Approximation
from probdl.inference.program import Program

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


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
        program: the model with its data, which ``check`` and ``predict`` run; None after ``load`` without a model.
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
            A DataFrame; a sampler adds rhat and ess.

        Raises:
            ValueError: if ``level`` is not in (0, 1).
        """
        import pandas as pd

        if not 0 < level < 1:
            raise ValueError(f"level must be between 0 and 1; got {level}.")
        quantiles = {f"{100 * q:.3g}%": q for q in ((1 - level) / 2, 0.5, (1 + level) / 2)}
        columns = {"mean": {k: self.mean(k) for k in self.names}, "sd": {k: self.sd(k) for k in self.names}}
        columns |= {label: {k: self.quantile(k, q) for k in self.names} for label, q in quantiles.items()}
        columns |= self.approximation.columns(0)
        data = {label: torch.cat([per[k].reshape(-1) for k in self.names]).cpu() for label, per in columns.items()}
        return pd.DataFrame({k: v.numpy() for k, v in data.items()}, index=self._labels())

    def plot(self, names: list[str] | None = None, ax: Axes | None = None, label: str | None = None) -> Any:
        """Draw the marginal posterior density of each entry of the sites.

        Args:
            names: sites to draw; None draws all.
            ax: where to draw them over each other; None makes one panel for each entry.
            label: of the curves in the legend; None gives the method.

        Returns:
            What ``probdl.viz.marginals`` returns: the axes.
        """
        from probdl.viz import marginals

        chosen = [self._known(name) for name in names] if names else list(self.names)
        curves = {k: v for name in chosen for k, v in self._curves(name).items()}
        return marginals(curves, ax=ax, label=label or self.method)

    def _curves(self, name: str) -> dict[str, tuple[Tensor, Tensor]]:
        return {label: self.approximation.density(name, i) for i, label in enumerate(self._labels_of(name))}

    def _labels(self) -> list[str]:
        return [label for name in self.names for label in self._labels_of(name)]

    def _labels_of(self, name: str) -> list[str]:
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
        return f"Posterior of {', '.join(self.names)} by {self.method} ({state}, {self.seconds:.2f} s{evidence})"
