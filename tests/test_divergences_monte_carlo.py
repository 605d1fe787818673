"""Monte Carlo with densities: unbiased within its error, and honest where the error cannot be had."""

import math

import pytest
import scipy.stats
import torch
from torch.distributions import (
    Bernoulli,
    Independent,
    Laplace,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    StudentT,
    Uniform,
)

from probdl.divergences import RBF, energy, hellinger2, js, kl, mmd2, pareto_k, tv, wasserstein

FALSE_ALARM = 4.0  # standard errors: 6e-5 for each comparison


def normal(mean, sd, device="cpu"):
    return Normal(*(torch.tensor(v, dtype=torch.float64, device=device) for v in (mean, sd)))


def vectors(d, shift, scale, device="cpu"):
    mean = torch.zeros(d, dtype=torch.float64, device=device)
    mean[0] = shift
    return Independent(Normal(mean, torch.full_like(mean, scale)), 1)


@pytest.mark.parametrize("divergence", [kl, js, tv, hellinger2])
def test_monte_carlo_agrees_with_quadrature_within_its_error(divergence, device):
    p, q = normal(0.0, 1.0, device), normal(1.0, 2.0, device)
    truth = divergence(p, q, method="quadrature").value
    estimate = divergence(p, q, method="monte carlo")
    assert abs(estimate.value - truth) < FALSE_ALARM * estimate.stderr
    assert 0 < estimate.stderr < 0.01
    assert estimate.n == 100_000


@pytest.mark.parametrize("divergence", [kl, js, tv, hellinger2])
def test_intervals_cover_the_truth(divergence):
    p, q = normal(0.0, 1.0), normal(0.5, 1.5)
    truth = divergence(p, q, method="quadrature").value
    intervals = [divergence(p, q, method="monte carlo", draws=2000, seed=s).interval() for s in range(200)]
    covered = sum(low <= truth <= high for low, high in intervals)
    # Binomial(200, 0.95) falls below 176 or on 200 with probability 2e-4 and 4e-5
    assert 176 <= covered < 200


def test_the_control_variate_makes_the_error_smaller():
    p, q = normal(0.0, 1.0), normal(0.5, 1.0)
    estimate = kl(p, q, method="monte carlo")
    plain = 0.5 / math.sqrt(100_000)  # log p/q is linear in x with slope -0.5
    assert 0 < estimate.stderr < 0.5 * plain


def test_a_wider_q_does_not_spoil_the_interval():
    # q/p has no variance under p here: with c(q/p - 1) as the control variate only about 80 % are covered
    p, q = normal(0.0, 1.0), normal(0.0, 2.0)
    truth = math.log(2) + 1 / 8 - 0.5
    intervals = [kl(p, q, method="monte carlo", draws=2000, seed=s).interval() for s in range(200)]
    assert 176 <= sum(low <= truth <= high for low, high in intervals) < 200  # as above


def test_a_q_that_p_does_not_dominate_gives_no_bias():
    p = Independent(Uniform(torch.zeros(2).double(), torch.ones(2).double()), 1)
    q = Independent(Uniform(torch.zeros(2).double(), 2 * torch.ones(2).double()), 1)
    assert kl(p, q, method="monte carlo").value == pytest.approx(2 * math.log(2), abs=1e-12)


def test_no_standard_error_where_the_log_ratio_may_have_no_variance():
    estimate = kl(StudentT(torch.tensor(2.5).double()), normal(0.0, 1.0), method="monte carlo")
    assert estimate.stderr is None
    assert "k-hat" in estimate.notes[0]


def test_a_draw_outside_the_support_of_q_makes_kl_infinite():
    p = Independent(Normal(torch.zeros(2).double(), 1.0), 1)
    mix = torch.distributions.Categorical(torch.tensor([0.5, 0.5]).double())
    low = torch.tensor([[0.0, 0.0], [5.0, 5.0]]).double()
    q = MixtureSameFamily(mix, Independent(Uniform(low, low + 1), 1))
    assert kl(p, q).value == math.inf


def test_several_dimensions_go_to_monte_carlo_and_agree_with_the_product_form():
    # H² of product laws: 1 − Π(1 − H²ᵢ); Laplace against normal has no closed form in torch for H²
    loc = torch.zeros(3).double()
    p, q = Independent(Laplace(loc, 1.0), 1), Independent(Normal(loc, 1.0), 1)
    estimate = hellinger2(p, q)
    truth = 1 - (1 - hellinger2(Laplace(loc[0], 1.0), Normal(loc[0], 1.0)).value) ** 3
    assert estimate.method == "monte carlo"
    assert abs(estimate.value - truth) < FALSE_ALARM * estimate.stderr


@pytest.mark.parametrize("divergence", [kl, js, tv, hellinger2])
def test_a_log_prob_that_is_not_the_density_of_the_draws_is_found_out(divergence):
    from pyro.distributions import Delta

    zero = torch.zeros(2).double()
    with pytest.raises(ValueError, match="is not the density of its draws"):
        divergence(Delta(zero[0]), Normal(zero[0], 1.0))
    plane = Independent(Laplace(zero, 1.0), 1)
    with pytest.raises(ValueError, match="is not the density of its draws"):
        divergence(Delta(zero, event_dim=1), plane)
    assert kl(plane, Delta(zero, event_dim=1)).value == math.inf


