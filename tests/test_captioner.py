"""Captioner: digits are captioned as their words, by a model whose captions have probabilities."""

import math
import pickle

import numpy as np
import pytest
import torch
from statsmodels.stats.proportion import proportion_confint
from torch import nn

from probdl import data
from probdl.models import Captioner, Seq2Seq

WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
IMAGES, LABELS = data.digits()
ORDER = torch.from_numpy(np.random.RandomState(0).permutation(len(IMAGES)))
TRAIN, HELD = ORDER[:1437], ORDER[1437:]


def words(rows):
    return [WORDS[k] for k in LABELS[rows]]


def small(**settings):
    return Captioner(8, **{"channels": (4, 4), **settings})


@pytest.fixture(scope="module")
def captioner(device):
    return Captioner(64).fit(IMAGES[TRAIN], words(TRAIN), epochs=30, device=device, progress=False)


def test_held_out_digits_are_captioned_as_their_words(captioner):
    share = captioner.accuracy(IMAGES[HELD], words(HELD))
    assert share.value >= 0.95
    right = sum(a == b for a, b in zip(captioner.predict(IMAGES[HELD]), words(HELD)))
    assert share.interval() == pytest.approx(proportion_confint(right, len(HELD), method="wilson"))


def test_the_caption_depends_on_the_image(captioner):
    """The nats of the true caption: far above those of a decoder that ignores the image, log(1/10)."""
    true = captioner.log_likelihood(IMAGES[HELD], words(HELD)).value
    wrong = captioner.log_likelihood(IMAGES[HELD], words(HELD.roll(1))).value
    assert true.mean() > -0.5
    assert wrong[LABELS[HELD] != LABELS[HELD.roll(1)]].mean() < -4


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_every_cell_learns_to_spell_what_it_sees(cell):
    rows = TRAIN[LABELS[TRAIN] < 3][:150]
    model = Captioner(32, cell=cell, layers=2, channels=(8, 8), learning_rate=3e-3)
    model.fit(IMAGES[rows], words(rows), epochs=60, progress=False)
    held = HELD[LABELS[HELD] < 3]
    assert model.accuracy(IMAGES[held], words(held)).value > 0.9


def test_a_caption_is_worth_the_same_alone_and_among_longer_ones(captioner):
    together = captioner.log_likelihood(IMAGES[HELD[:20]], words(HELD[:20])).value
    alone = torch.cat(
        [captioner.log_likelihood(IMAGES[k : k + 1], [WORDS[LABELS[k]]]).value for k in HELD[:20].tolist()]
    )
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


def test_candidates_have_the_likelihoods_that_they_say(captioner):
    table = captioner.candidates(IMAGES[HELD[:3]], beams=3)
    known = captioner.log_likelihood(IMAGES[HELD[table["row"]]], table["sequence"].tolist()).value
    np.testing.assert_allclose(table["log_likelihood"], known, atol=1e-4)
    assert table.loc[table["rank"] == 1, "sequence"].tolist() == captioner.predict(IMAGES[HELD[:3]], beams=3)


def test_draws_are_as_exact_as_the_probabilities_say(captioner):
    """Draws at temperature 1 equal the true word with its probability; 5 standard errors of 360 draws."""
    p = captioner.log_likelihood(IMAGES[HELD], words(HELD)).value.exp()
    drawn = captioner.sample(IMAGES[HELD], seed=1)
    share = np.mean([a == b for a, b in zip(drawn, words(HELD))])
    assert share == pytest.approx(p.mean().item(), abs=5 * math.sqrt((p * (1 - p)).sum().item()) / len(HELD))


def test_other_units_of_the_pixels_change_nothing():
    a, b = (
        small(dtype=torch.float64).fit(x, words(range(60)), epochs=2, progress=False)
        for x in (IMAGES[:60], 3 + 255 * IMAGES[:60])
    )
    known = a.log_likelihood(IMAGES[:60], words(range(60))).value
    torch.testing.assert_close(
        b.log_likelihood(3 + 255 * IMAGES[:60], words(range(60))).value, known, atol=1e-6, rtol=0
    )


def test_captions_may_be_lists_of_words():
    rows = TRAIN[:300]
    captions = [["an" if k in (8,) else "a", "odd" if k % 2 else "even", "digit"] for k in LABELS[rows].tolist()]
    model = Captioner(32, channels=(8, 16), learning_rate=3e-3)
    model.fit(IMAGES[rows], captions, epochs=150, validation=None, progress=False)
    assert model.predict(IMAGES[rows[:1]])[0][2] == "digit"
    assert model.accuracy(IMAGES[rows], captions).value > 0.9


def test_an_encoder_of_ones_own_reads_rows_of_any_shape():
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 8))
    model = Captioner(8, encoder=encoder).fit(IMAGES[:60, 0], words(range(60)), epochs=1, progress=False)
    assert len(model.predict(IMAGES[:5, 0])) == 5
    with pytest.raises(ValueError, match="encoder must map .*, the features of an image"):
        Captioner(9, encoder=encoder).fit(IMAGES[:60], words(range(60)), epochs=1, progress=False)


