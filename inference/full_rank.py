r"""Full-rank Gaussian VI for any program, by the same deterministic bound as mean field."""

from __future__ import annotations

import time
from dataclasses import dataclass

from probdl.inference.deterministic.deterministic_vi import Settings, check_settings, maximise
from probdl.inference.deterministic.expectations import ProjectedExpectation, expectation_of
from probdl.inference.deterministic.gaussian_families import FullRankFamily
from probdl.inference.deterministic.starts import start_of
from probdl.inference.deterministic.vi_posterior import posterior_of
from probdl.inference.posterior import Posterior
from probdl.inference.programs.program import Program


@dataclass(frozen=True)
class FullRank:
    r"""The normal with any covariance on unconstrained space that is closest to the posterior in KL(q‖p).

    .. math:: \max_{m, L} \; E_q \log p(x, z) + \log |L|, \quad q(z) = N(z; m, LL^\top), \; L \text{ triangular}

    As ``MeanField``, for up to a few hundred latents: L has d(d + 1)/2 entries. With fewer fixed draws than directions
    the bound on fixed draws has no maximum, so at least 2d antithetic draws are needed, and 8d are taken.

    Args:
        draws: the first number of fixed draws, even; None takes at least 64 and at least 8 times the number of latents.
        draw_error: the largest error of a mean, in units of sd_lr, and half that of an sd, relative, at which draws are
            no longer doubled.
        max_draws: where doubling stops.
        max_steps: of Newton's method, at each number of draws.
        start: a posterior of the same sites to start from; None starts at the mode.

    Raises:
        ValueError: for fewer draws than 2d, a discrete latent that cannot be summed out, or a start of other sites.
        ConvergenceError: if the bound has no maximum (an improper posterior); it names the site.

    Warns:
        ConvergenceWarning: if Newton's method stops before the maximum.

    Source: Giordano, Ingram & Broderick (2023), *Black box variational inference with a deterministic objective*;
    Opper & Archambeau (2009), *The variational Gaussian approximation revisited*.

    Example:
        >>> import pyro, pyro.distributions as dist, torch
        >>> from probdl.inference import fit
        >>> def model(y):
        ...     a = pyro.sample("a", dist.Normal(0.0, 1.0))
        ...     b = pyro.sample("b", dist.Normal(0.0, 1.0))
        ...     pyro.sample("y", dist.Normal(a + b, 1.0), obs=y)
        >>> fit(model, torch.tensor(2.0), method=FullRank()).cov().round(decimals=4)
        tensor([[ 0.6667, -0.3333],
                [-0.3333,  0.6667]], dtype=torch.float64)
    """

    draws: int | None = None
    draw_error: float = 0.05
    max_draws: int = 8192
    max_steps: int = 200
    start: Posterior | None = None

    def __post_init__(self) -> None:
        check_settings(self)

    def run(self, program: Program, seed: int = 0, progress: bool | None = None) -> Posterior:
        """Return the posterior of a program."""
        started = time.perf_counter()
        program.require_all_rows()
        program.sum_out_discrete()
        pairs = max(32, 4 * program.dim) if self.draws is None else self.draws // 2
        expectation = expectation_of(program, pairs, seed)
        if pairs < program.dim and not isinstance(expectation, ProjectedExpectation):
            raise ValueError(
                f"draws must be at least {2 * program.dim}, twice the number of latents; got {self.draws}. With fewer "
                "the bound has no maximum: the covariance could grow without limit where no draw looks."
            )
        start = start_of(program, self.start, expectation.density())
        family = FullRankFamily(start.centre, start.root, start.scale)
        settings = Settings(self.draw_error, max(self.max_draws, 2 * pairs), self.max_steps)
        optimum = maximise(program, family, expectation, settings, start.has_scales)
        return posterior_of(program, optimum, "fullrank", start.said, seed, started)
