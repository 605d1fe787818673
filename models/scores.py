"""How good probabilities of classes are: accuracy, calibration and proper scores, each with its uncertainty."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from probdl.divergences.estimate import Estimate
from probdl.models.arguments import count, one_of

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

PER_ROW = "mean over rows"


class Proportion(Estimate):
    r"""A share k/n of independent rows; its interval is Wilson's, which stays within [0, 1] and holds near both ends.

    .. math:: \frac{\hat p + z^2/2n ± z\sqrt{\hat p (1 - \hat p)/n + z^2/4n^2}}{1 + z^2/n}

    The standard error is :math:`\sqrt{\hat p(1-\hat p)/n}`; where all or none of the rows count, it is half the width
    of the interval at z = 1, since a share of 1 is not certain.

    Reference:
        Wilson (1927), Probable inference, the law of succession, and statistical inference, JASA 22.
        Brown, Cai and DasGupta (2001), Interval estimation for a binomial proportion, Statistical Science 16.

    Example:
        >>> share = proportion(torch.tensor([True] * 97 + [False] * 3))
        >>> share, [round(end, 3) for end in share.interval()]
        (0.970 ± 0.017 (binomial, n=100), [0.915, 0.99])
    """

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Return Wilson's interval.

        Raises:
            ValueError: if ``level`` is not in (0, 1).
        """
        super().interval(level)
        assert self.n is not None
        low, high = wilson(torch.tensor(float(self.value), dtype=torch.float64), torch.tensor(self.n), level)
        return low.item(), high.item()


def proportion(right: Tensor) -> Proportion:
    """Return the share of rows that are right, with its binomial uncertainty; rows count as independent.

    Args:
        right: booleans (n,).
    """
    if not right.numel():
        raise ValueError("right is empty; a share needs at least one row.")
    n, p = right.numel(), right.double().mean().item()
    if 0 < p < 1:
        return Proportion(p, math.sqrt(p * (1 - p) / n), "binomial", n=n)
    note = f"{'all' if p else 'none'} of {n} rows: the standard error is half of Wilson's interval at z = 1"
    return Proportion(p, 0.5 / (n + 1), "binomial", n=n, notes=(note,))


def wilson(p: Tensor, n: Tensor, level: float = 0.95) -> tuple[Tensor, Tensor]:
    """Return the ends of Wilson's intervals for shares p of n rows."""
    z2 = torch.special.ndtri(torch.tensor((1 + level) / 2, dtype=torch.float64)).square() / n
    centre, half = p + z2 / 2, (z2 * (p * (1 - p) + z2 / 4)).sqrt()
    return ((centre - half) / (1 + z2)).clamp(min=0), ((centre + half) / (1 + z2)).clamp(max=1)


