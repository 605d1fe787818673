"""SequenceClassifier and SequenceTagger against laws that are known: Bayes classifiers, forward–backward."""

import math
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import norm
from statsmodels.stats.proportion import proportion_confint

from probdl import data
from probdl.models import LanguageModel, SequenceClassifier, SequenceTagger
from probdl.models.sequences.frames import Frames, are_tokens
from probdl.models.sequences.vocabulary import Vocabulary, padded

A = np.array([[0.9, 0.08, 0.02], [0.05, 0.9, 0.05], [0.02, 0.08, 0.9]])
B = np.array([[0.4, 0.3, 0.15, 0.05, 0.05, 0.05], [0.1, 0.15, 0.3, 0.3, 0.1, 0.05], [0.05, 0.05, 0.1, 0.15, 0.3, 0.35]])
SYMBOLS = "abcdef"


def hidden_markov(n, seed):
    """Strings of symbols of a hidden Markov chain that starts anywhere, and its states."""
    rng, texts, paths = np.random.default_rng(seed), [], []
    for length in rng.integers(20, 80, n):
        path = [rng.choice(3)]
        for _ in range(length - 1):
            path.append(rng.choice(3, p=A[path[-1]]))
        texts.append("".join(SYMBOLS[rng.choice(6, p=B[s])] for s in path))
        paths.append([int(s) for s in path])
    return texts, paths


def forward_backward(text):
    """p(state | all symbols) and p(state | symbols so far), (T, 3) each, by the textbook's recursions."""
    like = B[:, [SYMBOLS.index(c) for c in text]].T
    forward, backward = np.empty_like(like), np.ones_like(like)
    for t in range(len(like)):
        forward[t] = like[t] * (forward[t - 1] @ A if t else np.full(3, 1 / 3))
        forward[t] /= forward[t].sum()
    for t in reversed(range(len(like) - 1)):
        backward[t] = A @ (like[t + 1] * backward[t + 1])
        backward[t] /= backward[t].sum()
    both = forward * backward
    return both / both.sum(1, keepdims=True), forward


TEXTS, PATHS = hidden_markov(900, seed=1)
NEW_TEXTS, NEW_PATHS = hidden_markov(300, seed=2)
SMOOTHED, FILTERED = zip(*map(forward_backward, NEW_TEXTS))


def share_right(posteriors):
    return np.mean(np.concatenate([p.argmax(1) for p in posteriors]) == np.concatenate(NEW_PATHS))


@pytest.fixture(scope="module")
def both_ways(device):
    model = SequenceTagger(32, bidirectional=True, learning_rate=1e-2, decay=True)
    return model.fit(TEXTS, PATHS, epochs=12, device=device, progress=False)


@pytest.fixture(scope="module")
def tagger(device):
    model = SequenceTagger(8, bidirectional=True, cell="lstm", dtype=torch.float64)
    return model.fit(TEXTS[:80], PATHS[:80], epochs=2, device=device, progress=False)


def two_sources(n, seed):
    """Strings of one of two Markov chains over "ab" with the same frequencies, which chain, and its log odds."""
    rng, texts, labels, odds = np.random.default_rng(seed), [], [], []
    for length in rng.integers(5, 40, n):
        label, stay = (("sticky", 0.65), ("jumpy", 0.35))[rng.integers(2)]
        stays = rng.random(length - 1) < stay
        start = rng.integers(2)
        texts.append("".join("ab"[s] for s in (start + np.cumsum([0, *~stays])) % 2))
        labels.append(label)
        odds.append((2 * stays.sum() - (length - 1)) * math.log(0.65 / 0.35))
    return texts, labels, np.array(odds)


@pytest.fixture(scope="module")
def classifier(device):
    texts, labels, _ = two_sources(60, seed=1)
    model = SequenceClassifier(8, bidirectional=True, layers=2, dtype=torch.float64)
    return model.fit(texts, labels, epochs=2, device=device, progress=False)


# The tagger against forward–backward


