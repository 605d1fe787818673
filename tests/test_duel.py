"""The duel: its steps are those of the game, and what it keeps is what was best."""

import math

import pytest
import torch
from torch import nn
from torch.optim import SGD

import probdl
from probdl.loops import NotFiniteError, duel
from probdl.nn import MLP, seeded


class Number(nn.Module):
    """One parameter."""

    def __init__(self, value):
        super().__init__()
        self.value = nn.Parameter(torch.tensor(float(value), dtype=torch.float64))


def sgd(rate):
    return lambda parameters: SGD(parameters, lr=rate)


def dirac(critic, generator, **more):
    """The game of Mescheder, Geiger and Nowozin (2018): a point at θ, data at zero, a critic f(x) = ψx."""
    usual = {"steps": 50, "optimisers": (sgd(0.1), sgd(0.2)), "batch_size": 8, "progress": False}
    data = (torch.zeros(8, dtype=torch.float64),)

    def critic_loss(batch, _):
        return critic.value * (generator.value - batch[0].mean())

    def generator_loss(batch, _):
        return -critic.value * generator.value

    return duel(critic, generator, critic_loss, generator_loss, data, **{**usual, **more})


@pytest.mark.parametrize("times", [1, 3])
def test_the_steps_are_the_recursion_of_the_game(times):
    critic, generator = Number(0.5), Number(1.0)
    dirac(critic, generator, critic_steps=times)
    psi, theta = 0.5, 1.0
    for _ in range(50):
        for _ in range(times):
            psi -= 0.1 * theta
        theta += 0.2 * psi
    assert critic.value.item() == pytest.approx(psi, rel=1e-12)
    assert generator.value.item() == pytest.approx(theta, rel=1e-12)


def test_alternating_steps_on_the_bilinear_game_go_round_and_conserve_its_energy():
    """ψ² + θ² − ηψθ stands still under alternating steps of size η; the Dirac game never converges by itself."""

    def energy(psi, theta):
        return psi**2 + theta**2 - 0.1 * psi * theta

    critic, generator = Number(0.5), Number(1.0)
    how = dirac(critic, generator, optimisers=(sgd(0.1), sgd(0.1)), steps=400, every=1,
                score=lambda _: generator.value.abs())  # fmt: skip
    assert how.history.validation.min() < 0.06
    assert how.history.validation.max() > 1
    critic, generator = Number(0.5), Number(1.0)
    dirac(critic, generator, optimisers=(sgd(0.1), sgd(0.1)), steps=400)
    assert energy(critic.value.item(), generator.value.item()) == pytest.approx(energy(0.5, 1.0), rel=1e-9)


def gaussian_game(**more):
    """A generator of shifted and scaled normals against data N(2, .5²), with the R1 penalty."""
    with seeded(1):
        critic, generator = MLP(1, 1, hidden=(32,)).double(), nn.Linear(1, 1).double()
    x = 2 + 0.5 * torch.randn(1000, 1, generator=torch.Generator().manual_seed(3), dtype=torch.float64)

    def fake(n, noise):
        return generator(torch.randn(n, 1, generator=noise, dtype=torch.float64))

    def critic_loss(batch, noise):
        real = batch[0].clone().requires_grad_()
        score = critic(real)
        slope = torch.autograd.grad(score.sum(), real, create_graph=True)[0].square().sum(1).mean()
        loss = nn.functional.softplus(-score).mean() + nn.functional.softplus(critic(fake(len(real), noise))).mean()
        return loss + 0.05 * slope, {"slope": slope}

    def generator_loss(batch, noise):
        return nn.functional.softplus(-critic(fake(len(batch[0]), noise))).mean()

    usual = {"steps": 2000, "ema": 0.99, "learning_rates": (0.01, 0.005), "progress": False}
    how = duel(critic, generator, critic_loss, generator_loss, (x,), **{**usual, **more})
    return critic, generator, how


def test_a_gan_finds_the_mean_and_the_scale_of_a_normal():
    _, generator, how = gaussian_game()
    assert generator.bias.item() == pytest.approx(2, abs=0.1)
    assert abs(generator.weight.item()) == pytest.approx(0.5, abs=0.1)
    assert how.history.critic.iloc[-1] == pytest.approx(2 * math.log(2), abs=0.05)  # the critic cannot tell
    names = ["step", "epoch", "seconds", "loss", "validation", "critic", "critic_slope"]
    assert list(how.history.columns) == names
    assert how.history.step.tolist() == list(range(20, 2001, 20))


def test_the_same_seed_gives_the_same_bits():
    runs = [gaussian_game(steps=30, seed=seed)[1].weight.item() for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]


def test_one_player_steps_while_the_other_is_frozen():
    seen = []
    critic, generator = Number(0.5), Number(1.0)

    def loss(batch, _):
        seen.append((critic.value.requires_grad, generator.value.requires_grad))
        return critic.value * generator.value

    duel(critic, generator, loss, loss, (torch.zeros(4),), steps=2, critic_steps=2, progress=False)
    assert seen == [(True, False), (True, False), (False, True)] * 2
    assert critic.value.requires_grad
    assert generator.value.requires_grad


