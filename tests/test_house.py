"""The rules of the house: arrows run one way, heavy things load late, nothing global changes, all of it installs."""

import ast
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from house import FOLDERS, ROOT, clean_environment, imports, run_python, sources, under

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SOURCES = sources()
FLOORS = ("probdl", "probdl.inference", "probdl.models")  # each may import from itself and from those before it
OUTSIDE = ("tests", "examples", "benchmarks", "docs", "inference", "models", "conftest")
LATE = ("matplotlib", "sklearn", "ot", "scipy", "pandas", "tqdm", "statsmodels", "arviz", "numpyro", "formulaic")
PYRO_MODELS = (
    "probdl.models.clustering.mixture_program", "probdl.models.gaussian_process", "probdl.models.glm",
    "probdl.models.variational.program",
)  # fmt: skip


def floor(name):
    return max(i for i, package in enumerate(FLOORS) if under(name, package))


def broken(rule):
    """Return 'file:line imports name' for every import in the package that breaks a rule."""
    return [
        f"{path.relative_to(ROOT)}:{found.line} imports {found.name}"
        for module, path in SOURCES.items()
        for found in imports(path)
        if rule(module, found)
    ]


def test_every_folder_of_the_house_holds_modules():
    assert {floor(name) for name in SOURCES} == {0, 1, 2}
    assert "probdl.divergences.estimate" in SOURCES


def test_arrows_run_one_way():
    def runs_back(module, found):
        door = module == "probdl" and not found.at_import  # names its rooms lazily
        return not door and under(found.name, "probdl") and floor(found.name) > floor(module)

    assert broken(runs_back) == []


def test_the_package_imports_nothing_that_does_not_install():
    assert broken(lambda _, found: any(under(found.name, name) for name in OUTSIDE)) == []


def test_imports_are_absolute():
    assert broken(lambda _, found: found.level > 0) == []


def test_matplotlib_is_imported_only_in_the_pictures_room_and_in_plot_methods_and_never_at_import():
    def misplaced(module, found):
        plots = any("plot" in function for function in found.functions)
        home = under(module, "probdl.viz") or plots
        return under(found.name, "matplotlib") and (found.at_import or not (home or found.typing_only))

    assert broken(misplaced) == []


def test_pyro_is_imported_only_where_pyro_programs_are_read_or_written():
    def misplaced(module, found):
        home = under(module, "probdl.inference") or module in PYRO_MODELS
        return under(found.name, "pyro") and not home

    assert broken(misplaced) == []


def test_helping_libraries_are_imported_when_they_are_needed():
    assert broken(lambda _, found: found.at_import and any(under(found.name, late) for late in LATE)) == []


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("from probdl import models", "probdl.models"),
        ("import probdl.models.glm as v", "probdl.models.glm"),
        ("def f():\n    from probdl.models import VAE", "probdl.models"),
        ("import importlib\nimportlib.import_module('probdl.models')", "probdl.models"),
        ("class A:\n    async def f(self):\n        import probdl.models", "probdl.models"),
    ],
)
def test_the_reader_of_imports_sees_them_however_they_are_written(tmp_path, line, expected):
    path = tmp_path / "m.py"
    path.write_text(line)
    assert expected in [found.name for found in imports(path)]


def test_the_reader_of_imports_knows_what_runs_at_import(tmp_path):
    path = tmp_path / "m.py"
    path.write_text("if TYPE_CHECKING:\n    import a\nelse:\n    import b\ndef f():\n    import c\nfrom . import d\n")
    found = {i.name: i for i in imports(path)}
    assert [name for name in "abc" if found[name].at_import] == ["b"]
    assert found[".d"].level == 1


def test_import_probdl_loads_nothing_heavy(tmp_path):
    heavy = ["torch", "numpy", "pyro", *LATE]
    code = f"import sys, probdl; dir(probdl); print([m for m in {heavy} if m in sys.modules])"
    assert run_python(code, tmp_path) == "[]"


@pytest.mark.parametrize("room", ["divergences", "loops", "nn", "viz", "data", "access"])
def test_a_room_of_the_core_loads_torch_and_leaves_the_rest_for_later(room, tmp_path):
    late = [*LATE, "pyro"]
    code = f"""
import sys, torch
before = set(sys.modules)
import probdl.{room}
print([m for m in {late} if m in set(sys.modules) - before])
"""
    assert run_python(code, tmp_path) == "[]"


GLOBALS = """
import importlib, json, os, random, sys, warnings
import numpy, torch, pyro, pyro.infer, pyro.poutine
from torch.distributions import Distribution

def state():
    return {
        "default dtype": str(torch.get_default_dtype()),
        "default device": str(torch.get_default_device()),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "gradients": torch.is_grad_enabled(),
        "torch validates": Distribution._validate_args,
        "pyro validates": pyro.settings.get(),
        "pyro parameters": sorted(pyro.get_param_store().keys()),
        "torch state": hash(torch.get_rng_state().numpy().tobytes()),
        "numpy state": hash(numpy.random.get_state()[1].tobytes()),
        "python state": hash(random.getstate()),
        "numpy errors": numpy.geterr(),
        "warnings": [str(f) for f in warnings.filters],
        "environment": dict(os.environ),
    }
"""


def test_importing_every_module_changes_nothing_global(tmp_path):
    code = f"""{GLOBALS}
import sklearn.datasets, scipy.stats, pandas, ot, matplotlib, tqdm
before = state()
for name in {list(SOURCES)}:
    importlib.import_module(name)
after = state()
print(json.dumps([key for key in before if before[key] != after[key]]))
"""
    assert json.loads(run_python(code, tmp_path)) == []


