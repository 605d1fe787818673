"""Saliency over time: of vectors and of tokens, through recurrent networks of torch and of this package."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from probdl import viz
from probdl.models import LanguageModel, SequenceClassifier

N, TIME, FEATURES, TOKENS, SIZE, CLASSES = 5, 7, 3, 11, 4, 3


class Recurrent(nn.Module):
    """Vectors or tokens through a recurrent network of torch; the last state of the top layer gives the scores."""

    def __init__(self, kind=nn.LSTM, tokens=False, lengths=None, bidirectional=False):
        super().__init__()
        self.embedding = nn.Embedding(TOKENS, SIZE) if tokens else nn.Identity()
        self.lengths = lengths
        self.network = kind(
            SIZE if tokens else FEATURES, 6, num_layers=2, batch_first=True, bidirectional=bidirectional, dropout=0.5
        )
        self.out = nn.Linear(6, CLASSES)

    def read(self, vectors):
        if self.lengths is not None:
            vectors = pack_padded_sequence(vectors, self.lengths, batch_first=True, enforce_sorted=False)
        _, state = self.network(vectors)
        return self.out((state[0] if isinstance(state, tuple) else state)[-1])

    def forward(self, x):
        return self.read(self.embedding(x))


class Weighted(nn.Module):
    """S_c = Σ_t a_t (w_c · e_t): linear in the vectors, so that ‖dS_c/de_t‖ = |a_t| ‖w_c‖."""

    def __init__(self):
        super().__init__()
        self.embedding, self.out = nn.Embedding(TOKENS, SIZE), nn.Linear(SIZE, CLASSES)
        self.register_buffer("a", torch.linspace(-2, 2, TIME))

    def forward(self, x):
        return self.out((self.a[:, None] * self.embedding(x)).sum(1))


def made(build, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build().double()


def vectors(seed=0):
    return torch.randn(N, TIME, FEATURES, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def tokens(seed=0, n=N, time=TIME):
    return torch.randint(TOKENS, (n, time), generator=torch.Generator().manual_seed(seed))


def by_hand(model, e, target=None):
    """Return the derivative by vectors, in eval mode, from autograd."""
    model = copy.deepcopy(model).eval()
    e = e.detach().clone().requires_grad_()
    scores = model.read(e)
    target = scores.argmax(1) if target is None else torch.as_tensor(target).expand(len(e))
    return torch.autograd.grad(scores.gather(1, target[:, None]).sum(), e)[0]


def by_differences(model, e, target, step=1e-6):
    """Return the same from two-sided differences."""
    model, found = copy.deepcopy(model).eval(), torch.zeros_like(e)
    with torch.no_grad():
        for place in torch.cartesian_prod(torch.arange(e.shape[1]), torch.arange(e.shape[2])):
            up = torch.zeros_like(e)
            up[:, place[0], place[1]] = step
            found[:, place[0], place[1]] = (model.read(e + up) - model.read(e - up))[:, target] / (2 * step)
    return found


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("target", [None, 2, torch.tensor([0, 1, 2, 1, 0])])
def test_saliency_over_time_is_the_largest_derivative_of_each_step(kind, target):
    model, x = made(lambda: Recurrent(kind)).train(), vectors()
    expected = by_hand(model, x, target)
    torch.testing.assert_close(viz.saliency(model, x, target), expected.abs().amax(2))
    torch.testing.assert_close(viz.saliency(model, x, target, reduce=None), expected)
    assert viz.saliency(model, x, target).shape == (N, TIME)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_saliency_of_tokens_is_the_norm_of_the_derivative_by_their_vectors(kind, bidirectional):
    model, x = made(lambda: Recurrent(kind, tokens=True, bidirectional=bidirectional)).train(), tokens()
    e = model.embedding(x).detach()
    expected = by_hand(model, e)
    torch.testing.assert_close(viz.saliency(model, x, reduce=None), expected)
    torch.testing.assert_close(viz.saliency(model, x), expected.square().sum(2).sqrt())
    torch.testing.assert_close(viz.saliency(model, x, 1), by_differences(model, e, 1).norm(dim=2), rtol=1e-6, atol=1e-9)


def test_saliency_of_tokens_of_a_linear_model_is_known():
    model = made(Weighted)
    for target in range(CLASSES):
        expected = model.a.abs() * model.out.weight[target].norm()
        torch.testing.assert_close(viz.saliency(model, tokens(), target), expected.expand(N, TIME).detach())


def test_times_the_vectors_it_is_captum_s_gradient_times_activation():
    from captum.attr import LayerGradientXActivation

    model, x = made(lambda: Recurrent(tokens=True)).eval(), tokens()
    theirs = LayerGradientXActivation(model, model.embedding).attribute(x, target=1)
    torch.testing.assert_close(viz.saliency(model, x, 1, reduce=None) * model.embedding(x), theirs)


@settings(max_examples=15, deadline=None)
@given(lengths=st.lists(st.integers(1, TIME), min_size=N, max_size=N), seed=st.integers(0, 10**6))
@pytest.mark.parametrize("of_tokens", [True, False])
def test_padding_gets_zero_and_the_rest_is_that_of_the_sequence_alone(of_tokens, lengths, seed):
    model = made(lambda: Recurrent(tokens=of_tokens, lengths=torch.tensor(lengths)))
    x = tokens(seed) if of_tokens else vectors(seed)
    found = viz.saliency(model, x)
    for row, own, length in zip(found, x, lengths):
        model.lengths = torch.tensor([length])
        alone = viz.saliency(model, own[None, :length])[0]
        torch.testing.assert_close(row[:length], alone)
        assert not row[length:].any()


def test_positions_and_other_embeddings_keep_their_vectors_and_two_readers_of_tokens_count_both():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.places = (nn.Embedding(TOKENS, k) for k in (2, 3, 5))
            self.out = nn.Linear(5, CLASSES)

        def forward(self, x):
            both = torch.cat([self.one(x), self.two(x)], 2)
            both += self.places(torch.arange(x.shape[1]))  # in place
            return self.out(both.tanh_().mean(1))

    model, x = made(Two), tokens()
    both = torch.cat([model.one(x), model.two(x)], 2).detach().requires_grad_()
    scores = model.out((both + model.places(torch.arange(TIME))).tanh().mean(1))[:, 2]
    expected = torch.autograd.grad(scores.sum(), both)[0]
    torch.testing.assert_close(viz.saliency(model, x, 2, reduce=None), expected)
    torch.testing.assert_close(viz.saliency(model, x, 2), expected.norm(dim=2))


def test_integers_in_any_container_and_frozen_vectors_are_no_trouble():
    model, x = made(lambda: Recurrent(tokens=True)), tokens()
    expected = viz.saliency(model, x)
    model.requires_grad_(False)
    for same in (x.int(), x.numpy(), x.tolist()):
        torch.testing.assert_close(viz.saliency(model, same), expected)
        assert viz.layers(model, same)["network"] == (N, TIME, 6)


def test_a_model_in_half_precision_is_seen_in_single():
    model, x = made(lambda: Recurrent(tokens=True)).half(), tokens()
    found = viz.saliency(model, x)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, viz.saliency(copy.deepcopy(model).float(), x))
    assert model.out.weight.dtype == torch.float16


def state(model):
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    flags = [m.training for m in model.modules()]
    return hooks, flags, [(p.requires_grad, p.grad) for p in model.parameters()]


@pytest.mark.parametrize("of_tokens", [True, False])
def test_the_model_is_as_it_was_also_after_an_exception(of_tokens):
    model, x = made(lambda: Recurrent(tokens=of_tokens)).train(), tokens() if of_tokens else vectors()
    model.out.eval()
    model.embedding.requires_grad_(False)
    before, weights = state(model), copy.deepcopy(model.state_dict())
    viz.saliency(model, x)
    with pytest.raises(ValueError, match=r"target must be in 0, ..., 2"):
        viz.saliency(model, x, target=3)
    assert state(model) == before
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())


def test_layers_of_a_recurrent_network_are_named_and_held():
    model, x = made(lambda: Recurrent(tokens=True)), tokens()
    assert viz.layers(model, x)["network"] == (N, TIME, 6)
    held = viz.activations(model, x, ["embedding", "network"])
    torch.testing.assert_close(held["network"], copy.deepcopy(model).eval().network(held["embedding"])[0])


class OfTime(nn.Module):
    """Sequences as images one pixel high: what covers windows of time."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x[:, :, 0].transpose(1, 2))


