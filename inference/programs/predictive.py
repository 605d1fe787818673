"""Running a program forwards: latents from a posterior or from the prior, and data drawn anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions import Unit
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from probdl.inference.programs import arguments
from probdl.inference.programs.densities import Values, is_drawn, over_draws, plates_of
from probdl.inference.programs.program import Program


@dataclass(frozen=True)
class Source:
    """A model without its data: all that is needed to run it forwards.

    Attributes:
        model: the Pyro program; None where it was not loaded.
        observed: its observed sites, when it was fitted.
        discrete: its discrete latent sites, drawn anew where the posterior does not hold them.
        of_rows: those of them that share a plate with observations: new rows have new ones.
        dtype: floating type of its data.
        device: where it runs.
    """

    model: Callable | None
    observed: tuple[str, ...]
    discrete: tuple[str, ...]
    dtype: torch.dtype
    device: torch.device
    of_rows: tuple[str, ...] = ()

    @classmethod
    def of(cls, program: Program) -> Source:
        """Return the model of a program."""
        discrete, observed = tuple(program.discrete), program.observed
        of_rows: tuple[str, ...] = ()
        if discrete:
            plates = {name: set(found) - {None} for name, found in plates_of(program).items()}
            rows = set().union(*(plates.get(name, set()) for name in observed))
            of_rows = tuple(name for name in discrete if plates[name] & rows)
        return cls(program.model, observed, discrete, program.dtype, program.device, of_rows)

    def tensors(self, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        """Convert arguments as ``fit`` does."""
        assert self.model is not None
        return arguments.as_tensors(self.model, args, kwargs, self.dtype, self.device)


class _DoesNotFit(ValueError):
    """A latent site of the posterior has another shape with these data."""


class _Forwards(Messenger):
    """Latent sites take given values; observed ones lose their observation, so that they are drawn."""

    def __init__(self, values: Values) -> None:
        super().__init__()
        self.values = values

    def _pyro_sample(self, msg: Any) -> None:
        if site_is_subsample(msg) or not is_drawn(msg):
            return
        msg["is_observed"] = False
        known = msg["name"] in self.values
        if known:
            _check_shape(msg["name"], tuple(self.values[msg["name"]].shape), tuple(msg["fn"].shape()))
        # sample, where Pyro would call rsample: more of them run under vmap.
        msg["value"] = self.values[msg["name"]] if known else msg["fn"].sample()
        msg["done"] = True


def run_forwards(source: Source, args: tuple, kwargs: dict[str, Any], values: Values) -> Any:
    """Return the trace of one run with latents at ``values`` and everything else drawn."""
    assert source.model is not None
    local = arguments.local_defaults(source.dtype, source.device)
    with local, pyro.validation_enabled(False), torch.no_grad(), poutine.trace() as tracer, _Forwards(values):
        source.model(*args, **kwargs)
    return tracer.trace


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's generators of the CPU and of one device, which Pyro draws from; both are restored afterwards."""
    cuda = [device.index or 0] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.default_generator.manual_seed(seed)
        for index in cuda:
            torch.cuda.default_generators[index].manual_seed(seed)
        yield


def predict(source: Source, values: Values, args: tuple, kwargs: dict[str, Any], seed: int) -> Values:
    """Draw the observed sites, once for each draw of the latents.

    Args:
        source: the model.
        values: draws of the latents by site, (n, *shape).
        args: the model's arguments, already tensors.
        kwargs: its keyword arguments.
        seed: of what is drawn.

    Returns:
        By observed site, (n, *shape).

    Raises:
        ValueError: if the model fails on these arguments, or a latent does not fit them; it names the site.
    """
    with seeded(_other(seed), source.device):
        args, kwargs = _checked_run(source, values, args, kwargs)

        def draw(v: Values) -> Values:
            nodes = run_forwards(source, args, kwargs, v).nodes
            names = [k for k in source.observed if k in nodes and not isinstance(nodes[k]["fn"], Unit)]
            return {name: nodes[name]["value"] for name in names}

        size = sum(x.numel() for x in (*args, *kwargs.values()) if isinstance(x, Tensor))
        return over_draws(draw, values, size, randomness="different")


def _other(seed: int) -> int:
    """A seed other than that of the latents, whose noise would otherwise be the noise of the data."""
    return int(torch.randint(2**31, (2,), generator=torch.Generator().manual_seed(seed))[1])


def _checked_run(source: Source, values: Values, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    """Run once at the first draw, and return the arguments, integer matrices made floating where that is needed."""
    first = {name: x[0] for name, x in values.items()}
    try:
        trace = run_forwards(source, args, kwargs, first)
    except _DoesNotFit:
        raise
    except (RuntimeError, ValueError, IndexError, TypeError, AttributeError) as error:
        floating = arguments.with_floating_matrices(args, kwargs, source.dtype)
        try:
            trace = run_forwards(source, *floating, first)
        except (RuntimeError, ValueError, IndexError, TypeError, AttributeError):
            raise _failed(source, args, kwargs, values, error) from error
        args, kwargs = floating
    _check_sites(source, trace, values)
    return args, kwargs


def _failed(source: Source, args: tuple, kwargs: dict[str, Any], values: Values, error: Exception) -> ValueError:
    assert source.model is not None
    given = arguments.described(source.model, args, kwargs)
    shapes = ", ".join(f"{name} {tuple(x.shape[1:])}" for name, x in values.items())
    return ValueError(
        f"The model cannot run forwards on these data ({given}) with {type(error).__name__}: {error}. Its latent sites "
        f"have the shapes they were fitted with ({shapes}), so covariates must keep their columns, and groups their "
        "number; and observations may be None, so take sizes from covariates: len(X), not len(y)."
    )


def _check_sites(source: Source, trace: Any, values: Values) -> None:
    for name, site in trace.nodes.items():
        if site["type"] != "sample":
            continue
        if site_is_subsample(site):
            _check_plate(name, site)
        elif is_drawn(site) and name not in (*values, *source.observed, *source.discrete):
            raise ValueError(
                f"Site {name!r} is not in this posterior, so it cannot be predicted from it: it appears only with "
                "these data. Predict at data with the groups that the model was fitted on."
            )
    if not any(name in trace.nodes for name in source.observed):
        raise ValueError(f"These arguments leave out the observed sites {', '.join(source.observed)}.")


def _check_shape(name: str, held: tuple, wanted: tuple) -> None:
    if held != wanted:
        raise _DoesNotFit(
            f"Latent site {name!r} has shape {held} in this posterior, but {wanted} with these data: its entries "
            "belong to the groups or rows that were fitted. Predict at data with the same ones, or leave the "
            "arguments out to predict at the data of the fit."
        )


def _check_plate(name: str, site: Any) -> None:
    size, some = site["fn"].size, site["fn"].subsample_size
    if some is not None and some < size:
        raise ValueError(
            f"plate {name!r} draws {some} of {size} rows at random, so not every row would be predicted. Pass at most "
            f"{some} rows at a time, or write subsample_size=min({some}, len(X))."
        )
