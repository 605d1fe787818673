"""What models of rows share that an algorithm fits to all rows at once: no networks, no epochs, nothing held out."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, TypeVar

import torch
from torch import Tensor

from probdl.models.network_model import Training
from probdl.models.unsupervised import Batch, UnsupervisedModel

Model = TypeVar("Model", bound="ClassicalModel")


class ClassicalModel(UnsupervisedModel):
    """A model of rows without networks; a subclass estimates it, and keeps what it found in buffers.

    Args:
        dtype, standardise: as of ``UnsupervisedModel``.
    """

    def __init__(self, dtype: torch.dtype = torch.float64, *, standardise: str = "auto") -> None:
        super().__init__({}, dtype, standardise=standardise)

    # Epochs, batches and checkpoints mean nothing here, and are refused rather than ignored.
    def fit(  # type: ignore[override]
        self: Model, x: Any, y: None = None, *, device: str | torch.device = "auto", seed: int = 0
    ) -> Model:
        """Fit to the rows of ``x``, anew each time.

        Args:
            x: array-like (n, ...): a table, whose columns of text or categories are zeros and ones inside; or images
                (n, c, h, w), each of which is a row of pixels.
            y: must be None: these models learn from ``x`` alone.
            device: where to compute; "auto": a GPU if ``x`` is there or one is found, else the CPU.
            seed: of all that is drawn.

        Returns:
            The model; ``message`` says how the fit ended.

        Raises:
            ValueError, TypeError: for data or arguments that cannot be used; the model is then as it was before.
        """
        with self._or_as_before():
            return super().fit(x, y, validation=None, device=device, seed=seed, progress=False)

    @abstractmethod
    def _estimate(self, u: Tensor, seed: int) -> None:
        """Fit to rows (n, ...) in standardised units: ``_keep`` what was found, and set ``message``."""

    def _keep(self, **found: Tensor) -> None:
        """Hold tensors as buffers, which are saved and loaded."""
        for name, value in found.items():
            self.register_buffer(name, value)

    def _build(self, seed: int) -> None:
        """Nothing is built before the estimate."""

    def _learn(self, train: Batch, held: Batch | None, how: Training) -> None:
        self._estimate(train[0], how.seed)
        self.fitted = True
        self.eval()

    def _found(self) -> dict[str, Any]:
        kept = {
            name: [list(value.shape), str(value.dtype).removeprefix("torch.")]
            for name, value in self._buffers.items()
            if value is not None
        }
        return {**super()._found(), "kept": kept}

    def _rebuild(self, found: dict[str, Any]) -> None:
        super()._rebuild(found)
        self._keep(**{n: torch.zeros(size, dtype=getattr(torch, t)) for n, (size, t) in found["kept"].items()})

    @property
    def _device(self) -> torch.device:
        assert self.units is not None
        return self.units.shift.device


def flat(u: Tensor) -> Tensor:
    """Return rows (n, ...) as (n, d)."""
    return u.reshape(len(u), -1)
