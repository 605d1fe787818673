r"""A free-form factor on a grid, :math:`q(x) \propto \exp E_{-j} \log p` at points: scalars outside the families."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions.transforms import IndependentTransform, Transform

from probdl.inference.free_form.blocks import ExponentialBlock
from probdl.inference.programs.latents import Latent

POINTS = 201


def _by_entry(transform: Transform) -> Transform:
    """The transform of single entries, inside those that make events of them."""
    while isinstance(transform, IndependentTransform):
        transform = transform.base_transform
    return transform


class GridBlock(ExponentialBlock):
    """Probabilities of grid points, even in unconstrained space; statistics an indicator, (units, G).

    Args:
        latent: the site.
        centre: of the first grid in unconstrained space, (units,).
        reach: its half width.
    """

    def __init__(self, latent: Latent, centre: Tensor, reach: float = 8.0) -> None:
        self.latent, self.transform = latent, _by_entry(latent.transform)
        self.centre, self.reach = centre, torch.full_like(centre, reach)
        self._lay()
        super().__init__(latent.name, latent.shape, 0, -0.5 * (self.free - centre[:, None]) ** 2)

    def _lay(self) -> None:
        t = torch.linspace(-1, 1, POINTS, dtype=self.centre.dtype, device=self.centre.device)
        self.free = self.centre[:, None] + self.reach[:, None] * t
        self.points = self.constrained(self.free)
        inner = self.transform.log_abs_det_jacobian(self.free, self.points)
        self.log_spacing = inner + (self.reach[:, None] * 2 / (POINTS - 1)).log()

    def constrained(self, free: Tensor) -> Tensor:
        """Return the values (units, n) at unconstrained points (units, n)."""
        return self.transform(free)

    def knot_values(self) -> list[Tensor]:
        """The values of the site at which each unit has its first point, its second, and so on."""
        return [x.reshape(self.shape) for x in self.points.T]

    @staticmethod
    def statistics(x: Tensor) -> Tensor:
        """Not used: a grid is summed over."""
        raise NotImplementedError

    def _is_proper(self) -> Tensor:
        return (self.natural > -torch.inf).any(-1).all() & ~torch.isnan(self.natural).any()

    def _expected(self) -> Tensor:
        return torch.softmax(self.natural + self.log_spacing, -1)

    def needs_new_grid(self) -> bool:
        """Whether the mass lies on few points, or reaches an end of the grid."""
        p = self.moments[0]
        mean, sd = self._free_moments()
        few = sd < self.reach / 14
        wide = sd > self.reach / 5
        off = (mean - self.centre).abs() > 0.4 * self.reach
        ends = torch.maximum(p[:, 0], p[:, -1]) > 1e-9 * p.max(-1).values
        return bool((few | (wide & ends) | off).any())

    def _free_moments(self) -> tuple[Tensor, Tensor]:
        p = self.moments[0]
        mean = (p * self.free).sum(-1)
        return mean, (p * (self.free - mean[:, None]) ** 2).sum(-1).sqrt()

    def move(self) -> None:
        """Lay the grid anew where the mass is: eleven standard deviations on either side."""
        mean, sd = self._free_moments()
        step = 2 * self.reach / (POINTS - 1)
        self.place(mean, torch.maximum(11 * sd, 6 * step))

    def place(self, centre: Tensor, reach: Tensor) -> None:
        """Lay the grid over centre ± reach in unconstrained space, (units,) each."""
        self.centre, self.reach = centre, reach
        self._lay()

    def entropy(self) -> Tensor:
        """Return −∫ q log q by the same sum, over units."""
        p = self.moments[0]
        log_p = torch.log_softmax(self.natural + self.log_spacing, -1)
        density = log_p - self.log_spacing
        return -torch.where(p > 0, p * density, torch.zeros_like(p)).sum()

    def distribution(self) -> Any:
        """Return the distribution over points."""
        return torch.distributions.Categorical(probs=self.moments[0], validate_args=False)
