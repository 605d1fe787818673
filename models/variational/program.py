"""A trained VAE as Pyro programs."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import TYPE_CHECKING, Any, NamedTuple

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, OneHotCategorical

from probdl.families import Joint
from probdl.models.networks import joined
from probdl.models.variational.layout import Group

if TYPE_CHECKING:
    from probdl.models.variational.latent_rows import LatentRows


class Programs(NamedTuple):
    """The trained model and its approximate posterior, as functions of (x=None, n=None, condition=None)."""

    model: Callable[..., Tensor]
    guide: Callable[..., Tensor]


class Program:
    """One of the two, around a model whose networks are fixed, in float64.

    Args:
        vae: the model.
    """

    def __init__(self, vae: LatentRows) -> None:
        self.vae = vae

    def __call__(self, x: Any = None, n: int | None = None, condition: Any = None) -> Tensor:
        """Sample, or score what is given.

        Args:
            x: rows in the data's units, as a tensor; NaN where an entry is missing. None: none are given.
            n: how many rows there are where x is None.
            condition: of the rows, for a model fitted with a condition.
        """
        if x is None and n is None:
            raise ValueError("n must be given where x is not: how many rows there are.")
        rows = None if x is None else self.vae._form.check(x, missing=True).double().to(self.vae._device)
        size = len(rows) if rows is not None else int(n or 0)
        c = self.vae._condition_of(condition, size)
        with pyro.plate("rows", size):
            return self.sites(size, rows, c)

    def sites(self, size: int, x: Tensor | None, c: Tensor | None) -> Tensor:
        """Sample what the program samples for each of the rows."""
        raise NotImplementedError

    def prior(self, size: int) -> Any:
        """Return p(z) of each row."""
        zero = torch.zeros(size, self.vae.latent_dim, dtype=torch.float64, device=self.vae._device)
        return dist.Normal(zero, 1.0).to_event(1)


class Guide(Program):
    """z given x, from the encoder; from the prior where there is no x."""

    def sites(self, size: int, x: Tensor | None, c: Tensor | None) -> Tensor:
        """Return codes (n, d)."""
        if x is None:
            return pyro.sample("z", self.prior(size))
        q = self.vae._pair()[0](self.vae._standardised(x), c).base_dist
        return pyro.sample("z", dist.Normal(q.loc, q.scale).to_event(1))


class Model(Program):
    """z from the prior, and x given z from the decoder."""

    def sites(self, size: int, x: Tensor | None, c: Tensor | None) -> Tensor:
        """Return rows; of those given, what is missing is NaN."""
        z, layout = pyro.sample("z", self.prior(size)), self.vae.layout
        given = z if c is None else torch.cat([z, c.expand(*z.shape[:-1], -1)], -1)
        # Networks take rows (n, d); Pyro may draw many z at once, in front.
        p = self.vae._pair()[1](joined(given.flatten(0, -2), None))
        parts = p.parts if isinstance(p, Joint) else [p]
        rows = given.new_zeros(*given.shape[:-1], *self.vae._form.shape)
        for group, part, name in zip(layout, parts, self._names()):
            law = self._in_units(part, group, given.shape[:-1])
            at = (...,) if group.entries is None else (..., list(group.entries))
            rows[at] = _sampled(name, law, None if x is None else group.of(x), group.name == "categorical")
        return rows

    def _names(self) -> list[str]:
        """Return the names of the sites."""
        if len(self.vae.layout) == 1:
            return ["x"]
        columns = iter(self.vae._form.blocks)
        names = [g.name for g in self.vae.layout]
        return [f"x.{n}.{next(columns).column}" if n == "categorical" else f"x.{n}" for n in names]

    def _in_units(self, part: Distribution, group: Group, batch: torch.Size) -> Any:
        """Return Pyro's distribution of the entries of a group, in the data's units, of this batch shape."""

        def shaped(t: Tensor) -> Tensor:
            return t.reshape(*batch, *t.shape[1:])

        if isinstance(part, OneHotCategorical):
            return dist.OneHotCategorical(logits=shaped(part.logits))
        assert isinstance(part, Independent)
        base, kind = part.base_dist, type(part.base_dist).__name__
        if kind == "Normal":
            shift, scale = self._units(group)
            return dist.Normal(shaped(base.loc) * scale + shift, shaped(base.scale) * scale).to_event(
                part.reinterpreted_batch_ndims
            )
        law = dist.Bernoulli(logits=shaped(base.logits)) if kind == "Bernoulli" else dist.Poisson(shaped(base.rate))
        return law.to_event(part.reinterpreted_batch_ndims)

    def _units(self, group: Group) -> tuple[Tensor, Tensor]:
        units = self.vae.units
        assert units is not None
        whole = group.entries is None or units.scale.ndim == 0
        at = ... if whole else list(group.entries or ())
        return units.shift[at], units.scale[at]


def _sampled(name: str, law: Any, x: Tensor | None, whole: bool) -> Tensor:
    """Sample at a site, or observe what is there.

    Args:
        name: of the site.
        law: of the entries of each row.
        x: those given, NaN where missing; or None.
        whole: whether the entries of a row are there or missing together.
    """
    if x is None:
        return pyro.sample(name, law)
    there = ~x.isnan()
    if there.all():
        return pyro.sample(name, law, obs=x)
    events, filled = len(law.event_shape), x.nan_to_num(0.0)
    if whole:  # a category that is missing has no term, but Pyro wants one all the same
        filled[~there.any(-1), 0] = 1.0
    law = law.mask(there.any(-1)) if whole else (law.base_dist if events else law).mask(there).to_event(events)
    return torch.where(there, pyro.sample(name, law, obs=filled), torch.nan)


def programs(vae: LatentRows) -> Programs:
    """Return the model and the guide of a trained VAE, around a copy of its networks, which are fixed."""
    fixed = deepcopy(vae).double().eval().requires_grad_(False)
    fixed.dtype = torch.float64
    return Programs(Model(fixed), Guide(fixed))
