"""The descent: what it reaches, when it stops, and what is left when it is stopped."""

import copy
import math
import signal

import pytest
import torch
from torch import nn

import probdl
from probdl.loops import NotFiniteError, cosine, descend

N = 200


@pytest.fixture
def line(device, dtype):
    """A straight line, rows from y = 3x − 1 with noise, and the least-squares answer."""
    g = torch.Generator().manual_seed(1)
    x = torch.randn(N, 1, generator=g, dtype=torch.float64)
    y = 3 * x - 1 + 0.1 * torch.randn(N, 1, generator=g, dtype=torch.float64)
    answer = torch.linalg.lstsq(torch.cat([x, torch.ones_like(x)], 1), y).solution.flatten()
    torch.manual_seed(0)
    return nn.Linear(1, 1).to(device, dtype), (x.to(device, dtype), y.to(device, dtype)), answer.to(device, dtype)


def squares(net):
    return lambda batch, generator: (net(batch[0]) - batch[1]).square().mean()


def coefficients(net):
    return torch.cat([p.detach().flatten() for p in net.parameters()])


def test_least_squares_by_descent_is_least_squares(line):
    net, data, answer = line
    descend(net, squares(net), data, epochs=1000, batch_size=N, learning_rate=cosine(0.1), progress=False)
    torch.testing.assert_close(coefficients(net), answer, atol=1e-6, rtol=0)


def test_batches_cover_each_row_once_an_epoch_in_a_random_order(line):
    net, (x, y), _ = line
    seen = []

    def loss(batch, generator):
        seen.append(batch[1].flatten().tolist())
        return squares(net)(batch, generator)

    descend(net, loss, (x, y), epochs=2, batch_size=64, progress=False)
    first, second = sum(seen[:4], []), sum(seen[4:], [])
    assert [len(b) for b in seen] == [64, 64, 64, 8] * 2
    assert sorted(first) == sorted(second) == sorted(y.flatten().tolist())
    assert first != second != y.flatten().tolist()


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not(line):
    net, data, _ = line
    start = {k: v.clone() for k, v in net.state_dict().items()}

    def run(seed):
        net.load_state_dict(start)
        descend(net, squares(net), data, epochs=3, batch_size=32, seed=seed, progress=False)
        return coefficients(net)

    assert torch.equal(run(4), run(4))
    assert not torch.equal(run(4), run(5))


def test_the_history_has_a_row_an_epoch_and_the_terms_of_the_loss(line):
    net, data, _ = line

    def loss(batch, generator):
        value = squares(net)(batch, generator)
        return value, {"half": value / 2}

    history = descend(net, loss, data, epochs=3, batch_size=64, progress=False).history
    assert list(history.columns) == ["step", "epoch", "seconds", "loss", "validation", "half"]
    assert history.step.tolist() == [4, 8, 12]
    assert history.epoch.tolist() == [1, 2, 3]
    assert history.validation.isna().all()
    assert history.seconds.is_monotonic_increasing
    assert history.half.tolist() == pytest.approx((history.loss / 2).tolist())


def test_the_history_of_a_loss_that_does_not_move_is_its_mean_over_rows(line):
    net, (x, y), _ = line

    def loss(batch, generator):
        return batch[1].mean() + 0 * net(batch[0]).sum()

    history = descend(net, loss, (x, y), epochs=1, batch_size=64, progress=False).history
    assert history.loss[0] == pytest.approx(y.mean().item())


def test_steps_end_it_in_the_middle_of_an_epoch(line):
    net, data, _ = line
    history = descend(net, squares(net), data, epochs=9, steps=6, batch_size=64, progress=False).history
    assert history.step.tolist() == [4, 6]


def test_early_stopping_returns_to_the_state_of_the_smallest_validation_loss(line):
    net, (x, y), _ = line
    states = []

    def loss(batch, generator):
        if not net.training:
            states.append(coefficients(net))
            return (coefficients(net)[0] - 1).square()  # smallest when the slope passes 1 on its way to 3
        return squares(net)(batch, generator)

    nn.init.zeros_(net.weight)
    how = descend(
        net, loss, (x, y), validation=(x, y), epochs=500, batch_size=N, learning_rate=0.05, patience=7, progress=False
    )
    values = [float((s[0] - 1).square()) for s in states]
    best = min(range(len(values)), key=values.__getitem__)
    assert 0 < best < len(states) - 1
    assert how.epoch == best + 1
    assert len(how.history) == best + 1 + 7
    assert how.history.validation.tolist() == pytest.approx(values)
    assert torch.equal(coefficients(net), states[best])
    assert "stopped early" in how.message


def test_validation_sees_eval_mode_and_the_same_noise_each_time(line):
    net, data, _ = line
    noise, modes = [], []

    def loss(batch, generator):
        if not net.training:
            noise.append(torch.rand(2, generator=generator, device=generator.device).tolist())
        modes.append(net.training)
        return squares(net)(batch, generator)

    descend(net.eval(), loss, data, validation=data, epochs=2, batch_size=N, progress=False)
    assert noise[0] == noise[1]
    assert modes == [True, False, True, False]
    assert not net.training  # as it was before


