"""Seq2Seq: its probabilities sum to one, its search is exact when wide, and dates are translated."""

import itertools
import math
import pickle
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch
from house import ROOT
from scipy.stats import chisquare
from statsmodels.stats.proportion import proportion_confint

from probdl import viz
from probdl.models import Captioner, Seq2Seq
from probdl.models.sequences.decoder import Attention, Decoder, Given
from probdl.models.sequences.reader import CELLS
from probdl.models.sequences.search import beam_search, draw
from probdl.nn import seeded

LETTERS = 3
MOST = 4
ALL = [s for k in range(MOST + 1) for s in itertools.product(range(LETTERS), repeat=k)]  # every sequence there is


def tiny(cell="gru", memory=0, layers=2, scale=3.0):
    """A decoder with large weights, whose probabilities are uneven, and what it is given for four sequences."""
    g = torch.Generator().manual_seed(0)
    with seeded(1):
        decoder = Decoder(LETTERS, 6, cell=cell, layers=layers, memory=memory, dropout=0.0).double()
    with torch.no_grad():
        for p in decoder.parameters():
            p.mul_(scale)
    state = torch.randn(layers, 4, 6, generator=g, dtype=torch.float64)
    seen = torch.randn(4, 3, memory or 1, generator=g, dtype=torch.float64) if memory else None
    own = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 0, 0], [1, 1, 1]]).bool() if memory else None
    return decoder.requires_grad_(False), Given((state, state.flip(2)) if cell == "lstm" else state, seen, own)


def brute_force(decoder, given):
    """log p of every sequence, (4, all), the end being certain after the last token that is allowed."""
    columns = []
    for sequence in ALL:
        tokens = torch.tensor([[*sequence, *[0] * (MOST - len(sequence))]] * 4)
        columns.append(decoder.log_prob(given, tokens, torch.full((4,), len(sequence))))
    return torch.stack(columns, 1)


def reversal(n=6, letters="abc", seed=0, count=300):
    """Strings of two to n letters, and the same from behind."""
    g = np.random.default_rng(seed)
    source = ["".join(g.choice(list(letters), g.integers(2, n + 1))) for _ in range(count)]
    return source, [s[::-1] for s in source]


SOURCE, TARGET = reversal()


def small(**settings):
    return Seq2Seq(12, **{"dtype": torch.float64, **settings})


@pytest.fixture(scope="module")
def model(device):
    return small(learning_rate=1e-2).fit(SOURCE, TARGET, epochs=4, seed=1, device=device, progress=False)


# The decoder and its search


@pytest.mark.parametrize("memory", [0, 5], ids=["plain", "attention"])
@pytest.mark.parametrize("cell", CELLS)
def test_a_beam_as_wide_as_there_are_sequences_finds_them_all_in_order(cell, memory):
    decoder, given = tiny(cell, memory)
    log_p, order = brute_force(decoder, given).sort(1, descending=True)
    found = beam_search(decoder, given, len(ALL), MOST)
    torch.testing.assert_close(found.log_prob, log_p)
    for row in range(4):
        written = [tuple(t[:n].tolist()) for t, n in zip(found.tokens[row], found.lengths[row])]
        assert written == [ALL[k] for k in order[row]]


@pytest.mark.parametrize("beams", [1, 2, 3, 8, 30])
def test_a_narrow_beam_reports_the_true_probability_of_what_it_found(beams):
    decoder, given = tiny(memory=5)
    found = beam_search(decoder, given, beams, MOST)
    tokens = found.tokens.masked_fill(found.tokens == decoder.end, 0)
    for rank in range(beams):
        real = found.log_prob[:, rank] > -math.inf
        known = decoder.log_prob(given, tokens[:, rank], found.lengths[:, rank])
        torch.testing.assert_close(found.log_prob[real, rank], known[real])
    assert (found.log_prob.diff(dim=1) <= 0).all()


