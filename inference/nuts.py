"""The reference: Pyro's No-U-Turn sampler on the recorded density, started and whitened by Laplace's method."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pyro
import torch
from pyro.infer import NUTS as PyroNUTS
from torch import Tensor

from probdl.errors import ConvergenceError, ConvergenceWarning
from probdl.inference.laplace import find_mode
from probdl.inference.posterior import Posterior
from probdl.inference.posteriors.sampled import SampledApproximation
from probdl.inference.programs.program import Program
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
        ValueError: if there are fewer than 8 draws, or no warmup or chain.

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
        for name, least in (("draws", 8), ("warmup", 1), ("chains", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}; got {getattr(self, name)}.")

    def run(self, program: Program, seed: int = 0, progress: bool | None = None) -> Posterior:
        """Return the posterior of a program."""
        import pandas as pd

        started = time.perf_counter()
        centre, root, how = _whitening(program)
        log_joint = program.recorded(program.log_joint)
        density = program.recorded(torch.func.grad_and_value(log_joint))
        kept, interrupted = self._sample(_Potential(density, centre, root), program, seed, progress)
        kept = _long_chains(kept)
        chains, diverged = _stacked(kept), [chain.divergences for chain in kept]
        approximation = SampledApproximation(program.latents, program.constrain(centre + chains @ root.T))
        worst = _check_mixing(approximation)
        length = f"{chains.shape[0]} × {chains.shape[1]} draws after {self.warmup} steps of warm-up"
        noted = f" Note: {sum(diverged)} transitions diverged; see check()." if sum(diverged) else ""
        stopped = "Interrupted before the end. " if interrupted else ""
        return Posterior(
            method="nuts",
            approximation=approximation,
            converged=worst <= 1.05 and not interrupted,
            message=f"{stopped}NUTS kept {length}, {how}; the largest split R-hat is {worst:.3f}.{noted}",
            seconds=time.perf_counter() - started,
            history=pd.DataFrame({"chain": range(len(chains)), "draws": chains.shape[1], "divergences": diverged}),
            notes=program.notes,
        )

    def _sample(
        self, potential: _Potential, program: Program, seed: int, progress: bool | None
    ) -> tuple[list[_Chain], bool]:
        """Run the chains one after another; an interrupt keeps the draws that were made."""
        kept: list[_Chain] = []
        total = (self.draws + self.warmup) * self.chains
        # Pyro draws from torch's global generator: it is seeded here and restored afterwards.
        with torch.random.fork_rng(devices=[]), pyro.validation_enabled(False), bar(total, progress, "NUTS") as ticks:
            torch.manual_seed(seed)
            try:
                for _ in range(self.chains):
                    kept.append(_Chain())
                    self._chain(potential, program, kept[-1], ticks)
            except KeyboardInterrupt:
                if max(len(chain.draws) for chain in kept) < 20:
                    raise
                warnings.warn("NUTS was interrupted; the draws made so far are kept.", ConvergenceWarning, stacklevel=4)
                return kept, True
        return kept, False

    def _chain(self, potential: _Potential, program: Program, kept: _Chain, ticks: Any) -> None:
        kernel = PyroNUTS(potential_fn=potential, adapt_mass_matrix=potential.is_plain)
        noise = torch.randn(program.dim, dtype=program.dtype).to(program.device)
        kernel.initial_params = {"e": 0.0 * noise if potential.is_plain else noise}
        kernel.setup(self.warmup)
        params = kernel.initial_params
        for i in range(self.warmup + self.draws):
            params = kernel.sample(params)
            if i >= self.warmup:
                kept.draws.append(params["e"].detach().clone())
                kept.divergences = len(kernel.diagnostics()["divergences"])
            ticks.update()
        kernel.cleanup()


@dataclass
class _Chain:
    """The draws kept from one chain, (d,) each, and how many transitions among them diverged."""

    draws: list[Tensor] = field(default_factory=list)
    divergences: int = 0


def _long_chains(kept: list[_Chain]) -> list[_Chain]:
    """Leave out a chain that an interrupt cut to less than half."""
    full = max(len(chain.draws) for chain in kept)
    return [chain for chain in kept if 2 * len(chain.draws) >= full]


def _stacked(kept: list[_Chain]) -> Tensor:
    """Stack chains as (chains, n, d), cut to the shortest."""
    n = min(len(chain.draws) for chain in kept)
    return torch.stack([torch.stack(chain.draws[:n]) for chain in kept])


def _check_mixing(approximation: SampledApproximation) -> float:
    """Return the largest split R-hat, with a warning where it shows that the chains disagree."""
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
    """−log p(x, centre + root·e) of {"e": e}, whose gradient comes from the same pass as its value."""

    def __init__(self, density: Callable[[Tensor], tuple[Tensor, Tensor]], centre: Tensor, root: Tensor) -> None:
        self.density, self.centre, self.root = density, centre, root
        self.is_plain = bool((root == torch.eye(len(centre), dtype=root.dtype, device=root.device)).all())

    def __call__(self, values: dict[str, Tensor]) -> Tensor:
        return _WithGradient.apply(values["e"], self)

    def value_and_gradient(self, e: Tensor) -> tuple[Tensor, Tensor]:
        gradient, value = self.density(self.centre + self.root @ e)
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
