"""Amortised stochastic VI: latents of every row by a network or a Pyro guide, and parameters of the model."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from probdl.divergences.estimate import Estimate
from probdl.errors import ConvergenceWarning
from probdl.inference.posterior import Posterior
from probdl.inference.posteriors.approximations import Approximation
from probdl.inference.stochastic.amortised_posterior import AmortisedGaussian, DrawnFromGuide
from probdl.inference.stochastic.guides import Guide
from probdl.inference.stochastic.minibatches import RowSource
from probdl.inference.stochastic.network_guide import NetworkGuide
from probdl.inference.stochastic.network_loop import WORTH, NetworkLoop
from probdl.inference.stochastic.pyro_guide import PyroGuide, learnable, make_guide
from probdl.inference.stochastic.row_plates import local_sites
from probdl.loops.progress import bar

if TYPE_CHECKING:
    from probdl.inference.stochastic_vi import StochasticVI

_FIXED = 12  # batches on which stages are compared
_PASSES = 8  # passes with fresh noise for the bound


@dataclass
class Amortised:
    """A fit by a guide. It runs inside the store of the program's parameters.

    Args:
        method: its settings.
        source: where batches come from.
        notes: what is known so far.
        seed: of batches and noise.
        progress: whether to show a bar.
        started: when the fit began.
    """

    method: StochasticVI
    source: RowSource
    notes: tuple[str, ...]
    seed: int
    progress: bool | None
    started: float

    def posterior(self) -> Posterior:
        """Learn the guide's and the model's parameters, and return what they say."""
        import pandas as pd

        program = self.source.program
        if program.discrete:
            raise ValueError(f"The latent sites {', '.join(program.discrete)} are discrete; a guide cannot learn them.")
        # Pyro draws from torch's global generator: it is seeded here and restored afterwards.
        with torch.random.fork_rng(devices=[]), bar(self.method.max_steps, self.progress, "SVI") as shown:
            torch.manual_seed(self.seed)
            guide = make_guide(self.source, self.method.guide)
            loop = self._loop(guide, lambda n, text: shown.update(n))
            loop.run()
            bound = self._bound(guide, loop)
            approximation = self._approximation(guide)
        notes = (*program.notes, *self.notes, *self._shared())
        message = " ".join([self._said(loop), *(f"Note: {note}." for note in notes)])
        if loop.reason:
            warnings.warn(f"StochasticVI stopped early: {message}", ConvergenceWarning, stacklevel=5)
        return Posterior(
            method="svi",
            approximation=approximation,
            converged=not loop.reason,
            message=message,
            seconds=time.perf_counter() - self.started,
            history=pd.DataFrame(loop.rows),
            elbo=bound,
            notes=notes,
        )

    def _shared(self) -> tuple[str, ...]:
        """Say that Adam's steps find the latents that all rows share without a measured error."""
        local = local_sites(self.source.program, self.source.plates) if self.source.plates else ()
        shared = [name for name in self.source.program.latents if name not in local]
        if not shared:
            return ()
        return (f"the latents {', '.join(shared)}, which all rows share, have an error that is not measured",)

    def _loop(self, guide: Guide, tick: Any) -> NetworkLoop:
        self.source.prepare()
        generator = torch.Generator().manual_seed(self.seed)
        fixed = self.source.fixed(_FIXED, generator)
        guide.bound(fixed[0])  # the first run makes Pyro's parameters
        local = local_sites(self.source.program, self.source.plates) if self.source.plates else ()
        width = sum(self.source.program.latents[k].free_shape[1:].numel() for k in local)
        # Without latents of rows, what counts is the bound of all rows together: 0.02 nats a latent where tolerance² is
        # 4e-4, about what the noise of plain stochastic gradients lets one see.
        scale = width if local else 50 * max(1, self.source.program.dim) / self.source.n
        tolerance, share = self.method.tolerance**2 * scale, WORTH if local else 0.0
        settings = (tolerance, share, self.method.max_steps, self.seed, tick)
        return NetworkLoop(guide, learnable(guide), fixed, generator, *settings)

    @torch.no_grad()
    def _bound(self, guide: Guide, loop: NetworkLoop) -> Estimate:
        """The bound over all rows, by passes with fresh noise; on the fixed batches where no pass is possible."""
        how: dict[str, Any] = {"method": "monte carlo", "target": "lower bound"}
        if not self.source.can_pass or len(self.source.plates) > 1:
            values = torch.stack([guide.bound(b) for b in loop.fixed])
            return Estimate(float(values.mean()), float(values.std() / len(values) ** 0.5), n=len(values), **how)
        values = torch.stack([guide.whole_bound() for _ in range(_PASSES)])
        return Estimate(float(values.mean()), float(values.std() / _PASSES**0.5), n=_PASSES, **how)

    @torch.no_grad()
    def _approximation(self, guide: Guide) -> Approximation:
        if isinstance(guide, NetworkGuide):
            return AmortisedGaussian.of(guide)
        assert isinstance(guide, PyroGuide)
        return DrawnFromGuide(guide, self.seed)

    def _said(self, loop: NetworkLoop) -> str:
        on = f"batches of {self.source.batch_size} of {self.source.n} rows" if self.source.plates else "all rows"
        done = f"Amortised stochastic VI on {on} took {loop.step} steps in {loop.stages} stages"
        if loop.reason:
            return f"{done} and stopped early: {loop.reason}."
        return (
            f"{done} and stopped since the last stage raised the bound by {loop.gain:.1g} nats a row, below "
            f"{loop.worth:.1g}, so that smaller steps would bring less."
        )
