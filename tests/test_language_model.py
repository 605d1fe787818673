"""LanguageModel against sources whose law is known, and against its own network step by step."""

import math
import os
import pickle
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from probdl import ConvergenceError
from probdl.models import LanguageModel, SequenceTagger
from probdl.models.sequences import language_model as module
from probdl.models.sequences.blocks import block_mean
from probdl.models.sequences.streams import OTHER, lanes, windows

LETTERS = "abcdefgh"


def transitions(seed=1):
    """A transition matrix of eight states, its rows from a Dirichlet distribution."""
    return torch.from_numpy(np.random.default_rng(seed).dirichlet(np.full(8, 0.5), 8))


def chain(P, n, seed):
    """A path of a Markov chain as a string, and log p of its steps."""
    rng, path, p = np.random.default_rng(seed), [0], P.numpy()
    for u in rng.random(n - 1):
        path.append(min(int(np.searchsorted(p[path[-1]].cumsum(), u)), 7))
    at = torch.tensor(path)
    return "".join(LETTERS[i] for i in path), P.log()[at[:-1], at[1:]]


def small(**settings):
    return LanguageModel(8, **{"window": 6, "dtype": torch.float64, **settings})


@pytest.fixture(scope="module")
def markov(device):
    text, _ = chain(transitions(), 100_000, seed=1)
    model = LanguageModel(32, window=32, learning_rate=1e-2)
    return model.fit(text, steps=400, batch_size=64, device=device, progress=False)


@pytest.fixture(scope="module")
def model(device):
    text, _ = chain(transitions(), 600, seed=3)
    return small().fit(text, steps=40, batch_size=4, device=device, progress=False)


# Against known laws


def test_the_nats_of_a_markov_source_are_within_a_hundredth_of_the_sources_own(markov):
    text, log_p = chain(transitions(), 20_000, seed=2)
    found = markov.token_log_likelihood(text)[0]
    assert found.shape == log_p.shape
    assert abs((found - log_p).mean()) < 0.01
    # Gibbs' inequality: no model beats the source but by the chance of this text, whose error is that of the mean.
    gap = log_p - found
    assert gap.mean() > -4 * gap.std() / len(gap) ** 0.5
    assert -log_p.mean() < math.log(8) - 0.5  # there was something to learn


def test_the_conditional_distribution_is_the_row_of_the_transition_matrix(markov):
    P = transitions()
    text = chain(P, 500, seed=5)[0]
    for a in range(8):
        before = text[: text.rindex(LETTERS[a]) + 1]  # a past that the source can have
        pairs = [before + letter for letter in LETTERS]
        log_p = torch.stack([row[-1] for row in markov.token_log_likelihood(pairs)])
        assert log_p.exp().sum() == pytest.approx(1, abs=1e-5)
        assert 0.5 * (log_p.exp() - P[a]).abs().sum() < 0.06  # total variation; the rows' own distances are near .6


def test_the_likelihoods_of_all_texts_of_a_length_sum_to_one(model):
    from itertools import product

    tokens = model.vocabulary.tokens
    texts = ["a" + "".join(rest) for rest in product(tokens, repeat=3)]
    assert model.log_likelihood(texts).value.exp().sum() == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_every_cell_learns_a_period_that_needs_memory(cell):
    """In "aab" repeated, what follows an a depends on what was before it: a chain of order 1 pays (2/3) log 2."""
    model = LanguageModel(16, cell=cell, layers=2, window=12, learning_rate=1e-2)
    model.fit("aab" * 200, steps=150, batch_size=8, progress=False)
    assert model.nats("aab" * 50).value < 0.05
    assert model.generate(9, "aab", temperature=0.1) == "aab" * 4


# Against its own network, step by step


