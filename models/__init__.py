"""The things you fit.

Constructor arguments are hyperparameters; ``fit`` takes data and returns the model; all that hold networks are
``nn.Module``s. A table (DataFrame, array), or images (n, c, h, w), go in; results come back in the data's own units
and columns. A model is a family (``probdl.families``) around networks (``probdl.nn``), brought close to the data by
a loop (``probdl.loops``).

- ``VAE``: a latent variable model and its approximate posterior, by the evidence lower bound; in the room
  ``variational``.
- ``LinearAutoencoder``, ``Autoencoder``, ``SparseAutoencoder``, ``KSparseAutoencoder``, ``DenoisingAutoencoder``: codes
  and the way back, without a distribution; in the room ``autoencoders``.
- ``WAEMMD``, ``WAEGAN``: generators by the primal of the Wasserstein distance; in the room ``wae``.
- ``GAN``, ``WGAN``: rows made of noise, learnt from a critic that tells them from the data; ``GMMN`` and
  ``SlicedWassersteinGenerator`` without one, by a divergence of batches; in the room ``adversarial``.
- ``PCA``, ``MDS``, ``SOM``: rows in few dimensions, by the classical ways; ``embed_compare`` sets
  them beside autoencoders and t-SNE; in the room ``projections``.
- ``GaussianMixture``, a variational density, and ``KMeans``: rows that belong together; in the room ``clustering``.
- ``KDE``: a density without parameters, with a torch ``Distribution`` of its own; in the room ``density``.
- ``ImageClassifier``: class probabilities of images by a convolutional network.
- ``LogisticRegression``: the same without hidden layer, at its maximum likelihood; ``newton`` gets there, and
  ``logistic_findings`` says what the curvature says.
- ``SequenceClassifier``, ``SequenceTagger``, ``LanguageModel``, ``Seq2Seq``, ``Captioner``, ``SequenceVAE``: sequences
  that are read or written by recurrent networks; in the room ``sequences``.
- ``GLM``: regressions by formula, from logistic to survival, with their posterior; its parts are in the room
  ``regression``.
- ``GaussianProcessClassifier``, ``GaussianProcessRegressor``: functions with a prior, seen through labels or noise; by
  expectation propagation. Their covariance functions are in ``kernels``.
- ``evaluate``: how far the samples of any of them are from held-out rows, measure by measure; in the room ``judging``.
- ``anomaly_table``: which rows are strange, by any of them, at a false-alarm rate that holds; in the room
  ``anomalies``.

The parts that models share: ``network_model`` (training, eval mode, save and load), ``row_model`` (the same for rows
of one form), ``unsupervised`` (``fit`` of rows alone), ``classical`` (the same by an
algorithm on all rows, without networks) and ``generative`` (``sample``, ``encode``, ``reconstruct``),
``form`` and ``tables`` (shape and columns of the data, categories), ``condition`` (what rows are given), ``labels``
(classes and their indices), ``units`` (standardisation and its Jacobian), ``networks`` (chosen by shape), ``held_out``
(validation rows), ``pairs`` (the same of rows and labels), ``scores`` (accuracy and calibration), ``elbo`` (the bound
and importance weights), ``cards`` (models in the course's words), ``saved`` (what a file says about a model).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from probdl.models.adversarial.gan import GAN
    from probdl.models.adversarial.matching import GMMN, SlicedWassersteinGenerator
    from probdl.models.adversarial.wgan import WGAN
    from probdl.models.anomalies.table import anomaly_table
    from probdl.models.autoencoders.deep import Autoencoder
    from probdl.models.autoencoders.denoising import DenoisingAutoencoder
    from probdl.models.autoencoders.k_sparse import KSparseAutoencoder
    from probdl.models.autoencoders.linear import LinearAutoencoder
    from probdl.models.autoencoders.sparse import SparseAutoencoder
    from probdl.models.cards import course_tables
    from probdl.models.classifiers import ImageClassifier
    from probdl.models.clustering.gaussian_mixture import GaussianMixture
    from probdl.models.clustering.k_means import KMeans
    from probdl.models.density.kde import KDE
    from probdl.models.gaussian_process import GaussianProcessClassifier, GaussianProcessRegressor
    from probdl.models.glm import GLM
    from probdl.models.judging.evaluate import evaluate
    from probdl.models.logistic_regression import LogisticRegression
    from probdl.models.projections.compare import embed_compare
    from probdl.models.projections.mds import MDS
    from probdl.models.projections.pca import PCA
    from probdl.models.projections.som import SOM
    from probdl.models.sequences.captioner import Captioner
    from probdl.models.sequences.classifier import SequenceClassifier
    from probdl.models.sequences.language_model import LanguageModel
    from probdl.models.sequences.seq2seq import Seq2Seq
    from probdl.models.sequences.tagger import SequenceTagger
    from probdl.models.sequences.vae import SequenceVAE
    from probdl.models.variational.vae import VAE
    from probdl.models.wae.wae_gan import WAEGAN
    from probdl.models.wae.wae_mmd import WAEMMD

__all__ = [
    "Autoencoder",
    "Captioner",
    "DenoisingAutoencoder",
    "GAN",
    "GLM",
    "GMMN",
    "GaussianMixture",
    "GaussianProcessClassifier",
    "GaussianProcessRegressor",
    "ImageClassifier",
    "KDE",
    "KMeans",
    "KSparseAutoencoder",
    "LanguageModel",
    "LinearAutoencoder",
    "LogisticRegression",
    "MDS",
    "PCA",
    "SOM",
    "Seq2Seq",
    "SequenceClassifier",
    "SequenceTagger",
    "SequenceVAE",
    "SlicedWassersteinGenerator",
    "SparseAutoencoder",
    "VAE",
    "WAEGAN",
    "WAEMMD",
    "WGAN",
    "anomaly_table",
    "course_tables",
    "embed_compare",
    "evaluate",
]

_HOME = {
    "Autoencoder": "probdl.models.autoencoders.deep",
    "Captioner": "probdl.models.sequences.captioner",
    "DenoisingAutoencoder": "probdl.models.autoencoders.denoising",
    "GAN": "probdl.models.adversarial.gan",
    "GLM": "probdl.models.glm",
    "GMMN": "probdl.models.adversarial.matching",
    "GaussianMixture": "probdl.models.clustering.gaussian_mixture",
    "GaussianProcessClassifier": "probdl.models.gaussian_process",
    "GaussianProcessRegressor": "probdl.models.gaussian_process",
    "ImageClassifier": "probdl.models.classifiers",
    "KDE": "probdl.models.density.kde",
    "KMeans": "probdl.models.clustering.k_means",
    "KSparseAutoencoder": "probdl.models.autoencoders.k_sparse",
    "LanguageModel": "probdl.models.sequences.language_model",
    "LinearAutoencoder": "probdl.models.autoencoders.linear",
    "LogisticRegression": "probdl.models.logistic_regression",
    "MDS": "probdl.models.projections.mds",
    "PCA": "probdl.models.projections.pca",
    "SOM": "probdl.models.projections.som",
    "Seq2Seq": "probdl.models.sequences.seq2seq",
    "SequenceClassifier": "probdl.models.sequences.classifier",
    "SequenceTagger": "probdl.models.sequences.tagger",
    "SequenceVAE": "probdl.models.sequences.vae",
    "SlicedWassersteinGenerator": "probdl.models.adversarial.matching",
    "SparseAutoencoder": "probdl.models.autoencoders.sparse",
    "VAE": "probdl.models.variational.vae",
    "WAEGAN": "probdl.models.wae.wae_gan",
    "WAEMMD": "probdl.models.wae.wae_mmd",
    "WGAN": "probdl.models.adversarial.wgan",
    "anomaly_table": "probdl.models.anomalies.table",
    "course_tables": "probdl.models.cards",
    "embed_compare": "probdl.models.projections.compare",
    "evaluate": "probdl.models.judging.evaluate",
}


def __getattr__(name: str) -> Any:
    """Load a model on first use."""
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'probdl.models' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
