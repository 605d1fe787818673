"""Hold a critic's slope: the gradient penalty, clipping, and bounds on the Lipschitz constant of a network."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from probdl.divergences.held_out import Critic, scores
from probdl.nn import MLP

Function = Callable[[Tensor], Tensor]
CONTRACTIONS = (nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.Sigmoid, nn.Softplus, nn.ELU, nn.Identity, nn.Flatten)


def gradient_norms(critic: Function, points: Tensor, create_graph: bool = False) -> Tensor:
    """Return the Euclidean norm of the critic's gradient at each row."""
    with torch.enable_grad():
        points = points.detach().requires_grad_()
        gradient = torch.autograd.grad(scores(critic, points).sum(), points, create_graph=create_graph)[0]
    return gradient.reshape(len(points), -1).norm(dim=1)


def between(x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
    """Return one random point on the line between each pair of rows."""
    share = torch.rand(len(x), *[1] * (x.ndim - 1), generator=generator, device=x.device, dtype=x.dtype)
    return share * x + (1 - share) * y


def gradient_penalty(
    critic: Function, x: Tensor, y: Tensor, generator: torch.Generator, *, two_sided: bool = False
) -> Tensor:
    r"""Return how far the slope of a critic exceeds 1 between the rows of two batches.

    .. math:: E\,(|\nabla f(\varepsilon X + (1 - \varepsilon) Y)| - 1)_+^2, \quad \varepsilon \sim U(0, 1)
        \text{ for each row}

    Slopes below 1 cost nothing, since a function of the dual of :math:`W_1` may have them; two-sided, they cost as much
    as those above.

    Args:
        critic: maps rows (n, ...) to (n,) or (n, 1).
        x: a batch of shape (n, ...).
        y: another of the same shape; neither gets a gradient.
        generator: of ε, on the device of x.
        two_sided: whether :math:`(|\nabla f| - 1)^2` counts below 1 too, as Gulrajani et al. have it.

    Returns:
        A scalar with a graph to the critic's parameters.

    Raises:
        ValueError: if the batches differ in shape.

    Source:
        Gulrajani et al. (2017), NeurIPS; one-sided as of Petzka, Fischer and Lukovnikov (2018), ICLR.

    Example:
        >>> critic = torch.nn.Linear(2, 1)
        >>> with torch.no_grad():
        ...     _ = critic.weight.copy_(torch.tensor([[3.0, 4.0]]))
        >>> gradient_penalty(critic, torch.zeros(5, 2), torch.ones(5, 2), torch.Generator()).item()
        16.0
    """
    if x.shape != y.shape:
        raise ValueError(f"x and y must have the same shape; got {tuple(x.shape)} and {tuple(y.shape)}.")
    norms = gradient_norms(critic, between(x.detach(), y.detach(), generator), create_graph=torch.is_grad_enabled())
    excess = norms - 1
    return (excess if two_sided else excess.clamp_min(0)).square().mean()


def clip(module: nn.Module, size: float) -> None:
    """Move every parameter to the nearest value in [−size, size]."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.clamp_(-size, size)


def lipschitz_bound(module: nn.Module) -> float:
    """Return a bound on the Lipschitz constant: spectral norms multiplied along a chain and added across branches."""
    if isinstance(module, nn.Linear):
        return torch.linalg.matrix_norm(module.weight.detach().double(), 2).item()
    if isinstance(module, CONTRACTIONS):
        return 1.0
    if isinstance(module, Critic):
        return lipschitz_bound(module.curved) + lipschitz_bound(module.straight)
    if isinstance(module, (MLP, nn.Sequential)):
        bound = 1.0
        for child in module.children():
            bound *= lipschitz_bound(child)
        return bound
    raise ValueError(
        f"no bound on the Lipschitz constant of {type(module).__name__} is known: for constraint='clip' the network "
        "must be a probdl.nn.MLP or torch.nn.Sequential of Linear layers and 1-Lipschitz activations."
    )
