"""The course's tables, written from the classes, and whether the classes are what their cards say."""

import inspect

import pytest
import torch

from probdl.models import (
    GAN,
    VAE,
    WAEGAN,
    WAEMMD,
    WGAN,
    Autoencoder,
    DenoisingAutoencoder,
    KSparseAutoencoder,
    LinearAutoencoder,
    SparseAutoencoder,
)
from probdl.models.cards import GENERATOR, NONE, course_tables

FIRST = {  # the slides' own words
    "AE": ["transformation", "x = g(z; θ_g), z = f(x; θ_f)", "none", "|x − g(f(x; θ_f); θ_g)|²"],
    "VAE": ["conditional distribution", "none", "p(z), p(x | z), q(z | x)", "KL divergence"],
    "GAN": ["distribution through transformation", "x = g(z; θ_g)", "p(z)", "Jensen–Shannon divergence"],
}
SECOND = {
    "WGAN": [GENERATOR, "normal", "none", "none", "dual", "f_w", "-"],
    "WAE-GAN": [GENERATOR, "normal", "q(z | x)", "P(y = 1 | z)", "primal", "-", "JS(p(z)‖q(z))"],
    "WAE-MMD": [GENERATOR, "normal", "q(z | x)", "none", "primal", "-", "‖∫k(z, ·)dP(z) − ∫k(z, ·)dQ(z)‖_H"],
}
MODELS = [Autoencoder, LinearAutoencoder, SparseAutoencoder, KSparseAutoencoder, DenoisingAutoencoder,
          VAE, GAN, WGAN, WAEGAN, WAEMMD]  # fmt: skip


def test_the_tables_are_those_of_the_course():
    for table, expected in zip(course_tables(), (FIRST, SECOND)):
        assert table.to_dict("list") == expected


@pytest.mark.parametrize("model", MODELS)
def test_a_class_is_what_its_card_says(model):
    card = model.CARD
    arguments = inspect.signature(model.__init__).parameters
    assert hasattr(model, "encode") == (card.encoder != NONE)
    assert ("critic" in arguments) == (card.discriminator != NONE or card.side == "dual")
    assert ("cost" in arguments) == (card.side == "primal")
    assert hasattr(model, "penalty") == (card.side == "primal")


@pytest.mark.parametrize("model", [Autoencoder, VAE, GAN, WGAN, WAEGAN, WAEMMD])
def test_a_fitted_model_can_do_what_its_card_says_and_nothing_else(model):
    x = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    fitted = model(2, hidden=(4,)).fit(x, steps=2, progress=False)
    if fitted.CARD.prior == NONE:
        with pytest.raises(NotImplementedError, match="sample"):
            fitted.sample(2)
    else:
        assert fitted.sample(2).shape == (2, 3)
    if fitted.CARD.decoder.startswith("p(x"):
        assert fitted.log_likelihood(x, draws=2).value.shape == (60,)
    else:
        with pytest.raises(NotImplementedError, match="log_likelihood"):
            fitted.log_likelihood(x)
