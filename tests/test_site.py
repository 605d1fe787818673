"""The site: every script in one section, every public name on one page, docstrings as reST, formulas at hand."""

import ast
import importlib
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest
from house import ROOT, clean_environment, sources
from hypothesis import given
from hypothesis import strategies as st

EXAMPLES = ROOT / "examples"


@pytest.fixture(scope="module")
def site():
    """The modules beside conf.py, which stand outside the package."""
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        names = ("sections", "reference", "markup")
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in names})
    finally:
        sys.path.remove(str(ROOT / "docs"))


def test_every_script_stands_in_one_section(site):
    assert site.sections.misplaced(EXAMPLES) == []


def test_the_sections_follow_the_course_and_the_quickstart_comes_first(site):
    titles = [section.title for section in site.sections.SECTIONS.values()]
    assert titles == [
        "The quickstart", "What a network sees", "Sequences", "Densities and projections", "Autoencoders",
        "Variational inference", "Expectation propagation", "Generative adversarial networks",
        "Distances between distributions",
    ]  # fmt: skip


def copies(folder):
    for path in EXAMPLES.glob("*.py"):
        (folder / path.name).write_text("1\n")
    return folder


def test_a_script_in_no_section_is_named(site, tmp_path):
    (copies(tmp_path) / "plot_forgotten.py").write_text("1\n")
    assert site.sections.misplaced(tmp_path) == [
        "plot_forgotten.py stands in no section: name it in docs/sections.py"
    ]  # fmt: skip


def test_a_script_in_two_sections_is_named(site, tmp_path, monkeypatch):
    twice = site.sections.Section("Again", "", ("plot_clutter",))
    monkeypatch.setitem(site.sections.SECTIONS, "again", twice)
    assert site.sections.misplaced(copies(tmp_path)) == ["plot_clutter.py stands in two sections"]


def test_a_script_that_is_gone_is_named(site, tmp_path):
    (copies(tmp_path) / "plot_clutter.py").unlink()
    assert site.sections.misplaced(tmp_path) == ["plot_clutter.py is named in docs/sections.py and is not there"]


def test_no_gallery_is_laid_out_with_a_script_forgotten(site, tmp_path):
    (tmp_path / "examples").mkdir()
    (copies(tmp_path / "examples") / "plot_forgotten.py").write_text("1\n")
    with pytest.raises(ValueError, match=r"plot_forgotten\.py stands in no section"):
        site.sections.arrange(tmp_path / "examples", tmp_path / "scripts")
    assert not (tmp_path / "scripts").exists()


def test_the_gallery_is_laid_out_as_the_sections_say(site, tmp_path):
    target = tmp_path / "scripts"
    (target / "old").mkdir(parents=True)  # a section of an earlier build
    site.sections.arrange(EXAMPLES, target)
    assert {path.name for path in target.iterdir()} == {*site.sections.SECTIONS, "GALLERY_HEADER.rst"}
    for folder, section in site.sections.SECTIONS.items():
        assert {path.stem for path in (target / folder).glob("*.py")} == set(section.scripts)
        title, line = (target / folder / "GALLERY_HEADER.rst").read_text(encoding="utf-8").splitlines()[:2]
        assert (title, line) == (section.title, "-" * len(title))
    assert (target / "propagation" / "plot_clutter.py").read_bytes() == (EXAMPLES / "plot_clutter.py").read_bytes()


def test_scripts_come_in_the_order_of_the_course(site):
    section = site.sections.SECTIONS["sequences"]
    files = [f"{name}.py" for name in section.scripts]
    assert sorted(sorted(files), key=site.sections.ByCourse("sequences")) == files
    assert sorted(files) != files


def test_pages_of_a_trial_run_do_not_count_as_done(site, tmp_path):
    page = tmp_path / "gallery" / "page.rst"
    site.sections.forget_other_form(page.parent, "short")
    page.write_text("made")
    site.sections.forget_other_form(page.parent, "short")
    assert page.exists()
    site.sections.forget_other_form(page.parent, "full")
    assert not page.exists()
    page.write_text("made")
    (page.parent / "form.txt").unlink()  # of an unknown form
    site.sections.forget_other_form(page.parent, "full")
    assert not page.exists()


def test_links_to_scripts_lead_to_their_pages(site):
    text = "[a](../examples/plot_wgan.py), [b](../examples/pictures.py), [c](training.md), `../examples/plot_wgan.py`"
    wanted = "[a](/gallery/adversarial/plot_wgan.rst), [b](../examples/pictures.py), [c](training.md), "
    assert site.sections.to_pages(text) == wanted + "`../examples/plot_wgan.py`"


