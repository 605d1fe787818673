"""The reference: a page for every room and one for every public name, written from ``__all__`` and never by hand."""

import inspect
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

ROOMS = (
    "probdl", "probdl.divergences", "probdl.inference", "probdl.models", "probdl.models.kernels", "probdl.viz",
    "probdl.data", "probdl.families", "probdl.nn", "probdl.loops", "probdl.natural",
)  # fmt: skip
# Inherited members are shown up to these classes, whose own are documented elsewhere.
FOREIGN = "Module, Exception, Warning, tuple, dict, Distribution"


def public(room: str) -> list[str]:
    """Return the public names of a room: its ``__all__``, or what it defines; without modules, which are rooms."""
    module = import_module(room)
    own = [k for k, v in vars(module).items() if not k.startswith("_") and getattr(v, "__module__", None) == room]
    names = getattr(module, "__all__", own)
    return sorted((n for n in names if not isinstance(getattr(module, n), ModuleType)), key=str.lower)


def pages(room: str) -> dict[str, str]:
    """Return the name of the page of each public name; two names that differ in case only get pages that do not."""
    lower = [name.lower() for name in public(room)]
    twice = {name for name in lower if lower.count(name) > 1}
    return {
        name: f"{room}.{name}" + ("-class" if name.lower() in twice and name != name.lower() else "")
        for name in public(room)
    }


def room_page(room: str) -> str:
    """Return the page of a room: its guide, and a table of its names."""
    names = pages(room)
    table = "\n".join(f"   {name}" for name in names if callable(getattr(import_module(room), name)))
    tree = "\n".join(f"   {name} <{page}>" for name, page in names.items())
    return (
        f"{_title(room)}.. automodule:: {room}\n\n"
        f".. rubric:: Public names\n\n.. autosummary::\n   :nosignatures:\n\n{table}\n\n"
        f".. toctree::\n   :hidden:\n\n{tree}\n"
    )


def name_page(room: str, name: str) -> str:
    """Return the page of a name: its docstring, and the scripts of the gallery that use it."""
    thing = getattr(import_module(room), name)
    how = f".. py:data:: {name}\n\n   {_value(thing)}\n"
    if inspect.isclass(thing):
        how = f".. autoclass:: {name}\n   :members:\n   :inherited-members: {FOREIGN}\n   :show-inheritance:\n"
    elif callable(thing):
        how = f".. autofunction:: {name}\n"
    scripts = f".. minigallery:: {room}.{name}\n   :add-heading: In the gallery\n   :heading-level: -\n"
    return f"{_title(name)}.. currentmodule:: {room}\n\n{how}\n{scripts}"


def write(folder: Path) -> None:
    """Write all pages of the reference to a folder; pages that stay the same keep their date, and old ones go."""
    written = {"index": _index()}
    for room in ROOMS:
        written[room] = room_page(room)
        written |= {page: name_page(room, name) for name, page in pages(room).items()}
    folder.mkdir(exist_ok=True)
    for path in folder.glob("*.rst"):
        if path.stem not in {Path(f"{page}.rst").stem for page in written}:
            path.unlink()
    for page, text in written.items():
        path = folder / f"{page}.rst"
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def _index() -> str:
    rooms = "\n".join(f"   {room}" for room in ROOMS)
    return f"{_title('Reference')}Every public name, by room.\n\n.. toctree::\n   :maxdepth: 1\n\n{rooms}\n"


def _value(thing: Any) -> str:
    keys = ", ".join(f"``{key!r}``" for key in thing) if isinstance(thing, dict) else f"``{thing!r}``"
    return f"A {type(thing).__name__}: {keys}."


def _title(text: str) -> str:
    return f"{text}\n{'=' * len(text)}\n\n"
