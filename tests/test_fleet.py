from dataclasses import replace

import numpy as np
import pytest

from polcad.fleet import Fleet
from polcad.model import (
    FREE,
    LeaseState,
    NodePlacement,
    Obedience,
    Outcome,
    Placement,
    Priority,
    Role,
    Rule,
    Setpoint,
    Telemetry,
    Why,
)
from polcad.orders import order
from polcad.spec import BRAKE, FAIL_SAFE, GuardSpec, NodeSpec, RackSpec, RowSpec
from polcad.testing import telemetry
from polcad.word import Word

GUARD = GuardSpec()
LOCK = Setpoint(0.787)


def fleet(*nodes: NodeSpec) -> Fleet:
    nodes = nodes or (NodeSpec("n1", gpus=2), NodeSpec("n2", gpus=2))
    return Fleet(RowSpec("row", 5000.0, (), nodes), GUARD)


def hear(row: Fleet, message: Telemetry, now_s: float = 0.0) -> tuple[float, bool]:
    slot = row.slot_of(message.node, "rack")
    assert slot is not None
    return row.hear(slot, message, now_s)


def silent_w(row: Fleet, *, after_s: float) -> float:
    """What the first node counts so long after time 0."""
    row.age(after_s)
    return float(row.counted_w[0])


def bound_w(clock_frac: float) -> float:
    """What a board of 700 W may draw under a lock, with the highest of the measured curves."""
    shares = {0.787: (0.736 - 0.2) / 0.8, 0.204: 0.3, 1.0: 1.0}
    return 700.0 * (0.17 + 0.83 * shares[round(clock_frac, 3)])


def test_a_message_tells_how_much_the_nodes_power_changed() -> None:
    row = fleet()
    assert hear(row, telemetry("n1", 300.0, gpus=2)) == (600.0, True)
    assert hear(row, telemetry("n1", 250.0, gpus=2, seq=2)) == (-100.0, True)
    assert row.counted_w[0] == 500.0


def test_a_listed_servers_own_part_is_counted_until_it_is_measured() -> None:
    row = fleet(NodeSpec("n1", gpus=2, host_w=900.0))
    hear(row, telemetry("n1", 300.0, gpus=2))
    assert row.counted_w[0] == 1500.0
    hear(row, telemetry("n1", 300.0, gpus=2, seq=2, host_power_w=1100.0))
    assert row.counted_w[0] == 1100.0


def test_a_node_is_stale_after_three_of_its_periods_and_told_once() -> None:
    row = fleet(NodeSpec("n1"))
    hear(row, telemetry("n1", 100.0, period_s=4.0))
    assert row.age(12.0) == ([], [])
    assert row.age(12.1) == ([0], [])
    assert row.age(13.0) == ([], [])
    hear(row, telemetry("n1", 100.0, period_s=4.0, seq=2), 14.0)
    assert row.age(14.0) == ([], [0])


@pytest.mark.parametrize(("period_s", "stale_s"), [(0.001, 3.0), (1.0, 3.0), (12.0, 36.0), (3600.0, 120.0)])
def test_no_period_makes_a_node_stale_too_soon_or_believed_for_hours(period_s: float, stale_s: float) -> None:
    row = fleet(NodeSpec("n1"))
    hear(row, telemetry("n1", 100.0, period_s=period_s))
    assert row.age(stale_s) == ([], [])
    assert row.age(stale_s + 0.1) == ([0], [])


def test_a_node_never_heard_counts_its_boards_and_one_out_of_service_nothing() -> None:
    row = fleet(NodeSpec("n1", gpus=4, gpu_max_w=500.0, host_w=800.0), NodeSpec("n2", in_service=False))
    row.age(0.0)
    assert row.counted_w[:2].tolist() == [2800.0, 0.0]
    assert not row.all_heard()


