r"""Expectation propagation over groups of data, each seen by a process of its own.

The likelihood of each group of rows is one site, a Gaussian factor of the latents that the groups share. A process that
sees only its group's rows, and the Gaussian that stands for all the rest, returns draws for the moments of its tilted
distribution. So the data can be larger than any one process holds, and a group's own latents never leave it.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from probdl.inference.groups.given import read_groups
from probdl.inference.groups.propagation import Propagation
from probdl.inference.nuts import NUTS
from probdl.inference.posterior import Posterior
from probdl.inference.programs.program import Program


@dataclass(frozen=True)
class GroupEP:
    r"""Expectation propagation whose sites are groups of rows, in separate processes.

    .. math:: q(z) \propto p(z) \prod_k g_k(z), \qquad g_k \leftarrow \text{proj}\Big(\frac{q}{g_k} f_k\Big)
        \Big/ \frac{q}{g_k}, \qquad f_k(z) = \int p(y_k, l_k \mid z)\,dl_k

    q and the sites are full Gaussians of the latents z that the groups share, on unconstrained space: scales by their
    logarithm. A prior that is not Gaussian there has a site of its own. Latents in a plate each entry of which is seen
    by one group only, such as an effect for each level where groups hold whole levels, are the groups' own: they are
    integrated out inside the group, and their posterior is put together at the end.

    The iteration starts at the posterior mode, found over all groups, and the moments of a tilted distribution come
    from draws with fixed seeds, so that there is a fixed point and it can be repeated; their Monte Carlo error is in
    the column "mcse" of ``summary``, in ``compare_posteriors`` and in the error of the log evidence.

    Args:
        groups: how many, of consecutive rows; or labels, one for each row; or the name of the model's argument that
            holds them; or "given", where ``fit`` is passed one iterable of groups: tuples of the model's arguments,
            dicts of keyword arguments, or callables that load one of these in the process that needs it.
        moments: "importance" (Pareto-smoothed) or "nuts", of the tilted distributions.
        processes: how many; None leaves it to joblib, which takes 1 unless ``joblib.parallel_config`` says otherwise,
            such as a Dask or Ray cluster.
        draws: of each group in a sweep of importance sampling, at least; more where the dimension asks for it.
        sampler: for moments="nuts".
        plate: the plate over the rows, where several might be meant.
        local: sites to be integrated out in each group; None decides by which entries the data of a group see.
        tolerance: largest gap between the moments of the tilted distributions and q (means in sds, log variances); for
            NUTS the gap is compared with its Monte Carlo error.
        max_sweeps: where the iteration gives up.

    Raises:
        ValueError: if the rows cannot be grouped, the groups share no latent, or a latent is discrete.
        ConvergenceError: if there is no mode or no fixed point, or importance weights have no mean (k-hat above 1).

    Warns:
        ConvergenceWarning: if the largest k-hat exceeds 0.7, or split R-hat of NUTS 1.1.

    Source: Vehtari, Gelman, Sivula, Jylänki, Tran, Sahai, Blomstedt, Cunningham, Schiminovich & Robert (2020),
    *Expectation propagation as a way of life*, JMLR 21(17).

    Example:
        >>> import pyro, pyro.distributions as dist, torch
        >>> from probdl.inference import fit
        >>> def model(y):
        ...     mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        ...     with pyro.plate("rows", len(y)):
        ...         pyro.sample("y", dist.Normal(mu, 1.0), obs=y)
        >>> posterior = fit(model, torch.tensor([1.0, 2.0, 3.0]), method=GroupEP(groups=3))
        >>> posterior.mean("mu"), posterior.sd("mu")  # exact: all sites are Gaussian
        (tensor(1.5000, dtype=torch.float64), tensor(0.5000, dtype=torch.float64))
    """

    groups: Any = 8
    moments: str = "importance"
    processes: int | None = None
    draws: int = 4096
    sampler: NUTS = field(default_factory=lambda: NUTS(draws=250, warmup=150, chains=2))
    plate: str | None = None
    local: tuple[str, ...] | None = None
    tolerance: float = 1e-4
    max_sweeps: int = 50

    def __post_init__(self) -> None:
        if self.moments not in ("importance", "nuts"):
            raise ValueError(f"moments must be 'importance' or 'nuts'; got {self.moments!r}.")
        if self.draws < 256:
            raise ValueError(f"draws must be at least 256, to see the tail of the weights; got {self.draws}.")
        if self.processes is not None and (self.processes == 0 or isinstance(self.processes, bool)):
            raise ValueError(f"processes must be a positive number, or None; got {self.processes!r}.")
        if isinstance(self.local, str):
            raise ValueError(f"local must be a tuple of names, such as ({self.local!r},); got {self.local!r}.")

    def read(self, model: Callable, args: tuple, kwargs: dict[str, Any], **where: Any) -> Program:
        """Return the program of all data; of the first group where the groups are given."""
        if isinstance(self.groups, str) and self.groups == "given":
            return read_groups(model, args, kwargs, **where)
        return Program(model, args, kwargs, **where)

    def run(self, program: Program, seed: int = 0, progress: bool | None = None) -> Posterior:
        """Return the posterior of a program."""
        from joblib import Parallel, delayed

        started = time.perf_counter()
        with Parallel(n_jobs=self.processes) as parallel:

            def in_processes(work: Callable, arguments: list[tuple]) -> list[Any]:
                return list(parallel(delayed(work)(*each) for each in arguments))

            fitting = Propagation(self, program, uuid.uuid4().hex, seed, in_processes)
            return fitting.posterior(started, progress)