def test_one_beam_is_greedy_and_a_wider_one_finds_what_greed_misses():
    decoder, given = tiny("lstm")
    token, rest, greedy = torch.full((4, 1), decoder.end), given, []
    for _ in range(MOST):
        log_p, rest, _ = decoder(rest, token)
        token = log_p.argmax(-1)
        greedy.append(token)
    greedy, one = torch.cat(greedy, 1), beam_search(decoder, given, 1, MOST)
    for row in range(4):
        before_end = list(itertools.takewhile(lambda t: t != decoder.end, greedy[row].tolist()))
        assert one.tokens[row, 0, : one.lengths[row, 0]].tolist() == before_end
    best = brute_force(decoder, given).amax(1)
    wide = beam_search(decoder, given, 20, MOST).log_prob[:, 0]
    torch.testing.assert_close(wide, best)
    assert (one.log_prob[:, 0] < best - 1).any()


@pytest.mark.parametrize("cell", CELLS)
def test_a_search_writes_about_each_row_as_if_it_were_alone(cell):
    decoder, given = tiny(cell, memory=5)
    together = beam_search(decoder, given, 5, MOST)
    for row in range(4):
        alone = beam_search(decoder, given.rows(torch.tensor([row])), 5, MOST)
        torch.testing.assert_close(together.log_prob[row], alone.log_prob[0])


def test_the_probabilities_of_all_sequences_sum_to_one_when_all_must_end():
    decoder, given = tiny(memory=5, scale=1.0)
    longest = torch.tensor([len(s) == MOST for s in ALL])
    log_p = brute_force(decoder, given)
    tokens = torch.tensor([s for s in ALL if len(s) == MOST])
    some = given.rows(torch.zeros(len(tokens), dtype=torch.long))
    before = torch.nn.functional.pad(tokens, (1, 0), value=decoder.end)
    begun = decoder(some, before)[0][:, :-1].gather(2, tokens[..., None]).sum((1, 2))  # beginnings, whatever follows
    assert (log_p[0, ~longest].exp().sum() + begun.exp().sum()).item() == pytest.approx(1.0, rel=1e-12)


@pytest.mark.parametrize(("cell", "memory"), [("gru", 5), ("lstm", 0)])
def test_draws_have_the_frequencies_of_their_probabilities(cell, memory):
    """Chi-squared over the sequences that end within the length; false-alarm rate 1e-4."""
    decoder, given = tiny(cell, memory)
    n, p = 20_000, brute_force(decoder, given)[0].exp()
    found = draw(decoder, given.rows(torch.zeros(n, dtype=torch.long)), MOST, 1.0, torch.Generator().manual_seed(2))
    counts = Counter(tuple(t[:k].tolist()) for t, k in zip(found.tokens, found.lengths) if k < MOST)
    known = {s: n * p[i].item() for i, s in enumerate(ALL) if len(s) < MOST and n * p[i] > 10}
    rest = n - sum(known.values()), n - sum(counts[s] for s in known)
    observed, expected = [*(counts[s] for s in known), rest[1]], [*known.values(), rest[0]]
    assert chisquare(observed, expected).pvalue > 1e-4


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_first_tokens_have_the_frequencies_of_the_temperature(temperature):
    """Chi-squared, false-alarm rate 1e-4."""
    decoder, given = tiny(memory=5)
    n, some = 20_000, given.rows(torch.zeros(20_000, dtype=torch.long))
    log_p = decoder(given, torch.full((4, 1), decoder.end))[0][0, 0]
    known = n * (log_p / temperature).softmax(0)
    found = draw(decoder, some, 1, temperature, torch.Generator().manual_seed(3)).tokens[:, 0]
    assert chisquare(torch.bincount(found, minlength=LETTERS + 1), known).pvalue > 1e-4
    assert chisquare(torch.bincount(found, minlength=LETTERS + 1), n * log_p.exp()).pvalue < 1e-12


def test_a_low_temperature_draws_what_greed_writes_and_log_p_is_of_what_was_drawn():
    decoder, given = tiny(memory=5)
    cold = draw(decoder, given, MOST, 1e-6, torch.Generator().manual_seed(0))
    greedy = beam_search(decoder, given, 1, MOST)
    assert cold.lengths.tolist() == greedy.lengths[:, 0].tolist()
    warm = draw(decoder, given, MOST, 2.0, torch.Generator().manual_seed(0))
    ended = warm.lengths < MOST
    tokens = torch.nn.functional.pad(warm.tokens, (0, MOST - warm.tokens.shape[1]))
    known = decoder.log_prob(given, tokens.masked_fill(tokens == decoder.end, 0), warm.lengths)
    torch.testing.assert_close(warm.log_prob[ended], known[ended])


