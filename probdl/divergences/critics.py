"""Divergences that a critic sees: a function is trained on one part of the draws and valued on another."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from probdl.access import Draws
from probdl.divergences.dispatch import at_most, draws_of, hold_pair, noted, positive_integer
from probdl.divergences.estimate import Estimate
from probdl.divergences.function_classes import BoundedCritic, KernelCritic, LipschitzCritic
from probdl.divergences.held_out import learn, prepare, scores, values
from probdl.divergences.variational import BOUNDS, bounded_below, donsker_varadhan, tail

NAMES = ("x", "y")
KINDS = ("kl", *BOUNDS)
MOST, PAIRWISE = 200_000, 20_000  # draws of each side that a network and a kernel use


def f_divergence(
    x: Any, y: Any, kind: str = "js", network: nn.Module | None = None, *, steps: int = 2000, seed: int = 0
) -> Estimate:
    r"""Return a lower bound on an f-divergence, by a network that is trained to tell x from y.

    .. math:: D_f(P\|Q) = \sup_T E_P\,T(X) - E_Q\,f^*(T(Y))

    Half of the draws train the network, a tenth stops it, and the rest give the value, so no fit can inflate it.

    Args:
        x: draws of P, shape (n, d) or (n,), weighted as ``probdl.Draws``, or a distribution, which is sampled.
        y: draws of Q, as x.
        kind: "js", as a GAN's discriminator has it; KL(P‖Q) as "kl" (Donsker and Varadhan's form) or "kl_nwj" (that of
            Nguyen, Wainwright and Jordan); "reverse_kl", KL(Q‖P); "hellinger2"; "tv"; "pearson", χ²(P‖Q).
        network: maps (n, d), in the units of the data, to (n,) or (n, 1); it is trained in place, in its own dtype.
            After "js" the discriminator :math:`D^*(x) = p(x)/(p(x) + q(x))` is ``torch.sigmoid(network(x))``, and its
            logit is log p/q, as it is for "kl", "kl_nwj", "reverse_kl" and "hellinger2". None chooses one.
        steps: of the training, at most; it stops where the bound no longer grows on the tenth.
        seed: of the split, the initial weights and the batches.

    Returns:
        An ``Estimate``, in nats where the divergence is; target "lower bound", and it may be negative. No standard
        error where the terms have a heavy tail (Pareto k-hat above .5).

    Raises:
        ValueError: for an unknown kind, bad draws, fewer than 40 of a side, a network of another shape.
        ConvergenceError: if the training comes upon a number that is not finite.

    Source:
        Nowozin, Cseke and Tomioka (2016), f-GAN, NeurIPS; Nguyen, Wainwright and Jordan (2010), IEEE Transactions on
        Information Theory 56(11); Belghazi et al. (2018), MINE, ICML.

    Example:
        >>> x = torch.linspace(0, 1, 200, dtype=torch.float64)
        >>> f_divergence(x, x + 3, kind="js", steps=200).value > 0.65  # at most log 2
        True
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(map(repr, KINDS))}; got {kind!r}.")
    positive_integer(steps, "steps")
    a, b, notes = _draws(x, y, MOST, seed)
    sides = prepare(a, b, network, seed, columnwise=True)
    # For the best constant in T, Nguyen's form is Donsker and Varadhan's; only its batch means are unbiased.
    learn(sides, partial(_loss, "kl_nwj" if kind == "kl" else kind), steps, seed)
    (p, v), (q, w) = sides.x.held_out, sides.y.held_out
    return noted(_bound(kind, values(sides.network, p), values(sides.network, q), v, w), *notes)


