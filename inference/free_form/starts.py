"""Where the ascent starts: discrete latents from k-means++, one of two factors that multiply at random."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from probdl.inference.free_form.ascent import FreeForm
from probdl.inference.free_form.blocks import CategoricalBlock
from probdl.inference.free_form.chain import ChainBlock
from probdl.inference.free_form.gaussian_block import ArrowBlock, GaussianBlock
from probdl.inference.free_form.grid import GridBlock
from probdl.inference.free_form.locations import BilinearLocation
from probdl.inference.free_form.reading import Reading, Site
from probdl.inference.free_form.weights import Weights

CONFIDENCE = 0.9  # of the cluster that k-means++ assigned


def is_multimodal(field: FreeForm) -> bool:
    """Whether the start decides which optimum is found: there are discrete latents."""
    return any(isinstance(b, (CategoricalBlock, ChainBlock)) for b in field.blocks)


def start_at_random(field: FreeForm, seed: int, attempt: int = 0) -> None:
    """Start discrete latents at clusters of their data, and one of two factors that multiply at random draws.

    Clusters are numbered upwards along the first variable in the first attempt, downwards in the second and at random
    in all others: where the prior tells components apart, their numbers matter.
    """
    generator = torch.Generator().manual_seed(seed + attempt)
    for factor in field.factors:
        location = getattr(factor, "location", None)
        if isinstance(location, BilinearLocation):
            _scatter(max(location.blocks, key=field.blocks.index), generator)
    for block in field.blocks:
        if isinstance(block, CategoricalBlock):
            _start_probabilities(field, block, block.name, attempt, generator)
        elif isinstance(block, ChainBlock):
            _start_probabilities(field, block, block.sequence, attempt, generator)


def _scatter(block: GaussianBlock, generator: torch.Generator) -> None:
    noise = torch.randn(block.mean.shape, generator=generator, dtype=block.mean.dtype).to(block.mean.device)
    precision = torch.full_like(noise, 100.0).diag_embed()
    block.restore((100 * noise, precision))


def _start_probabilities(
    field: FreeForm, block: CategoricalBlock | ChainBlock, name: str, attempt: int, generator: torch.Generator
) -> None:
    like = block.moments[0]
    n, k = like.shape
    rows = _features(field.reading, field, name, n)
    if rows is None:
        logits = 2 * torch.randn(n, k, generator=generator, dtype=like.dtype)
    else:
        labels = _clusters(rows, k, attempt, generator)
        one_hot = torch.nn.functional.one_hot(labels, k).to(like.dtype)
        logits = (CONFIDENCE * one_hot + (1 - CONFIDENCE) / k).log()
    block.restore((logits.to(like.device), *block.state()[1:]))


def _clusters(x: Tensor, k: int, attempt: int, generator: torch.Generator) -> Tensor:
    from sklearn.cluster import KMeans

    scale = x.std(0)
    z = ((x - x.mean(0)) / torch.where(scale > 0, scale, torch.ones_like(scale))).cpu().numpy()
    if len(np.unique(z, axis=0)) < k:
        return torch.randint(k, (len(z),), generator=generator)
    found = KMeans(k, n_init=1, random_state=int(torch.randint(2**31 - 1, (1,), generator=generator))).fit(z)
    upwards = np.argsort(np.argsort(found.cluster_centers_[:, 0]))
    numbers = (upwards, k - 1 - upwards)[attempt] if attempt < 2 else torch.randperm(k, generator=generator).numpy()
    return torch.as_tensor(numbers[found.labels_]).long()


def _features(reading: Reading, field: FreeForm, name: str, n: int) -> Tensor | None:
    """The observations that each unit of a discrete latent explains, one row a unit, or None where there are none."""
    columns = []
    for factor in field.factors:
        site: Site = factor.site
        weights: Weights | None = getattr(factor, "weights", None)
        if (
            site.value is None
            or weights is None
            or name not in weights.axes
            or site.kind in ("categorical", "bernoulli")
        ):
            continue
        index = weights.index[weights.axes.index(name)]
        varying = [d for d, size in enumerate(index.shape) if size > 1]
        units = index.flatten()
        if len(units) != n or not torch.equal(units, torch.arange(len(units), device=units.device)):
            return None
        x = site.value.to(reading.program.dtype)
        columns.append(x.movedim(varying, list(range(len(varying)))).reshape(len(units), -1))
    return torch.cat(columns, 1) if columns else None


def start_from(field: FreeForm, start: Mapping[str, Any]) -> None:
    """Start blocks at given values: means of Gaussian sites (sd 0.1), probabilities of discrete ones (…, K).

    Raises:
        ValueError: if a site is unknown, of another shape, or of a kind that takes no start.
    """
    known = {name: b for b in field.blocks for name in b.names}
    for name, value in start.items():
        if name not in known:
            raise ValueError(f"start names {name!r}, which is no latent site; the sites are {', '.join(known)}.")
        block = known[name]
        x = torch.as_tensor(value, dtype=field.reading.program.dtype, device=field.reading.program.device)
        if isinstance(block, (CategoricalBlock, ChainBlock)):
            _start_discrete(block, name, x)
        elif isinstance(block, GaussianBlock):
            _start_gaussian(block, name, x)
        else:
            raise ValueError(
                f"start takes means of Gaussian and probabilities of discrete sites; {name!r} is neither, and is "
                "updated from them."
            )


def _start_discrete(block: Any, name: str, x: Tensor) -> None:
    wanted = (*block.shape, len(block.support))
    if tuple(x.shape) != wanted or bool((x < 0).any()) or bool(((x.sum(-1) - 1).abs() > 1e-6).any()):
        raise ValueError(f"start of {name!r} must hold probabilities of shape {wanted}; got shape {tuple(x.shape)}.")
    logits, n = block.state()[0].clone(), block.shape.numel()
    first = n * block.names.index(name)
    logits[first : first + n] = x.reshape(-1, x.shape[-1]).clamp(min=1e-300).log()
    block.restore((logits, *block.state()[1:]))


def _start_gaussian(block: GaussianBlock, name: str, x: Tensor) -> None:
    place = block.places[name]
    if x.shape != place.shape:
        raise ValueError(f"start of {name!r} must have its shape {tuple(place.shape)}; got {tuple(x.shape)}.")
    flat = block.mean.reshape(-1).clone()
    flat[place.reshape(-1)] = x.reshape(-1)
    if isinstance(block, ArrowBlock):
        shift, precision = block.state()
        block.restore((_arrow_shift(block, flat), precision))
    else:
        mean = flat.reshape(block.units, block.size)
        block.restore((100 * mean, torch.full_like(mean, 100.0).diag_embed()))


def _arrow_shift(block: ArrowBlock, flat: Tensor) -> Tensor:
    """The shift P z at which an arrow with its present precision has the mean z."""
    d, b, c = block.split(block.state()[1])
    leaf, core = flat.split((block.leaves * block.leaf, block.core))
    leaf = leaf.reshape(block.leaves, block.leaf)
    upper = (d @ leaf[..., None])[..., 0] + b @ core
    lower = (b.mT @ leaf[..., None]).sum(0)[:, 0] + c @ core
    return torch.cat([upper.reshape(-1), lower])[None]


def continue_from(field: FreeForm, start: Any) -> bool:
    """Take all factors of a posterior that has the same ones; return whether it has."""
    blocks = getattr(getattr(start, "approximation", None), "blocks", None)
    if blocks is None or len(blocks) != len(field.blocks):
        return False
    pairs = list(zip(field.blocks, blocks))
    same = all(
        type(a) is type(b) and a.names == b.names and [x.shape for x in a.state()] == [x.shape for x in b.state()]
        for a, b in pairs
    )
    if not same:
        return False
    for own, other in pairs:
        if isinstance(own, GridBlock):
            own.place(other.centre.to(own.centre), other.reach.to(own.reach))
        own.restore(tuple(x.to(y) for x, y in zip(other.state(), own.state())))
    field.forget()
    return True


def start_of(start: Any) -> dict[str, Any]:
    """Return means and probabilities to start from, given a posterior, a mapping, or None."""
    if start is None:
        return {}
    if isinstance(start, Mapping):
        return dict(start)
    out: dict[str, Any] = {}
    for name, latent in start.approximation.latents.items():
        if hasattr(start.approximation, "probabilities") and getattr(latent.prior.support, "is_discrete", False):
            out[name] = start.approximation.probabilities(name)
        elif latent.is_real():
            out[name] = start.mean(name)
    return out
