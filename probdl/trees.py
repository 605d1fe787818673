"""Nested dicts and lists of tensors and plain values, as tensors by name and JSON: what a file can hold."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor


def flatten(tree: Any, tensors: dict[str, Tensor]) -> Any:
    """Return a tree as JSON can hold it; its tensors go into ``tensors`` under a number.

    Args:
        tree: dicts, lists, tuples, tensors, text, numbers, booleans and None; keys are text or whole numbers.
        tensors: gets the tensors.

    Raises:
        TypeError: for anything else.

    Example:
        >>> import torch
        >>> found = {}
        >>> plain = flatten({"a": [torch.ones(1), (2.0, float("inf"))], 3: None}, found)
        >>> unflatten(plain, found)
        {'a': [tensor([1.]), (2.0, inf)], 3: None}
    """
    if isinstance(tree, Tensor):
        name = str(len(tensors))
        tensors[name] = tree
        return {"tensor": name}
    if isinstance(tree, dict):
        return {"dict": [[_key(key), flatten(value, tensors)] for key, value in tree.items()]}
    if isinstance(tree, (list, tuple)):
        return {type(tree).__name__: [flatten(value, tensors) for value in tree]}
    if isinstance(tree, float) and not math.isfinite(tree):
        return {"float": str(tree)}
    if tree is None or isinstance(tree, (bool, int, float, str)):
        return tree
    raise TypeError(
        f"A file can hold tensors, text, numbers, and dicts and lists of them; not a {type(tree).__name__}."
    )


def unflatten(plain: Any, tensors: dict[str, Tensor]) -> Any:
    """Return the tree that ``flatten`` took apart."""
    if not isinstance(plain, dict):
        return plain
    ((kind, content),) = plain.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "float":
        return float(content)
    if kind == "dict":
        return {key: unflatten(value, tensors) for key, value in content}
    return {"list": list, "tuple": tuple}[kind](unflatten(value, tensors) for value in content)


def _key(key: Any) -> str | int:
    if isinstance(key, (str, int)):
        return key
    raise TypeError(f"The keys of a dict in a file must be text or whole numbers; got a {type(key).__name__}.")