def test_scores_are_those_of_the_network_one_token_at_a_time(model, monkeypatch):
    text = chain(transitions(), 61, seed=7)[0]
    index = torch.tensor(model.vocabulary.indices([text])[0], device=model._device)
    state, by_hand = None, []
    with torch.no_grad():
        for now, then in zip(index, index[1:]):
            h, state = model.reader.network.cell(model.reader.steps(now.reshape(1, 1)), state)
            by_hand.append(model.out(h)[0, 0].log_softmax(0)[then])
    expected = torch.stack(by_hand).cpu()
    torch.testing.assert_close(model.token_log_likelihood(text)[0], expected, rtol=0, atol=1e-12)
    monkeypatch.setattr(module, "SCORES", 7 * len(model.vocabulary))
    torch.testing.assert_close(model.token_log_likelihood(text)[0], expected, rtol=0, atol=1e-12)


def test_a_text_is_worth_the_same_alone_and_among_longer_ones(model):
    texts = [chain(transitions(), n, seed=n)[0] for n in (30, 1, 5, 80, 2)]
    together = model.log_likelihood(texts).value
    alone = torch.cat([model.log_likelihood(text).value for text in texts])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-10)
    assert together[1] == 0  # the first token is given


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_carried_states_make_windows_equal_to_the_whole_text(cell):
    """The training loss over windows of one stream is the negative log-likelihood of the text, not of pieces."""
    text = chain(transitions(), 100, seed=4)[0]
    model = small(cell=cell).fit(text, steps=1, batch_size=1, validation=None, progress=False)
    index = [torch.tensor(i) for i in model.vocabulary.indices([text])]
    rows = windows(index, 6, 1)
    model._carry(1)
    model.train()
    nats = sum(model._loss(tuple(t[r : r + 1] for t in rows), None) / rows.weight[r] for r in range(len(rows.tokens)))
    model.eval()
    assert nats.item() == pytest.approx(-model.log_likelihood(text).value.item(), rel=1e-10)
    model._carry(0)


def test_gradients_stay_within_a_window_and_states_do_not():
    text = chain(transitions(), 100, seed=4)[0]
    model = small().fit(text, steps=1, batch_size=1, validation=None, progress=False)
    rows = windows([torch.tensor(i) for i in model.vocabulary.indices([text])], 6, 1)
    first, second = (tuple(t[r : r + 1] for t in rows) for r in (0, 1))

    def gradient(state):
        model._carry(1)
        model.carried.copy_(state)
        model.zero_grad()
        model._loss(second, None).backward()
        return model.out.weight.grad.clone()

    model.train()
    model._carry(1)
    model._loss(first, None)
    carried = model.carried.clone()
    assert not carried.requires_grad
    after, anew = gradient(carried), gradient(torch.zeros_like(carried))
    assert not torch.allclose(after, anew)


