"""To ArviZ: draws, log-likelihoods and data, with the names of the plates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from probdl.inference.programs.densities import has_all_rows, log_likelihood_of_draws, observations, plates_of
from probdl.inference.programs.program import Program

if TYPE_CHECKING:
    from probdl.inference.posterior import Posterior


def to_arviz(posterior: Posterior, draws: int, seed: int) -> Any:
    """Return an ``arviz.InferenceData``, or a ``DataTree`` from ArviZ 1.0 on."""
    try:
        import arviz
    except ImportError as error:
        raise ImportError("to_arviz needs ArviZ: pip install arviz.") from error
    chains = _chains(posterior, draws, seed)
    groups: dict[str, dict[str, Any]] = {"posterior": chains}
    if posterior.program is not None and has_all_rows(posterior.program):
        groups |= _data_groups(posterior.program, chains)
    arrays = {g: {k: x.detach().cpu().numpy() for k, x in values.items()} for g, values in groups.items()}
    dims = {} if posterior.program is None else _dims(posterior.program, groups)
    attrs = {"inference_library": "probdl", "method": posterior.method}
    build: Any = arviz.from_dict  # whose signature changed with version 1.0
    if int(arviz.__version__.split(".")[0]) < 1:
        return build(**arrays, dims=dims, attrs=attrs)
    return build(arrays, dims=dims, attrs={"posterior": attrs})


def _chains(posterior: Posterior, draws: int, seed: int) -> dict[str, Tensor]:
    """The latents, (chains, draws, *shape) each."""
    if posterior.approximation.is_sampled:
        return posterior.approximation.chains
    return {name: x[None] for name, x in posterior.draws(draws, seed=seed).items()}


def _data_groups(program: Program, chains: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    observed = observations(program)
    if not set(program.discrete) <= set(chains):
        return {"observed_data": observed}
    many, n = next(iter(chains.values())).shape[:2]
    flat = log_likelihood_of_draws(program, {name: x.flatten(0, 1) for name, x in chains.items()})
    likelihood = {name: x.reshape(many, n, *x.shape[1:]) for name, x in flat.items() if name in observed}
    return {"log_likelihood": likelihood, "observed_data": observed}


def _dims(program: Program, groups: dict[str, dict[str, Tensor]]) -> dict[str, list[str]]:
    """Names of the dimensions that plates made; the others get theirs from ArviZ."""
    plates = plates_of(program)
    ndims = {name: x.ndim - 2 for group in ("posterior", "log_likelihood") for name, x in groups.get(group, {}).items()}
    named = {k: [plate or f"{k}_dim_{i}" for i, plate in enumerate(plates[k])] for k in plates if k in ndims}
    return {name: dims[: ndims[name]] for name, dims in named.items()}
