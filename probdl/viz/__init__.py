"""Pictures: one thin layer that draws what the other rooms compute.

- ``seeing``, a room: what a network learned: ``layers``, ``activations``, ``filters``, and ``sparse_filters`` beside;
  ``top_patches`` that drive a unit most, ``nearest`` neighbours in a layer; ``saliency``, ``guided_backprop``,
  ``deconvnet``, ``channel_gradient`` and ``occlusion``, maps on the input; ``adversarial`` examples; ``synthesize``;
  ``randomization_check`` says which maps depend on the model.
- ``embeddings``, a room: ``tsne`` of rows, ``tsne_layers`` of a network, and their drawings.
- ``posteriors``, a room: ``intervals``, ``forest``, ``marginals``, ``pairs``, ``density_contours``, ``chains``,
  ``convergence`` and ``rank_histograms``.
- ``images``: ``show`` maps and images without hidden scaling, ``sample_grid``, ``reconstructions``.
- ``sheets``: ``filter_grid``, filters with a tile for each input channel; patches above their projections.
- ``latent``: ``latent_plane`` of codes, ``latent_manifold`` of a decoder; ``interpolation`` between two codes.
- ``u_matrix``: the sheet of a self-organising map, its clusters and who sits where.
- ``transport``: ``transport_plan``, what goes where between two clouds of points.
- ``alignment``: where a decoder looked in its source while it wrote.
- ``recurrence``: ``gradient_norms`` of a recurrent network against the lag.
- ``reliability``: the ``reliability`` diagram of probabilities against what happened.
- ``training``: ``history`` of fits.
- ``style``: colours, and the axes that a picture is drawn on.

Every function that draws takes ``ax=`` and makes a figure where it is None. None of them calls ``plt.show`` or touches
rcParams, and matplotlib is imported when the first picture is drawn: this room has no side effect on import.
"""

from probdl.viz.alignment import alignment
from probdl.viz.embeddings.drawings import embedding, layer_panel
from probdl.viz.embeddings.tsne import TSNE, tsne
from probdl.viz.embeddings.tsne_layers import tsne_layers
from probdl.viz.images import reconstructions, sample_grid, show
from probdl.viz.interpolation import interpolation
from probdl.viz.latent import latent_manifold, latent_plane
from probdl.viz.posteriors.calibration import rank_histograms
from probdl.viz.posteriors.contours import density_contours
from probdl.viz.posteriors.intervals import forest, intervals, marginals
from probdl.viz.posteriors.pairs import pairs
from probdl.viz.posteriors.traces import chains, convergence
from probdl.viz.recurrence import gradient_norms
from probdl.viz.reliability import reliability
from probdl.viz.seeing.adversarial import Adversarial, adversarial
from probdl.viz.seeing.layers import activations, filters, layers
from probdl.viz.seeing.maps import channel_gradient, deconvnet, guided_backprop, saliency
from probdl.viz.seeing.neighbours import nearest
from probdl.viz.seeing.occlusion import Occlusion, occlusion
from probdl.viz.seeing.patches import Patches, top_patches
from probdl.viz.seeing.randomization import Randomization, randomization_check
from probdl.viz.seeing.sparse import sparse_filters
from probdl.viz.seeing.synthesis import Synthesis, synthesize
from probdl.viz.sheets import filter_grid
from probdl.viz.training import history
from probdl.viz.transport import transport_plan
from probdl.viz.u_matrix import u_matrix

__all__ = [
    "Adversarial",
    "Occlusion",
    "Patches",
    "Randomization",
    "Synthesis",
    "TSNE",
    "activations",
    "adversarial",
    "alignment",
    "chains",
    "channel_gradient",
    "convergence",
    "deconvnet",
    "density_contours",
    "filter_grid",
    "embedding",
    "filters",
    "forest",
    "gradient_norms",
    "guided_backprop",
    "history",
    "interpolation",
    "intervals",
    "latent_manifold",
    "latent_plane",
    "layer_panel",
    "layers",
    "marginals",
    "nearest",
    "occlusion",
    "randomization_check",
    "pairs",
    "rank_histograms",
    "reconstructions",
    "reliability",
    "saliency",
    "sample_grid",
    "show",
    "sparse_filters",
    "synthesize",
    "top_patches",
    "transport_plan",
    "tsne",
    "tsne_layers",
    "u_matrix",
]