@pytest.mark.parametrize(
    ("setpoint", "told", "after_s", "expected_w"),
    [
        (FREE, FREE, 4.0, 700.0),
        (LOCK, LOCK, 4.0, bound_w(0.787)),
        (LOCK, FREE, 4.0, 700.0),  # it may hear what it is told, though nobody hears it
        (FREE, LOCK, 4.0, 700.0),  # it may not have heard
        (FREE, LOCK, 60.0, 700.0),  # its lease is over, but nobody may be left there to take the fail-safe
        (BRAKE, BRAKE, 8.0, bound_w(0.204)),
        (Setpoint(1.0, 0.5), Setpoint(1.0, 0.5), 4.0, 350.0),
    ],
)
def test_a_silent_gpu_counts_the_most_that_it_was_told_or_reported_allows(
    setpoint: Setpoint, told: Setpoint, after_s: float, expected_w: float
) -> None:
    row = fleet()
    hear(row, telemetry("n1", 200.0, gpus=2, setpoint=setpoint))
    order(row, [Rule("row", told, Why.T1)])
    assert silent_w(row, after_s=after_s) == pytest.approx(2 * expected_w, rel=1e-3)


@pytest.mark.parametrize("outcome", [Outcome.OVERRIDDEN, Outcome.FAILED, Outcome.DENIED, Outcome.UNMANAGED])
def test_a_gpu_that_does_not_do_as_told_may_draw_all_when_silent(outcome: Outcome) -> None:
    row = fleet()
    hear(row, telemetry("n1", 200.0, gpus=2, setpoint=BRAKE, outcome=outcome))
    order(row, [Rule("row", BRAKE, Why.BRAKE)])
    assert silent_w(row, after_s=60.0) == 1400.0


def test_a_node_that_follows_no_plan_may_draw_all_when_silent() -> None:
    row = fleet()
    hear(row, telemetry("n1", 200.0, gpus=2, setpoint=BRAKE, plan=Obedience(lease=LeaseState.NONE)))
    order(row, [Rule("row", BRAKE, Why.BRAKE)])
    assert silent_w(row, after_s=60.0) == 1400.0


@pytest.mark.parametrize(
    ("enforced_w", "expected_w"), [((300.0, 300.0), 600.0), ((0.0, None), 1400.0), ((1e5, 1e5), 1400.0), ((), 1400.0)]
)
def test_an_enforced_limit_bounds_a_silent_gpu_only_if_it_can_be_true(
    enforced_w: tuple[float | None, ...], expected_w: float
) -> None:
    row, said = fleet(), telemetry("n1", 200.0, gpus=2)
    hear(row, said)
    hear(
        row, replace(said, seq=2, reading=replace(said.reading, gpus=replace(said.reading.gpus, enforced_w=enforced_w)))
    )
    assert silent_w(row, after_s=60.0) == expected_w


def test_a_limit_that_is_reported_no_more_bounds_no_more() -> None:
    row, said = fleet(), telemetry("n1", 200.0, gpus=2)
    limited = replace(said.reading.gpus, enforced_w=(300.0, 300.0))
    hear(row, replace(said, reading=replace(said.reading, gpus=limited)))
    hear(row, replace(said, seq=2))
    assert silent_w(row, after_s=60.0) == 1400.0


def test_boards_of_different_sizes_are_judged_each_by_its_own() -> None:
    row, said = fleet(), telemetry("n1", (300.0, 30.0), setpoint=FREE)

    def reading(*power_w: float) -> Telemetry:
        gpus = replace(said.reading.gpus, power_w=power_w, max_w=(700.0, 70.0))
        return replace(said, reading=replace(said.reading, gpus=gpus))

    assert hear(row, reading(300.0, 30.0)) == (330.0, True)
    assert hear(row, reading(300.0, 300.0)) == (0.0, False)  # a spike on the small one
    assert hear(row, reading(5.0, 30.0)) == (0.0, False)  # a zero on the large one