def test_a_bidirectional_tagger_is_within_a_hundredth_of_forward_backward(both_ways):
    found = both_ways.accuracy(NEW_TEXTS, NEW_PATHS)
    assert found.value > share_right(SMOOTHED) - 0.01
    assert share_right(SMOOTHED) > share_right(FILTERED) + 0.05  # the future matters
    nats = -both_ways.log_likelihood(NEW_TEXTS, NEW_PATHS).value.sum() / sum(map(len, NEW_PATHS))
    best = -np.mean(np.log(np.concatenate(SMOOTHED)[np.arange(sum(map(len, NEW_PATHS))), np.concatenate(NEW_PATHS)]))
    assert best - 0.01 < nats < best + 0.03


def test_its_probabilities_are_those_of_forward_backward(both_ways):
    p = torch.cat(both_ways.predict_proba(NEW_TEXTS))
    exact = torch.from_numpy(np.concatenate(SMOOTHED))
    assert 0.5 * (p - exact).abs().sum(1).mean() < 0.06  # mean total variation


def test_in_one_direction_it_is_within_a_hundredth_of_the_filter_and_no_better(device):
    model = SequenceTagger(32, learning_rate=1e-2, decay=True)
    model.fit(TEXTS, PATHS, epochs=12, device=device, progress=False)
    found = model.accuracy(NEW_TEXTS, NEW_PATHS)
    assert abs(found.value - share_right(FILTERED)) < 0.01
    assert found.value < share_right(SMOOTHED) - 0.04


def test_the_accuracys_error_is_that_of_whole_sequences(both_ways):
    right = [(p.numpy() == z).astype(float) for p, z in zip(both_ways.predict(NEW_TEXTS), map(np.array, NEW_PATHS))]
    found, n = both_ways.accuracy(NEW_TEXTS, NEW_PATHS), sum(map(len, NEW_PATHS))
    residual = np.array([r.sum() - len(r) * found.value for r in right])
    assert found.value == pytest.approx(np.concatenate(right).mean())
    assert found.stderr == pytest.approx(np.sqrt((residual**2).sum() * 300 / 299) / n, rel=1e-6)
    assert found.stderr > 1.3 * np.sqrt(found.value * (1 - found.value) / n)  # neighbours err together


# The classifier against Bayes


def test_a_classifier_is_within_two_hundredths_of_the_likelihood_ratio(device):
    texts, labels, _ = two_sources(2500, seed=1)
    new, truth, odds = two_sources(1500, seed=2)
    model = SequenceClassifier(24, learning_rate=1e-2, decay=True)
    model.fit(texts, labels, epochs=10, device=device, progress=False)
    found = model.accuracy(new, truth)
    bayes = np.mean((odds > 0) == (np.array(truth) == "sticky"))
    assert 0.75 < bayes < 0.95
    assert found.value > bayes - 0.02
    log_loss = -model.log_likelihood(new, truth).value.mean().item()
    best = np.mean(np.log1p(np.exp(np.where(np.array(truth) == "sticky", -odds, odds))))
    assert best - 0.02 < log_loss < best + 0.04
    right = (model.predict(new) == np.array(truth)).sum()
    assert found.interval() == pytest.approx(proportion_confint(right, 1500, method="wilson"))


def test_frames_are_summed_up_as_the_normal_law_asks(device):
    """Frames x_t ~ N(±δ, I): the error of the best rule is Φ(−δ√(2T)) at length T."""
    rng, delta = np.random.default_rng(0), 0.35

    def draw(n):
        lengths, y = rng.integers(1, 12, n), rng.integers(2, size=n)
        return [rng.normal((2 * k - 1) * delta, 1.0, (t, 2)) * 50 + 7 for t, k in zip(lengths, y)], y, lengths

    x, y, _ = draw(2500)
    new, truth, lengths = draw(3000)
    model = SequenceClassifier(16, learning_rate=1e-2, decay=True).fit(x, y, epochs=8, device=device, progress=False)
    best = norm.cdf(delta * np.sqrt(2 * lengths)).mean()
    # Three standard errors of 3000 rows, .022, besides what the network lacks.
    assert best - 0.03 < model.accuracy(new, truth).value < best + 0.022


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_every_cell_remembers_the_first_token(cell):
    rng = np.random.default_rng(0)
    x = [[int(k), *map(int, rng.integers(2, 6, n))] for k, n in zip(rng.integers(2, size=300), rng.integers(0, 8, 300))]
    y = [row[0] == 1 for row in x]
    model = SequenceClassifier(16, cell=cell, learning_rate=1e-2).fit(x[:250], y[:250], epochs=30, progress=False)
    assert model.classes == (False, True)
    assert model.accuracy(x[250:], y[250:]).value == 1.0


