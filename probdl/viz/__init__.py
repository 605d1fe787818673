"""Pictures: one thin layer that draws what the other rooms compute.

- ``alignment``: where a decoder looked in its source while it wrote.
- ``calibration``: ``rank_histograms`` of simulation-based calibration.
- ``contours``: ``density_contours``, the regions of the plane that hold a stated mass, of one density over another;
  ``regions`` finds them, of draws by ``smoothing``.
- ``images``: ``show`` maps and images without hidden scaling, ``sample_grid``, ``reconstructions``.
- ``interpolation``: what a decoder makes of the codes between two.
- ``latent``: ``latent_plane`` of codes, ``latent_manifold`` of a decoder.
- ``pairs``: the joint density of each two entries, in a ``triangle`` of panels; several posteriors overlaid.
- ``posteriors``: ``intervals`` (estimates on lines), ``forest`` (the same with two intervals each) and ``marginals``
  (densities); several posteriors overlaid.
- ``recurrence``: ``gradient_norms`` of a recurrent network against the lag.
- ``reliability``: the ``reliability`` diagram of probabilities against what happened.
- ``seeing``: what a network learned: ``layers``, ``activations``, ``filters``; ``sparse_filters`` beside
  them; ``top_patches`` that drive a unit most, ``nearest`` neighbours in a layer; ``saliency``, ``guided_backprop``,
  ``deconvnet``, ``channel_gradient`` and ``occlusion``, maps on the input; ``adversarial`` examples; ``synthesize``;
  ``randomization_check`` says which maps depend on the model.
- ``sheets``: ``filter_grid``, filters with a tile for each input channel; patches above their projections.
- ``style``: colours, and the axes that a picture is drawn on.
- ``traces``: ``convergence`` of an inference, ``chains`` of a sampler.
- ``training``: ``history`` of a fit.
- ``transport``: ``transport_plan``, what goes where between two clouds of points.
- ``tsne``: rows as points of a plane; ``affinities``: the probabilities to keep; ``similarity``: what is lost of them;
  ``many_rows``: by openTSNE where there are too many pairs; ``tsne_layers``: one picture for each layer of a network;
  ``embeddings``: their drawings, ``embedding`` and ``layer_panel``.

Every function that draws takes ``ax=`` and makes a figure where it is None. None of them calls ``plt.show`` or touches
rcParams, and matplotlib is imported when the first picture is drawn: this room has no side effect on import.
"""

from probdl.viz.alignment import alignment
from probdl.viz.calibration import rank_histograms
from probdl.viz.contours import density_contours
from probdl.viz.embeddings import embedding, layer_panel
from probdl.viz.images import reconstructions, sample_grid, show
from probdl.viz.interpolation import interpolation
from probdl.viz.latent import latent_manifold, latent_plane
from probdl.viz.pairs import pairs
from probdl.viz.posteriors import forest, intervals, marginals
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
from probdl.viz.traces import chains, convergence
from probdl.viz.training import history
from probdl.viz.transport import transport_plan
from probdl.viz.tsne import TSNE, tsne
from probdl.viz.tsne_layers import tsne_layers

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
]
