"""Adversarial examples: against analytic distances of linear classifiers, and on classifiers of digits."""

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq, nnls
from torch import nn
from torch.nn import functional as F

from probdl import data, viz
from probdl.nn import seeded

HELD = slice(1500, 1520)


def built(network, seed):
    with seeded(seed):
        return network()


def logistic(d, seed=0):
    return built(lambda: nn.Linear(d, 1), seed).double()


def inputs(n, d, seed=1):
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def other(f):
    return (f < 0).long()


@given(d=st.integers(1, 60), seed=st.integers(0, 1000), scale=st.sampled_from([0.01, 1.0, 100.0]))
@settings(max_examples=8, deadline=None)
def test_of_logistic_regression_it_is_the_distance_to_the_plane(d, seed, scale):
    model, x = logistic(d, seed), scale * inputs(2, d, seed)
    f = model(x)[:, 0].detach()
    found = viz.adversarial(model, x, other(f), bounds=None)
    weight = model.weight.detach()[0]
    assert found.success.all()
    torch.testing.assert_close(found.norm * weight.norm() / f.abs(), torch.ones(2).double(), rtol=0, atol=1e-6)
    exact = -f[:, None] * weight / weight.norm() ** 2  # a direction off by 1e-4 costs 1e-8 of the length
    assert ((found.r - exact).norm(dim=1) < 1e-4 * exact.norm(dim=1)).all()


def test_the_weight_of_the_length_is_the_largest_that_reaches_the_plane():
    """On the plane the slope of -log p is ‖w‖/2: above that weight the minimum lies before it."""
    model, x = logistic(20), inputs(4, 20)
    found = viz.adversarial(model, x, other(model(x)[:, 0]), bounds=None)
    half = model.weight.detach().norm() / 2
    assert (found.c <= half * (1 + 1e-6)).all()
    assert (found.c > 0.99 * half).all()


def test_more_steps_come_nearer_to_that_weight():
    model, x = logistic(20), inputs(1, 20)
    few, many = (
        viz.adversarial(model, x, other(model(x)[:, 0]), bounds=None, steps=steps).c[0] / model.weight.detach().norm()
        for steps in (2, 25)
    )
    assert few < 0.4
    assert many == pytest.approx(0.5, rel=1e-5)


def test_with_the_first_norm_one_pixel_changes():
    """min ‖r‖₁ with wᵀr = -f puts all of it on the largest |w|."""
    model, x = logistic(20), inputs(3, 20)
    f = model(x)[:, 0].detach()
    found = viz.adversarial(model, x, other(f), order=1, bounds=None)
    torch.testing.assert_close(
        found.r.abs().sum(1) * model.weight.detach().abs().max() / f.abs(), torch.ones(3).double()
    )
    assert ((found.r.abs() > 1e-6).sum(1) == 1).all()
    torch.testing.assert_close(found.norm, found.r.norm(dim=1))


def shortest_in_box(weight, f, x):
    """Return the shortest r within [0, 1] - x on the plane: r = clip(tw), with t by a root finder."""

    def along(t):
        return (t * weight).clamp(-x, 1 - x)

    t = brentq(lambda t: float(f + (weight * along(t)).sum()), -1e3, 1e3, xtol=1e-14)
    return along(t)


@pytest.mark.parametrize("seed", range(4))
def test_within_a_box_it_is_the_shortest_that_the_box_allows(seed):
    weight, x = inputs(1, 12, seed)[0], torch.rand(12, dtype=torch.float64).round(decimals=1)
    model = logistic(12)
    model.weight.data.copy_(weight[None])
    model.bias.data.fill_(-float(0.4 * weight @ x + 0.6 * weight.clamp(min=0).sum()))  # f = 0 is in the box, far from x
    f = model(x[None])[0].detach()
    best = shortest_in_box(weight, float(f), x)
    found = viz.adversarial(model, x[None], 1, steps=20)
    assert found.success.all()
    assert ((best == -x) | (best == 1 - x)).any(), "the box does not matter here"
    assert found.norm.item() == pytest.approx(best.norm().item(), rel=1e-4)
    assert (found.norm >= best.norm() * (1 - 1e-9)).all()
    assert (found.x >= 0).all()
    assert (found.x <= 1).all()