def test_every_page_of_the_manual_stands_in_the_index():
    index = [line.strip() for line in (ROOT / "docs" / "index.rst").read_text(encoding="utf-8").splitlines()]
    pages = [path.stem for path in (ROOT / "docs").glob("*.md")]
    assert [page for page in pages if index.count(page) != 1] == []


def exports():
    """Read the ``__all__`` of every room from its source."""
    found = {}
    for room, path in sources().items():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                found[room] = set(ast.literal_eval(node.value))
    return found


def test_every_public_name_has_a_page_in_the_reference(site):
    rooms = exports()
    assert set(site.reference.ROOMS) == {*rooms, "probdl.data"}
    for room, names in rooms.items():
        rooms_inside = {name for name in names if f"{room}.{name}" in site.reference.ROOMS}
        assert set(site.reference.pages(room)) == names - rooms_inside
    assert {"digits", "ring", "mode_coverage"} <= set(site.reference.pages("probdl.data"))
    assert "Tensor" not in site.reference.pages("probdl.data")


def test_no_two_pages_differ_in_case_only(site):
    pages = [page.lower() for room in site.reference.ROOMS for page in site.reference.pages(room).values()]
    assert len(pages) > 150
    assert len(set(pages)) == len(pages)
    assert site.reference.pages("probdl.viz")["adversarial"] == "probdl.viz.adversarial"
    assert site.reference.pages("probdl.viz")["Adversarial"] == "probdl.viz.Adversarial-class"


@pytest.mark.parametrize(
    ("room", "name", "directive"),
    [
        ("probdl.models", "VAE", ".. autoclass:: VAE"),
        ("probdl.inference", "fit", ".. autofunction:: fit"),
        ("probdl.natural", "FAMILIES", ".. py:data:: FAMILIES"),
    ],
)
def test_a_page_shows_its_name_and_the_scripts_that_use_it(site, room, name, directive):
    page = site.reference.name_page(room, name)
    assert page.startswith(f"{name}\n{'=' * len(name)}\n")
    assert f".. currentmodule:: {room}\n" in page
    assert directive in page.splitlines()
    assert f".. minigallery:: {room}.{name}" in page


def test_a_page_of_values_lists_them(site):
    page = site.reference.name_page("probdl.natural", "FAMILIES")
    assert all(f"``'{family}'``" in page for family in ("Normal", "Gamma"))


def test_the_page_of_a_room_holds_its_guide_and_all_its_names(site):
    page = site.reference.room_page("probdl.loops")
    assert ".. automodule:: probdl.loops" in page
    names = exports()["probdl.loops"]
    assert {name for name in names if f"   {name} <probdl.loops.{name}>" in page.splitlines()} == names


def test_pages_that_stay_the_same_keep_their_date_and_old_ones_go(site, tmp_path, monkeypatch):
    monkeypatch.setattr(site.reference, "ROOMS", ("probdl.loops",))
    site.reference.write(tmp_path)
    (tmp_path / "probdl.loops.gone.rst").write_text("gone")
    (tmp_path / "probdl.loops.duel.rst").write_text("old")
    before = (tmp_path / "probdl.loops.descend.rst").stat().st_mtime_ns
    site.reference.write(tmp_path)
    assert not (tmp_path / "probdl.loops.gone.rst").exists()
    assert (tmp_path / "probdl.loops.duel.rst").read_text() == site.reference.name_page("probdl.loops", "duel")
    assert (tmp_path / "probdl.loops.descend.rst").stat().st_mtime_ns == before
    assert {path.stem for path in tmp_path.glob("*.rst")} == {
        "index", "probdl.loops", *site.reference.pages("probdl.loops").values()
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("|x − y|", r"\|x − y\|"),
        (":math:`|y|` and ``a | b``", ":math:`|y|` and ``a | b``"),
        ("each (*shape, K)", r"each (\*shape, K)"),
        ("takes **kwargs, too", r"takes \*\*kwargs, too"),
        ("*one*, and **two words**", "*one*, and **two words**"),
        ("all ``float``s", r"all ``float``\ s"),
        (".. math:: |x|\n\n   = |y|\n\nand |z|", ".. math:: |x|\n\n   = |y|\n\nand \\|z\\|"),
        ("so::\n\n    a | b\n\n    c | d\n\nand |z|", "so::\n\n    a | b\n\n    c | d\n\nand \\|z\\|"),
        (">>> a | b", ">>> a | b"),
    ],
)
def test_docstrings_become_rest_and_code_stays(site, text, expected):
    assert site.markup.as_rest(text) == expected


