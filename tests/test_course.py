"""The page on the course leads to every script of the gallery, and names nothing that is not there."""

import pkgutil
import re

import pytest
from house import ROOT

PAGE = (ROOT / "docs" / "course.md").read_text(encoding="utf-8")
CHAPTERS = (
    "Visualization", "Recurrent Neural Network", "Unsupervised learning", "Autoencoders",
    "Approximate Inference: Variational Inference", "Variational Autoencoders", "Mean Field Variational Inference",
    "Expectation propagation", "Generative Adversarial Network", "Wasserstein GAN",
)  # fmt: skip
NAMES = sorted(set(re.findall(r"`(\w+\.\w+)`", PAGE)))


def test_every_script_stands_on_the_page():
    scripts = {path.name for path in (ROOT / "examples").glob("*.py")}
    linked = set(re.findall(r"\]\(\.\./examples/(\w+\.py)\)", PAGE))
    assert sorted(scripts - linked) == [], "put each in the row of its section in docs/course.md"
    assert sorted(linked - scripts) == [], "they are gone"


def test_scripts_are_called_by_their_titles():
    for text, name in re.findall(r"\[([^\]]+)\]\(\.\./examples/(plot_\w+\.py)\)", PAGE):
        assert f'"""\n{text}\n=' in (ROOT / "examples" / name).read_text(encoding="utf-8"), name


def test_the_chapters_stand_in_the_order_of_the_course():
    assert tuple(re.findall(r"^## (.+)$", PAGE, re.MULTILINE))[: len(CHAPTERS)] == CHAPTERS


def test_every_section_has_a_script_and_a_function():
    course = PAGE.split("## Where the notes slip")[0]
    rows = [line for line in course.splitlines() if line.startswith("|") and not line.startswith(("| section", "|---"))]
    assert len(rows) > 40
    assert [row for row in rows if "../examples/" not in row or not re.search(r"`\w+\.\w+`", row)] == []


@pytest.mark.parametrize("name", NAMES)
def test_what_the_page_names_is_public(name):
    assert pkgutil.resolve_name(f"probdl.{name}").__doc__
