"""Every public name says what it is, and stands in a script of the gallery, or in the list of those that do not yet."""

import ast
import importlib
import inspect
import re

import pytest
from house import ROOT, sources
from test_doctests import is_called_by_users

WITHOUT_A_PAGE = {  # write pages that use them; nothing may be added
    "probdl": "ConvergenceError Draws LogDensity",
    "probdl.data": "grid",
    "probdl.divergences": """
        BoundedCritic InverseMultiquadratic KernelCritic LipschitzCritic chi2 energy_loss f_divergence_loss
        gradient_penalty ipm ksd2 mmd2_loss pareto_k renyi sinkhorn sinkhorn_loss sliced_wasserstein_loss
    """,
    "probdl.families": """
        BernoulliHead CategoricalHead Conditional FreeScaleNormalHead Joint MeanFieldNormal MixedHead
        NetworkScaleNormalHead NormalHead Part PoissonHead observed reparameterised standard_normal_kl
        standard_normal_kls
    """,
    "probdl.inference": "Calibration Check simulation_based_calibration",
    "probdl.loops": "Keeper NotFiniteError bar batches duel iterate",
    "probdl.models": "GMMN SequenceVAE SlicedWassersteinGenerator",
    "probdl.models.kernels": "Constant Kernel Product Sum White",
    "probdl.natural": """
        ExponentialFamily FAMILIES GaussianFactor MomentMatch NormalFactor family_named match_moments
    """,
    "probdl.nn": "CNN MLP Recurrent ResidualBlock TransposedCNN gates",
    "probdl.viz": "Randomization chains convergence forest marginals rank_histograms tsne",
}
NOT_YET = {f"{room}.{name}" for room, names in WITHOUT_A_PAGE.items() for name in names.split()}


def declared(path):
    """Return what a module's ``__all__`` lists, and nothing where it has none."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and any(ast.unparse(target) == "__all__" for target in node.targets):
            return ast.literal_eval(node.value)
    return []


def public():
    """Return 'room.name' -> object for every ``__all__`` of the package and the functions of ``probdl.data``."""
    rooms = {module: declared(path) for module, path in sources().items()}
    data = vars(importlib.import_module("probdl.data"))
    rooms["probdl.data"] = [name for name in data if getattr(data[name], "__module__", "") == "probdl.data"]
    return {
        f"{room}.{name}": getattr(importlib.import_module(room), name)
        for room, names in rooms.items()
        for name in names
        if not name.startswith("_")
    }


PUBLIC = public()


def aliases(tree):
    """Return what each imported name of a script stands for, by its full name."""
    known = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            known |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        if isinstance(node, ast.Import):
            known |= {alias.asname or alias.name.split(".")[0]: alias.name if alias.asname else alias.name.split(".")[0]
                      for alias in node.names}  # fmt: skip
    return known


def written(code):
    """Return the full names that a script uses: ``viz.show`` after ``from probdl import viz`` is probdl.viz.show."""
    tree = ast.parse(code)
    known, found = aliases(tree), set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Attribute, ast.Name)):
            first, *rest = ast.unparse(node).split(".")
            found.add(".".join([known.get(first, ""), *rest]))
    return found


def returned(thing):
    """Return the classes that a function, or a public method of a class, is annotated to return, or their names."""
    members = inspect.getmembers(thing, inspect.isfunction) if inspect.isclass(thing) else [("", thing)]
    functions = [f for name, f in members if inspect.isfunction(f) and not name.startswith("_")]
    words = [(f, word) for f in functions for word in re.findall(r"\w+", str(f.__annotations__.get("return", "")))]
    return [f.__globals__.get(word, word) for f, word in words]


def in_use(codes):
    """Return the public names that scripts write, the rooms of these, and the results that they give back."""
    names = set().union(*map(written, codes))
    names |= {name.rpartition(".")[0] for name in names}
    results = [result for name in names & PUBLIC.keys() for result in returned(PUBLIC[name])]
    given = {
        name
        for name, thing in PUBLIC.items()
        if inspect.isclass(thing) and not is_called_by_users(thing)
        if any(result is thing or result == name.rpartition(".")[2] for result in results)
    }
    return (names | given) & PUBLIC.keys()


def scripts():
    return [path.read_text(encoding="utf-8") for path in sorted((ROOT / "examples").glob("*.py"))]


def test_every_public_name_stands_in_a_script_or_in_the_list_of_those_that_do_not_yet():
    assert sorted(PUBLIC.keys() - in_use(scripts()) - NOT_YET) == [], "write a page that uses them"


def test_the_list_of_names_without_a_page_only_shrinks():
    assert sorted(NOT_YET & in_use(scripts())) == [], "used by now: take them from NOT_YET"
    assert sorted(NOT_YET - PUBLIC.keys()) == [], "no longer public: take them from NOT_YET"


SAID = [
    name
    for name, thing in PUBLIC.items()
    if inspect.isclass(thing) or inspect.isroutine(thing) or inspect.ismodule(thing)
]


@pytest.mark.parametrize("name", SAID)
def test_every_public_name_says_what_it_is(name):
    own = vars(PUBLIC[name]).get("__doc__") if inspect.isclass(PUBLIC[name]) else PUBLIC[name].__doc__
    assert len((own or "").strip()) > 20
    assert not own.startswith(f"{name.rpartition('.')[2]}("), "what dataclasses write by themselves"


@pytest.mark.parametrize("name", [name for name in SAID if is_called_by_users(PUBLIC[name])])
def test_every_public_name_that_is_called_has_an_example(name):
    assert ">>> " in PUBLIC[name].__doc__


SCRIPT = """
from probdl import viz, divergences as d
from probdl.models import VAE as Model
import probdl.nn
import torch.distributions as dist
viz.show(Model(2).fit(x))
d.kl(dist.Normal(0, 1), dist.Normal(0, 1))
probdl.nn.GRU(1, 1)
model.history, mmd2, "viz.filters", dist.energy  # a method, a name of the script's own, a string, another package
"""


def test_the_reader_of_scripts_tells_a_use_from_a_name_that_looks_alike():
    assert in_use([SCRIPT]) == {
        "probdl.viz", "probdl.divergences", "probdl.models", "probdl.nn",
        "probdl.viz.show", "probdl.models.VAE", "probdl.divergences.kl", "probdl.nn.GRU",
        "probdl.divergences.Estimate", "probdl.nn.Part",
    }  # fmt: skip
