"""What stands in the layers of a network: their names and sizes, their activations, and their filters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Size, Tensor, nn

from probdl.viz.seeing.unchanged import as_input, check_open, unchanged

OUTPUT = "output"  # the name of the model as a whole


def layers(model: nn.Module, x: Any) -> dict[str, Size]:
    """Return the layers that an input runs through, in the order in which they finish, with their sizes.

    Args:
        model: any torch module.
        x: inputs of shape (n, ...). Floating inputs are converted to the dtype of the model.

    Returns:
        The size of each module's output, batch first. The name is that in ``model.named_modules()``; a module that is
        called again gets "#1", "#2", ... after it, as in "relu#1"; the whole model is "output", or
        "output#1" if a module of it has that name. Of a module that returns several tensors, in a tuple as ``nn.LSTM``,
        a list or a dict, the first counts. Functions, as ``F.relu``, are no modules and have no name.

    Raises:
        TypeError: if ``model`` is no module, or ``x`` does not hold numbers.
        ValueError: if ``x`` is empty or not finite, or if the model is compiled or scripted.

    Example:
        >>> import torch
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU())
        >>> layers(model, torch.zeros(5, 2))
        {'0': torch.Size([5, 3]), '1': torch.Size([5, 3]), 'output': torch.Size([5, 3])}
    """
    sizes: dict[str, Size] = {}
    with unchanged(model) as seen, torch.no_grad(), hooked(seen, lambda name, y: sizes.update({name: y.shape})):
        seen(_as_any_input(seen, x))
    return sizes


def activations(model: nn.Module, x: Any, layers: str | Iterable[str], batch_size: int = 256) -> dict[str, Tensor]:
    """Return what layers hold for inputs; a later operation in place does not change it.

    Args:
        model: any torch module.
        x: inputs of shape (n, ...). Floating inputs are converted to the dtype of the model.
        layers: one name or several, as :func:`layers` gives them.
        batch_size: the number of rows in a forward pass.

    Returns:
        For each name a tensor of shape (n, ...), whose first dimension must be that of the rows: of recurrent layers
        ask with ``batch_first=True``. ``show(held["conv1"][0][:, None])`` draws all maps of a layer for the
        first input.

    Raises:
        TypeError: if ``model`` is no module, or ``x`` does not hold numbers.
        ValueError: for a name that no layer has, a layer whose output does not have n rows, a ``batch_size`` that is
            no positive integer, empty or infinite ``x``, or a compiled or scripted model.

    Example:
        >>> import torch
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU())
        >>> hidden = activations(model, torch.ones(5, 2), "1")["1"]
        >>> hidden.shape, bool((hidden >= 0).all())
        (torch.Size([5, 3]), True)
    """
    names = [layers] if isinstance(layers, str) else list(layers)
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size must be a positive integer; got {batch_size!r}.")
    with unchanged(model) as seen, torch.no_grad():
        batches = [held(seen, batch, names) for batch in _as_any_input(seen, x).split(batch_size)]
    return {name: torch.cat([batch[name] for batch in batches]) for name in names}


def filters(model: nn.Module, layer: str) -> Tensor:
    """Return the weights of a layer, one filter in each row.

    Args:
        model: any torch module.
        layer: the name of a module in ``model.named_modules()``.

    Returns:
        A copy of the weights: (out, in / groups, height, width) of a convolution, which ``filter_grid`` draws, and
        ``show`` too if there are one or three channels in; (out, in) of a linear layer. A transposed convolution has
        its inputs first: row i is what input channel i writes.

    Raises:
        TypeError: if ``model`` is no module.
        ValueError: for a name that no layer with filters has.

    Example:
        >>> import torch
        >>> filters(torch.nn.Sequential(torch.nn.Conv2d(1, 8, 5)), "0").shape
        torch.Size([8, 1, 5, 5])
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module; got {type(model).__name__}.")
    known = {name: module for name, module in model.named_modules() if _has_filters(module)}
    if layer not in known:
        raise ValueError(f"layer must name a layer with filters: {_listed(known)}; got {layer!r}.")
    return known[layer].weight.detach().clone()


@contextmanager
def hooked(model: nn.Module, look: Callable[[str, Tensor], Any]) -> Iterator[None]:
    """Call ``look(name, output)`` when a layer has finished; the hooks are gone afterwards."""
    check_open(model)
    calls: Counter[str] = Counter()

    def of(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            value = _first_tensor(output)
            if value is not None:
                look(name if calls[name] == 0 else f"{name}#{calls[name]}", value)
            calls[name] += 1

        return hook

    handles = [module.register_forward_hook(of(name or OUTPUT)) for name, module in model.named_modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def held(model: nn.Module, x: Tensor, names: Iterable[str]) -> dict[str, Tensor]:
    """Return what layers hold in one forward pass, with its graph where gradients are on.

    Raises:
        ValueError: for unknown names, or layers whose output does not have a row for each input.
    """
    found: dict[str, Tensor] = {}
    wanted, seen = set(names), []

    def look(name: str, output: Tensor) -> None:
        seen.append(name)
        if name in wanted:
            found[name] = output.clone()  # a later operation in place would change it, and its place in the graph

    with hooked(model, look):
        model(x)
    for name in wanted:
        if name not in found:
            raise ValueError(f"layer must be one of {_listed(seen)}; got {name!r}.")
        if found[name].ndim < 1 or len(found[name]) != len(x):
            shape = tuple(found[name].shape)
            raise ValueError(f"layer must hold a row for each of the {len(x)} inputs; {name!r} has shape {shape}.")
    return found


def as_tokens(model: nn.Module, x: Any) -> Tensor | None:
    """Return x as a tensor if it holds integers and the model has an embedding that takes them, else None."""
    if not any(isinstance(module, (nn.Embedding, nn.EmbeddingBag)) for module in model.modules()):
        return None
    try:
        value = torch.as_tensor(x)
    except (RuntimeError, TypeError, ValueError):  # torch's for what holds no numbers; as_input says so in words
        return None
    return value if value.dtype in (torch.int32, torch.int64) and value.numel() else None


def _as_any_input(model: nn.Module, x: Any) -> Tensor:
    """Return the input of a forward pass; the integers that an embedding takes stay integers."""
    tokens = as_tokens(model, x)
    return as_input(model, x) if tokens is None else tokens.to(next(model.parameters()).device, copy=True)


def _first_tensor(output: Any) -> Tensor | None:
    several = output.values() if isinstance(output, Mapping) else output
    if isinstance(several, Tensor) or not isinstance(output, (tuple, list, Mapping)):
        several = [several]
    return next((value for value in several if isinstance(value, Tensor)), None)


def _has_filters(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return isinstance(weight, Tensor) and weight.ndim >= 2


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names) or "none (the model has none)"
