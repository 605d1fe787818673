"""The check of the built site finds what is wrong with one, passes one that is right, and is run where there is one."""

import importlib.machinery
import importlib.util
import subprocess
import sys

import pytest
from house import ROOT

SCRIPT, SITE = ROOT / ".ci" / "browser", ROOT / "docs" / "_build" / "html"
loader = importlib.machinery.SourceFileLoader("site_browser", str(SCRIPT))
check = importlib.util.module_from_spec(importlib.util.spec_from_loader("site_browser", loader))
sys.dont_write_bytecode, kept = True, sys.dont_write_bytecode  # a script has no __pycache__ beside it
loader.exec_module(check)
sys.dont_write_bytecode = kept

DOT = "data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>"
FOUND = "<div id='search-results'><ul><li><a href='index.html'>found</a></li></ul></div>"


def page(body):
    return f"<html><head><meta name='viewport' content='width=device-width'></head><body>{body}</body></html>"


@pytest.fixture
def site(tmp_path):
    """A site with all that is asked of one."""
    made = {
        "index.html": f'<a href="gallery/plot_a.html#end">a</a> <a href="#top">top</a> <img src="{DOT}">',
        "gallery/plot_a.html": '<p id="end">a</p> <a href="../index.html">back</a> <a href="https://x.org/y">x</a>',
        "gallery/plot_b.html": '<a href="../gallery/">the folder</a>',
        "gallery/plot_c.html": '<a href="plot%5Fb.html?x=1">b</a>',
        "gallery/index.html": "",
        "reference/fit.html": '<dt id="probdl.inference.fit">fit</dt>',
        "speed.html": '<a href="mailto:a@b.c">write</a>',
        "search.html": FOUND,
    }
    for name, body in made.items():
        path = tmp_path / "site" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page(body))
    return tmp_path / "site"


def needs_a_browser():
    """Skip, with the reason, where there is no browser to drive."""
    if importlib.util.find_spec("playwright") is None:
        pytest.skip("Playwright for Python is not installed")
    if check.browser() is None:
        pytest.skip("no Chromium on the path")


def test_the_built_site_is_right(tmp_path):
    if not (SITE / "searchindex.js").exists():  # which a build writes last
        pytest.skip("the site is not built; build it, then run .ci/browser docs/_build/html")
    needs_a_browser()
    command = [sys.executable, SCRIPT, SITE, "--screenshots", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_site_whose_links_lead_somewhere_has_none_broken(site):
    assert check.broken_links(site) == []


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        ('<a href="gone.html">x</a>', "gone.html leads nowhere"),
        ('<a href="/gone/">x</a>', "/gone/ leads nowhere"),
        ('<a href="gallery/plot_a.html#start">x</a>', "gallery/plot_a.html#start has no such place"),
        ('<a href="#nowhere">x</a>', "#nowhere has no such place"),
        ('<a href="../outside.html">x</a>', "../outside.html leads out of the site"),
        ('<img src="gone.png">', "gone.png leads nowhere"),
        ('<script src="gone.js"></script>', "gone.js leads nowhere"),
        ('<link rel="stylesheet" href="gone.css">', "gone.css leads nowhere"),
        ('<script src="https://cdn.x.org/m.js"></script>', "loads https://cdn.x.org/m.js from another host"),
        ('<img src="//x.org/a.png">', "loads //x.org/a.png from another host"),
    ],
)
def test_a_broken_link_is_named_with_its_page(site, body, wrong):
    (site / "speed.html").write_text(page(body))
    assert check.broken_links(site) == [f"speed.html: {wrong}"]


def test_the_pages_to_open_are_found_by_what_they_are(site):
    assert check.chosen(site) == {
        "index": "index.html", "gallery 1": "gallery/plot_a.html", "gallery 2": "gallery/plot_b.html",
        "gallery 3": "gallery/plot_c.html", "reference of fit": "reference/fit.html", "speed": "speed.html",
    }  # fmt: skip


def test_a_right_site_passes_in_a_browser_and_leaves_its_pictures(site, tmp_path, monkeypatch):
    needs_a_browser()
    monkeypatch.setattr(check, "WIDTHS", (400,))
    (tmp_path / "shots").mkdir()
    assert check.opened(site, tmp_path / "shots") == []
    assert len(list((tmp_path / "shots").glob("*_400.png"))) == 7


def test_what_only_a_browser_sees_is_found(site, tmp_path, monkeypatch):
    needs_a_browser()
    monkeypatch.setattr(check, "WIDTHS", (400,))
    monkeypatch.setattr(check, "chosen", lambda site: {"index": "index.html", "speed": "speed.html", "fit": None})
    (site / "empty.png").write_bytes(b"no picture")
    (site / "index.html").write_text(page('<img src="empty.png"><div style="width:900px">wide</div>'))
    scripts = "console.error('complaint'); fetch('http://127.0.0.1:9/x').catch(() => 0); undefinedFunction()"
    (site / "speed.html").write_text(page(f"<script>{scripts}</script>"))
    wrong = "\n".join(check.opened(site, tmp_path))
    assert "fit: the site has no such page" in wrong
    assert "index (index.html): the image empty.png has no size" in wrong
    assert "index (index.html), 400 pixels: 5" in wrong  # 500 and the margin
    assert "speed (speed.html): console: complaint" in wrong
    assert "speed (speed.html): http://127.0.0.1:9/x" in wrong
    assert "speed (speed.html): error: undefinedFunction is not defined" in wrong


def test_a_search_that_finds_nothing_is_wrong(site, tmp_path, monkeypatch):
    needs_a_browser()
    monkeypatch.setattr(check, "WIDTHS", (400,))
    monkeypatch.setattr(check, "PATIENCE", 0.3)
    monkeypatch.setattr(check, "chosen", lambda site: {})
    (site / "search.html").write_text(page("<div id='search-results'></div>"))
    assert check.opened(site, tmp_path) == ["search: nothing was found for Wasserstein"]


def test_what_is_missing_is_said_and_is_no_pass(site, tmp_path, monkeypatch):
    done = subprocess.run([sys.executable, SCRIPT, tmp_path / "none"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "must be the folder of the built site" in done.stderr
    monkeypatch.setattr(check.shutil, "which", lambda name: None)
    monkeypatch.setattr(check.importlib.util, "find_spec", lambda name: object())
    assert "apt-get install chromium" in check.missing(site)
    monkeypatch.setattr(check.importlib.util, "find_spec", lambda name: None)
    assert "pip install playwright" in check.missing(site)
