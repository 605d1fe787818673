"""How far a posterior can be trusted: importance sampling for approximations, mixing for samplers."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from probdl.divergences.estimate import Estimate
from probdl.divergences.pareto import pareto_smoothed
from probdl.inference.posteriors.approximations import Approximation
from probdl.inference.programs.densities import log_joint_of_draws
from probdl.inference.programs.program import Program

if TYPE_CHECKING:
    import pandas as pd

    from probdl.inference.posterior import Posterior

GOOD, USABLE = 0.5, 0.7  # limits of k-hat: a finite variance; an average that can be used at all
MIXED, ENOUGH = 1.01, 100.0  # limits of split R-hat, and of the effective sample size per chain


@dataclass(frozen=True)
class Check:
    """What ``Posterior.check`` found.

    Attributes:
        table: one row for each entry of each site. For an approximation: mean and sd under it, beside those corrected
            by importance weights and the standard error of the corrected mean (NaN where k-hat is above 0.7). For a
            sampler: mean, sd, split R-hat, effective sample size and the Monte Carlo error of the mean.
        advice: what the numbers mean, and what to do.
        khat: the Pareto tail index of the importance weights; None for a sampler.
        ess: effective sample size: of the importance weights, or the smallest of any entry for a sampler.
        draws: how many there were.
        log_evidence: corrected by importance sampling, in nats; None for a sampler. Above k-hat 0.7 it has no error
            and is a lower bound in expectation only.
        rhat: the largest split R-hat of a sampler.
        divergences: divergent transitions of a sampler, where it counts them.
    """

    table: pd.DataFrame = field(repr=False)
    advice: str
    khat: float | None
    ess: float
    draws: int
    log_evidence: Estimate | None = None
    rhat: float | None = None
    divergences: int | None = None

    def __repr__(self) -> str:
        if self.khat is None:
            counted = "" if self.divergences is None else f", {self.divergences} divergences"
            return f"R-hat {self.rhat:.3f}, ESS {self.ess:.0f} of {self.draws}{counted}. {self.advice}"
        evidence = f"log evidence {self.log_evidence!r}"
        return f"k-hat {self.khat:.2f}, ESS {self.ess:.0f} of {self.draws}, {evidence}. {self.advice}"


def importance_check(posterior: Posterior, draws: int, seed: int) -> Check:
    r"""Weigh draws of q by p(x, z)/q(z), smooth the weights, and correct evidence and moments by them."""
    program, q = _summed_out(posterior.require_program("check"), posterior.approximation)
    q.log_prob(q.draws(1, seed))  # raises where there is no density
    values, log_q = q.draws_and_log_prob(draws, seed)
    log_weights = (log_joint_of_draws(program, values) - log_q).double()
    _check_weights(log_weights)
    smoothed, khat = _smoothed(log_weights)
    weights = torch.softmax(smoothed, 0)
    ess = 1 / float((weights**2).sum())
    evidence = _evidence(smoothed, khat, ess)
    return Check(
        _corrected(posterior, values, weights, khat), _advice(khat, ess / draws, posterior), khat, ess, draws, evidence
    )


def _summed_out(program: Program, q: Approximation) -> tuple[Program, Approximation]:
    """Leave discrete sites to be summed out where q factors: an indicator for each row would swamp the weights."""
    marginal = q.without(tuple(program.discrete)) if set(program.discrete) & set(q.latents) else None
    if marginal is None:
        return program, q
    own = Program(program.model, program.args, program.kwargs, dtype=program.dtype, device=program.device)
    try:
        own.sum_out_discrete()
    except ValueError:
        return program, q
    return own, marginal


def _check_weights(log_weights: Tensor) -> None:
    bad = int((torch.isnan(log_weights) | (log_weights == torch.inf)).sum())
    if bad or not bool(torch.isfinite(log_weights).any()):
        where = f"{bad} draws have a log-density that is NaN or infinite" if bad else "no draw has a positive density"
        raise ValueError(
            f"The posterior cannot be checked: under the model, {where}. Use logits= in place of probs= in the model, "
            "or fit with another method."
        )


def _smoothed(log_weights: Tensor) -> tuple[Tensor, float]:
    """Smooth the weights; where they differ by no more than rounding, q is the posterior and has no tail."""
    spread = float(log_weights.max() - log_weights.min())
    if spread <= 1e-9 * max(1.0, float(log_weights.abs().max())):
        return log_weights, -math.inf
    return pareto_smoothed(log_weights)


def _evidence(smoothed: Tensor, khat: float, ess: float) -> Estimate:
    n = len(smoothed)
    value = float(torch.logsumexp(smoothed, 0)) - math.log(n)
    method = "pareto-smoothed importance sampling"
    if not khat < USABLE:
        note = f"k-hat is {khat:.2f}, above {USABLE}: no error can be given, and the value is too low on average"
        return Estimate(value, None, method, target="lower bound", n=n, notes=(note,))
    note = f"k-hat is {khat:.2f}, above {GOOD}: the error is itself uncertain, and rather too small"
    # The relative variance of the mean weight is cv²/n = 1/ESS − 1/n.
    stderr = math.sqrt(max(0.0, 1 / ess - 1 / n))
    return Estimate(value, stderr, method, n=n, notes=() if khat < GOOD else (note,))


def _corrected(posterior: Posterior, values: dict[str, Tensor], weights: Tensor, khat: float) -> pd.DataFrame:
    x = torch.cat([values[k].double().reshape(len(weights), -1) for k in posterior.approximation.tabled], 1)
    w = weights[:, None]
    mean = (w * x).sum(0)
    variance = (w * (x - mean) ** 2).sum(0)
    error = (w**2 * (x - mean) ** 2).sum(0).sqrt()
    columns = {"corrected mean": mean, "corrected sd": variance.sqrt(), "error": error}
    table = posterior.summary()[["mean", "sd"]]
    for label, column in columns.items():
        table[label] = (column if khat < USABLE else torch.full_like(column, math.nan)).cpu().numpy()
    return table


def _advice(khat: float, equal: float, posterior: Posterior) -> str:
    """Say what k-hat means, and what to try; ``equal`` is the effective share of the draws."""
    if khat < GOOD:
        return f"{posterior.method} is close enough to the posterior: importance weights have a finite variance."
    if khat < USABLE:
        return "Usable: prefer the corrected means, sds and evidence to those of the approximation."
    tries = [] if "full" in posterior.method else ["FullRank(), which keeps correlations and fits the scales globally"]
    tries += ["writing hierarchical effects non-centred (raw ~ N(0, 1), effect = mean + sd · raw)", "method='nuts'"]
    says = "misses part of the posterior"
    if equal > 0.9:
        says = "fits the bulk of the posterior, since the weights are nearly equal, but not its far tails"
    return (
        f"The approximation {says} (k-hat above {USABLE}), so corrected moments are withheld. "
        f"Try {', '.join(tries[:-1])}, or {tries[-1]}."
    )


def mixing_check(posterior: Posterior) -> Check:
    """Read split R-hat, effective sample size and divergences of a sampler."""
    columns = posterior.approximation.columns(0)
    names = posterior.approximation.tabled
    errors = [posterior.approximation.errors(name)[0].reshape(-1) for name in names]
    table = posterior.summary()[["mean", "sd", "rhat", "ess"]]
    table["error"] = torch.cat(errors).cpu().numpy()
    rhat = max(float(x.max()) for x in columns["rhat"].values())
    ess = min(float(x.min()) for x in columns["ess"].values())
    chains, length = next(iter(posterior.approximation.chains.values())).shape[:2]
    diverged = int(posterior.history["divergences"].sum()) if "divergences" in posterior.history else None
    advice = _mixing_advice(rhat, ess / max(chains, 1), chains, diverged or 0)
    return Check(table, advice, None, ess, chains * length, None, rhat, diverged)


def _mixing_advice(rhat: float, ess: float, chains: int, diverged: int) -> str:
    said = []
    if not rhat <= MIXED:
        said.append(f"The chains disagree (R-hat above {MIXED}): raise draws and warmup.")
    if not ess >= ENOUGH:
        said.append(f"There are fewer than {ENOUGH:.0f} effective draws for each chain: raise draws.")
    if chains < 2:
        said.append("One chain cannot show that it missed a mode: run 4.")
    if diverged:
        said.append(
            "Divergences mean that the sampler could not enter part of the posterior: write hierarchical effects "
            "non-centred (raw ~ N(0, 1), effect = mean + sd · raw), or give scales tighter priors."
        )
    return " ".join(said) or "The chains agree, and there are enough effective draws."