@given(st.lists(st.sampled_from(["|x|", "(n, *shape)", "``f``s", "|", "a", "(*shape, K)", "``||``"]), min_size=1))
def test_a_docstring_says_the_same_as_rest(site, words):
    core = pytest.importorskip("docutils.core", reason='needs the extra "docs"')
    said = core.publish_doctree("x " + site.markup.as_rest(" ".join(words)), settings_overrides={"report_level": 5})
    assert said.astext() == "x " + " ".join(words).replace("``", "")


def test_a_property_that_has_a_colon_is_no_type(site):
    napoleon = pytest.importorskip("sphinx.ext.napoleon.docstring", reason='needs the extra "docs"')
    lines = ["A row for each: its score."]
    site.markup.of_property(None, "property", "table", None, None, lines)
    assert ":type:" not in str(napoleon.GoogleDocstring(lines, what="property"))
    assert "A row for each: its score." in str(napoleon.GoogleDocstring(lines, what="property"))


def test_mathjax_is_copied_whole_with_its_licence(site, tmp_path):
    pytest.importorskip("mathjax", reason='needs the extra "docs"')
    script = tmp_path / site.markup.copy_mathjax(tmp_path)
    assert script.stat().st_size > 1_000_000  # with all extensions, so that none is asked for
    assert "Apache License" in (script.parent / "LICENSE").read_text(encoding="utf-8")


def test_a_site_without_mathjax_says_what_to_install(site, tmp_path, monkeypatch):
    monkeypatch.setattr(site.markup, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install -e "\.\[docs\]"'):
        site.markup.copy_mathjax(tmp_path)


def test_nothing_that_is_generated_is_kept():
    ignored = (ROOT / ".gitignore").read_text().split()
    pruned = (ROOT / "MANIFEST.in").read_text()
    for folder in ("docs/_build", "docs/gallery", "docs/reference"):
        assert f"{folder}/" in ignored
        assert f"prune {folder}\n" in pruned


SCRIPT = r'''"""
A script
========

The score is :math:`|x|`.
"""

# %%
# **The known answer beside ours.** Two.

print(1 + 1)
'''


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A copy of the site with one script, an empty reference and short pages; returns how to build it."""
    for needed in ("sphinx", "sphinx_gallery", "furo", "myst_parser", "mathjax"):
        pytest.importorskip(needed, reason='needs the extra "docs"')
    root = tmp_path_factory.mktemp("small")
    rubbish = shutil.ignore_patterns("_build", "gallery", "reference", "__pycache__")
    shutil.copytree(ROOT / "docs", root / "docs", ignore=rubbish)
    for page in (root / "docs").glob("*.md"):
        page.write_text("# A page\n\nSee [the script](../examples/quickstart.py), $x$.\n", encoding="utf-8")
    (root / "examples").mkdir()
    for name in ("CONTRIBUTING.md", "CHANGELOG.md"):
        shutil.copy2(ROOT / name, root)
    with (root / "docs" / "sections.py").open("a", encoding="utf-8") as file:
        file.write('\nSECTIONS = {"quickstart": Section("The quickstart", "", ("quickstart",))}\n')
    with (root / "docs" / "reference.py").open("a", encoding="utf-8") as file:
        file.write("\nROOMS = ()\n")

    def build(script):
        (root / "examples" / "quickstart.py").write_text(script, encoding="utf-8")
        command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "docs", "docs/_build/html"]
        done = subprocess.run(command, cwd=root, env=clean_environment(), capture_output=True, text=True, timeout=200)
        return done.returncode, done.stdout + done.stderr, root / "docs" / "_build" / "html"

    return build


def test_a_small_site_builds_without_warnings_and_asks_for_nothing_from_elsewhere(small):
    code, said, html = small(SCRIPT)
    assert code == 0, said[-3000:]
    page = (html / "gallery" / "quickstart" / "quickstart.html").read_text(encoding="utf-8")
    assert ">2\n" in page  # what the script printed
    loaded = re.findall(r'<(?:script|img|link)[^>]+(?:src|href)="([^"]+)"', page)
    assert any(link.split("?")[0].endswith("mathjax/tex-svg-full.js") for link in loaded)
    assert [link for link in loaded if re.match(r"(https?:)?//", link)] == []
    assert 'href="gallery/quickstart/quickstart.html"' in (html / "training.html").read_text(encoding="utf-8")


def test_a_script_that_fails_names_itself_in_the_build(small):
    code, said, _ = small(SCRIPT.replace("1 + 1", "1 / 0"))
    assert code != 0
    assert "quickstart.py" in said
    assert "ZeroDivisionError" in said
