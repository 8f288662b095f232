"""Rows of so many racks that not all of their rules, or not all that is to be told of them, go into one message."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import replace
from itertools import product

import pytest

from polcad.abridging import LEFT_OUT
from polcad.brevity import Brevity
from polcad.controller import Controller
from polcad.holds import MAX_HOLDS
from polcad.model import (
    DomainStatus,
    Event,
    EventKind,
    Gpus,
    InForce,
    LeaseState,
    NodePlacement,
    Obedience,
    Outcome,
    Outlook,
    Placement,
    Plan,
    Priority,
    Reading,
    Role,
    RowStatus,
    Rule,
    Setpoint,
    SiteRow,
    SiteStatus,
    Telemetry,
    Why,
)
from polcad.ports import Heard, Held, Output, Placed, Tick
from polcad.spec import BRAKE, FAIL_SAFE, GuardSpec, NodeSpec, RackSpec, RowSpec
from polcad.wire import MAX_PAYLOAD_BYTES, Address, decode, encode
from policies.polca import Polca

T0 = 1_760_000_000.0
PLAN, STATUS = Address("site", "row", "plan"), Address("site", "row", "daemon")
CLASSES = tuple(product((Priority.HIGH, Priority.LOW), (Role.PROMPT, Role.TOKEN, Role.MIXED, Role.TRAINING)))
DWELL_S = 30.0
LONGEST = 2.2250738585072014e-308  # of the fractions there are, written as JSON
LONG_NAME = "x" * 60


def rules_of(racks: int, name: str = "r", holds: int = 0) -> list[Rule]:
    """A rule of its own for each class of each rack, one that holds a single node, and some that hold single GPUs."""
    each = [
        Rule(f"rack/{name}{rack:04}", Setpoint(0.4 + (rack * 7 + place * 3) % 50 / 100), Why.T2, priority, role)
        for rack in range(racks)
        for place, (priority, role) in enumerate(CLASSES)
    ]
    held = [f"gpu/GPU-{hold:036}" for hold in range(holds)]
    row = Rule("row", Setpoint(0.95), Why.T1, Priority.LOW)
    return [row, *each, *(Rule(scope, BRAKE, Why.OPERATOR) for scope in ("node/n1", *held))]


def plan_of(rules: tuple[Rule, ...]) -> Plan:
    return Plan("row", 1, 1, T0, 5.0, FAIL_SAFE, rules)


def crosses(plan: Plan) -> bool:
    """Whether nodes take the plan as it was said."""
    _, heard = decode(encode(PLAN, plan))
    return bool(heard == plan)


def never() -> bool:
    return False


def test_a_row_of_a_hundred_racks_says_every_rule_by_itself() -> None:
    rules = rules_of(100)
    assert Brevity(DWELL_S).take(T0, rules, never) == (tuple(rules), [])


@pytest.mark.parametrize(
    ("racks", "name", "holds", "left"),
    [(314, "r", 0, 2 * 314 + 2), (1024, LONG_NAME, 0, 1024 + 2), (1024, LONG_NAME, MAX_HOLDS, 1 + 2 + MAX_HOLDS)],
    ids=["each priority", "each rack", "the row"],
)
def test_a_plan_too_long_is_said_in_fewer_and_stricter_rules_that_cross(
    racks: int, name: str, holds: int, left: int
) -> None:
    rules = rules_of(racks, name, holds)
    assert len(encode(PLAN, plan_of(tuple(rules))).payload) > MAX_PAYLOAD_BYTES
    said, [told] = Brevity(DWELL_S).take(T0, rules, never)
    assert (len(said), told.kind, told.scope) == (left, EventKind.TIGHTEN, "row")
    assert crosses(plan_of(said))
    for rack in range(0, racks, 100):
        for place in CLASSES:
            where = (f"{name}{rack:04}", "n1" if rack == 300 else "n2", "GPU", Placement(*place))
            wanted = plan_of(tuple(rule for rule in rules if rule.scope in {"row", f"rack/{where[0]}", "node/n1"}))
            assert plan_of(said).setpoint(*where).strictest(wanted.setpoint(*where)) == plan_of(said).setpoint(*where)


def test_a_single_nodes_hold_binds_that_node_alone_however_short_the_plan() -> None:
    said, _ = Brevity(DWELL_S).take(T0, rules_of(1024, LONG_NAME, MAX_HOLDS), never)
    assert plan_of(said).setpoint("elsewhere", "n2", "GPU", Placement()).clock_frac > BRAKE.clock_frac


def test_a_brake_is_still_called_a_brake_among_stricter_rules() -> None:
    braked = Rule("rack/r0000", Setpoint(0.5), Why.BRAKE, Priority.HIGH, Role.MIXED)
    said, _ = Brevity(DWELL_S).take(T0, [braked, *rules_of(1024)], never)
    assert plan_of(said).brake


def test_the_longest_rules_that_are_said_by_themselves_cross() -> None:
    tightest = Setpoint(LONGEST, LONGEST)
    longest = [Rule("row", tightest, Why.T2_HIGH, Priority.HIGH, Role.TRAINING)] * 9
    longest += [Rule("gpu/" + 124 * "\x01", tightest, Why.OPERATOR)] * MAX_HOLDS
    rack = Rule(f"rack/{'x' * 64}", tightest, Why.FORECAST, Priority.HIGH, Role.TRAINING)

    def is_too_long(racks: int) -> bool:
        return bool(Brevity(DWELL_S).take(T0, [*longest, *(racks * [rack])], never)[1])

    most = bisect_left(range(1024), x=True, key=is_too_long) - 1
    assert most > 0
    assert crosses(plan_of((*longest, *(most * [rack]))))


def test_more_words_are_used_again_after_a_dwell_and_when_the_racks_would_do_with_their_own() -> None:
    brevity = Brevity(DWELL_S)
    brevity.take(T0, rules_of(314), never)
    few = rules_of(100)
    short, told = brevity.take(T0 + DWELL_S - 1.0, few, lambda: True)
    assert (len(short), told) == (202, [])
    assert brevity.take(T0 + DWELL_S, few, never) == (short, [])
    said, [told_last] = brevity.take(T0 + DWELL_S + 1.0, few, lambda: True)
    assert (said, told_last.kind) == (tuple(few), EventKind.LOOSEN)


# --- a whole row ----------------------------------------------------------------------------------------------------

RACKS = 314


def row_of(nodes: int) -> RowSpec:
    racks = tuple(RackSpec(f"r{rack}", 0.9 * 5600.0 * nodes) for rack in range(RACKS))
    specs = tuple(NodeSpec(f"n{rack}-{n}", f"r{rack}") for rack in range(RACKS) for n in range(nodes))
    return RowSpec("row", 0.9 * 5600.0 * len(specs), racks, specs)


def uuids_of(node: NodeSpec) -> tuple[str, ...]:
    return tuple(f"{node.name}-{place}" for place in range(8))


def reported(node: NodeSpec) -> tuple[Setpoint, ...]:
    """What each GPU of a node was told by a daemon before: in every rack and class something else."""
    rack = int(node.rack[1:])
    return tuple(Setpoint(0.4 + (rack * 7 + place * 3) % 50 / 100) for place in range(8))


def message_of(node: NodeSpec, seq: int) -> Telemetry:
    clocks = tuple(setpoint.clock_frac for setpoint in reported(node))
    force = InForce(uuids_of(node), clocks, (1.0,) * 8, (Outcome.OK,) * 8)
    reading = Reading(Gpus(uuids_of(node), (400.0,) * 8, (700.0,) * 8))
    return Telemetry(node.name, "boot", seq, T0, 1.0, reading, force, Obedience(1, 1, LeaseState.HELD))


class Played:
    """A controller that takes over a row; every tenth node falls silent after its first word."""

    def __init__(self, nodes: int) -> None:
        self.row = row_of(nodes)
        self.controller = Controller(self.row, GuardSpec(), Polca(), 2)
        self.placements = {
            node.name: NodePlacement(
                node.name, gpus={uuid: Placement(*of) for uuid, of in zip(uuids_of(node), CLASSES, strict=True)}
            )
            for node in self.row.nodes
        }
        self.said: list[Output] = []
        for placement in self.placements.values():
            self.said += self.controller.on(Placed(T0, placement))

    def second(self, seq: int) -> Plan:
        t = T0 + seq
        for number, node in enumerate(self.row.nodes):
            if seq == 1 or number % 10:
                self.said += self.controller.on(Heard(t, message_of(node, seq), node.rack))
        self.said += self.controller.on(Tick(t))
        return [output for output in self.said if isinstance(output, Plan)][-1]


@pytest.mark.parametrize("nodes", [1, pytest.param(32, marks=pytest.mark.integration)])
def test_a_row_of_314_racks_that_all_have_rules_keeps_its_plan_through_holds_and_silence(nodes: int) -> None:
    played = Played(nodes)
    resumed = played.second(1)
    assert len(resumed.rules) >= 2 * RACKS
    for number in range(MAX_HOLDS):
        scope = f"node/{played.row.nodes[number].name}"
        played.said += played.controller.on(Held(T0 + 1.0, f"h{number}", scope, BRAKE, T0 + 900.0))
    plans = [resumed, *(played.second(seq) for seq in range(2, 6))]
    assert played.controller.status(T0 + 5.0).nodes_stale == -(-len(played.row.nodes) // 10)
    assert all(crosses(plan) for plan in plans)
    for number, node in list(enumerate(played.row.nodes))[:: len(played.row.nodes) // 8]:
        placement = played.placements[node.name]
        for uuid, had in zip(uuids_of(node), reported(node), strict=True):
            wanted = BRAKE if number < MAX_HOLDS else had
            assert plans[-1].setpoint(node.rack, node.name, uuid, placement.of(uuid)).covers(wanted)
    details = [output.detail for output in played.said if isinstance(output, Event)]
    assert sum("more than a message takes" in detail for detail in details) == 1
    status = encode(STATUS, played.controller.status(T0 + 5.0))
    assert decode(status)[1].domains[0].scope == "row"


# --- statuses -------------------------------------------------------------------------------------------------------


def test_a_status_too_long_tells_of_the_row_and_of_the_racks_that_matter_and_how_many_it_leaves_out() -> None:
    note, outlook = "would draw " * 10, Outlook(0.99, 2.0, 12345.678, 300.0, 12345.678)
    rules = {10: (Rule("rack/r10", BRAKE, Why.BRAKE),), 20: (Rule("rack/r20", FAIL_SAFE, Why.T2),)}
    racks = [
        DomainStatus(f"rack/r{rack}", 1000.0, float(rack % 900), 900.0, rules.get(rack, ()), T0, note, outlook)
        for rack in range(1024)
    ]
    row = DomainStatus("row", 1e6, 5e5, 5e5, (), T0)
    status = RowStatus("row", online=True, epoch=1, domains=(row, *racks), counters={"ticks": 3})
    _, heard = decode(encode(STATUS, status))
    told = [domain.scope for domain in heard.domains]
    assert told[0] == "row"
    assert {"rack/r10", "rack/r20", "rack/r899"} <= set(told)
    assert "rack/r900" not in told  # it draws nothing
    assert told[1:] == [rack.scope for rack in racks if rack.scope in told]
    assert heard.counters == {"ticks": 3, LEFT_OUT: 1025 - len(told)}


def test_a_site_of_more_rows_than_a_message_takes_is_told_of_too() -> None:
    row = SiteRow("row", *(6 * (1234567.1234567,)), note="silent: " * 20)
    rows = tuple(replace(row, row=f"row{n:04}{LONG_NAME}"[:64]) for n in range(1024))
    _, heard = decode(encode(Address("site", "", "site"), SiteStatus("site", online=True, epoch=1, rows=rows)))
    assert len(heard.rows) + heard.counters[LEFT_OUT] == len(rows)