@given(
    lengths=st.lists(st.integers(2, 60), min_size=1, max_size=6),
    window=st.integers(1, 9),
    most=st.integers(1, 5),
)
@settings(max_examples=60, deadline=None)
def test_each_step_of_each_text_is_a_target_once_and_streams_are_continuous(lengths, window, most):
    starts = np.cumsum([0, *lengths])
    texts = [torch.arange(a, b) for a, b in zip(starts, starts[1:])]  # a token is its own place
    streams = lanes(texts, window, most)
    rows = windows(texts, window, streams or 3)
    own = rows.targets != OTHER
    assert sorted(rows.targets[own].tolist()) == sorted(t for text in texts for t in text[1:].tolist())
    assert torch.equal(rows.tokens[own], rows.targets[own] - 1)
    assert rows.weight[0] * own.sum() == pytest.approx(len(own))
    if streams:
        assert len(own) % streams == 0
        assert torch.equal(rows.stream, torch.arange(streams).repeat(len(own) // streams))
        for r in (~rows.first).nonzero().flatten().tolist():
            before = rows.targets[r - streams]
            assert before[before != OTHER][-1] == rows.tokens[r, 0]
    else:
        assert rows.first.all()


def test_one_long_text_wastes_next_to_nothing():
    rows = windows([torch.arange(10_007)], 64, 32)
    assert (rows.targets == OTHER).float().mean() < 0.02


# Errors of means over dependent tokens


def test_the_standard_error_by_blocks_is_the_spread_of_the_mean_of_a_correlated_series():
    """An AR(1) series with φ = .6, whose mean has variance 4 times that of independent values."""
    rng, runs, n = np.random.default_rng(0), 400, 4000
    x = np.zeros((runs, n))
    for t in range(1, n):
        x[:, t] = 0.6 * x[:, t - 1] + rng.standard_normal(runs)
    found = [block_mean([torch.from_numpy(row)]) for row in x]
    spread = np.std([e.value for e in found])
    claimed = np.mean([e.stderr for e in found])
    # The spread of 400 runs is known to 3.5 %; blocks of 100 leave out about 1.5 % of the variance.
    assert 0.86 < claimed / spread < 1.12
    assert claimed > 1.7 * np.mean(x.std(1)) / n**0.5


def test_many_short_texts_are_a_block_each():
    rng = np.random.default_rng(0)
    x = [torch.from_numpy(rng.normal(rng.normal(), 1.0, size=int(k))) for k in rng.integers(5, 15, 200)]
    means = block_mean(x)
    sizes = np.array([len(v) for v in x])
    sums = np.array([v.sum() for v in x])
    expected = np.sqrt(200 / 199 * ((sums - sizes * means.value) ** 2).sum()) / sizes.sum()
    assert means.stderr == pytest.approx(expected)
    assert means.value == pytest.approx(sums.sum() / sizes.sum())


def test_a_single_block_has_no_error_and_says_why():
    found = block_mean([torch.arange(10.0)])
    assert found.stderr is None
    with pytest.raises(ValueError, match="one block, whose spread is unknown"):
        found.interval()


def test_nats_are_the_mean_and_perplexity_its_exponential(markov):
    text, _ = chain(transitions(), 5000, seed=9)
    nats, perplexity = markov.nats(text), markov.perplexity(text)
    assert nats.value == pytest.approx(-markov.log_likelihood(text).value.item() / 4999)
    assert perplexity.value == pytest.approx(math.exp(nats.value))
    assert perplexity.stderr == pytest.approx(math.exp(nats.value) * nats.stderr)
    assert nats.n == 4999
    assert nats.method == "block means"


# Texts it writes


def test_generated_text_has_the_transitions_of_the_model(markov):
    """A chi-squared test of the transitions out of the most frequent state; false alarms 1 in 1000."""
    from scipy.stats import chi2

    text = markov.generate(4000, "a", seed=4)
    log_p = markov.token_log_likelihood(text)[0].exp()
    counts = pd.crosstab(pd.Series(list(text[:-1])), pd.Series(list(text[1:])))
    state = counts.sum(axis=1).idxmax()
    expected = pd.Series(log_p).groupby([list(text[:-1]), list(text[1:])]).mean()[state]  # p(b | state) by the model
    seen = counts.loc[state][expected.index]
    kept = expected * seen.sum() > 5
    share = expected[kept] / expected[kept].sum()
    statistic = ((seen[kept] - share * seen[kept].sum()) ** 2 / (share * seen[kept].sum())).sum()
    assert statistic < chi2.ppf(0.999, kept.sum() - 1)


def test_generate_goes_on_from_the_prefix_by_the_seed_and_leaves_the_world_alone(model):
    state = torch.get_rng_state()
    a = model.generate(30, "ab", seed=1)
    assert a == model.generate(30, "ab", seed=1) != model.generate(30, "ab", seed=2)
    assert a[:2] == "ab"
    assert len(a) == 32
    assert len(model.generate(7)) == 7
    assert torch.equal(torch.get_rng_state(), state)


def test_a_low_temperature_writes_what_is_most_probable(model):
    text = model.generate(12, "a", temperature=1e-3)
    tokens = model.vocabulary.tokens
    for at in range(1, len(text)):
        nexts = torch.cat([row[-1:] for row in model.token_log_likelihood([text[:at] + t for t in tokens])])
        assert tokens[int(nexts.argmax())] == text[at]


def test_without_prefix_texts_begin_like_those_of_fit():
    model = small().fit([f"{a}xyz" for a in "ab" * 30], steps=2, validation=None, progress=False)
    first = [model.generate(1, seed=s) for s in range(60)]
    assert set(first) == {"a", "b"}


# What it takes and keeps


def test_auto_validation_is_the_last_tenth_of_the_text():
    text = chain(transitions(), 1000, seed=3)[0]
    how = {"steps": 30, "batch_size": 4, "progress": False}
    auto = small().fit(text, **how)
    by_hand = small().fit([text[:900]], validation=[text[899:]], **how)
    assert auto.history["validation"].tolist() == by_hand.history["validation"].tolist()
    assert torch.equal(auto.log_likelihood(text).value, by_hand.log_likelihood(text).value)


def test_the_last_validation_loss_is_the_nats_of_the_held_out_text(device):
    text = chain(transitions(), 1000, seed=3)[0]
    model = small().fit([text[:900]], validation=[text[899:]], steps=20, batch_size=1, device=device, progress=False)
    assert model.history["validation"].min() == pytest.approx(model.nats(text[899:]).value, rel=1e-9)


def test_sequences_of_words_numbers_and_arrays_are_taken():
    words = small(words=True).fit("to be or not to be " * 20, steps=3, progress=False)
    assert words.vocabulary.tokens == ("be", "not", "or", "to")
    assert len(words.generate(4, "to be").split()) == 6
    numbers = small().fit([np.arange(9) % 3, torch.arange(8) % 3, [0, 1, 2]], steps=3, progress=False)
    assert numbers.vocabulary.tokens == (0, 1, 2)
    assert len(numbers.generate(4, [0, 1])) == 6


def test_many_short_texts_are_rows_in_random_order():
    model = small().fit([f"{a}{b}a" for a in "abc" for b in "abcdefgh"], steps=5, batch_size=6, progress=False)
    assert model.history["step"].iloc[0] == 4  # 22 of 24 train, in batches of 6


def test_unknown_tokens_may_be_one_token():
    text = "ab" * 60 + "q"
    model = small(rare=2).fit(text, steps=3, progress=False)
    assert model.vocabulary.tokens == ("a", "b")
    assert model.log_likelihood("azb").value.item() == pytest.approx(model.log_likelihood("a?b").value.item())


def test_a_batch_larger_than_the_text_is_the_text():
    model = small().fit("abcab" * 5, epochs=2, batch_size=1000, validation=None, progress=False)
    assert model.log_likelihood("abc").value < 0
    assert len(model.history) == 2


@pytest.mark.parametrize("settings", [{}, {"cell": "gru", "layers": 2, "dropout": 0.3}], ids=str)
def test_an_interrupted_fit_resumes_bit_by_bit(settings, tmp_path):
    """The interruption is in the middle of a pass, where the carried states are not zero."""
    text, path = chain(transitions(), 700, seed=3)[0], tmp_path / "fit.safetensors"
    how = {"batch_size": 4, "progress": False}
    whole = small(decay=False, **settings).fit(text, steps=37, **how)
    small(decay=False, **settings).fit(text, steps=11, checkpoint=path, **how)
    resumed = small(decay=False, **settings).fit(text, steps=37, checkpoint=path, resume=True, **how)
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), resumed.state_dict().values()))
    with pytest.raises(ValueError, match="checkpoint .* is of another run"):
        small(decay=False, window=7).fit(text, steps=37, checkpoint=path, resume=True, **how)