def test_steps_of_a_sequence_can_be_covered_as_pixels_of_an_image_one_pixel_high():
    model, x = made(lambda: Recurrent(nn.GRU)), vectors()
    found = viz.occlusion(OfTime(model), x.transpose(1, 2)[:, :, None], target=0, window=(1, 2))
    model.eval()
    for t in range(TIME - 1):
        covered = x.clone()
        covered[:, t : t + 2] = 0
        torch.testing.assert_close(found.grid[:, 0, t], (model(x) - model(covered))[:, 0].detach())


def test_recurrent_networks_have_no_relu_to_be_guided_at():
    with pytest.raises(ValueError, match="found none. Use saliency"):
        viz.guided_backprop(made(Recurrent), vectors())


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (lambda embedding, x: embedding(x.flip(1)).mean(1), r"reach an nn.Embedding .* one table \(5, 7\); none read"),
        (lambda embedding, x: embedding(x[:, 0]), "none read it so. Embed the tokens yourself"),
        (lambda embedding, x: embedding(x).detach().mean(1), "must depend on x through differentiable operations"),
        (lambda embedding, x: embedding(x), r"scores of shape \(5, classes\)"),
    ],
)
def test_tokens_that_cannot_be_followed_are_named(read, message):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(TOKENS, SIZE)

        def forward(self, x):
            return read(self.embedding, x)

    with pytest.raises(ValueError, match=message):
        viz.saliency(made(Model), tokens())


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (tokens()[0], ValueError, r"x must have shape \(n, time\), .* got \(7,\)"),
        (torch.zeros(0, TIME, dtype=torch.int64), ValueError, "x is empty"),
        ("abc", TypeError, "x must be array-like .* got str"),
    ],
)
def test_bad_tokens_are_named(x, error, message):
    with pytest.raises(error, match=message):
        viz.saliency(made(lambda: Recurrent(tokens=True)), x)


