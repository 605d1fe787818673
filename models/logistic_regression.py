"""Logistic regression: a network without hidden layer, at its maximum likelihood."""

from __future__ import annotations

import itertools
import math
import os
import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from probdl.errors import ConvergenceWarning
from probdl.models.classifiers import Classifier, Pair
from probdl.models.form import Form
from probdl.models.labels import Labels
from probdl.models.logistic_findings import (
    contrasts,
    distance,
    findings,
    information,
    outward,
    outward_stderr,
)
from probdl.models.network_model import Training
from probdl.models.networks import is_small
from probdl.models.newton import DENSE, LogisticLoss, Newton, coefficients_of, logits_of
from probdl.models.units import Units
from probdl.nn import MLP

if TYPE_CHECKING:
    import pandas as pd

STEPS = 100
Z = 1.959963984540054  # the normal's quantile for 95 %
FAR = 0.01  # standard errors from the maximum, beyond which a fit is called imprecise


class LogisticRegression(Classifier):
    r"""Log odds that are linear in the columns, binary or multinomial.

    .. math:: \log \frac{p(y = c | x)}{p(y = c_0 | x)} = β_{c0} + β_c^\top x, \qquad c_0 \text{ the first class}.

    ``fit`` maximises the likelihood, minus :math:`n λ‖W‖^2/2` where ``l2`` is λ. The problem is convex, and Newton's
    method on all rows goes to its maximum within rounding; ``notes`` say where there is none, because the classes are
    separated or columns depend on each other. As a module it maps rows in their own units to logits (n, k).

    Args:
        l2: λ, of the weights of standardised columns, not of intercepts; with k > 2 classes each class has its weights
            and they sum to zero. scikit-learn's C is 1/(nλ) for columns that are standardised before.
        standardise: "column" ("auto" for tables), "shared" ("auto" for images), or "none". Without l2 the answer does
            not depend on it.
        learning_rate, decay: of Adam, which descends only where ``fit`` is given a ``batch_size``.
        dtype: of the computation.

    Raises:
        ValueError, TypeError: for an argument that cannot be used.

    Reference:
        McCullagh and Nelder (1989), Generalized linear models, chapters 4 and 5.

    Example:
        >>> from probdl import data
        >>> X, y = data.breast_cancer(as_frame=True)
        >>> model = LogisticRegression().fit(X[["mean texture", "mean smoothness"]], y, progress=False)
        >>> model.coefficients[["coefficient", "stderr"]].round(2)
                         coefficient  stderr
        intercept              13.80    1.24
        mean texture           -0.29    0.03
        mean smoothness       -78.20    9.05
    """

    SETTINGS = ("l2", "standardise", "learning_rate", "decay")
    stderr: Tensor
    network: MLP

    def __init__(
        self,
        *,
        l2: float = 0.0,
        standardise: str = "auto",
        learning_rate: float = 1e-2,
        decay: bool = True,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__({}, dtype, standardise, learning_rate, decay, None)
        if not 0 <= l2 < math.inf:
            raise ValueError(f"l2 must be a number of at least 0; got {l2!r}.")
        self.l2 = l2
        self.notes: tuple[str, ...] = ()

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
    ) -> LogisticRegression:
        """Fit to rows and their labels, anew each time.

        Args:
            x: array-like (n, p), or (n, ...).
            y: labels (n,) of any kind.
            epochs, steps: how long at most; None: 100 steps, of which Newton's method needs about ten.
            batch_size: None: Newton's method on all rows. A number: Adam on batches of so many rows, for data for which
                that is too slow; it comes near the maximum, and ``message`` says how near.
            validation: "auto" and None: nothing is held out, all rows count for the maximum. A fraction, or a pair
                (x, y) of your own: rows on which the best step is chosen, which is then not the maximum.
            device: where to compute; "auto": a GPU if ``x`` is there or one is found, else the CPU.
            seed: of the rows kept back, and the order of rows in batches.
            progress: whether to show a bar; None: where stderr is a terminal.
            checkpoint: a file that holds the whole state of the fit, written every minute and at its end.
            resume: whether to go on from the checkpoint, if it is there.

        Returns:
            The model. A ``ConvergenceWarning`` says if it is not at the maximum, or if there is none.

        Raises:
            ValueError, TypeError: for data or arguments that cannot be used.
        """
        nothing = isinstance(validation, str) and validation == "auto"
        data = self._begin(x, y, None if nothing else validation, device, seed)
        limits = {"epochs": epochs, "steps": STEPS if epochs is None and steps is None else steps}
        how: dict[str, Any] = {"seed": seed, "progress": progress, "checkpoint": checkpoint, "resume": resume, **limits}
        if batch_size is None:
            self._newton(data, **how)
        else:
            self._descend(data, Training.of(len(data[0][0]), batch_size, 128, **how))
        self._conclude(data[0], whole=len(data) == 1)
        return self

    @property
    def coefficients(self) -> pd.DataFrame:
        """The coefficients of the log odds against the first class, in the data's own units.

        One row for the intercept and each column (with more than two classes, of each class but the first):
        "coefficient", "stderr" from the observed information, and the ends "lower" and "upper" of the 95 % Wald
        interval. Standard errors are NaN with ``l2``, for more than 1500 coefficients, and where ``notes`` say that
        there is no maximum or that it was not reached.

        Raises:
            ValueError: before ``fit``.
        """
        import pandas as pd

        classes, names = self._labels("coefficients").classes, self._names()
        value, stderr = outward(contrasts(coefficients_of(self._linear).detach()), *self._units()), self.stderr
        columns = {"coefficient": value, "stderr": stderr, "lower": value - Z * stderr, "upper": value + Z * stderr}
        index = names if len(classes) == 2 else pd.MultiIndex.from_product([classes[1:], names], names=["class", None])
        # The intercept is the last coefficient inside, and the first in the table.
        table = {name: c.roll(1, 1).flatten().cpu().numpy() for name, c in columns.items()}
        return pd.DataFrame(table, index=index)

    def _new_network(self, form: Form, labels: Labels) -> nn.Module:
        network = MLP(form.shape, 1 if len(labels) == 2 else len(labels), hidden=())
        for parameter in network.parameters():
            nn.init.zeros_(parameter)
        return network

    def _assemble(self, form: Form, units: Units, labels: Labels, seed: int) -> None:
        super()._assemble(form, units, labels, seed)
        self.notes = ()
        unknown = torch.full((len(labels) - 1, math.prod(form.shape) + 1), math.nan, dtype=torch.float64)
        self.register_buffer("stderr", unknown)

    def _found(self) -> dict[str, Any]:
        return {**super()._found(), "notes": list(self.notes)}

    def _rebuild(self, found: dict[str, Any]) -> None:
        super()._rebuild(found)
        self.notes = tuple(found["notes"])

    def _logits(self, u: Tensor) -> Tensor:
        return logits_of(self.network(u))

    def _loss(self, batch: tuple[Tensor, ...], generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        loss, terms = super()._loss(batch, generator)
        return loss + self.l2 / 2 * self._linear.weight.square().sum(), terms

    @property
    def _linear(self) -> nn.Linear:
        linear = self.network.layers[0]
        assert isinstance(linear, nn.Linear)
        return linear

    def _newton(self, data: list[Pair], **how: Any) -> None:
        """Step by Newton's method until the loss, of held-out rows if there are any, no longer falls."""
        linear, loss = self._linear, LogisticLoss(*data[0], self.l2)
        held = data[1] if len(data) > 1 else None
        found = self._train(
            self._loss,
            data[0],
            one=is_small(data[0][0]),
            validation=held or data[0],
            batch_size=len(data[0][0]),
            shuffle=False,
            optimiser=lambda parameters: Newton(parameters, linear, loss),
            patience=1,
            **how,
        )
        assert self.history is not None
        self.message = f"Newton's method, {len(self.history)} steps"
        if held is None:  # the training rows were only there to stop it
            self.history["validation"] = math.nan
        else:
            self.message += f", of which step {found.epoch} was best for held-out rows"

    @torch.no_grad()
    def _conclude(self, rows: Pair, whole: bool) -> None:
        """Say how far from the maximum the fit is and what is wrong with the data; find standard errors.

        Args:
            rows: the training rows.
            whole: whether all rows trained; otherwise held-out rows chose the step, which is not the maximum.
        """
        loss, linear = LogisticLoss(*rows, self.l2), self._linear
        if len(linear.bias) > 1:  # a shift that all classes share is free
            linear.weight.sub_(linear.weight.mean(0))
            linear.bias.sub_(linear.bias.mean())
        b = coefficients_of(linear)
        self.notes = () if self.l2 or not whole else findings(loss, b)
        if whole and not self.notes:
            self._measure(loss, b)
        self.message = "; ".join([self.message, *self.notes])
        if self.notes:
            warnings.warn(self.message, ConvergenceWarning, stacklevel=3)

    def _measure(self, loss: LogisticLoss, b: Tensor) -> None:
        """Say how far from the maximum the fit is, and find standard errors if it is near."""
        away = distance(loss, b)
        self.message += f"; {away:.1g} standard errors from the maximum"
        if away > FAR:
            self.notes = ("the coefficients are not at the maximum: take more steps, or all rows at once",)
        elif not self.l2 and b.numel() <= DENSE:
            self.stderr.copy_(outward_stderr(information(loss, b), len(loss.x), *self._units()))

    def _units(self) -> tuple[Tensor, Tensor]:
        """Return the shift and scale of each column, (p,)."""
        form, units = self._rows("coefficients")
        return units.shift.expand(form.shape).reshape(-1), units.scale.expand(form.shape).reshape(-1)

    def _names(self) -> list[str]:
        """Return the names of the coefficients: columns of a table, or places in a row."""
        form = self._rows("coefficients")[0]
        if form.columns is not None:
            return ["intercept", *map(str, form.columns)]
        places = itertools.product(*map(range, form.shape))
        return ["intercept", *("x" + (str(list(place)) if place else "") for place in places)]
