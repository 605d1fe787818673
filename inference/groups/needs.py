"""Which latents a group's data see: the gradient of their log-density is zero along all others."""

from __future__ import annotations

import torch
from torch import Tensor

from probdl.inference.programs.derivatives import value_and_gradient
from probdl.inference.programs.program import Program, _log_prob

Needs = dict[str, Tensor]  # by site in a plate: which of its independent entries, flattened, are needed


def observed_inside(program: Program, plates: tuple[str, ...] | None) -> tuple[str, ...]:
    """Return the observed sites in any of these plates; all of them where ``plates`` is None."""
    if plates is None:
        return program.observed
    trace = program._trace(program._value_at(program.start))
    stacks = {name: trace.nodes[name]["cond_indep_stack"] for name in program.observed}
    return tuple(name for name, stack in stacks.items() if any(frame.name in plates for frame in stack))


def plated_latents(program: Program) -> dict[str, tuple[str, ...]]:
    """Return the latent sites in vectorised plates, whose entries are independent given the rest, with the plates."""
    trace = program._trace(program._value_at(program.start))
    stacks = {name: trace.nodes[name]["cond_indep_stack"] for name in program.latents}
    found = {name: tuple(frame.name for frame in stack if frame.vectorized) for name, stack in stacks.items()}
    return {name: plates for name, plates in found.items() if plates}


def needed(program: Program, observed: tuple[str, ...]) -> Needs:
    """Return which entries of the plated latents the observations read, directly or through each other's priors."""
    needs = {name: torch.zeros(_entries(program, name), dtype=torch.bool) for name in plated_latents(program)}
    for _ in range(len(needs) + 1):
        before = sum(int(x.sum()) for x in needs.values())
        touched = _touched(program, observed, needs)
        needs = {name: x | touched[program.latents[name].place].reshape(len(x), -1).any(1) for name, x in needs.items()}
        if sum(int(x.sum()) for x in needs.values()) == before:
            break
    return needs


def _entries(program: Program, name: str) -> int:
    return program.latents[name].prior.batch_shape.numel()


def _touched(program: Program, observed: tuple[str, ...], needs: Needs) -> Tensor:
    """Along which entries of the flat vector the density of the observations and the needed latents changes."""

    def density(u: Tensor) -> Tensor:
        return log_density(program, u, observed, needs)

    generator = torch.Generator().manual_seed(22)
    touched = torch.zeros(program.dim, dtype=torch.bool)
    for scale in (0.05, 0.4):
        noise = torch.randn(program.dim, generator=generator, dtype=program.dtype).to(program.device)
        touched |= value_and_gradient(density, program.start + scale * noise)[1].cpu() != 0
    return touched


def log_density(program: Program, u: Tensor, observed: tuple[str, ...], needs: Needs) -> Tensor:
    """Return the log-density of the observed sites and of the needed entries of latents, with their Jacobians."""
    trace = program._trace(program._value_at(u))
    terms = [u.new_zeros(())]
    with program._running():
        terms += [_log_prob(trace.nodes[name]).sum() for name in observed]
        for name, mask in needs.items():
            which = mask.nonzero()[:, 0].to(u.device)
            if len(which):
                terms.append(_log_prob(trace.nodes[name]).reshape(-1)[which].sum())
                terms += _jacobian(program, name, u, which)
    return torch.stack(terms).sum()


def _jacobian(program: Program, name: str, u: Tensor, which: Tensor) -> list[Tensor]:
    latent = program.latents[name]
    if latent.is_real():
        return []
    free = u[latent.place].reshape(latent.free_shape)
    each = latent.transform.log_abs_det_jacobian(free, latent.transform(free))
    return [each.reshape(_entries(program, name), -1)[which].sum()]


def places(program: Program, needs: Needs) -> Tensor:
    """Return where the needed entries stand in the flat vector, in order."""
    found = [torch.zeros(0, dtype=torch.long)]
    for name, mask in needs.items():
        place = program.latents[name].place
        found.append(torch.arange(place.start, place.stop).reshape(len(mask), -1)[mask].reshape(-1))
    return torch.cat(found)
