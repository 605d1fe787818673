"""A cascade: the layers of a copy are drawn anew from the top down, and maps are ranked before and after."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from probdl.access import tensor
from probdl.nn.seeding import seeded
from probdl.viz.seeing.layers import OUTPUT, hooked

Method = Callable[[nn.Module, Tensor], Any]


def cascade(model: nn.Module, x: Tensor) -> list[str]:
    """Return the layers with parameters of their own, the last to finish first; "output" is the model itself.

    Raises:
        ValueError: if there is none.
    """
    finished: list[str] = []
    with torch.no_grad(), hooked(model, lambda name, y: finished.append(name.split("#")[0])):
        model(x.clone())
    last = {name: i for i, name in enumerate(finished)} | {OUTPUT: len(finished)}
    own = [name for name, module in model.named_modules() if any(True for _ in module.parameters(recurse=False))]
    if not own:
        raise ValueError("model must have layers with parameters, or there is nothing to randomise; it has none.")
    return sorted((name or OUTPUT for name in reversed(own)), key=lambda name: -last[_that_ran(name, last)])


def _that_ran(name: str, ran: dict[str, int]) -> str:
    """Return the module itself, or the nearest above it that was called."""
    while name not in ran:
        name = name.rpartition(".")[0] or OUTPUT
    return name


def correlations(
    wanted: Tensor, method: Method, model: nn.Module, x: Tensor, seeds: dict[str, int]
) -> dict[str, Tensor]:
    """Return each row's correlation for each layer of one cascade; 0 where a map is constant, and orders nothing."""
    random, found = copy.deepcopy(model), {}
    for name, seed in seeds.items():
        with seeded(seed, x.device):
            _randomise(layer_of(random, name))
        found[name] = _pearson(wanted, ranks(method(copy.deepcopy(random), x.clone()), len(x)))
    return found


def layer_of(model: nn.Module, name: str) -> nn.Module:
    """Return the module of a name in a cascade."""
    return model if name == OUTPUT else model.get_submodule(name)


def _randomise(layer: nn.Module) -> None:
    """Draw a layer's parameters anew by its own initialisation; else permute their entries."""
    if initialises(layer):
        reset: Any = layer.reset_parameters
        reset()
        return
    with torch.no_grad():
        for parameter in layer.parameters(recurse=False):
            order = torch.randperm(parameter.numel()).to(parameter.device)
            parameter.copy_(parameter.flatten()[order].reshape(parameter.shape))


def initialises(layer: nn.Module) -> bool:
    """Say whether a layer can draw its parameters by itself."""
    return callable(getattr(layer, "reset_parameters", None))


def ranks(maps: Any, n: int) -> Tensor:
    """Return the ranks of absolute values within each row, (n, d) in float64; ties share the mean of theirs.

    Raises:
        TypeError: if the maps do not hold numbers.
        ValueError: for maps without n rows or of fewer than 2 elements, NaN or infinities.
    """
    from scipy.stats import rankdata

    values = tensor(maps, "method's maps", dtype=torch.float64).detach().cpu()
    if values.ndim < 2 or len(values) != n or values[0].numel() < 2:
        shape = tuple(values.shape)
        raise ValueError(f"method must return a map of 2 elements or more for each of the {n} rows of x; got {shape}.")
    return torch.from_numpy(rankdata(values.flatten(1).abs().numpy(), axis=1))


def _pearson(a: Tensor, b: Tensor) -> Tensor:
    a, b = (each - each.mean(dim=1, keepdim=True) for each in (a, b))
    length = a.norm(dim=1) * b.norm(dim=1)
    found = torch.where(length > 0, (a * b).sum(1) / length.clamp(min=1e-300), 0.0)
    return torch.where((a == b).all(1), 1.0, found)  # without rounding
