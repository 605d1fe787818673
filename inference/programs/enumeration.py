"""Sum discrete latent sites out of a program's log-density, by Pyro's parallel enumeration and variable elimination."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from pyro import poutine
from pyro.infer import config_enumerate
from pyro.infer.mcmc.util import TraceEinsumEvaluator
from torch import Tensor

from probdl.inference.programs.checks import innermost

if TYPE_CHECKING:
    from probdl.inference.programs.program import Program


class Enumeration:
    """The model with its discrete latent sites run at all their values at once, each along a dimension of its own.

    Args:
        program: a program with discrete latents.

    Raises:
        ValueError: if a site has no finite list of values, or the model does not broadcast over them; it names it.
    """

    def __init__(self, program: Program) -> None:
        self.sites = ", ".join(map(repr, program.discrete))
        _check_listable(program.discrete)
        trace = program._trace(program._value_at(program.start))
        self.nesting = max(
            [-f.dim for s in trace.nodes.values() if s["type"] == "sample" for f in _plates(s)], default=0
        )
        enumerated = config_enumerate(program.model, default="parallel")
        self.model: Callable = poutine.enum(enumerated, first_available_dim=-1 - self.nesting)
        self._check_runs(program, trace)

    def log_prob(self, trace: Any) -> Tensor:
        """Return the log-density of a trace of ``model`` with the discrete sites summed out; a scalar."""
        evaluator = TraceEinsumEvaluator(trace, has_enumerable_sites=True, max_plate_nesting=self.nesting)
        return evaluator.log_prob(trace)

    def _check_runs(self, program: Program, plain: Any) -> None:
        """Run the model once, and compare its log-density where every discrete site has its first value."""
        try:
            trace = program._trace(program._value_at(program.start), self.model)
            self.log_prob(trace)
            first = sum(_at_first_values(s["log_prob"], self.nesting).sum() for s in _samples(trace))
        except (RuntimeError, ValueError, IndexError, NotImplementedError) as error:
            raise ValueError(self._refusal(f"{type(error).__name__}: {error}")) from error
        expected = plain.log_prob_sum()
        if not bool((first - expected).abs() <= 1e-6 * (1 + expected.abs())):
            raise ValueError(self._refusal("its log-density there is not the one at single values"))

    def _refusal(self, why: str) -> str:
        return (
            f"The discrete sites {self.sites} cannot be summed out: the model does not run with all their values at "
            f"once ({why}). Put each in pyro.plate or pyro.markov, and write what reads them so that it broadcasts "
            "over further dimensions on the left, such as mu[k] for a vector mu; or use a MixtureSameFamily."
        )


def _check_listable(discrete: dict[str, Any]) -> None:
    for name, fn in discrete.items():
        if not getattr(fn, "has_enumerate_support", False):
            raise ValueError(
                f"The latent site {name!r} is discrete, and its distribution {type(innermost(fn)).__name__} has no "
                "finite list of values per plate row that could be summed over. Put it in a pyro.plate in place of "
                "to_event, bound it, or integrate it out by hand."
            )


def _plates(site: Any) -> list[Any]:
    return [f for f in site["cond_indep_stack"] if f.vectorized]


def _samples(trace: Any) -> list[Any]:
    return [s for s in trace.nodes.values() if s["type"] == "sample"]


def _at_first_values(log_prob: Tensor, nesting: int) -> Tensor:
    """The entries where every enumerated dimension, left of those of the plates, has index 0."""
    while log_prob.ndim > nesting:
        log_prob = log_prob[0]
    return log_prob


def can_switch_labels(program: Program, z: Tensor) -> bool:
    """Whether exchanging the first two values of a discrete site, in all latents at once, leaves the density at z.

    A latent is taken to run over the values along every axis of their number.
    """
    values = program.constrain(z)
    here = program.log_joint(z) - program._log_jacobian(z)
    for fn in program.discrete.values():
        count = len(fn.enumerate_support(expand=False))
        switched = {k: _switched(x, count) for k, x in values.items()}
        if all(torch.equal(switched[k], x) for k, x in values.items()):
            continue
        moved = program.free(switched)
        there = program.log_joint(moved) - program._log_jacobian(moved)
        if bool((here - there).abs() <= 1e-8 * (1 + here.abs())):
            return True
    return False


def _switched(x: Tensor, count: int) -> Tensor:
    order = torch.tensor([1, 0, *range(2, count)], device=x.device)
    for axis, size in enumerate(x.shape):
        x = x.index_select(axis, order) if size == count > 1 else x
    return x