def test_a_nan_stops_it_names_the_term_and_the_step_and_keeps_the_last_good_state(line):
    net, data, _ = line
    kept = []

    def loss(batch, generator):
        value, call = squares(net)(batch, generator), len(kept)
        kept.append(coefficients(net))
        bad = math.nan if call == 9 else 0.0
        return value + bad, {"fit": value, "penalty": torch.tensor(bad)}

    with pytest.raises(NotFiniteError, match=r"loss became nan at step 10, fit .*, penalty nan; all parameters") as e:
        descend(net, loss, data, epochs=5, batch_size=64, progress=False)
    assert isinstance(e.value, probdl.ConvergenceError)
    assert torch.equal(coefficients(net), kept[8])  # after 2 epochs of 4 steps
    assert e.value.descent.history.epoch.tolist() == [1, 2]
    assert e.value.descent.epoch == 2


def test_a_gradient_that_is_not_finite_is_traced_to_its_parameter(line):
    net, data, _ = line

    def loss(batch, generator):
        return squares(net)(batch, generator) + (0 * net.bias.detach() + (net.bias - net.bias).sqrt()).sum()

    before = coefficients(net)
    with pytest.raises(NotFiniteError, match=r"at step 2.*not finite are bias\."):
        descend(net, loss, data, epochs=1, batch_size=64, progress=False)
    assert torch.equal(coefficients(net), before)


def test_a_parameter_ruined_in_the_last_step_does_not_count_as_a_good_state(line):
    net, data, _ = line

    def loss(batch, generator):
        return squares(net)(batch, generator) + (net.bias - net.bias).sqrt().sum()

    before = coefficients(net)
    with pytest.raises(NotFiniteError, match="After step 1 these parameters are not finite: bias"):
        descend(net, loss, data, steps=1, batch_size=N, progress=False)
    assert torch.equal(coefficients(net), before)


def test_an_infinite_validation_loss_stops_it_too(line):
    net, (x, y), _ = line
    with pytest.raises(NotFiniteError, match="validation loss became inf"):
        descend(net, squares(net), (x, y), validation=(x, y * math.inf), epochs=2, progress=False)


@pytest.mark.parametrize("validate", [False, True])
def test_ctrl_c_keeps_what_was_learned_and_says_so(line, validate):
    net, data, _ = line
    after = []

    def loss(batch, generator):
        if net.training:
            after.append(coefficients(net))
        if len(after) == 11:
            signal.raise_signal(signal.SIGINT)
        return squares(net)(batch, generator)

    with pytest.warns(probdl.ConvergenceWarning, match="interrupted in epoch 3.*what was learned so far is kept"):
        how = descend(net, loss, data, validation=data if validate else None, epochs=50, batch_size=64, progress=False)
    assert how.interrupted
    assert len(how.history) == 2
    # with validation the best epoch, the second; without, the state after all ten steps
    assert torch.equal(coefficients(net), after[8] if validate else after[10])


def test_ctrl_c_in_the_first_epoch_keeps_the_first_steps(line):
    net, data, _ = line
    before, calls = coefficients(net), []

    def loss(batch, generator):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return squares(net)(batch, generator)

    with pytest.warns(probdl.ConvergenceWarning):
        how = descend(net, loss, data, validation=data, epochs=5, batch_size=64, progress=False)
    assert not torch.equal(coefficients(net), before)
    assert list(how.history.columns) == ["step", "epoch", "seconds", "loss", "validation"]
    assert len(how.history) == 0


def test_the_learning_rate_follows_its_function(line):
    net, data, _ = line
    rates = []

    def sgd(parameters):
        rates.append(torch.optim.SGD(parameters, lr=1.0))
        return rates[0]

    descend(net, squares(net), data, steps=4, learning_rate=cosine(0.1), optimiser=sgd, progress=False)
    assert rates[0].param_groups[0]["lr"] == pytest.approx(0.05 * (1 + math.cos(math.pi * 3 / 4)))


def test_the_bar_shows_the_loss_and_the_time_left_only_when_asked(line, capsys):
    net, data, _ = line
    descend(net, squares(net), data, epochs=2, batch_size=64, progress=True)
    shown = capsys.readouterr().err
    assert "8/8" in shown
    assert "loss=" in shown
    assert "<" in shown
    descend(net, squares(net), data, epochs=2, batch_size=64)  # stderr is no terminal here
    assert capsys.readouterr().err == ""