def test_a_board_whose_size_becomes_known_late_is_counted_by_it() -> None:
    row = fleet()
    hear(row, telemetry("n1", 300.0, gpus=2, max_w=None))
    assert silent_w(row, after_s=60.0) == 1400.0
    hear(row, telemetry("n1", 300.0, gpus=2, max_w=1000.0, seq=2), 60.0)
    assert silent_w(row, after_s=120.0) == 2000.0


def test_arrays_grow_with_nodes_and_gpus_and_forget_nothing() -> None:
    row = fleet()
    hear(row, telemetry("n1", 300.0, gpus=2, setpoint=LOCK))
    for number in range(40):
        hear(row, telemetry(f"x{number}", 100.0, gpus=64 if number == 20 else 2))
    assert row.gpu_w.shape[1] == 64
    assert row.counted_w[0] == 600.0
    assert row.clock_frac[0, :2].tolist() == [0.787, 0.787]
    assert float(row.counted_w.sum()) == 600.0 + 39 * 200.0 + 6400.0
    assert row.present[0].sum() == 2


def test_a_lost_gpu_counts_its_last_power_until_its_agent_starts_anew() -> None:
    row = fleet()
    hear(row, telemetry("n1", (300.0, 250.0), uuids=("a", "b")))
    hear(row, telemetry("n1", (300.0,), uuids=("a",), seq=2))
    assert row.counted_w[0] == 550.0
    hear(row, telemetry("n1", (310.0,), uuids=("a",), seq=3, period_s=2.0))
    assert row.counted_w[0] == 560.0
    assert silent_w(row, after_s=60.0) == 950.0
    hear(row, telemetry("n1", (310.0,), uuids=("a",), boot_id="next"), 60.0)
    assert row.counted_w[0] == 310.0


def test_a_lost_gpu_counts_no_more_once_its_agent_has_started_anew_and_is_otherwise_as_before() -> None:
    row = fleet()
    hear(row, telemetry("n1", (300.0, 250.0), uuids=("a", "b")))
    hear(row, telemetry("n1", (300.0,), uuids=("a",), seq=2))
    hear(row, telemetry("n1", (300.0,), uuids=("a",), boot_id="next"))
    assert row.counted_w[0] == 300.0


def test_a_message_of_new_readings_alone_is_not_kept() -> None:
    row = fleet()
    first = telemetry("n1", 300.0, setpoint=LOCK)
    hear(row, first)
    kept = row.word(0)
    gpus = replace(first.reading.gpus, power_w=(310.0,) * 8, temp_c=(60.0,) * 8, util_frac=(0.5,) * 8)
    reading = replace(first.reading, gpus=gpus, host_power_w=3000.0)
    hear(row, replace(first, seq=9, t=8.0, dropped=3, reading=reading))
    assert row.word(0) is kept
    assert row.seq(0) == 9


def test_a_message_is_kept_that_says_anything_else_than_the_one_before() -> None:
    row = fleet()
    last = telemetry("n1", 300.0, gpus=2, setpoint=LOCK)
    gpus, force = last.reading.gpus, last.in_force
    assert force is not None
    for news in (
        last,
        replace(last, boot_id="next"),
        replace(last, period_s=2.0),
        replace(last, plan=Obedience(lease=LeaseState.EXPIRED)),
        replace(last, in_force=None),
        *(
            replace(last, reading=replace(last.reading, gpus=each))
            for each in (
                replace(gpus, uuid=("a", "b")),
                replace(gpus, max_w=(700.0, 500.0)),
                replace(gpus, enforced_w=(400.0, 400.0)),
                replace(gpus, fault=(None, "lost")),
            )
        ),
        *(
            replace(last, in_force=each)
            for each in (
                replace(force, clock_frac=(0.5, 1.0)),
                replace(force, cap_frac=(0.5, 1.0)),
                replace(force, outcome=(Outcome.OK, Outcome.FAILED)),
                replace(force, detail=("", "refused")),
            )
        ),
    ):
        hear(row, news)
        assert row.word(0) == Word.of(news)


