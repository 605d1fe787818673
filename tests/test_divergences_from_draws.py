"""KL, JS, TV and Hellinger from draws: neighbours, classifiers, and densities that are known on one side."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import Bernoulli, Independent, Normal, Poisson, Uniform

import probdl
from probdl.divergences import classifiers, hellinger2, js, kl, neighbours, tv, whitening


def normals(n, d, seed, shift=0.0, scale=1.0, device="cpu"):
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale
    x[:, 0] += shift
    return x.to(device)


def gaussian(d, shift=0.0, scale=1.0):
    mean = torch.zeros(d, dtype=torch.float64)
    mean[0] = shift
    return Independent(Normal(mean, scale * torch.ones_like(mean)), 1)


def notes(estimate):
    return " ".join(estimate.notes)


# --- nearest neighbours ----------------------------------------------------------------------------------------------


def test_the_estimate_is_the_published_formula(device):
    x, y = normals(40, 1, 1, device=device), normals(55, 1, 2, 0.5, device=device)
    rho = torch.cdist(x, x).sort(1).values[:, neighbours.NEIGHBOURS]  # the first is the distance to itself
    nu = torch.cdist(x, y).sort(1).values[:, neighbours.NEIGHBOURS - 1]
    assert kl(x, y).value == pytest.approx((nu / rho).log().mean().item() + math.log(55 / 39), abs=1e-10)


@pytest.mark.parametrize("d", [1, 2, 3])
def test_draws_and_densities_on_either_side_agree_with_the_truth(d):
    # A wider q has little bias; the interval leaves out what there is
    p, q = gaussian(d), gaussian(d, scale=1.5)
    truth = kl(p, q).value
    x, y = normals(3000, d, 1), normals(3000, d, 2, scale=1.5)
    for first, second in ((x, y), (x, q), (p, y)):
        estimate = kl(first, second)
        assert estimate.method == "nearest neighbours"
        assert estimate.target == "expected estimate"
        assert abs(estimate.value - truth) < 4 * estimate.stderr  # false alarm 6e-5 each
        assert estimate.stderr < 0.06


def test_a_known_density_takes_error_away():
    x, y = normals(1000, 1, 1), normals(1000, 1, 2, 1.0)
    assert kl(x, gaussian(1, 1.0)).stderr < 0.75 * kl(x, y).stderr


def test_units_rotations_and_origins_do_not_matter():
    x, y = normals(300, 3, 1), normals(200, 3, 2, 1.0)
    mix = torch.tensor([[1e3, 2.0, 0.0], [0.0, 1e-3, 0.5], [1.0, 0.0, 3.0]], dtype=torch.float64)
    assert kl(x @ mix + 1e4, y @ mix + 1e4).value == pytest.approx(kl(x, y).value, abs=1e-6)


def test_a_column_that_never_varies_changes_nothing():
    x, y = normals(300, 2, 1), normals(200, 2, 2, 1.0)
    wide = [torch.cat([z, torch.full((len(z), 1), 7.0, dtype=torch.float64)], 1) for z in (x, y)]
    estimate = kl(*wide)
    assert estimate.value == pytest.approx(kl(x, y).value, abs=1e-8)
    assert "all draws lie in 2 of 3 dimensions" in notes(estimate)


@pytest.mark.parametrize("known", ["none", "p", "q"])
def test_the_error_is_the_delete_one_jackknife(known, monkeypatch):
    still = whitening.Frame(torch.zeros(2).double(), torch.eye(2).double(), 0.0, 2)
    monkeypatch.setattr(neighbours, "frame", lambda *_: still)
    monkeypatch.setattr(neighbours, "pareto_k", lambda _: 0.0)  # so few draws tell nothing of the tail
    x, y = normals(14, 2, 1), normals(11, 2, 2, 0.5)
    log_p = gaussian(2).log_prob(x) if known == "p" else None
    log_q = gaussian(2, 0.5).log_prob(x) if known == "q" else None
    y = None if known == "q" else y

    def value(rows, columns):
        parts = [None if t is None else t[rows] for t in (log_p, log_q)]
        return neighbours._mean_log_ratio(x[rows], None if y is None else y[columns], *parts).value

    everything, variance = [np.arange(14), np.arange(11)], 0.0
    for side in (0, 1) if y is not None else (0,):
        n, values = len(everything[side]), []
        for j in range(n):
            kept = list(everything)
            kept[side] = np.delete(kept[side], j)
            values.append(value(*kept))
        variance += (n - 1) ** 2 / n * np.var(values, ddof=1)
    assert neighbours._mean_log_ratio(x, y, log_p, log_q).stderr ** 2 == pytest.approx(variance, rel=1e-9)


def test_the_interval_covers_the_mean_of_the_estimator():
    estimates = [kl(normals(150, 2, 2 * s), normals(200, 2, 2 * s + 1, 1.0)) for s in range(200)]
    mean = sum(e.value for e in estimates) / 200
    covered = sum(low <= mean <= high for low, high in (e.interval() for e in estimates))
    # The jackknife is a little too wide; Binomial(200, .95) falls below 176 with probability 2e-4
    assert covered >= 176
    spread = np.std([e.value for e in estimates])
    assert np.mean([e.stderr for e in estimates]) < 1.5 * spread


def test_the_notes_show_the_bias_by_half_of_the_draws():
    note = notes(kl(normals(400, 2, 1), normals(400, 2, 2, 2.0)))
    assert "leaves out its bias" in note
    assert float(note.split("half of the draws give ")[1].split(" ")[0]) > 0.5


def test_ties_are_an_error_with_their_fraction():
    x = normals(100, 1, 1)
    x[:20] = x[20:40]
    with pytest.raises(ValueError, match=r"40\.00% of the draws of p are tied.*method='classifier'"):
        kl(x, normals(100, 1, 2))
    y = normals(100, 1, 1)
    with pytest.raises(ValueError, match=r"5\.00% of the draws of p are tied"):
        kl(y, torch.cat([normals(100, 1, 2), y[:5]]))
    with pytest.raises(ValueError, match="all draws are equal"):
        kl(np.ones(50), np.ones(50))


def test_more_columns_than_rows_and_values_above_log_n_get_notes():
    estimate = kl(normals(30, 40, 1), normals(30, 40, 2), method="nearest neighbours")
    assert "more columns (40) than draws" in notes(estimate)
    far = kl(normals(200, 1, 1), normals(200, 1, 2, 30.0))
    assert "above log n = 5.3" in notes(far)
    assert not math.isinf(far.value), "draws cannot certify infinity"


def test_a_heavy_tailed_ratio_has_no_error():
    cauchy = torch.tan(math.pi * (torch.rand(2000, dtype=torch.float64) - 0.5))
    estimate = kl(cauchy, Normal(0.0, 1.0))
    assert estimate.stderr is None
    assert "heavy tail" in notes(estimate)


def test_a_draw_where_q_has_no_density_makes_kl_infinite():
    estimate = kl(normals(100, 1, 1), Uniform(0.0, 1.0))
    assert estimate.value == math.inf
    assert "q has no density at a draw of p" in notes(estimate)


# --- log-densities ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [Normal(0.5, 1.0), normals(3000, 1, 1, 0.5)], ids=["law", "draws"])
def test_against_a_log_density_the_value_is_kl_up_to_log_z(p):
    free = kl(p, probdl.LogDensity(lambda x: -(x[:, 0] ** 2) / 2, dim=1))
    log_z = 0.5 * math.log(2 * math.pi)
    assert abs(free.value + log_z - 0.125) < 4 * free.stderr  # false alarm 6e-5
    assert free.target == "approximation"
    assert "KL(p‖q) − log Z" in notes(free)
    known = kl(p, probdl.LogDensity(lambda x: -(x[:, 0] ** 2) / 2 - log_z, dim=1, normalised=True))
    assert known.value == pytest.approx(free.value + log_z, abs=1e-9)
    assert known.target == ("population" if isinstance(p, Normal) else "expected estimate")
    assert "log Z" not in notes(known)


def test_a_log_density_gives_no_draws():
    q = probdl.LogDensity(lambda x: -(x[:, 0] ** 2) / 2, dim=1)
    with pytest.raises(ValueError, match="p is a LogDensity, which gives no draws"):
        kl(q, normals(100, 1, 1))
    with pytest.raises(ValueError, match="q is a LogDensity.*js needs draws"):
        js(normals(100, 1, 1), q)
    with pytest.raises(ValueError, match="must be below infinity and not NaN"):
        kl(normals(100, 1, 1), probdl.LogDensity(lambda x: x[:, 0] * math.nan, dim=1))


# --- classifiers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("divergence", "d", "shift", "scale"),
    [(kl, 5, 1.0, 1.0), (js, 5, 1.0, 1.0), (tv, 5, 1.0, 1.0), (hellinger2, 5, 1.0, 1.0), (js, 2, 0.0, 2.0)],
)
def test_a_classifier_gives_a_lower_bound_near_the_truth(divergence, d, shift, scale):
    truth = divergence(gaussian(d), gaussian(d, shift, scale)).value
    estimate = divergence(normals(1500, d, 1), normals(1000, d, 2, shift, scale), method="classifier")
    assert (estimate.method, estimate.target) == ("classifier", "lower bound")
    assert estimate.value < truth + 4 * estimate.stderr  # false alarm 3e-5
    assert estimate.value > 0.85 * truth - 4 * estimate.stderr
    assert estimate.stderr < 0.2 * truth


def test_a_lower_bound_holds_on_average():
    truth = js(gaussian(1), gaussian(1, 1.0)).value
    values = [js(normals(60, 1, 2 * s), normals(60, 1, 2 * s + 1, 1.0)).value for s in range(15)]
    # t with 14 df: false alarm below 7e-4
    assert np.mean(values) < truth + 4 * np.std(values, ddof=1) / math.sqrt(15)


def test_without_overlap_js_is_log_2_and_tv_is_1_and_neither_is_called_exact():
    u = torch.rand(2, 300, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x, y = (torch.stack([torch.full((300,), float(i)).double(), u[i]], 1) for i in (0, 1))
    assert js(x, y).value == pytest.approx(math.log(2), abs=0.01)
    estimate = tv(x, y)
    assert estimate.value == pytest.approx(1.0, abs=1e-12)  # the weights of the draws are rounded
    assert 0 < estimate.stderr < 0.02


def test_jumps_and_two_humps_are_found_by_other_classifiers_than_lines():
    u = torch.rand(2000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    estimate = tv(u[:1000], u[1000:] + torch.tensor([0.4, 0.0]))
    assert estimate.value > 0.35, "the truth is .4"
    assert "boosted trees" in notes(estimate)
    signs = torch.where(torch.arange(1000) % 2 == 0, 3.0, -3.0).double()
    humps = normals(1000, 1, 1)[:, 0] + signs
    assert js(humps, normals(1000, 1, 2, scale=math.sqrt(10))).value > 0.1, "two moments agree: a line sees nothing"


def test_equal_distributions_are_told_apart_by_chance_only():
    values = [tv(normals(60, 2, 2 * s), normals(60, 2, 2 * s + 1)) for s in range(12)]
    z = [e.value / e.stderr for e in values]
    assert max(map(abs, z)) < 4  # twelve held-out accuracies: false alarm below 1e-3


def test_weights_correct_the_distribution():
    x, y = normals(2000, 1, 1), normals(1000, 1, 2, 1.0)
    weighted = probdl.Draws(x, torch.exp(x[:, 0] - 0.5))  # N(0, 1) weighted to N(1, 1)
    estimate = tv(weighted, y)
    assert abs(estimate.value) < 4 * estimate.stderr
    assert tv(x, y).value > 0.3
    assert kl(weighted, y).method == "classifier"
    with pytest.raises(ValueError, match="nearest neighbours take no weights; p has them"):
        kl(weighted, y, method="nearest neighbours")


def test_discrete_draws_go_to_the_classifier():
    counts = Poisson(3.0).sample((400,))
    estimate = kl(counts, Poisson(4.0))
    truth = kl(Poisson(3.0), Poisson(4.0)).value
    assert estimate.method == "classifier"
    assert abs(estimate.value - truth) < 4 * estimate.stderr + 0.2 * truth
    with pytest.raises(ValueError, match="need densities; q is discrete"):
        kl(counts, Poisson(4.0), method="nearest neighbours")


def test_above_three_columns_kl_is_by_classifier_and_without_a_variance_has_no_error():
    # KL(N(0, 4I)‖N(0, I)) at d = 10 is 8.07; neighbours give about 0
    x, y = normals(2000, 10, 1, scale=2.0), normals(2000, 10, 2)
    estimate = kl(x, y)
    assert estimate.value == pytest.approx(8.07, abs=1.0)
    assert estimate.stderr is None
    assert estimate.target == "expected estimate"
    assert "above log n" in notes(estimate)
    assert kl(x, y, method="nearest neighbours").value < 4


def test_the_same_seed_gives_the_same_value_and_nothing_global_moves():
    x, y = normals(100, 2, 1), normals(100, 2, 2, 1.0)
    before, numpys = torch.get_rng_state(), np.random.get_state()[1].copy()
    values = [js(x, y, seed=s).value for s in (1, 1, 2)]
    assert values[0] == values[1] != values[2]
    assert torch.equal(before, torch.get_rng_state())
    assert (np.random.get_state()[1] == numpys).all()


def test_of_too_many_draws_some_are_used(monkeypatch):
    monkeypatch.setattr(classifiers, "MOST", 50)
    monkeypatch.setattr(neighbours, "MOST", 60)
    x, y = normals(300, 2, 1), normals(40, 2, 2)
    for estimate, used in ((js(x, y), 90), (kl(x, y), 100)):
        assert estimate.n == used
        assert f"{used - 40} of the 300 draws of p" in notes(estimate)


def test_what_the_estimators_cannot_use_is_refused():
    x = normals(30, 2, 1)
    with pytest.raises(ValueError, match="at least 20 draws of each side; got 19 of q"):
        tv(x, x[:19])
    with pytest.raises(ValueError, match="at least 7 draws of p; got 6"):
        kl(x[:6], x)
    with pytest.raises(ValueError, match="method of js must be one of 'auto', 'classifier'"):
        js(x, x, method="monte carlo")
    with pytest.raises(ValueError, match="q must be one distribution; got a batch"):
        kl(x[:, 0], Normal(torch.zeros(2), 1.0))
    with pytest.raises(ValueError, match="p must be finite"):
        hellinger2([[math.nan, 0.0]], x)
    with pytest.raises(ValueError, match="same number of coordinates"):
        tv(x, Bernoulli(0.5))
