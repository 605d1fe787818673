"""The reference: Pyro's No-U-Turn sampler on the recorded density, started and whitened by Laplace's method."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from pyro.infer import MCMC
from pyro.infer import NUTS as PyroNUTS
from torch import Tensor

from probdl.errors import ConvergenceError, ConvergenceWarning
from probdl.inference.approximations import SampledApproximation
from probdl.inference.laplace import find_mode, value_and_gradient
from probdl.inference.posterior import Posterior
from probdl.inference.program import Program
from probdl.loops.progress import bar


@dataclass(frozen=True)
class NUTS:
    """Draws by Pyro's No-U-Turn sampler.

    The sampler moves in coordinates in which Laplace's approximation is a standard Normal, on the recorded
    log-density, and its chains start from draws of that approximation; where there is none, in unconstrained space
    from the prior means.

    Args:
        draws: kept for each chain.
        warmup: steps for each chain that tune the step size and are thrown away.
        chains: independent chains, run one after another.

    Raises:
        ValueError: if a number is not positive.

    Warns:
        ConvergenceWarning: if the largest split R-hat exceeds 1.05.

    Source: Hoffman & Gelman (2014), *The No-U-Turn Sampler*.

    Example:
        >>> import pyro, pyro.distributions as dist, torch
        >>> from probdl.inference import fit
        >>> def model(y):
        ...     mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        ...     pyro.sample("y", dist.Normal(mu, 1.0), obs=y)
        >>> posterior = fit(model, torch.tensor(2.0), method=NUTS(draws=200, warmup=100, chains=2))
        >>> abs(posterior.mean("mu").item() - 1.0) < 0.2  # exactly 1
        True
    """

    draws: int = 1000
    warmup: int = 500
    chains: int = 4

    def __post_init__(self) -> None:
        for name in ("draws", "warmup", "chains"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be positive; got {getattr(self, name)}.")

    def run(self, program: Program, seed: int = 0, progress: bool | None = None) -> Posterior:
        """Return the posterior of a program."""
        import pandas as pd

        started = time.perf_counter()
        centre, root, how = _whitening(program)
        density = program.recorded(lambda z: value_and_gradient(program.log_joint, z))
        potential = _Potential(density, centre, root)
        with (
            torch.random.fork_rng(devices=[]),
            bar((self.draws + self.warmup) * self.chains, progress, "NUTS") as progress_bar,
        ):
            torch.manual_seed(seed)
            chains = [self._chain(potential, program, lambda *_: progress_bar.update()) for _ in range(self.chains)]
        z = centre + torch.stack(chains) @ root.T
        approximation = SampledApproximation(program.latents, program.constrain(z))
        worst = self._check(approximation)
        return Posterior(
            method="nuts",
            approximation=approximation,
            converged=worst <= 1.05,
            message=f"NUTS kept {self.chains} × {self.draws} draws after {self.warmup} steps of warm-up, {how}; the "
            f"largest split R-hat is {worst:.3f}.",
            seconds=time.perf_counter() - started,
            history=pd.DataFrame({"chain": range(self.chains), "draws": self.draws}),
            notes=program.notes,
        )

    def _chain(self, potential: Callable, program: Program, tick: Callable) -> Tensor:
        kernel = PyroNUTS(potential_fn=potential, adapt_mass_matrix=potential.is_plain, max_tree_depth=10)
        start = torch.randn(program.dim, dtype=program.dtype).to(program.device) * (not potential.is_plain)
        sampler = MCMC(
            kernel,
            num_samples=self.draws,
            warmup_steps=self.warmup,
            initial_params={"z": start},
            hook_fn=tick,
            disable_progbar=True,
            disable_validation=True,
        )
        logging.getLogger("pyro").setLevel(logging.ERROR)
        sampler.run()
        return sampler.get_samples()["z"]

    def _check(self, approximation: SampledApproximation) -> float:
        rhat = approximation.columns(0)["rhat"]
        worst = max(float(x.max()) for x in rhat.values())
        if worst > 1.05:
            site = max(rhat, key=lambda k: float(rhat[k].max()))
            warnings.warn(
                f"NUTS has not mixed: split R-hat is {worst:.3f} at site {site!r}. Raise draws and warmup.",
                ConvergenceWarning,
                stacklevel=4,
            )
        return worst


def _whitening(program: Program) -> tuple[Tensor, Tensor, str]:
    """Return centre and root of the Laplace approximation, or plain coordinates where there is none."""
    try:
        mode = find_mode(program)
    except ConvergenceError as reason:
        eye = torch.eye(program.dim, dtype=program.dtype, device=program.device)
        return program.start, eye, f"started at the prior means, since Laplace's method failed ({reason})"
    covariance = torch.cholesky_inverse(torch.linalg.cholesky(mode.precision))
    return mode.z, torch.linalg.cholesky(covariance), "started and whitened by Laplace's method"


class _Potential:
    """−log p(x, centre + root·e) of {"z": e}, whose gradient comes from the same pass as its value."""

    def __init__(self, density: Callable[[Tensor], tuple[Tensor, Tensor]], centre: Tensor, root: Tensor) -> None:
        self.density, self.centre, self.root = density, centre, root
        self.is_plain = bool((root == torch.eye(len(centre), dtype=root.dtype, device=root.device)).all())

    def __call__(self, values: dict[str, Tensor]) -> Tensor:
        return _WithGradient.apply(values["z"], self)

    def value_and_gradient(self, e: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = self.density(self.centre + self.root @ e)
        return -value, -(gradient @ self.root)


class _WithGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, e: Tensor, potential: _Potential) -> Tensor:  # type: ignore[override]
        value, gradient = potential.value_and_gradient(e.detach())
        ctx.save_for_backward(gradient)
        return value

    @staticmethod
    def backward(ctx, weight: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return weight * ctx.saved_tensors[0], None
