"""Pictures: one thin layer that draws what the other rooms compute.

- ``images``: ``show`` maps and images without hidden scaling, ``sample_grid``, ``reconstructions``.
- ``latent``: ``latent_plane`` of codes, ``latent_manifold`` of a decoder.
- ``posteriors``: ``intervals`` (a forest of estimates) and ``marginals`` (densities, several posteriors overlaid).
- ``style``: colours, and the axes that a picture is drawn on.
- ``training``: ``history`` of a fit.

Every function takes ``ax=`` and makes a figure where it is None. None of them calls ``plt.show`` or touches
rcParams, and matplotlib is imported when the first picture is drawn: this room has no side effect on import.
"""

from probdl.viz.images import reconstructions, sample_grid, show
from probdl.viz.latent import latent_manifold, latent_plane
from probdl.viz.posteriors import intervals, marginals
from probdl.viz.training import history

__all__ = [
    "history",
    "intervals",
    "latent_manifold",
    "latent_plane",
    "marginals",
    "reconstructions",
    "sample_grid",
    "show",
]
