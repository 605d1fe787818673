"""Ranks of true values among posterior draws, and whether they are uniform."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from probdl.inference.posterior import Posterior

if TYPE_CHECKING:
    import pandas as pd

FALSE_ALARMS = 0.01  # of the test of all entries together


@dataclass(frozen=True)
class Calibration:
    """What ``simulation_based_calibration`` found.

    Attributes:
        ranks: one row for each simulation, one column for each entry: how many of the posterior's draws lie below the
            value that the data were simulated from, from 0 to ``draws``.
        table: one row for each entry: z, the mean rank's distance from its middle in standard errors (above 0: the
            posterior is too low); spread, the ranks' sd over that of uniform ones (above 1: too narrow, below 1: too
            wide); p, of a chi-squared test that the ranks are uniform.
        draws: how many posterior draws each value was ranked among.
        calibrated: whether no p is below ``false_alarms`` over the number of entries (Bonferroni): a method that is
            exact fails with a probability of at most ``false_alarms``.
        false_alarms: that probability.
        failures: simulations that the method refused or did not converge on; they are left out.
        message: all of this in a sentence.
    """

    ranks: pd.DataFrame = field(repr=False)
    table: pd.DataFrame = field(repr=False)
    draws: int
    calibrated: bool
    false_alarms: float
    failures: int
    message: str

    def __repr__(self) -> str:
        return self.message

    def plot(self, names: list[str] | None = None, ax: Any = None) -> Any:
        """Draw a histogram of the ranks of each entry, with the band that holds 99 % of the bars of uniform ranks.

        Args:
            names: entries to draw, such as ``w[0]``; None draws all.
            ax: where to draw; None makes a figure with a panel for each.
        """
        from probdl.viz import rank_histograms

        chosen = {name: self.ranks[name].to_numpy() for name in names or self.ranks}
        return rank_histograms(chosen, self.draws, ax=ax)


def ranks_of(truth: dict[str, Tensor], posterior: Posterior, n: int, seed: int) -> Tensor:
    """Return the rank of each entry's true value among n draws, (entries,); ties are broken at random."""
    draws = posterior.draws(n, seed=seed)
    names = posterior.approximation.tabled
    x = torch.cat([draws[name].cpu().double().reshape(n, -1) for name in names], 1)
    true = torch.cat([truth[name].cpu().double().reshape(-1) for name in names])
    below, ties = (x < true).sum(0), (x == true).sum(0)
    u = torch.rand(len(true), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return below + (u * (ties + 1)).floor().long()


def judge(ranks: Tensor, labels: list[str], draws: int, failures: int, warned: int) -> Calibration:
    """Test ranks (simulations, entries) for uniformity."""
    import pandas as pd

    table = pd.DataFrame([_tested(column, draws) for column in ranks.T], index=labels)
    limit = FALSE_ALARMS / len(labels)
    calibrated = bool((table["p"] >= limit).all())
    message = _message(table, limit, len(ranks), failures, warned)
    frame = pd.DataFrame(ranks.numpy(), columns=labels)
    return Calibration(frame, table, draws, calibrated, FALSE_ALARMS, failures, message)


def _tested(ranks: Tensor, draws: int) -> dict[str, float]:
    """Compare ranks with the uniform law on 0, …, draws, whose variance is draws·(draws + 2)/12."""
    from scipy.stats import chisquare

    n, variance = len(ranks), draws * (draws + 2) / 12
    bins = min(10, max(2, n // 10))
    of_rank = torch.arange(draws + 1) * bins // (draws + 1)
    expected = torch.bincount(of_rank, minlength=bins).double() * n / (draws + 1)
    found = torch.bincount(of_rank[ranks], minlength=bins)
    x = ranks.double()
    return {
        "z": float((x.mean() - draws / 2) / math.sqrt(variance / n)),
        "spread": float(x.std() / math.sqrt(variance)),
        "p": float(chisquare(found.numpy(), expected.numpy()).pvalue),
    }


def _message(table: pd.DataFrame, limit: float, n: int, failures: int, warned: int) -> str:
    left_out = f" {failures} more failed and are left out, which can hide an error." if failures else ""
    left_out += f" In {warned} the method warned that it is imprecise." if warned else ""
    wrong = table[table["p"] < limit]
    if wrong.empty:
        return (
            f"{n} simulations: the ranks of all {len(table)} entries could be uniform (smallest p "
            f"{table['p'].min():.2g}; an exact method fails this test with probability {FALSE_ALARMS:g}).{left_out}"
        )
    worst = wrong.sort_values("p").iloc[0]
    tail = "too narrow" if worst["spread"] > 1 else "too wide"
    shift = "" if abs(worst["z"]) < 3 else f", and too {'low' if worst['z'] > 0 else 'high'}"
    return (
        f"{n} simulations: the ranks of {', '.join(wrong.index)} are not uniform (p {worst['p']:.2g}, where an exact "
        f"method falls below {limit:.2g} with that probability); the posterior of {wrong['p'].idxmin()} is {tail}"
        f"{shift}.{left_out}"
    )
