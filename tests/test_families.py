"""Families around networks: their densities are SciPy's, draws follow them, missing entries have no term."""

import math
from copy import deepcopy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import nn

from probdl.families import (
    BernoulliHead,
    CategoricalHead,
    FreeScaleNormalHead,
    Joint,
    MixedHead,
    NetworkScaleNormalHead,
    NormalHead,
    Part,
    PoissonHead,
    observed,
)

N, D = 6, 3
G = torch.Generator().manual_seed(0)
A = torch.randn(N, 2 * D, generator=G, dtype=torch.float64)  # what a network returned
COUNTS, BITS = torch.poisson(A[:, :D].exp() * 3, generator=G), (A[:, :D] > 0).double()
ROWS, ONE_HOT = torch.randn(N, D, generator=G, dtype=torch.float64), torch.eye(D).double()[[0, 2, 1, 1, 0, 2]]
RATE = torch.tensor([1.0, 2.0, 50.0], dtype=torch.float64)


def normal(entries=(), variance=(0.5,)):
    head = NormalHead(nn.Identity(), entries).double().eval()
    head.variance.copy_(torch.tensor(variance if entries else variance[0], dtype=torch.float64))
    return head


def free(variance):
    head = FreeScaleNormalHead(nn.Identity(), (D,)).double().eval()
    with torch.no_grad():
        head.raw.copy_((torch.tensor(variance, dtype=torch.float64) - 1e-5).log() / 5)
    return head


NORMALS, COUNT, CATEGORY = [1, 3], 4, [0, 2, 5]  # the entries of a mixed row


def mixed():
    parts = [
        Part(normal((2,), (0.3, 2.0)), tuple(NORMALS), tuple(NORMALS)),
        Part(PoissonHead(nn.Identity(), RATE[:1]), (COUNT,), (COUNT,)),
        Part(CategoricalHead(nn.Identity()), tuple(CATEGORY), tuple(CATEGORY)),
    ]
    return MixedHead(nn.Identity(), parts).double().eval()


def mixed_rows():
    rows = torch.zeros(N, 6, dtype=torch.float64)
    rows[:, NORMALS], rows[:, COUNT], rows[:, CATEGORY] = ROWS[:, :2], COUNTS[:, 0], ONE_HOT
    return rows