def test_attention_is_luongs_general_score_written_out():
    g = torch.Generator().manual_seed(0)
    with seeded(0):
        attention = Attention(4, 6).double()
    h, memory = (torch.randn(2, n, size, generator=g, dtype=torch.float64) for n, size in ((3, 4), (5, 6)))
    own = torch.arange(5) < torch.tensor([[5], [2]])
    new, weights = attention(h, memory, own)
    W, combine = attention.score.weight, attention.combine
    for n, t in itertools.product(range(2), range(3)):
        length = 5 if n == 0 else 2
        score = torch.stack([h[n, t] @ W @ memory[n, s] for s in range(length)])
        alpha = score.exp() / score.exp().sum()
        context = sum(alpha[s] * memory[n, s] for s in range(length))
        torch.testing.assert_close(weights[n, t, :length], alpha)
        torch.testing.assert_close(new[n, t], (combine.weight @ torch.cat([context, h[n, t]]) + combine.bias).tanh())
    assert (weights[1, :, 2:] == 0).all()


# Likelihoods


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"cell": "lstm", "layers": 2, "bidirectional": True},
        {"cell": "rnn", "attention": False, "bidirectional": True},
        {"cell": "lstm", "attention": False},
        {"layers": 2, "dropout": 0.5},
    ],
    ids=str,
)
def test_a_pair_is_worth_the_same_alone_and_among_longer_ones(settings):
    """Padding, in the source and in the target, changes nothing."""
    model = small(**settings).fit(SOURCE[:60], TARGET[:60], epochs=1, progress=False)
    together = model.log_likelihood(SOURCE[:30], TARGET[:30]).value
    alone = torch.cat([model.log_likelihood([s], [t]).value for s, t in zip(SOURCE[:30], TARGET[:30])])
    torch.testing.assert_close(together, alone)
    assert (together < 0).all()
    assert model.predict(SOURCE[:30]) == [model.predict([s])[0] for s in SOURCE[:30]]


def test_the_log_likelihood_is_the_sum_over_tokens_and_the_end(model):
    tokens = torch.tensor(model.vocabulary.indices(["ba"]))
    rows = tuple(t.to(model._device) for t in model._rows(["ab"], "x"))
    with torch.no_grad():
        given, total = model._read(rows), 0.0
        for before, after in (
            (model.decoder.end, tokens[0, 0]),
            (tokens[0, 0], tokens[0, 1]),
            (tokens[0, 1], model.decoder.end),
        ):
            log_p, given, _ = model.decoder(given, torch.tensor([[int(before)]], device=model._device))
            total += log_p[0, 0, int(after)].item()
    found = model.log_likelihood(["ab"], ["ba"])
    assert found.value.item() == pytest.approx(total, rel=1e-10)
    assert found.stderr.item() == 0


def test_the_training_loss_is_the_mean_negative_log_likelihood():
    model = small().fit(SOURCE, TARGET, steps=1, batch_size=300, validation=(SOURCE[:50], TARGET[:50]), progress=False)
    known = -model.log_likelihood(SOURCE[:50], TARGET[:50]).value.mean().item()
    assert model.history["validation"].iloc[-1] == pytest.approx(known, rel=1e-9)


def test_candidates_are_ranked_by_their_likelihood(model):
    table = model.candidates(["abc", "ba"], beams=4)
    assert table.groupby("row").size().tolist() == [4, 4]
    assert (table.groupby("row")["log_likelihood"].diff().dropna() <= 0).all()
    for row, source in enumerate(("abc", "ba")):
        lines = table[table["row"] == row]
        known = model.log_likelihood([source] * 4, lines["sequence"].tolist()).value
        np.testing.assert_allclose(lines["log_likelihood"], known, rtol=1e-9)
    assert table.loc[table["rank"] == 1, "sequence"].tolist() == model.predict(["abc", "ba"], beams=4)


