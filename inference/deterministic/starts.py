"""Where deterministic VI starts: at the mode with the curvature there, at a given posterior, or at the prior means."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from probdl.errors import ConvergenceError
from probdl.inference.deterministic.first_guess import ensure_start
from probdl.inference.laplace import Density, find_mode
from probdl.inference.posterior import Posterior
from probdl.inference.programs.program import Program

_MOST_DENSE = 500  # latents up to which the mode is looked for, which needs the whole Hessian
_LOG_SD = -3.0  # of the scales where nothing is known of them
_DRAWS = 4000


@dataclass(frozen=True)
class Start:
    """A location, a triangular root of a covariance that whitens it, scales, and a sentence that says which."""

    centre: Tensor
    root: Tensor
    scale: Tensor
    said: str
    has_scales: bool = True


def start_of(program: Program, given: Posterior | None, density: Density | None = None) -> Start:
    """Return where to start.

    Args:
        program: the model with its data.
        given: a posterior to start from.
        density: the program's log-density where it is known in a faster form than a recording.

    Raises:
        ValueError: if the given posterior is one of other sites or shapes; it names the site.
    """
    if given is not None:
        return _at_posterior(program, given)
    why = ""
    if program.dim <= _MOST_DENSE:
        try:
            return _at_mode(program, density)
        except ConvergenceError:
            why = ", since no mode was found"
    ensure_start(program)
    scale = torch.full_like(program.start, _LOG_SD).exp()
    return Start(program.start, torch.diag(scale), scale, f"It started at the prior means{why}.", has_scales=False)


def _at_mode(program: Program, density: Density | None) -> Start:
    mode = find_mode(program, density=density)
    root = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(mode.precision)))
    return Start(mode.z, root, mode.precision.diagonal().rsqrt(), "It started at the mode.")


def _at_posterior(program: Program, given: Posterior) -> Start:
    _check_same_sites(program, given)
    values = given.draws(None if given.method == "nuts" else _DRAWS)
    z = torch.cat([x.transform.inv(values[k]).reshape(len(values[k]), -1) for k, x in program.latents.items()], 1)
    z = z.to(program.start)
    covariance = torch.atleast_2d(torch.cov(z.T))
    covariance = covariance + 1e-6 * torch.diag(covariance.diagonal().clamp(min=1e-12))
    scale = torch.linalg.inv(covariance).diagonal().rsqrt()
    return Start(z.mean(0), torch.linalg.cholesky(covariance), scale, f"It started at a posterior by {given.method}.")


def _check_same_sites(program: Program, given: Posterior) -> None:
    theirs = {name: tuple(given.mean(name).shape) for name in given.names if name not in program.discrete}
    ours = {name: tuple(latent.shape) for name, latent in program.latents.items()}
    if theirs != ours:
        raise ValueError(f"start must be a posterior of the same sites: expected {ours}; got {theirs}.")
