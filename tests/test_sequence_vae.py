"""The variational autoencoder of sequences: against laws whose likelihood is known, with padding that never counts."""

import itertools
import math
import random

import pytest
import torch

from probdl import ConvergenceWarning
from probdl.models import VAE, SequenceVAE
from probdl.models.sequences.heads import FrameHead, TokenHead
from probdl.models.sequences.rows import SequenceForm
from probdl.nn import seeded

SOURCES = [{"a": 0.6, "b": 0.3, "c": 0.1}, {"a": 0.1, "b": 0.1, "c": 0.8}]
WAVE = 2 * torch.sin(torch.arange(6) / 2).double()


def letters(n, seed):
    """Letters of one of two sources, 4 to 8 of them, and which source it was."""
    rng = random.Random(seed)
    which = [rng.randrange(2) for _ in range(n)]
    return ["".join(rng.choices("abc", [*SOURCES[k].values()], k=rng.randint(4, 8))) for k in which], which


def exact_nats(texts):
    """The mean log-likelihood of letters under the law that made them, and under one source that mixes both."""
    of_source = torch.tensor([[sum(math.log(p[c]) for c in x) for p in SOURCES] for x in texts])
    mixed = {c: (SOURCES[0][c] + SOURCES[1][c]) / 2 for c in "abc"}
    known = of_source.logsumexp(1) - math.log(2) - math.log(5)
    blind = torch.tensor([sum(math.log(mixed[c]) for c in x) - math.log(5) for x in texts])
    return known.mean().item(), blind.mean().item()


def waves(n, seed):
    """A wave of random height seen with noise of .5: normal, with one direction that varies."""
    g = torch.Generator().manual_seed(seed)
    z = torch.randn(n, 1, generator=g, dtype=torch.float64)
    return (z * WAVE + 0.5 * torch.randn(n, 6, generator=g, dtype=torch.float64))[..., None]


@pytest.fixture(scope="module")
def spelling(device):
    model = SequenceVAE(1, hidden=24, learning_rate=1e-2)
    return model.fit(letters(1500, 0)[0], steps=600, device=device, progress=False)


@pytest.fixture(scope="module")
def swinging(device):
    return SequenceVAE(1, hidden=16).fit(list(waves(1500, 0)), steps=900, device=device, progress=False)


def test_letters_of_two_sources_are_as_probable_as_under_the_law_that_made_them(spelling):
    texts, which = letters(500, 1)
    known, blind = exact_nats(texts)
    reached = spelling.log_likelihood(texts, draws=50).value.mean().item()
    assert known - 0.12 < reached < known + 0.03  # ± .03 is what 500 held-out texts allow beyond the law itself
    assert reached > blind + 0.5
    z = spelling.encode(texts)[:, 0]
    assert abs(torch.corrcoef(torch.stack([z, torch.tensor(which).to(z)]))[0, 1]) > 0.8


def test_waves_are_as_probable_as_under_the_normal_law_that_made_them(swinging):
    x = waves(400, 1)
    law = torch.distributions.MultivariateNormal(
        torch.zeros(6).double(), WAVE[:, None] * WAVE + 0.25 * torch.eye(6).double()
    )
    known = law.log_prob(x[..., 0]).mean().item()
    assert known - 0.15 < swinging.log_likelihood(list(x)).value.mean().item() < known + 0.02
    sigma = swinging.decoder.frames.variance.sqrt() * swinging.units.scale
    assert sigma.item() == pytest.approx(0.5, rel=0.05)


def test_the_bound_is_below_the_likelihood(swinging):
    x = list(waves(200, 2))
    bound, likelihood = swinging.elbo(x, draws=50), swinging.log_likelihood(x, draws=50)
    assert bound.value.mean() < likelihood.value.mean()
    assert bound.value.shape == likelihood.stderr.shape == (200,)
    assert bound.target == likelihood.target == "lower bound"