def test_accuracy_counts_whole_sequences_with_wilsons_interval(model):
    right = sum(a == b for a, b in zip(model.predict(SOURCE[:100]), TARGET[:100]))
    share = model.accuracy(SOURCE[:100], TARGET[:100])
    assert share.value == right / 100
    assert share.interval() == pytest.approx(proportion_confint(right, 100, method="wilson"))


# What it learns


@pytest.mark.parametrize(("attention", "count"), [(True, 300), (False, 900)])
def test_strings_are_reversed(attention, count):
    """Without attention the whole string goes through one state, which takes more examples to learn."""
    source, target = reversal(count=count)
    model = Seq2Seq(48, attention=attention, bidirectional=True, learning_rate=1e-2, decay=True)
    model.fit(source, target, steps=count, progress=False)
    held = [s for s in reversal(seed=1)[0] if s not in set(source)]
    assert len(held) > 30
    assert model.accuracy(held, [s[::-1] for s in held]).value > 0.9


def test_attention_looks_where_the_answer_is():
    model = Seq2Seq(48, bidirectional=True, learning_rate=1e-2, decay=True)
    model.fit(SOURCE, TARGET, steps=300, progress=False)
    assert model.predict(["abcab"]) == ["bacba"]
    weights = model.alignment("abcab")
    torch.testing.assert_close(weights, model.alignment("abcab", "bacba"))
    assert weights.shape == (6, 5)
    torch.testing.assert_close(weights.sum(1), torch.ones(6, dtype=torch.float64), atol=1e-6, rtol=0)
    five = [s for s, t in zip(SOURCE, TARGET) if len(s) == 5][:40]
    looks = torch.stack([model.alignment(s, s[::-1])[:5].argmax(1) for s in five])
    assert (looks == torch.tensor([4, 3, 2, 1, 0])).double().mean() > 0.75  # .91 to .96 over three seeds
    picture = viz.alignment(weights, "abcab", "bacba").images[0]
    torch.testing.assert_close(torch.tensor(picture.get_array().data), weights)
    with torch.no_grad():
        swapped = model.log_likelihood(["abcab", "abcaa"], ["bacba", "bacba"]).value
    assert swapped[0] > swapped[1] + 1


@pytest.mark.slow
def test_dates_are_translated():
    """99 % exact on dates that occur in training in no form; at a true 99.5 %, 960 or more of 970 have P > .99."""
    import runpy

    found = runpy.run_path(str(ROOT / "examples" / "plot_dates_seq2seq.py"))
    assert all(share.value >= 0.99 for share in found["right"].values())


def test_words_go_in_and_out_as_lists():
    source = [["the", "cat"], ["a", "dog", "sleeps"], ["the", "dog"], ["a", "cat", "sleeps"]] * 10
    target = [["le", "chat"], ["un", "chien", "dort"], ["le", "chien"], ["un", "chat", "dort"]] * 10
    model = Seq2Seq(24, learning_rate=1e-2).fit(source, target, epochs=60, validation=None, progress=False)
    assert model.predict(source[:4]) == target[:4]
    assert model.sample(source[:1], temperature=0.1) == target[:1]


def test_the_same_seed_gives_the_same_and_sampling_leaves_the_world_alone(model):
    again = small(learning_rate=1e-2).fit(SOURCE, TARGET, epochs=4, seed=1, device=model._device, progress=False)
    assert torch.equal(again.log_likelihood(SOURCE, TARGET).value, model.log_likelihood(SOURCE, TARGET).value)
    state = torch.get_rng_state()
    a, b = model.sample(SOURCE[:40], seed=3), model.sample(SOURCE[:40], seed=3)
    assert a == b != model.sample(SOURCE[:40], seed=4)
    assert torch.equal(torch.get_rng_state(), state)


def test_what_is_written_ends_within_the_declared_length():
    model = small(max_length=7).fit(SOURCE[:50], TARGET[:50], steps=1, progress=False)
    assert model.most == 7
    assert all(len(text) <= 7 for text in [*model.predict(SOURCE[:50], beams=3), *model.sample(SOURCE[:50])])


