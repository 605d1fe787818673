"""What benchmarks measured is saved with where and how, and the page on speed says it and nothing else."""

import argparse
import ast
import importlib.util
import json
import math
import sys

import numpy as np
import pytest
from house import ROOT
from hypothesis import given
from hypothesis import strategies as st

BENCHMARKS = ROOT / "benchmarks"
SAVING = (
    "classics", "classics_mixtures", "coordinate_ascent", "divergences", "ep", "generative", "mean_field", "pictures",
    "training",
)  # fmt: skip


def read(name):
    """Return a script of the folder as a module, anew."""
    spec = importlib.util.spec_from_file_location(f"{name}_script", BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


speed_page = read("speed_page")


@pytest.fixture
def results():
    return read("results")


def asked(save=True, **more):
    return argparse.Namespace(save=save, **more)


def test_the_page_is_what_the_saved_files_give():
    assert (ROOT / "docs" / "speed.md").read_text(encoding="utf-8") == speed_page.page()


def test_the_scripts_of_the_manual_can_save():
    assert {path.stem for path in speed_page.scripts()} == set(SAVING)


@pytest.mark.parametrize("name", SAVING)
def test_a_script_that_can_save_has_the_flag_and_keeps_rows(name):
    tree = ast.parse((BENCHMARKS / f"{name}.py").read_text(encoding="utf-8"))
    called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert {"add_flag", "keep", "save", "ranged"} <= called


@given(st.lists(st.floats(-1e6, 1e6), min_size=1))
def test_a_range_holds_what_numpy_says(values):
    found = read("results").ranged(iter(values))
    assert found == {
        "median": pytest.approx(np.median(values)), "low": np.min(values), "high": np.max(values), "runs": len(values),
    }  # fmt: skip


def test_a_range_of_nothing_is_refused(results):
    with pytest.raises(ValueError, match="values must hold at least one number"):
        results.ranged([])


def test_a_file_says_where_when_and_with_what(results, tmp_path, monkeypatch):
    import torch

    monkeypatch.setattr(sys, "argv", ["x.py", "--rounds", "3", "--plot", "/somewhere/of/mine/plot.png", "--save"])
    results.keep("a table", side="ours", CPU_s=results.ranged([3.0, 1.0, 2.0]), gap=results.uncertain(0.5, 0.25))
    results.keep("a table", side="theirs", CPU_s=np.float64(4.0), gap=math.nan)
    path = results.save(asked(threads=2), "benchmarks/x.py", peers=("no-such-package",), folder=tmp_path)
    found = json.loads(path.read_text(encoding="utf-8"))
    assert path.name == "x.json"
    assert found["command"] == "python benchmarks/x.py --rounds 3 --plot plot.png --save"
    assert found["versions"]["torch"] == torch.__version__
    assert "no-such-package" not in found["versions"]
    assert found["threads"] == 2
    assert found["machine"].split()[1] == "cores"
    assert found["tables"] == [{"title": "a table", "rows": [
        {"side": "ours", "CPU s": {"median": 2.0, "low": 1.0, "high": 3.0, "runs": 3},
         "gap": {"value": 0.5, "stderr": 0.25}},
        {"side": "theirs", "CPU s": 4.0, "gap": "nan"},
    ]}]  # fmt: skip


def test_without_the_flag_nothing_is_written(results, tmp_path):
    results.keep("a table", side="ours")
    assert results.save(asked(save=False), "x.py", folder=tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_kept_nothing_is_not_saved(results, tmp_path):
    with pytest.raises(RuntimeError, match=r"x\.py kept no rows"):
        results.save(asked(), "x.py", folder=tmp_path)


def test_a_script_keeps_the_ratios_that_it_prints(results, monkeypatch, capsys):
    import torch

    monkeypatch.setitem(sys.modules, "results", results)
    pictures = read("pictures")
    sides = {"ours": lambda: torch.zeros(3), "theirs": lambda: torch.tensor([0.0, 0.5, 0.25])}
    pictures.compared("toy", sides, 3, 200)
    (rows,) = [t["rows"] for t in results.record(asked(), "pictures.py")["tables"]]
    assert [row["side"] for row in rows] == ["ours", "theirs"]
    assert rows[1]["largest difference"] == 0.5
    ratio = rows[1]["its time ÷ ours"]
    printed = f"times ours: {ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"
    assert printed in capsys.readouterr().out
    assert ratio["runs"] == 3


def record(tables):
    return {
        "command": "python benchmarks/x.py --save", "date": "2026-01-02", "machine": "8 cores arm64", "threads": 1,
        "versions": {"Python": "3.12", "torch": "2.6"}, "tables": tables,
    }  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """A folder of two scripts that can save, one of them measured, and one that can not."""
    text = '"""{} against peers: seconds.\n\nHow ``it`` is done.\n\nRun: ``x``.\n"""\n{}\n'
    (tmp_path / "done.py").write_text(text.format("Some", "from results import save"))
    (tmp_path / "open.py").write_text(text.format("Others", "from results import save"))
    (tmp_path / "quiet.py").write_text(text.format("Nothing", ""))
    (tmp_path / "results").mkdir()
    rows = [{"side": "a|b", "s": {"median": 2.0, "low": 1.5, "high": 1234.5, "runs": 5}},
            {"side": "c", "e": {"value": 1.23456, "stderr": 0.0123}, "n": 12345}]  # fmt: skip
    (tmp_path / "results" / "done.json").write_text(json.dumps(record([{"title": "T", "rows": rows}])))
    return tmp_path


def test_a_page_shows_what_was_measured_and_names_what_was_not(folder):
    page = speed_page.page(folder)
    assert "| Some against peers | `benchmarks/done.py` | 2026-01-02 |" in page
    assert "| Others against peers | `benchmarks/open.py` | not measured yet |" in page
    assert "Nothing" not in page
    assert "Measured on 2026-01-02, 8 cores arm64, 1 thread, by `python benchmarks/x.py --save`; Python 3.12" in page
    assert "**T**\n\n| side | s | e | n |\n|---|---|---|---|\n" in page
    assert r"| a\|b | 2 (1.5 to 1234) |  |  |" in page
    assert "| c |  | 1.235 ± 0.012 | 12345 |" in page
    assert "How `it` is done." in page
    assert page.count("**Not measured yet.**") == 1


@pytest.mark.parametrize(("text", "message"), [("{", "it is no JSON"), ('{"date": "x"}', r"it lacks \['command'")])
def test_a_file_that_no_script_wrote_is_refused_by_name(folder, text, message):
    (folder / "results" / "done.json").write_text(text)
    with pytest.raises(ValueError, match=rf"done\.json must be a file that --save wrote; {message}"):
        speed_page.page(folder)


@given(st.floats(1e-8, 1e8), st.floats(-1e6, 1e6))
def test_an_error_is_rounded_at_its_second_digit_and_the_value_there_too(error, value):
    shown, shown_error = map(float, speed_page.with_error(value, error).split(" ± "))
    assert shown_error == pytest.approx(error, rel=0.0501)
    assert shown == pytest.approx(value, rel=1e-12, abs=0.0501 * error)
