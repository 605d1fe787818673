"""What holds for every pair of samples and every pair of laws."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Gamma, Laplace, Normal, StudentT

import probdl
from probdl.divergences import RBF, energy, hellinger2, js, kl, mmd2, tv, wasserstein

few = settings(max_examples=25, deadline=None, derandomize=True)
fewer = settings(max_examples=7, deadline=None, derandomize=True)


def mmd2_rbf(x, y):
    return mmd2(x, y, RBF(1.5))


@st.composite
def samples(draw, least=2, columns=(1, 3)):
    d, seed = draw(st.integers(*columns)), draw(st.integers(0, 10**6))
    n, m = draw(st.integers(least, 25)), draw(st.integers(least, 25))
    ties = draw(st.booleans())
    g = torch.Generator().manual_seed(seed)
    x, y = torch.randn(n, d, generator=g, dtype=torch.float64), torch.randn(m, d, generator=g, dtype=torch.float64)
    return (x.round(), y.round()) if ties else (x, y)


@st.composite
def laws(draw):
    location, scale = draw(st.floats(-5, 5)), draw(st.floats(0.1, 10))
    kind = draw(st.sampled_from([Normal, Laplace, "t", "gamma"]))
    a, b = torch.tensor(location, dtype=torch.float64), torch.tensor(scale, dtype=torch.float64)
    if kind == "t":
        return StudentT(torch.tensor(5.0, dtype=torch.float64), a, b)
    return Gamma(1 + a.abs(), b) if kind == "gamma" else kind(a, b)


@pytest.mark.parametrize("divergence", [wasserstein, mmd2_rbf, energy], ids=lambda f: f.__name__)
@given(pair=samples())
@few
def test_of_draws_is_symmetric(divergence, pair):
    x, y = pair
    assert divergence(x, y).value == pytest.approx(divergence(y, x).value, abs=1e-10)


@pytest.mark.parametrize("divergence", [wasserstein, mmd2_rbf, energy], ids=lambda f: f.__name__)
@given(pair=samples(), shift=st.floats(-1e4, 1e4))
@few
def test_of_draws_is_invariant_under_translation(divergence, pair, shift):
    x, y = pair
    assert divergence(x + shift, y + shift).value == pytest.approx(divergence(x, y).value, abs=1e-8)


@given(pair=samples(), scale=st.floats(1e-3, 1e3))
@few
def test_wasserstein_and_energy_scale_with_the_unit(pair, scale):
    x, y = pair
    for divergence in (wasserstein, energy):
        assert divergence(scale * x, scale * y).value == pytest.approx(
            scale * divergence(x, y).value, rel=1e-9, abs=1e-9
        )


@given(pair=samples(least=1), order=st.sampled_from([1, 2, 3]))
@few
def test_wasserstein_is_a_metric_on_samples(pair, order):
    x, y = pair
    assert wasserstein(x, x, order=order).value == pytest.approx(0, abs=1e-12)
    assert wasserstein(x, y, order=order).value >= 0
    z = x.flip(0)[: len(y)] + 1
    through = wasserstein(x, z, order=order).value + wasserstein(z, y, order=order).value
    assert wasserstein(x, y, order=order).value <= through + 1e-9


@given(pair=samples())
@few
def test_wasserstein_is_at_least_the_distance_of_the_means(pair):
    x, y = pair
    assert wasserstein(x, y).value >= (x.mean(0) - y.mean(0)).norm() - 1e-9


@given(pair=samples(), order=st.sampled_from([1, 2]), data=st.data())
@few
def test_weights_are_repetitions_for_wasserstein(pair, order, data):
    x, y = pair
    times = torch.tensor(data.draw(st.lists(st.integers(1, 3), min_size=len(x), max_size=len(x))))
    repeated = wasserstein(x.repeat_interleave(times, 0), y, order=order).value
    assert wasserstein(probdl.Draws(x, times), y, order=order).value == pytest.approx(repeated, abs=1e-9)


@given(pair=samples())
@few
def test_rows_without_weight_do_not_count(pair):
    x, y = pair
    padded = probdl.Draws(torch.cat([x, 100 + y]), [1.0] * len(x) + [0.0] * len(y))
    for divergence in (wasserstein, energy, mmd2_rbf):
        assert divergence(padded, y).value == pytest.approx(divergence(x, y).value, abs=1e-9)


@pytest.mark.parametrize("divergence", [js, tv, hellinger2, wasserstein, energy], ids=lambda f: f.__name__)
@given(p=laws(), q=laws())
@fewer
def test_of_laws_is_symmetric_and_not_negative(divergence, p, q):
    forward, backward = divergence(p, q), divergence(q, p)
    assert forward.value == pytest.approx(backward.value, abs=1e-6)
    assert forward.value >= 0


@pytest.mark.parametrize(
    ("divergence", "most"), [(js, 0.6931471806), (tv, 1.0), (hellinger2, 1.0)], ids=["js", "tv", "hellinger2"]
)
@given(p=laws(), q=laws())
@fewer
def test_bounded_divergences_stay_within_their_bound(divergence, most, p, q):
    assert divergence(p, q).value <= most + 1e-9


@given(p=laws(), q=laws())
@fewer
def test_kl_is_positive_unless_the_laws_are_equal(p, q):
    assert kl(p, q).value >= 0
    assert kl(p, p).value == pytest.approx(0, abs=1e-12)


@given(p=laws(), q=laws(), factor=st.floats(0.1, 10))
@fewer
def test_f_divergences_do_not_see_the_unit_and_wasserstein_is_in_it(p, q, factor):
    from torch.distributions import TransformedDistribution
    from torch.distributions.transforms import AffineTransform

    stretched = [TransformedDistribution(h, AffineTransform(1.0, factor)) for h in (p, q)]
    assert tv(*stretched).value == pytest.approx(tv(p, q).value, abs=1e-6)
    assert wasserstein(*stretched).value == pytest.approx(factor * wasserstein(p, q).value, rel=1e-5, abs=1e-6)
