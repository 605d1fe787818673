r"""Guides: what proposes latents on a batch, by networks or by a Pyro program, and the bound that they give.

The bound of a batch of m of n rows is :math:`\log p(z) - \log q(z) + \frac nm \sum_i [\log p(x_i, z_i \mid z) -
\log q(z_i \mid x_i)]`, with z the latents that all rows share and :math:`z_i` those of a row.
"""

from __future__ import annotations

import copy
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.nn.functional import softplus

from probdl.errors import ConvergenceError
from probdl.inference.latents import Latent
from probdl.inference.minibatches import Batch, RowsOfPlates, RowSource, row_arguments, site_sums
from probdl.inference.program import Program, _log_prob
from probdl.inference.row_plates import local_sites, sample_sites

FLOOR = 1e-6  # of the scales that a network gives
Sums = tuple[Tensor, Tensor]  # outside and inside the plates


class Guide(ABC):
    """What proposes values for all latent sites on a batch.

    Args:
        source: where batches come from.
    """

    def __init__(self, source: RowSource) -> None:
        self.source, self.program = source, source.program

    @abstractmethod
    def propose(self, program: Program, inputs: tuple[Tensor, ...]) -> tuple[dict[str, Tensor], Sums]:
        """Return values of the latent sites, and log q of them: of those that all rows share, and of the rows'."""

    @abstractmethod
    def parameters(self) -> list[Tensor]:
        """Return what can be learned in the guide, other than Pyro's parameters."""

    def bound(self, batch: Batch) -> Tensor:
        """Return an estimate of the bound from a batch, in nats; gradients flow through it."""
        outside, inside = self.parts(batch)
        return outside + batch.factor * inside

    def parts(self, batch: Batch) -> Sums:
        """Return log p − log q on a batch: of what all rows share, and of these rows."""
        program = self.source.on(batch.inputs)
        values, (q_outside, q_inside) = self.propose(program, batch.inputs)
        trace = program._trace(lambda msg: _value(values, msg))
        with program._running():
            outside, inside = site_sums(trace, self.source.plates)
        return outside - q_outside, inside - q_inside

    def whole_bound(self) -> Tensor:
        """Return an estimate of the bound from all rows, by a pass."""
        total = torch.zeros((), dtype=self.program.dtype, device=self.program.device)
        for i, batch in enumerate(self.source.whole()):
            outside, inside = self.parts(batch)
            total = total + (outside if i == 0 else 0.0) + batch.factor * inside
        return total

    def check_finite(self, batch: Batch, step: int) -> None:
        """Raise a ConvergenceError that names the sites that are not finite on this batch."""
        program = self.source.on(batch.inputs)
        bad_data = any(x.is_floating_point() and not bool(torch.isfinite(x).all()) for x in batch.inputs)
        with torch.no_grad():
            values, _ = self.propose(program, batch.inputs)
            trace = program._trace(lambda msg: _value(values, msg))
            with program._running():
                bad = [k for k, s in sample_sites(trace).items() if not bool(torch.isfinite(_log_prob(s)).all())]
        if bad_data:
            where = f" (site {', '.join(bad)})" if bad else ""
            raise ConvergenceError(f"At step {step} the batch itself holds NaN or infinities{where}: clean the data.")


def _value(values: dict[str, Tensor], msg: dict) -> Tensor:
    if msg["name"] not in values:
        raise ValueError(
            f"The guide gives no value to the latent site {msg['name']!r}, only to {', '.join(values) or 'none'}. Add "
            "it."
        )
    return values[msg["name"]]


