"""What all models that hold networks share: training, eval mode, files."""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from probdl import files
from probdl.loops import Descent, NotFiniteError, cosine, descend, duel, one_thread
from probdl.models.arguments import count
from probdl.models.saved import check_header, history_from_json, history_to_json, load_tensors, rebuild

if TYPE_CHECKING:
    import pandas as pd

Model = TypeVar("Model", bound="NetworkModel")


@dataclass(frozen=True)
class Training:
    """How long a fit trains, in batches of how many rows, and where its state is kept: what ``fit`` was asked for.

    Attributes:
        epochs, steps: how long at most; None and None: as the model chooses.
        size: rows in a batch, at most all.
        seed: of the order of the rows and of the noise.
        progress: whether to show a bar.
        checkpoint, resume: as of ``descend``.
    """

    epochs: int | None
    steps: int | None
    size: int
    seed: int
    progress: bool | None
    checkpoint: str | os.PathLike | None
    resume: bool

    @classmethod
    def of(
        cls, rows: int, batch_size: int | None, default: int, *, epochs: int | None, steps: int | None, **how: Any
    ) -> Training:
        """Return what ``fit`` was asked for; a batch is never larger than all training rows.

        Args:
            rows: that train.
            batch_size: None: ``default``.
            default: the model's own.
            epochs, steps, how: the other attributes.
        """
        size = default if batch_size is None else count(batch_size, "batch_size")
        return cls(epochs, steps, min(size, rows), **how)

    def steps_at_most(self, rows: int, otherwise: int, batches: float = 1) -> int:
        """Return the number of steps, each of which takes so many ``batches`` of ``rows``; None and None: otherwise."""
        if self.epochs is None:
            return otherwise if self.steps is None else self.steps
        of_epochs = max(1, round(count(self.epochs, "epochs") * math.ceil(rows / self.size) / batches))
        return of_epochs if self.steps is None else min(of_epochs, self.steps)

    @property
    def loop(self) -> dict[str, Any]:
        """The arguments that the loops take as they are."""
        names = ("seed", "progress", "checkpoint", "resume")
        return {"batch_size": self.size, **{name: getattr(self, name) for name in names}}


