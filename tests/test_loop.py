"""The whole loop, for real: agents over the driver's fake, Mosquitto, the daemon; every one a process."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from polcad.model import EventKind, Hold, LeaseState, Outcome, Setpoint
from polcad.testing_brokers import Broker
from polcad.wire import Address, encode, forget
from tests.fake_nvml.control import NO_PERMISSION, FakeNvml
from tests.live_row import (
    BRAKE,
    DWELL_S,
    FAIL_SAFE,
    FREE_MHZ,
    LEASE_S,
    LOW_T1,
    LOW_T2,
    SLACK_S,
    LiveRow,
    Watch,
    Wiretap,
    clock_mhz,
)
from tests.waiting import until

pytestmark = pytest.mark.integration


@pytest.fixture
def row(tmp_path: Path, any_broker: Broker, fake_nvml_nodes: Callable[..., FakeNvml]) -> Iterator[LiveRow]:
    with LiveRow(tmp_path, any_broker, fake_nvml_nodes) as made:
        yield made


def test_rising_load_locks_the_boards_at_t1_then_t2_and_telemetry_reads_it_back(row: LiveRow) -> None:
    row.start_all()
    row.until_clocks(FREE_MHZ, FREE_MHZ)
    row.load(0.8)
    row.until_clocks(FREE_MHZ, LOW_T1)
    row.load(1.0)
    row.until_clocks(FREE_MHZ, LOW_T2)

    def read_back() -> bool:
        said = row.tap.telemetry("n2")
        force = said and said.in_force
        return bool(force and all(clock == pytest.approx(LOW_T2 / FREE_MHZ) for clock in force.clock_frac))

    until(read_back)
    row.until_status(lambda status: status.counters.get("t1_entries") == status.counters.get("t2_entries") == 1)
    row.until_status(lambda status: status.domains[0].power_w < row.budget_w)
    said, status = row.tap.telemetry("n2"), row.tap.status()
    assert said is not None
    assert said.in_force is not None
    assert said.plan is not None
    assert status is not None
    assert set(said.in_force.outcome) == {Outcome.OK}
    assert (said.plan.epoch, said.plan.lease) == (status.epoch, LeaseState.HELD)
    assert len(row.tap.events(EventKind.TIGHTEN, "row")) == 2
    assert "low: clock 0.787 (t2)" in row.tap.events(EventKind.TIGHTEN, "row")[-1].detail


def test_a_jump_over_the_budget_brakes_every_board_at_once_and_lets_go_when_it_fits(row: LiveRow) -> None:
    row.start_all()
    with Watch(row.all_gpus()) as watch:
        breach_s = time.monotonic()
        row.load(1.0)
        row.until_clocks(BRAKE, BRAKE)
        until(lambda: len(watch.steps) >= len(row.all_gpus()))
        took_s = max(step.t for step in watch.steps) - breach_s
        assert took_s < SLACK_S
    assert row.tap.events(EventKind.BRAKE, "row")
    row.load(0.2)
    row.until_clocks(FREE_MHZ, FREE_MHZ)
    assert row.tap.events(EventKind.BRAKE_RELEASE, "row")


def test_a_killed_daemon_leaves_every_board_fail_safe_and_the_next_one_loosens_none_before_its_time(
    row: LiveRow,
) -> None:
    _, daemon = row.start_all()
    row.load(0.8)
    row.until_clocks(FREE_MHZ, LOW_T1)
    with Watch(row.all_gpus()) as watch:
        killed_s = time.monotonic()
        daemon.kill()
        row.until_clocks(FAIL_SAFE, FAIL_SAFE)
        until(lambda: len(watch.steps) >= len(row.all_gpus()))
        assert max(step.t for step in watch.steps) - killed_s < LEASE_S + SLACK_S
        until(lambda: all(_lease_of(row, name) == LeaseState.EXPIRED for name in row.boards))

        row.load(0.2)
        row.daemon()
        row.until_followed()
        row.until_clocks(FREE_MHZ, FREE_MHZ)
    assert watch.longest_gap_s < DWELL_S / 2  # it sees all: a setting lasts longer
    last_epoch = max(plan.epoch for plan in row.tap.nouns("plan"))
    spoke_s = min(
        received.t
        for received in row.tap.heard
        if received.message.topic.endswith("/plan") and str(last_epoch).encode() in received.message.payload
    )
    assert watch.loosened()
    assert min(step.t for step in watch.loosened()) >= spoke_s + DWELL_S - 0.1
    assert row.tap.events(EventKind.RESUME, "row")
    assert row.tap.events(EventKind.LOOSEN, "row", since=spoke_s)


def test_a_new_daemon_over_a_row_that_still_needs_its_locks_loosens_nothing(row: LiveRow) -> None:
    _, daemon = row.start_all()
    row.load(0.8)
    row.until_clocks(FREE_MHZ, LOW_T1)
    row.load(1.0)
    row.until_clocks(FREE_MHZ, LOW_T2)
    with Watch(row.all_gpus()) as watch:
        daemon.kill()
        row.daemon()
        row.until_followed()
        row.until_status(lambda status: status.seq > 10)
    assert watch.loosened() == []
    assert row.clocks()["n2"] == {LOW_T2}


def test_an_agent_that_restarts_without_a_daemon_stays_fail_safe(row: LiveRow) -> None:
    agents, daemon = row.start_all()
    daemon.kill()
    row.until_clocks(FAIL_SAFE, FAIL_SAFE)
    with Watch(row.all_gpus()) as watch:
        agents["n2"].kill()
        _restart_and_hear(row, "n2")
    assert watch.steps == []
    assert _lease_of(row, "n2") == LeaseState.EXPIRED


def test_an_agent_that_restarts_under_a_daemon_is_never_looser_and_follows_again(row: LiveRow) -> None:
    agents, _ = row.start_all()
    row.load(0.8)
    row.until_clocks(FREE_MHZ, LOW_T1)
    with Watch(row.boards["n2"].gpus) as watch:
        agents["n2"].kill()
        _restart_and_hear(row, "n2")
        until(lambda: row.follows("n2"))
        row.until_clocks(FREE_MHZ, LOW_T1)
    assert all(step.after <= LOW_T1 for step in watch.steps)


def test_a_broker_that_dies_leaves_every_board_fail_safe_and_all_come_back_with_it(row: LiveRow) -> None:
    row.start_all()
    died_s = time.monotonic()
    with Watch(row.all_gpus()) as watch:
        row.broker.stop(9)
        row.until_clocks(FAIL_SAFE, FAIL_SAFE)
        until(lambda: len(watch.steps) >= len(row.all_gpus()))
        assert max(step.t for step in watch.steps) - died_s < LEASE_S + SLACK_S
        back_s = time.monotonic()
        row.broker.start()
        row.until_followed()
        row.until_clocks(FREE_MHZ, FREE_MHZ)
        until(lambda: bool(watch.loosened()))
        assert min(step.t for step in watch.loosened()) > back_s
    with Wiretap(row.broker.spec("late")) as late:  # what it kept is gone, and said again
        until(lambda: {noun.node for noun in late.nouns("placement")} == set(row.boards))


def test_a_setpoint_outside_the_boards_range_is_clamped_and_reported(row: LiveRow) -> None:
    row.start_all()
    address = Address("site", "row", "hold", hold="low")
    row.tap.send(encode(address, Hold("low", "node/n2", Setpoint(0.01, 0.01), time.time() + 60.0)))
    until(lambda: {(gpu.lock_mhz, gpu.limit_w) for gpu in row.boards["n2"].gpus} == {(210, 100.0)})

    def clamped() -> bool:
        said = row.tap.telemetry("n2")
        return bool(said and said.in_force and set(said.in_force.outcome) == {Outcome.CLAMPED})

    until(clamped)
    said = row.tap.telemetry("n2")
    assert said is not None
    assert said.in_force is not None
    assert "below" in said.in_force.detail[0]
    assert row.clocks()["n1"] == {FREE_MHZ}
    row.tap.send(forget(address))
    row.until_clocks(FREE_MHZ, FREE_MHZ)
    until(lambda: {gpu.limit_w for gpu in row.boards["n2"].gpus} == {400.0})
    assert row.tap.events(EventKind.HOLD, "node/n2")
    assert row.tap.events(EventKind.HOLD_END, "node/n2")


def test_boards_that_refuse_hang_or_are_lost_are_told_and_the_others_go_on(
    tmp_path: Path, any_broker: Broker, fake_nvml_nodes: Callable[..., FakeNvml]
) -> None:
    low = dict.fromkeys(("n1", "n2", "n3"), "low")
    with LiveRow(tmp_path, any_broker, fake_nvml_nodes, low) as row:
        row.start_all()
        row.boards["n2"].gpus[0].fail_writes(NO_PERMISSION)
        row.boards["n2"].gpus[1].hold_limit(150.0)
        row.boards["n1"].gpus[0].vanish()
        row.boards["n3"].gpus[0].hang()
        row.load(0.95)
        healthy = (row.boards["n1"].gpus[1], row.boards["n2"].gpus[1], row.boards["n3"].gpus[1])
        until(lambda: all(clock_mhz(gpu) <= LOW_T1 for gpu in healthy), 15.0)
        assert clock_mhz(row.boards["n2"].gpus[0]) == FREE_MHZ
        for node, place, outcome in (
            ("n2", 0, Outcome.DENIED),
            ("n2", 1, Outcome.OVERRIDDEN),
            ("n1", 0, Outcome.FAILED),
            ("n3", 0, Outcome.FAILED),
        ):
            _until_outcome(row, node, place, outcome)
        _until_told(row, EventKind.SENSOR_FAULT, "node/n1")
        _until_told(row, EventKind.SENSOR_FAULT, "node/n3")
        _until_told(row, EventKind.NOT_OBEYED, "node/n2")
        said = row.tap.telemetry("n3")
        assert said is not None
        assert said.reading.gpus.power_w[0] is None
        assert "has not returned" in (said.reading.gpus.fault[0] or "")
        for gpu in row.all_gpus():
            gpu.well()


def _until_outcome(row: LiveRow, node: str, place: int, outcome: Outcome) -> None:
    until(lambda: bool((said := row.tap.telemetry(node)) and said.in_force and said.in_force.outcome[place] == outcome))


def _until_told(row: LiveRow, kind: EventKind, scope: str) -> None:
    until(lambda: bool(row.tap.events(kind, scope)))


def _lease_of(row: LiveRow, name: str) -> LeaseState | None:
    said = row.tap.telemetry(name)
    return said.plan.lease if said and said.plan else None


def _restart_and_hear(row: LiveRow, name: str) -> None:
    """Start a node's agent again, and wait until it has said more than a few words."""
    before = row.tap.telemetry(name)
    row.agent(name)

    def spoke() -> bool:
        said = row.tap.telemetry(name)
        return bool(said and before and said.boot_id != before.boot_id and said.seq > 5)

    until(spoke, 10.0)
