"""The gallery's sections, in the order of the course, and the scripts of each in the order in which they are read.

The scripts lie flat in ``examples/``; the gallery wants a folder for each section. ``arrange`` copies them there.
"""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Section:
    """A section of the gallery: its title, what it is about, and its scripts, in order."""

    title: str
    about: str
    scripts: tuple[str, ...]


SECTIONS = {
    "quickstart": Section(
        "The quickstart",
        "Every method brings one distribution close to another: three ways to get there, on one page.",
        ("quickstart",),
    ),
    "seeing": Section(
        "What a network sees",
        "Which pixels, patches and features move a network's score, and which pictures of it can be believed.",
        (
            "plot_where_a_net_looks", "plot_saliency_segmentation", "plot_guided_maps", "plot_occlusion",
            "plot_sanity_check", "plot_activation_maps", "plot_filters_sparse_coding", "plot_top_patches",
            "plot_nearest_neighbours", "plot_tsne_layers", "plot_class_synthesis", "plot_fooled",
            "plot_calibrated_digits",
        ),
    ),
    "sequences": Section(
        "Sequences",
        "Recurrent networks: what they remember, and what they write where the law behind the data is known.",
        (
            "plot_vanishing_gradients", "plot_adding_problem", "plot_markov_source", "plot_hmm_labels",
            "plot_grammar_sentiment", "plot_what_an_lstm_attends", "plot_character_model", "plot_dates_seq2seq",
            "plot_digit_captions",
        ),
    ),
    "densities": Section(
        "Densities and projections",
        "The classical side: kernels, mixtures, maps of rows in the plane, and rows that do not fit in.",
        (
            "plot_kde_bandwidths", "plot_kde_rates", "plot_density_low_dimension", "plot_mixture_against_k_means",
            "plot_mds_map", "plot_som_wine", "plot_embeddings_compared", "plot_anomalies_breast_cancer",
            "plot_conformal_guarantee",
        ),
    ),
    "autoencoders": Section(
        "Autoencoders",
        "Codes and the way back, without a distribution: from principal components to sparse and denoising codes.",
        ("plot_linear_autoencoder_pca", "plot_pca_autoencoders_digits", "plot_autoencoders_digits"),
    ),
    "variational": Section(
        "Variational inference",
        "The evidence lower bound: what it finds, what it misses, how it scales, and the autoencoder built on it.",
        (
            "plot_kl_directions", "plot_mean_field_gaussian", "plot_elbo_penalised_likelihood", "plot_mixture_iris",
            "plot_gradient_estimators", "plot_hierarchical_regression", "plot_robust_regression",
            "plot_svi_million_rows", "plot_linear_vae", "plot_vae_digits", "plot_imputation", "plot_synthetic_table",
        ),
    ),
    "propagation": Section(
        "Expectation propagation",
        "Moments of tilted distributions, matched until they stand still; beside Laplace's method and NUTS.",
        (
            "plot_clutter", "plot_three_approximations", "plot_logistic_regression_formula", "plot_gp_digits",
            "plot_model_choice_evidence", "plot_grouped_ep", "plot_posterior_pictures",
        ),
    ),
    "adversarial": Section(
        "Generative adversarial networks",
        "Two players and no likelihood: what the game finds, what it loses, and what its critic estimates.",
        ("plot_gan_ring_plain", "plot_gan_ring", "plot_ae_vae_gan", "plot_wgan"),
    ),
    "distances": Section(
        "Distances between distributions",
        "Which divergence sees what, how fast its estimates converge, and how to test that two laws are one.",
        (
            "plot_parallel_lines", "plot_three_densities", "plot_what_divergences_see", "plot_convergence_rates",
            "plot_two_sample_tests", "plot_transport_plan", "plot_wae_digits",
        ),
    ),
}  # fmt: skip

NOT_IN_THE_GALLERY = ("pictures",)  # makes the README's pictures
PLACE = {name: i for section in SECTIONS.values() for i, name in enumerate(section.scripts)}


def misplaced(folder: Path) -> list[str]:
    """Return what is wrong with ``SECTIONS`` for the scripts in a folder, one line a script; empty if nothing is."""
    placed = [name for section in SECTIONS.values() for name in section.scripts]
    there = {path.stem for path in folder.glob("*.py")} - set(NOT_IN_THE_GALLERY)
    return [
        *(f"{name}.py stands in no section: name it in docs/sections.py" for name in sorted(there - set(placed))),
        *(f"{name}.py stands in two sections" for name in sorted(set(placed)) if placed.count(name) > 1),
        *(f"{name}.py is named in docs/sections.py and is not there" for name in sorted(set(placed) - there)),
    ]


def to_pages(text: str) -> str:
    """Return a page of the manual whose links to scripts, files in the repository, lead to the gallery's pages.

    Example:
        >>> to_pages("see [clutter](../examples/plot_clutter.py)")
        'see [clutter](/gallery/propagation/plot_clutter.rst)'
    """
    folders = {name: folder for folder, section in SECTIONS.items() for name in section.scripts}

    def page(link: re.Match[str]) -> str:
        return f"](/gallery/{folders[link[1]]}/{link[1]}.rst)" if link[1] in folders else link[0]

    return re.sub(r"\]\(\.\./examples/(\w+)\.py\)", page, text)


class ByCourse:
    """Sort the scripts of a section as the course does; sphinx-gallery calls it by its name."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __call__(self, filename: str) -> int:
        """Return where a script stands in its section."""
        return PLACE[Path(filename).stem]


def arrange(examples: Path, target: Path) -> None:
    """Lay the scripts out below ``target``, a folder and a header for each section, as sphinx-gallery wants them.

    Raises:
        ValueError: where a script stands in no section or in two.
    """
    wrong = misplaced(examples)
    if wrong:
        raise ValueError("; ".join(wrong))
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    about = "Every script ends beside a known answer. Each can be read here, and downloaded below its text."
    (target / "GALLERY_HEADER.rst").write_text(_header("Gallery", about, "="), encoding="utf-8")
    for folder, section in SECTIONS.items():
        (target / folder).mkdir()
        header = _header(section.title, section.about, "-")
        (target / folder / "GALLERY_HEADER.rst").write_text(header, encoding="utf-8")
        for name in section.scripts:
            shutil.copy2(examples / f"{name}.py", target / folder)


def forget_other_form(gallery: Path, form: str) -> None:
    """Remove pages that were made in another form, short or as readers run them: they would count as done."""
    marker = gallery / "form.txt"
    if gallery.is_dir() and (not marker.is_file() or marker.read_text(encoding="utf-8") != form):
        shutil.rmtree(gallery)
    gallery.mkdir(exist_ok=True)
    marker.write_text(form, encoding="utf-8")


def _header(title: str, about: str, line: str) -> str:
    return f"{title}\n{line * len(title)}\n\n{about}\n"
