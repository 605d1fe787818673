"""What a careful reader should know of a Gaussian approximation: too narrow, a funnel, labels that can switch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from probdl.inference.program import Program

if TYPE_CHECKING:
    from probdl.inference.deterministic_vi import Optimum

_NARROW = 1.2  # ratio of the linear-response sd to the sd from which it is said
_FUNNEL = 0.5  # share of the prior in the posterior precision from which a centred hierarchy should not be centred


def advice(program: Program, optimum: Optimum) -> tuple[str, ...]:
    """Return notes on an optimum."""
    family, phi = optimum.family, optimum.phi
    covariance = family.covariance(phi)
    return (
        *too_narrow(program, optimum.response_sd / covariance.diagonal().sqrt()),
        *funnels(program, family.location(phi), torch.linalg.inv(covariance).diagonal()),
        *imprecise(optimum.location_error, optimum.scale_error),
    )


def too_narrow(program: Program, ratio: Tensor) -> tuple[str, ...]:
    """Say where the approximation is much narrower than linear response finds the posterior to be."""
    worst = int(ratio.argmax())
    if not float(ratio[worst]) > _NARROW:
        return ()
    return (
        f"the approximation is too narrow, as mean field is where latents are correlated: at site "
        f"{program.site_at(worst)!r} the linear-response sd is {float(ratio[worst]):.2g} times its sd; "
        "read sd_lr in summary(), or use FullRank()",
    )


def funnels(program: Program, z: Tensor, precision: Tensor) -> tuple[str, ...]:
    """Say which sites have a prior whose scale is a latent, and data that say less of them than that prior.

    Args:
        program: the model with its data.
        z: location of the approximation, (d,).
        precision: of each latent given the others under the approximation, (d,).
    """
    notes = []
    for name, scale in program.prior_scales(z).items():
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
