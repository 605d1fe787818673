"""Wasserstein autoencoders: do codes get the prior's law, is the loss the paper's, and do samples resemble the data?"""

import math

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from torch import nn
from torch.nn.functional import softplus

from probdl import ConvergenceWarning, data, divergences
from probdl.loops.run import apart
from probdl.models import WAEGAN, WAEMMD
from probdl.models.wae.kernel import PriorKernel
from probdl.models.wae.moments import moment_gap
from probdl.models.wae.wae_gan import CodeCritic
from probdl.nn import MLP

DOUBLE = {"dtype": torch.float64, "standardise": "none"}


ON_IT = torch.tensor([[1.0, 1, 0, 0], [0, 0, 1, -1]], dtype=torch.float64)


def plane(n, seed=0):
    """Rows on a plane in four dimensions; their two coordinates on it are independent, with two modes each."""
    g = torch.Generator().manual_seed(seed)
    side = 2 * torch.randint(2, (n, 2), generator=g) - 1
    return (0.85 * side + 0.5 * torch.randn(n, 2, generator=g, dtype=torch.float64)) @ ON_IT


def ring(n, seed=0):
    """A curve that closes: no continuous map takes it onto a line."""
    t = 2 * math.pi * torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.stack([t.cos(), t.sin(), (2 * t).cos()], 1)


@pytest.fixture(scope="module", params=[WAEMMD, WAEGAN])
def fitted(request):
    how = {"epochs": 100} if request.param is WAEMMD else {"epochs": 200}
    return request.param(2, hidden=(64,), learning_rate=5e-3, **DOUBLE).fit(plane(1000), progress=False, **how)


def test_the_codes_of_held_out_rows_come_near_the_law_of_the_prior(fitted):
    """Kolmogorov–Smirnov distances of 1000 draws from the prior itself are above .062 with P < 1e-3."""
    z = fitted.encode(plane(1000, seed=1))
    for direction in ([1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [0.8, -0.6]):
        assert kstest((z @ torch.tensor(direction).double()).numpy(), "norm").statistic < 0.062
    # What the encoder had to bend: a linear one leaves these distances.
    assert kstest(plane(1000, seed=1)[:, 0].numpy(), "norm").statistic > 0.07


def test_samples_are_on_the_plane_and_spread_over_it_as_the_data_are(fitted):
    x, held = fitted.sample(1000), plane(1000, seed=2)
    off = torch.stack([x[:, 0] - x[:, 1], x[:, 2] + x[:, 3]], 1)
    assert off.square().sum(1).mean() < 0.02
    normal = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    normal = normal @ ON_IT
    assert divergences.energy(held, x).value < 0.6 * divergences.energy(held, normal).value  # of the same moments


def test_reconstructions_are_the_rows(fitted):
    held = plane(500, seed=3)
    assert (fitted.reconstruct(held) - held).square().sum(1).mean() < 0.05
    assert fitted.anomaly_score(held).mean() < 0.05
    assert (fitted.anomaly_score(held + torch.tensor([0.7, -0.7, 0, 0])) > 0.5).double().mean() > 0.95


def test_penalty_is_near_zero_where_codes_have_the_law_of_the_prior_and_larger_where_not(fitted):
    most = {WAEMMD: 0.004, WAEGAN: 0.05}[type(fitted)]
    near, far = fitted.penalty(plane(1000, seed=4)), fitted.penalty(0.2 * plane(1000, seed=4))
    assert abs(near.value) < most
    assert far.value > 10 * most
    assert far.value - 3 * far.stderr > 0
    assert near.n == 3000 or "critic" in near.method


def test_without_a_penalty_codes_do_not_have_the_law_of_the_prior():
    free = WAEMMD(2, weight=0.0, start=0, hidden=(64,), **DOUBLE).fit(plane(1000), epochs=30, progress=False)
    assert free.penalty_weight == 0
    assert free.penalty(plane(1000, seed=4)).value > 0.01


# --- the loss ---


def nets(d=4, k=2):
    torch.manual_seed(4)
    return MLP(d, k, hidden=(8,)).double(), MLP(k, d, hidden=(8,)).double()


def kernel_by_hand(x, y):
    """Σ C/(C + |x − y|²) / 7 with C = 2·d·s, as the paper has it but for the mean."""
    squared = (x[:, None] - y[None]).square().sum(-1)
    return sum(4 * s / (4 * s + squared) for s in (0.1, 0.2, 0.5, 1, 2, 5, 10)) / 7


def mmd2_by_hand(x, y):
    n = len(x)
    off = 1 - torch.eye(n, dtype=x.dtype)
    same = (kernel_by_hand(x, x) * off).sum() + (kernel_by_hand(y, y) * off).sum()
    return same / (n * (n - 1)) - 2 * kernel_by_hand(x, y).mean()


def test_a_fit_takes_the_steps_of_algorithm_2_written_by_hand():
    x = plane(90)
    encoder, decoder = nets()
    wae = WAEMMD(2, encoder=encoder, decoder=decoder, weight=7.0, start=0, learning_rate=0.01, decay=False, **DOUBLE)
    wae.fit(x, epochs=3, batch_size=40, validation=None, seed=7, progress=False)

    by_hand = e, d = nets()
    adam = torch.optim.Adam([*e.parameters(), *d.parameters()], lr=0.01)
    order, g = torch.Generator().manual_seed(7), torch.Generator().manual_seed(apart(7, 1))
    for _ in range(3):
        for rows in torch.randperm(90, generator=order).split(40):
            u, z = x[rows], e(x[rows])
            prior = torch.randn(z.shape, generator=g, dtype=torch.float64)
            loss = (u - d(z)).square().sum(1).mean() + 7 * mmd2_by_hand(z, prior)
            adam.zero_grad()
            loss.backward()
            adam.step()
    for ours, theirs in zip(
        [*encoder.parameters(), *decoder.parameters()], (p for n in by_hand for p in n.parameters())
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-9)


def test_a_fit_takes_the_steps_of_algorithm_1_written_by_hand():
    def critic():
        torch.manual_seed(5)
        return MLP(2, 1, hidden=(6,)).double()

    x = plane(80)
    (encoder, decoder), ours = nets(), critic()
    wae = WAEGAN(2, encoder=encoder, decoder=decoder, critic=ours, weight=3.0, start=0, learning_rate=0.01,
                 critic_rate=0.5, decay=False, **DOUBLE)  # fmt: skip
    wae.fit(x, steps=4, batch_size=20, validation=None, seed=7, progress=False)

    (e, d), h = nets(), critic()
    step_h = torch.optim.Adam(h.parameters(), lr=0.005, betas=(0.5, 0.999))
    step = torch.optim.Adam([*e.parameters(), *d.parameters()], lr=0.01, betas=(0.5, 0.999))
    order, g = torch.Generator().manual_seed(7), torch.Generator().manual_seed(apart(7, 1))

    def logit(z):
        return h(z)[:, 0] + torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(1)

    batches = [rows for _ in range(2) for rows in torch.randperm(80, generator=order).split(20)]
    for first, second in zip(batches[::2], batches[1::2]):
        codes = e(x[first]).detach()
        prior = torch.randn(20, 2, generator=g, dtype=torch.float64)
        step_h.zero_grad()
        # The bound on JS is half the sum of the log-probabilities, so its gradient is half that of the paper's D.
        (0.5 * (softplus(-logit(prior)).mean() + softplus(logit(codes)).mean())).backward()
        step_h.step()
        z = e(x[second])
        torch.randn(20, 2, generator=g, dtype=torch.float64)
        step.zero_grad()
        ((x[second] - d(z)).square().sum(1).mean() + 3 * softplus(-logit(z)).mean()).backward()
        step.step()
    pairs = zip([encoder, decoder, ours], [e, d, h])
    for a, b in ((p, q) for net, other in pairs for p, q in zip(net.parameters(), other.parameters())):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-8)


