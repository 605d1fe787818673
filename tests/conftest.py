"""Options of the tests: --device, --dtype, --slow; float64 unless a test says otherwise."""

import signal

import matplotlib
import pytest
import torch

matplotlib.use("Agg")

SPREAD = {"test_examples.py", "test_doctests.py"}


def pytest_addoption(parser):
    parser.addoption("--device", default="cpu", help="device that the tests run on, such as cuda")
    parser.addoption("--dtype", default="float64", choices=["float32", "float64"])
    parser.addoption("--slow", action="store_true", help="run the slow tests too")


def pytest_configure(config):
    if hasattr(config, "workerinput"):  # one of several processes: more threads than cores are many times slower
        torch.set_num_threads(1)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Keep the tests of a file together, with its fixtures; those of SPREAD come last, one by one, to fill the end."""
    items.sort(key=lambda item: item.path.name in SPREAD)
    for item in items:
        if item.path.name not in SPREAD:
            item.add_marker(pytest.mark.xdist_group(item.path.name))
    if config.getoption("--slow"):
        return
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="slow; run with --slow"))


@pytest.fixture(scope="session")
def device(request):
    name = request.config.getoption("--device")
    if name.startswith("cuda") and not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    return torch.device(name)


@pytest.fixture(scope="session")
def dtype(request):
    return getattr(torch, request.config.getoption("--dtype"))


@pytest.fixture(scope="session", autouse=True)
def _interruptible():
    """Let Ctrl-C interrupt: a shell that starts the tests in the background makes its children ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
    yield
    assert torch.get_default_dtype() is torch.float32, "a test or the package changed the global default dtype"
