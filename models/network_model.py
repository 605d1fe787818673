"""What all models around networks share: the data's form and units, eval mode, files."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from probdl import files
from probdl.models.form import Form
from probdl.models.saved import check_header, history_from_json, history_to_json, load_tensors
from probdl.models.units import Units

if TYPE_CHECKING:
    import pandas as pd

Model = TypeVar("Model", bound="NetworkModel")


class NetworkModel(nn.Module, ABC):
    """A model that holds networks, fitted to rows of one form.

    Args:
        networks: by the argument they came from; None where the model chooses one.
        dtype: of the networks.
    """

    SETTINGS: ClassVar[tuple[str, ...]] = ()  # arguments of the constructor that a file keeps

    def __init__(self, networks: dict[str, nn.Module | None], dtype: torch.dtype) -> None:
        super().__init__()
        # In a dict, so that they become parts of the module only where the model puts them.
        self._given = networks
        self._start = {name: deepcopy(net.state_dict()) for name, net in networks.items() if net is not None}
        self.dtype = dtype
        self.form: Form | None = None
        self.units: Units | None = None
        self.family = ""
        self.history: pd.DataFrame | None = None
        self.message = "not fitted"

    @abstractmethod
    def _assemble(self, form: Form, units: Units, family: str, seed: int) -> None:
        """Set ``form``, ``units`` and ``family``, and build all parts of the model; ``seed`` draws their weights."""

    def _check_support(self, x: Tensor) -> None:
        """Raise a ValueError for rows that the model gives no probability; most take any."""

    def save(self, path: str | os.PathLike) -> None:
        """Write the fitted model to one safetensors file; nothing in it is a program.

        Args:
            path: where to; the file is replaced as a whole or not at all.

        Raises:
            ValueError: before ``fit``.
        """
        form, units = self._fitted("save")
        header = {
            "model": type(self).__name__,
            "settings": {name: getattr(self, name) for name in self.SETTINGS},
            "dtype": str(self.dtype).removeprefix("torch."),
            "networks": {name: type(net).__name__ for name, net in self._given.items() if net is not None},
            "family": self.family,
            "form": form.to_json(),
            "each": units.scale.ndim > 0,
            "history": history_to_json(self.history),
            "message": self.message,
        }
        files.write(path, self.state_dict(), header)

    @classmethod
    def load(
        cls: type[Model], path: str | os.PathLike, *, device: str | torch.device = "cpu", **networks: nn.Module | None
    ) -> Model:
        """Return the model that ``save`` wrote, in eval mode; loading runs nothing that is in the file.

        Args:
            path: the file.
            device: where to put the model.
            networks: networks built like those that were passed when the model was made, by the same names, where any
                were; they get the saved weights.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is not a model's file, is damaged, holds another model, or needs other networks.
        """
        tensors, header = files.read(path)
        arguments: dict[str, Any] = {**check_header(header, cls.__name__, networks, path), **networks}
        model = cls(**arguments)
        form = Form.from_json(header["form"])
        model._assemble(form, Units.plain(form.shape, header["each"]), header["family"], seed=0)
        load_tensors(model, tensors, path)
        model.history, model.message = history_from_json(header["history"]), header["message"]
        return model.to(torch.device(device)).eval()

    def _fitted(self, what: str) -> tuple[Form, Units]:
        """Return the form and the units of a fitted model, or raise."""
        if self.form is None or self.units is None:
            raise ValueError(f"This {type(self).__name__} is not fitted yet: call fit(x) before {what}.")
        return self.form, self.units

    def _restarted(self, name: str) -> nn.Module | None:
        """Return the network that was passed, if any, with the weights it came with."""
        network = self._given[name]
        if network is not None:
            network.load_state_dict(self._start[name])
        return network

    def _inward(self, x: Any) -> Tensor:
        """Return rows as the networks take them: checked, standardised, on their device."""
        form, units = self._fitted("this")
        rows = form.check(x)
        self._check_support(rows)
        return units.inward(rows).to(self._device, self.dtype)

    @property
    def _device(self) -> torch.device:
        return next(self.parameters()).device

    def _noise(self, seed: int) -> torch.Generator:
        return torch.Generator(self._device).manual_seed(seed)

    @contextmanager
    def _quietly(self) -> Iterator[None]:
        """Compute in eval mode and without gradients."""
        training = self.training
        self.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.train(training)