def head_of(kind):
    with seeded(0):
        if kind == "tokens":
            return TokenHead(3, 2, 8, cell="lstm", layers=2, dropout=0.3, word_dropout=0.4, most=5).double()
        return FrameHead(2, 8, 3, cell="gru", layers=1, most=5).double()


def rows_of(kind, lengths):
    g = torch.Generator().manual_seed(3)
    form = SequenceForm.of_sequences(["abc", "cab"] if kind == "tokens" else [torch.zeros(3, 3)], max_length=5)
    if kind == "tokens":
        return form.check(["".join("abc"[i] for i in torch.randint(3, (n,), generator=g).tolist()) for n in lengths])
    return form.check([torch.randn(n, 3, generator=g, dtype=torch.float64) for n in lengths])


@pytest.mark.parametrize("kind", ["tokens", "frames"])
def test_sequences_of_different_lengths_are_scored_as_each_alone(kind):
    head, u = head_of(kind).eval(), rows_of(kind, [1, 5, 3])
    z = torch.randn(3, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    together = head.log_prob(u, z)
    alone = torch.cat([head.log_prob(u[i : i + 1], z[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)


def test_codes_of_sequences_of_different_lengths_are_those_of_each_alone(spelling, swinging):
    texts, x = ["abcabcab", "c", "bb"], [row[: 6 - 2 * i] for i, row in enumerate(waves(3, 8))]
    for model, rows in ((spelling, texts), (swinging, x)):
        together = model.encode(rows)
        torch.testing.assert_close(together, torch.cat([model.encode([row]) for row in rows]), rtol=1e-5, atol=1e-5)
        assert together.std() > 0.05
        u = model._inward(rows[1:2])  # padded, which changes nothing
        with torch.no_grad():
            torch.testing.assert_close(model.encoder.network(u), model.encoder.network(u[:, : len(rows[1])]))


def test_a_fit_that_is_resumed_ends_with_the_same_bits(device, tmp_path):
    texts, path = letters(60, 0)[0], tmp_path / "state"
    how = {"device": device, "progress": False, "validation": None}
    whole, parts = (SequenceVAE(2, hidden=8, kl_warm_up=15, decay=False) for _ in range(2))
    whole.fit(texts, epochs=20, **how)
    parts.fit(texts, epochs=9, checkpoint=path, **how)
    parts.fit(texts, epochs=20, checkpoint=path, resume=True, **how)
    assert int(parts.bound.taken) == 20
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), parts.state_dict().values()))


@pytest.mark.parametrize("kind", ["tokens", "frames"])
def test_the_code_reaches_every_step_also_when_the_first_state_forgets_it(kind):
    head, u = head_of(kind).eval(), rows_of(kind, [5, 5])
    start = head.start if kind == "tokens" else head.frames.network.start
    torch.nn.init.zeros_(start.map.weight)
    z = torch.tensor([[1.0, -1.0]]).double().expand(2, 2)
    if kind == "tokens":
        assert (head.log_prob(u, z) - head.log_prob(u, -z)).abs().min() > 1e-3
    else:
        assert (head.frames.network(z) - head.frames.network(-z)).abs().amin((0, 2)).min() > 1e-4


def test_the_scale_of_frames_is_the_mean_squared_residual_of_the_training_rows(device):
    x = list(waves(50, 0))
    model = SequenceVAE(1, hidden=8, learning_rate=0.02, decay=False, dtype=torch.float64)
    model.fit(x, steps=25, validation=None, device=device, progress=False)
    u = model._inward(x)
    with torch.no_grad():
        q, noise = model.encoder(u), torch.randn(400, 50, 1, generator=torch.Generator().manual_seed(1)).to(u)
        z = q.mean + q.stddev * noise
        residuals = u - model.decoder.frames.network(z.flatten(0, 1)).unflatten(0, (400, 50))
    assert model.decoder.frames.variance.item() == pytest.approx(residuals.square().mean().item(), rel=0.01)


@pytest.mark.parametrize("kind", ["tokens", "frames"])
def test_draws_have_the_probabilities_of_the_head(kind):
    head = head_of(kind).eval()
    z, noise = torch.tensor([[0.5, -1.0]]).double().expand(4000, -1), torch.Generator().manual_seed(0)
    drawn = head.draw(z, noise)
    if kind == "tokens":
        strings = ["".join(s) for k in range(1, 3) for s in itertools.product("abc", repeat=k)]
        u = SequenceForm.of_sequences(["abc"], max_length=5).check(strings)
        p = head.log_prob(u, z[: len(u)]).exp()
        found = (drawn[:, None] == u).all(2).double().mean(0)
    else:
        p = head.lengths(z[:1]).softmax(1)[0]
        found = torch.bincount((~drawn[..., 0].isnan()).sum(1) - 1, minlength=5) / 4000
        means = head.frames.network(z[:1])[0]
        assert (drawn[:, 0].mean(0) - means[0]).abs().max() < 5 * head.frames.variance.sqrt() / 4000**0.5
    # 12 or 5 shares of 4000 draws: P(any off by 4.5 standard errors) < 1e-4.
    assert ((found - p).abs() < 4.5 * (p * (1 - p) / 4000).sqrt() + 1e-9).all()
    assert found.std() > 0


def test_word_dropout_hides_tokens_in_training_only():
    head, u = head_of("tokens"), rows_of("tokens", [5, 4, 5])
    head.decoder.reader.drop.p = head.decoder.reader.network.cell.dropout = 0.0
    z = torch.zeros(3, 2).double()
    assert not torch.equal(head.train().log_prob(u, z), head.log_prob(u, z))
    assert torch.equal(head.eval().log_prob(u, z), head.log_prob(u, z))
    seen = head.decoder.log_prob(head._given(z), u.clamp(min=0), torch.tensor([5, 4, 5]), torch.ones(3, 5).bool())
    first = head.decoder(head._given(z), torch.full((3, 6), head.decoder.end))[0]
    expected = [first[i, range(n + 1), [*u[i, :n].tolist(), head.decoder.end]].sum() for i, n in enumerate([5, 4, 5])]
    torch.testing.assert_close(seen, torch.stack(expected))


def test_the_kl_warms_up_in_training_and_validation_is_the_bound(device):
    texts = letters(60, 0)[0]
    model = SequenceVAE(2, hidden=8, kl_warm_up=4, dtype=torch.float64)
    model.fit(texts, steps=1, batch_size=54, device=device, progress=False)
    row = model.history.iloc[0]
    assert row.loss == pytest.approx(row.reconstruction + row.kl / 4)
    full = SequenceVAE(2, hidden=8, dtype=torch.float64)
    full.fit(texts, steps=1, batch_size=54, device=device, progress=False)
    whole = full.history.iloc[0]
    assert whole.loss == pytest.approx(whole.reconstruction + whole.kl)
    assert row.validation > row.loss + 0.5 * row.kl  # with the whole KL


def test_a_decoder_that_does_without_the_code_is_reported(device):
    texts = letters(100, 0)[0]
    with pytest.warns(ConvergenceWarning, match=r"Posterior collapse: 0 of 2 latent dimensions are active"):
        SequenceVAE(2, hidden=8, word_dropout=0.0, beta=50.0).fit(texts, steps=150, device=device, progress=False)
    free = SequenceVAE(2, hidden=8, free_bits=3.0)
    free.fit(texts, steps=150, validation=None, device=device, progress=False)
    assert "2 of 2 latent dimensions active" in free.message


def test_likelihoods_are_in_the_units_of_the_data(device):
    x = waves(60, 0)
    x = [row[: 3 + i % 4] for i, row in enumerate(x)]
    one, ten = (
        SequenceVAE(1, hidden=8, dtype=torch.float64).fit(
            [c * row for row in x], steps=20, device=device, progress=False
        )
        for c in (1, 10)
    )
    a, b = (m.log_likelihood([c * row for row in x[:4]]).value for m, c in ((one, 1), (ten, 10)))
    torch.testing.assert_close(a - b, torch.tensor([3.0, 4, 5, 6]).double() * math.log(10), rtol=0, atol=1e-8)


def test_sequences_come_back_as_they_were(spelling, swinging):
    texts = letters(20, 5)[0]
    assert all(isinstance(s, str) and set(s) <= set("abc") for s in spelling.sample(20) + spelling.reconstruct(texts))
    assert len({*spelling.sample(50)}) > 25
    x = [row[: 2 + i % 5] for i, row in enumerate(waves(12, 3))]
    back = swinging.reconstruct(x)
    assert [len(b) for b in back] == [len(row) for row in x]
    missed = torch.cat([(b - row).square() for b, row in zip(back, x)]).mean()
    assert missed < 0.5  # the noise has .25, the waves up to 4.25
    path = swinging.between(waves(2, 4)[0], waves(2, 4)[1], steps=3)
    assert len(path) == 3
    torch.testing.assert_close(path[0], swinging.reconstruct(waves(2, 4))[0], rtol=1e-4, atol=1e-4)


def test_lists_of_tokens_and_words_work_too(device):
    numbers = SequenceVAE(1, hidden=8).fit([[1, 2], [3, 1, 2]] * 20, steps=5, device=device, progress=False)
    assert all(set(s) <= {1, 2, 3} for s in numbers.sample(5))
    words = SequenceVAE(1, hidden=8, words=True).fit(["to be", "or not"] * 20, steps=5, device=device, progress=False)
    assert set(" ".join(words.sample(9)).split()) <= {"to", "be", "or", "not"}


@pytest.mark.parametrize("kind", ["spelling", "swinging"])
def test_a_saved_model_is_the_same(kind, request, tmp_path):
    model = request.getfixturevalue(kind)
    x = letters(9, 7)[0] if kind == "spelling" else list(waves(9, 7))
    model.save(tmp_path / "m.safetensors")
    again = SequenceVAE.load(tmp_path / "m.safetensors", device=model._device)
    assert torch.equal(again.encode(x), model.encode(x))
    assert torch.equal(again.log_likelihood(x).value, model.log_likelihood(x).value)
    assert again.form == model.form
    for a, b in zip(again.sample(4), model.sample(4)):
        assert torch.equal(a, b) if kind == "swinging" else a == b


def test_what_cannot_be_used_is_refused_by_name(spelling, swinging):
    with pytest.raises(ValueError, match="x has tokens that fit did not see: 'd'"):
        spelling.encode(["abd"])
    with pytest.raises(ValueError, match=r"x must have at most 8 steps a sequence .* x\[1\] has 9"):
        spelling.encode(["ab", "a" * 9])
    with pytest.raises(TypeError, match="x must hold sequences of tokens, as in fit; got arrays of frames"):
        spelling.encode([torch.zeros(3, 1)])
    with pytest.raises(ValueError, match=r"x\[0\] must have shape \(T, 1\), as in fit"):
        swinging.encode([torch.zeros(3, 2)])
    with pytest.raises(ValueError, match="finite"):
        swinging.encode([torch.full((3, 1), torch.nan)])
    with pytest.raises(ValueError, match="frames have shape"):
        SequenceVAE().fit([torch.zeros(3, 1, 8, 8)] * 30, steps=1, progress=False)
    with pytest.raises(ValueError, match="x must vary"):
        SequenceVAE().fit([torch.ones(3, 1)] * 30, steps=1, progress=False)
    with pytest.raises(ValueError, match="y must be None"):
        SequenceVAE().fit(["ab"] * 30, [1] * 30, steps=1, progress=False)
    with pytest.raises(ValueError, match="word_dropout must be at least 0 and less than 1"):
        SequenceVAE(word_dropout=1.0)
    with pytest.raises(ValueError, match="not fitted"):
        SequenceVAE().sample(3)
    for x in (["ab", "c"], [torch.zeros(3, 1), torch.zeros(2, 1)]):
        with pytest.raises(TypeError, match="got sequences. A SequenceVAE takes them, a VAE does not"):
            VAE().fit(x)
