"""Several embeddings of the same rows beside each other."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from probdl.divergences.estimate import Estimate
from probdl.models.arguments import count
from probdl.models.autoencoders.deep import Autoencoder
from probdl.models.form import Form
from probdl.models.labels import Labels
from probdl.models.projections.mds import MDS
from probdl.models.projections.pca import PCA
from probdl.models.projections.quality import OVER, agreement, continuity, stress, trustworthiness
from probdl.models.projections.som import SOM
from probdl.models.units import Units
from probdl.models.variational.vae import VAE
from probdl.viz.embeddings.tsne_layers import merged

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

METHODS = ("pca", "mds", "som", "ae", "vae", "tsne")
PERPLEXITY = 30.0


@dataclass(frozen=True, eq=False, repr=False)
class Embeddings:
    """Several embeddings of the same rows, and what each keeps.

    Attributes:
        embeddings: the points by name, (n, 2) each.
        measures: by name the measures, ``Estimate``s by theirs.
        seconds: by name how long it took, on this machine and once.
        labels: as they were passed, or None.
        notes: what holds for all of them.
    """

    embeddings: dict[str, Tensor]
    measures: dict[str, dict[str, Estimate]]
    seconds: dict[str, float]
    labels: Any = None
    notes: tuple[str, ...] = ()

    @property
    def table(self) -> pd.DataFrame:
        """A row for each embedding: each measure, its standard error in a column "… se", and the seconds."""
        import pandas as pd

        records = []
        for name, found in self.measures.items():
            record: dict[str, float] = {}
            for measure, e in found.items():
                record |= {measure: float(e), f"{measure} se": math.nan if e.stderr is None else float(e.stderr)}
            records.append({**record, "seconds": self.seconds[name]})
        return pd.DataFrame(records, index=pd.Index(list(self.measures), name="method"))

    def plot(self, ax: Axes | Mapping[str, Axes] | None = None) -> dict[str, Axes]:
        """Draw each embedding in a panel, coloured by label, with its trustworthiness T and continuity C above.

        Points that coincide, as on the units of a map, are drawn around their place.

        Args:
            ax: None makes a figure; a mapping gives each embedding its panel; one Axes takes a single one.

        Returns:
            The axes by name.

        Raises:
            ValueError: if there are no axes for an embedding.
        """
        from probdl.models.projections.pictures import plot_panels

        return plot_panels(self.embeddings, self.measures, self.labels, ax)

    def __repr__(self) -> str:
        return "\n".join([self.table.round(3).to_string(), *self.notes])


def embed_compare(
    x: Any,
    methods: Sequence[Any] | Mapping[str, Any] = METHODS,
    labels: Any = None,
    neighbours: int = 12,
    seed: int = 0,
    *,
    steps: int | None = None,
    standardise: str = "auto",
) -> Embeddings:
    """Embed rows in the plane by several methods, and measure what each keeps.

    ===============  =================================================================================================
    trustworthiness  are neighbours in the picture neighbours in truth? 1 if all are
    continuity       are neighbours in truth neighbours in the picture? 1 if all are
    stress           Kruskal's stress-1 of the best scaling: how far distances are from proportional; 0 if they are
    agreement        the share of a point's neighbours in the picture that have its label; where labels are classes
    ===============  =================================================================================================

    The first three compare with distances of the standardised rows, the same for all methods. A picture that a method
    learnt is judged on the rows that it learnt from. Time and memory are O(n²): up to some thousands of rows.

    Args:
        x: rows, array-like (n, ...), or a DataFrame.
        methods: names: "pca", "mds" (metric; the classical one is "pca" again), "som" (about 5√n units), "ae" and
            "vae" (networks chosen by the shape of a row), "tsne" (perplexity 30, or less for fewer than 100 rows); and
            models with ``encode`` to two dimensions, fitted or not. A mapping names them: {"mine": model}; it may also
            stand in a list.
        labels: one for each row: classes; or numbers with fractions, which colour the picture and no more.
        neighbours: of the first two measures and the last, below n/2.
        seed: of the networks, and of the order in which points at the same distance count.
        steps: of the networks "ae" and "vae"; None: as many as they take by default.
        standardise: "column", each to variance 1 ("auto" for tables); "shared", one scale for all ("auto" for images);
            or "none".

    Returns:
        ``.table``, ``.embeddings`` and ``.plot()``.

    Raises:
        ValueError, TypeError: for rows, labels or methods that cannot be used.

    Reference:
        Venna and Kaski (2001), Neighborhood preservation in nonlinear projection methods; Kruskal (1964).

    Example:
        >>> import torch
        >>> t = torch.linspace(0, 3, 60, dtype=torch.float64)
        >>> curve = torch.stack([t.cos(), t.sin(), 0 * t + t**2], 1)
        >>> found = embed_compare(curve, ["pca", "som"], neighbours=5)
        >>> list(found.table.columns)[::2]
        ['trustworthiness', 'continuity', 'stress', 'seconds']
        >>> bool(found.table.trustworthiness["pca"] > 0.95)
        True
    """
    form = Form.of(x, categories=True)
    rows = form.check(x).double()
    n = len(rows)
    if not 1 <= count(neighbours, "neighbours") < n / 2:
        raise ValueError(f"neighbours must be below half the rows, {n / 2:g}; got {neighbours}.")
    classes = None if labels is None else _classes(labels, n)
    chosen = _named(methods)
    u = Units.of(rows, standardise, form).inward(rows).reshape(n, -1)
    found, seconds = {}, {}
    for name, method in chosen.items():
        start = time.perf_counter()
        found[name] = _points(name, _made(method, x, u, seed, steps, standardise), n).to(u)
        seconds[name] = time.perf_counter() - start
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed)).to(u.device)
    measures = {
        name: _measures(u[order], y[order], None if classes is None else classes[order.cpu()].to(u.device), neighbours)
        for name, y in found.items()
    }
    return Embeddings(found, measures, seconds, labels, (OVER,))


def _measures(u: Tensor, y: Tensor, classes: Tensor | None, k: int) -> dict[str, Estimate]:
    found = {"trustworthiness": trustworthiness(u, y, k), "continuity": continuity(u, y, k), "stress": stress(u, y)}
    return found if classes is None else {**found, "agreement": agreement(y, classes, k)}


def _made(method: Any, x: Any, u: Tensor, seed: int, steps: int | None, standardise: str) -> Any:
    """Return the points that a method finds, of whatever shape."""
    if not isinstance(method, str):
        model = method if getattr(method, "fitted", True) else method.fit(x, seed=seed)
        return model.encode(x)
    n = len(u)
    how: dict[str, Any] = {"standardise": standardise}
    learn: dict[str, Any] = {"seed": seed, "steps": steps, "progress": False}
    ways: dict[str, Callable[[], Tensor]] = {
        "pca": lambda: PCA(2, **how).fit(x).encode(x),
        "mds": lambda: MDS(2, method="metric", **how).fit(x).Y,
        "som": lambda: SOM((side, side), **how).fit(x).encode(x),
        "ae": lambda: Autoencoder(2, **how).fit(x, **learn).encode(x),
        "vae": lambda: VAE(2, **how).fit(x, **learn).encode(x),
        "tsne": lambda: merged(u, 2, {"perplexity": _perplexity(u), "seed": seed}).Y,
    }
    side = max(2, round(math.sqrt(5 * math.sqrt(n))))
    return ways[method]()


def _perplexity(u: Tensor) -> float:
    """Return one that t-SNE can take, which needs three times as many distinct rows."""
    return min(PERPLEXITY, (len(u.unique(dim=0)) - 1) / 3.01)


def _points(name: str, y: Any, n: int) -> Tensor:
    points = torch.as_tensor(y).detach()
    if tuple(points.shape) != (n, 2):
        raise ValueError(f"methods must encode each of {n} rows in 2 dimensions; {name!r} gave {tuple(points.shape)}.")
    if not bool(points.isfinite().all()):
        raise ValueError(f"methods must give finite codes; those of {name!r} are not.")
    return points.double()


def _named(methods: Any) -> dict[str, Any]:
    """Return the methods by name."""
    if isinstance(methods, str):
        raise ValueError(f"methods must be a list of names and models; got {methods!r}.")
    found: dict[str, Any] = {}
    for method in [methods] if isinstance(methods, Mapping) else methods:
        found |= method if isinstance(method, Mapping) else {_name(method, found): method}
    if not found:
        raise ValueError("methods must hold at least one name or model; got none.")
    for method in found.values():
        if isinstance(method, str) and method not in METHODS:
            raise ValueError(f"each of methods must be one of {', '.join(METHODS)} or a model; got {method!r}.")
        if not isinstance(method, str) and not hasattr(method, "encode"):
            raise TypeError(f"each of methods must be a name or a model with encode; got {type(method).__name__}.")
    return found


def _name(method: Any, taken: Mapping[str, Any]) -> str:
    """Return what a method without a name is called; a model by its class, with a number if there are several."""
    name = method if isinstance(method, str) else type(method).__name__
    several = sum(other == name or other.startswith(f"{name} ") for other in taken)
    return name if isinstance(method, str) or not several else f"{name} {several + 1}"


def _classes(labels: Any, n: int) -> Tensor | None:
    """Return the index of each row's class, or None for numbers with fractions, or raise."""
    import numpy as np

    values = np.asarray(labels.detach().cpu() if isinstance(labels, Tensor) else labels)
    if values.shape != (n,):
        raise ValueError(f"labels must have shape ({n},), one for each row; got {values.shape}.")
    if values.dtype.kind == "f":
        if not np.isfinite(values).all():
            raise ValueError("labels must be finite.")
        if (values != values.round()).any():
            return None
        values = values.astype(int)
    return Labels.of(values, "labels").indices(values)
