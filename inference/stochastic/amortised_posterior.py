"""Posteriors that a guide encodes: normals by networks, or draws of a Pyro guide."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from probdl.inference.posteriors.approximations import Approximation
from probdl.inference.programs import arguments
from probdl.inference.programs.latents import Latent
from probdl.inference.stochastic.diagonal import DiagonalGaussian
from probdl.inference.stochastic.minibatches import CHUNK, RowsOfPlates
from probdl.inference.stochastic.network_guide import NetworkGuide, rows_of
from probdl.inference.stochastic.pyro_guide import PyroGuide
from probdl.inference.stochastic.streams import RowsOfStream
from probdl.smoothing import kernel_density

_DRAWS = 1000


class AmortisedGaussian(DiagonalGaussian):
    """Normals for latents that all rows share, and by networks for those of each row of fit's data.

    ``encode`` gives them for other rows. Where the data came as an iterable, no rows are kept: only ``encode`` knows
    their latents.

    Args:
        latents: where each site stands.
        mean_: mean of z, shape (d,).
        sd_: standard deviation of z, shape (d,).
    """

    guide: NetworkGuide | None = None

    @classmethod
    def of(cls, guide: NetworkGuide) -> AmortisedGaussian:
        """Return the posterior of a guide that has learned."""
        latents, mean, sd = dict(guide.latents), [guide.mean.detach()], [guide.log_sd.detach().exp()]
        if isinstance(guide.source, RowsOfStream):
            latents = _SharedSites(latents, guide.local)
        else:
            for name, (m, s) in _encoded(guide).items():
                latents[name] = _of_all_rows(guide.program.latents[name], len(m), sum(map(len, mean)))
                mean.append(m.reshape(-1))
                sd.append(s.reshape(-1))
        self = cls(latents, torch.cat(mean), torch.cat(sd))
        self.guide = guide
        return self

    @torch.no_grad()
    def encode(self, *data: Any) -> dict[str, tuple[Tensor, Tensor]]:
        """Return mean and sd (m, k) of the latents of new rows, on unconstrained space, by site.

        Args:
            data: what the networks take, array-like, (m, ...) each.

        Raises:
            ValueError: if the posterior was loaded from a file, which holds no network.
        """
        if self.guide is None:
            raise ValueError("A loaded posterior has no network: fit again, or keep the network itself.")
        like = self.guide.program
        tensors = [arguments.as_tensors(lambda x: x, (x,), {}, like.dtype, like.device)[0][0] for x in data]
        return {name: self.guide._encoded(name, net, tensors) for name, net in self.guide.networks.items()}


class _SharedSites(dict):
    """The sites that all rows share; asked for one of the rows of an iterable, which are not kept, it says so."""

    def __init__(self, latents: dict[str, Latent], local: tuple[str, ...]) -> None:
        super().__init__(latents)
        self.local = local

    def __contains__(self, name: object) -> bool:
        if name in self.local:
            raise ValueError(
                f"Site {name!r} has a value for each row, and the rows of an iterable are not kept. Ask "
                "posterior.approximation.encode(x) for the mean and sd of the rows x."
            )
        return super().__contains__(name)


def _encoded(guide: NetworkGuide) -> dict[str, tuple[Tensor, Tensor]]:
    """Mean and sd of the latents of all rows, in chunks."""
    if not guide.networks:
        return {}
    source = guide.source
    rows = torch.arange(source.n, device=guide.program.device)
    data = rows_of(source, (rows,)) if isinstance(source, RowsOfPlates) else source._data()  # type: ignore[attr-defined]
    out: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in guide.networks}
    for part in rows.split(CHUNK):
        for name, net in guide.networks.items():
            out[name].append(guide._encoded(name, net, [x[part] for x in data]))
    return {name: (torch.cat([m for m, _ in x]), torch.cat([s for _, s in x])) for name, x in out.items()}


def _of_all_rows(latent: Latent, n: int, start: int) -> Latent:
    """The latent of a batch as one of n rows, from ``start`` on in the vector."""
    free, shape = torch.Size([n, *latent.free_shape[1:]]), torch.Size([n, *latent.shape[1:]])
    return Latent(latent.name, slice(start, start + free.numel()), free, shape, latent.transform, latent.prior)


class DrawnFromGuide(Approximation):
    """What a Pyro guide says of the latents on fit's data, by 1000 draws of it.

    Args:
        guide: a guide that has learned.
        seed: of the draws.
    """

    def __init__(self, guide: PyroGuide, seed: int) -> None:
        self.latents = guide.program.latents
        self.notes = (f"moments and quantiles are those of {_DRAWS} draws of the guide",)
        self._kept = _drawn(guide, _DRAWS, seed)
        shapes = {name: x.shape[1:] for name, x in self._kept.items()}
        self.latents = {name: _as_drawn(latent, shapes[name]) for name, latent in self.latents.items()}

    def mean(self, name: str) -> Tensor:
        """Return the mean of the draws."""
        return self._kept[name].mean(0)

    def sd(self, name: str) -> Tensor:
        """Return the standard deviation of the draws."""
        return self._kept[name].std(0)

    def quantile(self, name: str, q: float) -> Tensor:
        """Return the empirical quantile of the draws."""
        return self._kept[name].quantile(q, 0)

    def density(self, name: str, entry: int) -> tuple[Tensor, Tensor]:
        """Return a kernel density estimate of the draws."""
        return kernel_density(self._kept[name].reshape(_DRAWS, -1)[:, entry])

    def draws(self, n: int | None, seed: int) -> dict[str, Tensor]:
        """Return all draws, or n of them."""
        if n is None:
            return self._kept
        if n > _DRAWS:
            raise ValueError(f"n must be at most the {_DRAWS} draws of the guide that were kept; got {n}.")
        chosen = torch.randperm(_DRAWS, generator=torch.Generator().manual_seed(seed))[:n]
        return {name: x[chosen.to(x.device)] for name, x in self._kept.items()}


def _as_drawn(latent: Latent, shape: torch.Size) -> Latent:
    return Latent(latent.name, latent.place, latent.free_shape, shape, latent.transform, latent.prior)


def _drawn(guide: PyroGuide, n: int, seed: int) -> dict[str, Tensor]:
    """Draws of all sites on all of fit's rows, or of the shared ones where no rows are kept."""
    source = guide.source
    if isinstance(source, (RowsOfStream, RowsOfPlates)):
        raise ValueError(
            "A Pyro guide can be asked only about data in memory with a full plate. Use a network as guide, or "
            "leave out subsample_size and pass batch_size=."
        )
    program = source.program
    inputs = tuple(source._data()) if source.plates else ()  # type: ignore[attr-defined]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + 2)
        runs = [guide.propose(program, inputs)[0] for _ in range(n)]
    return {name: torch.stack([run[name] for run in runs]) for name in program.latents}