def test_what_the_box_forbids_is_reported_as_a_failure():
    model = logistic(5)
    model.weight.data.fill_(1.0)
    model.bias.data.fill_(-6.0)
    found = viz.adversarial(model, torch.full((2, 5), 0.5, dtype=torch.float64), torch.tensor([1, 0]))
    assert found.success.tolist() == [False, True]
    assert found.c.isnan().tolist() == [True, False]
    assert (found.x <= 1).all()
    torch.testing.assert_close(found.x[0], torch.ones(5, dtype=torch.float64), rtol=0, atol=1e-3)  # it tried


@pytest.mark.parametrize("outputs", [1, 3])
def test_a_tie_is_no_success(outputs):
    model = nn.Linear(4, outputs).double()
    for parameter in model.parameters():
        parameter.data.zero_()
    found = viz.adversarial(model, inputs(2, 4), torch.tensor([0, 1]), bounds=None)
    assert not found.success.any()
    assert found.c.isnan().all()


def test_what_is_taken_for_the_target_already_is_not_changed():
    model, x = logistic(5), inputs(3, 5)
    found = viz.adversarial(model, x, 1 - other(model(x)[:, 0]), bounds=None)
    assert found.success.all()
    assert (found.r == 0).all()
    assert (found.norm == 0).all()
    assert (found.c == math.inf).all()


@pytest.mark.parametrize("spelling", ["(n, 1)", "(n,)", "(n, 2)"])
def test_two_classes_may_be_spelled_with_one_score_or_two(spelling):
    model, x = logistic(6), inputs(2, 6)
    target = other(model(x)[:, 0])
    two = nn.Linear(6, 2).double()
    two.weight.data.copy_(torch.cat([torch.zeros_like(model.weight), model.weight]))
    two.bias.data.copy_(torch.cat([torch.zeros_like(model.bias), model.bias]))
    spelled = {"(n, 1)": model, "(n,)": nn.Sequential(model, nn.Flatten(0)), "(n, 2)": two}[spelling]
    found, one = (viz.adversarial(m, x, target, bounds=None) for m in (spelled, model))
    torch.testing.assert_close(found.r, one.r, rtol=1e-6, atol=1e-9)


def fitted(model, rate, steps):
    images, labels = data.digits()
    images, noise = images[:1500].to(next(model.parameters()).dtype), torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam(model.parameters(), rate)
    for _ in range(steps):
        rows = torch.randint(1500, (128,), generator=noise)
        optimiser.zero_grad()
        F.cross_entropy(model(images[rows]), labels[rows]).backward()
        optimiser.step()
    return model


def convolutional():
    first, second = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 16, 3, padding=1)
    pools = nn.MaxPool2d(2), nn.MaxPool2d(2)
    return nn.Sequential(first, nn.ReLU(), pools[0], second, nn.ReLU(), pools[1], nn.Flatten(), nn.Linear(64, 10))


@pytest.fixture(scope="module", params=["linear", "cnn"])
def classifier(request):
    """A classifier of digits that was fitted to the first 1,500."""
    if request.param == "linear":
        return fitted(built(lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), 0), 0.02, 300)
    return fitted(built(convolutional, 0), 0.005, 300)


def test_twenty_of_twenty_held_out_digits_are_taken_for_the_next(classifier):
    x, labels = (part[HELD] for part in data.digits())
    x = x.float()
    assert (classifier(x).argmax(1) == labels).float().mean() >= 0.75
    target = (classifier(x).argmax(1) + 1) % 10
    found = viz.adversarial(classifier, x, target)
    assert found.success.all()
    assert (classifier(found.x).argmax(1) == target).all()
    assert (found.x >= 0).all()
    assert (found.x <= 1).all()
    torch.testing.assert_close(found.x, x + found.r)
    assert 0.3 < found.norm.mean() < 1.5  # an image is about 4.6 long
    nearer = x + 0.99 * found.r
    assert not (classifier(nearer).argmax(1) == target).any(), "the ray was not followed to its end"


