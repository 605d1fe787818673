"""The progress bar of the loops."""

from __future__ import annotations

from typing import Any


def bar(total: int, progress: bool | None, label: str = "descend", done: int = 0) -> Any:
    """Return a tqdm bar over ``total`` steps on stderr.

    Args:
        total: the number of steps, which gives the time left.
        progress: True shows it, False does not, None only where stderr is a terminal.
        label: stands at its left.
        done: steps that were done before.

    Example:
        >>> with bar(10, progress=False) as shown:
        ...     for _ in range(10):
        ...         _ = shown.update()
    """
    from tqdm import tqdm

    # tqdm reads disable=None as "unless the stream is a terminal".
    return tqdm(total=total, initial=done, desc=label, unit="step", disable=None if progress is None else not progress)
