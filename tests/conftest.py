"""Fixtures that more than one test file uses."""

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pynvml
import pytest

from polcad.testing_brokers import Broker, Mosquitto, StartMosquitto
from tests.brokers import Kind, broker_of
from tests.fake_nvml.control import FakeNode, FakeNvml, build


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--broker nats` or `bridge`: run the tests that any broker must pass on that one, and no others."""
    parser.addoption("--broker", type=Kind, choices=list(Kind), default=Kind.MOSQUITTO)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests that speak of Mosquitto, or of no broker, when another broker is asked for."""
    kind = config.getoption("broker")
    if kind is Kind.MOSQUITTO:
        return
    wanted = [item for item in items if "any_broker" in getattr(item, "fixturenames", ()) and _serves(kind, item)]
    config.hook.pytest_deselected(items=[item for item in items if item not in wanted])
    items[:] = wanted


def _serves(kind: Kind, item: pytest.Item) -> bool:
    return kind is not Kind.BRIDGE or item.get_closest_marker("unbridged") is None


def pytest_configure(config: pytest.Config) -> None:
    """Let the quick run do without compiling the simulation's kernels: that takes longer than their tests."""
    if config.option.markexpr == "not integration":
        os.environ["NUMBA_DISABLE_JIT"] = "1"


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[StartMosquitto]:
    """Starts a real Mosquitto with the given lines of configuration; ``{port}`` in them is a free port."""
    with ExitStack() as stack:
        yield lambda *lines: stack.enter_context(Mosquitto(tmp_path, lines))


@pytest.fixture
def any_broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    """The broker that this run is for, of a row whose site is "site" and whose name is "row"."""
    with broker_of(request.config.getoption("broker"), tmp_path) as running:
        yield running


@pytest.fixture(scope="session")
def fake_nvml_lib(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a libnvidia-ml.so.1 without a GPU, compiled once a run."""
    source = Path(__file__).parent / "fake_nvml" / "nvml.c"
    return build(source, tmp_path_factory.mktemp("fake-nvml") / "lib")


@pytest.fixture
def fake_nvml_nodes(fake_nvml_lib: Path, tmp_path: Path) -> Callable[..., FakeNvml]:
    """Makes nodes by name; each has its own GPUs, and `env` for the processes that shall see them."""

    def make(name: str, gpus: int = 8) -> FakeNvml:
        node = FakeNode(fake_nvml_lib, tmp_path / f"{name}.nvml", gpus, prefix=f"GPU-{name}")
        return FakeNvml(fake_nvml_lib, node, node.env)

    return make


@pytest.fixture
def fake_nvml(fake_nvml_nodes: Callable[..., FakeNvml]) -> FakeNvml:
    """A node of 8 GPUs."""
    return fake_nvml_nodes("fake")


@pytest.fixture
def gpus_here(fake_nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch) -> FakeNode:
    """The GPUs of `fake_nvml`, seen by this very process: the library is loaded ahead under its soname."""
    monkeypatch.setenv("POLCAD_FAKE_NVML", fake_nvml.env["POLCAD_FAKE_NVML"])
    ctypes.CDLL(str(fake_nvml.lib_dir / "libnvidia-ml.so.1"), ctypes.RTLD_GLOBAL)
    pynvml.nvmlInit()
    driver = pynvml.nvmlSystemGetDriverVersion()
    pynvml.nvmlShutdown()
    assert driver == "000.00-fake", "a real driver was loaded before: these tests set limits, and must not touch it"
    return fake_nvml.control