def test_a_loss_that_is_not_finite_is_said_and_the_model_has_its_last_good_state():
    model = small(learning_rate=1e308, clip=None)
    with pytest.raises(ConvergenceError, match="not finite"):
        model.fit("abcab" * 40, steps=20, batch_size=4, progress=False)
    assert math.isfinite(model.nats("abc" * 20).value)
    assert model.carried.shape[2] == 0


def test_a_fit_that_is_refused_leaves_the_model_as_it_was():
    model = small().fit("abc" * 20, steps=2, progress=False)
    before = model.log_likelihood("abcab").value
    with pytest.raises(ValueError, match="validation has tokens"):
        model.fit("xyz" * 20, validation=["a"])
    assert torch.equal(model.log_likelihood("abcab").value, before)


def test_the_same_seed_gives_the_same_model():
    text = chain(transitions(), 300, seed=3)[0]
    a, b, c = (small(dropout=0.2).fit(text, steps=5, seed=s, progress=False) for s in (1, 1, 2))
    assert torch.equal(a.log_likelihood(text).value, b.log_likelihood(text).value)
    assert not torch.equal(a.log_likelihood(text).value, c.log_likelihood(text).value)


def test_a_saved_model_comes_back_bit_by_bit(model, tmp_path):
    model.save(tmp_path / "model")
    back = LanguageModel.load(tmp_path / "model", device=model._device)
    text = chain(transitions(), 100, seed=8)[0]
    assert torch.equal(back.log_likelihood(text).value, model.log_likelihood(text).value)
    assert back.generate(20, seed=3) == model.generate(20, seed=3)
    pd.testing.assert_frame_equal(back.history, model.history)
    assert back.message == model.message
    with pytest.raises(ValueError, match="must be a file of SequenceTagger.save; .* holds a LanguageModel"):
        SequenceTagger.load(tmp_path / "model")


