"""A row over two Mosquittos with a bridge that breaks and returns: its nodes at one, its daemon at the other."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from polcad.config import load
from polcad.model import NodePlacement, Placement, Priority
from polcad.testing_brokers import BridgedMosquittos, Mosquitto
from polcad.wire import Address, Message, encode
from tests.brokers import bridge_conf, open_conf, page_block
from tests.chaos.proxy import Proxy
from tests.fake_nvml.control import FakeNvml
from tests.live_row import FAIL_SAFE, FREE_MHZ, LEASE_S, SLACK_S, LiveRow, Watch, Wiretap
from tests.secured import AS_ROOT
from tests.waiting import until

pytestmark = pytest.mark.integration


def test_a_bridge_that_breaks_leaves_every_board_fail_safe_and_brings_all_back_that_was_said_meanwhile(
    tmp_path: Path, fake_nvml_nodes: Callable[..., FakeNvml]
) -> None:
    broker = BridgedMosquittos(tmp_path, bridge_conf())
    with Proxy(broker.upper.port) as bridge:
        broker.lower = Mosquitto(tmp_path, [line.replace("{upper}", str(bridge.port)) for line in bridge_conf()])
        with broker, LiveRow(tmp_path, broker, fake_nvml_nodes) as row:
            row.start_all()
            row.until_clocks(FREE_MHZ, FREE_MHZ)
            with Watch(row.all_gpus()) as watch, Wiretap(broker.lower.port) as below:
                broken_s = time.monotonic()
                bridge.cut("up", "down")
                row.until_clocks(FAIL_SAFE, FAIL_SAFE)
                until(lambda: len(watch.steps) >= len(row.all_gpus()))
                assert max(step.t for step in watch.steps) - broken_s < LEASE_S + SLACK_S
                moved = NodePlacement("n1", Placement(Priority.HIGH, pool="moved"), source="scheduler")
                row.tap.send(encode(Address("site", "row", "placement", "r1", "n1"), moved))
                back_s = time.monotonic()
                bridge.mend()
                until(lambda: moved in below.nouns("placement", back_s))
                row.until_followed()
                row.until_clocks(FREE_MHZ, FREE_MHZ)
                until(lambda: bool(watch.loosened()))
                assert min(step.t for step in watch.loosened()) > back_s
            with Wiretap(broker.lower.port) as late:  # it is kept there, for an agent that comes later
                until(lambda: moved in late.nouns("placement"))
            assert not late.nouns("hold") + late.nouns("daemon") + late.nouns("event")


def test_no_message_comes_twice_over_a_bridge(tmp_path: Path) -> None:
    broker = BridgedMosquittos(tmp_path, bridge_conf())
    with broker, Wiretap(broker.upper.port) as above, Wiretap(broker.lower.port) as below:
        placement = Address("site", "row", "placement", "r1", "n1")
        until(lambda: _crosses(above, below, encode(placement, NodePlacement("n1", source="first"))))
        told = [NodePlacement("n1", source=f"{number}") for number in range(10)]
        for each in told:
            above.send(encode(placement, each))
        until(lambda: told[-1] in below.nouns("placement"))
        assert [each for each in below.nouns("placement") if each in told] == told
        assert [each for each in above.nouns("placement") if each in told] == told


def _crosses(above: Wiretap, below: Wiretap, message: Message) -> bool:
    above.send(message)
    return bool(below.heard)


def test_the_pages_other_configurations_are_what_they_say(tmp_path: Path) -> None:
    with Mosquitto(tmp_path, [*open_conf(tmp_path), *AS_ROOT]) as broker, Wiretap(broker.port) as tap:
        tap.send(encode(Address("site", "row", "placement", "r1", "n1"), NodePlacement("n1")))
    config = tmp_path / "polcad.toml"
    config.write_text(page_block("/etc/polcad/polcad.toml"))
    assert [node.host for node in load([config], {}).broker.nodes()] == [
        f"nats{number}.example" for number in (1, 2, 3)
    ]
