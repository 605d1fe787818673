"""The posterior mode of the shared latents, found over all groups: where expectation propagation starts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from probdl.errors import ConvergenceError
from probdl.inference.groups.derivatives import Derivatives
from probdl.inference.laplace import _finite_or_identity, _finite_or_uphill


class Total:
    """The sum of the groups' log-likelihoods and the prior; each point is seen by all groups once.

    Args:
        evaluate: maps z to the derivatives of each part.
        like: a tensor of the dtype and device to use.
    """

    def __init__(self, evaluate: Callable[[Tensor], list[Derivatives]], like: Tensor) -> None:
        self.evaluate, self.like = evaluate, like
        self.key = b""
        self.parts: list[Derivatives] = []

    def at(self, x: Any) -> list[Derivatives]:
        """Return the derivatives of all parts at x."""
        if x.tobytes() != self.key:
            self.key, self.parts = x.tobytes(), self.evaluate(torch.as_tensor(x).to(self.like))
        return self.parts

    def value_and_gradient(self, x: Any) -> tuple[float, Any]:
        """Return minus the sum and its gradient, for an optimiser."""
        value, gradient = _finite_or_uphill(*(torch.stack([p[i] for p in self.at(x)]).sum(0) for i in (0, 1)))
        return float(value), gradient.cpu().double().numpy()

    def curvature(self, x: Any) -> Any:
        """Return minus the sum of the Hessians."""
        return _finite_or_identity(-torch.stack([p[2] for p in self.at(x)]).sum(0)).cpu().double().numpy()


def find_start(evaluate: Callable[[Tensor], list[Derivatives]], z: Tensor) -> tuple[Tensor, list[Derivatives]]:
    """Return the mode of the sum of the parts, with the derivatives of each part there.

    Raises:
        ConvergenceError: if there is no mode with positive curvature.
    """
    from scipy.optimize import minimize

    total = Total(evaluate, z)
    options = {"maxiter": 200, "gtol": 1e-6}
    try:
        result = minimize(
            total.value_and_gradient, z.cpu().double().numpy(), jac=True, hess=total.curvature, method="trust-exact",
            options=options,
        )  # fmt: skip
    except ConvergenceError as reason:
        raise ConvergenceError(_no_mode(str(reason))) from reason
    parts = total.at(result.x)
    smallest = float(torch.linalg.eigvalsh(-sum(p[2] for p in parts))[0])
    if not smallest > 0:
        raise ConvergenceError(_no_mode(f"the smallest curvature found is {smallest:.2g}"))
    return torch.as_tensor(result.x).to(z), parts


def _no_mode(why: str) -> str:
    return (
        f"Expectation propagation over groups starts at the posterior mode of the latents that the groups share, and "
        f"found none ({why}). Give every latent a proper prior, write hierarchical effects non-centred (raw ~ N(0, 1), "
        "effect = mean + sd · raw), or use method='nuts'."
    )
