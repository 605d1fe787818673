"""Derivatives with respect to tokens: integers have none, so that those of their embedded vectors are taken."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from probdl.viz.seeing.graph import Score, between
from probdl.viz.seeing.unchanged import check_open, unchanged


def token_derivative(model: nn.Module, tokens: Tensor, score: Score) -> Tensor:
    """Return dS/de_t, the derivative of the sum of scores with respect to the vector that stands for each token.

    Args:
        model: a torch module that passes the tokens to an ``nn.Embedding``.
        tokens: integers of shape (n, time).
        score: what is differentiated, from the model in eval mode and the tokens; one number for each row.

    Returns:
        Tensor (n, time, size); the vectors stand behind one another where several embeddings read the tokens.

    Raises:
        ValueError: if no embedding reads the tokens as they are, or the score does not depend on their vectors.
    """
    if tokens.ndim < 2:
        raise ValueError(f"x must have shape (n, time), a row of tokens for each input; got {tuple(tokens.shape)}.")
    with unchanged(model) as seen, torch.enable_grad():
        tokens = tokens.to(next(seen.parameters()).device, copy=True)
        with _embedded(seen, tokens.clone()) as (leaves, entries):
            total = score(seen, tokens).sum()
        if not leaves:
            raise ValueError(
                f"x must reach an nn.Embedding of the model as one table {tuple(tokens.shape)}; none read it so. Embed "
                "the tokens yourself, and pass a module that takes their vectors."
            )
        for entry in entries:
            between(total, entry.grad_fn)
        return torch.cat(torch.autograd.grad(total, leaves), -1)


@contextmanager
def _embedded(model: nn.Module, tokens: Tensor) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
    """Make the vectors of tokens leaves of the graph; the hooks are gone afterwards."""
    check_open(model)
    leaves: list[Tensor] = []
    entries: list[Tensor] = []

    def hook(module: nn.Module, inputs: Any, output: Tensor) -> Tensor | None:
        read = inputs[0] if inputs else tokens[:0]
        if read.shape != tokens.shape or not bool((read == tokens).all()):  # positions, or a part of the tokens
            return None
        leaves.append(output.detach().requires_grad_())
        entries.append(leaves[-1].clone())  # what comes next may write on it
        return entries[-1]

    handles = [m.register_forward_hook(hook) for m in model.modules() if isinstance(m, nn.Embedding)]
    try:
        yield leaves, entries
    finally:
        for handle in handles:
            handle.remove()
