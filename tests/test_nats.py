"""A row on a cluster of three NATS nodes that loses one of them: no plan beyond the lease, and no event."""

import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from polcad.daemon import told
from polcad.testing_nats import NatsCluster, NatsServer
from tests.brokers import nats_conf
from tests.fake_nvml.control import FakeNvml
from tests.live_row import FAIL_SAFE, FREE_MHZ, LEASE_S, SLACK_S, LiveRow, Wiretap, clock_mhz
from tests.waiting import until

pytestmark = pytest.mark.integration

AGREED_S = 40.0  # nodes that lost their leader elect another within 4 to 9 s, then the next thing that it led
_TOLD = re.compile(r"^INFO polcad\.daemon: ((?:row|rack/\S+|node/\S+|gpu/\S+): .*)$", re.MULTILINE)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[NatsCluster]:
    with NatsCluster(tmp_path, nats_conf()) as running:
        yield running


@pytest.fixture
def row(tmp_path: Path, cluster: NatsCluster, fake_nvml_nodes: Callable[..., FakeNvml]) -> Iterator[LiveRow]:
    with LiveRow(tmp_path, cluster, fake_nvml_nodes) as made:
        made.start_all()
        yield made


def test_losing_the_node_that_the_daemon_is_on_loses_no_plan_beyond_the_lease_and_no_event(
    row: LiveRow, cluster: NatsCluster
) -> None:
    _lose(_node_of_daemon(row, cluster), row, cluster)


@pytest.mark.slow
def test_losing_any_node_loses_no_plan_beyond_the_lease_and_no_event(row: LiveRow, cluster: NatsCluster) -> None:
    for node in cluster.nodes:
        _lose(node, row, cluster)
        node.start()
        row.until_clocks(FREE_MHZ, FREE_MHZ, AGREED_S)
    _lose(cluster.leader(), row, cluster)


def _lose(lost: NatsServer, row: LiveRow, cluster: NatsCluster) -> None:
    """Kill a node as the row jumps over its budget."""
    with ExitStack() as stack:
        ears = [stack.enter_context(Wiretap(node.spec("ear"))) for node in cluster.nodes if node is not lost]
        begun, began_s = len(_log(row)), time.monotonic()
        lost.stop(signal.SIGKILL)
        row.load(1.0)
        until(lambda: all(clock_mhz(gpu) <= FAIL_SAFE for gpu in row.all_gpus()))
        assert time.monotonic() - began_s < LEASE_S + SLACK_S
        row.load(0.2)
        row.until_followed(AGREED_S)
        until(lambda: bool(_told(row, begun)))
        until(lambda: all(not _told(row, begun) - _heard(ear, began_s) for ear in ears), AGREED_S)


def _told(row: LiveRow, begun: int) -> Counter[str]:
    """The events in the daemon's log."""
    return Counter(_TOLD.findall(_log(row)[begun:]))


def _heard(ear: Wiretap, began_s: float) -> Counter[str]:
    return Counter(told(event) for event in ear.nouns("event", began_s))


def _log(row: LiveRow) -> str:
    return row.programs["daemon"].log.read_text()


def _node_of_daemon(row: LiveRow, cluster: NatsCluster) -> NatsServer:
    port = int(re.findall(r"broker mqtt://127\.0\.0\.1:(\d+): connected", _log(row))[-1])
    return next(node for node in cluster.nodes if node.port == port)
