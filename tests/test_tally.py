from dataclasses import replace

import pytest

from polcad.fleet import Fleet
from polcad.model import FREE, Outcome, Priority, Role, Rule, Setpoint, Telemetry, Why
from polcad.orders import order
from polcad.spec import BRAKE, GuardSpec, NodeSpec, RackSpec, RowSpec
from polcad.tally import looser, node_columns, strictest_reported, tally
from polcad.testing import telemetry

GUARD = GuardSpec()
LOW, HIGH = (Priority.LOW, Role.MIXED), (Priority.HIGH, Role.TOKEN)
LOCK = Setpoint(1110 / 1410)
IDLE = GUARD.idle_frac


def fleet() -> Fleet:
    nodes = (
        NodeSpec("n1", "a", gpus=2, host_w=100.0),
        NodeSpec("n2", "a", gpus=2, priority=Priority.HIGH, role=Role.TOKEN),
        NodeSpec("n3", "b", gpus=2, priority=Priority.HIGH, role=Role.TOKEN),
    )
    return Fleet(RowSpec("row", 5000.0, (RackSpec("a"), RackSpec("b"), RackSpec("empty")), nodes), GUARD)


def hear(row: Fleet, *messages: Telemetry) -> Fleet:
    for message in messages:
        row.hear(row.slots[message.node], message, 0.0)
    return row


def heard(setpoint: Setpoint = FREE, power_w: float = 300.0) -> Fleet:
    return hear(fleet(), *(telemetry(name, power_w, gpus=2, setpoint=setpoint) for name in ("n1", "n2", "n3")))


def test_sums_are_kept_by_rack_and_class_and_add_up_to_the_row() -> None:
    totals = tally(heard(), IDLE)
    row, a, b = totals.classes(None), totals.classes(0), totals.classes(1)
    assert {name: group.power_w for name, group in row.items()} == {LOW: 600.0, HIGH: 1200.0}
    assert {name: group.gpus for name, group in a.items()} == {LOW: 2, HIGH: 2}
    assert {name: group.max_w for name, group in b.items()} == {HIGH: 1400.0}
    assert totals.classes(2) == {}
    assert totals.host_w.tolist() == [100.0, 0.0, 0.0]


def test_a_rack_summed_alone_is_the_same_rack() -> None:
    row = heard(LOCK, 350.0)
    whole, alone = tally(row, IDLE), tally(row, IDLE, 0)
    assert alone.classes(0) == whole.classes(0)
    assert alone.host_w[0] == whole.host_w[0]
    hear(row, telemetry("n1", 410.0, gpus=2, seq=2, setpoint=LOCK))
    whole.take(0, tally(row, IDLE, 0))
    assert whole.classes(0) == tally(row, IDLE).classes(0)
    assert whole.classes(1) == tally(row, IDLE).classes(1)


def test_demand_is_what_a_free_gpu_draws() -> None:
    assert tally(heard(), IDLE).classes(None)[LOW].demand_w == 600.0


def test_demand_is_more_the_deeper_the_lock_and_never_more_than_the_boards() -> None:
    demands_w = [
        tally(heard(setpoint), IDLE).classes(None)[LOW].demand_w
        for setpoint in (FREE, Setpoint(0.9), LOCK, Setpoint(0.5), BRAKE)
    ]
    assert demands_w == sorted(demands_w)
    assert demands_w[-1] <= 1400.0
    idle_w = 0.17 * 700.0
    assert demands_w[2] == pytest.approx(2 * (idle_w + (300.0 - idle_w) / ((0.701 - 0.2) / 0.8)))


def test_a_gpu_at_its_power_limit_hides_its_demand_and_one_below_it_shows_it() -> None:
    capped = Setpoint(1.0, 0.5)
    assert tally(heard(capped, 345.0), IDLE).classes(None)[LOW].demand_w == 1400.0
    assert tally(heard(capped, 200.0), IDLE).classes(None)[LOW].demand_w == 400.0


def test_a_silent_gpus_demand_is_all_its_board_can_draw() -> None:
    row = heard(LOCK, 150.0)
    order(row, [Rule("row", LOCK, Why.T2)])
    row.age(60.0)
    low = tally(row, IDLE).classes(None)[LOW]
    assert low.power_w < 1100.0
    assert low.demand_w == 1400.0