def test_an_interrupted_fit_resumes_bit_by_bit(tmp_path):
    def new():
        return Seq2Seq(8, layers=2, dropout=0.3)

    path, how = tmp_path / "fit.safetensors", {"batch_size": 20, "progress": False}
    whole = new().fit(SOURCE, TARGET, steps=20, **how)
    new().fit(SOURCE, TARGET, steps=7, checkpoint=path, **how)
    resumed = new().fit(SOURCE, TARGET, steps=20, checkpoint=path, resume=True, **how)
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), resumed.state_dict().values()))
    with pytest.raises(ValueError, match="checkpoint .* is of another run"):
        Seq2Seq(8, cell="rnn").fit(SOURCE, TARGET, steps=20, checkpoint=path, resume=True, **how)


# Files


@pytest.mark.parametrize(
    "settings", [{"bidirectional": True, "cell": "lstm"}, {"attention": False, "layers": 2}], ids=str
)
def test_a_saved_model_comes_back_bit_by_bit(settings, tmp_path):
    model = Seq2Seq(8, **settings).fit(SOURCE[:60], TARGET[:60], epochs=1, progress=False)
    model.save(tmp_path / "model")
    back = Seq2Seq.load(tmp_path / "model")
    assert torch.equal(back.log_likelihood(SOURCE, TARGET).value, model.log_likelihood(SOURCE, TARGET).value)
    assert back.predict(SOURCE, beams=2) == model.predict(SOURCE, beams=2)
    pd.testing.assert_frame_equal(back.history, model.history)
    with pytest.raises(ValueError, match="must be a file of Captioner.save; .* holds a Seq2Seq"):
        Captioner.load(tmp_path / "model")


class Trap:
    def __reduce__(self):
        return (pytest.fail, ("the file ran code",))


@pytest.mark.parametrize("dump", [pickle.dump, torch.save])
def test_a_file_that_tries_to_run_code_is_refused(dump, tmp_path):
    with open(tmp_path / "trap", "wb") as file:
        dump(Trap(), file)
    with pytest.raises(ValueError, match="pickles, are refused"):
        Seq2Seq.load(tmp_path / "trap")


# Bad input


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (
            lambda m: m.predict(["abz"]),
            ValueError,
            "x has tokens that fit did not see: 'z'; .* sequence 0 at place 2",
        ),
        (lambda m: m.predict(["ab", ""]), ValueError, r"x must hold no empty sequence; empty are \[1\]"),
        (lambda m: m.predict("ab"), TypeError, "x must be a list of sequences; got a str"),
        (lambda m: m.predict([["a", "b"]]), TypeError, "x must hold strings, as in fit; got lists of words"),
        (lambda m: m.predict([]), ValueError, "x is empty"),
        (lambda m: m.predict(["ab"], beams=0), ValueError, "beams must be a whole number of at least 1; got 0"),
        (lambda m: m.candidates(["ab"], beams=1.5), ValueError, "beams must be"),
        (lambda m: m.sample(["ab"], temperature=0.0), ValueError, "temperature must be a positive number; got 0.0"),
        (lambda m: m.log_likelihood(["ab"], ["bq"]), ValueError, "y has tokens that fit did not see: 'q'"),
        (lambda m: m.log_likelihood(["ab"], ["ba", "b"]), ValueError, "x and y must have the same number .* 1 and 2"),
        (lambda m: m.log_likelihood(["ab"], ["a" * 9]), ValueError, r"at most 6 tokens .*; y\[0\] has 9"),
        (
            lambda m: m.accuracy(["ab"], [None]),
            ValueError,
            r"y must have a sequence everywhere; missing .* at \[0\]",
        ),
        (lambda m: m.alignment("az"), ValueError, "source has tokens that fit did not see"),
    ],
)
def test_bad_input_to_a_fitted_model_is_named(model, call, error, says):
    with pytest.raises(error, match=says):
        call(model)


