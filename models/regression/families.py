"""The families: their links, what they take as a response, and the parameters beside the coefficients."""

from __future__ import annotations

from dataclasses import dataclass

from probdl.models.arguments import one_of
from probdl.models.regression.links import LINKS


@dataclass(frozen=True)
class Family:
    """What a family is.

    Attributes:
        name: as users write it.
        links: its links, the default first.
        takes: the kind of response: "binary", "trials", "counts", "real", "positive" or "ordered".
        parameter: the latent site beside the coefficients, if there is one.
        prior: of that site: a name and its number, ("exponential", rate per unit) or ("lognormal", sd of the log).
    """

    name: str
    links: tuple[str, ...]
    takes: str
    parameter: str | None = None
    prior: tuple[str, float] = ("", 0.0)

    @property
    def in_units_of_y(self) -> bool:
        """Whether the linear predictor has the unit of the response."""
        return self.takes == "real"

    @property
    def has_exposure(self) -> bool:
        """Whether the response may be a count over an exposure."""
        return self.takes == "counts"


_ALL = (
    Family("bernoulli", LINKS, "binary"),
    Family("binomial", LINKS, "trials"),
    Family("poisson", ("log",), "counts"),
    Family("negative_binomial", ("log",), "counts", "dispersion", ("exponential", 1.0)),
    Family("gaussian", ("identity",), "real", "sigma", ("exponential", 1.0)),
    Family("student", ("identity",), "real", "sigma", ("exponential", 1.0)),
    Family("laplace", ("identity",), "real", "scale", ("exponential", 1.0)),
    Family("gamma", ("log",), "positive", "dispersion", ("exponential", 1.0)),
    Family("weibull", ("log",), "positive", "shape", ("lognormal", 1.0)),
    Family("ordered", ("logit", "probit"), "ordered", "gaps", ("lognormal", 1.0)),
)
FAMILIES = {family.name: family for family in _ALL}


def family_of(name: str, link: str | None) -> tuple[Family, str]:
    """Return a family and its link by name.

    Raises:
        ValueError: for a family or link that there is not; it lists them.
    """
    family = FAMILIES[one_of(name, tuple(FAMILIES), "family")]
    if link is None:
        return family, family.links[0]
    if link not in family.links:
        raise ValueError(
            f"link of the {name} family must be one of {', '.join(map(repr, family.links))}; got {link!r}."
        )
    return family, link