def test_reported_setpoints_are_found_by_rack_and_class_the_strictest_first() -> None:
    row = hear(
        heard(LOCK),
        telemetry("n3", 300.0, gpus=2, seq=2, setpoint=Setpoint(0.5, 0.9)),
    )
    assert strictest_reported(row) == [{LOW: LOCK, HIGH: LOCK}, {HIGH: Setpoint(0.5, 0.9)}, {}]


def test_what_others_impose_on_a_gpu_is_not_taken_for_the_rows_own_unless_nobody_else_speaks() -> None:
    imposed = Setpoint(0.3, 0.3)
    row = hear(
        heard(LOCK),
        telemetry("n1", (300.0, 300.0), seq=2, setpoint=imposed, outcome=Outcome.OVERRIDDEN),
    )
    assert strictest_reported(row)[0] == {LOW: imposed, HIGH: LOCK}
    row = Fleet(RowSpec("row", 1.0, (), (NodeSpec("n1", gpus=2), NodeSpec("n2", gpus=2))), GUARD)
    hear(row, telemetry("n1", 300.0, gpus=2, setpoint=LOCK))
    hear(row, telemetry("n2", 300.0, gpus=2, setpoint=imposed, outcome=Outcome.OVERRIDDEN))
    assert strictest_reported(row) == [{LOW: LOCK}]


def test_who_follows_no_plan_or_is_silent_says_nothing_of_what_the_row_holds() -> None:
    row = hear(fleet(), telemetry("n1", 300.0, gpus=2), telemetry("n2", 300.0, gpus=2, setpoint=LOCK))
    row.age(60.0)
    assert strictest_reported(row) == [{}, {}, {}]


def test_a_gpu_is_looser_than_its_plan_beyond_a_step_of_the_clock_grid() -> None:
    row = heard(LOCK)
    row.wanted_clock[:] = LOCK.clock_frac - 0.011
    assert not looser(row).any()
    row.wanted_clock[:] = LOCK.clock_frac - 0.013
    assert looser(row).sum() == 6
    row.suspect[0] = True
    row.stale[1] = True
    assert looser(row).any(axis=1).tolist() == [False, False, True]


def test_what_a_gpu_draws_that_does_not_follow_its_lock_is_moved_by_none_until_it_follows() -> None:
    row = heard(LOCK)
    row.wanted_clock[:] = LOCK.clock_frac
    hear(row, telemetry("n2", 390.0, gpus=2, seq=2, setpoint=FREE, outcome=Outcome.OVERRIDDEN))
    group = tally(row, IDLE).classes(0)[HIGH]
    assert (group.idle_w, group.demand_w) == (780.0, 780.0)
    hear(row, telemetry("n2", 300.0, gpus=2, seq=3, setpoint=LOCK))
    assert tally(row, IDLE).classes(0)[HIGH].idle_w < 780.0 / 2


def test_a_gpu_that_cannot_tell_what_it_holds_obeys_a_free_plan_alone() -> None:
    said = telemetry("n1", 300.0, gpus=2, setpoint=FREE, outcome=Outcome.DENIED)
    assert said.in_force is not None
    row = hear(fleet(), replace(said, in_force=replace(said.in_force, clock_frac=(None, None))))
    assert not looser(row).any()
    row.wanted_clock[:] = LOCK.clock_frac
    assert looser(row)[0].sum() == 2


def test_nodes_are_drawn_with_what_is_known_of_them() -> None:
    row = hear(fleet(), telemetry("n1", (300.0, None), setpoint=LOCK), telemetry("n3", (), host_power_w=900.0))
    columns = node_columns(row)
    assert columns.name == ("n1", "n2", "n3")
    assert columns.power_w[1] is None
    assert columns.power_w[2] == 900.0
    assert columns.clock_frac == (LOCK.clock_frac, None, None)
    assert columns.fault[1] == "never heard"
    assert columns.priority == (Priority.LOW, Priority.HIGH, Priority.HIGH)