def test_it_is_shorter_than_the_way_along_the_gradient(classifier):
    x = data.digits().images[HELD][:8].float()
    target = (classifier(x).argmax(1) + 1) % 10
    found = viz.adversarial(classifier, x, target)
    leaf = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(F.cross_entropy(classifier(leaf), target, reduction="sum"), leaf)
    lengths = torch.linspace(0, 8, 801)
    ways = (x - lengths[:, None, None, None, None] * slope / slope.flatten(1).norm(dim=1)[:, None, None, None]).clamp(
        0, 1
    )
    there = classifier(ways.flatten(0, 1)).argmax(1).reshape(801, 8) == target
    norms = (ways - x).flatten(2).norm(dim=2).where(there, torch.inf).amin(0)
    assert (found.norm < 1.02 * norms).all()
    assert found.norm.sum() < 0.97 * norms.clamp(max=8).sum()


def distance_to_class(model, x, target):
    """Return min ‖r‖ with r in the polyhedron of a class: least-distance programming by NNLS (Lawson and Hanson)."""
    weight, f = model.weight.detach(), model(x[None])[0].detach()
    rest = torch.arange(len(f)) != target
    planes, offsets = (weight[target] - weight)[rest], (f - f[target])[rest]
    system = torch.cat([planes.T, offsets[None]]).numpy()
    weights, _ = nnls(system, np.eye(len(system))[-1])
    residual = system @ weights - np.eye(len(system))[-1]
    return np.linalg.norm(residual[:-1] / residual[-1])


def test_of_several_linear_scores_it_is_little_longer_than_the_distance_to_the_class():
    """Cross-entropy weighs all classes, the distance only those that touch: it is a tenth above, never below."""
    model, x = built(lambda: nn.Linear(30, 5), 0).double(), inputs(10, 30)
    target = model(x).argmin(1)
    found = viz.adversarial(model, x, target, bounds=None)
    exact = torch.tensor([distance_to_class(model, *row) for row in zip(x, target, strict=True)])
    ratio = found.norm / exact
    assert (ratio >= 1 - 1e-9).all()
    assert ratio.mean() < 1.15


@pytest.mark.parametrize("breaks", [False, True])
def test_the_model_and_the_inputs_are_as_before_also_after_an_exception(breaks):
    class Fragile(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.calls = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 2)), 0

        def forward(self, x):
            self.calls += 1
            if breaks and self.calls == 5:
                raise RuntimeError("broken")
            return self.body(x)

    model, x = Fragile().double().train(), inputs(2, 4)
    model.body[0].weight.requires_grad_(False)
    before, pixels = {k: v.clone() for k, v in model.state_dict().items()}, x.clone()
    if breaks:
        with pytest.raises(RuntimeError, match="broken"):
            viz.adversarial(model, x, 1, bounds=None)
    else:
        viz.adversarial(model, x, 1, bounds=None)
    assert all(module.training for module in model.modules())
    assert [p.requires_grad for p in model.body[0].parameters()] == [False, True]
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(x, pixels)


def test_a_model_that_writes_on_its_input_gives_the_same():
    x = inputs(2, 6)
    linear = built(lambda: nn.Linear(6, 3), 0).double()
    plain, in_place = (nn.Sequential(nn.ReLU(inplace=where), linear) for where in (False, True))
    target = (plain(x).argmax(1) + 1) % 3
    ours = viz.adversarial(in_place, x, target, bounds=None)
    torch.testing.assert_close(ours.x, viz.adversarial(plain, x, target, bounds=None).x, rtol=0, atol=0)


def test_under_no_grad_and_without_a_word_it_gives_the_same():
    model, x = logistic(4), inputs(1, 4)
    target = other(model(x)[:, 0])
    outside = viz.adversarial(model, x, target, bounds=None)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")
        inside = viz.adversarial(model, x, target, bounds=None)
    assert torch.equal(outside.x, inside.x)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("scaled", [lambda x: (x - 0.1307) / 0.3081, lambda x: 0.7 + 0.2 * x])
