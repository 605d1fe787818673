"""The expected log-density of each site, E_q log p(x | θ), as a multilinear function of the blocks' moments."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from probdl.inference.free_form.expected import expected_of
from probdl.inference.free_form.gaussian_block import GaussianBlock
from probdl.inference.free_form.location_probes import compile_location
from probdl.inference.free_form.probing import NotConjugate, Parameter
from probdl.inference.free_form.reading import Reading, Site, Values
from probdl.inference.free_form.weights import Moments, Weights, collapsed_dims


class Layout:
    """The blocks of a program's latents.

    Args:
        scalar: factors that are not Gaussian, by site.
        gaussian: the Gaussian blocks.
    """

    def __init__(self, scalar: dict[str, Any], gaussian: list[GaussianBlock]) -> None:
        self.scalar, self.gaussian = scalar, gaussian
        self.split: tuple[str, ...] = ()  # connected Gaussian sites that were too many to be joint

    def gaussian_of(self, names: tuple[str, ...]) -> list[GaussianBlock]:
        """The Gaussian blocks that hold some of these latents."""
        return [b for b in self.gaussian if any(name in b.names for name in names)]


class ExponentialFactor:
    """A site in exponential-family form: Σ ⟨T(x), E φ⟩ over entries, and over the values of discrete parents."""

    def __init__(self, reading: Reading, site: Site, layout: Layout) -> None:
        self.site = site
        axes = _axes(reading, site)
        parameters = [Parameter(reading, site, i, axes) for i in range(len(site.parts))]
        for p in parameters:
            for block in layout.gaussian_of(p.parents):
                raise NotConjugate(site.name, ", ".join(block.names), "is not conjugate in the Gaussian latent")
        self.expected = [expected_of(p, layout.scalar) for p in parameters]
        self.weights = Weights(reading, site, axes, collapsed_dims(parameters, site))
        self.own = layout.scalar.get(site.name) if site.value is None else None
        self.reads = {name for p in parameters for name in p.parents} | set(axes) | ({site.name} if self.own else set())
        self._statistics, self.base = self._observed(reading)

    def _observed(self, reading: Reading) -> tuple[list[Tensor] | None, Tensor | float]:
        site, x = self.site, self.site.value
        ones = torch.ones(site.batch, dtype=reading.program.dtype, device=reading.program.device)
        self._ones = ones
        if x is None or site.form is None:
            return ([ones] if site.form is None else None), 0.0
        x = x.to(reading.program.dtype) if site.kind != "categorical" else x
        base: Tensor | float = 0.0
        if site.form.base is not None:
            h = site.form.base(x)
            base = (h if site.weight is None else h * site.weight).sum()
        return [ones, *(t.to(ones.dtype) for t in site.form.statistics(x))], base

    def __call__(self, moments: Moments) -> Tensor:
        """Return the expected log-density, a scalar."""
        statistics = self._statistics
        constant = statistics is not None
        if statistics is None:
            assert self.own is not None
            statistics = [self._ones, *self.own.child(moments[self.site.name])]
        out: Tensor | float = self.base
        for i, (t, phi) in enumerate(zip(statistics, self.expected)):
            total = self.weights.total(i, t, moments, constant or i == 0)
            out = out + (total * phi(moments)).sum()
        assert isinstance(out, Tensor)
        return out


class ChainFactor(ExponentialFactor):
    """The transitions of a chain of discrete latents: joint probabilities of neighbours take the place of T and r."""

    def __init__(self, reading: Reading, site: Site, layout: Layout) -> None:
        super().__init__(reading, replace(site, name=""), layout)  # its own values are in the pairs
        self.site = site
        self.block = layout.scalar[site.members.sequence]
        self.reads.add(site.members.sequence)

    def __call__(self, moments: Moments) -> Tensor:
        """Return Σ P(z_{t−1}, z_t) E log p(z_t | z_{t−1})."""
        (joint,) = moments[self.block.pair]  # (times · units, K, K)
        k, times = joint.shape[-1], self.site.members.times
        if len(times) < len(self.block.names) - 1:
            joint = joint.reshape(len(self.block.names) - 1, -1, k, k)[times].reshape(-1, k, k)
        by_parent = joint.movedim(1, 0).reshape((k, *self.site.batch, k))
        if self.site.weight is not None:
            by_parent = by_parent * self.site.weight[..., None]
        return (by_parent * self.expected[1](moments)).sum()


class GaussianFactor:
    """A Normal or multivariate Normal site: ½ E log|P| − ½ tr(E P · E (x−l)(x−l)ᵀ) − d/2 log 2π."""

    def __init__(self, reading: Reading, site: Site, layout: Layout) -> None:
        self.site, self.d = site, int(math.prod(site.fn.event_shape))
        axes = _axes(reading, site)
        location, *scale = (Parameter(reading, site, i, axes) for i in range(3))
        for p in scale:
            for block in layout.gaussian_of(p.parents):
                raise NotConjugate(site.name, ", ".join(block.names), "has a scale that depends on the Gaussian latent")
        wrong = [name for name in location.parents if name in layout.scalar]
        if wrong:
            raise NotConjugate(site.name, wrong[0], "has a location that depends on the latent", grid=False)
        self.precision, self.log_det = (expected_of(p, layout.scalar) for p in scale)
        self.latent = site.value is None
        evaluate = _residual(reading, location, site, len(axes)) if self.latent else location
        names = (*location.parents, site.name) if self.latent else location.parents
        blocks = layout.gaussian_of(names)
        values = reading.random_values(22)
        self.location = compile_location(evaluate, site.name, blocks, values)
        collapsed = collapsed_dims([*scale] if self.latent else [location, *scale], site)
        if self.latent:
            collapsed = ()
        self.weights = Weights(reading, site, axes, collapsed)
        self.reads = {name for p in scale for name in p.parents} | set(axes) | {n for b in blocks for n in b.names}
        self._read_data(reading)

    def _read_data(self, reading: Reading) -> None:
        dtype, device = reading.program.dtype, reading.program.device
        self._ones = torch.ones(self.site.batch, dtype=dtype, device=device)
        if self.site.value is not None:
            x = self.site.value.to(dtype)
            x = x if self.site.fn.event_shape else x[..., None]
            self._x = x.expand(*self.site.batch, self.d)
            self._xx = self._x[..., :, None] * self._x[..., None, :]
        plain = self.d == 1 and not self.weights.axes and self.site.weight is None
        squares = 0.0 if self.latent else float((self._x**2).sum())
        self._sums = (float(self.site.batch.numel()), squares) if plain and self._is_full() else None

    def _is_full(self) -> bool:
        """Whether the location has an entry for each of the site's, rather than one for many."""
        moments = {id(b): b.moments for b in self.location.blocks}
        return self.location.first(moments)[..., 0].numel() == self.site.batch.numel()

    def __call__(self, moments: Moments) -> Tensor:
        """Return the expected log-density, a scalar."""
        precision, log_det = self.precision(moments), self.log_det(moments)
        if self._sums is not None and precision.numel() == 1 == log_det.numel():
            squares = self.location.sum_of_squares(moments)
            if squares is not None:
                return self._in_sums(precision.reshape(()), log_det.reshape(()), squares, moments)
        mean, second = self.location(moments)
        if self.d == 1:
            precision, second, mean = precision[..., 0, 0], second[..., 0, 0], mean[..., 0]
            quadratic = precision * second
        else:
            quadratic = (precision * second).sum((-2, -1))
        count = self.weights.total(0, self._ones, moments, True)
        out = 0.5 * (count * (log_det - quadratic - self.d * math.log(2 * math.pi))).sum()
        if self.latent:
            return out
        x = self.weights.total(1, self._x, moments, True)
        xx = self.weights.total(2, self._xx, moments, True)
        if self.d == 1:
            return out + (precision * (x[..., 0] * mean - 0.5 * xx[..., 0, 0])).sum()
        return out + (x * (precision @ mean[..., None])[..., 0]).sum() - 0.5 * (xx * precision).sum()

    def _in_sums(self, precision: Tensor, log_det: Tensor, squares: Tensor, moments: Moments) -> Tensor:
        """The same where one precision serves all entries of a Normal, of which only sums are needed."""
        assert self._sums is not None
        count, xx = self._sums
        out = 0.5 * count * (log_det - math.log(2 * math.pi)) - 0.5 * precision * (squares + xx)
        if self.latent:
            return out
        return out + precision * (self._x[..., 0] * self.location.first(moments)[..., 0]).sum()


def _residual(reading: Reading, location: Parameter, site: Site, axes: int):
    """Evaluate x − l, whose moments a latent site needs: x may share a factor with what l sees."""

    def evaluate(values: Values) -> Tensor:
        x = values[site.name]
        x = x if site.fn.event_shape else x[..., None]
        return x.reshape((1,) * axes + x.shape) - location(values)

    return evaluate


def _axes(reading: Reading, site: Site) -> tuple[str, ...]:
    return tuple(name for name in site.seen if name in reading.discrete)


def compile_factor(reading: Reading, site: Site, layout: Layout) -> Any:
    """Return the expected log-density of a site under the layout's mean field."""
    return (
        GaussianFactor(reading, site, layout) if site.kind == "gaussian" else ExponentialFactor(reading, site, layout)
    )
