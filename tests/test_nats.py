"""A row on a cluster of three NATS nodes that loses one of them: no plan beyond the lease, and no event for anybody."""

import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from polcad.testing_nats import NatsCluster, NatsServer
from tests.brokers import nats_conf
from tests.chaos.judge import longest
from tests.chaos.meter import Meter
from tests.fake_nvml.control import FakeNvml
from tests.live_row import FAIL_SAFE, FREE_MHZ, LEASE_S, SLACK_S, LiveRow, Watch, Wiretap, clock_mhz
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
    _lose(next(node for node in cluster.nodes if _hears_at("daemon-row", node)), row, cluster)


@pytest.mark.slow
def test_losing_any_node_loses_no_plan_beyond_the_lease_and_no_event(row: LiveRow, cluster: NatsCluster) -> None:
    for node in cluster.nodes:
        _lose(node, row, cluster)
        node.start()
        row.until_clocks(FREE_MHZ, FREE_MHZ, AGREED_S)
    _lose(cluster.leader(), row, cluster)


@pytest.mark.slow
def test_with_a_lease_of_15_s_no_node_falls_to_its_fail_safe_where_the_lost_node_led_the_sessions(
    tmp_path: Path, cluster: NatsCluster, fake_nvml_nodes: Callable[..., FakeNvml], fake_nvml_lib: Path
) -> None:
    lease_s = 15.0
    with LiveRow(tmp_path, cluster, fake_nvml_nodes) as row:
        row.write_config(lease_s=lease_s)
        row.start_all()
        lost = cluster.leader("$MQTT_sess")
        while not _hears_at("agent-n1", lost):  # a client takes any node
            row.programs["n1"].kill()
            row.agent("n1")
            until(lambda: any(_hears_at("agent-n1", node) for node in cluster.nodes), AGREED_S)
        row.until_followed(AGREED_S)
        with Watch(row.boards["n1"].gpus) as watch, Meter(fake_nvml_lib, row.all_gpus()) as meter:
            killed_s = time.monotonic()
            lost.stop(signal.SIGKILL)
            row.load(1.0)
            until(lambda: "n1" in {said.node for said in row.tap.nouns("telemetry", killed_s + SLACK_S)}, 2 * AGREED_S)
            row.until_followed(AGREED_S)
        assert FAIL_SAFE not in {step.after for step in watch.steps}  # which is no lock of a high priority
        assert longest([(look.t, look.row_w > row.budget_w) for look in meter.looks]) < lease_s + SLACK_S


def _lose(lost: NatsServer, row: LiveRow, cluster: NatsCluster) -> None:
    """Kill a node as the row jumps over its budget."""
    with ExitStack() as stack:
        ears = [stack.enter_context(Wiretap(node.spec("ear"))) for node in cluster.nodes if node is not lost]
        ears.append(row.tap)  # whose own node may be the one
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
    return Counter(map(str, ear.nouns("event", began_s)))


def _log(row: LiveRow) -> str:
    return row.programs["daemon"].log.read_text()


def _hears_at(client: str, node: NatsServer) -> bool:
    """Whether this client, but for what it acknowledges, is connected there."""
    return any(re.search(rf"polcad-{client}-\w+-quick$", name) for name in node.mqtt_clients())