# Images as frames


def test_each_image_of_a_sequence_gets_its_digit(device):
    images, digits = data.digits()
    keep = (digits < 4).nonzero().flatten()
    rng = np.random.default_rng(0)

    def draw(n, rows):
        return [rows[rng.integers(len(rows), size=int(t))] for t in rng.integers(2, 6, n)]

    train, held = draw(250, keep[:500]), draw(60, keep[500:])
    model = SequenceTagger(24, learning_rate=1e-2)
    model.fit([images[r] for r in train], [digits[r] for r in train], epochs=10, device=device, progress=False)
    assert model.accuracy([images[r] for r in held], [digits[r] for r in held]).value > 0.9
    assert [len(row) for row in model.predict([images[r] for r in held])] == [len(r) for r in held]


# Padding


def test_padding_changes_nothing(tagger, classifier):
    texts = ["abcdef", "a", "abcabcabcfff", "ba"]
    for together, alone in zip(tagger.predict_proba(texts), texts):
        torch.testing.assert_close(together, tagger.predict_proba([alone])[0], rtol=0, atol=1e-12)
    texts = ["ab", "a", "abbabbabababab"]
    alone = torch.cat([classifier.predict_proba([text]) for text in texts])
    torch.testing.assert_close(classifier.predict_proba(texts), alone, rtol=0, atol=1e-12)


def test_the_loss_is_the_mean_negative_log_likelihood_a_label(tagger, classifier):
    x, y = NEW_TEXTS[:50], NEW_PATHS[:50]
    rows, lengths, targets = (t.to(tagger._device) for t in tagger._pairs(x, y, ("x", "y")))
    weight = torch.full((50,), 50 / sum(map(len, y)), dtype=torch.float64, device=rows.device)
    loss, terms = tagger._loss((rows, lengths, targets, weight), None)
    assert loss.item() == pytest.approx(-tagger.log_likelihood(x, y).value.sum().item() / sum(map(len, y)), rel=1e-12)
    assert terms["accuracy"].item() == pytest.approx(float(tagger.accuracy(x, y)), rel=1e-6)
    dirty = rows.clone()
    dirty[torch.arange(rows.shape[1], device=rows.device) >= lengths[:, None]] = 3
    assert torch.equal(tagger._loss((dirty, lengths, targets, weight), None)[0], loss)


def test_the_log_likelihood_is_a_sum_over_steps(tagger):
    p = tagger.predict_proba(NEW_TEXTS[:20])
    by_hand = [sum(math.log(p_t[k]) for p_t, k in zip(row, path)) for row, path in zip(p, NEW_PATHS)]
    found = tagger.log_likelihood(NEW_TEXTS[:20], NEW_PATHS[:20])
    assert found.value.tolist() == pytest.approx(by_hand)
    assert found.stderr.abs().max() == 0


# Labels with holes


def test_steps_whose_label_is_missing_have_no_share(device):
    rng = np.random.default_rng(0)
    masked = [[-1 if rng.random() < 0.4 else s for s in path] for path in PATHS[:80]]
    model = SequenceTagger(8, missing=-1, dtype=torch.float64)
    model.fit(TEXTS[:80], masked, epochs=1, validation=None, device=device, progress=False)
    assert model.classes == (0, 1, 2)
    known = [[t for t, s in enumerate(path) if s != -1] for path in masked]
    p = model.predict_proba(TEXTS[:80])
    by_hand = [sum(math.log(row[t, path[t]]) for t in ts) for row, path, ts in zip(p, masked, known)]
    assert model.log_likelihood(TEXTS[:80], masked).value.tolist() == pytest.approx(by_hand)
    assert model.accuracy(TEXTS[:80], masked).n == sum(map(len, known))
    with pytest.raises(ValueError, match="y must have labels; every step is missing"):
        model.accuracy(["ab"], [[-1, -1]])