def test_the_global_generator_is_left_alone(line):
    net, data, _ = line
    before = torch.get_rng_state()
    descend(net, squares(net), data, epochs=2, progress=False)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"epochs": None}, ValueError, "pass epochs or steps"),
        ({"epochs": 0}, ValueError, "epochs must be a positive integer; got 0"),
        ({"batch_size": 2.5}, ValueError, "batch_size must be a positive integer"),
        ({"learning_rate": -1.0}, ValueError, "learning_rate must be positive"),
        ({"data": torch.zeros(3)}, TypeError, "data must be a tuple of tensors"),
        ({"data": (torch.zeros(3), torch.zeros(4))}, ValueError, r"same, positive number of rows; got \[3, 4\]"),
        ({"module": nn.ReLU()}, ValueError, "no parameters to learn"),
        ({"loss": lambda b, g: b[0]}, ValueError, "loss must return a scalar"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(line, change, error, match):
    net, data, _ = line
    usual = {"module": net, "loss": squares(net), "data": data, "epochs": 1, "progress": False}
    with pytest.raises(error, match=match):
        descend(**{**usual, **change})


def test_clipping_takes_the_steps_of_the_loop_that_one_writes_by_hand(line):
    net, (x, y), _ = line
    by_hand = copy.deepcopy(net)
    how = descend(net, squares(net), (x, y), steps=60, batch_size=N, clip=0.5, optimiser=sgd(0.2), progress=False)
    norms, optimiser = [], sgd(0.2)(by_hand.parameters())
    for _ in range(60):
        optimiser.zero_grad()
        squares(by_hand)((x, y), None).backward()
        norm = torch.cat([p.grad.flatten() for p in by_hand.parameters()]).norm()
        for p in by_hand.parameters():
            p.grad *= min(1.0, 0.5 / float(norm))
        norms.append(float(norm))
        optimiser.step()
    torch.testing.assert_close(coefficients(net), coefficients(by_hand), rtol=1e-5, atol=1e-5)
    assert how.history.gradient_norm.tolist() == pytest.approx(norms, rel=1e-4, abs=1e-6)
    assert how.history.clipped.tolist() == [float(norm > 0.5) for norm in norms]
    assert 0 < how.history.clipped.mean() < 1


def test_a_gradient_that_is_not_finite_is_found_when_it_is_clipped(line):
    net, data, _ = line

    def loss(batch, generator):
        return squares(net)(batch, generator) + (net.bias - net.bias).sqrt().sum()

    with pytest.raises(NotFiniteError, match="The gradient became nan at step 1; not finite are bias"):
        descend(net, loss, data, steps=3, clip=1.0, progress=False)


def test_the_moving_average_validates_and_is_the_result(line):
    net, data, _ = line
    seen, average = [], coefficients(net)

    def loss(batch, generator):
        if not net.training:
            seen.append(coefficients(net))
        return squares(net)(batch, generator)

    by_hand = copy.deepcopy(net)
    optimiser = sgd(0.1)(by_hand.parameters())
    for step in range(6):
        optimiser.zero_grad()
        squares(by_hand)(data, None).backward()
        optimiser.step()
        decay = min(0.4, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * coefficients(by_hand)
    descend(net, loss, data, validation=data, steps=6, batch_size=N, ema=0.4, optimiser=sgd(0.1), progress=False)
    torch.testing.assert_close(coefficients(net), average)
    torch.testing.assert_close(seen[-1], average)
    assert len(seen) == 6
    assert not torch.allclose(average, coefficients(by_hand))


def test_records_may_be_more_or_less_than_an_epoch_and_patience_counts_them(line):
    net, data, _ = line
    how = descend(net, squares(net), data, validation=data, steps=30, every=7, batch_size=64, progress=False)
    assert how.history.step.tolist() == [7, 14, 21, 28, 30]
    assert how.history.epoch.tolist() == [2, 4, 6, 7, 8]
    worse = iter(range(100))
    how = descend(
        net,
        lambda b, g: squares(net)(b, g) * (1 if net.training else 0) + (0 if net.training else next(worse)),
        data, validation=data, steps=90, every=3, patience=2, batch_size=N, progress=False,
    )  # fmt: skip
    assert how.history.step.tolist() == [3, 6, 9]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_computes_the_loss_in_it_and_steps_in_the_parameters_own(precision):
    torch.manual_seed(0)
    net, seen = nn.Linear(1, 1), set()
    x = torch.linspace(-1, 1, 64)[:, None]

    def loss(batch, generator):
        out = net(batch[0])
        seen.add(out.dtype)
        return (out.float() - batch[1]).square().mean()

    descend(net, loss, (x, 3 * x), epochs=400, batch_size=64, learning_rate=0.05, precision=precision, progress=False)
    assert seen == {{"bf16": torch.bfloat16, "fp16": torch.float16}[precision]}
    assert net.weight.dtype == torch.float32
    assert net.weight.item() == pytest.approx(3, abs=0.02)


def test_a_compiled_loss_takes_the_same_steps(line):
    net, data, _ = line
    start, answers, calls = copy.deepcopy(net.state_dict()), [], []

    def backend(graph, inputs):
        calls.append(len(inputs))
        return graph.forward

    for how in (False, backend):
        net.load_state_dict(start)
        descend(net, squares(net), data, steps=8, batch_size=64, compile=how, progress=False)
        answers.append(coefficients(net))
    torch.testing.assert_close(*answers)
    assert calls  # it was compiled


def sgd(rate):
    return lambda parameters: torch.optim.SGD(parameters, lr=rate)
