"""What the nouns become as points: every one a row of the table, and nothing that is not known."""

from __future__ import annotations

from dataclasses import replace

from polcad.measurements import COUNTERS, SCHEMA, Value
from polcad.model import (
    ClassStatus,
    DomainStatus,
    Event,
    EventKind,
    Gpus,
    Hint,
    InForce,
    LeaseState,
    NodeColumns,
    NodePlacement,
    Obedience,
    Outcome,
    Outlook,
    Placement,
    Plan,
    PoolLoad,
    Priority,
    Reading,
    Role,
    RowStatus,
    Rule,
    Setpoint,
    Telemetry,
    Why,
)
from polcad.points import LoopFigures, Points
from polcad.ports import Heard, Point, SinkCounts

T = 1.8e9
RULE = Rule("row", Setpoint(0.787), Why.T1, Priority.LOW)
GPUS = Gpus(
    uuid=("GPU-a", "GPU-b"),
    power_w=(300.0, None),
    max_w=(400.0, 400.0),
    average_w=(290.0, None),
    energy_j=(5e6, 6e6),
    util_frac=(0.9, 0.8),
    memory_frac=(0.5, 0.6),
    sm_mhz=(1110.0, 1110.0),
    max_mhz=(1410.0, 1410.0),
    temp_c=(60.0, 61.0),
    throttle=(0x44, 0),
    limit_w=(400.0, 400.0),
    enforced_w=(400.0, 400.0),
    fault=(None, "power: GPU is lost"),
)
FORCE = InForce((), (0.787, None), (1.0, None), (Outcome.OVERRIDDEN, Outcome.FAILED), ("", "lost"))
SAID = Telemetry(
    "n1", "b1", 7, T - 0.2, 1.0, Reading(GPUS, host_power_w=900.0), FORCE, Obedience(3, 4, LeaseState.HELD)
)
PLACEMENT = NodePlacement("n1", Placement(pool="chat"), {"GPU-b": Placement(Priority.HIGH, Role.TOKEN)})
PLAN = Plan("row1", 3, 4, T - 1.0, 5.0, Setpoint(0.787), (RULE,))
OUTLOOK = Outlook(0.99, 40.0, 8500.0, 300.0, 8800.0, 0.991, 0.02)
STATUS = RowStatus(
    "row1",
    online=True,
    epoch=3,
    seq=4,
    t=T,
    thresholds={"t1": 0.8, "brake": 1.0},
    domains=(DomainStatus("row", 9000.0, 7500.0, 8000.0, (RULE,), T - 30.0, "changed 30 s ago", OUTLOOK),),
    classes=(ClassStatus(Priority.LOW, Role.MIXED, 8, 2000.0, Setpoint(0.787), 7),),
    nodes=2,
    nodes_stale=1,
    gpus=8,
    reaction_p99_s=1.5,
    counters={**dict.fromkeys(COUNTERS, 5), "of_a_later_version": 1},
)
LOOP = LoopFigures(0.01, 0.002, 1.2, 1.1, {("row", Why.T1): 30.0, ("row", Why.BRAKE): 2.0})
NODES = NodeColumns(
    ("n1", "n2"),
    ("r1", "r2"),
    (300.0, None),
    (800.0, 800.0),
    (None, None),
    (False, True),
    (1.0, None),
    (1.0, None),
    ("", ""),
)
HINT = Hint("chat", "row1", T - 5, T + 600, 3, 4, 0.8, 2220.0, 5.0, 4000.0, 9000.0, 1500.0, why="new epoch")
LOAD = PoolLoad("chat", "chat-0", T, 4, 60.0, 2.0, 200.0, 600.0, 4, 0, 0.3, 0.1, 0.2, 0.02, 0.04)


def every_point() -> list[Point]:
    points = Points("site", "row1")
    return [
        *points.plan(PLAN),
        *points.telemetry(Heard(T - 1, SAID, "r1"), PLACEMENT),
        *points.telemetry(Heard(T, SAID, "r1"), PLACEMENT),
        *points.status(STATUS, LOOP),
        *points.nodes(T, NODES),
        *points.event(Event(T, EventKind.TIGHTEN, "row", "low: clock .787 (t1)", 7500.0, 9000.0)),
        *points.hints(T, (HINT,)),
        *points.load(T, LOAD),
        *points.sinks(T, {"influxdb": SinkCounts(written=9)}),
    ]