class NetworkGuide(Guide):
    r"""A mean-field Gaussian for latents that all rows share, and networks for those of each row.

    The density of a proposal is taken at parameters that gradients do not reach: its own part of the gradient has mean
    zero, and without it the noise vanishes where q is exact (Roeder, Wu and Duvenaud 2017).

    Args:
        source: where batches come from.
        networks: by site with a value for each row.

    Raises:
        ValueError: if the networks do not fit the sites.
    """

    def __init__(self, source: RowSource, networks: dict[str, nn.Module]) -> None:
        super().__init__(source)
        self.networks, program = networks, source.program
        self.local = local_sites(program, source.plates) if source.plates else ()
        _check_networks(program, networks, self.local)
        self.shared = {k: x for k, x in program.latents.items() if k not in self.local}
        self.latents = _laid_out(self.shared)
        start = torch.cat([program.start[:0], *(program.start[x.place] for x in self.shared.values())])
        self.mean = start.clone().requires_grad_()
        self.log_sd = torch.full_like(start, -2.0).requires_grad_()

    def parameters(self) -> list[Tensor]:
        """Return means and log-sds of the shared latents, and the networks' parameters."""
        own = [self.mean, self.log_sd] if len(self.mean) else []
        return [*own, *(p for net in self.networks.values() for p in net.parameters())]

    def propose(self, program: Program, inputs: tuple[Tensor, ...]) -> tuple[dict[str, Tensor], Sums]:
        """Return draws of all sites with their log-densities."""
        z, outside = _draw(self.mean, self.log_sd.exp())
        values = {k: x.constrain(z) for k, x in self.latents.items()}
        outside = outside - self._log_jacobian(z)
        inside = z.new_zeros(())
        for name, (mean, sd) in self.encode(program, inputs).items():
            u, log_q = _draw(mean, sd)
            latent = self.program.latents[name]
            u = u.reshape(len(u), *latent.free_shape[1:])
            values[name] = latent.transform(u)
            inside = inside + log_q - latent.transform.log_abs_det_jacobian(u, values[name]).sum()
        return values, (outside, inside)

    def _log_jacobian(self, z: Tensor) -> Tensor:
        total = z.new_zeros(())
        for latent in self.latents.values():
            u = z[latent.place].reshape(latent.free_shape)
            total = total + latent.transform.log_abs_det_jacobian(u, latent.transform(u)).sum()
        return total

    def encode(self, program: Program, inputs: tuple[Tensor, ...]) -> dict[str, tuple[Tensor, Tensor]]:
        """Return mean and sd (m, k) of each row's latents on unconstrained space."""
        data = rows_of(self.source, inputs)
        return {name: self._encoded(name, net, data) for name, net in self.networks.items()}

    def _encoded(self, name: str, net: nn.Module, data: list[Tensor]) -> tuple[Tensor, Tensor]:
        shape = self.program.latents[name].free_shape
        width = max(1, int(torch.tensor(shape[1:]).prod()))
        out = net(*data[: _takes(net, len(data))])
        if out.shape != (len(data[0]), 2 * width):
            raise ValueError(
                f"The network for {name!r} must return mean and raw scale of its {width} entries, shape "
                f"({len(data[0])}, {2 * width}); got {tuple(out.shape)}."
            )
        mean, raw = out.chunk(2, -1)
        return mean, softplus(raw) + FLOOR


def _draw(mean: Tensor, sd: Tensor) -> tuple[Tensor, Tensor]:
    """A draw mean + sd·ε, and its log-density summed, whose parameters gradients do not reach."""
    z = mean + sd * torch.randn_like(mean)
    return z, torch.distributions.Normal(mean.detach(), sd.detach(), validate_args=False).log_prob(z).sum()


