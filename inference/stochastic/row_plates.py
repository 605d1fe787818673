"""Which plate holds the rows of the data, and whether the program may be run on a part of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from probdl.inference.programs.derivatives import at_least
from probdl.inference.programs.program import Program
from probdl.inference.stochastic.minibatches import (
    AllRows,
    RowsOfArguments,
    RowsOfPlates,
    RowSource,
    row_arguments,
    site_sums,
)

ENOUGH = 5000  # rows from which batches are the default
DEFAULT = 512


def source_of(
    program: Program, batch_size: int | None, plate: str | None, default: int | None = None
) -> tuple[RowSource, tuple[str, ...]]:
    """Return where the batches of a program come from, and notes.

    Args:
        program: the model with all its data.
        batch_size: rows in a batch; None takes those of the user's own subsampling plates, or 512 or more where there
            are many rows and it is safe, or else all rows.
        plate: the plate whose rows are drawn, where several might be meant.
        default: rows in a batch, however few rows there are, where batch_size is None.

    Raises:
        ValueError: if the program cannot be run on batches of that size, with what to do.
    """
    if program.subsampled:
        return _of_user(program, batch_size), ()
    if batch_size is None:
        return _by_default(program, plate, default)
    name, n = _row_plate(program, plate)
    if not 1 <= batch_size <= n:
        raise ValueError(f"batch_size must be between 1 and the {n} rows of plate {name!r}; got {batch_size}.")
    source = RowsOfArguments(program, name, n, batch_size)
    check_parts(source)
    return source, ()


def _of_user(program: Program, batch_size: int | None) -> RowSource:
    source = RowsOfPlates(program, program.subsampled)
    if batch_size not in (None, source.batch_size):
        raise ValueError(
            f"batch_size={batch_size}, but plate {source.plates[0]!r} draws {source.batch_size} of {source.n} rows. "
            "Leave batch_size out, or subsample_size in the plate."
        )
    if source.can_pass:
        check_mixing(source)
    return source


def _by_default(program: Program, plate: str | None, size: int | None) -> tuple[RowSource, tuple[str, ...]]:
    try:
        name, n = _row_plate(program, plate)
        if n < ENOUGH and size is None:
            return AllRows(program), ()
        return source_of(program, min(n, size or max(DEFAULT, 2 * program.dim)), plate)
    except ValueError as reason:
        return AllRows(program), (f"all rows are used in each step, since: {reason}",)


def _row_plate(program: Program, plate: str | None) -> tuple[str, int]:
    """Return name and size of the plate whose size is the first dimension of data arguments."""
    found = {k: n for k, n in plates_of_observations(program).items() if row_arguments(program, n)}
    if plate is not None and plate not in found:
        raise ValueError(f"plate must be one over rows of data arguments; {plate!r} is not among {sorted(found)}.")
    if plate is None and len(found) != 1:
        raise ValueError(
            f"Expected one plate over rows of the data arguments, such as pyro.plate('rows', len(X)); found "
            f"{sorted(found) or 'none'}. Pass plate=, give the data to fit as arguments, or write subsample_size= into "
            "the plate and index the data with it."
        )
    name = plate or next(iter(found))
    return name, found[name]


def plates_of_observations(program: Program) -> dict[str, int]:
    """Return the plates around observed sites, with the sizes that they have."""
    trace = program._trace(program._value_at(program.start))
    frames = [f for name in program.observed for f in trace.nodes[name]["cond_indep_stack"]]
    return {frame.name: frame.size for frame in frames if frame.vectorized}


def local_sites(program: Program, plates: tuple[str, ...]) -> tuple[str, ...]:
    """Return the latent sites that have a value for each row of the plates."""
    trace = program._trace(program._value_at(program.start))
    return tuple(k for k in program.latents if any(f.name in plates for f in trace.nodes[k]["cond_indep_stack"]))


def check_parts(source: RowsOfArguments) -> None:
    """Raise a ValueError unless the parts of a partition of the rows add up to the whole log-density.

    Two batches of the size in question and the rest in three pieces are compared with a run on all rows, at a random z.
    """
    size, n = source.batch_size, len(source._data()[0])
    order = torch.randperm(n, generator=torch.Generator().manual_seed(20))
    if size == n:  # all rows, or those of the first batch of an iterable: halves
        size = max(1, n // 2)
    parts = [p for p in (order[:size], order[size : 2 * size], *order[2 * size :].chunk(3)) if len(p)]
    local = local_sites(source.program, source.plates)
    with torch.no_grad():
        whole = source.terms(_somewhere(source), tuple(source._data()))
    _compare(source, lambda rows: _terms_of_rows(source, rows, local), whole, parts)


def _terms_of_rows(source: RowsOfArguments, rows: Tensor, local: tuple[str, ...]) -> Tensor:
    """The terms of some rows, where latents with a value for each row take those of these rows."""
    if not local:
        return source.terms(_somewhere(source), source.at(rows).inputs)
    values = source.program.constrain(_somewhere(source))
    chosen = {k: x[rows] if k in local else x for k, x in values.items()}
    program = source.on(source.at(rows).inputs)
    trace = program._trace(lambda msg: chosen[msg["name"]])
    with program._running():
        outside, inside = site_sums(trace, source.plates)
        return torch.stack([outside + program._log_jacobian(_somewhere(source)), inside])


def check_mixing(source: RowsOfPlates) -> None:
    """Raise a ValueError unless two batches that exchange halves have the same sum of log-densities."""
    batches = source.batches(torch.Generator().manual_seed(20))
    (a,), (b,) = next(batches).inputs, next(batches).inputs
    half = len(a) // 2
    mixed = [torch.cat([a[:half], b[half:]]), torch.cat([b[:half], a[half:]])]
    apart = torch.stack([source.terms(_somewhere(source), (rows,)) for rows in (a, b)])
    whole = torch.stack([apart[0, 0], apart[:, 1].sum()])
    _compare(source, lambda rows: source.terms(_somewhere(source), (rows,)), whole, mixed)


def _somewhere(source: RowSource) -> Tensor:
    start = source.program.start
    return start + 0.05 * torch.randn(start.shape, generator=torch.Generator().manual_seed(20), dtype=start.dtype).to(
        start
    )


def _compare(source: RowSource, terms_of: Callable[[Any], Tensor], whole: Tensor, parts: list) -> None:
    """Raise unless each part has the first of the whole's terms, and their second ones add up to the whole's."""
    name, close = source.plates[0], at_least(1e-9, whole.dtype, 1e4)
    try:
        with torch.no_grad():
            terms = torch.stack([terms_of(part) for part in parts])
    except (RuntimeError, ValueError, IndexError) as error:
        raise ValueError(f"The model fails on a part of the rows of plate {name!r}: {error}. {_ADVICE}") from error
    if not torch.allclose(terms[:, 0], whole[0].expand(len(parts)), close, close):
        raise ValueError(f"Factors outside plate {name!r} change with the rows of a batch. {_ADVICE}")
    if not torch.allclose(terms[:, 1].sum(), whole[1], close, close):
        raise ValueError(
            f"The log-densities of parts of the rows of plate {name!r} add up to {float(terms[:, 1].sum()):.6g}, but "
            f"that of all rows is {float(whole[1]):.6g}. {_ADVICE}"
        )


_ADVICE = (
    "Every row's factor must depend on its own row and the latents only: compute what needs all rows before fit, or "
    "write pyro.plate(name, n, subsample_size=m) and index the data with it."
)


def sample_sites(trace: Any) -> dict[str, Any]:
    """Return the sample sites of a trace that are not draws of rows."""
    return {k: s for k, s in trace.nodes.items() if s["type"] == "sample" and not site_is_subsample(s)}
