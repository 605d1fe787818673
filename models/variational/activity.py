"""Which latent dimensions say something about a row."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor
from torch.distributions import Independent

from probdl.families import standard_normal_kls

if TYPE_CHECKING:
    import pandas as pd

THRESHOLD = 0.01


class Activity(NamedTuple):
    """Of each latent dimension, (d,).

    Attributes:
        variance: over rows, of the mean of q(z | x).
        stderr: of it.
        kl: the mean over rows of KL(q(z_j | x) ‖ p(z_j)), in nats.
        kl_stderr: of it.
    """

    variance: Tensor
    stderr: Tensor
    kl: Tensor
    kl_stderr: Tensor

    def table(self) -> pd.DataFrame:
        """Return one row for each latent dimension, with ``active``: whether the variance exceeds .01."""
        import pandas as pd

        found = {name: values.tolist() for name, values in self._asdict().items()}
        index = [f"z[{j}]" for j in range(len(self.variance))]
        return pd.DataFrame({**found, "active": (self.variance > THRESHOLD).tolist()}, index=index)


def activity_of(q: Independent) -> Activity:
    r"""Return how active each latent dimension is, :math:`A_j = \mathrm{Var}_x E_{q(z|x)} z_j`, over rows.

    Reference:
        Burda, Grosse and Salakhutdinov (2016), Importance weighted autoencoders, ICLR, section 5.3.
    """
    mean, kls = q.mean.double(), standard_normal_kls(q).double()
    squares, n = (mean - mean.mean(0)).square(), len(mean)
    root = math.sqrt(n)
    return Activity(
        squares.sum(0) / max(n - 1, 1),
        squares.std(0, correction=0) / root,
        kls.mean(0),
        kls.std(0, correction=0) / root,
    )


def collapse(found: Activity, entries: int) -> tuple[str, str | None]:
    """Return what to say of the latent dimensions, and a warning where the posterior has collapsed, or None.

    Collapsed is a dimension whose q is the prior for all rows; one that is merely not learnt yet is not.

    Args:
        found: of training rows.
        entries: of a row; more latent dimensions than these cannot all be of use.
    """
    size, active = len(found.variance), int((found.variance > THRESHOLD).sum())
    used = size - int(((found.variance <= THRESHOLD) & (found.kl < THRESHOLD)).sum())
    said = f"{active} of {size} latent dimensions active"
    said += f" (a row has only {entries} entries)" if size > entries else ""
    if 2 * used >= min(size, entries):
        return said, None
    return said, (
        f"Posterior collapse: {active} of {size} latent dimensions are active; for the rest q(z | x) is the prior, "
        "whatever x is, and the decoder does without them. If they should be of use, pass kl_warm_up=, free_bits= or "
        "beta= below 1, a smaller decoder, or a smaller learning_rate; if not, a smaller latent_dim."
    )
