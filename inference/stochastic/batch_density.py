"""The log-density of a program on a batch and its derivatives, at many points at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from probdl.errors import ConvergenceError
from probdl.inference.programs.derivatives import at_least
from probdl.inference.programs.program import _log_prob
from probdl.inference.programs.recording import NotRecordable, record
from probdl.inference.stochastic.minibatches import Batch, RowSource

Function = Callable[..., Tensor]


class BatchDensity:
    r"""The weighted sum :math:`w_0\, g(z) + w_1 \sum_{i \in \text{batch}} ℓ_i(z)`, recorded for each shape of batch.

    A recording is used only where it gives the program's own value at other rows and another z; everywhere else the
    program itself runs.

    Args:
        source: runs the program on a batch.
    """

    def __init__(self, source: RowSource) -> None:
        self.source, self.program = source, source.program
        self.notes: tuple[str, ...] = ()
        self._functions: dict[tuple, tuple[Function, bool]] = {}

    def weights(self, outside: float, inside: float) -> Tensor:
        """Return the two weights as a tensor."""
        return torch.tensor([outside, inside], dtype=self.program.dtype, device=self.program.device)

    def value(self, z: Tensor, weights: Tensor, *inputs: Tensor) -> Tensor:
        """Return the weighted sum at z (d,), a scalar, by running the program."""
        return (self.source.terms(z, inputs) * weights).sum()

    def at(self, z: Tensor, weights: Tensor, batch: Batch) -> Tensor:
        """Return the weighted sum at z (d,), a scalar, recorded where that is safe; gradients flow through it."""
        return self._function(batch)[0](z, weights, *batch.inputs)

    def values_and_gradients(self, z: Tensor, weights: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return values (S,) and gradients (S, d) of the weighted sum at z (S, d)."""
        points = z.detach().requires_grad_()
        with torch.enable_grad():
            values = self._many(points, weights, batch)
            (gradients,) = torch.autograd.grad(values.sum(), points)
        return values.detach(), gradients

    def _many(self, z: Tensor, weights: Tensor, batch: Batch) -> Tensor:
        f, recorded = self._function(batch)
        if recorded:
            return torch.vmap(lambda one: f(one, weights, *batch.inputs))(z)
        return torch.stack([f(one, weights, *batch.inputs) for one in z])

    def hessian(self, z: Tensor, batches: Iterable[Batch], chunk: int = 64) -> Tensor:
        """Return the matrix of second derivatives (d, d) of the log-density at z (d,), by scaled batches."""
        eye = torch.eye(len(z), dtype=z.dtype, device=z.device)
        total = torch.zeros_like(eye)
        for i, batch in enumerate(batches):
            weights = self.weights(float(i == 0), batch.factor)
            rows = [self._products(z, weights, batch, part) for part in eye.split(chunk if self.runs_fast else 1)]
            total += torch.cat(rows)
        return (total + total.T) / 2

    def products(self, z: Tensor, batches: Iterable[Batch], directions: Tensor) -> Tensor:
        """Return the products (k, d) of the matrix of second derivatives with directions (k, d)."""
        parts = [self._products(z, self.weights(float(i == 0), b.factor), b, directions) for i, b in enumerate(batches)]
        return torch.stack(parts).sum(0)

    def _products(self, z: Tensor, weights: Tensor, batch: Batch, directions: Tensor) -> Tensor:
        points = z.detach().expand(len(directions), -1).clone().requires_grad_()
        with torch.enable_grad():
            value = self._many(points, weights, batch).sum()
            (gradients,) = torch.autograd.grad(value, points, create_graph=True)
            if not gradients.requires_grad:
                return torch.zeros_like(directions)
            (products,) = torch.autograd.grad((gradients * directions).sum(), points, allow_unused=True)
        return torch.zeros_like(directions) if products is None else products

    @property
    def runs_fast(self) -> bool:
        """Whether no batch so far needed the program itself."""
        return all(recorded for _, recorded in self._functions.values())

    def _function(self, batch: Batch) -> tuple[Function, bool]:
        shape = tuple((x.shape, x.dtype) for x in batch.inputs)
        if shape not in self._functions:
            self._functions[shape] = self._recorded(batch.inputs)
        return self._functions[shape]

    def _recorded(self, inputs: tuple[Tensor, ...]) -> tuple[Function, bool]:
        here, there = (self.program.start, *inputs), (self.program.start + 0.37, *_resampled(inputs))
        here, there = ((z, self.weights(1.0, w), *rows) for (z, *rows), w in ((here, 2.0), (there, 3.0)))
        try:
            graph = record(self.value, *here, again=there)
            self._check(graph, there)
        except NotRecordable as reason:
            note = f"the program runs at each evaluation, since it could not be recorded: {reason}"
            self.notes += () if note in self.notes else (note,)
            return self.value, False
        return graph, True

    def _check(self, graph: Function, there: tuple[Tensor, ...]) -> None:
        with torch.no_grad():
            recorded, program = graph(*there), self.value(*there)
        close = at_least(1e-9, self.program.dtype, 1e3)
        if not torch.allclose(recorded, program, rtol=close, atol=close, equal_nan=True):
            raise NotRecordable("it reads the data in a way that a recording does not see, such as NumPy")

    def check_finite(self, z: Tensor, batch: Batch, when: str) -> None:
        """Raise a ConvergenceError that names the sites whose factors are not finite at z (d,) on this batch."""
        program = self.source.on(batch.inputs)
        holds_nan = any(x.is_floating_point() and not bool(torch.isfinite(x).all()) for x in batch.inputs)
        trace = program._trace(program._value_at(z))
        with program._running():
            factors = {
                k: _log_prob(s) for k, s in trace.nodes.items() if s["type"] == "sample" and k in _sites(program)
            }
        bad = [k for k, x in factors.items() if not bool(torch.isfinite(x).all())]
        if bad or holds_nan:
            cause = "The batch itself holds NaN or infinities: clean the data." if holds_nan else _ADVICE
            raise ConvergenceError(f"{when} the factor of site {', '.join(bad) or '?'} is not finite. {cause}")


_ADVICE = "Use proper, less extreme priors, logits= in place of probs=, and rescaled covariates."


def _sites(program: object) -> set[str]:
    return {*program.latents, *program.observed}  # type: ignore[attr-defined]


def _resampled(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Other rows of the same shape: the same rows drawn with replacement, in all inputs of a length alike."""
    return tuple(x.index_select(0, _rows(len(x)).to(x.device)) for x in inputs)


def _rows(n: int) -> Tensor:
    return torch.randint(n, (n,), generator=torch.Generator().manual_seed(20))