def test_bounds_hold_in_the_dtype_of_the_model(order, scaled):
    """In float32 (0 - mean) / sd is below the same in float64, and 0.7 below 0.7: that is rounding, and no mistake."""
    model = built(lambda: nn.Linear(6, 2), 0)
    x, (low, high) = scaled(torch.tensor([[0.0, 1.0, 0.0, 1.0, 0.5, 0.25]])), (scaled(0.0), scaled(1.0))
    target = model(x).argmin(1)
    found = viz.adversarial(model, x, target, order, (low, high))
    least, most = (float(torch.tensor(bound, dtype=torch.float32)) for bound in (low, high))
    assert least <= float(found.x.min())
    assert float(found.x.max()) <= most
    torch.testing.assert_close(found.r, found.x - x, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="x must be within bounds"):
        viz.adversarial(model, x, target, order, (low + 1e-5, high))
    with pytest.raises(ValueError, match="x must be within bounds"):
        viz.adversarial(model, x, target, order, (low, high - 1e-5))


@pytest.mark.parametrize("frozen", [False, True])
def test_scores_without_a_derivative_are_an_error(frozen):
    class Detached(nn.Linear):
        def forward(self, x):
            return super().forward(x.detach())

    model, x = built(lambda: Detached(4, 2), 0).double().requires_grad_(not frozen), inputs(1, 4)
    with pytest.raises(ValueError, match="the score must depend on x"):
        viz.adversarial(model, x, model(x).argmin(1), bounds=None)


def test_probabilities_that_saturate_are_reported_as_a_failure():
    model = nn.Sequential(built(lambda: nn.Linear(4, 2), 0), nn.Softmax(1)).double()
    model[0].weight.data.mul_(1e5)
    x = inputs(2, 4)
    target = model(x).argmin(1)
    assert not viz.adversarial(model, x, target, bounds=None).success.any()
    assert viz.adversarial(model[0], x, target, bounds=None).success.all()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"bounds": (0.0, None)}, ValueError, "bounds must be the smallest and the largest"),
        ({"bounds": ("0", "1")}, ValueError, "bounds must be the smallest and the largest"),
        ({"target": 2}, ValueError, r"target must be in 0, \.\.\., 1"),
        ({"target": torch.tensor([0, 1, 1])}, ValueError, "one for each of 2 rows"),
        ({"target": 0.5}, TypeError, "target must be an integer"),
        ({"target": None}, TypeError, "target must be an integer"),
        ({"bounds": (0.6, 1.0)}, ValueError, "x must be within bounds, 0.6 to 1; it reaches from 0.5 to 0.5"),
        ({"bounds": (0.0, 0.4)}, ValueError, "x must be within bounds"),
        ({"bounds": (1.0, 0.0)}, ValueError, "bounds must be the smallest and the largest"),
        ({"bounds": (0.0, math.nan)}, ValueError, "bounds must be the smallest and the largest"),
        ({"bounds": 1.0}, ValueError, "bounds must be the smallest and the largest"),
        ({"order": 3}, ValueError, "order must be 1 or 2"),
        ({"order": math.inf}, ValueError, "order must be 1 or 2"),
        ({"steps": 0}, ValueError, "steps must be a positive integer"),
        ({"x": torch.full((2, 4), math.nan)}, ValueError, "x must be finite"),
        ({"x": torch.ones(2, 4, dtype=torch.cfloat)}, TypeError, "x must"),
        ({"model": nn.Conv2d(1, 1, 1), "x": torch.rand(2, 1, 3, 3)}, ValueError, "model must return scores"),
        ({"model": len}, TypeError, "model must be a torch.nn.Module"),
    ],
)
def test_bad_arguments_are_named(arguments, error, message):
    given = {"model": logistic(4), "x": torch.full((2, 4), 0.5, dtype=torch.float64), "target": 1, **arguments}
    with pytest.raises(error, match=message):
        viz.adversarial(**given)
