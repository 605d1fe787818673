"""Which rows train and which validate."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from probdl.models.form import Form

FEWEST = 20  # rows below which "auto" keeps none back: a tenth of fewer says nothing


def split(x: Tensor, validation: Any, form: Form, seed: int, missing: bool = False) -> tuple[Tensor, Tensor | None]:
    """Return the training rows and the validation rows.

    Args:
        x: (n, ...).
        validation: "auto" keeps a tenth back, or nothing of fewer than 20 rows; a fraction between 0 and 1; None or
            False for nothing; or rows like ``x``.
        form: checks such rows.
        seed: draws which rows are kept back.
        missing: whether entries of such rows may be missing.

    Raises:
        ValueError: for another text or number, or a fraction that leaves no row on either side.
    """
    if validation is None or validation is False:
        return x, None
    if isinstance(validation, str):
        if validation != "auto":
            raise ValueError(f"validation must be 'auto', a fraction, rows like x, or None; got {validation!r}.")
        return (x, None) if len(x) < FEWEST else _share(x, 0.1, seed)
    if isinstance(validation, (int, float)):
        return _share(x, float(validation), seed)
    return x, form.check(validation, "validation", missing=missing)


def _share(x: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    held = round(len(x) * fraction)
    if not 0 < fraction < 1 or not 0 < held < len(x):
        raise ValueError(
            f"validation must be a fraction between 0 and 1 that leaves rows on both sides; got {fraction:g} of "
            f"{len(x)} rows. Pass None for no validation."
        )
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed)).to(x.device)
    return x[order[held:]], x[order[:held]]