def test_the_critic_may_take_more_steps_at_first_and_is_called_after_each():
    calls = []

    def after(critic):
        calls.append(critic.value.item())
        critic.value.data.clamp_(-0.4, 0.4)

    critic, generator = Number(0.5), Number(1.0)
    dirac(critic, generator, steps=5, critic_steps=lambda step: 3 if step < 2 else 1, after_critic=after)
    assert len(calls) == 3 + 3 + 1 + 1 + 1
    assert abs(critic.value.item()) <= 0.4


def test_the_players_end_with_the_best_score():
    critic, generator = Number(0.5), Number(1.0)
    states = []

    def score(_):
        assert not generator.training
        states.append((generator.value.item(), critic.value.item()))
        return (generator.value - 0.3).abs()

    how = dirac(critic, generator, steps=200, every=1, score=score)
    best = min(range(len(states)), key=lambda i: abs(states[i][0] - 0.3))
    assert 0 < best < len(states) - 1
    assert (generator.value.item(), critic.value.item()) == states[best]
    assert how.history.validation.tolist() == pytest.approx([abs(t - 0.3) for t, _ in states])


def test_patience_counts_records():
    critic, generator = Number(0.5), Number(1.0)
    how = dirac(critic, generator, steps=400, every=2, patience=6, score=lambda _: generator.value.abs())
    best = how.history.validation.idxmin()
    assert len(how.history) == best + 1 + 6
    assert "stopped early" in how.message


def test_the_generator_is_averaged_and_the_critic_is_not():
    critic, generator = Number(0.5), Number(1.0)
    dirac(critic, generator, steps=9, ema=0.5)
    psi, theta, mean = 0.5, 1.0, 1.0
    for step in range(9):
        psi -= 0.1 * theta
        theta += 0.2 * psi
        decay = min(0.5, (1 + step) / (10 + step))
        mean = decay * mean + (1 - decay) * theta
    assert generator.value.item() == pytest.approx(mean, rel=1e-12)
    assert critic.value.item() == pytest.approx(psi, rel=1e-12)


@pytest.mark.parametrize("player", ["critic", "generator"])
def test_a_nan_names_the_player_and_both_are_put_back(player):
    critic, generator, calls = Number(0.5), Number(1.0), []

    def loss(name):
        def value(batch, _):
            calls.append(name)
            bad = math.nan if name == player and calls.count(name) == 13 else 0.0
            return critic.value * generator.value * 0.5 + bad

        return value

    with pytest.raises(NotFiniteError, match=f"The {player} loss became nan at step 13") as e:
        duel(critic, generator, loss("critic"), loss("generator"), (torch.zeros(4),), steps=20, every=4,
             optimisers=(sgd(0.1), sgd(0.1)), progress=False)  # fmt: skip
    psi, theta = 0.5, 1.0
    for _ in range(12):
        psi -= 0.05 * theta
        theta -= 0.05 * psi
    assert critic.value.item() == pytest.approx(psi, rel=1e-12)
    assert generator.value.item() == pytest.approx(theta, rel=1e-12)
    assert e.value.descent.history.step.tolist() == [4, 8, 12]
    assert generator.value.requires_grad


def test_ctrl_c_keeps_what_was_learned():
    critic, generator = Number(0.5), Number(1.0)

    def after(_):
        after.calls += 1
        if after.calls == 7:
            raise KeyboardInterrupt

    after.calls = 0
    with pytest.warns(probdl.ConvergenceWarning, match="what was learned so far is kept"):
        how = dirac(critic, generator, after_critic=after, every=2)
    assert how.interrupted
    assert how.history.step.tolist() == [2, 4, 6]
    assert generator.value.item() != 1.0


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"steps": 0}, ValueError, "steps must be a positive integer; got 0"),
        ({"critic_steps": 0}, ValueError, "critic_steps must be a positive integer; got 0"),
        ({"every": -1}, ValueError, "every must be a positive integer"),
        ({"ema": 1.5}, ValueError, "ema must be a decay between 0 and 1"),
        ({"clip": 0.0}, ValueError, "clip must be a positive number or None"),
        ({"precision": "int8"}, ValueError, "precision must be None, 'bf16' or 'fp16'"),
        ({"resume": True}, ValueError, "resume needs checkpoint="),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(change, error, match):
    with pytest.raises(error, match=match):
        dirac(Number(1.0), Number(1.0), **change)


def test_players_that_share_a_parameter_or_have_none_are_refused():
    one = Number(1.0)
    with pytest.raises(ValueError, match="must not share parameters; they share 1"):
        dirac(one, one)
    with pytest.raises(ValueError, match="critic has no parameters to learn"):
        dirac(nn.ReLU(), one)
