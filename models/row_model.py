"""A model fitted to rows of one form, in standardised units."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from probdl.models.form import Form
from probdl.models.network_model import NetworkModel
from probdl.models.units import Units


class RowModel(NetworkModel):
    """A network model of rows (n, ...): their form (shape and columns) and their units (standardisation).

    Args:
        networks, dtype: as of ``NetworkModel``.
    """

    MISSING: ClassVar[bool] = False  # whether entries of a row may be missing (NaN)

    def __init__(self, networks: dict[str, nn.Module | None], dtype: torch.dtype) -> None:
        super().__init__(networks, dtype)
        self.form: Form | None = None
        self.units: Units | None = None

    def _check_support(self, x: Tensor) -> None:
        """Raise a ValueError for rows that the model gives no probability; most take any."""

    def _found(self) -> dict[str, Any]:
        form, units = self._rows("save")
        return {"form": form.to_json(), "each": units.scale.ndim > 0}

    @staticmethod
    def _form_and_units(found: dict[str, Any]) -> tuple[Form, Units]:
        """Return the form, and units whose numbers the file's tensors will set."""
        form = Form.from_json(found["form"])
        return form, Units.plain(form.shape, found["each"])

    def _rows(self, what: str) -> tuple[Form, Units]:
        """Return the form and the units of a fitted model, or raise."""
        if self.form is None or self.units is None:
            raise ValueError(f"This {type(self).__name__} is not fitted yet: call fit(x) before {what}.")
        return self.form, self.units

    @contextmanager
    def _or_as_before(self) -> Iterator[None]:
        """Put back all that the model was if what is inside raises, so that bad data lose nothing."""
        before = {k: copy(v) if k in ("_modules", "_buffers", "_parameters") else v for k, v in self.__dict__.items()}
        try:
            yield
        except Exception:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise

    def _inward(self, x: Any) -> Tensor:
        """Return rows as the networks take them: checked, standardised, on their device."""
        rows = self._rows("this")[0].check(x, missing=self.MISSING)
        self._check_support(rows)
        return self._standardised(rows)

    def _standardised(self, rows: Tensor) -> Tensor:
        """Return rows that were checked in standardised units, on the networks' device."""
        return self._rows("this")[1].inward(rows).to(self._device, self.dtype)


def home(x: Any) -> torch.device:
    """Return the device where results for ``x`` belong."""
    return x.device if isinstance(x, Tensor) else torch.device("cpu")
