"""Classifiers: networks whose outputs are the log odds of classes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from probdl.divergences.estimate import Estimate
from probdl.models.arguments import count, one_of
from probdl.models.form import Form
from probdl.models.labels import Labels
from probdl.models.network_model import Training
from probdl.models.networks import check_images, check_network, is_small
from probdl.models.pairs import is_pair, parts
from probdl.models.row_model import RowModel, home
from probdl.models.scores import Calibration, Proportion, calibration, proportion
from probdl.models.units import WAYS, Units
from probdl.nn import CNN, seeded
from probdl.nn.mlp import sizes
from probdl.processes import chosen_device

STEPS = 20_000
CHUNK = 1024  # rows that are scored at a time

Pair = tuple[Tensor, Tensor]


class Classifier(RowModel):
    r"""Rows and their labels: :math:`p(y | x) = \mathrm{softmax}(f(x))` for a network f of standardised rows.

    Args:
        networks, dtype: as of ``RowModel``.
        standardise: as of ``Units``.
        learning_rate, decay, patience: of Adam, its fall to zero, and of early stopping.
    """

    network: nn.Module

    def __init__(
        self,
        networks: dict[str, nn.Module | None],
        dtype: torch.dtype,
        standardise: str,
        learning_rate: float,
        decay: bool,
        patience: int | None,
    ) -> None:
        super().__init__(networks, dtype)
        self.standardise = one_of(standardise, WAYS, "standardise")
        self.learning_rate, self.decay = learning_rate, decay
        self.patience = None if patience is None else count(patience, "patience")
        self.labels: Labels | None = None

    @property
    def classes(self) -> tuple[bool | int | str, ...]:
        """The classes, in the order of the columns of ``predict_proba``."""
        return self._labels("classes").classes

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (n, k) of rows in the data's own units, through which gradients flow."""
        units = self._rows("forward")[1]
        return self._logits(units.inward(x).to(self.dtype))

    def predict_proba(self, x: Any) -> Tensor:
        """Return the probability of each class for each row, (n, k), columns in the order of ``classes``.

        Raises:
            ValueError, TypeError: before ``fit``, or for rows unlike those of ``fit``.
        """
        return self._log_probabilities(x).exp().to(home(x))

    def predict(self, x: Any) -> Tensor | np.ndarray:
        """Return the most probable class of each row, (n,): a tensor, or a NumPy array where the labels are text.

        Raises:
            ValueError, TypeError: before ``fit``, or for rows unlike those of ``fit``.
        """
        return self._labels("predict").named(self._log_probabilities(x).argmax(1).to(home(x)))

    def log_likelihood(self, x: Any, y: Any) -> Estimate:
        """Return log p(y | x) of each row, in nats; exact, given the fitted model.

        Args:
            x: rows like those of ``fit``; only held-out rows say how good the model is.
            y: their labels, (n,).

        Raises:
            ValueError, TypeError: before ``fit``, or for rows or labels unlike those of ``fit``.
        """
        log_p, truth = self._scored(x, y)
        value = log_p.gather(1, truth[:, None])[:, 0].to(home(x))
        return Estimate(value, torch.zeros_like(value), "closed form", n=len(value))

    def accuracy(self, x: Any, y: Any) -> Proportion:
        """Return the share of rows whose most probable class is right; its ``interval`` is Wilson's.

        Args:
            x, y: held-out rows and their labels.

        Raises:
            ValueError, TypeError: before ``fit``, or for rows or labels unlike those of ``fit``.
        """
        log_p, truth = self._scored(x, y)
        return proportion(log_p.argmax(1) == truth)

    def calibration(self, x: Any, y: Any, *, bins: int = 10, by: str = "width", of: Any = None) -> Calibration:
        """Compare probabilities with what happened: a table of bins, the calibration error, Brier score and log loss.

        Args:
            x, y: held-out rows and their labels.
            bins: how many bins of confidence, at most.
            by: "width", bins of equal width; "count", between quantiles of the confidence.
            of: a class, whose probability is looked at; None: the most probable class of each row.

        Raises:
            ValueError, TypeError: before ``fit``, or for arguments that cannot be used.
        """
        log_p, truth = self._scored(x, y)
        event = None if of is None else (int(self._labels("calibration").indices([of], name="of")), of)
        return calibration(log_p, truth, bins=bins, by=by, of=event)

    def _logits(self, u: Tensor) -> Tensor:
        return self.network(u)

    def _check_form(self, form: Form) -> None:
        """Raise a ValueError for rows of a form that the model does not take; most take any."""

    def _new_network(self, form: Form, labels: Labels) -> nn.Module:
        """Return the network of a fit that was passed none."""
        raise NotImplementedError

    def _assemble(self, form: Form, units: Units, labels: Labels, seed: int) -> None:
        """Put the network that was passed, or a new one, behind the units."""
        network = self._restarted("network") if "network" in self._given else None
        if network is not None:
            check_network(network, "network", form.shape, (len(labels),), "the logits of the classes")
        with seeded(seed):
            network = network if network is not None else self._new_network(form, labels)
        self.form, self.units, self.labels = form, units, labels
        self.network = network.to(self.dtype)

    def _found(self) -> dict[str, Any]:
        return {**super()._found(), "classes": self._labels("save").to_json()}

    def _rebuild(self, found: dict[str, Any]) -> None:
        self._assemble(*self._form_and_units(found), Labels.from_json(found["classes"]), seed=0)

    def _begin(self, x: Any, y: Any, validation: Any, device: str | torch.device, seed: int) -> list[Pair]:
        """Check the data, build the model, and return training rows, and perhaps validation rows, for its network."""
        form, labels = Form.of(x), Labels.of(y)
        self._check_form(form)
        rows = form.check(x)
        pairs = divided(rows, labels.indices(y, len(rows)).to(rows.device), validation, form, labels, seed)
        self._assemble(form, Units.of(pairs[0][0], self.standardise), labels, seed)
        self.to(chosen_device(device, x))
        return [(self._inward(x), y.to(self._device)) for x, y in pairs]

    def _descend(self, data: list[Pair], how: Training) -> None:
        """Descend with Adam on batches of data[0], with data[1], if any, as validation."""
        held = data[1] if len(data) > 1 else None
        self._train_in_batches(self._loss, data[0], held, how, one=is_small(data[0][0][: how.size]), most=STEPS)

    def _loss(self, batch: tuple[Tensor, ...], generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the mean of −log p(y | x), in nats, and the accuracy."""
        logits = self._logits(batch[0])
        return cross_entropy(logits, batch[1]), {"accuracy": (logits.argmax(1) == batch[1]).to(logits.dtype).mean()}

    @torch.no_grad()
    def _log_probabilities(self, x: Any) -> Tensor:
        """Return log p of each class for each row, (n, k), in float64."""
        self._labels("this")
        with self._quietly():
            parts = [self._logits(u) for u in self._inward(x).split(CHUNK)]
        return torch.log_softmax(torch.cat(parts).double(), 1)

    def _scored(self, x: Any, y: Any) -> tuple[Tensor, Tensor]:
        """Return the log probabilities of rows, and the indices of their labels."""
        log_p = self._log_probabilities(x)
        return log_p, self._labels("this").indices(y, len(log_p)).to(log_p.device)

    def _labels(self, what: str) -> Labels:
        if self.labels is None:
            raise ValueError(f"This {type(self).__name__} is not fitted yet: call fit(x, y) before {what}.")
        return self.labels


class ImageClassifier(Classifier):
    r"""A convolutional network that gives each image the probabilities of its classes.

    .. math:: p(y = c | x) = \frac{e^{f_c(x)}}{\sum_{c'} e^{f_{c'}(x)}}

    ``fit`` maximises the likelihood of the labels by Adam, the network f being stopped where that of held-out rows is
    largest. Images are standardised inside by one shift and scale. As a module it maps images in their own units to
    logits (n, k), for pictures of what it sees.

    Args:
        network: (n, c, h, w) → (n, k) logits; any other shape of a row is its own business. None: a ``CNN``.
        channels: of the chosen CNN's convolutions, each of which halves height and width.
        hidden: the widths of its dense layers.
        standardise: "shared" ("auto"), one shift and scale for all pixels; "column", one for each; "none".
        learning_rate: of Adam.
        decay: whether it falls to zero along half a cosine over the steps or epochs that ``fit`` is given.
        patience: epochs without a better validation loss until the fit stops; None: as many as make 1000 steps, at
            least 5.
        dtype: of the network.

    Raises:
        ValueError, TypeError: for an argument that cannot be used.

    Example:
        >>> from probdl import data
        >>> images, labels = data.digits()
        >>> net = ImageClassifier(channels=(8, 16)).fit(images[:1500], labels[:1500], epochs=8, progress=False)
        >>> net.predict_proba(images[1500:]).shape, net.accuracy(images[1500:], labels[1500:]).value > 0.8
        (torch.Size([297, 10]), True)
    """

    SETTINGS = ("channels", "hidden", "standardise", "learning_rate", "decay", "patience")

    def __init__(
        self,
        network: nn.Module | None = None,
        *,
        channels: Sequence[int] = (32, 64),
        hidden: Sequence[int] = (128,),
        standardise: str = "auto",
        learning_rate: float = 1e-3,
        decay: bool = False,
        patience: int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__({"network": network}, dtype, standardise, learning_rate, decay, patience)
        self.channels, self.hidden = sizes(tuple(channels), "channels"), sizes(tuple(hidden), "hidden")

    def fit(
        self,
        x: Any,
        y: Any,
        *,
        epochs: int | None = None,
        steps: int | None = None,
        batch_size: int | None = None,
        validation: Any = "auto",
        device: str | torch.device = "auto",
        seed: int = 0,
        progress: bool | None = None,
        checkpoint: str | os.PathLike | None = None,
        resume: bool = False,
    ) -> ImageClassifier:
        """Fit to images and their labels, anew each time; a network that was passed starts from its own weights.

        Args:
            x: images, array-like (n, c, h, w).
            y: labels (n,) of any kind: numbers, text, booleans, a Categorical.
            epochs, steps: how long at most; None: 20,000 steps.
            batch_size: rows in a step; None: 128.
            validation: "auto" keeps a tenth back (nothing of fewer than 20 rows), stops when its loss no longer
                falls, and returns to the best epoch; a fraction; a pair (x, y) of your own; or None.
            device: where to compute; "auto": a GPU if ``x`` is there or one is found, else the CPU.
            seed: of the initial weights, the rows kept back and the order of rows.
            progress: whether to show a bar; None: where stderr is a terminal.
            checkpoint: a file that holds the whole state of the fit, written every minute and at its end.
            resume: whether to go on from the checkpoint, if it is there; the result is that of an uninterrupted fit.

        Returns:
            The model, in eval mode. ``history`` has a row an epoch, losses in nats a row; ``message`` says how the
            fit ended. Ctrl-C stops it with a ``ConvergenceWarning`` and keeps what was learnt.

        Raises:
            ValueError, TypeError: for data or arguments that cannot be used.
            ConvergenceError: if the loss becomes NaN or infinite; the model has its last good state.
        """
        data = self._begin(x, y, validation, device, seed)
        arguments = {"seed": seed, "progress": progress, "checkpoint": checkpoint, "resume": resume}
        self._descend(data, Training.of(len(data[0][0]), batch_size, 128, epochs=epochs, steps=steps, **arguments))
        return self

    def _check_form(self, form: Form) -> None:
        if self._given["network"] is None:
            check_images(form.shape, "a network=")

    def _new_network(self, form: Form, labels: Labels) -> nn.Module:
        return CNN(form.shape, len(labels), channels=self.channels, hidden=self.hidden)


def divided(rows: Tensor, index: Tensor, validation: Any, form: Form, labels: Labels, seed: int) -> list[Pair]:
    """Return the training rows with their class indices, and the validation rows with theirs, if there are any.

    Raises:
        ValueError, TypeError: for a ``validation`` that is not "auto", a fraction, a pair (x, y) or None.
    """
    found = [(rows[part], index[part]) for part in parts(len(rows), validation, seed)]
    if is_pair(validation):
        held = form.check(validation[0], "validation[0]")
        found.append((held, labels.indices(validation[1], len(held), "validation[1]").to(held.device)))
    return found
