"""The one technique: rewrite derivatives at the ReLUs of the autograd graph, and not at modules.

Between a score and its input the graph has a node for each ReLU that was applied, however it was written: as a module,
a function, a method, in place, or by one module several times. A hook on the node decides what goes down. No model is
changed, and the hooks die with the graph.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from probdl.viz.seeing.unchanged import as_input, check_open, unchanged

Rule = Callable[[Tensor, Tensor], Tensor]
Score = Callable[[nn.Module, Tensor], Tensor]

RELU = "ReluBackward"
# Nodes that hide what is in them, and what to do about it. CopySlices is a write into a view.
OPAQUE = {
    "CompiledFunctionBackward": "a compiled function: pass the model before torch.compile",
    "CheckpointFunctionBackward": "a reentrant checkpoint: use torch.utils.checkpoint with use_reentrant=False",
    "DifferentiableGraphBackward": "a scripted function: pass the eager model",
    "CopySlices": "a write into a view: write torch.relu(x), and torch.stack or torch.cat, not in place",
}
# Activations that look like a ReLU and keep their own derivative; ReLU6 is a Hardtanh.
LIKE_RELU = {"Gelu", "Silu", "LeakyRelu", "Prelu", "PreluKernel", "Elu", "Celu", "RreluWithNoise", "Mish", "Hardswish"}
LIKE_RELU |= {"Hardtanh", "Softplus", "Threshold", "Maximum", "Fmax"}
# Nodes that a ReLU of one's own leaves, and where they keep its mask: torch.where(x > 0, x, 0), x * (x > 0),
# x.masked_fill(x < 0, 0) and x[x < 0] = 0.
MASKS = {
    "WhereBackward": ("_saved_condition",),
    "MulBackward": ("_saved_self", "_saved_other"),
    "MaskedFillBackward": ("_saved_mask",),
    "IndexPutBackward": ("_saved_indices",),
}


def guided(gradient: Tensor, above: Tensor) -> Tensor:
    """Return ReLU(g) 1[x > 0]: what autograd would send down, g 1[x > 0], without its negative part."""
    return gradient.clamp(min=0)


def deconvolved(gradient: Tensor, above: Tensor) -> Tensor:
    """Return ReLU(g), whatever the sign of the input was."""
    return above.clamp(min=0)


def derivative(model: nn.Module, x: Any, score: Score, rule: Rule | None = None) -> Tensor:
    """Return the derivative of the sum of scores with respect to x, rewritten by a rule at each ReLU.

    Args:
        model: any torch module.
        x: inputs of shape (n, ...).
        score: what is differentiated, from the model in eval mode and its input; one number for each row.
        rule: from autograd's derivative below a ReLU and the one above it to what goes down; None: autograd's.

    Returns:
        Tensor of the shape of ``x``.
    """
    with unchanged(model) as seen:
        if rule is not None:
            check_open(seen)
        return value_and_derivative(seen, as_input(seen, x), score, rule)[1]


def value_and_derivative(seen: nn.Module, x: Tensor, score: Score, rule: Rule | None = None) -> tuple[Tensor, Tensor]:
    """Return the scores, (n,), and the derivative of their sum; within ``unchanged``, for an input in its dtype."""
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        entry = leaf.clone()  # a ReLU in place on its input is allowed, and writes on neither x nor the leaf
        start = entry.grad_fn
        values = score(seen, entry)
        total = values.sum()
        nodes = between(total, start)
        _check_differentiable(nodes)
        if rule is not None:
            _rewrite(nodes, rule)
        return values, torch.autograd.grad(total, leaf)[0]


def between(score: Tensor, start: Any) -> list[Any]:
    """Return the nodes of the graph on some way from a score down to the node of the input, the latter excluded.

    Raises:
        ValueError: if there is no way.
    """
    users: dict[Any, list[Any]] = {}
    stack = [] if score.grad_fn is None else [score.grad_fn]
    while stack:
        node = stack.pop()
        for below, _ in node.next_functions:
            if below is not None and below not in users:
                stack.append(below)
            if below is not None:
                users.setdefault(below, []).append(node)
    if start not in users:
        raise ValueError(
            "the score must depend on x through differentiable operations; it does not: look for detach, argmax, "
            "torch.no_grad or a reentrant checkpoint in the model."
        )
    return _above(start, users)


def _above(start: Any, users: dict[Any, list[Any]]) -> list[Any]:
    found: dict[Any, None] = {}
    stack = [start]
    while stack:
        for node in users.get(stack.pop(), []):
            if node not in found:
                found[node] = None
                stack.append(node)
    return list(found)


def _check_differentiable(nodes: list[Any]) -> None:
    """Raise on reentrant checkpoints, which ``torch.autograd.grad`` can not pass."""
    if any("CheckpointFunctionBackward" in node.name() for node in nodes):
        raise ValueError(f"model must be differentiable, but holds {OPAQUE['CheckpointFunctionBackward']}.")


def _rewrite(nodes: list[Any], rule: Rule) -> None:
    """Hook the rule to each ReLU; raise where one could hide or none is seen, warn of what resembles one."""
    for node in nodes:
        _check_seen_through(node)
    relus = [node for node in nodes if node.name().startswith(RELU)]
    if not relus:
        raise ValueError(
            "model must have a ReLU between x and the score, at which the derivative is rewritten; found none. "
            "Use saliency for the plain gradient."
        )
    for warning in _doubts(nodes):
        warnings.warn(warning, UserWarning, 5)
    for node in relus:
        node.register_hook(lambda below, above: (rule(below[0], above[0]),))


def _doubts(nodes: list[Any]) -> list[str]:
    """Return what to warn of: activations that resemble a ReLU, and masks, of which one can not know."""
    kinds = [sorted({node.name().rstrip("0123456789") for node in nodes if test(node)}) for test in DOUBTFUL]
    alike, masks = (", ".join(name.removesuffix("Backward") for name in kind) for kind in kinds)
    doubts = [f"{alike} keep their own derivative: the rule is applied to ReLUs only."] if alike else []
    if masks:
        doubts.append(
            f"{masks} with a mask of 0 and 1 for each element keep their own derivative: if that is a ReLU, as "
            "torch.where(x > 0, x, 0) or x * (x > 0), write torch.relu(x); if it hides a part of x, all is well."
        )
    return doubts


def _check_seen_through(node: Any) -> None:
    """Raise on a node in which a ReLU could hide, or which is one by another name."""
    what = next((advice for name, advice in OPAQUE.items() if name in node.name()), None)
    if what is None and _is_a_custom_function(node):
        what = f"the custom function {node.name().removesuffix('Backward')}: write it with torch's operations"
    if what is None and _is_clamped_at_zero(node) and getattr(node, "_saved_max", None) is None:
        what = "clamp(min=0): write torch.relu(x)"
    if what is not None:
        raise ValueError(f"model must show its ReLUs, but it holds {what}.")


def _is_a_custom_function(node: Any) -> bool:
    """Say whether it is an autograd.Function; torch's own, which carries a user's backward hooks, is the identity."""
    custom = isinstance(node, torch.autograd.function.BackwardCFunction)
    return custom and node.name() != "BackwardHookFunctionBackward"


def _is_clamped_at_zero(node: Any) -> bool:
    low = getattr(node, "_saved_min", None) if node.name().startswith("Clamp") else None
    return low is not None and not bool(torch.as_tensor(low).any())


def _is_like_a_relu(node: Any) -> bool:
    return node.name().rstrip("0123456789").removesuffix("Backward") in LIKE_RELU or _is_clamped_at_zero(node)


def _is_masked(node: Any) -> bool:
    """Say whether a node multiplies or selects by a mask with a value for each element; one that is broadcast is none.

    Masks of attention are the same for all heads or rows, and broadcast; that of a ReLU never is.
    """
    names = next((names for kind, names in MASKS.items() if node.name().startswith(kind)), ())
    saved = [getattr(node, name, None) for name in names]
    tensors = [t for each in saved for t in (each if isinstance(each, (tuple, list)) else [each])]
    return any(isinstance(t, Tensor) and _is_a_mask(t, _shape(node)) for t in tensors)


def _is_a_mask(value: Tensor, shape: Any) -> bool:
    if tuple(value.shape) != shape:
        return False
    return value.dtype == torch.bool or bool(((value == 0) | (value == 1)).all() and value.any() and not value.all())


def _shape(node: Any) -> Any:
    """Return the size of what a node put out."""
    return tuple(node._input_metadata[0].shape)


DOUBTFUL = (_is_like_a_relu, _is_masked)
