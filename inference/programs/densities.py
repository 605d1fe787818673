"""Log-densities of a program at stacks of draws in the sites' own spaces: many at a time where vmap can."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from pyro.distributions import Unit
from torch import Tensor
from torch.utils._pytree import tree_map

from probdl.inference.programs.program import Program, _log_prob
from probdl.inference.stochastic.minibatches import RowsOfPlates
from probdl.inference.stochastic.row_plates import local_sites

Values = dict[str, Tensor]
_NUMBERS_AT_ONCE = 5_000_000  # of data times draws: 40 MB for each intermediate tensor


def log_joint_of_draws(program: Program, values: Values) -> Tensor:
    r"""Return :math:`\log p(x, z_s)` at draws of the latent sites, in nats, with all constants.

    Discrete sites that ``values`` leaves out are summed out, where the program can. A plate that draws a part of its
    rows at random is passed over as a whole.

    Args:
        program: the model with its data.
        values: by site, (n, *shape) each, in the sites' own spaces.

    Returns:
        Shape (n,). Unlike ``Program.log_joint`` it holds no Jacobian.

    Raises:
        ValueError: if several plates, or one with latents of its rows, draw their rows at random, so that no pass over
            the data gives the density.
    """
    if not has_all_rows(program):
        return _by_passes(program, _free(program, values))
    if set(program.discrete) <= set(values):
        return over_draws(lambda v: _log_joint_at(program, v), values, size_of(program))
    log_joint = program.recorded(program.log_joint)  # Pyro's enumeration itself does not run under vmap
    return over_draws(
        lambda z: log_joint(z["z"]) - program._log_jacobian(z["z"]), {"z": _free(program, values)}, size_of(program)
    )


def comes_in_batches(program: Program) -> bool:
    """Whether stochastic VI read the data from an iterable, so that the program holds the first batch only."""
    return getattr(program, "stream", None) is not None


def has_all_rows(program: Program) -> bool:
    """Whether every evaluation of the program takes all rows of the data."""
    try:
        program.require_all_rows()
    except ValueError:
        return False
    return True


def _by_passes(program: Program, z: Tensor) -> Tensor:
    """The density where one plate draws its rows at random: batch by batch, over all rows."""
    source = RowsOfPlates(program, program.subsampled)
    if comes_in_batches(program) or not source.can_pass or local_sites(program, source.plates):
        _require_all_rows(program)
    total = torch.zeros_like(z[:, 0])
    for i, batch in enumerate(source.whole()):

        def terms_at(v: Values, rows: tuple[Tensor, ...] = batch.inputs) -> Tensor:
            return source.terms(v["z"], rows)

        terms = over_draws(terms_at, {"z": z}, source.batch_size)
        total = total + batch.factor * terms[:, 1] + (terms[:, 0] if i == 0 else 0.0)
    return total - over_draws(lambda v: program._log_jacobian(v["z"]), {"z": z}, program.dim)


def log_likelihood_of_draws(program: Program, values: Values) -> Values:
    """Return the log-density of each observation given each draw: by observed site, (n, *batch), in nats."""
    _require_all_rows(program)

    def at(v: Values) -> Values:
        trace = program._trace(_choose(v, set(program.latents)))
        with program._running():
            return {name: _log_prob(trace.nodes[name], each=True) for name in program.observed}

    return over_draws(at, values, size_of(program))


def observations(program: Program) -> Values:
    """Return the data of the observed sites."""
    return {name: site["value"] for name, site in _observed_sites(program).items()}


def plates_of(program: Program) -> dict[str, list[str | None]]:
    """Return, for each site, the plate that made each dimension of its value, or None."""
    nodes = program._trace(program._value_at(program.start)).nodes
    return {name: _plates(nodes[name]) for name in (*program.latents, *program.discrete, *_observed_sites(program))}


def _observed_sites(program: Program) -> dict[str, Any]:
    """The observed sites of a trace that are random."""
    nodes = program._trace(program._value_at(program.start)).nodes
    return {k: nodes[k] for k in program.observed if is_drawn(nodes[k])}


def is_drawn(site: Any) -> bool:
    """Whether a site is random: neither a pyro.deterministic nor a pyro.factor."""
    return not site["infer"].get("_deterministic") and not isinstance(site["fn"], Unit)


def _plates(site: Any) -> list[str | None]:
    batch = len(site["fn"].batch_shape)
    at = {batch + frame.dim: frame.name for frame in site["cond_indep_stack"] if frame.vectorized}
    return [at.get(i) for i in range(site["value"].ndim)]


def over_draws(f: Callable[[Values], Any], values: Values, size: int, randomness: str = "error") -> Any:
    """Apply ``f`` to every draw in a stack: by vmap where it gives what a single call gives, else one by one.

    Args:
        f: from one draw, by site, to a tensor or a dict of tensors.
        values: by site, (n, *shape).
        size: numbers that one call handles, to bound the memory.
        randomness: of vmap; with "different", ``f`` may draw random numbers, and its values are not compared.

    Returns:
        The results of ``f``, stacked, (n, ...).
    """
    n = len(next(iter(values.values())))
    chunk = max(1, min(n, _NUMBERS_AT_ONCE // max(size, 1)))
    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "There is a performance drop|An output with one or more elements was resized")
        try:
            stacked = torch.vmap(f, randomness=randomness, chunk_size=chunk)(values)
        except (RuntimeError, ValueError, TypeError, IndexError, NotImplementedError):
            return _one_by_one(f, values, n)
        if randomness == "error" and not _same_at(f, values, stacked, {0, n - 1}):
            return _one_by_one(f, values, n)
    return stacked


def _one_by_one(f: Callable[[Values], Any], values: Values, n: int) -> Any:
    results = [f(_row(values, i)) for i in range(n)]
    if isinstance(results[0], Tensor):
        return torch.stack(results)
    return {name: torch.stack([r[name] for r in results]) for name in results[0]}


def _row(values: Any, i: int) -> Any:
    return tree_map(lambda x: x[i], values)


def _same_at(f: Callable[[Values], Any], values: Values, stacked: Any, rows: set[int]) -> bool:
    """Whether single calls agree; a program that indexes or reshapes from the left is wrong under vmap's batch."""
    pairs = [(f(_row(values, i)), _row(stacked, i)) for i in rows]
    flat = [(a, b) for x, y in pairs for a, b in ([(x, y)] if isinstance(x, Tensor) else [(x[k], y[k]) for k in x])]
    return all(a.shape == b.shape and _close(a, b) for a, b in flat)


