"""What a model is made of, in the words of the course, and the course's two tables of such cards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

NONE = "none"
GENERATOR = "x = g(z; θ_g)"


@dataclass(frozen=True)
class Card:
    """What a generative model estimates, from which parts, and by which objective.

    A model carries it as ``CARD``.

    Attributes:
        name: as the course calls the model.
        estimates: what is estimated.
        decoder: p(x | z), or the map in its place.
        prior: p(z).
        encoder: q(z | x), or the map in its place.
        objective: what is minimised.
        discriminator: P(y = 1 | ·), the probability that something is real, if one is learnt.
        side: "dual" or "primal", from which side the Wasserstein distance is reached.
        critic: the function of the dual.
        constraint: on the codes, in the primal.
    """

    name: str
    estimates: str
    decoder: str
    prior: str
    encoder: str
    objective: str
    discriminator: str = NONE
    side: str = NONE
    critic: str = "-"
    constraint: str = "-"

    @property
    def maps(self) -> str:
        """The maps among its parts, if any."""
        return _joined(part for part in (self.decoder, self.encoder) if part.startswith(("x =", "z =")))

    @property
    def distributions(self) -> str:
        """The distributions among its parts, if any."""
        given = (self.decoder, self.encoder)
        return _joined([p for p in ("p(z)" if self.prior != NONE else NONE, *given) if p.startswith(("p(", "q("))])


def _joined(parts: Any) -> str:
    return ", ".join(parts) or NONE


def course_tables() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the course's tables of the AE, the VAE and the GAN, and of the WGAN, the WAE-GAN and the WAE-MMD.

    Each column is written from the ``CARD`` of the class.

    Returns:
        Two DataFrames of text, with one column for each model.

    Reference:
        Deep learning: a statistical perspective, "AE, VAE and GAN" and "WGAN, WAE-GAN and WAE-MMD". Its second table
        gives the discriminator of the WAE-GAN as P(y = 1 | x); it is one of codes.

    Example:
        >>> first, second = course_tables()
        >>> first["AE"]["objective function"], second["WGAN"]["w-distance"]
        ('|x − g(f(x; θ_f); θ_g)|²', 'dual')
    """
    import pandas as pd

    from probdl.models import GAN, VAE, WAEGAN, WAEMMD, WGAN, Autoencoder

    first = {
        "estimation of": lambda card: card.estimates,
        "specifying transformation": lambda card: card.maps,
        "specifying distributions": lambda card: card.distributions,
        "objective function": lambda card: card.objective,
    }
    second = {
        "p(x|z; θ)": lambda card: card.decoder,
        "p(z)": lambda card: card.prior,
        "q(z|x)": lambda card: card.encoder,
        "P(y = 1|·)": lambda card: card.discriminator,
        "w-distance": lambda card: card.side,
        "critic for dual": lambda card: card.critic,
        "primal constraint": lambda card: card.constraint,
    }

    def table(rows: dict[str, Any], models: list[Any]) -> pd.DataFrame:
        cards = [model.CARD for model in models]
        return pd.DataFrame({card.name: {row: cell(card) for row, cell in rows.items()} for card in cards})

    return table(first, [Autoencoder, VAE, GAN]), table(second, [WGAN, WAEGAN, WAEMMD])
