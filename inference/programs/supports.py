"""The space of a site as data: constraints to JSON and back, so that a saved posterior finds its transforms again."""

from __future__ import annotations

from typing import Any

from pyro.distributions import constraints
from torch import Tensor
from torch.distributions.constraints import Constraint

# Spaces without a parameter, by the name that torch and Pyro give them.
PLAIN: dict[str, Constraint] = {
    name: getattr(constraints, name)
    for name in (
        "real",
        "positive",
        "nonnegative",
        "unit_interval",
        "simplex",
        "lower_cholesky",
        "corr_cholesky",
        "corr_matrix",
        "positive_definite",
        "ordered_vector",
        "positive_ordered_vector",
        "unit_lower_cholesky",
        "softplus_positive",
        "softplus_lower_cholesky",
        "sphere",
        "boolean",
        "nonnegative_integer",
        "positive_integer",
        "one_hot",
    )
}
# Spaces with bounds: their names in torch, and those of the bounds.
BOUNDED = {
    "greater_than": ("lower_bound",),
    "greater_than_eq": ("lower_bound",),
    "less_than": ("upper_bound",),
    "interval": ("lower_bound", "upper_bound"),
    "half_open_interval": ("lower_bound", "upper_bound"),
    "integer_interval": ("lower_bound", "upper_bound"),
    "multinomial": ("upper_bound",),
}


def to_json(support: Any, site: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Describe a support; bounds that are tensors are put into ``tensors``.

    Args:
        support: a constraint of torch or Pyro.
        site: whose it is, for errors and for the names of tensors.
        tensors: where bounds go.

    Raises:
        TypeError: if this kind of support cannot be written down; it names the site.

    Example:
        >>> to_json(constraints.independent(constraints.positive, 1), "s", {})
        {'kind': 'independent', 'base': {'kind': 'positive'}, 'dims': 1}
    """
    if hasattr(support, "base_constraint"):
        base = to_json(support.base_constraint, site, tensors)
        return {"kind": "independent", "base": base, "dims": support.reinterpreted_batch_ndims}
    for kind, constraint in PLAIN.items():
        if type(support) is type(constraint) and _same_bounds(vars(support), vars(constraint)):
            return {"kind": kind}
    for kind, bounds in BOUNDED.items():
        if type(support) is getattr(constraints, kind):
            return {"kind": kind} | {b: _bound(getattr(support, b), f"{site}.{b}", tensors) for b in bounds}
    raise TypeError(
        f"The posterior of site {site!r} cannot be saved: its support {support} is none of "
        f"{', '.join([*PLAIN, *BOUNDED])}, nor independent ones of these. Keep its draws(n) instead."
    )


def _same_bounds(mine: dict[str, Any], others: dict[str, Any]) -> bool:
    return not any(isinstance(x, Tensor) for x in mine.values()) and mine == others


def _bound(value: Any, key: str, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(value, Tensor):
        return value
    tensors[key] = value
    return {"tensor": key}


def from_json(description: dict[str, Any], tensors: dict[str, Tensor]) -> Any:
    """Return the support that ``to_json`` described.

    Raises:
        ValueError: if it described none.
    """
    kind = description.get("kind")
    if kind == "independent":
        return constraints.independent(from_json(description["base"], tensors), int(description["dims"]))
    if kind in PLAIN:
        return PLAIN[kind]
    if kind not in BOUNDED:
        raise ValueError(f"it holds a support of the unknown kind {kind!r}")
    return getattr(constraints, kind)(*(_value(description[b], tensors) for b in BOUNDED[kind]))


def _value(bound: Any, tensors: dict[str, Tensor]) -> Any:
    return tensors[bound["tensor"]] if isinstance(bound, dict) else bound