def test_a_perfect_tagger_is_not_certain():
    model = SequenceTagger(16, learning_rate=1e-2).fit(
        ["abc", "cab"] * 20, ["ABC", "CAB"] * 20, epochs=30, progress=False
    )
    found = model.accuracy(["abc"] * 10, ["ABC"] * 10)
    assert found.value == 1
    assert found.stderr > 0
    assert found.interval()[0] == pytest.approx(proportion_confint(10, 10, method="wilson")[0])


# What is kept


@pytest.mark.parametrize("make", [SequenceClassifier, SequenceTagger])
def test_an_interrupted_fit_resumes_bit_by_bit(make, tmp_path):
    texts, labels, _ = two_sources(60, seed=1)
    y = labels if make is SequenceClassifier else [list(text.upper()) for text in texts]
    path, how = tmp_path / "fit.safetensors", {"batch_size": 16, "progress": False}
    whole = make(8, layers=2, dropout=0.3).fit(texts, y, steps=20, **how)
    make(8, layers=2, dropout=0.3).fit(texts, y, steps=7, checkpoint=path, **how)
    resumed = make(8, layers=2, dropout=0.3).fit(texts, y, steps=20, checkpoint=path, resume=True, **how)
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), resumed.state_dict().values()))
    with pytest.raises(ValueError, match="checkpoint .* is of another run"):
        make(8, cell="rnn").fit(texts, y, steps=20, checkpoint=path, resume=True, **how)


@pytest.mark.parametrize("frames", ["tokens", "vectors", "images"])
def test_a_saved_model_comes_back_bit_by_bit(frames, tmp_path):
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 6, 30)
    x = {
        "tokens": [list(map(int, rng.integers(0, 5, t))) for t in lengths],
        "vectors": [rng.normal(size=(t, 3)) for t in lengths],
        "images": [rng.normal(size=(t, 1, 8, 8)) for t in lengths],
    }[frames]
    y = [["x", "y"][i % 2] for i in range(30)]
    model = SequenceClassifier(8, channels=(4, 4)).fit(x, y, epochs=1, progress=False)
    model.save(tmp_path / "model")
    back = SequenceClassifier.load(tmp_path / "model")
    assert torch.equal(back.predict_proba(x), model.predict_proba(x))
    assert back.classes == ("x", "y")
    pd.testing.assert_frame_equal(back.history, model.history)


def test_a_tagger_is_saved_with_its_missing_label_and_is_no_other_model(tmp_path):
    model = SequenceTagger(8, missing="?").fit(["ab", "ba"] * 5, [["A", "?"], ["B", "A"]] * 5, epochs=1, progress=False)
    model.save(tmp_path / "model")
    assert SequenceTagger.load(tmp_path / "model").missing == "?"
    for other in (SequenceClassifier, LanguageModel):
        with pytest.raises(ValueError, match=f"must be a file of {other.__name__}.save; .* holds a SequenceTagger"):
            other.load(tmp_path / "model")
    whole = (tmp_path / "model").read_bytes()
    (tmp_path / "model").write_bytes(whole[:-10])
    with pytest.raises(ValueError, match="model"):
        SequenceTagger.load(tmp_path / "model")
    assert (tmp_path / "model").read_bytes() == whole[:-10]


class Trap:
    def __reduce__(self):
        return (pytest.fail, ("the file ran code",))


@pytest.mark.parametrize("dump", [pickle.dump, torch.save])
def test_a_file_that_tries_to_run_code_is_refused(dump, tmp_path):
    with open(tmp_path / "trap", "wb") as file:
        dump(Trap(), file)
    with pytest.raises(ValueError, match="pickles, are refused"):
        SequenceTagger.load(tmp_path / "trap")


