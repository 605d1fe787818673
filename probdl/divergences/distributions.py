"""What the other rooms need of a ``torch.distributions.Distribution``: points are always float64 of shape (n, d)."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.distributions import (
    Bernoulli,
    Categorical,
    Distribution,
    Independent,
    MixtureSameFamily,
    TransformedDistribution,
)
from torch.distributions.transforms import Transform, _InverseTransform

Point = Tensor  # (n, d)
_STREAM = 0x2545F491  # keeps our draws apart from those of a user who seeded torch with the same small number


def double(p: Distribution, device: str | None = None) -> Distribution:
    """Return a float64 copy of ``p`` that does not validate, so that a density is 0, not an error, off its support."""
    return _double(p, device)


def _double(value: Any, device: str | None) -> Any:
    if isinstance(value, Tensor):
        return value.detach().to(device, torch.float64 if value.is_floating_point() else value.dtype)
    if isinstance(value, torch.nn.Module):
        return copy.deepcopy(value).to(device, torch.float64)
    if type(value) in (list, tuple):
        return type(value)(_double(v, device) for v in value)
    if isinstance(value, _InverseTransform):
        return _double(value.inv, device).inv
    if not isinstance(value, (Distribution, Transform)):
        return value
    new = copy.copy(value)
    for key, item in vars(value).items():
        new.__dict__[key] = None if key == "_inv" else _double(item, device)  # the inverse is made anew
    if isinstance(new, Distribution):
        new._validate_args = False
    return new


def dimension(p: Distribution) -> int:
    """Return the number of coordinates of one draw."""
    return p.event_shape.numel()


def is_discrete(p: Distribution) -> bool:
    """Whether ``p`` has atoms and no density; a distribution that does not tell its support is taken as continuous."""
    if isinstance(p, MixtureSameFamily):
        return is_discrete(p.component_distribution)
    support = support_of(p)
    return bool(support is not None and support.is_discrete)


def support_of(p: Distribution) -> Any:
    """Return the support as torch tells it, or None."""
    try:
        return p.support
    except NotImplementedError:
        return None


def bounds(p: Distribution) -> tuple[Tensor, Tensor]:
    """Return the lower and upper ends (d,) of the smallest box that is known to hold the support."""
    low, high = ends(p.component_distribution if isinstance(p, MixtureSameFamily) else p)
    return low.amin(0), high.amax(0)


def ends(p: Distribution) -> tuple[Tensor, Tensor]:
    """Return the ends (batch, d) of the support of each distribution of a batch, infinite where none is known."""
    if isinstance(p, Independent):
        low, high = ends(p.base_dist)
        return low.reshape(-1, dimension(p)), high.reshape(-1, dimension(p))
    support = support_of(p)
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    low, high = (
        _end(p, getattr(support, "lower_bound", -torch.inf)),
        _end(p, getattr(support, "upper_bound", torch.inf)),
    )
    if isinstance(p, TransformedDistribution) and dimension(p) == 1 and all(t.bijective for t in p.transforms):
        carried = _carried(p)
        low, high = torch.maximum(low, carried.amin(0)), torch.minimum(high, carried.amax(0))
    return low, high


def _carried(p: TransformedDistribution) -> Tensor:
    """Return the ends (2, batch, 1) of the base law's support, carried through the transforms."""
    both = torch.stack([end.reshape((*p.batch_shape, *p.event_shape)) for end in ends(p.base_dist)])
    for transform in p.transforms:
        both = transform(both)
    both = both.reshape(2, -1, 1)
    return torch.where(both.isnan().any(0), torch.tensor([-torch.inf, torch.inf]).to(both)[:, None, None], both)


def _end(p: Distribution, bound: Any) -> Tensor:
    full = torch.as_tensor(bound, dtype=torch.float64, device=device_of(p))
    return full.expand((*p.batch_shape, *p.event_shape)).reshape(-1, dimension(p))


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Seed torch inside a ``with`` block and restore the global generators afterwards."""
    on_gpu = device is not None and device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_gpu else []):
        torch.default_generator.manual_seed(seed + _STREAM)
        if on_gpu:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed + _STREAM)
        yield


def device_of(p: Distribution) -> torch.device:
    """Return the device of the first tensor that ``p`` holds."""
    for value in vars(p).values():
        if isinstance(value, Tensor):
            return value.device
        if isinstance(value, Distribution):
            return device_of(value)
    return torch.device("cpu")


def draw(p: Distribution, n: int, seed: int) -> Point:
    """Return ``n`` draws as float64 of shape (n, d), or (n, batch·d); the global generators are left as they were."""
    with seeded(seed, device_of(p)), torch.no_grad():
        return p.sample(torch.Size([n])).reshape(n, -1).double()


def log_density(p: Distribution, x: Point) -> Tensor:
    """Return log p(x), or log P(X = x) for a discrete law, at the rows of x; minus infinity off the support."""
    with torch.no_grad():
        return _log_prob(p, x.reshape((len(x), *p.batch_shape, *p.event_shape))).reshape(len(x))


def _log_prob(p: Distribution, value: Tensor) -> Tensor:
    if isinstance(p, MixtureSameFamily):  # torch takes the intersection of the components' supports
        inner = _log_prob(p.component_distribution, value.unsqueeze(-1 - len(p.event_shape)))
        return torch.logsumexp(inner + torch.log_softmax(p.mixture_distribution.logits, -1), -1)
    inside = _inside(p, value)
    if not bool(inside.all()):
        with seeded(0, value.device):
            anchor = p.sample().to(value.dtype)
        mask = inside.reshape(*inside.shape, *[1] * len(p.event_shape))
        value = torch.where(mask, value, anchor)
    if isinstance(p, (Bernoulli, Categorical)):
        inside = inside & _charges(p, value)
    return torch.where(inside, p.log_prob(value).double(), -torch.inf)


def _charges(p: Bernoulli | Categorical, value: Tensor) -> Tensor:
    """Whether the probability of each value is positive; torch's logarithms stop at that of the rounding unit."""
    if isinstance(p, Bernoulli):
        return torch.where(value > 0, p.probs, 1 - p.probs) > 0
    value, probs = torch.broadcast_tensors(value.long().unsqueeze(-1), p.probs)
    return probs.gather(-1, value[..., :1]).squeeze(-1) > 0


def _inside(p: Distribution, value: Tensor) -> Tensor:
    """Whether each value lies in the support, looking through transforms at the law underneath."""
    shape = torch.broadcast_shapes(value.shape[: value.ndim - len(p.event_shape)], p.batch_shape)
    support = support_of(p)
    inside = torch.ones(shape, dtype=torch.bool, device=value.device)
    if support is not None:
        inside = inside & support.check(value)
    if isinstance(p, TransformedDistribution):
        for transform in reversed(p.transforms):
            value = transform.inv(value)
        below = _inside(p.base_dist, value)
        inside = inside & below.reshape(*shape, -1).all(-1)
    return inside