def test_importing_the_pictures_neither_loads_matplotlib_nor_picks_a_backend(tmp_path):
    code = "import sys, probdl.viz; print('matplotlib' in sys.modules)"
    assert run_python(code, tmp_path) == "False"


@pytest.mark.parametrize("room", ["probdl.models", "probdl.inference", "probdl.viz"])
@pytest.mark.parametrize("place", ["the root", "another folder"])
def test_every_room_is_found_from_the_root_and_from_elsewhere(room, place, tmp_path):
    where = ROOT if place == "the root" else tmp_path
    file = Path(run_python(f"import {room}; print({room}.__file__)", where))
    if place == "the root":
        assert file == SOURCES[room]
    assert file.read_bytes() == SOURCES[room].read_bytes()


def test_python_m_pytest_works_from_the_root():
    """The root is then first on the path, and ./probdl hides the installed package."""
    test = "tests/test_house.py::test_the_models_stand_where_they_should"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", test]
    done = subprocess.run(command, cwd=ROOT, env=clean_environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_the_models_stand_where_they_should():
    import probdl.models

    assert probdl.models.__name__ == "probdl.models"
    assert Path(probdl.models.__file__).read_bytes() == SOURCES["probdl.models"].read_bytes()


def test_in_a_source_tree_every_module_is_imported_under_one_name_only():
    code = f"""
import importlib, sys
for name in {list(SOURCES)}:
    importlib.import_module(name)
print([m for m in sys.modules if m.split('.')[0] in ('inference', 'models')])
"""
    assert run_python(code, ROOT) == "[]"


def pyproject():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def folders_with_modules():
    """Return the package name of every folder that holds Python files."""
    return {
        ".".join([package, *path.parent.relative_to(folder).parts])
        for package, folder in FOLDERS.items()
        for path in folder.rglob("*.py")
    }


def test_pyproject_lists_every_package():
    assert set(pyproject()["tool"]["setuptools"]["packages"]) == folders_with_modules()


def test_every_folder_of_modules_has_a_guide():
    missing = [name for name in folders_with_modules() if name not in SOURCES]
    assert missing == []
    assert [
        name for name in folders_with_modules() if not ast.get_docstring(ast.parse(SOURCES[name].read_text()))
    ] == []


def test_the_version_is_said_once():
    import probdl

    assert pyproject()["project"]["version"] == probdl.__version__


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    """Build the sdist from a copy of the tree without build/, and the wheel from the sdist."""
    tree, out = tmp_path_factory.mktemp("tree") / "probdl", tmp_path_factory.mktemp("dist")
    rubbish = ("build", "dist", ".git", ".*cache", ".venv", "__pycache__", "*.egg-info", ".hypothesis", "_build")
    shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(*rubbish))
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(tree)]
    done = subprocess.run(command, env=clean_environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(out.glob("*.tar.gz")), next(out.glob("*.whl"))


def test_the_wheel_holds_exactly_the_modules_of_the_folders(distributions):
    with zipfile.ZipFile(distributions[1]) as wheel:
        names = [name for name in wheel.namelist() if ".dist-info/" not in name]
    expected = {f"{package.replace('.', '/')}/{path.relative_to(folder).as_posix()}"
                for package, folder in FOLDERS.items() for path in folder.rglob("*.py")}  # fmt: skip
    assert set(names) == expected | {"probdl/py.typed"}
    assert len(names) == len(set(names))


def test_nothing_but_probdl_lands_at_the_top_of_site_packages(distributions):
    with zipfile.ZipFile(distributions[1]) as wheel:
        tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"probdl"}


def test_the_wheel_works_on_its_own(distributions, tmp_path):
    """Unpacked in an empty folder that comes first on the path, so that no source tree helps."""
    with zipfile.ZipFile(distributions[1]) as wheel:
        wheel.extractall(tmp_path)
    code = f"""
import importlib, sys
assert sys.path[0] in ("", {str(tmp_path)!r}), sys.path
for name in {list(SOURCES)}:
    file = importlib.import_module(name).__file__
    assert file.startswith({str(tmp_path)!r}), file
print("fine")
"""
    assert run_python(code, tmp_path) == "fine"


def test_the_sdist_carries_tests_examples_docs_and_benchmarks(distributions):
    with tarfile.open(distributions[0]) as sdist:
        inside = {"/".join(Path(m.name).parts[1:]) for m in sdist.getmembers() if m.isfile()}
    wanted = {
        path.relative_to(ROOT).as_posix()
        for room in ("tests", "examples", "docs", "benchmarks", "probdl", "inference", "models")
        for path in (ROOT / room).rglob("*")
        if path.is_file() and path.suffix in (".py", ".md", ".rst", ".typed", ".png", ".txt")
        if not {"_build", "gallery", "reference", "__pycache__"} & set(path.parts)
    }
    assert wanted - inside == set()
    assert {"LICENSE", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "pyproject.toml", ".ci/run"} <= inside


def test_ci_is_a_script_that_stops_at_the_first_failure():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "set -euo pipefail" in script.read_text()
    subprocess.run(["bash", "-n", script], check=True)


def test_coverage_names_the_package_and_not_a_folder():
    run = pyproject()["tool"]["coverage"]["run"]
    assert run["source_pkgs"] == ["probdl"]
    assert "source" not in run
    assert importlib.util.find_spec("probdl") is not None
