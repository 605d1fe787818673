"""A plan is drawn from point to point, as wide as its mass, and says how much of it is shown."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from probdl import viz

X, Y = [[0.0, 0.0], [0.0, 1.0]], [[2.0, 0.0], [2.0, 1.0], [2.0, 2.0]]
PLAN = np.array([[0.5, 0.1, 0.0], [0.004, 0.096, 0.3]])


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def lines_of(ax):
    lines = ax.collections[0]
    ends = {tuple(map(tuple, segment)): i for i, segment in enumerate(np.asarray(lines.get_segments()).tolist())}
    return ends, lines.get_linewidths(), np.asarray(lines.get_edgecolors())[:, 3]


def test_lines_run_between_the_points_of_large_entries_only():
    ends, _, _ = lines_of(viz.transport_plan(X, Y, PLAN, share=0.01))
    assert set(ends) == {((0, 0), (2, 0)), ((0, 0), (2, 1)), ((0, 1), (2, 1)), ((0, 1), (2, 2))}


def test_more_mass_is_wider_and_darker():
    ends, widths, alphas = lines_of(viz.transport_plan(X, Y, PLAN))
    rank = [ends[key] for key in [((0, 1), (2, 1)), ((0, 0), (2, 1)), ((0, 1), (2, 2)), ((0, 0), (2, 0))]]
    assert list(np.asarray(widths)[rank]) == sorted(widths)
    assert list(alphas[rank]) == sorted(alphas)
    np.testing.assert_allclose(np.asarray(widths)[rank], 0.2 + 1.6 * np.array([0.096, 0.1, 0.3, 0.5]) / 0.6)


def test_a_spread_plan_is_pale():
    """The scale is the mass of the largest point, not the largest entry."""
    spread = np.full((2, 3), 1 / 6)
    assert max(lines_of(viz.transport_plan(X, Y, spread))[2]) < max(lines_of(viz.transport_plan(X, Y, PLAN))[2]) / 2


def test_the_share_of_mass_that_is_drawn_is_said():
    assert viz.transport_plan(X, Y, PLAN).get_xlabel() == "lines above 0.01 of the largest: 99.6 % of the mass"
    assert viz.transport_plan(X, Y, PLAN, share=0.5).get_xlabel() == "lines above 0.5 of the largest: 80 % of the mass"


def test_points_are_where_they_are_and_as_large_as_their_mass():
    sources, targets = viz.transport_plan(X, Y, PLAN).collections[1:]
    np.testing.assert_allclose(sources.get_offsets(), X)
    np.testing.assert_allclose(targets.get_offsets(), Y)
    np.testing.assert_allclose(sources.get_sizes() / sources.get_sizes().sum(), [0.6, 0.4])
    np.testing.assert_allclose(targets.get_sizes() / targets.get_sizes().sum(), [0.504, 0.196, 0.3])


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: viz.transport_plan([0.0, 1.0], Y, PLAN), ValueError, r"x must have two columns .*got \(2, 1\)"),
        (lambda: viz.transport_plan(X, [[0.0] * 3] * 3, PLAN), ValueError, r"y must have two columns .*got \(3, 3\)"),
        (lambda: viz.transport_plan(X, Y, PLAN.T), ValueError, r"plan must have shape \(2, 3\).*got \(3, 2\)"),
        (lambda: viz.transport_plan(X, Y, -PLAN), ValueError, "nothing negative; got -0.5 to -?0"),
        (lambda: viz.transport_plan(X, Y, 0 * PLAN), ValueError, "must hold mass"),
        (lambda: viz.transport_plan(X, Y, PLAN, share=1), ValueError, r"share must be in \[0, 1\); got 1"),
        (lambda: viz.transport_plan([["a", "b"]], Y, PLAN), TypeError, "x must hold numbers"),
        (lambda: viz.transport_plan(X, Y, PLAN, ax=3), TypeError, "ax must be a matplotlib Axes"),
    ],
)
def test_bad_input_is_named(call, error, says):
    with pytest.raises(error, match=says):
        call()
