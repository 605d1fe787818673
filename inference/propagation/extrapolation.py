"""Fixed points in fewer steps: a step is taken from the combination of earlier iterates with the smallest residual."""

from __future__ import annotations

import torch
from torch import Tensor


class AndersonMixing:
    r"""Propose the next iterate of x = g(x) from the last few of them.

    With residuals r = g(x) − x, the weights of the last iterates, summing to one, that minimise the norm of the
    combined residual also combine the images g(x). On a linear map this is a Krylov method: slow directions, which a
    plain iteration follows for a hundred steps, are solved for.

    Args:
        depth: how many differences of iterates are kept.
        ridge: added to the least-squares problem, relative to its scale, so that it stays well posed.

    Source: Walker & Ni (2011), *Anderson acceleration for fixed-point iterations*, SIAM Journal on Numerical Analysis.

    Example:
        >>> import torch
        >>> slow, x = torch.tensor([0.99, 0.9], dtype=torch.float64), torch.ones(2, dtype=torch.float64)
        >>> mixing = AndersonMixing()
        >>> for _ in range(4):
        ...     x = mixing.propose(x, slow * x)
        >>> bool(x.norm() < 1e-6)  # the fixed point is 0; plain steps would be at 0.96
        True
    """

    def __init__(self, depth: int = 6, ridge: float = 1e-12) -> None:
        self.depth, self.ridge = depth, ridge
        self._iterates: list[Tensor] = []
        self._images: list[Tensor] = []

    def forget(self) -> None:
        """Begin anew from the next iterate."""
        self._iterates.clear()
        self._images.clear()

    def propose(self, x: Tensor, image: Tensor, weights: Tensor | None = None, step: float = 1.0) -> Tensor:
        """Return the next iterate.

        Args:
            x: where we are, (n,).
            image: g(x), (n,).
            weights: scales of the entries of the residual in the least-squares norm, (n,).
            step: damping towards the image, as in x + step·(g(x) − x).
        """
        self._iterates.append(x)
        self._images.append(image)
        del self._iterates[: -self.depth - 1], self._images[: -self.depth - 1]
        residual = image - x
        plain = x + step * residual
        if len(self._iterates) == 1:
            return plain
        iterates, images = torch.stack(self._iterates, 1), torch.stack(self._images, 1)
        steps, residual_steps = iterates.diff(dim=1), (images - iterates).diff(dim=1)
        scale = torch.ones_like(x) if weights is None else weights
        gamma = _ridge_solution(residual_steps * scale[:, None], residual * scale, self.ridge)
        return plain - (steps + step * residual_steps) @ gamma


def _ridge_solution(a: Tensor, b: Tensor, ridge: float) -> Tensor:
    """Minimise ‖a γ − b‖² + ridge·‖D γ‖², where D holds the norms of the columns of a."""
    norms = a.norm(dim=0).clamp(min=torch.finfo(a.dtype).tiny)
    a = a / norms
    gram = a.T @ a
    gram.diagonal().add_(max(ridge, 10 * torch.finfo(a.dtype).eps))
    return torch.linalg.solve(gram, a.T @ b) / norms
