"""Rows of a user's become standardised rows of numbers, and come back as they were: tables, categories, conditions."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from probdl.models.condition import Condition
from probdl.models.form import Form
from probdl.models.units import Units

TABLE = pd.DataFrame(
    {
        "age": [31, 45, 27, 60],
        "smokes": ["no", "yes", "no", "no"],
        "height": [1.7, 1.6, 1.9, 1.8],
        "grade": pd.Categorical(["b", "a", "c", "b"], categories=["c", "b", "a", "unused"]),
        "well": [True, False, True, True],
    },
    index=[7, 8, 9, 10],
)


def form_of(table=TABLE, **how):
    return Form.of(table, categories=True, **how)


def test_a_mixed_table_becomes_numbers_as_scikit_learn_encodes_it():
    rows = form_of().check(TABLE)
    smokes = OneHotEncoder(sparse_output=False).fit_transform(TABLE[["smokes"]])
    grade = OneHotEncoder(sparse_output=False, categories=[["c", "b", "a"]]).fit_transform(TABLE[["grade"]])
    numbers = TABLE[["age", "height", "well"]].to_numpy(float)
    np.testing.assert_array_equal(rows, np.c_[numbers[:, :1], smokes, numbers[:, 1:2], grade, numbers[:, 2:]])
    assert form_of().entries == ("age", "smokes", "smokes", "height", "grade", "grade", "grade", "well")
    assert form_of().numeric.tolist() == [True, False, False, True, False, False, False, True]


def test_a_mixed_table_comes_back_as_it_was():
    form = form_of()
    back = form.dress(form.check(TABLE), torch.float64, index=TABLE.index, draws=True)
    pd.testing.assert_frame_equal(back.astype({"grade": str}), TABLE.astype({"grade": str}))
    assert list(back.grade.cat.categories) == ["c", "b", "a"]
    assert Form.from_json(form.to_json()) == form


def test_units_standardise_numbers_and_leave_categories():
    form = form_of()
    rows = form.check(TABLE)
    u = Units.of(rows, "auto", form).inward(rows)
    expected = StandardScaler().fit_transform(TABLE[["age", "height", "well"]].to_numpy(float))
    np.testing.assert_allclose(u[:, form.numeric], expected, atol=1e-12)
    torch.testing.assert_close(u[:, ~form.numeric], rows[:, ~form.numeric])


def test_units_of_rows_with_missing_entries_are_those_of_the_rest():
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x[::3, 1] = torch.nan
    u = Units.of(x).inward(x)
    np.testing.assert_allclose(u, StandardScaler().fit_transform(x), atol=1e-12)
    shared = Units.of(x, "shared")
    assert shared.shift.item() == pytest.approx(np.nanmean(x))
    assert shared.scale.item() == pytest.approx(np.nanstd(x))
    x[:, 2] = torch.nan
    with pytest.raises(ValueError, match=r"all training rows lack columns \[2\]"):
        Units.of(x)


def test_missing_entries_are_nan_of_a_category_in_its_whole_block():
    holes = TABLE.astype({"age": object})
    holes.loc[7, ["age", "smokes"]] = None
    holes.loc[10, "grade"] = np.nan
    form = form_of(holes, missing=True)
    rows = form.check(holes, missing=True)
    assert rows.isnan().nonzero().tolist() == [[0, 0], [0, 1], [0, 2], [3, 4], [3, 5], [3, 6]]
    assert form.blocks[0].classes == ("no", "yes")
    with pytest.raises(ValueError, match="age|finite|missing"):
        form_of(holes).check(holes)


def test_constant_columns_and_unseen_categories_are_named():
    form = form_of()
    with pytest.raises(ValueError, match=r"constant in the training rows: columns \['age', 'height'\]"):
        Units.of(form.check(TABLE.assign(age=3, height=1.0)), "auto", form)
    with pytest.raises(ValueError, match="column 'smokes' of x has labels that fit did not see: 'rarely'"):
        form.check(TABLE.assign(smokes="rarely"))
    with pytest.raises(ValueError, match="column 'smokes' of x must hold at least two classes"):
        form_of(TABLE.assign(smokes="no"))
    with pytest.raises(ValueError, match="column 'smokes' of x must have a label everywhere; 1 of 4"):
        form_of(TABLE.assign(smokes=["no", None, "yes", "no"]))
    with pytest.raises(TypeError, match="column 'day' of x holds dates"):
        form_of(TABLE.assign(day=pd.to_datetime("2020-01-01")))
    with pytest.raises(ValueError, match="x must have the columns that fit saw, in the same order"):
        form.check(TABLE[TABLE.columns[::-1]])
    with pytest.raises(ValueError, match="x is empty"):
        form.check(TABLE[:0])


def test_labels_and_covariates_condition():
    labels = Condition.of(np.array([3, 1, 3]))
    assert labels.rows([1, 3], 2).tolist() == [[1, 0], [0, 1]]
    assert labels.rows(3, 2).tolist() == [[0, 1], [0, 1]]
    numbers = Condition.of([[1.0, 10.0], [3.0, 30.0]])
    assert numbers.rows([[1.0, 30.0]], 1).tolist() == [[-1, 1]]
    assert Condition.of([1.5, 2.5]).rows(2.5, 3).tolist() == [[1]] * 3
    mixed = Condition.of(TABLE[["smokes", "height"]])
    assert mixed.size == 3
    assert mixed.rows(TABLE[["smokes", "height"]], 4)[:, :2].tolist() == [[1, 0], [0, 1], [1, 0], [1, 0]]


@pytest.mark.parametrize("condition", [["a", "b"], [0.5, 1.5], [[1.0, 2.0], [2.0, 1.0]]])
def test_a_condition_is_the_same_after_json_and_its_state(condition):
    made = Condition.of(condition)
    again = Condition.from_json(made.to_json())
    again.load_state_dict(made.state_dict())
    torch.testing.assert_close(again.rows(condition, 2), made.rows(condition, 2), rtol=0, atol=0)


def test_conditions_that_cannot_be_used_are_refused_by_name():
    made = Condition.of(["a", "b", "a"])
    with pytest.raises(ValueError, match="condition has labels that fit did not see: 'c'"):
        made.rows("c", 3)
    with pytest.raises(ValueError, match="condition must have one label for each row, 3; got 2"):
        made.rows(["a", "b"], 3)
    with pytest.raises(ValueError, match="condition must have one entry for each row, 3; got 2"):
        Condition.of([0.5, 1.5]).rows([0.5, 1.5], 3)
    with pytest.raises(ValueError, match="condition must vary"):
        Condition.of([0.5, 0.5])
    with pytest.raises(ValueError, match=r"condition must be labels \(n,\) or covariates \(n, k\)"):
        Condition.of(torch.zeros(3, 2, 2))
    with pytest.raises(ValueError, match="condition must have a label everywhere"):
        Condition.of(["a", None])
