r"""The losses of the two players of an f-GAN.

The discriminator's value V stands for a bound, :math:`D_f(P ‖ Q) \ge E_P\,a(V(X)) + E_Q\,b(V(G(Z)))`, whose terms a
and b are those of ``probdl.divergences.f_divergence``; it ascends the bound. The generator descends it (saturating), or
ascends :math:`E\,a(V(G(Z)))` instead, whose gradient does not die where samples are told at once (non-saturating).
For JS, twice the bound is the value of Goodfellow's game up to 2 log 2, so both losses are doubled.

Reference: Goodfellow et al. (2014), Generative adversarial nets, NeurIPS; Nowozin, Cseke and Tomioka (2016), f-GAN,
NeurIPS, section 3.2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from probdl.divergences import f_divergence_loss
from probdl.divergences.variational import BOUNDS

# Of the names of f_divergence; KL in the form of Nguyen, Wainwright and Jordan, which is that of Nowozin et al.
KINDS = {"js": "js", "kl": "kl_nwj", "reverse_kl": "reverse_kl", "pearson": "pearson"}


def weight(kind: str) -> float:
    """Return by what the bound is multiplied in the losses."""
    return 2.0 if kind == "js" else 1.0


def critic_loss(real: Tensor, fake: Tensor, kind: str) -> Tensor:
    """Return the negative bound, doubled for "js"; both values (n,).

    Example:
        >>> critic_loss(torch.tensor([2.0]), torch.tensor([-2.0]), "js")
        tensor(-1.1324)
    """
    return weight(kind) * f_divergence_loss(real, fake, KINDS[kind])


def generator_loss(fake: Tensor, kind: str, saturating: bool) -> Tensor:
    """Return what the generator descends, given the discriminator's values of its samples, (n,).

    Example:
        >>> generator_loss(torch.tensor([2.0, 4.0]), "kl", saturating=False)
        tensor(-3.)
    """
    bound = BOUNDS[KINDS[kind]]
    term = bound.second(fake) if saturating else -bound.first(fake)
    return weight(kind) * term.mean()


def probability(values: Tensor, kind: str) -> Tensor:
    """Return D(x), the probability that a row is of the data and not a sample, if the bound is at its supremum.

    There V is log p/q, or for "pearson" 2(p/q − 1).
    """
    if kind == "pearson":
        ratio = (1 + values / 2).clamp_min(0)
        return ratio / (1 + ratio)
    return torch.sigmoid(values)