def f_divergence_loss(fx: Tensor, fy: Tensor, kind: str = "js") -> Tensor:
    r"""Return the negative variational bound of a critic's values on two batches, with gradients.

    .. math:: -E_P\,T(X) + E_Q\,f^*(T(Y))

    Args:
        fx: the critic's values on draws of P, shape (n,).
        fy: those on draws of Q, shape (m,).
        kind: as in :func:`f_divergence`.

    Returns:
        A scalar; under "js" it is the discriminator's mean cross-entropy less log 2.

    Raises:
        ValueError: for an unknown kind.

    Source:
        As of :func:`f_divergence`.

    Example:
        >>> f_divergence_loss(torch.tensor([2.0]), torch.tensor([-2.0]))
        tensor(-0.5662)
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(map(repr, KINDS))}; got {kind!r}.")
    if kind == "kl":
        return torch.logsumexp(fy, 0) - math.log(len(fy)) - fx.mean()
    return -BOUNDS[kind].first(fx).mean() - BOUNDS[kind].second(fy).mean()


def _loss(kind: str, network: nn.Module, x: Tensor, y: Tensor, _: torch.Generator) -> Tensor:
    return f_divergence_loss(scores(network, x), scores(network, y), kind)


def _bound(kind: str, fx: Tensor, fy: Tensor, v: Tensor, w: Tensor) -> Estimate:
    """Value the bound at held-out scores; without a variance there is no error."""
    n = len(fx) + len(fy)
    notes: tuple[str, ...] = ("the critic was valued on draws that it was not trained on",)
    if kind == "kl":
        value, stderr = donsker_varadhan(fx, fy, v, w)
        notes += ("the logarithm of a mean is too small on average, by about half its relative variance",)
    else:
        value, stderr = bounded_below(kind, fx, fy, v, w)
    k = tail(kind, fx, fy)
    if k < 0.5:
        return Estimate(value, stderr, "critic", "lower bound", n, notes)
    heavy = f"the bound's terms have a heavy tail (Pareto k-hat {k:.2f}): no error is given"
    return Estimate(value, None, "critic", "lower bound", n, (*notes, heavy))


def ipm(
    x: Any, y: Any, critic: LipschitzCritic | BoundedCritic | KernelCritic | None = None, *, seed: int = 0
) -> Estimate:
    r"""Return an integral probability metric: how far apart the functions of a class see the means of x and y.

    .. math:: IPM_F(P, Q) = \sup_{f \in F} E_P f(X) - E_Q f(Y)

    The class decides which metric it is: ``LipschitzCritic`` gives W1, ``BoundedCritic``, 0 ≤ f ≤ 1, TV, and
    ``KernelCritic``, the unit ball of an RKHS, MMD (the root of :func:`mmd2`).

    Args:
        x: draws of P, shape (n, d) or (n,), weighted as ``probdl.Draws``, or a distribution, which is sampled.
        y: draws of Q, as x.
        critic: the class of functions and how its best is found; None is ``LipschitzCritic()``.
        seed: of the split, the initial weights and the batches.

    Returns:
        An ``Estimate`` in the unit of f: the held-out value of the function that was found, so a "lower bound"; under
        a gradient penalty an "approximation". It may be negative.

    Raises:
        ValueError: for bad draws, fewer than 40 of a side, a network that cannot be used.
        ConvergenceError: if the training comes upon a number that is not finite.

    Source:
        Müller (1997), Advances in Applied Probability 29(2); Sriperumbudur et al. (2012), EJS 6; Arjovsky, Chintala and
        Bottou (2017), ICML.

    Example:
        >>> x = torch.linspace(0, 1, 200, dtype=torch.float64)
        >>> 0.95 < ipm(x, x + 3, BoundedCritic()).value <= 1
        True
    """
    if critic is not None and not isinstance(critic, (LipschitzCritic, BoundedCritic, KernelCritic)):
        raise TypeError(f"critic must be a LipschitzCritic(), BoundedCritic() or KernelCritic(); got {critic!r}.")
    most = PAIRWISE if isinstance(critic, KernelCritic) else MOST
    a, b, notes = _draws(x, y, most, seed)
    return noted((critic or LipschitzCritic()).value(a, b, seed), *notes)


def _draws(x: Any, y: Any, most: int, seed: int) -> tuple[Draws, Draws, tuple[str, ...]]:
    a, b, notes = draws_of(*hold_pair(x, y, NAMES), NAMES, seed)
    (a, some), (b, more) = at_most(a, most, "x", 2 * seed), at_most(b, most, "y", 2 * seed + 1)
    return a, b, (*notes, *some, *more)