def test_the_critic_of_codes_knows_the_prior():
    """With h = −log q its logit is the log-ratio, and the discriminator is p/(p + q)."""
    q = torch.distributions.Normal(1.0, 0.5)

    class Exact(nn.Module):
        def forward(self, z):
            return -q.log_prob(z).sum(1)

    z = torch.randn(50, 1, dtype=torch.float64)
    p = torch.distributions.Normal(0.0, 1.0)
    best = p.log_prob(z).exp() / (p.log_prob(z).exp() + q.log_prob(z).exp())
    torch.testing.assert_close(CodeCritic(Exact())(z).sigmoid(), best[:, 0])


def test_the_kernel_is_positive_definite_and_one_at_equal_codes():
    z = torch.randn(60, 3, dtype=torch.float64)
    gram = PriorKernel(3)(z, z)
    assert torch.linalg.eigvalsh(gram).min() > -1e-9
    torch.testing.assert_close(gram.diagonal(), torch.ones(60).double())
    torch.testing.assert_close(PriorKernel(2)(z[:, :2], z[:9, :2]), kernel_by_hand(z[:, :2], z[:9, :2]))


def test_costs_are_those_of_w2_and_of_w1():
    x = plane(60)
    by_hand = {
        "squared": lambda u, v: (u - v).square().sum(1),
        "euclidean": lambda u, v: (u - v).norm(dim=1),
        "absolute": lambda u, v: (u - v).abs().sum(1),
    }
    own = nn.PairwiseDistance()
    for cost in (*by_hand, own):
        wae = WAEMMD(2, cost=cost, weight=0.0, learning_rate=1e-12, decay=False, hidden=(4,), start=0, **DOUBLE)
        wae.fit(x, epochs=1, batch_size=60, validation=None, progress=False)
        expected = by_hand.get(cost, by_hand["euclidean"])(x, wae.reconstruct(x)).mean().item()
        assert wae.history.loss.iloc[0] == pytest.approx(expected, rel=1e-4)
        if cost == "squared":
            assert expected != pytest.approx(by_hand["euclidean"](x, wae.reconstruct(x)).mean().item(), rel=0.05)