class NetworkModel(nn.Module, ABC):
    """A model that holds networks; ``found`` is what ``fit`` found in the data, and rebuilds the model from a file.

    Args:
        networks: by the argument they came from; None where the model chooses one.
        dtype: of the networks.
    """

    SETTINGS: ClassVar[tuple[str, ...]] = ()  # arguments of the constructor that a file keeps
    PATIENCE: ClassVar[int] = 1000  # steps without a better validation loss until a fit stops, by default
    learning_rate: float
    decay: bool
    patience: int | None
    clip: float | None = None

    def __init__(self, networks: dict[str, nn.Module | None], dtype: torch.dtype) -> None:
        super().__init__()
        # In a dict, so that they become parts of the module only where the model puts them.
        self._given = networks
        self._start = {name: deepcopy(net.state_dict()) for name, net in networks.items() if net is not None}
        self.dtype = dtype
        self.fitted = False
        self.history: pd.DataFrame | None = None
        self.message = "not fitted"

    @abstractmethod
    def _found(self) -> dict[str, Any]:
        """Return what ``fit`` found in the data (shapes, classes, vocabulary), as JSON can hold it."""

    @abstractmethod
    def _rebuild(self, found: dict[str, Any]) -> None:
        """Build all parts of the model from what ``_found`` returned; their weights are loaded afterwards."""

    def save(self, path: str | os.PathLike) -> None:
        """Write the fitted model to one safetensors file; nothing in it is a program.

        Args:
            path: where to; the file is replaced as a whole or not at all.

        Raises:
            ValueError: before ``fit``.
        """
        self._check_fitted("save")
        header = {**self._identity(), "history": history_to_json(self.history), "message": self.message}
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
        rebuild(model, header["found"], path)
        load_tensors(model, tensors, path)
        model.history, model.message = history_from_json(header["history"]), header["message"]
        model.fitted = True
        return model.to(torch.device(device)).eval()

    def _train(self, loss: Any, data: Sequence[Tensor], *, one: bool, **how: Any) -> Descent:
        """Descend, also into the history and the message, and end fitted and in eval mode even if the loss became NaN.

        Args:
            loss, data: as ``descend`` takes them.
            one: whether to run on one thread, which is fastest for small batches and recurrent networks.
            how: further arguments of ``descend``.
        """
        return self._run(lambda: descend(self, loss, data, identity=self._identity(), **how), one)

    def _run(self, loop: Callable[[], Descent], one: bool) -> Descent:
        with one_thread(one):
            try:
                return self._learnt(loop())
            except NotFiniteError as error:
                self._learnt(error.descent)
                raise

    def _train_in_batches(
        self,
        loss: Any,
        train: Sequence[Tensor],
        held: Sequence[Tensor] | None,
        how: Training,
        *,
        one: bool,
        most: int,
        **more: Any,
    ) -> None:
        """Descend in batches by the model's own ``learning_rate``, ``decay``, ``patience`` and ``clip``.

        Args:
            loss: as ``descend`` takes it.
            train, held: tensors of training rows, and of validation rows or None.
            how: of ``fit``; where it names neither epochs nor steps, ``most`` steps.
            one: as of ``_train``.
            more: further arguments of ``descend``.
        """
        arguments: dict[str, Any] = {
            "epochs": how.epochs,
            "steps": most if how.epochs is None and how.steps is None else how.steps,
            "learning_rate": cosine(self.learning_rate) if self.decay else self.learning_rate,
            "patience": self._epochs_of_patience(how, len(train[0])),
            "clip": self.clip,
            **how.loop,
            **more,
        }
        self._train(loss, train, one=one, validation=held, **arguments)
        self.message += "" if held else "; nothing was held out to stop early"

    def _epochs_of_patience(self, how: Training, rows: int, warm_up: int = 0) -> int:
        """Return the epochs without a better validation loss until a fit stops: the user's, or ``PATIENCE`` steps.

        Args:
            how: of ``fit``.
            rows: that train.
            warm_up: steps more, in which what is held out may get worse.
        """
        own = self.patience or max(5, math.ceil(self.PATIENCE * how.size / rows))
        return own + math.ceil(warm_up * how.size / rows)

    def _duel_in_batches(
        self,
        critic: nn.Module,
        generator: nn.Module,
        critic_loss: Any,
        generator_loss: Any,
        train: Sequence[Tensor],
        how: Training,
        *,
        one: bool,
        most: int,
        critic_steps: int | Callable[[int], int] = 1,
        **more: Any,
    ) -> Descent:
        """Let two parts of the model duel in batches; an epoch has been when both have seen as many batches as rows.

        Args:
            critic, generator, critic_loss, generator_loss, critic_steps: as ``duel`` takes them.
            train: tensors of training rows.
            how: of ``fit``; where it names neither epochs nor steps, ``most`` steps of the generator.
            one: as of ``_train``.
            more: further arguments of ``duel``.
        """
        each = critic_steps if isinstance(critic_steps, int) else critic_steps(10**9)
        steps = how.steps_at_most(len(train[0]), most, 1 + each)
        players = (critic, generator, critic_loss, generator_loss)
        arguments = {"steps": steps, "critic_steps": critic_steps, "identity": self._identity(), **how.loop, **more}
        return self._run(lambda: duel(*players, train, **arguments), one)

    def _identity(self) -> dict[str, Any]:
        """Return what the model is, but for its weights, as JSON can hold it."""
        return {
            "model": type(self).__name__,
            "settings": {name: getattr(self, name) for name in self.SETTINGS},
            "dtype": str(self.dtype).removeprefix("torch."),
            "networks": {name: type(net).__name__ for name, net in self._given.items() if net is not None},
            "found": self._found(),
        }

    def _learnt(self, how: Descent) -> Descent:
        self.history, self.message, self.fitted = how.history, how.message, True
        self.eval()
        return how

    def _check_fitted(self, what: str) -> None:
        """Raise unless the model is fitted."""
        if not self.fitted:
            raise ValueError(f"This {type(self).__name__} is not fitted yet: call fit(x) before {what}.")

    def _restarted(self, name: str) -> nn.Module | None:
        """Return the network that was passed, if any, with the weights it came with."""
        network = self._given[name]
        if network is not None:
            network.load_state_dict(self._start[name])
        return network

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