def _close(a: Tensor, b: Tensor) -> bool:
    tolerance = torch.finfo(a.dtype).eps ** 0.5
    return torch.allclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True)


def size_of(program: Program) -> int:
    """Return how many numbers one evaluation of the program handles, at least."""
    tensors = [x for x in (*program.args, *program.kwargs.values()) if isinstance(x, Tensor)]
    return program.dim + sum(x.numel() for x in tensors)


def _log_joint_at(program: Program, values: Values) -> Tensor:
    trace = program._trace(_choose(values, set(program.latents) | set(program.discrete)))
    with program._running():
        terms = [_log_prob(site).sum() for site in trace.nodes.values() if site["type"] == "sample"]
    return torch.stack(terms).sum()


def _choose(values: Values, known: set[str]) -> Callable[[dict], Tensor]:
    def choose(msg: dict) -> Tensor:
        if msg["name"] not in values:
            why = "is missing from the values" if msg["name"] in known else "appears only at some values of the latents"
            raise ValueError(f"Site {msg['name']!r} {why}.")
        return values[msg["name"]]

    return choose


def _free(program: Program, values: Values) -> Tensor:
    """The draws as vectors on unconstrained space, (n, dim)."""
    return torch.cat(
        [latent.transform.inv(values[k]).reshape(len(values[k]), -1) for k, latent in program.latents.items()], 1
    )


def _require_all_rows(program: Program) -> None:
    try:
        program.require_all_rows()
    except ValueError as error:
        raise ValueError(
            f"{error} A saved posterior can be loaded with a model whose plates hold all rows, and then be checked."
        ) from error