def test_a_node_whose_driver_reloads_counts_as_a_whole_server_meanwhile_and_then_as_before() -> None:
    row = fleet(NodeSpec("n1", gpus=2, host_w=500.0))
    hear(row, telemetry("n1", 300.0, gpus=2))
    hear(row, telemetry("n1", (), seq=2))
    assert row.counted_w[0] == 1900.0
    hear(row, telemetry("n1", 300.0, gpus=2, seq=3))
    assert row.counted_w[0] == 1100.0


def test_a_placement_by_uuid_holds_whatever_the_order_of_the_gpus() -> None:
    row = fleet()
    high = Placement(Priority.HIGH, Role.PROMPT)
    row.place(NodePlacement("n1", Placement(), {"b": high}))
    hear(row, telemetry("n1", 100.0, uuids=("a", "b"), gpus=2))
    one = row.class_of[0, :2].tolist()
    hear(row, telemetry("n1", 100.0, uuids=("b", "a"), gpus=2, seq=2))
    assert row.class_of[0, :2].tolist() == one[::-1]
    assert one[0] != one[1]


def test_a_pools_clock_is_the_mean_in_force_on_its_gpus() -> None:
    row = fleet()
    row.place(NodePlacement("n1", Placement(pool="sm"), {"b": Placement(pool="ll")}))
    row.place(NodePlacement("n2", Placement(pool="sm")))
    assert row.pool_clocks_frac() == {}
    hear(row, telemetry("n1", 100.0, uuids=("a", "b"), gpus=2, setpoint=LOCK))
    hear(row, telemetry("n2", 100.0, gpus=2, setpoint=FREE))
    assert row.pool_clocks_frac() == pytest.approx({"sm": (0.787 + 2 * 1.0) / 3, "ll": 0.787})


def test_orders_reach_row_rack_node_and_gpu_and_the_strictest_stands() -> None:
    nodes = (
        NodeSpec("n1", "a", gpus=2),
        NodeSpec("n2", "a", gpus=2, priority=Priority.HIGH),
        NodeSpec("n3", "b", gpus=2),
    )
    row = Fleet(RowSpec("row", 5000.0, (RackSpec("a"), RackSpec("b")), nodes), GUARD)
    hear(row, telemetry("n3", 100.0, uuids=("x", "y"), gpus=2))
    rules = [
        Rule("row", Setpoint(0.9), Why.T1, Priority.LOW),
        Rule("rack/a", Setpoint(0.8, 0.7), Why.T2),
        Rule("node/n1", Setpoint(0.5), Why.OPERATOR),
        Rule("gpu/y", Setpoint(0.3), Why.OPERATOR),
        Rule("node/nowhere", BRAKE, Why.OPERATOR),
        Rule("rack/nowhere", BRAKE, Why.OPERATOR),
        Rule("gpu/nowhere", BRAKE, Why.OPERATOR),
    ]
    order(row, rules)
    assert row.wanted_clock[:3, :2].tolist() == [[0.5, 0.5], [0.8, 0.8], [0.9, 0.3]]
    assert row.wanted_cap[:3, :2].tolist() == [[0.7, 0.7], [0.7, 0.7], [1.0, 1.0]]
    order(row, [])
    assert np.all(row.wanted_clock == 1.0)


def test_orders_agree_with_what_a_node_takes_from_the_plan_itself() -> None:
    row = fleet(NodeSpec("n1", "a", gpus=2, priority=Priority.HIGH, role=Role.TOKEN))
    placement = Placement(Priority.HIGH, Role.TOKEN)
    for scope in ("row", "rack/a", "rack/b", "node/n1"):
        for priority in (None, *Priority):
            for role in (None, *Role):
                rule = Rule(scope, FAIL_SAFE, Why.T1, priority, role)
                order(row, [rule])
                taken = FAIL_SAFE if rule.matches("a", "n1", "g", placement) else FREE
                assert row.wanted_clock[0, 0] == taken.clock_frac