def test_the_same_seed_gives_the_same_and_leaves_the_world_alone():
    texts, labels, _ = two_sources(60, seed=1)
    state = torch.get_rng_state()
    a, b, c = (
        SequenceClassifier(8, dropout=0.2).fit(texts, labels, steps=5, seed=s, progress=False) for s in (1, 1, 2)
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(a.predict_proba(texts), b.predict_proba(texts))
    assert not torch.equal(a.predict_proba(texts), c.predict_proba(texts))


# What it takes


def test_sequences_come_as_strings_lists_arrays_series_and_frames():
    y = [0, 1] * 4
    many = [
        ["ab", "b"] * 4,
        pd.Series(["ab", "b"] * 4),
        [["a", "b"], ["b"]] * 4,
        [np.array([1, 2]), np.array([3])] * 4,
        torch.arange(16).reshape(8, 2),
        torch.randn(8, 5, 3),
        [pd.DataFrame({"u": [1.0, 2.5], "v": [0.0, 1.0]}), pd.DataFrame({"u": [3.0], "v": [2.0]})] * 4,
        np.random.default_rng(0).normal(size=(8, 3, 1, 6, 6)),
    ]
    for x in many:
        model = SequenceClassifier(4, channels=(2, 2)).fit(x, y, steps=1, progress=False)
        assert model.predict_proba(x).shape == (8, 2)
        torch.testing.assert_close(model.predict_proba(x).sum(1), torch.ones(8, dtype=torch.float64))


def test_a_vocabulary_reads_words_and_keeps_its_kind():
    words = Vocabulary.of(["to be", "or not"], words=True)
    assert words.tokens == ("be", "not", "or", "to")
    assert words.sequence([3, 0]) == "to be"
    assert Vocabulary.from_json(words.to_json()) == words
    assert Vocabulary.of(["aab"], rare=2).indices(["abc"]) == [[0, 1, 1]]
    rows, lengths = padded([torch.tensor([1, 2]), [3]])
    assert rows.tolist() == [[1, 2], [3, 0]]
    assert lengths.tolist() == [2, 1]


@pytest.mark.parametrize(
    ("x", "tokens"),
    [
        (["ab"], True),
        ([["to", "be"]], True),
        ([[1, 2]], True),
        (torch.zeros(2, 3, dtype=torch.int64), True),
        (torch.zeros(2, 3, 1), False),
        ([np.zeros((2, 1), dtype=int)], False),
        ([[[0.0, 1.0]]], False),
    ],
)
def test_tokens_and_frames_are_told_apart(x, tokens):
    assert are_tokens(x) is tokens


def test_unknown_tokens_may_be_one_token():
    model = SequenceClassifier(8, words=True, rare=2)
    model.fit(["good day", "bad day", "good one"] * 10 + ["odd"], [1, 0, 1] * 10 + [0], steps=3, progress=False)
    p = model.predict_proba(["good zebra", "good odd"])
    assert torch.equal(p[0], p[1])


def test_a_batch_larger_than_the_data_is_the_data():
    texts, labels, _ = two_sources(30, seed=1)
    model = SequenceClassifier(8).fit(texts, labels, epochs=2, batch_size=10_000, validation=None, progress=False)
    assert model.history["step"].tolist() == [1, 2]


def test_validation_of_ones_own_is_used():
    texts, labels, _ = two_sources(60, seed=1)
    model = SequenceClassifier(8).fit(
        texts[:40], labels[:40], epochs=3, validation=(texts[40:], labels[40:]), progress=False
    )
    assert model.history["validation"].min() == pytest.approx(
        -model.log_likelihood(texts[40:], labels[40:]).value.mean().item(), rel=1e-5
    )


# Bad input


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda m: m.predict(["abz"]), ValueError, "x has tokens that fit did not see: 'z'; .* sequence 0 at place 2"),
        (lambda m: m.predict(["ab", ""]), ValueError, r"x must hold no empty sequence; empty are \[1\]"),
        (lambda m: m.predict("ab"), TypeError, "x must be a list of sequences; got a str"),
        (lambda m: m.predict([]), ValueError, "x is empty"),
        (lambda m: m.predict([np.zeros((3, 2))]), TypeError, "x must hold sequences of tokens, as in fit"),
        (lambda m: m.predict([["a", "b"]]), TypeError, "x must hold strings, as in fit; got lists of words"),
        (lambda m: m.log_likelihood(["ab"], [[0]]), ValueError, r"y\[0\] must have a label for each step.*, 2; got 1"),
        (
            lambda m: m.log_likelihood(["ab"], [[0, 1], [0]]),
            ValueError,
            "y must have labels for each sequence, 1; got 2",
        ),
        (lambda m: m.log_likelihood(["ab"], [[0, 7]]), ValueError, r"y\[0\] has labels that fit did not see: 7"),
        (lambda m: m.log_likelihood(["ab"], [[0, None]]), ValueError, r"y\[0\] must have a label.*missing .* at \[1\]"),
        (lambda m: m.accuracy(["ab"], [[math.nan, 0.0]]), ValueError, r"y\[0\] must have a label everywhere"),
        (lambda m: m.accuracy(["ab"], [0]), TypeError, r"y\[0\] must be the labels of a sequence, one a step; got 0"),
        (lambda m: m.accuracy(["ab"], [["x", "y"]]), TypeError, r"y\[0\] must hold labels as in fit, whole numbers"),
    ],
)
def test_bad_input_to_a_fitted_tagger_is_named(tagger, call, error, says):
    with pytest.raises(error, match=says):
        call(tagger)


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda m: m.predict(["abz"]), ValueError, "x has tokens that fit did not see: 'z'"),
        (
            lambda m: m.log_likelihood(["ab"], ["sticky", "jumpy"]),
            ValueError,
            "y must have one label for each row, 1; got 2",
        ),
        (lambda m: m.accuracy(["ab"], ["other"]), ValueError, "y has labels that fit did not see: 'other'"),
        (lambda m: m.accuracy(["ab"], [None]), ValueError, r"1 of 1 are missing \(None or NaN\), at positions 0"),
        (lambda m: m.calibration(["ab"], ["sticky"], bins=0), ValueError, "bins must be"),
    ],
)
def test_bad_input_to_a_fitted_classifier_is_named(classifier, call, error, says):
    with pytest.raises(error, match=says):
        call(classifier)


