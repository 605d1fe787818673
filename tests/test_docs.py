"""The manual says what the package says: its tables come from the classes, its blocks run, what it links to exists."""

import re

import pytest
from house import ROOT
from test_readme import blocks

from probdl.models import course_tables

PAGES = sorted((ROOT / "docs").glob("*.md"))


def markdown(table):
    """Return a DataFrame as a table of Markdown."""
    cell = lambda text: str(text).replace("|", r"\|")  # noqa: E731
    head = ["| | " + " | ".join(map(cell, table.columns)) + " |", "|---" * (len(table.columns) + 1) + "|"]
    rows = [
        f"| {cell(name)} | " + " | ".join(map(cell, row)) + " |" for name, row in zip(table.index, table.to_numpy())
    ]
    return "\n".join([*head, *rows])


def test_the_course_s_tables_in_the_manual_are_those_of_the_classes():
    page = (ROOT / "docs" / "generative.md").read_text(encoding="utf-8")
    tables = course_tables()
    assert len(tables) == 2
    for table in tables:
        assert markdown(table) in page


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_what_a_page_links_to_exists(page):
    links = re.findall(r"\]\((?!https?:|#|mailto:)([^)\s#]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_first_block_of_the_page_on_generative_models_runs(monkeypatch, tmp_path):
    from probdl.models.unsupervised import UnsupervisedModel

    fit = UnsupervisedModel.fit  # the page's own fits take a minute
    monkeypatch.setattr(UnsupervisedModel, "fit", lambda self, x: fit(self, x, steps=10, progress=False))
    monkeypatch.chdir(tmp_path)
    namespace = {}
    exec(blocks((ROOT / "docs" / "generative.md").read_text(encoding="utf-8"))[0][1], namespace)
    assert set(namespace) >= {"vae", "wae", "held_out"}


def test_the_block_of_the_page_on_seeing_runs(monkeypatch):
    from probdl.models import ImageClassifier

    fit = ImageClassifier.fit
    monkeypatch.setattr(ImageClassifier, "fit", lambda self, x, y: fit(self, x, y, steps=60, progress=False))
    namespace = {}
    exec(blocks((ROOT / "docs" / "seeing.md").read_text(encoding="utf-8"))[0][1], namespace)
    assert namespace["fooled"].success.all()


def test_the_block_of_the_page_on_the_classics_runs(monkeypatch):
    from probdl.models import VAE

    fit = VAE.fit
    monkeypatch.setattr(VAE, "fit", lambda self, x: fit(self, x, steps=30, progress=False))
    namespace = {}
    exec(blocks((ROOT / "docs" / "classics.md").read_text(encoding="utf-8"))[0][1], namespace)
    assert namespace["found"].table["mixture"].flagged.mean() > 0.5  # of the malignant
    assert namespace["found"].table["pca"].flagged.mean() < 0.3  # as the page says
