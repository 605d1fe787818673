"""Where batches come from: rows by index or an iterable, the same for the same seed, from any place."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from probdl.loops import descend
from probdl.loops.streams import Loaded, Rows

CPU = torch.device("cpu")


def take(stream, n):
    return [next(stream)[0].tolist() for _ in range(n)]


class Jittered(Dataset):
    """Rows that are moved by torch's global generator when they are read, as augmentation does."""

    def __len__(self):
        return 10

    def __getitem__(self, i):
        return i + torch.rand(())


def loader(**more):
    return DataLoader(Jittered(), batch_size=4, shuffle=True, **more)


MAKE = {
    "rows": lambda: Rows((torch.arange(10),), 3, seed=2),
    "in order": lambda: Rows((torch.arange(10),), 4, seed=2, shuffle=False),
    "loader": lambda: Loaded(loader(), CPU, 2),
    "own generator": lambda: Loaded(loader(generator=torch.Generator().manual_seed(9)), CPU, 2),
    "workers": lambda: Loaded(loader(num_workers=1), CPU, 2),
    "list": lambda: Loaded([torch.zeros(2), torch.ones(3)], CPU, 2),
}


@pytest.mark.parametrize("kind", [k for k in MAKE if k != "workers"])
@settings(max_examples=15, deadline=None)
@given(place=st.integers(0, 12), noise=st.integers(0, 3))
def test_from_any_place_the_rest_is_the_same(kind, place, noise):
    stream = MAKE[kind]()
    for _ in range(place):
        next(stream)
        torch.rand(noise)  # what else draws from the global generator does not matter
    state, rest = stream.state(), take(stream, 7)
    again = MAKE[kind]()
    again.load(state)
    assert (again.passes, again.index) == (state["passes"], state["index"])
    assert take(again, 7) == rest


def test_workers_resume_too():
    stream = MAKE["workers"]()
    take(stream, 4)
    state, rest = stream.state(), take(stream, 3)
    again = MAKE["workers"]()
    again.load(state)
    assert take(again, 3) == rest
    stream.close()
    again.close()


def test_each_pass_has_every_row_once_and_another_order():
    stream = Rows((torch.arange(10),), 3, seed=1)
    passes = [sum(take(stream, 4), []) for _ in range(3)]
    assert [sorted(p) for p in passes] == [list(range(10))] * 3
    assert passes[0] != passes[1] != passes[2]
    assert sum(take(Rows((torch.arange(10),), 3, seed=1, shuffle=False), 4), []) == list(range(10))


def test_a_batch_larger_than_the_data_is_all_the_data():
    assert [len(b) for b in take(Rows((torch.arange(10),), 64, seed=1), 2)] == [10, 10]


def line():
    torch.manual_seed(0)
    net = nn.Linear(1, 1).double()
    return net, lambda batch, _: (net(batch[0]) - batch[1]).square().mean()


def rows(n=40):
    x = torch.linspace(-1, 1, n, dtype=torch.float64)[:, None]
    return x, 2 * x + 1


def test_a_dataloader_trains_like_rows_in_memory():
    answers = []
    for data in (rows(), DataLoader(TensorDataset(*rows()), batch_size=8, shuffle=True)):
        net, loss = line()
        how = descend(net, loss, data, epochs=60, batch_size=8, learning_rate=0.05, progress=False)
        answers.append([net.weight.item(), net.bias.item()])
        assert how.history.step.tolist() == list(range(5, 301, 5))
    assert answers[0] == pytest.approx([2, 1], abs=0.01)
    assert answers[1] == pytest.approx([2, 1], abs=0.01)


def test_a_dataloaders_order_comes_from_the_seed_and_the_global_generator_is_left_alone():
    weights = []
    for global_seed in (1, 2):
        net, loss = line()
        torch.manual_seed(global_seed)
        before = torch.get_rng_state()
        descend(net, loss, DataLoader(TensorDataset(*rows()), 8, shuffle=True), epochs=2, seed=4, progress=False)
        assert torch.equal(torch.get_rng_state(), before)
        weights.append(net.weight.item())
    assert weights[0] == weights[1]


def test_an_endless_generator_needs_steps_and_its_records():
    def endless():
        g = random.Random(1)
        while True:
            x = torch.full((4, 1), g.random(), dtype=torch.float64)
            yield x, 2 * x + 1

    net, loss = line()
    how = descend(net, loss, endless(), steps=300, every=100, learning_rate=0.05, progress=False)
    assert how.history.step.tolist() == [100, 200, 300]
    assert how.history.epoch.tolist() == [1, 1, 1]
    assert how.history.loss.is_monotonic_decreasing
    with pytest.raises(ValueError, match="epochs need data with a length; these have none. Pass steps"):
        descend(net, loss, endless(), epochs=3, progress=False)


def test_data_that_end_early_end_the_descent_and_it_says_so():
    net, loss = line()
    how = descend(net, loss, iter([rows(4)] * 3), steps=50, progress=False)
    assert how.history.step.tolist() == [3]
    assert "ended after 3 of 50 steps" in how.message


@pytest.mark.parametrize(
    ("data", "error", "match"),
    [
        ([], TypeError, "data must be a tuple of tensors"),
        (iter([]), ValueError, "data must hold at least one batch"),
        ((np.zeros((4, 1)), np.zeros((4, 1))), TypeError, r"it yielded \(ndarray\). Turn arrays into tensors"),
        ([{"x": 1}], TypeError, r"data must yield tensors, or tuples of tensors, .* it yielded \(dict\)"),
        ([(torch.zeros(2, 1), "b")], TypeError, r"it yielded \(Tensor, str\)"),
        (3, TypeError, "data must be a tuple of tensors or an iterable of batches; got int"),
    ],
)
def test_what_is_no_batch_is_refused(data, error, match):
    net, loss = line()
    with pytest.raises(error, match=match):
        descend(net, loss, data, steps=3, progress=False)


def test_validation_may_be_an_iterable_but_not_one_that_is_used_up():
    net, loss = line()
    how = descend(net, loss, rows(), validation=DataLoader(TensorDataset(*rows()), 16), epochs=3, progress=False)
    whole = descend(net, loss, rows(), validation=rows(), steps=1, learning_rate=1e-12, progress=False)
    assert how.history.validation.iloc[-1] == pytest.approx(whole.history.validation.iloc[-1])
    with pytest.raises(ValueError, match="validation must hold at least one batch each time"):
        descend(net, loss, rows(), validation=iter([rows()]), epochs=2, progress=False)
