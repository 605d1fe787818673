"""The map of the house that the tests of the house walk: which folder is which package, and what it imports."""

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = {"probdl": ROOT / "probdl", "probdl.inference": ROOT / "inference", "probdl.models": ROOT / "models"}


def sources() -> dict[str, Path]:
    """Return every module of the package by the name under which it installs, with its file here."""
    found = {}
    for package, folder in FOLDERS.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            found[".".join([package, *parts]).removesuffix(".__init__")] = path
    return found


def clean_environment() -> dict[str, str]:
    """Return the environment without what would change how Python finds modules or matplotlib draws."""
    import os

    return {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "MPL", "COV_"))}


@dataclass(frozen=True)
class Import:
    """One import statement: what it loads, where it stands, and whether it runs when the module is imported."""

    name: str
    line: int
    level: int
    functions: tuple[str, ...]
    typing_only: bool

    @property
    def at_import(self) -> bool:
        return not self.functions and not self.typing_only


def imports(path: Path) -> list[Import]:
    """Return the imports of a file, those of ``from a import b`` as both a and a.b."""
    return list(_walk(ast.parse(path.read_text(encoding="utf-8")), (), False))


def _walk(node: ast.AST, functions: tuple[str, ...], typing_only: bool) -> Iterator[Import]:
    for name, level in _names(node):
        yield Import(name, getattr(node, "lineno", 0), level, functions, typing_only)
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        functions = (*functions, node.name)
    if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
        yield from (found for child in node.body for found in _walk(child, functions, True))
        yield from (found for child in node.orelse for found in _walk(child, functions, typing_only))
        return
    for child in ast.iter_child_nodes(node):
        yield from _walk(child, functions, typing_only)


def _names(node: ast.AST) -> list[tuple[str, int]]:
    if isinstance(node, ast.Import):
        return [(alias.name, 0) for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        module = node.module or ""
        return [(name, node.level) for name in (module, *(f"{module}.{alias.name}" for alias in node.names))]
    if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__"):
        written = [a.value for a in node.args[:1] if isinstance(a, ast.Constant) and isinstance(a.value, str)]
        return [(name, 0) for name in written]
    return []


def under(name: str, package: str) -> bool:
    """Say whether ``name`` is ``package`` or lies in it."""
    return name == package or name.startswith(f"{package}.")


def run_python(code: str, cwd: Path) -> str:
    """Run code in a fresh process of this interpreter and return what it printed; fail with what it said."""
    import subprocess

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env=clean_environment(), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
