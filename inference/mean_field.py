r"""Mean-field Gaussian VI for any program, as a smooth problem with an unambiguous optimum and no learning rate."""

from __future__ import annotations

import time
from dataclasses import dataclass

from probdl.inference.deterministic.deterministic_vi import Settings, check_settings, maximise
from probdl.inference.deterministic.expectations import expectation_of
from probdl.inference.deterministic.gaussian_families import MeanFieldFamily
from probdl.inference.deterministic.starts import start_of
from probdl.inference.deterministic.vi_posterior import posterior_of
from probdl.inference.posterior import Posterior
from probdl.inference.programs.program import Program

_MOST_ORTHOGONAL = 256  # latents for which there are as many pairs of draws, so that their second moments are exact


@dataclass(frozen=True)
class MeanField:
    r"""The independent normals on unconstrained space that are closest to the posterior in KL(q‖p).

    .. math:: \max_{m, s} \; E_q \log p(x, z) + \sum_j \log s_j, \quad q(z) = \prod_j N(z_j; m_j, s_j^2)

    For continuous latents of any support; discrete ones are summed out where Pyro can. Where the log-density is made
    of Gaussian factors and of sites that see the latents through one affine projection each (generalised linear
    models), the expectation is exact, by one-dimensional quadrature. Elsewhere it is taken on fixed antithetic draws
    with exact second moments, doubled until their error is small. Either way the bound is an ordinary function, and a
    trust-region Newton method (SciPy's trust-ncg) finds its maximum.

    Mean field is too narrow where latents are correlated. ``summary()`` has the linear-response standard deviation
    ``sd_lr`` beside ``sd``: how far the optimum moves when the log-density is tilted, which is exact for Gaussian
    posteriors.

    Args:
        draws: the first number of fixed draws, even; None takes at least 32 and 4 times the number of latents, but
            64 for more than 256 latents.
        draw_error: the largest error of a mean, in units of sd_lr, and half that of an sd, relative, at which draws are
            no longer doubled.
        max_draws: where doubling stops.
        max_steps: of Newton's method, at each number of draws.
        start: a posterior of the same sites to start from; None starts at the mode.

    Raises:
        ValueError: for a discrete latent that cannot be summed out, or a start of other sites.
        ConvergenceError: if the bound has no maximum (an improper posterior); it names the site.

    Warns:
        ConvergenceWarning: if Newton's method stops before the maximum.

    Source: Giordano, Ingram & Broderick (2023), *Black box variational inference with a deterministic objective*;
    Giordano, Broderick & Jordan (2018), *Covariances, robustness and variational Bayes*, for linear response.

    Example:
        >>> import pyro, pyro.distributions as dist, torch
        >>> from probdl.inference import fit
        >>> def model(y):
        ...     a = pyro.sample("a", dist.Normal(0.0, 1.0))
        ...     b = pyro.sample("b", dist.Normal(0.0, 1.0))
        ...     pyro.sample("y", dist.Normal(a + b, 1.0), obs=y)
        >>> fit(model, torch.tensor(2.0), method=MeanField()).summary()[["mean", "sd", "sd_lr"]].round(4)
             mean      sd   sd_lr
        a  0.6667  0.7071  0.8165
        b  0.6667  0.7071  0.8165
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
        least = max(16, 2 * program.dim) if program.dim <= _MOST_ORTHOGONAL else 32
        pairs = least if self.draws is None else self.draws // 2
        expectation = expectation_of(program, pairs, seed)
        start = start_of(program, self.start, expectation.density())
        family = MeanFieldFamily(start.centre, start.root, start.scale)
        settings = Settings(self.draw_error, self.max_draws, self.max_steps)
        optimum = maximise(program, family, expectation, settings, start.has_scales)
        return posterior_of(program, optimum, "meanfield", start.said, seed, started)