def rows_of(source: RowSource, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """Return the rows of the data arguments on a batch, in the order of the arguments."""
    if not isinstance(source, RowsOfPlates):
        return list(inputs)
    named: dict[int | str, Tensor] = {**dict(enumerate(source.program.args)), **source.program.kwargs}  # type: ignore[dict-item]
    return [named[key][inputs[0]] for key in row_arguments(source.program, source.n)]


def _takes(net: nn.Module, most: int) -> int:
    """How many data arguments a network's forward takes."""
    kinds = [p.kind for p in inspect.signature(net.forward).parameters.values() if p.default is p.empty]
    if inspect.Parameter.VAR_POSITIONAL in kinds:
        return most
    return max(1, min(most, len(kinds)))


def _laid_out(latents: dict[str, Latent]) -> dict[str, Latent]:
    """The latents one after another in a vector of their own."""
    laid, stop = {}, 0
    for name, x in latents.items():
        start, stop = stop, stop + x.place.stop - x.place.start
        laid[name] = Latent(x.name, slice(start, stop), x.free_shape, x.shape, x.transform, x.prior)
    return laid


def _check_networks(program: Program, networks: dict[str, nn.Module], local: tuple[str, ...]) -> None:
    if set(networks) != set(local):
        raise ValueError(
            f"guide must have one network for each site with a value for each row, {', '.join(local) or 'none'}; got "
            f"{', '.join(networks) or 'none'}. Pass guide={{site: network}}, or a Pyro guide."
        )
    for name, net in networks.items():
        wrong = {p.dtype for p in net.parameters() if p.is_floating_point()} - {program.dtype}
        if wrong:
            raise ValueError(
                f"The network for {name!r} is {wrong.pop()}, but the data are {program.dtype}: convert it with .to(), "
                "or pass dtype= to fit."
            )


class PyroGuide(Guide):
    """A guide that is a Pyro program with the model's arguments.

    Args:
        source: where batches come from.
        guide: samples every latent site of the model, from distributions with reparameterised draws.
    """

    def __init__(self, source: RowSource, guide: Callable) -> None:
        super().__init__(source)
        self.guide = guide

    def parameters(self) -> list[Tensor]:
        """Return the parameters of a guide that is a module."""
        return list(self.guide.parameters()) if isinstance(self.guide, nn.Module) else []

    def propose(self, program: Program, inputs: tuple[Tensor, ...]) -> tuple[dict[str, Tensor], Sums]:
        """Return draws of all sites with their log-densities."""
        trace = self.trace(program, inputs)
        sites = sample_sites(trace)
        for name, site in sites.items():
            if not site["is_observed"] and not site["fn"].has_rsample:
                raise ValueError(
                    f"The guide's site {name!r} has a {type(site['fn']).__name__}, which cannot be reparameterised. "
                    "Use a distribution with rsample, or sum the site out of the model."
                )
        with program._running():
            return {name: site["value"] for name, site in sites.items()}, site_sums(trace, self.source.plates)

    def trace(self, program: Program, inputs: tuple[Tensor, ...]) -> Any:
        """Run the guide on a batch."""
        run = copy.copy(program)
        run.model = self.source.with_rows(self.guide, inputs)
        with run._running():
            return poutine.trace(run.model).get_trace(*run.args, **run.kwargs)


def make_guide(source: RowSource, guide: Any) -> Guide:
    """Return the guide that a user's argument stands for.

    Raises:
        TypeError: if it is neither a network, a dict of networks, nor a Pyro guide.
    """
    if guide is None:
        return NetworkGuide(source, {})
    if isinstance(guide, dict):
        return NetworkGuide(source, guide)
    if isinstance(guide, nn.Module) and not isinstance(guide, PyroModule):
        local = local_sites(source.program, source.plates) if source.plates else ()
        return NetworkGuide(source, {local[0] if len(local) == 1 else "guide": guide})
    if callable(guide):
        return PyroGuide(source, guide)
    raise TypeError(
        f"guide must be a network, a dict of networks by site, or a Pyro guide; got {type(guide).__name__}."
    )


def learnable(guide: Guide) -> list[Tensor]:
    """Return all parameters to learn, after a first run that makes Pyro's: of the guide and of the model."""
    stored = [p for _, p in pyro.get_param_store().named_parameters()]
    model = guide.program.model
    own = list(model.parameters()) if isinstance(model, nn.Module) else []
    unique = {id(p): p for p in (*guide.parameters(), *stored, *own) if p.requires_grad}
    return list(unique.values())
