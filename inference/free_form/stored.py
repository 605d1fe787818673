"""Blocks as tensors and settings that JSON can hold."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from probdl.inference.free_form.blocks import (
    BetaBlock,
    CategoricalBlock,
    DirichletBlock,
    ExponentialBlock,
    GammaBlock,
    InverseGammaBlock,
    WishartBlock,
)
from probdl.inference.free_form.chain import ChainBlock
from probdl.inference.free_form.gaussian_block import ArrowBlock, GaussianBlock
from probdl.inference.free_form.grid import GridBlock
from probdl.inference.programs.latents import Latent

FAMILIES: dict[str, type[ExponentialBlock]] = {
    kind.__name__: kind for kind in (GammaBlock, InverseGammaBlock, BetaBlock, DirichletBlock, WishartBlock)
}


def take_apart(blocks: list[Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors of all blocks, and a description of each."""
    tensors: dict[str, Tensor] = {}
    described = []
    for i, block in enumerate(blocks):
        own = {f"state{j}": x for j, x in enumerate(block.state())} | _extra_tensors(block)
        tensors |= {f"{i}/{k}": x for k, x in own.items()}
        described.append({"kind": type(block).__name__, "names": list(block.names), **_extra_settings(block)})
    return tensors, {"blocks": described}


def _extra_tensors(block: Any) -> dict[str, Tensor]:
    if isinstance(block, GaussianBlock):
        return {f"place/{name}": place for name, place in block.places.items()}
    if isinstance(block, GridBlock):
        return {"centre": block.centre, "reach": block.reach}
    return {"support": block.support} if isinstance(block, (CategoricalBlock, ChainBlock)) else {}


def _extra_settings(block: Any) -> dict[str, Any]:
    if isinstance(block, ArrowBlock):
        return {"leaves": block.leaves, "leaf": block.leaf, "core": block.core}
    if isinstance(block, GaussianBlock):
        return {"units": block.units, "size": block.size}
    if isinstance(block, ChainBlock):
        return {"sequence": block.sequence}
    return {"event": block.event} if isinstance(block, ExponentialBlock) else {}


def put_together(latents: dict[str, Latent], tensors: dict[str, Tensor], settings: dict[str, Any]) -> list[Any]:
    """Return the blocks that ``take_apart`` took apart."""
    return [
        _block(x, {k.split("/", 1)[1]: v for k, v in tensors.items() if k.startswith(f"{i}/")}, latents)
        for i, x in enumerate(settings["blocks"])
    ]


def _block(x: dict[str, Any], own: dict[str, Tensor], latents: dict[str, Latent]) -> Any:
    state = tuple(own[f"state{j}"] for j in range(sum(k.startswith("state") for k in own)))
    names = x["names"]
    shape = latents[names[0]].shape
    block: Any
    if x["kind"] in ("GaussianBlock", "ArrowBlock"):
        places = {name: own[f"place/{name}"] for name in names}
        if x["kind"] == "ArrowBlock":
            block = ArrowBlock(places, x["leaves"], x["leaf"], x["core"], torch.zeros_like(state[0]).reshape(-1))
        else:
            block = GaussianBlock(places, x["units"], x["size"], torch.zeros_like(state[0]))
    elif x["kind"] == "GridBlock":
        block = GridBlock(latents[names[0]], own["centre"])
        block.place(own["centre"], own["reach"])
    elif x["kind"] == "ChainBlock":
        block = ChainBlock(tuple(names), x["sequence"], shape, own["support"], state[0])
    elif x["kind"] == "CategoricalBlock":
        block = CategoricalBlock(names[0], shape, own["support"], state[0])
    else:
        block = FAMILIES[x["kind"]](names[0], shape, x["event"], state[0])
    block.restore(state)
    return block
