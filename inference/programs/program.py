"""A Pyro program becomes densities and factors: the one place that reads the program's trace.

``Program`` runs the unmodified model with values of our choosing at its latent sites, and returns the log-density of
each site as a function of one flat vector z on unconstrained space. Validation, default dtype and device are changed
only while the program runs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import Categorical, Independent

from probdl.inference.deterministic.first_guess import best_start
from probdl.inference.programs import arguments
from probdl.inference.programs.bijections import bijection
from probdl.inference.programs.checks import (
    check_observation,
    check_same_sites,
    check_sites,
    check_support,
    failing_site,
    innermost,
)
from probdl.inference.programs.enumeration import Enumeration
from probdl.inference.programs.latents import is_discrete, lay_out, typical_value
from probdl.inference.programs.recording import NotRecordable, record


class _AtValues(Messenger):
    """Give latent sites the values of z; cast integer observations where the distribution needs floats."""

    def __init__(self, choose: Callable[[dict], Tensor], dtype: torch.dtype) -> None:
        super().__init__()
        self.choose, self.dtype = choose, dtype

    def _pyro_sample(self, msg: Any) -> None:
        if site_is_subsample(msg):
            return
        if not msg["is_observed"]:
            if not msg["done"]:  # else enumerated, at all its values
                msg["value"], msg["done"] = self.choose(msg), True
        elif _is_integer(msg["value"]) and not isinstance(innermost(msg["fn"]), Categorical):
            msg["value"] = msg["value"].to(self.dtype)


def _is_integer(x: Any) -> bool:
    return isinstance(x, Tensor) and not x.is_floating_point()


class Program:
    """An unmodified Pyro model with its data, as densities over one flat unconstrained vector.

    Args:
        model: the Pyro program.
        args: its positional arguments, array-like.
        kwargs: its keyword arguments.
        dtype: floating type of data, latents and densities.
        device: where it runs.

    Raises:
        ValueError: if the model has no latent or no observed site, discrete or subsampled latents, or observations
            that are not finite, outside the support, or of the wrong shape.
        TypeError: if the arguments do not fit the model.

    Example:
        >>> import pyro, pyro.distributions as dist, torch
        >>> def model(y):
        ...     mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        ...     pyro.sample("y", dist.Normal(mu, 1.0), obs=y)
        >>> program = Program(model, (torch.tensor(2.0),))
        >>> program.log_joint(torch.zeros(1, dtype=torch.float64))
        tensor(-3.8379, dtype=torch.float64)
    """

    def __init__(
        self,
        model: Callable,
        args: tuple = (),
        kwargs: dict[str, Any] | None = None,
        *,
        dtype: torch.dtype = torch.float64,
        device: str | torch.device = "cpu",
    ) -> None:
        self.model, self.dtype, self.device = model, dtype, arguments.pick_device(device)
        self.args, self.kwargs = arguments.as_tensors(model, args, kwargs or {}, dtype, self.device)
        self.notes: tuple[str, ...] = ()
        self.discrete: dict[str, Any] = {}  # latent sites on integers: their distributions at the first run
        self.subsampled: dict[str, tuple[int, int]] = {}
        self._enumeration: Enumeration | None = None
        self._check_first_run()
        self._recorded: dict[Any, Callable] = {}

    @contextmanager
    def _running(self) -> Iterator[None]:
        with arguments.local_defaults(self.dtype, self.device), pyro.validation_enabled(False):
            yield

    def _trace(self, choose: Callable[[dict], Tensor], model: Callable | None = None) -> Any:
        with self._running(), poutine.trace() as tracer, _AtValues(choose, self.dtype):
            (model or self.model)(*self.args, **self.kwargs)
        return tracer.trace

    def _check_first_run(self) -> None:
        trace = self._first_trace()
        sites = {name: s for name, s in trace.nodes.items() if s["type"] == "sample" and not site_is_subsample(s)}
        self._note_subsampling(trace)
        latent = {name: s for name, s in sites.items() if not s["is_observed"]}
        self.observed = tuple(name for name, s in sites.items() if s["is_observed"])
        check_sites(latent, self.observed)
        self.discrete = {name: s["fn"] for name, s in latent.items() if is_discrete(s["fn"])}
        latent = {name: s for name, s in latent.items() if name not in self.discrete}
        for name in self.observed:
            check_observation(name, sites[name])
        self.latents = lay_out(latent)
        self.dim = sum(x.place.stop - x.place.start for x in self.latents.values())
        self.start = self.free({name: latent[name]["value"] for name in self.latents})
        self._check_stays(sites)

    def _first_trace(self) -> Any:
        """Run the model at typical values; where an integer matrix meets a floating one, make it floating."""
        try:
            return self._trace(typical_value)
        except RuntimeError as error:
            args, kwargs = arguments.with_floating_matrices(self.args, self.kwargs, self.dtype)
            if not re.search(r"dtype|Long|Int|Float|Double", str(error)) or _same(args, self.args):
                raise self._model_failed(error) from error
            self.args, self.kwargs = args, kwargs
            return self._trace(typical_value)
        except (ValueError, IndexError) as error:
            raise self._model_failed(error) from error

    def _model_failed(self, error: Exception) -> ValueError:
        given = arguments.described(self.model, self.args, self.kwargs)
        site = failing_site(error)
        where = f" at site {site!r}" if site else ""
        hint = "Check that the lengths of the arguments agree."
        if "dtype" in str(error):
            hint = f"The data are {self.dtype}: make tensors and networks inside the model, or convert them with .to()."
        return ValueError(
            f"The model failed on its own data ({given}){where} with {type(error).__name__}: {error}. {hint}"
        )

    def _note_subsampling(self, trace: Any) -> None:
        for name, site in trace.nodes.items():
            if site["type"] == "sample" and site_is_subsample(site):
                size, subsample = site["fn"].size, site["fn"].subsample_size
                if subsample is not None and subsample < size:
                    self.subsampled[name] = (size, subsample)

    def require_all_rows(self) -> None:
        """Raise a ValueError that names the plates if some draw a part of their rows at random."""
        for name, (size, subsample) in self.subsampled.items():
            raise ValueError(
                f"plate {name!r} draws {subsample} of {size} rows at random, but this method needs all of "
                "them. Remove subsample_size, or use method='svi'."
            )

    def require_continuous(self) -> None:
        """Raise a ValueError that names the latent sites that are discrete, if there are any."""
        if self.discrete:
            raise ValueError(
                f"The latent sites {', '.join(self.discrete)} are discrete, and this method needs continuous ones. "
                "Sum them out, for instance with a MixtureSameFamily in place of a mixture indicator."
            )

    def sum_out_discrete(self) -> None:
        """Let ``log_joint`` sum over the discrete latent sites, by Pyro's enumeration; a note says so.

        Raises:
            ValueError: if they cannot be summed out, or no continuous latent is left; it names them.
        """
        if not self.discrete or self._enumeration is not None:
            return
        if not self.latents:
            raise ValueError(
                f"The latent sites {', '.join(self.discrete)} are discrete, and there is no other: this method infers "
                "continuous ones. Use method='cavi'."
            )
        self._enumeration = Enumeration(self)
        self.start = best_start(self)  # at the prior means, labels that can switch are at a saddle
        self.notes += (f"the discrete sites {', '.join(self.discrete)} were summed out",)

    def width(self) -> int:
        """Return the size of the largest argument: about how many numbers one evaluation touches."""
        tensors = [x for x in (*self.args, *self.kwargs.values()) if isinstance(x, Tensor)]
        return max([x.numel() for x in tensors], default=1)

    def is_small(self) -> bool:
        """Whether an evaluation is so cheap that more than one thread costs more than it brings."""
        return self.width() < 500_000 and self.dim < 500

    def _check_stays(self, sites: dict[str, Any]) -> None:
        """Refuse sites, shapes and supports that move with the latents: neither z nor its transform would be fixed."""
        trace = self._trace(self._value_at(self.start + 0.37))
        moved = {k: s for k, s in trace.nodes.items() if s["type"] == "sample" and not site_is_subsample(s)}
        check_same_sites(sites, moved)
        for name in self.observed:
            check_support(name, sites[name], moved[name])
        for name, latent in self.latents.items():
            before, after = latent.prior.support, moved[name]["fn"].support
            probe = torch.full(latent.free_shape, 0.37, dtype=self.dtype, device=self.device)
            if not torch.equal(bijection(before)(probe), bijection(after)(probe)):
                raise ValueError(
                    f"The support of {name!r} depends on other latents. Write it as a variable with a fixed support "
                    "and transform it, for instance u ~ Uniform(0, 1) and x = lower + u * width."
                )

    def _value_at(self, z: Tensor) -> Callable[[dict], Tensor]:
        def choose(msg: dict) -> Tensor:
            if msg["name"] in self.discrete:
                return typical_value(msg)
            if msg["name"] not in self.latents:  # check_same_sites refuses it
                return typical_value(msg)
            return self.latents[msg["name"]].constrain(z)

        return choose

    def draw_prior(self) -> Tensor:
        """Return a draw of the latents from the prior, by torch's global generator, as a vector (dim,)."""
        trace = self._trace(lambda msg: msg["fn"].sample())
        return self.free({name: trace.nodes[name]["value"] for name in self.latents})

    def free(self, values: dict[str, Tensor]) -> Tensor:
        """Return the unconstrained vector (dim,) of values of the latents in their own spaces."""
        parts = [x.transform.inv(values[name]).reshape(-1) for name, x in self.latents.items()]
        return torch.cat([torch.zeros(0, dtype=self.dtype, device=self.device), *parts])

    def constrain(self, z: Tensor) -> dict[str, Tensor]:
        """Return the latents in their own spaces, (..., *shape) each, at vectors z (..., dim)."""
        return {name: latent.constrain(z) for name, latent in self.latents.items()}

    def log_joint(self, z: Tensor) -> Tensor:
        """Return log p(data, latents) at z (dim,), with the Jacobian of the transforms; a scalar, in nats.

        Discrete latents are summed out.
        """
        self.sum_out_discrete()
        if self._enumeration is not None:
            trace = self._trace(self._value_at(z), self._enumeration.model)
            with self._running():
                return self._enumeration.log_prob(trace) + self._log_jacobian(z)
        trace = self._trace(self._value_at(z))
        with self._running():
            terms = [_log_prob(s).sum() for s in trace.nodes.values() if s["type"] == "sample"]
        return torch.stack([*terms, self._log_jacobian(z)]).sum()

    def log_prior(self, z: Tensor) -> Tensor:
        """Return the log prior density of the latents at z, with the Jacobian of the transforms; a scalar."""
        trace = self._trace(self._value_at(z))
        with self._running():
            terms = [_log_prob(trace.nodes[name]).sum() for name in self.latents]
        return torch.stack([*terms, self._log_jacobian(z)]).sum()

    def log_latent(self, name: str, z: Tensor) -> Tensor:
        """Return the log prior density of one latent site given the others at z; a scalar, without Jacobian."""
        trace = self._trace(self._value_at(z))
        with self._running():
            return _log_prob(trace.nodes[name]).sum()

    def log_factor(self, name: str, z: Tensor) -> Tensor:
        """Return the log-density of an observed site at z, one entry for each independent observation."""
        trace = self._trace(self._value_at(z))
        with self._running():
            return _log_prob(trace.nodes[name], each=True)

    def _log_jacobian(self, z: Tensor) -> Tensor:
        total = z.new_zeros(())
        for latent in self.latents.values():
            if not latent.is_real():
                u = z[..., latent.place].reshape(latent.free_shape)
                total = total + latent.transform.log_abs_det_jacobian(u, latent.transform(u)).sum()
        return total

    def weakest_site(self, precision: Tensor) -> tuple[str, float]:
        """Return the latent site along which a precision matrix is smallest, and that share of its largest."""
        values, vectors = torch.linalg.eigh(precision)
        worst = int(vectors[:, 0].abs().argmax())
        return self.site_at(worst), float(values[0] / values[-1].abs().clamp(min=1e-300))

    def site_at(self, entry: int) -> str:
        """Return the latent site that holds an entry of the flat vector."""
        return next(k for k, x in self.latents.items() if x.place.start <= entry < x.place.stop)

    def recorded(self, f: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
        """Return ``f`` as a recorded graph where that is safe, else ``f`` itself, with a note that says why."""
        method = getattr(f, "__func__", None)  # the program's own densities are recorded once
        if method is None:
            return self._record(f)
        if method not in self._recorded:
            self._recorded[method] = self._record(f)
        return self._recorded[method]

    def _record(self, f: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
        try:
            return record(f, self.start)
        except NotRecordable as reason:
            note = f"the program runs at each evaluation, since it could not be recorded: {reason}"
            if note not in self.notes:
                self.notes += (note,)
            return f


def _same(a: tuple, b: tuple) -> bool:
    return all(x is y or (isinstance(x, Tensor) and x.dtype == y.dtype) for x, y in zip(a, b))


def _log_prob(site: Any, each: bool = False) -> Tensor:
    """Log-density of a site under its scale and mask; ``each``: over single observations, not summed over events."""
    fn, value = site["fn"], site["value"]
    while each and isinstance(fn, Independent):
        fn = fn.base_dist
    log_p = fn.log_prob(value)
    if site["mask"] is not None:
        mask = torch.as_tensor(site["mask"], device=log_p.device)
        mask = mask.reshape(mask.shape + (1,) * (log_p.ndim - site["fn"].log_prob(value).ndim))
        log_p = torch.where(mask, log_p, log_p.new_zeros(()))
    return log_p * site["scale"] if site["scale"] is not None and not _is_one(site["scale"]) else log_p


def _is_one(scale: Any) -> bool:
    return not isinstance(scale, Tensor) and float(scale) == 1.0
