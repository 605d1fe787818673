"""What stands between the house's text and Sphinx: docstrings as reST, and MathJax as a part of the site."""

import re
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

KEPT = re.compile(r"(``.+?``|`[^`]+`_*)", re.DOTALL)  # literals, and roles such as :math:`|x|`
MARKS = re.compile(r"\||\*{1,2}(?=\w+[,)])")  # |x|, and the star of (n, *shape)
# Of MathJax 3: formulas become SVG in one script, which needs no fonts; a page opened as a file may load none.
MATHJAX = {"options": {"enableMenu": False}, "svg": {"fontCache": "global"}}
SCRIPT = "tex-svg-full.js"


def as_rest(text: str) -> str:
    r"""Return a docstring as reST means it: bars and stars of shapes are text, and a literal may have an ending.

    Math and code stay as they are.

    Example:
        >>> print(as_rest("the length |x| of :math:`|y|` in (n, *shape), all ``float``s"))
        the length \|x\| of :math:`|y|` in (n, \*shape), all ``float``\ s
    """
    return "\n\n".join(_escaped(text.split("\n\n")))


def _escaped(paragraphs: list[str]) -> list[str]:
    done, inside = [], None  # inside: the indentation of the directive or literal block that we are in
    for paragraph in paragraphs:
        lines = paragraph.splitlines() or [""]
        if inside is not None and paragraph.strip() and _indent(lines[0]) <= inside:
            inside = None
        kept = inside is not None or ".. math::" in paragraph or ">>>" in paragraph
        done.append(paragraph if kept else _mended(paragraph))
        opened = next((line for line in lines if line.lstrip().startswith(".. math::")), lines[-1])
        if inside is None and (opened.rstrip().endswith("::") or ".. math::" in opened):
            inside = _indent(opened)
    return done


def _mended(paragraph: str) -> str:
    parts = KEPT.split(paragraph)
    parts[::2] = [MARKS.sub(lambda mark: "".join(f"\\{c}" for c in mark[0]), part) for part in parts[::2]]
    return re.sub(r"(?<=\w``)(?=\w)", r"\\ ", "".join(parts))


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def of_docstring(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Mend a docstring in place, when Sphinx asks (``autodoc-process-docstring``)."""
    lines[:] = as_rest("\n".join(lines)).splitlines()


def of_property(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Keep napoleon from reading "A row for each: its score" as a type and what has it."""
    if what in ("property", "attribute", "data"):
        lines.insert(0, "")


def copy_mathjax(static: Path) -> str:
    """Copy MathJax (Apache-2.0) from the package django-static-mathjax to the site; return the path of its script.

    Raises:
        ModuleNotFoundError: where the package is missing.
    """
    found = find_spec("mathjax")
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError('MathJax is not at hand: pip install -e ".[docs]"')
    source = Path(found.submodule_search_locations[0]) / "static" / "mathjax"
    (static / "mathjax").mkdir(parents=True, exist_ok=True)
    for name in (f"es5/{SCRIPT}", "LICENSE"):
        shutil.copy2(source / name, static / "mathjax")
    return f"mathjax/{SCRIPT}"
