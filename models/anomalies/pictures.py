"""The pictures of an anomaly table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from probdl.viz import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from probdl.models.anomalies.anomalies import Anomalies


def draw_roc(found: Anomalies, ax: Axes | None) -> Axes:
    """Draw the ROC curve of each method, and a mark at its threshold."""
    ax, table = style.tidy(style.axes(ax, 5.6, 4.6)), found.auc
    for i, (name, roc) in enumerate(found.roc.items()):
        error = "" if roc.auc.stderr is None else f" ± {roc.auc.stderr:.3f}"
        label = f"{name}, area {roc.auc.value:.3f}{error}"
        ax.plot(roc.false_alarm, roc.detection, color=style.colour(i), lw=1.4, label=label)
        at = table.loc[name, ["false_alarms", "detected"]]
        ax.plot(*at, "o", ms=5, color=style.colour(i), mec="white", zorder=3)
    ax.axvline(found.rate, color=style.MUTED, lw=0.8, ls=":")
    ax.annotate(f" {found.rate:g} asked", (found.rate, 0.0), color=style.MUTED, fontsize="small")
    ax.plot([0, 1], [0, 1], color=style.MUTED, lw=0.8, ls="--")
    ax.set(xlabel="false alarms (share of normal rows)", ylabel="detected (share of anomalies)")
    ax.legend(loc="lower right", fontsize="small", framealpha=1, edgecolor="none")
    return ax


def draw_p_values(found: Anomalies, ax: Axes | None) -> Axes:
    """Draw the distribution function of each method's p-values against the uniform one."""
    ax = style.tidy(style.axes(ax, 5.6, 4.6))
    for i, (name, judged) in enumerate(found.judged.items()):
        ordered = torch.cat([torch.zeros(1, dtype=torch.float64), judged.p.sort().values])
        share = torch.linspace(0, 1, len(ordered))
        flagged = int((judged.p <= found.rate).sum())
        ax.step(ordered, share, where="post", color=style.colour(i), lw=1.4, label=f"{name}, {flagged} flagged")
    ax.axvline(found.rate, color=style.MUTED, lw=0.8, ls=":")
    ax.plot([0, 1], [0, 1], color=style.MUTED, lw=0.8, ls="--")
    ax.set(xlabel="conformal p-value", ylabel="share of rows at most there")
    ax.legend(loc="lower right", fontsize="small", framealpha=1, edgecolor="none")
    return ax
