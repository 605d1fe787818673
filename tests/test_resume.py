"""A run that was killed anywhere and taken up again ends with the same bits as one that was not."""

import multiprocessing
import os
import pickle
import random
import signal
import time

import pandas as pd
import pytest
import torch
from runs_to_kill import RUNS, Noisy, descent, run, table

import probdl
from probdl import files
from probdl.loops import Descent, descend, one_thread
from probdl.models import VAE

CPUS = multiprocessing.get_context("forkserver")
CPUS.set_forkserver_preload(["torch", "pandas", "probdl.loops", "runs_to_kill"])


class Count:
    value = 0


@pytest.fixture
def here(tmp_path):
    return tmp_path / "run.checkpoint"


def uninterrupted(kind, **more):
    with one_thread():
        return RUNS[kind](None, False, Count(), **more)


def same(module, how, found):
    for name, value in module.state_dict().items():
        assert torch.equal(value, found["module"][name]), name
    pd.testing.assert_frame_equal(how.history.drop(columns="seconds"), found["history"], check_exact=True)
    assert how.message == found["message"]


@pytest.mark.parametrize(
    ("kind", "kills", "losses"), [("rows", 5, 200), ("loader", 3, 200), ("duel", 3, 120), ("model", 2, 50)]
)
def test_killed_anywhere_and_resumed_it_ends_with_the_same_bits(kind, kills, losses, here, tmp_path):
    """SIGKILL strikes whenever the run happens to be past a random step: in a step, a validation or a write."""
    places = sorted(random.Random(7).sample(range(losses // 20, losses), kills))
    result, count, struck = tmp_path / "result", CPUS.Value("q", 0), 0
    for place in [*places, None]:
        process = CPUS.Process(target=run, args=(kind, here, True, count, result))
        process.start()
        while process.is_alive() and (place is None or count.value < place):
            time.sleep(0.0003)
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
            struck += 1
        process.join()
    assert struck == kills  # each time it was still at work
    assert process.exitcode == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["result", here.name]
    same(*uninterrupted(kind), torch.load(result, weights_only=False))


def test_a_finished_run_is_not_run_again_and_a_longer_one_goes_on(here):
    with one_thread():
        count = Count()
        module, how = descent(here, False, count, steps=30)
        before, count.value = count.value, 0
        again, same_how = descent(here, True, count, steps=30)
        assert (before > 0, count.value) == (True, 0)
        same(again, same_how, {"module": module.state_dict(), "history": how.history.drop(columns="seconds"),
                               "message": how.message})  # fmt: skip
        _, longer = descent(here, True, count, steps=48)
    assert longer.history.step.tolist() == [6, 12, 18, 24, 30, 36, 42, 48]


def test_resume_without_a_file_starts_and_without_resume_it_starts_anew(here):
    with one_thread():
        first, how = descent(here, True, Count(), steps=12)
        second, again = descent(here, False, Count(), steps=12)
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values()))
    assert len(again.history) == len(how.history) == 2


def plain(path, *, net=None, data=None, **more):
    net, (x, y) = net or Noisy(), data or table()
    usual = {"steps": 4, "batch_size": 16, "checkpoint": path, "progress": False}
    return descend(net, net.loss, (x, y), **{**usual, **more})


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"batch_size": 8}, "its batch_size was 16, and is 8 now"),
        ({"seed": 3}, "its seed was 0, and is 3 now"),
        ({"ema": 0.9}, "its player ema was None, and is 0.9"),
        ({"learning_rate": 0.1}, "its learning_rate was 0.001, and is 0.1"),
        ({"data": (table()[0] + 1, table()[1])}, "its data was"),
        ({"identity": {"model": "another"}}, "its identity was None"),
    ],
)
@pytest.mark.parametrize("resume", [True, False])
def test_a_checkpoint_of_another_run_is_refused_and_left_alone(change, match, resume, here):
    plain(here)
    before = here.read_bytes()
    with pytest.raises(ValueError, match=f"is of another run: {match}"):
        plain(here, resume=resume, **change)
    assert here.read_bytes() == before


def test_a_checkpoint_of_another_network_is_refused(here):
    plain(here)
    wide = Noisy()
    wide.net[0] = probdl.nn.MLP(4, 8, hidden=(3,))
    with pytest.raises(ValueError, match="is of another run: its player parameters was"):
        plain(here, net=wide, resume=True)


def test_a_model_goes_on_with_more_steps_and_refuses_a_checkpoint_of_another_model(here):
    x = table()[0]
    vae = VAE(2, hidden=(8,), dtype=torch.float64)
    vae.fit(x, steps=40, batch_size=32, checkpoint=here, progress=False)
    assert "ended after 40 of 40" in vae.message
    vae.fit(x, steps=80, batch_size=32, checkpoint=here, resume=True, progress=False)
    assert vae.history.step.iloc[-1] == 80
    straight = VAE(2, hidden=(8,), dtype=torch.float64).fit(x, steps=80, batch_size=32, progress=False)
    assert torch.equal(straight.encode(x), vae.encode(x))
    other = VAE(2, hidden=(8,), draws=5, dtype=torch.float64)  # the same networks, another loss
    with pytest.raises(ValueError, match="is of another run: its identity settings draws was 1, and is 5 now"):
        other.fit(x, steps=40, batch_size=32, checkpoint=here, resume=True, progress=False)


class Bomb:
    def __reduce__(self):
        return (os.mkdir, (str(Bomb.path),))


@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize("kind", ["pickle", "torch", "cut", "header", "tensor", "text", "other"])
def test_a_file_that_is_no_checkpoint_is_refused_run_by_nobody_and_left_alone(kind, resume, here, tmp_path):
    Bomb.path = tmp_path / "ran"
    plain(here)
    whole = here.read_bytes()
    contents = {
        "pickle": pickle.dumps(Bomb()),
        "cut": whole[: len(whole) // 2],
        "header": whole[:40] + bytes([whole[40] ^ 1]) + whole[41:],
        "tensor": whole[:-40] + bytes([whole[-40] ^ 1]) + whole[-39:],  # one bit of a number
        "text": b"notes on the weather",
    }
    if kind == "torch":
        torch.save(Bomb(), here)
    elif kind == "other":
        files.write(here, {}, {"model": "VAE"})
    else:
        here.write_bytes(contents[kind])
    before = here.read_bytes()
    with pytest.raises(ValueError, match="checkpoint"):
        plain(here, resume=resume)
    assert here.read_bytes() == before
    assert not Bomb.path.exists()


def test_resume_needs_a_path():
    with pytest.raises(ValueError, match="resume needs checkpoint="):
        plain(None, resume=True)


def test_a_path_that_cannot_be_written_is_refused_before_the_run(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere" / "run"):
        with pytest.raises(ValueError, match="checkpoint must be the path of a file in a folder that exists"):
            plain(path)


def test_another_number_of_threads_is_said(here):
    with one_thread():
        plain(here)
    torch.set_num_threads(2)
    with pytest.warns(probdl.ConvergenceWarning, match="written on 1 threads, this run has 2"):
        plain(here, resume=True)


def test_no_file_is_left_beside_the_checkpoint_and_it_holds_no_program(here):
    how = plain(here, checkpoint_seconds=0.0)
    assert isinstance(how, Descent)
    assert [p.name for p in here.parent.iterdir()] == [here.name]
    tensors, header = files.read(here)
    assert header["kind"] == "checkpoint"
    assert len(tensors) > 10
