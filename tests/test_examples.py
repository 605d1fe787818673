"""Every script of the gallery runs from another folder, shows a picture, and ends with its known answer."""

import os
import subprocess
import sys

import pytest
from house import ROOT

SCRIPTS = sorted((ROOT / "examples").glob("plot_*.py"))
# Counts the pictures that a script shows, and the ones among them on which nothing is drawn.
RUN = """
import runpy, sys
import matplotlib; matplotlib.use("Agg")
import matplotlib.pyplot as plt
seen = []
def show(*a, **k):
    for n in plt.get_fignums():
        seen.append(any(ax.has_data() for ax in plt.figure(n).axes))
    plt.close("all")
plt.show = show
runpy.run_path(sys.argv[1], run_name="__main__")
print("pictures", len(seen), "empty", seen.count(False))
"""


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_gallery_script_runs_and_shows_pictures(script, tmp_path, request):
    """In the short form that long pages have; with --slow as a reader runs them."""
    short = {} if request.config.getoption("--slow") else {"PROBDL_FAST": "1"}
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", RUN, str(script)],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", **short},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, f"{script.name} failed:\n{run.stderr[-2000:]}"
    *printed, pictures = run.stdout.strip().splitlines()
    assert printed, f"{script.name} prints no known answer"
    assert int(pictures.split()[1]) >= 1
    assert int(pictures.split()[3]) == 0


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_gallery_script_has_the_form_of_a_page(script):
    text = script.read_text(encoding="utf-8")
    docstring = text.split('"""')[1].strip().splitlines()
    assert set(docstring[1]) == {"="}, "a title with a line of = below it"
    assert len(docstring) > 4, "a paragraph of statistics"
    assert "known answer" in text, "ends beside a known answer"
    assert "plt.show()" in text
