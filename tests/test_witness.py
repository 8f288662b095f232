from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest

from polcad.fleet import Fleet
from polcad.model import FREE, Event, EventKind, Rule, Setpoint, Why
from polcad.orders import order
from polcad.ports import Heard
from polcad.spec import GuardSpec, NodeSpec, RowSpec
from polcad.testing import telemetry
from polcad.witness import Witness

GUARD = GuardSpec()


class Desk:
    """A fleet of one node, and who watches it."""

    def __init__(self) -> None:
        self.counters: Counter[str] = Counter()
        self.fleet = Fleet(RowSpec("row", 1000.0, (), (NodeSpec("n1", gpus=2),)), GUARD)
        self.witness = Witness(self.fleet, GUARD, self.counters)

    def say(
        self, seq: int, boot_id: str = "boot", now_s: float = 0.0, node: str = "n1"
    ) -> tuple[bool, list[EventKind]]:
        """Whether the message was taken, and what was told."""
        said = telemetry(node, 300.0, gpus=2, seq=seq, boot_id=boot_id, setpoint=FREE)
        slot, told = self.witness.admit(Heard(0.0, said), now_s)
        if slot is not None:
            self.fleet.hear(slot, said, now_s)
        return slot is not None, kinds(told)

    def want(self, clock_frac: float) -> None:
        """Let a plan lock the whole row."""
        order(self.fleet, [Rule("row", Setpoint(clock_frac), Why.OPERATOR)])


def kinds(told: Sequence[Event]) -> list[EventKind]:
    return [event.kind for event in told]


def test_messages_of_one_run_are_taken_in_order_once() -> None:
    desk = Desk()
    assert [desk.say(seq)[0] for seq in (3, 3, 2, 4, 10, 5)] == [True, False, False, True, True, False]
    assert desk.counters["out_of_order"] == 3


def test_a_new_run_may_count_from_the_start() -> None:
    desk = Desk()
    desk.say(100)
    assert desk.say(1, "second") == (True, [])


def test_two_runs_in_turn_are_two_agents_until_one_has_been_quiet_for_long() -> None:
    desk = Desk()
    assert [desk.say(*said)[1] for said in ((1, "a"), (1, "b"))] == [[], []]
    assert desk.say(2, "a")[1] == [EventKind.DUPLICATE_NAME]
    assert desk.say(2, "b")[1] == []
    assert desk.fleet.suspect[0]
    desk.witness.end_doubts(18.0)
    assert desk.fleet.suspect[0]
    desk.witness.end_doubts(18.1)
    assert not desk.fleet.suspect[0]
    assert desk.counters["duplicate_names"] == 1


def test_many_restarts_are_no_duplicates_and_are_not_remembered_for_ever() -> None:
    desk = Desk()
    assert {kind for run in range(100) for kind in desk.say(1, f"run{run}", float(run))[1]} == set()
    assert desk.say(2, "run0", 100.0)[1] == []
    assert desk.say(2, "run99", 101.0)[1] == [EventKind.DUPLICATE_NAME]


def test_runs_that_change_faster_than_an_agent_can_start_are_two_agents() -> None:
    desk = Desk()  # of which the one has a new name each time, and so many that nobody remembers the other's
    told = [desk.say(1, f"run{run}", 0.01 * run)[1] for run in range(20)]
    assert [kind for each in told for kind in each] == [EventKind.DUPLICATE_NAME]
    assert desk.fleet.suspect[0]


def test_a_sensor_that_fails_and_mends_is_told_once_each() -> None:
    desk = Desk()
    desk.say(1)
    event = Heard(0.0, telemetry("n1", (None, 300.0)))
    told = [
        kinds(desk.witness.note_sensors(0, event, believed=believed)) for believed in (True, False, False, True, True)
    ]
    assert told == [[], [EventKind.SENSOR_FAULT], [], [EventKind.SENSOR_OK], []]
    assert desk.witness.blind == frozenset()


def test_a_node_has_time_to_obey_and_is_told_of_once() -> None:
    desk = Desk()
    desk.say(1)
    desk.want(0.5)
    patience_s = GUARD.latency_s + GUARD.stale_after_s
    told = [kinds(desk.witness.compare_obedience(0.0, now_s)) for now_s in (0.0, patience_s, patience_s + 0.1, 9.0)]
    assert told == [[], [], [EventKind.NOT_OBEYED], []]
    desk.fleet.stale[0] = True
    assert desk.witness.compare_obedience(0.0, 10.0) == []
    desk.fleet.stale[0] = False
    desk.want(1.0)
    assert kinds(desk.witness.compare_obedience(0.0, 11.0)) == [EventKind.OBEYED]


@pytest.mark.parametrize("detail", ["", "gpu GPU-1: held at 500 W by the BMC"])
def test_the_excuse_of_a_node_is_told(detail: str) -> None:
    desk = Desk()
    said = telemetry("n1", 300.0, gpus=2, setpoint=Setpoint(1.0))
    assert said.in_force is not None
    desk.fleet.hear(0, replace(said, in_force=replace(said.in_force, detail=("", detail))), 0.0)
    desk.fleet.wanted_cap[:] = 0.5
    desk.witness.compare_obedience(0.0, 0.0)
    event = desk.witness.compare_obedience(0.0, 60.0)[0]
    assert event.detail == (detail or "runs looser than its plan, and gives no reason")


def test_a_node_in_another_rack_than_the_inventorys_is_told_once() -> None:
    desk = Desk()
    first = Heard(0.0, telemetry("n1", 300.0, gpus=2, seq=1), "elsewhere")
    slot, events = desk.witness.admit(first, 0.0)
    assert slot == 0
    assert kinds(events) == [EventKind.MISPLACED]
    desk.fleet.hear(0, first.telemetry, 0.0)
    assert desk.witness.admit(Heard(1.0, telemetry("n1", 300.0, gpus=2, seq=2), "elsewhere"), 1.0) == (0, ())
