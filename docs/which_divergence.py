"""The tables of which_divergence.md, from the code: ``python docs/which_divergence.py`` prints them as Markdown."""

import sys
from pathlib import Path

import pandas as pd
import torch
from torch.distributions import Normal

from probdl import data, divergences

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "examples" / "plot_what_divergences_see.py"
EXACT = ("kl", "chi2", "renyi", "js", "tv", "hellinger2", "wasserstein", "energy", "mmd2")  # on the line, by quadrature
ALL = (*EXACT, "sliced_wasserstein", "sinkhorn")
ARGUMENTS = {"renyi": {"alpha": 0.5}, "mmd2": {"kernel": divergences.RBF(1.0)}}


def between(name, p, q):
    """Return the divergence of that name, as an ``Estimate``."""
    return getattr(divergences, name)(p, q, **ARGUMENTS.get(name, {}))


def values() -> pd.DataFrame:
    """Return the exact divergences of four changed laws from the original: the laws are those of the gallery's page."""
    names: dict = {}
    exec(compile(SCRIPT.read_text(encoding="utf-8").split("# %%\n")[1], str(SCRIPT), "exec"), names)
    laws, original = names["changes"], names["original"]
    return pd.DataFrame({of: {f"`{f}`": float(between(f, law, original)) for f in EXACT} for of, law in laws.items()})


def seen() -> pd.DataFrame:
    """Return ``values`` to four decimals, the change that each divergence sees most in bold."""
    found = values()
    say = lambda row: [f"**{v:.4f}**" if v == row.max() else f"{v:.4f}" for v in row]  # noqa: E731
    return found.apply(say, axis=1, result_type="expand").set_axis(found.columns, axis=1)


def apart(distances: tuple[float, ...] = (1.0, 0.1, 0.01)) -> pd.DataFrame:
    """Return the exact divergences of two parallel segments at a few distances θ."""
    kinds = ("kl", "js", "tv", "hellinger2", "wasserstein")
    lines = {f"θ = {theta:g}": data.parallel_lines(theta) for theta in distances}
    return pd.DataFrame({of: {f"`{kind}`": f"{getattr(two, kind):.4g}" for kind in kinds} for of, two in lines.items()})


def held(n: int = 200) -> pd.DataFrame:
    """Return by which method each divergence of N(0, 1) from N(1, 4) is found, of the laws and of n draws of each."""
    double = {"dtype": torch.float64}
    laws = [Normal(torch.tensor(at, **double), torch.tensor(scale, **double)) for at, scale in ((0.0, 1.0), (1.0, 2.0))]
    draws = [data.draws(law, n, seed=seed) for seed, law in enumerate(laws)]
    rows = {f"`{name}`": _row(between(name, *laws), between(name, *draws)) for name in ALL}
    return pd.DataFrame.from_dict(rows, orient="index")


def _row(exact, estimated) -> dict[str, str]:
    return {"of the two laws": exact.method, "of draws": estimated.method, "target of that": estimated.target}


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "tests"))
    from test_docs import markdown

    print("\n\n".join(map(markdown, (seen(), apart(), held()))))
