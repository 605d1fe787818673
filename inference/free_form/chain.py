r"""A chain of discrete latents as one factor, as in a hidden Markov model: q(z₁, …, z_T) by forward–backward sums."""

from __future__ import annotations

import torch
from torch import Tensor

from probdl.inference.free_form.blocks import Block


class ChainBlock(Block):
    r"""A Markov chain q(z) ∝ exp(Σ_t a_t(z_t) + Σ_t b_t(z_{t−1}, z_t)), the same for n independent units.

    The moments are the probabilities of each latent, (T·n, K) with time first, and of neighbours, ((T−1)·n, K, K).

    Args:
        names: the T latents in order.
        sequence: the name of all of them together.
        shape: of each of them.
        support: their values, (K,).
        start: logits a of the latents, (T·n, K).
    """

    def __init__(
        self, names: tuple[str, ...], sequence: str, shape: torch.Size, support: Tensor, start: Tensor
    ) -> None:
        self.names, self.sequence, self.shape, self.support = names, sequence, shape, support
        self.pair = (sequence, "pair")
        n, k = shape.numel(), start.shape[-1]
        self.restore((start, start.new_zeros((len(names) - 1) * n, k, k)))

    def state(self) -> tuple[Tensor, ...]:
        """Return the logits of latents, and those of neighbours."""
        return self.natural

    def update(self, gradient: tuple[Tensor, ...]) -> None:
        """Take the gradient as logits."""
        self.restore(gradient)

    def _by_time(self) -> tuple[Tensor, Tensor]:
        single, double = self.natural
        t, k = len(self.names), single.shape[-1]
        return single.reshape(t, -1, k), double.reshape(t - 1, -1, k, k)

    def restore(self, state: tuple[Tensor, ...]) -> None:
        """Take logits, and find the probabilities by forward and backward sums."""
        self.natural = state
        single, double = self._by_time()
        forward = [single[0]]
        for a, b in zip(single[1:], double):
            forward.append((forward[-1][..., :, None] + b).logsumexp(-2) + a)
        backward = [torch.zeros_like(single[-1])]
        for a, b in zip(single[1:].flip(0), double.flip(0)):
            backward.append((b + (a + backward[-1])[..., None, :]).logsumexp(-1))
        self.forward = torch.stack(forward)
        behind = torch.stack(backward[::-1])
        self.log_normaliser = forward[-1].logsumexp(-1)
        ones = torch.softmax(self.forward + behind, -1)
        joint = self.forward[:-1, ..., :, None] + double + (single + behind)[1:, ..., None, :]
        twos = joint.flatten(-2).softmax(-1).reshape(double.shape)
        self.moments = (ones.reshape(state[0].shape), twos.reshape(state[1].shape))

    def entropy(self) -> Tensor:
        """Return the log normaliser minus the expected exponent."""
        expected = [torch.where(p > 0, a * p, torch.zeros_like(p)).sum() for a, p in zip(self.natural, self.moments)]
        return self.log_normaliser.sum() - torch.stack(expected).sum()

    def draws(self, n: int, generator: torch.Generator) -> list[Tensor]:
        """Return n draws of the indices of each latent, (n, units), backwards through the chain."""
        _, double = self._by_time()
        drawn = [_categorical(self.forward[-1].expand(n, *self.forward[-1].shape), generator)]
        for i in range(len(self.names) - 2, -1, -1):
            into = double[i].movedim(-1, 0)[drawn[0], torch.arange(double.shape[1], device=double.device)]
            drawn.insert(0, _categorical(self.forward[i] + into, generator))
        return drawn

    def log_prob(self, index: list[Tensor]) -> Tensor:
        """Return log q at indices (…, units) of each latent."""
        single, double = self._by_time()
        units = torch.arange(index[0].shape[-1], device=index[0].device)
        total = sum(a[units, i] for a, i in zip(single, index))
        total = total + sum(b[units, i, j] for b, i, j in zip(double, index, index[1:]))
        return (total - self.log_normaliser).sum(-1)

    def probabilities(self, name: str) -> Tensor:
        """Return the probabilities of one latent's values, (*shape, K)."""
        ones = self.moments[0].reshape(len(self.names), *self.shape, -1)
        return ones[self.names.index(name)]

    def named(self, moments: tuple[Tensor, ...]) -> dict:
        """Return the moments by what factors call them: the sequence, its pairs, and its first latent."""
        ones, twos = moments
        return {self.sequence: (ones,), self.pair: (twos,), self.names[0]: (ones[: self.shape.numel()],)}

    def child(self, moments: tuple[Tensor, ...]) -> list[Tensor]:
        """The indicator of the first latent, in its shape."""
        return [moments[0].reshape((*self.shape, -1))]


def _categorical(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Draws of indices from logits (…, K), by the Gumbel trick with a local generator."""
    u = torch.rand(logits.shape, generator=generator, dtype=logits.dtype).to(logits.device)
    return (logits - (-u.clamp(min=1e-300).log()).log()).argmax(-1)
