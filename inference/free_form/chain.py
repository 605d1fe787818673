r"""A chain of discrete latents as one factor, as in a hidden Markov model: q(z₁, …, z_T) by forward–backward sums."""

from __future__ import annotations

import torch
from torch import Tensor

from probdl.inference.free_form.blocks import Block


class ChainBlock(Block):
    r"""A Markov chain q(z) ∝ exp(Σ_t a_t(z_t) + Σ_t b_t(z_{t−1}, z_t)), the same for n independent units.

    The moments are the probabilities of each latent, (n, K), then those of neighbours, (n, K, K).

    Args:
        names: the latents in order.
        shape: of each of them.
        support: their values, (K,).
        start: logits a_t of each latent, (n, K).
    """

    def __init__(self, names: tuple[str, ...], shape: torch.Size, support: Tensor, start: list[Tensor]) -> None:
        self.names, self.shape, self.support = names, shape, support
        n, k = start[0].shape
        self.restore((*start, *(start[0].new_zeros(n, k, k) for _ in names[1:])))

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Neighbours in the chain."""
        return list(zip(self.names, self.names[1:]))

    def state(self) -> tuple[Tensor, ...]:
        """Return the logits of latents, then those of neighbours."""
        return self.natural

    def update(self, gradient: tuple[Tensor, ...]) -> None:
        """Take the gradient as logits."""
        self.restore(gradient)

    def restore(self, state: tuple[Tensor, ...]) -> None:
        """Take logits, and find the probabilities by forward and backward sums."""
        self.natural = state
        t = len(self.names)
        single, double = state[:t], state[t:]
        forward = [single[0]]
        for a, b in zip(single[1:], double):
            forward.append((forward[-1][..., :, None] + b).logsumexp(-2) + a)
        backward = [torch.zeros_like(single[-1])]
        for a, b in zip(reversed(single[1:]), reversed(double)):
            backward.append((b + (a + backward[-1])[..., None, :]).logsumexp(-1))
        backward.reverse()
        self.forward, self.log_normaliser = forward, forward[-1].logsumexp(-1)
        ones = [torch.softmax(f + g, -1) for f, g in zip(forward, backward)]
        twos = [
            (forward[i][..., :, None] + b + (single[i + 1] + backward[i + 1])[..., None, :]).flatten(-2).softmax(-1)
            for i, b in enumerate(double)
        ]
        self.moments = (*ones, *(p.reshape(b.shape) for p, b in zip(twos, double)))

    def entropy(self) -> Tensor:
        """Return the log normaliser minus the expected exponent."""
        expected = [torch.where(p > 0, a * p, torch.zeros_like(p)).sum() for a, p in zip(self.natural, self.moments)]
        return self.log_normaliser.sum() - torch.stack(expected).sum()

    def draws(self, n: int, generator: torch.Generator) -> list[Tensor]:
        """Return n draws of the indices of each latent, (n, units), backwards through the chain."""
        t = len(self.names)
        logits = self.forward[-1].expand(n, *self.forward[-1].shape)
        drawn = [_categorical(logits, generator)]
        for i in range(t - 2, -1, -1):
            b = self.natural[t + i]  # (units, K, K)
            into = b.movedim(-1, 0)[drawn[0], torch.arange(b.shape[0], device=b.device)]
            drawn.insert(0, _categorical(self.forward[i] + into, generator))
        return drawn

    def log_prob(self, index: list[Tensor]) -> Tensor:
        """Return log q at indices (…, units) of each latent."""
        t = len(self.names)
        units = torch.arange(index[0].shape[-1], device=index[0].device)
        total = sum(a[units, i] for a, i in zip(self.natural[:t], index))
        total = total + sum(b[units, i, j] for b, i, j in zip(self.natural[t:], index, index[1:]))
        return (total - self.log_normaliser).sum(-1)

    def child(self, moments: tuple[Tensor, ...]) -> list[Tensor]:
        """The indicator of one latent, in its shape; ``moments`` are those of that latent."""
        return [moments[0].reshape((*self.shape, -1))]


def _categorical(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Draws of indices from logits (…, K), by the Gumbel trick with a local generator."""
    u = torch.rand(logits.shape, generator=generator, dtype=logits.dtype).to(logits.device)
    return (logits - (-u.clamp(min=1e-300).log()).log()).argmax(-1)
