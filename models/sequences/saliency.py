"""What a model of sequences attends to: how much a score changes with each step of what was read."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch import Tensor, nn

from probdl.viz import saliency

CHUNK = 256  # sequences that are differentiated at a time


class Reading(nn.Module):
    """A model of sequences as a function of one argument, the steps of some sequences of known lengths.

    Args:
        model: the model, which is a part of this one.
        scores: maps steps (n, T, ...) and lengths (n,) to scores (n, k).
        lengths: of the sequences.
    """

    def __init__(self, model: nn.Module, scores: Callable[[Tensor, Tensor], Tensor], lengths: Tensor) -> None:
        super().__init__()
        self.model, self.scores, self.lengths = model, scores, lengths

    def forward(self, x: Tensor) -> Tensor:
        """Return the scores."""
        return self.scores(x, self.lengths)


def saliency_of_steps(
    model: nn.Module,
    scores: Callable[[Tensor, Tensor], Tensor],
    rows: Tensor,
    lengths: Tensor,
    target: int | None,
) -> list[Tensor]:
    """Return for each sequence the derivative of its score with respect to each of its steps, (its length,).

    Args:
        model, scores: as of ``Reading``.
        rows: tokens (n, T), of which the Euclidean norm of the derivative by their vectors is taken, or frames
            (n, T, ...), of which the largest absolute value.
        lengths: of the sequences, (n,).
        target: which score; None: the largest of each sequence.
    """
    found: list[Tensor] = []
    for some, own in zip(rows.split(CHUNK), lengths.split(CHUNK)):
        near = some[:, : int(own.max())]
        found += _cut(_sizes(saliency(Reading(model, scores, own), near, target, reduce=None), near), own)
    return found


def _sizes(derivative: Tensor, rows: Tensor) -> Tensor:
    flat = derivative.flatten(2)
    return flat.abs().amax(2) if rows.is_floating_point() else flat.norm(dim=2)


def _cut(sizes: Tensor, lengths: Tensor) -> Iterable[Tensor]:
    return (row[:length].cpu() for row, length in zip(sizes, lengths.tolist()))