class Trap:
    def __reduce__(self):
        return (pytest.fail, ("the file ran code",))


@pytest.mark.parametrize("dump", [pickle.dump, torch.save])
def test_a_file_that_tries_to_run_code_is_refused(dump, tmp_path):
    with open(tmp_path / "trap", "wb") as file:
        dump(Trap(), file)
    with pytest.raises(ValueError, match="pickles, are refused"):
        LanguageModel.load(tmp_path / "trap")


def test_mixed_precision_comes_close_to_the_same_loss():
    text = chain(transitions(), 4000, seed=3)[0]
    plain, mixed = (
        LanguageModel(16, window=16, learning_rate=1e-2).fit(text, steps=60, precision=p, progress=False)
        for p in (None, "bf16")
    )
    assert mixed.nats(text).value == pytest.approx(plain.nats(text).value, abs=0.02)


TWO = """
import sys, torch
from probdl.models import LanguageModel
text = "to be or not to be that is the question " * 20
for x in (text, text.split()):
    model = LanguageModel(8, window=6, dtype=torch.float64).fit(x, steps=60, batch_size=4, progress=False)
    model.save(f"{sys.argv[1]} {len(x)}")
"""


@pytest.mark.slow
def test_two_processes_carry_the_states_of_one(tmp_path):
    pytest.importorskip("lightning_fabric")
    (tmp_path / "two.py").write_text(TWO)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    for name, launcher in (("one", []), ("two", ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"])):
        command = [sys.executable, *launcher, str(tmp_path / "two.py"), str(tmp_path / name)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
    for size in (800, 200):
        one, two = (LanguageModel.load(tmp_path / f"{name} {size}") for name in ("one", "two"))
        for a, b in zip(one.state_dict().values(), two.state_dict().values()):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


# Bad input


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda m: m.nats("abz!"), ValueError, "x has tokens that fit did not see: '!', 'z'; .* sequence 0 at place 2"),
        (lambda m: m.log_likelihood(["ab", ""]), ValueError, r"x must hold no empty sequence; empty are \[1\]"),
        (lambda m: m.log_likelihood(""), ValueError, "x must hold no empty sequence"),
        (lambda m: m.log_likelihood([]), ValueError, "x is empty"),
        (lambda m: m.log_likelihood([["a", "b"]]), TypeError, "x must hold strings, as in fit; got lists of words"),
        (lambda m: m.log_likelihood(["a", None]), ValueError, r"missing \(None or NaN\) at \[1\]"),
        (lambda m: m.nats("a"), ValueError, "two tokens or more"),
        (lambda m: m.generate(0), ValueError, "n must be a whole number of at least 1; got 0"),
        (lambda m: m.generate(3, "z"), ValueError, "prefix has tokens that fit did not see: 'z'"),
        (lambda m: m.generate(3, 5), TypeError, r"prefix\[0\] must be"),
        (lambda m: m.generate(3, temperature=0.0), ValueError, "temperature must be a positive number; got 0.0"),
        (lambda m: m.generate(3, temperature=math.nan), ValueError, "temperature must be a positive number"),
    ],
)
def test_bad_input_to_a_fitted_model_is_named(model, call, error, says):
    with pytest.raises(error, match=says):
        call(model)


