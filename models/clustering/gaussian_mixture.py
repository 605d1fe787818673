"""Cluster analysis and densities by a variational Gaussian mixture."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.distributions import MixtureSameFamily

from probdl.divergences.estimate import Estimate
from probdl.errors import ConvergenceWarning
from probdl.models.arguments import count
from probdl.models.classical import ClassicalModel, flat
from probdl.models.clustering.mixture_program import SWEEPS, Components
from probdl.models.clustering.normal_predictive import law_of, log_joint, normals
from probdl.models.clustering.number_of_components import Candidate, Numbers, best_of, candidates, in_order, numbers_of
from probdl.models.generative import GenerativeModel
from probdl.models.row_model import home

if TYPE_CHECKING:
    import pandas as pd

    from probdl.inference import Posterior

NOTE = "posterior predictive: parameters are integrated over their approximate posterior, not plugged in"
DUMMIES = "a density of zeros and ones for the columns of categories, not a probability of categories"


class GaussianMixture(ClassicalModel, GenerativeModel):
    r"""A mixture of normals, with the posterior of its parameters by coordinate ascent.

    .. math:: p(u) = \sum_{k=1}^K π_k N(u \mid μ_k, Λ_k^{-1}), \quad π \sim \mathrm{Dirichlet}(1), \quad
        μ_k \sim N(0, I), \quad Λ_k \sim \mathrm{Wishart}(d + 2, \mathrm{diag}(s)^{-1}), \quad s_j \sim
        \mathrm{Gamma}(1, 1),

    of rows u in standardised units. Components share s, the scale of the variance within them, which the data say
    (Huang and Wand's hierarchy). The number K is the one whose bound on the log evidence is highest, with log K! for
    the labellings of its components that are as good (Bishop 2006, section 10.2). Densities are those of the posterior
    predictive: the parameters are integrated out. Where rows lie in fewer dimensions than they have columns, or
    components would shrink onto equal rows, the likelihood is unbounded; s is then held at (d + 2) / 10, a tenth of the
    column's variance, and ``message`` says so. The fit holds n·d² numbers many times over, and refuses more than 3·10⁶.

    Args:
        components: K; a list or range of numbers, of which the bound chooses one; or "auto": 1, 2, … until two more
            have not raised it.
        starts: from k-means++, of which the one that is best after a few sweeps goes on.
        standardise: "column", each to variance 1 ("auto" for tables); "shared", one scale for all ("auto" for images);
            or "none". The prior is in these units.
        dtype: of the answers; the fit is in float64.

    Attributes:
        posterior: of the program, with sites weights, mu, precision, scale, z, in standardised units and with its own
            order of components; None after ``load``.

    Raises:
        ValueError, TypeError: for an argument that cannot be used.

    Warns:
        ConvergenceWarning: by ``fit``, if the ascent for the number chosen has not converged.

    Reference:
        Attias (2000), A variational Bayesian framework for graphical models; Bishop (2006), Pattern recognition and
        machine learning, section 10.2; Huang and Wand (2013), Simple marginally noninformative prior distributions for
        covariance matrices, Bayesian Analysis.

    Example:
        >>> noise = torch.randn(200, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        >>> x = torch.cat([noise[:150], 10 + 0.5 * noise[150:]])
        >>> model = GaussianMixture().fit(x)
        >>> model.weights.round(decimals=2), model.predict([[0.5], [9.0]])
        (tensor([0.7500, 0.2500], dtype=torch.float64), tensor([0, 1]))
        >>> model.bounds["bound"].round(1).to_dict()
        {1: -289.5, 2: -80.3, 3: -83.9, 4: -87.6}
    """

    SETTINGS = ("components", "starts", "standardise")
    posterior: Posterior | None

    def __init__(
        self,
        components: Numbers = "auto",
        *,
        starts: int = 5,
        standardise: str = "auto",
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__(dtype, standardise=standardise)
        self.components, self.starts = numbers_of(components), count(starts, "starts")
        self.posterior = None

    @property
    def bounds(self) -> pd.DataFrame:
        """The bound with log K! by number of components; without it (elbo), and how many have rows."""
        self._rows("bounds")
        assert self.history is not None
        return self.history.set_index("components")

    @property
    def weights(self) -> Tensor:
        """Posterior means of the weights, (K,), the heaviest first."""
        return self._known("weights").weights.to(self.dtype)

    @property
    def weights_sd(self) -> Tensor:
        """Posterior standard deviations of the weights, (K,)."""
        return self._known("weights_sd").weights_sd.to(self.dtype)

    @property
    def means(self) -> Tensor | pd.DataFrame:
        """Posterior means of the components' means in the data's units, (K, ...), or a DataFrame if ``fit`` got one."""
        form, units = self._rows("means")
        return form.dress(units.outward(self._known("means").means.reshape(-1, *form.shape)), self.dtype)

    @property
    def means_sd(self) -> Tensor | pd.DataFrame:
        """Their posterior standard deviations in the data's units; a tensor where a table has columns of categories.

        They take the responsibilities as certain to be what they are, so that they are too small where components
        overlap; ``posterior.summary()`` has ``sd_lr``, which is not, in standardised units.
        """
        form, units = self._rows("means_sd")
        sd = self._known("means_sd").spreads.diagonal(dim1=-2, dim2=-1).sqrt().reshape(-1, *form.shape) * units.scale
        return sd.to(form.home, self.dtype) if form.categories else form.dress(sd, self.dtype)

    @property
    def covariances(self) -> Tensor:
        """Posterior means of the components' covariances in the data's units, (K, d, d), of flattened rows."""
        known, (_, scale) = self._known("covariances"), self._line()
        d = len(scale)
        within = known.scatter / (known.df - d - 1)[:, None, None]
        return (within * scale[:, None] * scale).to(self.dtype)

    @property
    def distribution(self) -> MixtureSameFamily:
        """The posterior predictive law of a row, flattened, in the data's units; as it is on its device.

        A mixture of normals, many for each component: by quadrature over the scale of its Student-t.
        """
        return law_of(self._known("distribution"), *self._line())

    def log_prob(self, x: Any) -> Tensor:
        """Return the log density of each row in the data's units, (n,), under the posterior predictive law.

        Raises:
            ValueError, TypeError: before ``fit``, or for rows unlike those of ``fit``.
        """
        return self.log_likelihood(x).value.to(self.dtype)  # type: ignore[union-attr]

    def log_likelihood(self, x: Any) -> Estimate:
        """Return ``log_prob`` of each row, (n,), nats, with a bound on the error of its quadrature.

        Raises:
            ValueError, TypeError: before ``fit``, or for rows unlike those of ``fit``.
        """
        full, half = (part.logsumexp(1) for part in self._joint(x))
        form, units = self._rows("log_likelihood")
        notes = (NOTE, "stderr is a bound on the quadrature error", *([DUMMIES] if form.categories else []))
        value, error = full + units.log_jacobian, (full - half).abs()
        return Estimate(value.to(home(x)), error.to(home(x)), "quadrature", n=None, notes=notes)

    def responsibilities(self, x: Any) -> Tensor:
        """Return the probability of each component given the row, (n, K), for old rows and new.

        Raises:
            ValueError, TypeError: before ``fit``, or for rows unlike those of ``fit``.
        """
        return self._joint(x)[0].softmax(1).to(home(x), self.dtype)

    def predict(self, x: Any) -> Tensor:
        """Return the most probable component of each row, (n,), counted from 0.

        Raises:
            ValueError, TypeError: before ``fit``, or for rows unlike those of ``fit``.
        """
        return self._joint(x)[0].argmax(1).to(home(x))

    def _estimate(self, u: Tensor, seed: int) -> None:
        import pandas as pd

        found = candidates(flat(u).double(), self.components, starts=self.starts, seed=seed)
        chosen = best_of(found)
        self.posterior, self.history = chosen.posterior, pd.DataFrame([one.row for one in found])
        self._keep(**{f"known_{name}": value for name, value in vars(in_order(chosen)).items()})
        self.message = _message(chosen, len(found))
        if not chosen.posterior.converged:
            warnings.warn(
                f"The mixture of {chosen.components} components has not converged after {SWEEPS} sweeps. "
                "Its components overlap much: pass fewer, or more starts.",
                ConvergenceWarning,
                stacklevel=5,
            )

    def _draws(self, n: int, c: Tensor | None, mean: bool, noise: torch.Generator) -> Tensor:
        log_weights, law = normals(self._known("sample"))
        which = torch.multinomial(log_weights.flatten().exp(), n, replacement=True, generator=noise)
        rows = law.loc.flatten(0, 1)[which]
        if not mean:
            standard = torch.randn(rows.shape, generator=noise, dtype=rows.dtype, device=rows.device)
            rows = rows + (law.scale_tril.flatten(0, 1)[which] @ standard[..., None])[..., 0]
        return rows.reshape(n, *self._form.shape)

    def _joint(self, x: Any) -> tuple[Tensor, Tensor]:
        """Return log p(u, k) in standardised units, (n, K), with all nodes and with half of them."""
        known = self._known("this")
        return log_joint(known, flat(self._inward(x)).double())

    def _known(self, what: str) -> Components:
        self._rows(what)
        return Components(**{name: getattr(self, f"known_{name}") for name in Components.__dataclass_fields__})

    def _line(self) -> tuple[Tensor, Tensor]:
        """Return shift and scale of a flattened row, (d,) each."""
        form, units = self._rows("this")
        return units.shift.expand(form.shape).reshape(-1), units.scale.expand(form.shape).reshape(-1)


def _message(chosen: Candidate, tried: int) -> str:
    how = f", the highest bound of {tried} numbers" if tried > 1 else ""
    empty = chosen.components - int(chosen.occupied.sum())
    ended = "converged" if chosen.posterior.converged else "had not converged"
    parts = [
        f"variational mixture of {chosen.components} component{'s' * (chosen.components > 1)}{how}: coordinate ascent "
        f"{ended} after {len(chosen.posterior.history)} sweeps"
    ]
    if empty:
        parts.append(f"{empty} with less than one row expected were dropped")
    if chosen.held:
        parts.append("rows lie on points or in a subspace, and the prior scale was held at a tenth of the variances")
    return "; ".join(parts)
