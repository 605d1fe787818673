"""Sequences out of a decoder: the most probable ones by beam search, or drawn at random."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from probdl.models.sequences.decoder import Decoder, Given


class Written(NamedTuple):
    """Sequences that a decoder wrote: tokens, lengths without the end, and log p with the end, in nats."""

    tokens: Tensor
    lengths: Tensor
    log_prob: Tensor


def beam_search(decoder: Decoder, given: Given, beams: int, most: int) -> Written:
    """Return the most probable sequences that were found, best first.

    After each token the ``beams`` most probable beginnings (or whole sequences) are kept; one beam is the greedy
    search. As wide as there are beginnings it is exact. A sequence that has ``most`` tokens must end; what was not
    found (there are fewer sequences than beams) has log p of minus infinity.

    Args:
        decoder: in eval mode.
        given: for n sequences.
        beams: how many beginnings are kept for each.
        most: tokens, at most.

    Returns:
        Tokens (n, beams, T), and lengths and log p (n, beams).

    Reference:
        Sutskever, Vinyals and Le (2014), Sequence to sequence learning with neural networks, NeurIPS, section 3.2.
    """
    n, size, device = len(given), decoder.end + 1, decoder.out.weight.device
    first = torch.arange(n, device=device)[:, None] * beams
    given = given.rows(torch.arange(n, device=device).repeat_interleave(beams))
    log_prob = torch.full((n, beams), -torch.inf, dtype=decoder.out.weight.dtype, device=device)
    log_prob[:, 0] = 0.0  # all beams begin alike, so that only one of them counts
    found = torch.full((n, beams, 1), decoder.end, device=device)
    ended = torch.zeros(n, beams, dtype=torch.bool, device=device)
    only_end = torch.full((size,), -torch.inf, dtype=log_prob.dtype, device=device)
    only_end[decoder.end] = 0.0
    for step in range(most + 1):
        log_p, given, _ = decoder(given, found[:, :, -1].reshape(-1, 1))
        log_p = log_p.reshape(n, beams, size) + (only_end if step == most else 0.0)
        total = log_prob[..., None] + torch.where(ended[..., None], only_end, log_p)
        log_prob, best = total.reshape(n, -1).topk(beams)
        parent, token = best // size, best % size
        found = torch.cat([found.gather(1, parent[..., None].expand_as(found)), token[..., None]], 2)
        ended = ended.gather(1, parent) | (token == decoder.end)
        given = given.rows((first + parent).reshape(-1))
        if bool(ended.all()):
            break
    tokens = found[:, :, 1:]
    return Written(tokens, (tokens != decoder.end).sum(-1), log_prob)


def draw(decoder: Decoder, given: Given, most: int, temperature: float, generator: torch.Generator) -> Written:
    """Draw a sequence for each row, from probabilities that are sharpened to :math:`p^{1/τ}`, token by token.

    Args:
        decoder: in eval mode.
        given: for n sequences.
        most: tokens, at most; a sequence without end is cut there.
        temperature: τ > 0.
        generator: on the decoder's device.

    Returns:
        Tokens (n, T), and lengths and log p (n,), at temperature 1, of what was drawn (of a cut sequence: of its
        beginning).
    """
    n, device = len(given), decoder.out.weight.device
    found = torch.full((n, 1), decoder.end, device=device)
    log_prob, ended = (
        torch.zeros(n, dtype=decoder.out.weight.dtype, device=device),
        torch.zeros(n, device=device).bool(),
    )
    for _ in range(most):
        log_p, given, _ = decoder(given, found[:, -1:])
        token = torch.multinomial((log_p[:, 0] / temperature).softmax(1), 1, generator=generator)
        token = token.masked_fill(ended[:, None], decoder.end)
        log_prob = log_prob + log_p[:, 0].gather(1, token)[:, 0] * ~ended
        found, ended = torch.cat([found, token], 1), ended | (token[:, 0] == decoder.end)
        if bool(ended.all()):
            break
    tokens = found[:, 1:]
    return Written(tokens, (tokens != decoder.end).sum(-1), log_prob)
