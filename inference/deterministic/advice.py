"""What a careful reader should know of a Gaussian approximation: too narrow, a funnel, labels that can switch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from probdl.inference.deterministic.gaussian_families import FullRankFamily
from probdl.inference.deterministic.linear_response import PROBES, is_probed
from probdl.inference.deterministic.linear_response_gaussian import LinearResponseGaussian
from probdl.inference.programs.checks import innermost
from probdl.inference.programs.enumeration import can_switch_labels
from probdl.inference.programs.latents import Latent
from probdl.inference.programs.program import Program

if TYPE_CHECKING:
    from probdl.inference.deterministic.deterministic_vi import Optimum

_NARROW = 1.2  # ratio of the linear-response sd to the sd from which it is said
_FUNNEL = 0.5  # share of the prior in the posterior precision from which a centred hierarchy should not be centred


def advice(program: Program, optimum: Optimum, approximation: LinearResponseGaussian) -> tuple[str, ...]:
    """Return notes on an optimum and the posterior made of it."""
    precision = torch.linalg.inv(approximation.free_covariance).diagonal()
    return (
        *too_narrow(approximation, isinstance(optimum.family, FullRankFamily)),
        *funnels(program, approximation.free_mean, precision),
        *switching(program, approximation.free_mean),
        *imprecise(optimum.location_error, optimum.scale_error),
        *probed(optimum),
    )


def probed(optimum: Optimum) -> tuple[str, ...]:
    """Say where the linear response is not computed for each latent."""
    if not is_probed(optimum.curvature, optimum.family.dim):
        return ()
    return (f"for so many latents sd_lr is estimated from {PROBES} random probes, and may be off by a few percent",)


def too_narrow(approximation: LinearResponseGaussian, is_full: bool) -> tuple[str, ...]:
    """Say where the approximation is much narrower than linear response finds the posterior to be."""
    sds = approximation.response_sds
    ratios = {name: float((sd / approximation.sd(name)).max()) for name, sd in sds.items()}
    worst = max(ratios, key=lambda name: ratios[name])
    if not ratios[worst] > _NARROW:
        return ()
    why = "since the posterior is far from Gaussian" if is_full else "as mean field is where latents are correlated"
    do = "use method='nuts'" if is_full else "use FullRank()"
    return (
        f"the approximation is too narrow, {why}: at site {worst!r} the linear-response sd is {ratios[worst]:.2g} "
        f"times its sd; read sd_lr in summary(), or {do}",
    )


def switching(program: Program, z: Tensor) -> tuple[str, ...]:
    """Say that labels can be switched, where exchanging two values of a discrete site leaves the density as it is."""
    if not program.discrete or not can_switch_labels(program, z):
        return ()
    sites = ", ".join(program.discrete)
    return (
        f"the values of {sites} can be relabelled without changing the density (label switching): this is one of "
        "several equal modes; order a location to tell them apart",
    )


def funnels(program: Program, z: Tensor, precision: Tensor) -> tuple[str, ...]:
    """Say which sites have a prior whose scale is a latent, and data that say less of them than that prior.

    Args:
        program: the model with its data.
        z: location of the approximation, (d,).
        precision: of each latent given the others under the approximation, (d,).
    """
    notes = []
    for name, scale in _moving_scales(program, z).items():
        latent = program.latents[name]
        share = float((scale.reshape(-1) ** -2 / precision[latent.place]).clamp(max=1).mean())
        if share > _FUNNEL:
            notes.append(
                f"{name!r} is centred on a scale that is itself a latent, and {share:.0%} of what is known of it comes "
                f"from that prior: a funnel, which no Gaussian fits. Write it non-centred: {name}_raw ~ Normal(0, 1) "
                f"and {name} = mean + scale * {name}_raw"
            )
    return tuple(notes)


def imprecise(location: float, scale: float) -> tuple[str, ...]:
    """Say where the fixed draws leave a large error."""
    if max(location, scale) <= 0.15:
        return ()
    return (
        f"the fixed draws leave an error of {location:.2g} sd in the means and {scale:.0%} in the sds; raise max_draws",
    )


def _moving_scales(program: Program, z: Tensor) -> dict[str, Tensor]:
    """The scales of the real latent sites whose prior has one that moves with other latents, at z."""
    here, moved = program._trace(program._value_at(z)), program._trace(program._value_at(z + 0.37))
    scales = {name: [_scale(t.nodes[name]["fn"], x) for t in (here, moved)] for name, x in program.latents.items()}
    return {k: a for k, (a, b) in scales.items() if a is not None and b is not None and not torch.equal(a, b)}


def _scale(fn: Any, latent: Latent) -> Tensor | None:
    """The scale of a real site's prior in the site's shape, where it has one."""
    scale = getattr(innermost(fn), "scale", None)
    return scale.expand(latent.shape) if latent.is_real() and isinstance(scale, Tensor) else None