def test_an_interrupted_fit_resumes_bit_by_bit(tmp_path):
    path, how = tmp_path / "fit.safetensors", {"batch_size": 20, "progress": False}
    x, y = IMAGES[:100], words(range(100))
    whole = small().fit(x, y, steps=12, **how)
    small().fit(x, y, steps=5, checkpoint=path, **how)
    resumed = small().fit(x, y, steps=12, checkpoint=path, resume=True, **how)
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), resumed.state_dict().values()))


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_saved_captioner_comes_back_bit_by_bit(cell, tmp_path):
    model = small(cell=cell, layers=2).fit(IMAGES[:60], words(range(60)), epochs=1, progress=False)
    model.save(tmp_path / "model")
    back = Captioner.load(tmp_path / "model")
    assert torch.equal(*(m.log_likelihood(IMAGES[:60], words(range(60))).value for m in (back, model)))
    assert back.predict(IMAGES[60:80]) == model.predict(IMAGES[60:80])
    with pytest.raises(ValueError, match="must be a file of Seq2Seq.save; .* holds a Captioner"):
        Seq2Seq.load(tmp_path / "model")


class Trap:
    def __reduce__(self):
        return (pytest.fail, ("the file ran code",))


def test_a_file_that_tries_to_run_code_is_refused(tmp_path):
    (tmp_path / "trap").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ValueError, match="pickles, are refused"):
        Captioner.load(tmp_path / "trap")


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda c: c.predict(IMAGES[0]), ValueError, r"got \(1, 8, 8\). Pass a single row as x\[None\]"),
        (lambda c: c.predict(IMAGES.expand(-1, 3, 8, 8)), ValueError, r"x must have shape \(n, 1, 8, 8\)"),
        (lambda c: c.predict(IMAGES[:2] * math.nan), ValueError, "x must be finite; got 128 NaN"),
        (lambda c: c.predict([np.zeros((1, 8, 8)), np.zeros((1, 8, 9))]), ValueError, "rectangular array"),
        (lambda c: c.predict(IMAGES[:2], beams=-1), ValueError, "beams must be"),
        (lambda c: c.sample(IMAGES[:2], temperature=-1.0), ValueError, "temperature must be"),
        (
            lambda c: c.log_likelihood(IMAGES[:2], ["one", None]),
            ValueError,
            r"y must have a sequence everywhere.*\[1\]",
        ),
        (lambda c: c.log_likelihood(IMAGES[:2], ["one", "two", "one"]), ValueError, "same number of rows; got 2 and 3"),
        (lambda c: c.log_likelihood(IMAGES[:2], ["one", "quatre"]), ValueError, "did not see: 'a', 'q'"),
        (lambda c: c.log_likelihood(IMAGES[:1], ["sevenseven"]), ValueError, r"at most 5 tokens .*; y\[0\] has 10"),
        (lambda c: c.accuracy(IMAGES[:1], [["one"]]), TypeError, "y must hold strings, as in fit; got lists of words"),
    ],
)
def test_bad_input_to_a_fitted_captioner_is_named(captioner, call, error, says):
    with pytest.raises(error, match=says):
        call(captioner)


X, Y = IMAGES[:30], words(range(30))


@pytest.mark.parametrize(
    ("x", "y", "how", "error", "says"),
    [
        ([np.zeros((1, 8, 8)), np.zeros((1, 8, 7))], ["a", "b"], {}, ValueError, "x must be a rectangular array"),
        (X[:, 0], Y, {}, ValueError, r"images of shape \(n, c, h, w\).* Add the channel as x\[:, None\]"),
        (X.flatten(1), Y, {"standardise": "none"}, ValueError, r"got rows of shape \(64,\). Pass an encoder="),
        (X, Y[:29], {}, ValueError, "x and y must have the same number of rows; got 30 and 29"),
        (X, [None, *Y[1:]], {}, ValueError, r"y must have a sequence everywhere; missing \(None or NaN\) at \[0\]"),
        (X, ["", *Y[1:]], {}, ValueError, r"y must hold no empty sequence; empty are \[0\]"),
        (X, Y, {"max_length": 3}, ValueError, "y must have at most 3 tokens"),
        (X, Y, {"standardise": "much"}, ValueError, "standardise must be one of"),
        (X, Y, {"channels": (0,)}, ValueError, "channels must be positive"),
    ],
)
def test_bad_input_to_fit_is_named(x, y, how, error, says):
    with pytest.raises(error, match=says):
        Captioner(8, **how).fit(x, y, epochs=1, progress=False)


def test_before_fit_the_error_says_so():
    with pytest.raises(ValueError, match="is not fitted yet"):
        Captioner().predict(X)