@pytest.mark.parametrize(
    ("x", "how", "error", "says"),
    [
        ("", {}, ValueError, "x must hold no empty sequence"),
        ("a", {}, ValueError, "x must hold a training text of two tokens or more"),
        ([], {}, ValueError, "x is empty"),
        (3, {}, TypeError, "x must be a list of sequences; got a int"),
        (["ab", ["a"]], {}, TypeError, r"x\[1\] must be a string, like the first sequence"),
        ([[1, None]], {}, ValueError, r"x\[0\] must have a token everywhere; missing \(None or NaN\) at \[1\]"),
        ([[1.5, 2.0]], {}, TypeError, r"x\[0\] must hold tokens.*got float"),
        ("ab" * 30, {"validation": "abab"}, ValueError, "validation must be 'auto'"),
        ("ab" * 30, {"validation": 1.5}, ValueError, "validation must be a fraction"),
        ("ab" * 30, {"validation": ["az"]}, ValueError, "validation has tokens that fit did not see: 'z'"),
        ("ab" * 30, {"validation": {}}, TypeError, "validation must be 'auto', a fraction, a list of texts"),
        ("ab" * 30, {"batch_size": 0}, ValueError, "batch_size must be a whole number"),
        ("ab" * 30, {"precision": "int3"}, ValueError, "precision must be"),
    ],
)
def test_bad_input_to_fit_is_named(x, how, error, says):
    with pytest.raises(error, match=says):
        small().fit(x, **{"epochs": 1, "progress": False, **how})


@pytest.mark.parametrize(
    "ask", [lambda m: m.nats("ab"), lambda m: m.generate(3), lambda m: m.perplexity("ab"), lambda m: m.save("nowhere")]
)
def test_before_fit_the_error_says_so(ask):
    with pytest.raises(ValueError, match="is not fitted yet"):
        ask(LanguageModel())


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"hidden": 0}, "hidden must be a whole number"),
        ({"cell": "transformer"}, "cell must be one of 'rnn', 'lstm', 'gru'"),
        ({"window": 0}, "window must be"),
        ({"layers": 1.5}, "layers must be"),
        ({"embedding": 0}, "embedding must be"),
        ({"rare": -1}, "rare must be"),
        ({"patience": 0}, "patience must be"),
        ({"dropout": 1.5}, "dropout"),
    ],
)
def test_settings_are_checked(settings, says):
    with pytest.raises(ValueError, match=says):
        LanguageModel(**settings)


def test_it_is_a_module_with_networks_only_after_fit(model):
    assert isinstance(model, nn.Module)
    assert not list(LanguageModel().parameters())
    assert not model.training


@pytest.mark.parametrize("one", [np.array, torch.tensor, list])
def test_one_text_of_whole_numbers_needs_no_list_around_it(one):
    text = [1, 2, 3, 7] * 40
    model = LanguageModel(4).fit(one(text), steps=3, progress=False)
    assert model.nats(one(text)).value == model.nats([text]).value
    assert model.log_likelihood([text, text]).value.shape == (2,)
