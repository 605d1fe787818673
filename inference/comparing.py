"""Two posteriors of the same sites, side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    import pandas as pd

    from probdl.inference.posterior import Posterior


def compare_posteriors(a: Posterior, b: Posterior) -> pd.DataFrame:
    r"""Compare two posteriors entry by entry, in units of the standard deviations of the second.

    .. math:: \text{shift} = \frac{m_a - m_b}{s_b}, \qquad \text{ratio} = \frac{s_a}{s_b}

    Pass the reference, such as NUTS, second.

    Args:
        a: a posterior.
        b: another of the same model; sites that only one of them has are left out, and named in ``attrs["left_out"]``.

    Returns:
        One row for each entry, such as ``w[0]``: shift, shift_error, ratio, ratio_error. The errors are Monte Carlo
        standard errors, from the draws of either; they are 0 where both have exact moments.

    Raises:
        TypeError: if one of them is no posterior.
        ValueError: if they share no site, or a shared site has different shapes.

    Example:
        >>> import pyro, pyro.distributions as dist, torch
        >>> from probdl.inference import fit
        >>> def model(y):
        ...     rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
        ...     with pyro.plate("rows", len(y)):
        ...         pyro.sample("y", dist.Poisson(rate), obs=y)
        >>> y = torch.tensor([3.0, 5.0, 4.0])
        >>> table = compare_posteriors(fit(model, y, method="laplace"), fit(model, y, method="nuts"))
        >>> list(table.columns)
        ['shift', 'shift_error', 'ratio', 'ratio_error']
        >>> bool(table["shift"].abs().max() < 0.3)
        True
    """
    import pandas as pd

    for label, posterior in (("a", a), ("b", b)):
        if not hasattr(posterior, "approximation"):
            raise TypeError(f"{label} must be a Posterior, as fit returns; got {type(posterior).__name__}.")
    names = [name for name in a.approximation.tabled if name in b.names]
    _check_sites(a, b, names)
    rows = {name: _of_site(a, b, name) for name in names}
    columns = ("shift", "shift_error", "ratio", "ratio_error")
    data = {c: torch.cat([rows[name][i].reshape(-1) for name in names]).cpu().numpy() for i, c in enumerate(columns)}
    table = pd.DataFrame(data, index=[entry for name in names for entry in a.entries(name)])
    left_out = [name for name in (*a.names, *b.names) if name not in names]
    table.attrs = {"left_out": list(dict.fromkeys(left_out)), "methods": (a.method, b.method)}
    return table


def _check_sites(a: Posterior, b: Posterior, names: list[str]) -> None:
    if not names:
        raise ValueError(f"a and b must share a site; a has {', '.join(a.names)} and b {', '.join(b.names)}.")
    for name in names:
        shapes = tuple(a.mean(name).shape), tuple(b.mean(name).shape)
        if shapes[0] != shapes[1]:
            raise ValueError(f"Site {name!r} must have one shape; it has {shapes[0]} in a and {shapes[1]} in b.")


def _of_site(a: Posterior, b: Posterior, name: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Shift, ratio and their errors by the delta method, in which means and sds are taken as independent."""
    (mean_a, sd_a, em_a, es_a), (mean_b, sd_b, em_b, es_b) = (_moments(p, name) for p in (a, b))
    shift, ratio = (mean_a - mean_b) / sd_b, sd_a / sd_b
    shift_error = (em_a**2 + em_b**2 + (shift * es_b) ** 2).sqrt() / sd_b
    ratio_error = (es_a**2 + (ratio * es_b) ** 2).sqrt() / sd_b
    constant = (sd_a == 0) & (sd_b == 0) & (mean_a == mean_b)  # such as the 1 of a Cholesky factor of correlations
    zero, one = torch.zeros_like(shift), torch.ones_like(ratio)
    equal = zip((shift, shift_error, ratio, ratio_error), (zero, zero, one, zero))
    return tuple(torch.where(constant, sure, x) for x, sure in equal)  # type: ignore[return-value]


def _moments(p: Posterior, name: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    mean_error, sd_error = p.approximation.errors(name)
    return tuple(x.detach().cpu().double() for x in (p.mean(name), p.sd(name), mean_error, sd_error))  # type: ignore[return-value]
