"""The families by their names."""

from __future__ import annotations

from typing import Any

from probdl.natural.continuous import CONTINUOUS
from probdl.natural.discrete import DISCRETE
from probdl.natural.exponential import ExponentialFamily
from probdl.natural.normals import NORMALS

FAMILIES: dict[str, ExponentialFamily] = {family.name: family for family in (*NORMALS, *CONTINUOUS, *DISCRETE)}


def family_named(family: Any) -> ExponentialFamily:
    """Return an exponential family by its distribution, or by the name of that in any case.

    Raises:
        ValueError: if it is none of those known.

    Example:
        >>> import torch
        >>> family_named("gamma").name, family_named(torch.distributions.Normal).name
        ('Gamma', 'Normal')
    """
    if isinstance(family, ExponentialFamily):
        return family
    wanted = family if isinstance(family, str) else getattr(family, "__name__", type(family).__name__)
    by_name = {name.lower(): found for name, found in FAMILIES.items()}
    if wanted.lower().replace("_", "") not in by_name:
        raise ValueError(f"family must be one of {', '.join(FAMILIES)}, or its name; got {wanted!r}.")
    return by_name[wanted.lower().replace("_", "")]
