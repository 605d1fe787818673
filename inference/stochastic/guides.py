r"""Guides: what proposes latents on a batch, by networks or by a Pyro program, and the bound that they give.

The bound of a batch of m of n rows is :math:`\log p(z) - \log q(z) + \frac nm \sum_i [\log p(x_i, z_i \mid z) -
\log q(z_i \mid x_i)]`, with z the latents that all rows share and :math:`z_i` those of a row.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from probdl.errors import ConvergenceError
from probdl.inference.programs.program import Program, _log_prob
from probdl.inference.stochastic.minibatches import Batch, RowSource, site_sums
from probdl.inference.stochastic.row_plates import sample_sites

Sums = tuple[Tensor, Tensor]  # outside and inside the plates


class Guide(ABC):
    """What proposes values for all latent sites on a batch.

    Args:
        source: where batches come from.
    """

    def __init__(self, source: RowSource) -> None:
        self.source, self.program = source, source.program

    @abstractmethod
    def propose(self, program: Program, inputs: tuple[Tensor, ...]) -> tuple[dict[str, Tensor], Sums]:
        """Return values of the latent sites, and log q of them: of those that all rows share, and of the rows'."""

    @abstractmethod
    def parameters(self) -> list[Tensor]:
        """Return what can be learned in the guide, other than Pyro's parameters."""

    def bound(self, batch: Batch) -> Tensor:
        """Return an estimate of the bound from a batch, in nats; gradients flow through it."""
        outside, inside = self.parts(batch)
        return outside + batch.factor * inside

    def parts(self, batch: Batch) -> Sums:
        """Return log p − log q on a batch: of what all rows share, and of these rows."""
        program = self.source.on(batch.inputs)
        values, (q_outside, q_inside) = self.propose(program, batch.inputs)
        trace = program._trace(lambda msg: _value(values, msg))
        with program._running():
            outside, inside = site_sums(trace, self.source.plates)
        return outside - q_outside, inside - q_inside

    def whole_bound(self) -> Tensor:
        """Return an estimate of the bound from all rows, by a pass."""
        total = torch.zeros((), dtype=self.program.dtype, device=self.program.device)
        for i, batch in enumerate(self.source.whole()):
            outside, inside = self.parts(batch)
            total = total + (outside if i == 0 else 0.0) + batch.factor * inside
        return total

    def check_finite(self, batch: Batch, step: int) -> None:
        """Raise a ConvergenceError that names the sites that are not finite on this batch."""
        program = self.source.on(batch.inputs)
        bad_data = any(x.is_floating_point() and not bool(torch.isfinite(x).all()) for x in batch.inputs)
        with torch.no_grad():
            values, _ = self.propose(program, batch.inputs)
            trace = program._trace(lambda msg: _value(values, msg))
            with program._running():
                bad = [k for k, s in sample_sites(trace).items() if not bool(torch.isfinite(_log_prob(s)).all())]
        if bad_data:
            where = f" (site {', '.join(bad)})" if bad else ""
            raise ConvergenceError(f"At step {step} the batch itself holds NaN or infinities{where}: clean the data.")


def _value(values: dict[str, Tensor], msg: dict) -> Tensor:
    if msg["name"] not in values:
        raise ValueError(
            f"The guide gives no value to the latent site {msg['name']!r}, only to {', '.join(values) or 'none'}. Add "
            "it."
        )
    return values[msg["name"]]
