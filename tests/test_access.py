"""What a user passes, and the errors for what cannot be used: each names the argument, what was wanted, what came."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch.distributions import Normal

import probdl
from probdl.access import Draws, LogDensity, check_same_columns, hold, tensor


@pytest.mark.parametrize(
    "x",
    [
        [[1, 2], [3, 4]],
        ((1, 2), (3, 4)),
        np.array([[1, 2], [3, 4]]),
        np.array([[1, 2], [3, 4]], dtype=np.uint16),
        np.array([[1, 2], [3, 4]], dtype=np.float16),
        np.asfortranarray([[1.0, 2.0], [3.0, 4.0]]),
        np.array([[3, 4], [1, 2]])[::-1],
        pd.DataFrame({"a": [1, 3], "b": [2.0, 4.0]}),
        pd.DataFrame({"a": pd.array([1, 3], dtype="Int64"), "b": [2.0, 4.0]}),
        torch.tensor([[1, 2], [3, 4]], dtype=torch.int32),
        torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True),
        [torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])],
    ],
    ids=lambda x: type(x).__name__,
)
def test_array_likes_become_one_float64_tensor(x):
    assert torch.equal(tensor(x, "x"), torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64))


def test_booleans_become_numbers():
    assert torch.equal(tensor(np.array([True, False]), "x"), torch.tensor([1.0, 0.0], dtype=torch.float64))


def test_a_series_and_a_list_are_one_column():
    assert Draws(pd.Series([1.0, 2.0])).x.shape == (2, 1)
    assert Draws([1.0, 2.0]).dim == 1


def test_the_argument_is_not_changed():
    x = np.array([1.0, 2.0])
    tensor(x, "x").add_(1)
    assert x.tolist() == [1.0, 2.0]


def test_images_are_flattened_with_a_note():
    draws = Draws(torch.zeros(5, 1, 2, 3))
    assert draws.x.shape == (5, 6)
    assert "(5, 1, 2, 3) was flattened to (5, 6)" in draws.notes[0]


BAD = {
    "NaN": ([1.0, math.nan], ValueError, "p must be finite; got 1 NaN and 0 infinite of 2"),
    "infinite": ([math.inf, 1.0], ValueError, "p must be finite; got 0 NaN and 1 infinite of 2"),
    "missing in a DataFrame": (pd.DataFrame({"a": [1.0, None]}), ValueError, "p must be finite; got 1 NaN"),
    "empty": ([], ValueError, "p is empty"),
    "no columns": (np.zeros((3, 0)), ValueError, r"p is empty: its shape is \(3, 0\)"),
    "a number": (np.float64(3.0), TypeError, "p must be array-like"),
    "no dimension": (torch.tensor(1.0), ValueError, "p must have at least one dimension"),
    "strings": (["a", "b"], TypeError, "p must hold numbers; got an array of type <U1"),
    "objects": (np.array([1, None], dtype=object), TypeError, "p must hold numbers; got an array of type object"),
    "dates": (np.array(["2020-01-01"], dtype="datetime64[D]"), TypeError, "p must hold numbers"),
    "complex": (torch.tensor([1j]), TypeError, "p must hold real numbers"),
    "ragged": ([[1.0], [1.0, 2.0]], ValueError, "p must be a rectangular array"),
    "text column": (pd.DataFrame({"a": [1.0], "name": ["x"]}), TypeError, "not numeric: name"),
    "a dictionary": ({"a": [1.0]}, TypeError, "p must be array-like .* got dict"),
    "None": (None, TypeError, "p must be array-like .* got NoneType"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_data_is_refused_by_name(case):
    value, error, message = BAD[case]
    with pytest.raises(error, match=message):
        hold(value, "p")


BAD_WEIGHTS = {
    "negative": ([1.0, -1.0], "weights of x must not be negative; the smallest is -1"),
    "NaN": ([1.0, math.nan], "weights of x must be finite"),
    "zero": ([0.0, 0.0], "weights of x must have a positive sum"),
    "too many": ([1.0, 1.0, 1.0], r"weights of x must have shape \(2,\), one for each draw; got \(3,\)"),
}


@pytest.mark.parametrize("case", BAD_WEIGHTS)
def test_bad_weights_are_refused(case):
    weights, message = BAD_WEIGHTS[case]
    with pytest.raises(ValueError, match=message):
        Draws([1.0, 2.0], weights=weights)


def test_weights_are_normalised_with_a_note():
    draws = Draws([1.0, 2.0], weights=[1, 3])
    assert draws.weights.tolist() == [0.25, 0.75]
    assert "divided by their sum 4" in draws.notes[0]
    assert Draws([1.0, 2.0], weights=[0.25, 0.75]).notes == ()


def test_columns_must_agree_in_number_name_and_order():
    a, b = pd.DataFrame({"u": [1.0], "v": [2.0]}), pd.DataFrame({"v": [1.0], "u": [2.0]})
    with pytest.raises(ValueError, match=r"same columns in the same order; got \['u', 'v'\] and \['v', 'u'\]"):
        check_same_columns(Draws(a), Draws(b))
    check_same_columns(Draws(a), Draws(b[["u", "v"]]))
    check_same_columns(Draws(a), Draws(b.to_numpy()))
    with pytest.raises(ValueError, match=r"got x: \(1, 2\) and y: \(1, 1\)"):
        check_same_columns(Draws(a), Draws([1.0]))


def test_what_is_held_is_told_apart():
    p, f = Normal(0.0, 1.0), LogDensity(lambda x: -(x[:, 0] ** 2), dim=1)
    draws = Draws([1.0])
    assert [hold(h, "p") for h in (p, f, draws)] == [p, f, draws]
    assert isinstance(hold([1.0, 2.0], "p"), Draws)
    with pytest.raises(TypeError, match=r"p is a function; wrap it as probdl.LogDensity\(f, dim\)"):
        hold(lambda x: x, "p")


def test_a_log_density_checks_its_dimension_and_its_values():
    with pytest.raises(ValueError, match="dim must be a positive integer; got 0"):
        LogDensity(lambda x: x, dim=0)
    with pytest.raises(TypeError, match="f must be a function"):
        LogDensity(3, dim=1)
    with pytest.raises(ValueError, match=r"must return shape \(4,\); got \(4, 2\)"):
        LogDensity(lambda x: x, dim=2)(torch.zeros(4, 2))


def test_the_names_are_at_the_top():
    assert probdl.Draws is Draws
    assert probdl.LogDensity is LogDensity
