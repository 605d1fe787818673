"""Which answers a block gives."""

from __future__ import annotations

from typing import Any

from probdl.inference.free_form.blocks import CategoricalBlock
from probdl.inference.free_form.chain import ChainBlock
from probdl.inference.free_form.family_marginals import FamilyMarginals
from probdl.inference.free_form.gaussian_block import GaussianBlock
from probdl.inference.free_form.grid import GridBlock
from probdl.inference.free_form.marginals import DiscreteMarginals, GaussianMarginals, GridMarginals, Marginals


def marginals_of(block: Any) -> Marginals:
    """Return the answers of a block."""
    if isinstance(block, GaussianBlock):
        return GaussianMarginals(block)
    if isinstance(block, GridBlock):
        return GridMarginals(block)
    if isinstance(block, (CategoricalBlock, ChainBlock)):
        return DiscreteMarginals(block)
    return FamilyMarginals(block)
