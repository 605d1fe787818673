"""What was derived, in a sentence; and what a careful reader should know."""

from __future__ import annotations

from probdl.inference.free_form.ascent import FreeForm
from probdl.inference.free_form.blocks import Block, CategoricalBlock
from probdl.inference.free_form.chain import ChainBlock
from probdl.inference.free_form.gaussian_block import ArrowBlock, GaussianBlock
from probdl.inference.free_form.grid import GridBlock
from probdl.inference.free_form.linear_response import narrowest
from probdl.loops.iterate import Iteration

_NARROW = 1.2  # ratio of the linear-response sd to the sd from which it is said
_FEW = 20  # entries for which linear response is taken without being asked for


def message_of(field: FreeForm, history: Iteration, runs: int) -> tuple[str, tuple[str, ...]]:
    """Return the message of a posterior, and its notes."""
    factors = "; ".join(_described(b) for b in field.blocks)
    of = f", the best of {runs} starts after a few sweeps" if runs > 1 else ""
    ended = f"stood still after {len(history.rows)} sweeps" if history.converged else "has not converged"
    notes = tuple(_notes(field))
    text = f"Coordinate ascent {ended}{of}. Factors: {factors}."
    return " ".join([text, *(f"Note: {note}." for note in notes)]), notes


def _described(block: Block) -> str:
    names = ", ".join(block.names if len(block.names) < 6 else (*block.names[:2], "…", block.names[-1]))
    if isinstance(block, ArrowBlock):
        return f"{names} jointly Gaussian ({block.leaves} units around a core of {block.core})"
    if isinstance(block, GaussianBlock):
        units = "" if block.units == 1 else f"{block.units} units of "
        return f"{names} Gaussian ({units}{block.size} jointly)" if block.size > 1 else f"{names} Normal"
    if isinstance(block, ChainBlock):
        return f"{names} a Markov chain"
    if isinstance(block, GridBlock):
        return f"{names} free-form on a grid"
    return f"{names} {type(block).__name__.removesuffix('Block')}"


def _notes(field: FreeForm) -> list[str]:
    notes = []
    worst = narrowest(field, _FEW)
    if worst is not None and worst[1] > _NARROW:
        notes.append(
            f"mean field is too narrow here: at site {worst[0]!r} the linear-response sd is {worst[1]:.2g} times its "
            "sd; read sd_lr in summary()"
        )
    if field.projected:
        sites = ", ".join(sorted(field.projected))
        notes.append(f"the factor of {sites} is not conjugate and was followed by natural gradients")
    mixtures = [b for b in field.blocks if isinstance(b, (CategoricalBlock, ChainBlock))]
    if mixtures:
        names = ", ".join(n for b in mixtures for n in b.names[:3])
        notes.append(
            f"the labels of {names} may be exchangeable: the posterior then has a copy of this mode for each "
            "permutation, and the bound counts one of them"
        )
    split = field.layout.split
    if split:
        notes.append(f"{', '.join(split)} are connected but too many to be joint, so they are independent factors")
    return notes