def test_the_default_weight_is_in_units_of_the_cost_of_the_mean():
    x = plane(200)
    to_mean = (x - x.mean(0)).square().sum(1).mean().item()
    how = {"steps": 1, "validation": None, "progress": False}
    assert WAEMMD(2, **DOUBLE).fit(x, **how).penalty_weight == pytest.approx(3 * to_mean)
    assert WAEMMD(2, **DOUBLE).fit(10 * x, **how).penalty_weight == pytest.approx(300 * to_mean)
    assert WAEGAN(2, **DOUBLE).fit(x, **how).penalty_weight == pytest.approx(to_mean / 2)
    assert WAEMMD(2, standardise="shared").fit(x, **how).penalty_weight == pytest.approx(12, rel=0.02)
    assert WAEMMD(2, weight=5).fit(x, **how).penalty_weight == 5


# --- the encoder ---


@pytest.mark.parametrize("stochastic", [False, True])
def test_the_start_brings_the_codes_to_the_first_two_moments_of_the_prior(stochastic):
    class OnlyStarted(WAEMMD):
        def _optimise(self, *_):
            pass

    x = 3 + plane(1000)
    wae = OnlyStarted(2, start=300, stochastic=stochastic, hidden=(32,), **DOUBLE).fit(
        x, validation=None, progress=False
    )
    codes = wae._codes_and_prior(x, 2, 0)[0]
    assert codes.mean(0).abs().max() < 0.15
    torch.testing.assert_close(torch.cov(codes.T), torch.eye(2).double(), rtol=0, atol=0.15)
    assert len(wae.history) > 1


def test_moment_gap_is_that_of_the_moments():
    z = torch.randn(500, 3, dtype=torch.float64) * torch.tensor([1.0, 2.0, 0.5]).double() + 1
    covariance = np.cov(z.T.numpy(), bias=True)
    expected = (z.mean(0).square().sum().item() + ((covariance - np.eye(3)) ** 2).sum()) / 3
    assert moment_gap(z).item() == pytest.approx(expected)


def test_a_stochastic_encoder_spreads_the_codes_of_a_row_and_encode_is_its_mean():
    wae = WAEMMD(2, stochastic=True, **DOUBLE).fit(ring(600), epochs=40, progress=False)
    row = ring(1).repeat(2000, 1)
    draws = wae._codes_and_prior(row, 2, 0)[0]
    q = wae.encoder(row[:1])
    assert wae.encode(row).unique(dim=0).shape == (1, 2)
    torch.testing.assert_close(wae.encode(row)[0], q.mean[0].detach())
    # 2000 draws: five standard errors of their mean, P < 1e-6
    assert ((draws.mean(0) - q.mean[0]).abs() < 5 * q.stddev[0] / math.sqrt(2000)).all()
    torch.testing.assert_close(draws.std(0), q.stddev[0].detach(), rtol=0.1, atol=0)
    assert abs(wae.penalty(ring(800, seed=1)).value) < 0.01


def test_a_batch_of_one_row_has_no_mmd_and_the_fit_goes_on():
    wae = WAEMMD(1, start=0, hidden=(4,), **DOUBLE).fit(
        plane(41), batch_size=40, epochs=2, validation=None, progress=False
    )
    assert wae.history.loss.notna().all()


# --- digits ---


def test_samples_of_digits_are_nearer_to_held_out_ones_than_those_of_moments_alone():
    """The normal with the mean and the covariance of the training rows is what a linear generator could reach."""
    x = data.digits().images.flatten(1)[torch.randperm(1797, generator=torch.Generator().manual_seed(0))]
    train, held = x[:1400], x[1400:]
    wae = WAEMMD(8, standardise="shared").fit(train, epochs=60, progress=False)
    values, vectors = torch.linalg.eigh(torch.cov(train.T))
    noise = torch.randn(1000, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    normal = train.mean(0) + noise * values[-8:].sqrt() @ vectors[:, -8:].T
    ours, theirs = (divergences.energy(held, s) for s in (wae.sample(1000), normal))
    assert ours.value + 2 * ours.stderr < theirs.value - 2 * theirs.stderr


def test_the_adversarial_fit_is_judged_by_the_objective_of_wae_mmd_on_held_out_rows():
    held = plane(50, seed=5)
    wae = WAEGAN(2, hidden=(8,), start=0, **DOUBLE).fit(plane(80), steps=1, validation=held, seed=3, progress=False)
    prior = torch.randn(50, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    cost = (held - wae.reconstruct(held)).square().sum(1).mean()
    to_mean = (plane(80) - plane(80).mean(0)).square().sum(1).mean()
    expected = cost + 3 * to_mean * mmd2_by_hand(wae.encode(held), prior)
    assert wae.history.validation.iloc[-1] == pytest.approx(expected.item())


def test_a_critic_that_is_sure_is_diagnosed():
    with pytest.warns(
        ConvergenceWarning, match="tells codes from draws of the prior almost always: .* of at most 0.69"
    ):
        wae = WAEGAN(2, weight=0.0, start=0, hidden=(8,), **DOUBLE).fit(plane(300) + 20, steps=300, progress=False)
    assert "still tells codes from the prior" in wae.message
    assert wae.penalty(plane(300) + 20).value > 0.5
