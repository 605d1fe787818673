"""Networks as guides: mean and scale of the latents of every row, from its data."""

from __future__ import annotations

import inspect

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from probdl.inference.programs.latents import Latent
from probdl.inference.programs.program import Program
from probdl.inference.stochastic.guides import Guide, Sums
from probdl.inference.stochastic.minibatches import RowsOfPlates, RowSource, row_arguments
from probdl.inference.stochastic.row_plates import local_sites

FLOOR = 1e-6  # of the scales that a network gives


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