a, NARROW = A.numpy(), A[:, :D]
SOFTPLUS = np.log1p(np.exp(a[:, D:]))
CASES = {
    "one scale": (normal(), ROWS, NARROW, stats.norm(a[:, :D], 0.5**0.5).logpdf),
    "a scale for each": (normal((D,), (0.5, 1, 4)), ROWS, NARROW, stats.norm(a[:, :D], [0.5**0.5, 1, 2]).logpdf),
    "free scales": (free((0.5, 1, 4)), ROWS, NARROW, stats.norm(a[:, :D], [0.5**0.5, 1, 2]).logpdf),
    "a network's scale": (
        NetworkScaleNormalHead(nn.Identity(), (D,)), ROWS, A, stats.norm(a[:, :D], (SOFTPLUS**2 + 1e-5) ** 0.5).logpdf,
    ),
    "bernoulli": (BernoulliHead(nn.Identity()), BITS, NARROW, stats.bernoulli(1 / (1 + np.exp(-a[:, :D]))).logpmf),
    "poisson": (
        PoissonHead(nn.Identity(), RATE), COUNTS, NARROW, stats.poisson(np.exp(a[:, :D]) * RATE.numpy()).logpmf,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_log_densities_are_scipy_s_and_the_distribution_s_own(name):
    head, x, given_, oracle = CASES[name]
    expected = torch.as_tensor(oracle(x.numpy())).sum(1)
    torch.testing.assert_close(head.log_prob(x, given_), expected)
    torch.testing.assert_close(head(given_).log_prob(x), expected)


@pytest.mark.parametrize("name", CASES)
def test_missing_entries_have_no_term_and_pass_no_gradient(name):
    head, x, given_, oracle = CASES[name]
    there = torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) < 0.6
    holes = torch.where(there, x, torch.nan)
    at = given_.clone().requires_grad_()
    found = head.log_prob(holes, at)
    torch.testing.assert_close(found, (torch.as_tensor(oracle(x.numpy())) * there).sum(1))
    found.sum().backward()
    assert at.grad.isfinite().all()
    assert (at.grad[:, :D][~there] == 0).all()
    assert (at.grad[:, :D][there] != 0).any()


def test_a_category_is_scored_by_its_probability_and_missing_as_a_whole():
    head, logits = CategoricalHead(nn.Identity()), A[:, :D]
    expected = torch.as_tensor(stats.multinomial(1, logits.softmax(1).numpy()).logpmf(ONE_HOT.numpy()))
    torch.testing.assert_close(head.log_prob(ONE_HOT, logits), expected)
    torch.testing.assert_close(head(logits).log_prob(ONE_HOT), expected)
    holes = ONE_HOT.clone()
    holes[2] = torch.nan
    torch.testing.assert_close(head.log_prob(holes, logits), expected * (torch.arange(N) != 2))


def test_a_mixed_row_s_density_is_the_product_of_its_parts():
    head, x = mixed(), mixed_rows()
    rows, p = x.numpy(), A[:, CATEGORY].softmax(1).numpy()
    expected = (
        stats.norm(a[:, NORMALS], [0.3**0.5, 2**0.5]).logpdf(rows[:, NORMALS]).sum(1)
        + stats.poisson(np.exp(a[:, COUNT])).logpmf(rows[:, COUNT])
        + np.log((p * rows[:, CATEGORY]).sum(1))
    )
    torch.testing.assert_close(head.log_prob(x, A), torch.as_tensor(expected))
    torch.testing.assert_close(head(A).log_prob(x), torch.as_tensor(expected))
    mean = torch.zeros(N, 6, dtype=torch.float64)
    mean[:, NORMALS], mean[:, COUNT], mean[:, CATEGORY] = A[:, NORMALS], A[:, COUNT].exp(), torch.as_tensor(p)
    torch.testing.assert_close(head(A).mean, mean)
    assert isinstance(head(A), Joint)
    assert head(A).sample((4,)).shape == (4, N, 6)


HEADS = {**{name: case[0] for name, case in CASES.items()}, "categorical": CategoricalHead(nn.Identity())}


@pytest.mark.parametrize("name", [*HEADS, "mixed"])
def test_draws_have_the_mean_and_the_variance_of_the_distribution(name, device):
    head, wide = mixed() if name == "mixed" else HEADS[name], name in ("a network's scale", "mixed")
    given_ = (A if wide else NARROW)[:1].to(device)
    head, n = deepcopy(head).to(device), 40_000
    p = head(given_)
    draws = head.draw(given_.expand(n, -1), torch.Generator(device).manual_seed(0))
    mean = p.mean[0]
    if name == "mixed":
        variance = mean * (1 - mean)  # of a category
        variance[NORMALS], variance[COUNT] = torch.tensor([0.3, 2.0]).to(mean), mean[COUNT]
    else:
        variance = p.variance[0]
    # At most 6 entries, normal errors: P(some |z| > 5) < 4e-6.
    assert ((draws.mean(0) - mean).abs() < 5 * (variance / n).sqrt()).all()
    # The variance of a sample variance is below 4 σ⁴/n + κ; 10 % is more than 5 of its standard errors here.
    torch.testing.assert_close(draws.var(0), variance, rtol=0.1, atol=0)
    again = head.draw(given_.expand(n, -1), torch.Generator(device).manual_seed(0))
    assert torch.equal(draws, again)


@pytest.mark.parametrize("entries", [(), (D,)])
def test_in_training_a_batch_is_scored_at_its_own_best_variance(entries):
    head = NormalHead(nn.Identity(), entries).double().train()
    squares = (ROWS - NARROW).square()
    best = (squares.mean(0) if entries else squares.mean()) + 1e-5
    expected = stats.norm(NARROW, best.sqrt()).logpdf(ROWS).sum(1)
    torch.testing.assert_close(head.log_prob(ROWS, NARROW), torch.as_tensor(expected))
    torch.testing.assert_close(head.variance, torch.ones(entries).double().lerp(best, 0.1))


@pytest.mark.parametrize("entries", [(), (D,)])
def test_the_variance_is_settled_at_the_mean_square_of_what_is_there(entries):
    head = NormalHead(nn.Identity(), entries).double()
    holes = ROWS.clone()
    holes[:2, 0], holes[3, 2] = torch.nan, torch.nan
    head.settle([(holes[:4], NARROW[:4]), (holes[4:], NARROW[4:])])
    expected = np.nanmean((holes - NARROW).square().numpy(), axis=0 if entries else None) + 1e-5
    np.testing.assert_allclose(head.variance, expected)
    head.train()
    before = head.variance.clone()
    terms = head.log_prob(holes, NARROW)
    np.testing.assert_allclose(head.variance, before)  # the batch's best is the same
    np.testing.assert_allclose(terms, np.nansum(stats.norm(NARROW, expected**0.5).logpdf(holes), 1))


def test_an_entry_that_a_batch_lacks_keeps_its_variance():
    head = NormalHead(nn.Identity(), (D,)).double().train()
    head.variance.copy_(torch.tensor([3.0, 1.0, 1.0]))
    holes = ROWS.clone()
    holes[:, 0] = torch.nan
    assert head.log_prob(holes, NARROW).isfinite().all()
    assert head.variance[0] == 3.0
    head.settle([(holes, NARROW)])
    assert head.variance[0] == 3.0


def test_a_mixed_head_settles_its_numbers():
    head, x = mixed(), mixed_rows()
    head.settle([(x, A)])
    expected = (x - A).square().mean(0)[NORMALS] + 1e-5
    torch.testing.assert_close(head.heads[0].variance, expected)


def test_free_scales_follow_the_gradient_to_the_maximum_of_the_likelihood():
    head = FreeScaleNormalHead(nn.Identity(), (D,)).double()
    adam = torch.optim.Adam(head.parameters(), lr=0.05)
    for _ in range(600):
        adam.zero_grad()
        (-head.log_prob(ROWS, NARROW).mean()).backward()
        adam.step()
    torch.testing.assert_close(head.variance.detach(), (ROWS - NARROW).square().mean(0), rtol=1e-3, atol=0)


@pytest.mark.parametrize("shape", [(4,), (2, 3, 3), ()])
def test_a_network_s_scale_has_the_shape_of_a_row(shape):
    doubled = (2 * shape[0], *shape[1:]) if shape else (2,)
    out = torch.randn(5, *doubled, generator=G, dtype=torch.float64)
    p = NetworkScaleNormalHead(nn.Identity(), shape)(out)
    assert p.event_shape == torch.Size(shape)
    torch.testing.assert_close(p.mean, out[:, : max(1, doubled[0] // 2)].reshape(5, *shape))
    expected = nn.functional.softplus(out[:, doubled[0] // 2 :]).square().reshape(5, *shape) + 1e-5
    torch.testing.assert_close(p.variance, expected)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20), st.integers(0, 2**20 - 1))
def test_what_is_there_and_what_is_not_make_up_the_row(values, holes):
    x = torch.tensor([values], dtype=torch.float64)
    gone = torch.tensor([[bool(holes >> i & 1) for i in range(len(values))]])
    filled, there = observed(torch.where(gone, torch.nan, x))
    assert (there is None) == (not gone.any())
    assert torch.equal(filled, torch.where(gone, 0.0, x))
    if there is not None:
        assert torch.equal(there, ~gone)


def test_counts_near_their_mean_are_probable_where_a_network_starts():
    head = PoissonHead(nn.Identity(), torch.tensor([1000.0], dtype=torch.float64))
    zero = torch.zeros(1, 1, dtype=torch.float64)
    assert head.log_prob(torch.full((1, 1), 1000.0, dtype=torch.float64), zero).item() == pytest.approx(
        stats.poisson(1000).logpmf(1000)
    )
    assert head(zero).mean.item() == pytest.approx(1000)
    assert math.isfinite(head.log_prob(torch.zeros(1, 1).double(), zero).item())