def test_a_compiled_reader_of_tokens_is_named():
    model = made(lambda: Recurrent(tokens=True))
    with pytest.raises(ValueError, match="compiled: pass the model as it was before torch.compile"):
        viz.saliency(torch.compile(model), tokens())


def test_a_recurrent_layer_by_itself_returns_no_scores():
    with pytest.raises(TypeError, match="must return a tensor of scores; got tuple. Wrap it in a module"):
        viz.saliency(nn.LSTM(FEATURES, 4, batch_first=True).double(), vectors())


TEXTS = ["abca", "b", "ccab", "ab", "bcabcab", "ca"]


def classifier(cell="lstm", **how):
    model = SequenceClassifier(6, cell=cell, dtype=torch.float64, dropout=0.3, **how)
    return model.fit(TEXTS * 4, ["yes", "no", "no"] * 8, steps=20, validation=None, progress=False)


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_a_sequence_classifier_says_which_characters_count(cell):
    model = classifier(cell, bidirectional=cell == "lstm")
    found = model.saliency(TEXTS, of="yes")
    assert [len(each) for each in found] == [len(text) for text in TEXTS]
    for text, each in zip(TEXTS, found):
        e = model.reader.steps(torch.tensor(model.vocabulary.indices([text]))).detach().requires_grad_()
        logits = model.out(model.reader.network.last(model.reader.network(e)[1]))
        expected = torch.autograd.grad(logits[0, model.classes.index("yes")], e)[0][0].norm(dim=1)
        torch.testing.assert_close(each, expected)


def test_without_a_class_the_most_probable_one_counts():
    model = classifier()
    for text, each in zip(TEXTS, model.saliency(TEXTS)):
        torch.testing.assert_close(each, model.saliency([text], of=model.predict([text])[0])[0])


def test_sequences_are_differentiated_some_at_a_time(monkeypatch):
    model = classifier()
    whole = model.saliency(TEXTS)
    monkeypatch.setattr("probdl.models.sequences.saliency.CHUNK", 2)
    for one, two in zip(whole, model.saliency(TEXTS), strict=True):
        torch.testing.assert_close(one, two)


def test_a_fitted_model_is_as_it_was():
    model = classifier().train()
    before, weights = state(model), copy.deepcopy(model.state_dict())
    model.saliency(TEXTS)
    assert state(model) == before
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())


def test_a_sequence_classifier_says_which_frames_count():
    g = torch.Generator().manual_seed(0)
    x = [torch.randn(length, 3, dtype=torch.float64, generator=g) for length in (4, 1, 6, 3)]
    model = SequenceClassifier(5, cell="gru", dtype=torch.float64)
    model.fit(x * 6, [0, 1, 1, 0] * 6, steps=5, validation=None, progress=False)
    found = model.saliency(x, of=1)
    for frames, each in zip(x, found):
        u = ((frames - model.units.shift) / model.units.scale)[None].requires_grad_()
        logits = model.out(model.reader.network.last(model.reader.network(u)[1]))
        torch.testing.assert_close(each, torch.autograd.grad(logits[0, 1], u)[0][0].abs().amax(1))


def test_a_language_model_says_on_what_its_next_token_depends():
    model = LanguageModel(hidden=6, dtype=torch.float64).fit("abcab" * 40, steps=20, progress=False)
    texts = ["abca", "b", "ccabab"]
    found = model.saliency(texts, of="c")
    for text, each in zip(texts, found):
        e = model.reader.steps(torch.tensor(model.vocabulary.indices([text]))).detach().requires_grad_()
        logits = model.out(model.reader.network(e)[0])[0, -1]
        torch.testing.assert_close(each, torch.autograd.grad(logits[2], e)[0][0].norm(dim=1))
    (alone,) = model.saliency("abca")
    best = model._next(torch.tensor(model.vocabulary.indices(["abca"])), None)[0][0, -1].argmax()
    torch.testing.assert_close(alone, model.saliency("abca", of="abc"[best])[0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SequenceClassifier(4).saliency(["ab"]), "not fitted yet"),
        (lambda: classifier().saliency(TEXTS, of="perhaps"), "of has labels that fit did not see: 'perhaps'"),
        (lambda: classifier().saliency(["xyz"]), "tokens that fit did not see"),
        (lambda: LanguageModel().saliency("ab"), "not fitted yet"),
        (
            lambda: LanguageModel(hidden=4).fit("abc" * 30, steps=1, progress=False).saliency("ab", of="ab"),
            "of must be one token; got 'ab'",
        ),
    ],
)
def test_what_cannot_be_asked_of_models_of_sequences_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
