"""The densities of a program in two vectors: z, the Gaussian latents, and φ, those that are held outside.

Each site takes its values from one of the two, so that in a recorded graph nothing but z leads to what depends on z.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from probdl.inference.programs.latents import Latent, one_after_another
from probdl.inference.programs.program import Program, _log_prob


class Given:
    """A program whose latents stand in two vectors.

    Args:
        program: the model with its data.
        outside: names of the sites whose values are φ.

    Attributes:
        free: where z stands in the program's flat vector, (d,).
        held: where φ stands in it, (k,).
        start: where φ begins.
    """

    def __init__(self, program: Program, outside: tuple[str, ...]) -> None:
        self.program, self.outside = program, outside
        self.inner = one_after_another({k: x for k, x in program.latents.items() if k not in outside})
        self.outer = one_after_another({k: program.latents[k] for k in outside})
        self.free, self.held = self._places(self.inner), self._places(self.outer)
        self.start = program.start[self.held]

    def _places(self, latents: dict[str, Latent]) -> Tensor:
        entries = torch.arange(self.program.dim, device=self.program.device)
        return torch.cat([entries[:0], *(entries[self.program.latents[k].place] for k in latents)])

    def _values(self, z: Tensor, phi: Tensor) -> Callable[[dict], Tensor]:
        def choose(msg: dict) -> Tensor:
            name = msg["name"]
            return self.outer[name].constrain(phi) if name in self.outer else self.inner[name].constrain(z)

        return choose

    def log_prior(self, z: Tensor, phi: Tensor) -> Tensor:
        """Return the log prior density of all latents, with the Jacobian of the transforms; a scalar."""
        trace = self.program._trace(self._values(z, phi))
        with self.program._running():
            terms = [_log_prob(trace.nodes[name]).sum() for name in self.program.latents]
        return torch.stack([*terms, self.log_jacobian(phi)]).sum()

    def log_factor(self, name: str, z: Tensor, phi: Tensor) -> Tensor:
        """Return the log-density of an observed site, one entry for each independent observation."""
        trace = self.program._trace(self._values(z, phi))
        with self.program._running():
            return _log_prob(trace.nodes[name], each=True)

    def log_jacobian(self, phi: Tensor) -> Tensor:
        """Return the log Jacobian of the transforms of the sites outside, those of z being identities; a scalar."""
        total = phi.new_zeros(())
        for latent in self.outer.values():
            if not latent.is_real():
                u = phi[latent.place].reshape(latent.free_shape)
                total = total + latent.transform.log_abs_det_jacobian(u, latent.transform(u)).sum()
        return total