@pytest.mark.parametrize(
    ("x", "y", "how", "error", "says"),
    [
        (SOURCE[:9], TARGET[:8], {}, ValueError, "x and y must have the same number of rows; got 9 and 8"),
        (["ab", ""], ["ba", "a"], {}, ValueError, r"x must hold no empty sequence; empty are \[1\]"),
        (["ab", "a"], ["ba", ""], {}, ValueError, r"y must hold no empty sequence; empty are \[1\]"),
        (["ab", "a"], ["ba", math.nan], {}, ValueError, "y must have a sequence everywhere"),
        (["ab", 3], ["ba", "a"], {}, TypeError, r"x\[1\] must be a string, like the first"),
        (SOURCE, TARGET, {"max_length": 4}, ValueError, r"y must have at most 4 tokens .*; y\["),
        (SOURCE, TARGET, {"validation": SOURCE}, ValueError, r"a pair \(x, y\) of your own, or None; got list"),
        (SOURCE, TARGET, {"validation": (["az"], ["za"])}, ValueError, r"validation\[0\] has tokens .*: 'z'"),
        (
            SOURCE,
            TARGET,
            {"validation": (["ab"], ["a" * 9])},
            ValueError,
            r"validation\[1\] must have at most 6 tokens",
        ),
        (SOURCE, TARGET, {"batch_size": 0}, ValueError, "batch_size must be a whole number"),
    ],
)
def test_bad_input_to_fit_is_named(x, y, how, error, says):
    settings = {"max_length": how.pop("max_length")} if "max_length" in how else {}
    with pytest.raises(error, match=says):
        small(**settings).fit(x, y, **{"epochs": 1, "progress": False, **how})


@pytest.mark.parametrize(
    "ask",
    [
        lambda m: m.predict(["ab"]),
        lambda m: m.candidates(["ab"]),
        lambda m: m.sample(["ab"]),
        lambda m: m.log_likelihood(["ab"], ["ba"]),
        lambda m: m.accuracy(["ab"], ["ba"]),
        lambda m: m.alignment("ab"),
        lambda m: m.save("nowhere"),
    ],
)
def test_before_fit_the_error_says_so(ask):
    with pytest.raises(ValueError, match="is not fitted yet"):
        ask(Seq2Seq())


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"hidden": 0}, "hidden must be a whole number"),
        ({"cell": "transformer"}, "cell must be one of 'rnn', 'lstm', 'gru'"),
        ({"layers": 0}, "layers must be"),
        ({"max_length": 0}, "max_length must be"),
        ({"rare": -1}, "rare must be"),
        ({"dropout": 1.0}, "dropout must be at least 0 and less than 1; got 1.0"),
        ({"learning_rate": -1.0}, "learning_rate must be positive"),
        ({"clip": 0.0}, "clip must be a positive number or None"),
        ({"patience": 0}, "patience must be"),
    ],
)
def test_settings_are_checked(settings, says):
    with pytest.raises(ValueError, match=says):
        Seq2Seq(**settings).fit(SOURCE[:9], TARGET[:9], steps=1, progress=False)


def test_without_attention_there_is_no_alignment():
    model = small(attention=False).fit(SOURCE[:30], TARGET[:30], steps=1, progress=False)
    with pytest.raises(ValueError, match="alignment needs attention"):
        model.alignment("ab")


def test_unknown_tokens_may_be_one_token():
    source, target = [*SOURCE[:60], "abx"], [*TARGET[:60], "yba"]
    model = small(rare=2).fit(source, target, steps=1, progress=False)
    assert len(model.predict(["zzz", "ab"])) == 2
    assert model.log_likelihood(["ab"], ["qa"]).value < 0


def test_strings_may_be_read_as_words():
    source, target = ["the cat", "a dog"] * 15, ["le chat", "un chien"] * 15
    model = Seq2Seq(16, words=True, learning_rate=1e-2).fit(source, target, epochs=60, validation=None, progress=False)
    assert model.vocabulary.tokens == ("chat", "chien", "le", "un")
    assert model.predict(["a dog"]) == ["un chien"]


def test_a_batch_larger_than_the_data_is_the_data():
    model = small().fit(SOURCE[:30], TARGET[:30], epochs=2, batch_size=10_000, validation=None, progress=False)
    assert model.history["step"].tolist() == [1, 2]
