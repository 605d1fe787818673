"""What all models do alike that an algorithm fits to all rows at once: tables, files, bad data."""

import pandas as pd
import pytest
import torch

from probdl.models import KDE, MDS, PCA, SOM, GaussianMixture, KMeans

G = torch.Generator().manual_seed(0)
X = torch.randn(60, 4, generator=G, dtype=torch.float64)
IMAGES = torch.rand(60, 1, 4, 4, generator=G, dtype=torch.float64)
TABLE = pd.DataFrame(X.numpy(), columns=list("abcd")).assign(e=["u", "v", "w"] * 20, f=[1, 2] * 30)
ALL = {
    "Gaussian mixture": lambda **how: GaussianMixture(2, **how),
    "KDE": lambda **how: KDE(**how),
    "k-means": lambda **how: KMeans(3, **how),
    "SOM": lambda **how: SOM((3, 4), **how),
    "PCA": lambda **how: PCA(1, **how),
    "classical MDS": lambda **how: MDS(1, **how),
}
ANSWERS = ("predict", "encode", "reconstruct", "log_prob", "anomaly_score")


def answers(model, x):
    """What a model says of rows."""
    found = [getattr(model, name)(x) for name in ANSWERS if hasattr(model, name)]
    found += [model.sample(3)] if hasattr(model, "sample") else []
    assert found
    return [torch.tensor(f.select_dtypes("number").to_numpy()) if isinstance(f, pd.DataFrame) else f for f in found]


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("x", [X, X[:, :1], IMAGES, TABLE], ids=["rows", "numbers", "images", "table"])
def test_a_saved_model_says_the_same(name, x, device, tmp_path):
    x = x.drop(columns="e") if name == "KDE" and x is TABLE else x  # categories have no density
    model = ALL[name]().fit(x, device=device)
    model.save(tmp_path / "m.safetensors")
    again = type(model).load(tmp_path / "m.safetensors", device=device)
    assert again.message == model.message != "not fitted"
    assert all(torch.equal(a, b.to(a)) for a, b in zip(answers(model, x), answers(again, x), strict=True))


@pytest.mark.parametrize("name", ALL)
def test_the_same_seed_gives_the_same_model(name, device):
    before = torch.get_rng_state()
    first, again = (answers(ALL[name]().fit(X, seed=3, device=device), X) for _ in range(2))
    assert all(map(torch.equal, first, again))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", ALL)
def test_bad_data_leave_a_fitted_model_as_it_was(name, device):
    model = ALL[name]().fit(X, device=device)
    before = answers(model, X)
    for bad, match in (
        (X[:1], "at least 2 rows"),
        (X.masked_fill(X > 1.5, torch.inf), "finite"),
        (torch.ones(30, 3), "must vary"),
        (X * torch.tensor([1.0, 0.0, 1.0, 1.0]), r"constant in the training rows: columns \[1\]"),
        (X[:0], "empty"),
    ):
        with pytest.raises(ValueError, match=match):
            model.fit(bad, device=device)
        assert all(map(torch.equal, answers(model, X), before))
    with pytest.raises(ValueError, match="y must be None"):
        model.fit(X, X)
    with pytest.raises(TypeError, match="epochs"):
        model.fit(X, epochs=3)


@pytest.mark.parametrize("name", ALL)
def test_nothing_is_said_before_fit_or_of_rows_of_another_shape(name):
    for answer in ANSWERS:
        if hasattr(ALL[name](), answer):
            with pytest.raises(ValueError, match="not fitted yet"):
                getattr(ALL[name](), answer)(X)
            with pytest.raises(ValueError, match=r"x must have shape \(n, 4\)"):
                getattr(ALL[name]().fit(X), answer)(X[:, :3])