@dataclass(frozen=True)
class Calibration:
    r"""How far the probabilities of a classifier can be taken at their word.

    Attributes:
        table: one row a bin of confidence that holds rows: its ends "above" and "upto", "n", the mean "confidence",
            the "accuracy" (share of rows where the event happened) and the ends "lower" and "upper" of its 95 %
            interval (Wilson).
        error: the expected calibration error, :math:`\sum_b \frac{n_b}{n} |\text{accuracy}_b - \text{confidence}_b|`.
            It is positive even for a perfectly calibrated classifier; its notes say how large it would be then.
        brier: the Brier score, mean squared distance of probabilities and what happened, summed over the classes (for
            two classes halved, as is usual).
        log_loss: the mean of −log p(class that happened), in nats.
        event: what the confidence is of: "predicted class", or a class.
    """

    table: pd.DataFrame
    error: Estimate
    brier: Estimate
    log_loss: Estimate
    event: Any

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the reliability diagram."""
        from probdl.viz import reliability

        event = self.event if self.event == "predicted class" else f"class {self.event!r}"
        return reliability(self.table, ax, event=event)


def calibration(
    log_p: Tensor, truth: Tensor, *, bins: int = 10, by: str = "width", of: tuple[int, Any] | None = None
) -> Calibration:
    """Compare the probabilities that a classifier gave with what happened.

    Args:
        log_p: log probabilities (n, k).
        truth: the index of the class that happened, (n,).
        bins: how many bins of confidence, at most.
        by: "width", bins of equal width between 0 and 1; or "count", between quantiles of the confidence.
        of: index and name of the class whose probability is looked at; None: of the most probable class of each row.

    Raises:
        ValueError: for bins that are not a positive number, or another ``by``.

    Reference:
        Guo, Pleiss, Sun and Weinberger (2017), On calibration of modern neural networks, ICML.
        Brier (1950), Verification of forecasts expressed in terms of probability, Monthly Weather Review 78.
    """
    log_p, p = log_p.double(), log_p.double().exp()
    if of is None:
        confidence, chosen = p.max(1)
        right = chosen == truth
    else:
        confidence, right = p[:, of[0]].contiguous(), truth == of[0]
    edges = _edges(confidence, count(bins, "bins"), one_of(by, ("width", "count"), "by"))
    where = torch.bucketize(confidence, edges[1:-1])
    squares = (p - one_hot(truth, p.shape[1])).square().sum(1) / (2 if p.shape[1] == 2 else 1)
    return Calibration(
        _table(confidence, right.double(), where, edges),
        _calibration_error(confidence, right.double(), where),
        mean_of(squares),
        mean_of(-log_p.gather(1, truth[:, None])[:, 0]),
        "predicted class" if of is None else of[1],
    )


def mean_of(values: Tensor) -> Estimate:
    """Return the mean of one value a row, with its standard error over rows."""
    n = len(values)
    stderr = values.std().item() / math.sqrt(n) if n > 1 else None
    return Estimate(values.mean().item(), stderr, PER_ROW, n=n, notes=() if n > 1 else ("one row has no spread",))


def _edges(confidence: Tensor, bins: int, by: str) -> Tensor:
    """Return the ends of the bins; those of equal count are merged where many rows have the same confidence."""
    if by == "width":
        return torch.linspace(0, 1, bins + 1, dtype=torch.float64, device=confidence.device)
    inner = confidence.sort().values[[len(confidence) * b // bins for b in range(1, bins)]].unique()
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64, device=confidence.device)
    return torch.cat([ends[:1], inner[(inner > 0) & (inner < 1)], ends[1:]])


def _sums(values: Tensor, where: Tensor) -> Tensor:
    """Return the sum of each bin."""
    total = torch.zeros(int(where.max()) + 1, dtype=torch.float64, device=values.device)
    return total.index_add(0, where, values)


def _table(confidence: Tensor, right: Tensor, where: Tensor, edges: Tensor) -> pd.DataFrame:
    import pandas as pd

    n = _sums(torch.ones_like(right), where)
    used = n > 0
    accuracy = (_sums(right, where) / n)[used]
    lower, upper = wilson(accuracy, n[used])
    columns = {
        "above": edges[:-1][: len(n)][used],
        "upto": edges[1:][: len(n)][used],
        "n": n[used].long(),
        "confidence": (_sums(confidence, where) / n)[used],
        "accuracy": accuracy,
        "lower": lower,
        "upper": upper,
    }
    return pd.DataFrame({name: column.cpu().numpy() for name, column in columns.items()})


def _calibration_error(confidence: Tensor, right: Tensor, where: Tensor) -> Estimate:
    """Return the expected calibration error; what it would be under perfect calibration is in the notes."""
    n, gap = len(right), _sums(right - confidence, where)
    # The error is the mean over rows of s(bin)·(right − confidence), s the sign of the bin's gap.
    each = gap.sign()[where] * (right - confidence)
    # Under calibration the gap of a bin is about normal with variance Σ c(1 − c), so that |gap| is half-normal.
    variance = _sums(confidence * (1 - confidence), where) / n**2
    mean = math.sqrt(2 / math.pi) * variance.sqrt().sum().item()
    sd = math.sqrt((1 - 2 / math.pi) * variance.sum().item())
    note = f"a perfectly calibrated classifier would show {mean:.2g} ± {sd:.2g} (sd) on as many rows: biased upwards"
    stderr = each.std().item() / math.sqrt(n) if n > 1 else None
    return Estimate(each.mean().item(), stderr, f"{len(variance.nonzero())} bins", "expected estimate", n, (note,))
