"""t-SNE of each layer of a network: where along the way the classes come apart."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from probdl.viz.embeddings.tsne import TSNE, check_arguments, tsne
from probdl.viz.seeing import layers as of_layers
from probdl.viz.seeing.unchanged import as_input

INPUT = "input"  # the name of what goes in


def tsne_layers(
    model: nn.Module,
    x: Any,
    layers: str | Iterable[str] | None = None,
    dim: int = 2,
    perplexity: float = 30,
    n_iter: int = 1000,
    seed: int = 0,
    init: str = "pca",
    device: str | torch.device = "auto",
    batch_size: int = 256,
) -> dict[str, TSNE]:
    """Place inputs in a plane or in space by :func:`tsne`, once for each layer, by what the layer holds for them.

    Inputs that a layer does not tell apart, as where ReLUs are dead, are one row of its table and share a point; the
    result's ``notes`` say how many. Its ``kl`` is that of the distinct rows.

    Args:
        model: any torch module; it runs in eval mode and is left as it was.
        x: n inputs of shape (n, ...), with n > 3 · perplexity.
        layers: names, as :func:`layers` gives them, and "input" for the inputs themselves. None: the input, unless it
            holds tokens, and all layers; of those with the same numbers the first, and none that t-SNE has no picture
            for, as with fewer than 3 · perplexity distinct rows, of which a warning tells.
        dim, perplexity, n_iter, seed, device: as of :func:`tsne`.
        init: "pca" or "random".
        batch_size: the number of inputs in a forward pass.

    Returns:
        By layer, in the order of the forward pass or of ``layers``, what :func:`tsne` returns. Draw it by
        :func:`layer_panel`.

    Raises:
        TypeError: if ``model`` is no module, or ``x`` does not hold numbers.
        ValueError: for an unknown layer, arguments that ``tsne`` does not take, a layer that was asked for and that
            t-SNE has no picture for, or if there is no layer left.
        ImportError: for more than 10,000 inputs without openTSNE.

    Example:
        >>> from probdl import data
        >>> x = data.digits().images[:100]
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 16), torch.nn.ReLU())
        >>> list(tsne_layers(model, x, perplexity=10, n_iter=50))  # what Flatten and the output hold is there already
        ['input', '1', '2']
    """
    if init not in ("pca", "random"):
        raise ValueError(f"init must be 'pca' or 'random'; got {init!r}.")
    how = {"perplexity": perplexity, "n_iter": n_iter, "seed": seed, "init": init, "device": device}
    found: dict[str, TSNE] = {}
    for name, rows in _held(model, x, layers, batch_size).items():
        check_arguments(len(rows), dim, perplexity, n_iter)
        try:
            found[name] = merged(rows.flatten(1).double(), dim, how)
        except ValueError as error:
            if layers is not None:
                raise ValueError(f"layer {name!r} has no picture: {error}") from error
            warnings.warn(f"Layer {name!r} is left out: {error}", UserWarning, 2)
    if not found:
        raise ValueError("layers must hold one that t-SNE has a picture for; the warnings say why none has.")
    return found


def _held(model: nn.Module, x: Any, names: str | Iterable[str] | None, batch_size: int) -> dict[str, Tensor]:
    """Return what layers hold, by name; for None what is not the same as in an earlier one."""
    wanted = [names] if isinstance(names, str) else _all(model, x) if names is None else list(names)
    if not wanted:
        raise ValueError("layers must hold a name; got none. Pass None for all.")
    inner = [name for name in wanted if name != INPUT]
    held = of_layers.activations(model, x, inner, batch_size) if inner else {}
    if INPUT in wanted:
        held[INPUT] = as_input(model, x)
    held = {name: held[name] for name in wanted}
    return held if names is not None else _different(held)


def _all(model: nn.Module, x: Any) -> list[str]:
    sizes = of_layers.layers(model, x)
    inner = [name for name, size in sizes.items() if len(size) > 1 and size[0] == len(x)]
    return [INPUT, *inner] if of_layers.as_tokens(model, x) is None else inner


def _different(held: dict[str, Tensor]) -> dict[str, Tensor]:
    kept: dict[str, Tensor] = {}
    for name, value in held.items():
        flat = value.flatten(1)
        if not any(flat.shape == other.shape and torch.equal(flat, other) for other in kept.values()):
            kept[name] = flat
    return kept


def merged(X: Tensor, dim: int, how: dict[str, Any]) -> TSNE:
    """Return the picture of the distinct rows, with copies on the point of the first of them."""
    distinct, which = X.unique(dim=0, return_inverse=True)
    n, m = len(X), len(distinct)
    if m == n:
        return tsne(X, dim, **how)
    first = torch.full_like(which[:m], n).scatter_reduce(0, which, torch.arange(n, device=X.device), "amin")
    rows, order = first.sort()  # the order in which they came
    try:
        found = tsne(X[rows], dim, **how)
    except ValueError as error:
        raise ValueError(f"{m} of {n} rows are distinct. {error}") from error
    place = order.argsort()[which].to(found.Y.device)
    note = f"{n - m} of {n} rows repeat an earlier one and share its point"
    return replace(found, Y=found.Y[place], sigma=found.sigma[place], notes=(note,))