FRAMES = [np.ones((3, 2)) * np.arange(1, 7).reshape(3, 2), np.zeros((2, 2)), np.eye(2)]


@pytest.mark.parametrize(
    ("x", "y", "how", "error", "says"),
    [
        (["ab", "b", "a"], [0, 1], {}, ValueError, "y must have one label for each row, 3; got 2"),
        (["ab", ""], [0, 1], {}, ValueError, r"x must hold no empty sequence; empty are \[1\]"),
        ([], [], {}, ValueError, "x is empty"),
        ("ab", [0, 1], {}, TypeError, "x must be a list of sequences; got a str"),
        (["ab", None], [0, 1], {}, ValueError, r"x must have a sequence everywhere; missing \(None or NaN\) at \[1\]"),
        (["ab", "b"], [0, None], {}, ValueError, "y must have a label everywhere; 1 of 2 are missing"),
        (["ab", "b"], [0.0, math.nan], {}, ValueError, "y must have a label everywhere"),
        (["ab", "b"], [1, 1], {}, ValueError, "y must hold at least two classes"),
        ([*FRAMES[:2], np.zeros((0, 2))], [0, 1, 1], {}, ValueError, r"x\[2\] is an empty sequence"),
        ([*FRAMES[:2], np.zeros((3, 4))], [0, 1, 1], {}, ValueError, r"x\[2\] must have shape \(T, 2\).*got \(3, 4\)"),
        ([FRAMES[0], FRAMES[1] * np.nan], [0, 1], {}, ValueError, r"x\[1\] must be finite; got 4 NaN"),
        (
            [np.zeros((3, 1, 8, 8)), np.ones((3, 1, 8, 7))],
            [0, 1],
            {},
            ValueError,
            r"x\[1\] must have shape \(T, 1, 8, 8\)",
        ),
        ([np.zeros((3, 1, 3, 3)), np.ones((3, 1, 3, 3))], [0, 1], {}, ValueError, "h and w of at least 4"),
        ([np.zeros(3), np.ones(2)], [0, 1], {}, ValueError, r"x\[0\] must be a sequence of vectors .* \(T, 1\)"),
        ([["a", 1], ["b"]], [0, 1], {}, TypeError, r"x\[0\] must hold tokens, all text or all whole numbers"),
        (["abc", "b"], [0, 1], {"max_length": 2}, ValueError, r"max_length=2 steps a sequence; .* first x\[0\] with 3"),
        (["ab", "b"] * 9, [0, 1] * 9, {"validation": (["az"], [0])}, ValueError, r"validation\[0\] has tokens .*'z'"),
        (["ab", "b"] * 9, [0, 1] * 9, {"validation": (["ab"], [5])}, ValueError, r"validation\[1\] has labels"),
        (["ab", "b"] * 9, [0, 1] * 9, {"validation": ["ab"]}, ValueError, r"a pair \(x, y\) of your own"),
        (["ab", "b"] * 9, [0, 1] * 9, {"batch_size": 0}, ValueError, "batch_size must be a whole number"),
    ],
)
def test_bad_input_to_fit_is_named(x, y, how, error, says):
    how = dict(how)
    settings = {"max_length": how.pop("max_length")} if "max_length" in how else {}
    with pytest.raises(error, match=says):
        SequenceClassifier(4, **settings).fit(x, y, **{"epochs": 1, "progress": False, **how})


