"""What all models with networks do alike: which rows train, when they stop, on how many threads."""

import inspect

import pandas as pd
import pytest
import torch

from probdl.models import (
    GMMN,
    VAE,
    WAEMMD,
    Autoencoder,
    Captioner,
    ImageClassifier,
    LanguageModel,
    LogisticRegression,
    Seq2Seq,
    SequenceClassifier,
    SequenceVAE,
)
from probdl.models import SequenceTagger as Tagger

N = 70
G = torch.Generator().manual_seed(1)
TABLE, IMAGES = torch.randn(N, 3, generator=G), torch.rand(N, 1, 8, 8, generator=G)
GUESSES = torch.randint(2, (N,), generator=G)  # nothing to learn: what is held out gets worse with each epoch
WORDS = ["".join("abc"[k] for k in row) for row in torch.randint(3, (N, 6), generator=G).tolist()]

MODELS = {
    "vae": (lambda **how: VAE(2, hidden=(64,), **how), (TABLE,)),
    "autoencoder": (lambda **how: Autoencoder(2, hidden=(64,), **how), (TABLE,)),
    "wae": (lambda **how: WAEMMD(2, hidden=(64,), start=0, **how), (TABLE,)),
    "gmmn": (lambda **how: GMMN(2, hidden=(64,), **how), (TABLE,)),
    "images": (lambda **how: ImageClassifier(**how), (IMAGES, GUESSES)),
    "classifier": (lambda **how: SequenceClassifier(32, **how), (WORDS, GUESSES)),
    "tagger": (lambda **how: Tagger(32, **how), (WORDS, WORDS[::-1])),
    "seq2seq": (lambda **how: Seq2Seq(32, **how), (WORDS, WORDS[::-1])),
    "captioner": (lambda **how: Captioner(32, **how), (IMAGES, WORDS)),
    "language": (lambda **how: LanguageModel(32, **how), (WORDS,)),
    "sequence vae": (lambda **how: SequenceVAE(2, hidden=32, **how), (WORDS,)),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_fit_stops_when_what_is_held_out_gets_no_better(name):
    make, data = MODELS[name]
    model = make(patience=2, learning_rate=0.02).fit(*data, epochs=100, progress=False)
    best = int(model.history.validation.idxmin())
    assert "stopped early" in model.message
    assert len(model.history) == best + 1 + 2 < 100


@pytest.mark.parametrize("name", MODELS)
def test_rows_of_ones_own_validate_and_all_others_train(name):
    make, data = MODELS[name]
    own = data if len(data) > 1 else data[0]
    model = make().fit(*data, epochs=2, batch_size=N - 1, validation=own, progress=False)
    assert model.history.step.tolist() == [2, 4]  # a batch of all rows but one, and one of one row
    assert model.history.validation.notna().all()
    alone = make().fit(*data, epochs=2, batch_size=N, validation=None, progress=False)
    assert alone.history.step.tolist() == [1, 2]
    assert "nothing was held out to stop early" in alone.message


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("decay", [True, False])
def test_the_learning_rate_falls_along_a_cosine_if_it_is_to(name, decay, monkeypatch):
    from probdl.models import network_model

    seen = {}
    monkeypatch.setattr(network_model, "descend", lambda *a, **how: seen.update(how) or real(*a, **how))
    make, data = MODELS[name]
    make(decay=decay, learning_rate=0.01).fit(*data, steps=1, progress=False)
    rate = seen["learning_rate"]
    assert (rate(0.5) if decay else rate) == pytest.approx(0.005 if decay else 0.01)


def real(*args, **how):
    from probdl.loops import descend

    return descend(*args, **how)


@pytest.mark.parametrize(("hidden", "threads"), [(8, 1), (64, 2)])
def test_small_steps_run_on_one_thread_and_larger_ones_on_all(hidden, threads):
    seen = set()

    class Watched(SequenceClassifier):
        def _loss(self, batch, generator):
            seen.add(torch.get_num_threads())
            return super()._loss(batch, generator)

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        Watched(hidden).fit(WORDS, GUESSES, steps=2, progress=False)
        assert seen == {threads}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    "model",
    [
        VAE,
        ImageClassifier,
        LogisticRegression,
        SequenceClassifier,
        Tagger,
        LanguageModel,
        Seq2Seq,
        Captioner,
        SequenceVAE,
    ],
)
def test_fit_has_the_arguments_of_the_house(model):
    names = list(inspect.signature(model.fit).parameters)
    for name in ("epochs", "steps", "batch_size", "validation", "device", "seed", "progress", "checkpoint", "resume"):
        assert name in names
    assert names[1] == "x"


@pytest.mark.parametrize("name", ["classifier", "tagger", "seq2seq", "language", "sequence vae"])
def test_a_table_is_no_list_of_sequences(name):
    make, data = MODELS[name]
    table = pd.DataFrame({"ab": ["a", "b"], "c": ["c", "a"]})  # its columns' names are tokens that fit saw
    with pytest.raises(TypeError, match="must be a list of sequences; got a DataFrame"):
        make().fit(table, *data[1:], steps=1, progress=False)
    model = make().fit(*data, steps=1, progress=False)
    with pytest.raises(TypeError, match="must be a list of sequences; got a DataFrame"):
        model.log_likelihood(table, *data[1:])