def test_a_point_has_distances_if_no_density():
    from pyro.distributions import Delta

    # W_1 from 0 to N(0,1) is the mean of |Z|
    estimate = wasserstein(Delta(torch.zeros(()).double()), normal(0.0, 1.0))
    assert abs(estimate.value - math.sqrt(2 / math.pi)) < FALSE_ALARM * estimate.stderr
    assert estimate.method == "monte carlo"


def test_discrete_vectors_go_to_monte_carlo():
    p = Independent(Bernoulli(torch.tensor([0.2, 0.7]).double()), 1)
    q = Independent(Bernoulli(torch.tensor([0.5, 0.5]).double()), 1)
    a = torch.tensor([0.2 * 0.7, 0.2 * 0.3, 0.8 * 0.7, 0.8 * 0.3])
    estimate = tv(p, q)
    assert abs(estimate.value - (a - 0.25).abs().sum().item() / 2) < FALSE_ALARM * estimate.stderr
    assert estimate.method == "monte carlo"


def test_mmd2_and_energy_of_laws_without_a_closed_form():
    p, q = StudentT(torch.tensor(4.0).double()), normal(0.0, 1.0)
    estimate = energy(p, q, method="monte carlo", draws=20_000)
    assert abs(estimate.value - energy(p, q).value) < FALSE_ALARM * estimate.stderr
    same = mmd2(normal(0.0, 1.0), normal(0.0, 1.0), method="monte carlo", draws=20_000)
    assert abs(same.value) < FALSE_ALARM * same.stderr, "blocks keep the error right under equality"


def test_a_kernel_of_the_user_is_averaged_over_blocks_too():
    p, q = normal(0.0, 1.0), normal(1.0, 1.0)
    ours = mmd2(p, q, RBF(1.0), method="monte carlo", draws=2000)
    theirs = mmd2(p, q, lambda x, y: torch.exp(-((x - y.T) ** 2) / 2), method="monte carlo", draws=2000)
    assert theirs.value == pytest.approx(ours.value, abs=1e-12)


def test_wasserstein_of_a_discrete_and_a_continuous_law():
    # a fair coin against U(0, 1): the map sends u to 1{u > ½}, at mean distance ¼
    coin, uniform = Bernoulli(torch.tensor(0.5).double()), Uniform(torch.tensor(0.0).double(), 1.0)
    estimate = wasserstein(coin, uniform)
    assert estimate.method == "monte carlo"
    assert estimate.target == "expected estimate"
    assert abs(estimate.value - 0.25) < FALSE_ALARM * estimate.stderr


def test_wasserstein_of_mixtures_in_the_plane_is_an_expected_estimate():
    mix = torch.distributions.Categorical(torch.tensor([0.5, 0.5]).double())
    centres = torch.tensor([[0.0, 0.0], [4.0, 0.0]]).double()
    eye = torch.eye(2).double()
    p = MixtureSameFamily(mix, MultivariateNormal(centres, eye))
    q = MixtureSameFamily(mix, MultivariateNormal(centres + torch.tensor([0.0, 10.0]), eye))
    estimate = wasserstein(p, q, order=2, draws=300)
    # the translation is the truth; the plug-in exceeds it a little, and the halves of the mixture vary in size
    assert abs(estimate.value - 10) < 4 * estimate.stderr + 0.1
    assert (estimate.method, estimate.target) == ("monte carlo", "expected estimate")


def test_the_seed_decides_and_the_global_generator_is_left_alone():
    p, q = vectors(3, 0.0, 1.0), vectors(3, 1.0, 2.0)
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first = js(p, q, seed=1)
    assert torch.equal(before, torch.get_rng_state())
    assert js(p, q, seed=1) == first
    assert js(p, q, seed=2).value != first.value


def test_draws_are_not_those_of_a_user_who_seeded_with_the_same_number():
    from probdl.divergences.distributions import draw

    p = normal(0.0, 1.0)
    torch.manual_seed(0)
    theirs = p.sample((100,))
    assert abs(torch.corrcoef(torch.stack([theirs, draw(p, 100, seed=0)[:, 0]]))[0, 1]) < 0.5


@pytest.mark.parametrize("k", [0.2, 0.7, 1.2])
def test_pareto_k_finds_the_shape_of_a_generalised_pareto_tail(k):
    x = scipy.stats.genpareto.rvs(k, size=100_000, random_state=1)
    found = pareto_k(torch.log(torch.from_numpy(x)))
    # the tail has 949 draws, so the standard error of the shape is (1 + k)/√949
    assert abs(found - k) < 4 * (1 + k) / math.sqrt(949)


def test_pareto_k_does_not_depend_on_the_constant_and_survives_overflow():
    x = torch.from_numpy(scipy.stats.genpareto.rvs(0.5, size=5000, random_state=1)).log()
    assert pareto_k(x + 1000) == pytest.approx(pareto_k(x), abs=1e-9)


def test_pareto_k_of_few_or_constant_weights():
    assert pareto_k(torch.zeros(10)) == math.inf
    assert pareto_k(torch.zeros(1000)) == -math.inf
    with pytest.raises(ValueError, match="log_weights"):
        pareto_k(torch.tensor([0.0, math.nan] * 50))