def of(points: list[Point], measurement: str) -> list[Point]:
    return [point for point in points if point.measurement == measurement]


def test_every_measurement_and_field_of_the_table_is_told_and_nothing_else() -> None:
    found: dict[str, set[str]] = {}
    for point in every_point():
        found.setdefault(point.measurement, set()).update(point.fields)
    assert found == {name: {each.name for each in measurement.fields} for name, measurement in SCHEMA.items()}


def test_tags_and_kinds_are_those_of_the_table() -> None:
    kinds = {Value.FLOAT: float, Value.INTEGER: int, Value.TEXT: str}
    for point in every_point():
        measurement = SCHEMA[point.measurement]
        assert all(value for _, value in point.tags)
        assert {name for name, _ in point.tags} >= set(measurement.tags) - {"pool"}
        assert {name for name, _ in point.tags} <= set(measurement.tags)
        for each in measurement.fields:
            assert isinstance(point.fields.get(each.name, kinds[each.value]()), kinds[each.value]), each


def test_a_gpu_is_told_with_what_runs_on_it_and_without_what_is_not_known() -> None:
    first, second = of(Points("site", "row1").telemetry(Heard(T, SAID, "r1"), PLACEMENT), "polcad_gpu")
    assert dict(first.tags) == {
        "site": "site",
        "row": "row1",
        "rack": "r1",
        "node": "n1",
        "gpu": "0",
        "uuid": "GPU-a",
        "priority": "low",
        "role": "mixed",
        "pool": "chat",
    }
    assert (first.fields["throttled_by"], first.fields["overridden"], first.t) == ("sw_power_cap+hw_thermal", 1, T)
    assert {("priority", "high"), ("role", "token")} <= set(second.tags)
    assert second.fields.keys().isdisjoint({"power_w", "clock_frac"})
    assert second.fields["fault"] == "power: GPU is lost"


def test_gpus_carry_their_new_class_from_the_message_on_that_follows_a_new_placement() -> None:
    points = Points("site", "row1")
    points.telemetry(Heard(T, SAID, "r1"), PLACEMENT)
    moved = NodePlacement("n1", Placement(Priority.HIGH))
    after = of(points.telemetry(Heard(T + 1, SAID, "r1"), moved), "polcad_gpu")
    assert {dict(point.tags)["priority"] for point in after} == {"high"}


def test_a_node_tells_how_old_its_news_and_its_plan_are() -> None:
    node = of(every_point(), "polcad_node")[1]
    assert node.fields["gap_s"] == 1.0
    assert node.fields["plan_age_s"] == 1.0
    assert round(float(node.fields["delay_s"]), 3) == 0.2
    stray = replace(SAID, plan=Obedience(99, 1, LeaseState.EXPIRED))
    fields = of(Points("site", "row1").telemetry(Heard(T, stray, "r1"), PLACEMENT), "polcad_node")[0].fields
    assert "plan_age_s" not in fields
    assert (fields["lease"], fields["leased"]) == ("expired", 0)


def test_a_silent_node_is_told_as_stale_each_tick() -> None:
    (point,) = Points("site", "row1").nodes(T, NODES)
    assert (dict(point.tags)["node"], point.fields) == ("n2", {"stale": 1})


def test_a_plan_is_told_when_its_rules_change_and_a_free_one_as_none() -> None:
    points = Points("site", "row1", shadow=True)
    assert len(points.plan(PLAN)) == 1
    assert points.plan(replace(PLAN, seq=5)) == []
    (freed,) = points.plan(replace(PLAN, seq=6, rules=()))
    assert dict(freed.tags)["why"] == "none"
    assert dict(freed.tags)["mode"] == "shadow"
    assert freed.fields == {"clock_frac": 1.0, "cap_frac": 1.0, "seq": 6}


def test_a_cause_that_held_before_is_told_as_over() -> None:
    causes = {dict(point.tags)["why"]: point.fields["active"] for point in of(every_point(), "polcad_cause")}
    assert causes == {"t1": 1, "brake": 0}
