"""The site: ``sphinx-build -W --keep-going docs docs/_build/html``, without a network."""

import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
os.environ.setdefault("OMP_NUM_THREADS", "1")

import markup  # noqa: E402
import reference  # noqa: E402
import sections  # noqa: E402

import probdl  # noqa: E402

project, author, copyright = "probdl", "The probdl developers", "The probdl developers"
version = release = probdl.__version__
extensions = [
    "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon", "sphinx.ext.mathjax", "myst_parser",
    "sphinx_gallery.gen_gallery",
]  # fmt: skip
exclude_patterns = ["_build", "gallery/**/*.ipynb", "gallery/**/*.py", "gallery/**/*.md5"]

# What is generated, and never kept.
STATIC = HERE / "_build" / "static"
sections.arrange(HERE.parent / "examples", HERE / "_build" / "scripts")
sections.forget_other_form(HERE / "gallery", "short" if "PROBDL_FAST" in os.environ else "full")
reference.write(HERE / "reference")

html_theme, html_title = "furo", f"probdl {release}"
html_static_path = ["_build/static"]
html_show_sourcelink = html_copy_source = False
pygments_style, pygments_dark_style = "friendly", "monokai"

mathjax_path = markup.copy_mathjax(STATIC)
mathjax3_config = markup.MATHJAX
myst_enable_extensions, myst_update_mathjax = ["dollarmath"], False
suppress_warnings = ["config.cache"]  # the order of scripts is a class, which is not pickled

autosummary_generate = False  # reference.py writes the pages
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 88
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_custom_sections = ["Reference", "Source"]

sphinx_gallery_conf = {
    "examples_dirs": "_build/scripts",
    "gallery_dirs": "gallery",
    "filename_pattern": r"(plot_\w+|quickstart)\.py",
    "subsection_order": [f"_build/scripts/{name}" for name in sections.SECTIONS],
    "within_subsection_order": "sections.ByCourse",
    "backreferences_dir": "gallery/used",
    "doc_module": ("probdl",),
    "download_all_examples": False,
    "remove_config_comments": True,
    "write_computation_times": False,
    "plot_gallery": "True",
}


def link_to_pages(app, name, source):
    """Lead links from the manual to scripts, which are files in the repository, to their pages here."""
    source[0] = sections.to_pages(source[0])


def setup(app):
    """Mend links of the manual, and docstrings before and after napoleon reads their sections."""
    app.connect("source-read", link_to_pages)
    app.connect("autodoc-process-docstring", markup.of_property, priority=400)
    app.connect("autodoc-process-docstring", markup.of_docstring, priority=900)