def test_longer_sequences_than_declared_are_refused_at_prediction():
    model = SequenceClassifier(4, max_length=3).fit(["ab", "b"] * 4, [0, 1] * 4, epochs=1, progress=False)
    with pytest.raises(ValueError, match=r"at most max_length=3 .*; 1 have more, first x\[1\] with 4"):
        model.predict(["a", "abab"])


def test_frames_are_not_taken_for_tokens_nor_tokens_for_frames():
    model = SequenceClassifier(4).fit(FRAMES, [0, 1, 1], epochs=1, progress=False)
    with pytest.raises(TypeError, match="x must hold arrays of frames, as in fit; got sequences of tokens"):
        model.predict(["ab"])
    with pytest.raises(ValueError, match=r"x\[0\] must have shape \(T, 2\), as in fit; got \(2, 3\)"):
        model.predict([np.zeros((2, 3))])
    assert Frames.of(FRAMES).shape == (2,)


def test_a_fit_that_is_refused_leaves_the_model_as_it_was():
    model = SequenceClassifier(4).fit(["ab", "b"] * 4, [0, 1] * 4, epochs=1, progress=False)
    before = model.predict_proba(["ab"])
    for x, y, how in ((FRAMES, [0, None, 1], {}), (["xy", "y"] * 4, [0, 1] * 4, {"validation": (["ab"], [0])})):
        with pytest.raises(ValueError, match="must have a label|has tokens"):
            model.fit(x, y, **how)
    assert torch.equal(model.predict_proba(["ab"]), before)
    assert model.classes == (0, 1)


@pytest.mark.parametrize(
    "ask",
    [
        lambda m: m.predict(["ab"]),
        lambda m: m.predict_proba(["ab"]),
        lambda m: m.log_likelihood(["ab"], [0]),
        lambda m: m.accuracy(["ab"], [0]),
        lambda m: m.classes,
        lambda m: m.save("nowhere"),
    ],
)
@pytest.mark.parametrize("make", [SequenceClassifier, SequenceTagger])
def test_before_fit_the_error_says_so(make, ask):
    with pytest.raises(ValueError, match="is not fitted yet"):
        ask(make())


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"hidden": 0}, "hidden must be a whole number"),
        ({"cell": "transformer"}, "cell must be one of 'rnn', 'lstm', 'gru'"),
        ({"layers": 0}, "layers must be"),
        ({"max_length": 0}, "max_length must be"),
        ({"rare": -1}, "rare must be"),
        ({"patience": 0}, "patience must be"),
        ({"dropout": 1.0}, "dropout must be at least 0 and less than 1"),
        ({"standardise": "maybe"}, "standardise must be one of"),
        ({"channels": (0,)}, "channels"),
    ],
)
@pytest.mark.parametrize("make", [SequenceClassifier, SequenceTagger])
def test_settings_are_checked(make, settings, says):
    with pytest.raises(ValueError, match=says):
        make(**settings)
