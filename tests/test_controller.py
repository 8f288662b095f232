from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest

from polcad.controller import Controller
from polcad.errors import OutrankedError
from polcad.holds import MAX_HOLDS
from polcad.model import (
    FREE,
    MAX_GPUS,
    Event,
    EventKind,
    LeaseState,
    NodePlacement,
    Obedience,
    Outcome,
    Placement,
    Plan,
    Priority,
    Role,
    Rule,
    Setpoint,
    Telemetry,
    Why,
)
from polcad.ports import Heard, Held, Placed, Rival, Tick
from polcad.spec import BRAKE, FAIL_SAFE, GuardSpec, NodeSpec, RackSpec, RowSpec
from polcad.testing import LoopRow, telemetry
from polcad.wire import Address, decode, encode
from tests.row_play import GUARD, HIGH_T2, LOW_T1, LOW_T2, T0, Play, controller_of, events, plans, row_spec

NODES = ("n0", "n1", "n2", "n3")  # n0, n2 low; n1, n3 high


def started(row: RowSpec | None = None, power_w: float = 300.0, *, shadow: bool = False) -> Controller:
    """A controller that has heard every node once, and ticked."""
    row = row or row_spec()
    controller = controller_of(row, shadow=shadow)
    for node in row.nodes:
        controller.on(Heard(T0, say(node.name, power_w, 1), node.rack))
    controller.on(Tick(T0))
    return controller


def say(node: str, power_w: float, seq: int, **more: object) -> Telemetry:
    return telemetry(node, power_w, gpus=2, seq=seq, setpoint=FREE, **more)  # type: ignore[arg-type]  # a test's words


def power_w(controller: Controller, t: float = T0) -> float:
    return controller.status(t).domains[0].power_w


# --- the loop -------------------------------------------------------------------------------------------------------


def test_a_climbing_row_takes_t1_then_t2_then_the_high_priority_and_stays_in_budget() -> None:
    play = Play(row_spec())
    reached: list[tuple[Setpoint, Setpoint]] = []

    def note() -> None:
        pair = play.held("n0"), play.held("n1")
        if not reached or reached[-1] != pair:
            reached.append(pair)
        assert play.used_frac() <= 1.0

    for percent in range(30, 101):
        play.run(2, percent / 100, note)
    assert reached == [(FREE, FREE), (LOW_T1, FREE), (LOW_T2, FREE), (LOW_T2, HIGH_T2)]
    assert EventKind.BRAKE not in play.kinds()
    assert play.controller.over_budget_s == 0.0


def test_the_high_priority_is_locked_only_when_the_low_locks_had_time_to_act() -> None:
    controller = started(power_w=540.0)  # 90.8 %: above T2
    first = controller.status(T0).domains[0].rules
    assert {rule.priority for rule in first} == {Priority.LOW}
    for seq, t in ((2, T0 + 1.0), (3, T0 + 1.9)):
        for node in NODES:
            controller.on(Heard(t, say(node, 540.0, seq)))
        controller.on(Tick(t))
        assert {rule.priority for rule in controller.status(t).domains[0].rules} == {Priority.LOW}
    controller.on(Tick(T0 + 2.0))
    assert {rule.why for rule in controller.status(T0).domains[0].rules} == {Why.T2, Why.T2_HIGH}


def test_a_falling_row_unlocks_one_rung_at_a_time_after_each_dwell_and_does_not_flutter() -> None:
    play = Play(row_spec())
    for percent in range(30, 101):
        play.run(2, percent / 100)
    climbed, changes = len(play.log), []
    play.row.load(0.3)
    before = play.held("n0"), play.held("n1")
    for _ in range(200):
        play.second()
        if (now := (play.held("n0"), play.held("n1"))) != before:
            changes.append((play.t, now))
            before = now
    assert [pair for _, pair in changes] == [(LOW_T2, FREE), (LOW_T1, FREE), (FREE, FREE)]
    assert all(later - sooner >= GUARD.dwell_s for (sooner, _), (later, _) in pairwise(changes))
    assert play.kinds().count(EventKind.LOOSEN) == 3
    assert not events([said for _, said in play.log[climbed:]], EventKind.TIGHTEN)


def test_a_steady_load_whose_lock_sheds_more_than_the_gap_does_not_flutter() -> None:
    play = Play(row_spec())
    for percent in range(30, 86):  # slowly, or it would be too late for T1 alone
        play.run(2, percent / 100)
    play.run(300)
    assert play.kinds().count(EventKind.LOOSEN) == 0
    assert play.kinds().count(EventKind.TIGHTEN) <= 2


def test_the_brake_comes_with_the_very_message_that_carries_the_row_over_its_budget() -> None:
    controller = started(power_w=300.0)
    controller.on(Heard(T0 + 0.1, say("n0", 690.0, 2)))
    controller.on(Heard(T0 + 0.2, say("n1", 690.0, 2)))
    assert not [rule for rule in controller.status(T0).domains[0].rules if rule.why is Why.BRAKE]
    controller.on(Heard(T0 + 0.3, say("n2", 690.0, 2)))
    said = controller.on(Heard(T0 + 0.4, say("n3", 690.0, 2)))
    assert [event.kind for event in events(said)] == [EventKind.BRAKE]
    assert plans(said)[0].brake
    assert plans(said)[0].setpoint("rack", "n1", "x", Placement(Priority.HIGH, Role.TOKEN)) == BRAKE


def test_a_threshold_is_decided_on_arrival_between_ticks() -> None:
    controller = started(power_w=470.0)  # 79 %
    said = controller.on(Heard(T0 + 0.1, say("n0", 510.0, 2)))
    assert [event.kind for event in events(said)] == [EventKind.TIGHTEN]
    assert [rule.why for rule in plans(said)[0].rules] == [Why.T1]
    assert controller.on(Heard(T0 + 0.2, say("n0", 511.0, 3))) == []


def test_above_the_budget_the_brake_is_told_and_counted_once() -> None:
    controller = started(power_w=690.0)
    for seq in range(2, 12):
        for node in NODES:
            controller.on(Heard(T0 + seq, say(node, 690.0 + seq, seq)))
        controller.on(Tick(T0 + seq))
    assert controller.counters["brakes"] == 1
    assert controller.over_budget_s >= 9.0


def test_a_braked_row_is_let_go_after_the_brake_dwell_only_as_far_as_its_demand_fits() -> None:
    play = Play(row_spec(budget_frac=0.81))
    play.run(3, 0.3)
    play.run(1, 1.0)  # from far below to 123 % of the budget: no lock could have come in time
    assert play.held("n0") == play.held("n1") == BRAKE
    braked_t = play.t
    play.run(60)
    assert play.held("n0") == BRAKE  # with T2's locks a full load is 97 %: more than the 95 % it may be let go to
    play.run(3, 0.9)
    assert (play.held("n0"), play.held("n1")) == (LOW_T2, HIGH_T2)
    assert play.t - braked_t >= GUARD.brake_dwell_s
    assert play.kinds().count(EventKind.BRAKE_RELEASE) == 1


def test_a_row_over_its_budget_at_the_start_is_braked_before_every_node_has_spoken() -> None:
    controller = controller_of(row_spec(nodes=6, budget_frac=0.5))
    for node in ("n0", "n1", "n2", "n3"):
        controller.on(Heard(T0, say(node, 690.0, 1)))
    assert plans(controller.on(Tick(T0)))[0].brake


def test_it_is_braked_too_when_the_controller_ticked_before_anybody_spoke() -> None:
    controller = controller_of(row_spec(nodes=6, budget_frac=0.5))
    controller.on(Tick(T0))
    for node in ("n0", "n1", "n2", "n3"):
        controller.on(Heard(T0 + 0.5, say(node, 690.0, 1)))
    assert plans(controller.on(Tick(T0 + 1.0)))[0].brake


def test_no_plan_goes_out_until_every_node_has_spoken_or_had_its_time() -> None:
    controller = controller_of(row_spec())
    for node in NODES[:3]:
        controller.on(Heard(T0, say(node, 100.0, 1)))
    for second in range(4):
        assert plans(controller.on(Tick(T0 + second))) == []
        for node in NODES[:3]:
            controller.on(Heard(T0 + second, say(node, 100.0, 2 + second)))
    said = controller.on(Tick(T0 + 4.0))
    assert [event.scope for event in events(said, EventKind.STALE)] == ["node/n3"]
    assert len(plans(said)) == 1


# --- restart --------------------------------------------------------------------------------------------------------


RACKS = {
    "no rack has a budget": (),
    "every rack has one": (RackSpec("a", 2000.0), RackSpec("b", 2700.0)),
    "one rack has one": (RackSpec("a", 2000.0), RackSpec("b")),
}


@pytest.mark.parametrize("racks", RACKS)
@pytest.mark.parametrize("percent", [72, 97])
@pytest.mark.parametrize("away_s", [0, 20])
def test_a_restarted_controller_never_loosens_a_gpu_on_the_way(racks: str, percent: int, away_s: int) -> None:
    play = Play(row_spec(racks=RACKS[racks]))
    for step in range(30, percent + 1):
        play.run(2, step / 100)
    before = play.row.setpoints()

    def no_looser() -> None:
        now = play.row.setpoints()
        assert all(held.covers(before[uuid]) for uuid, held in now.items())
        before.update(now)

    play.controller = controller_of(play.spec, epoch=2)
    for _ in range(away_s):
        play.t += 1.0
        play.row.act(play.t)
        no_looser()
    play.run(int(GUARD.dwell_s) - 1, check=no_looser)


def test_after_the_fail_safe_the_row_comes_back_rung_by_rung() -> None:
    play = Play(row_spec())
    play.run(5, 0.3)
    play.controller = controller_of(play.spec, epoch=2)
    play.t += 60.0
    play.row.act(play.t)
    assert play.held("n1") == FAIL_SAFE
    play.run(5)
    assert EventKind.RESUME in play.kinds()
    assert play.held("n1") == FAIL_SAFE
    play.run(130)
    assert (play.held("n0"), play.held("n1")) == (FREE, FREE)


def test_a_rack_that_was_braked_alone_stays_braked_alone_over_a_restart() -> None:
    spec = row_spec(racks=(RackSpec("a", 2000.0), RackSpec("b", 2700.0)))
    controller = controller_of(spec)
    for node in spec.nodes:
        held = BRAKE if node.rack == "a" else FREE
        said = telemetry(node.name, 250.0, gpus=2, setpoint=held)
        controller.on(Heard(T0, said, node.rack))
    rules = plans(controller.on(Tick(T0)))[0].rules
    assert {rule.scope for rule in rules} == {"rack/a"}
    assert {rule.setpoint for rule in rules} == {BRAKE}


def test_what_a_rack_without_a_budget_reports_is_held_by_the_row() -> None:
    spec = row_spec(racks=(RackSpec("a", 2700.0), RackSpec("b")))
    controller = controller_of(spec)
    for node in spec.nodes:
        held = BRAKE if node.rack == "b" else LOW_T2
        controller.on(Heard(T0, telemetry(node.name, 250.0, gpus=2, setpoint=held), node.rack))
    plan = plans(controller.on(Tick(T0)))[0]
    assert plan.setpoint("b", "n2", "x", Placement()) == BRAKE


@pytest.mark.parametrize("outcome", ["clamped", "overridden", "failed"])
def test_a_restart_holds_what_gpus_report_even_where_none_does_as_told(outcome: str) -> None:
    controller = controller_of(row_spec())
    for node in NODES:
        said = telemetry(node, 250.0, gpus=2, setpoint=Setpoint(0.5, 0.6), outcome=Outcome(outcome))
        controller.on(Heard(T0, said))
    plan = plans(controller.on(Tick(T0)))[0]
    assert plan.setpoint("rack", "n0", "x", Placement()) == Setpoint(0.5, 0.6)


# --- silence and sensors --------------------------------------------------------------------------------------------


def test_silent_nodes_count_their_worst_case_and_nothing_is_loosened_meanwhile() -> None:
    play = Play(row_spec())
    for percent in range(30, 80):
        play.run(2, percent / 100)
    assert play.held("n0") != FREE
    play.row.silent = {"n2", "n3"}
    play.run(5, 0.1)
    status = play.controller.status(play.t)
    assert status.nodes_stale == 2
    spoken_w = sum(play.row.nodes[name].power_w() for name in ("n0", "n1"))
    high_w = 2 * 700.0  # n3 is free: it may draw all
    assert status.domains[0].power_w > spoken_w + high_w
    held = play.row.setpoints()
    play.run(100, check=lambda: check_no_looser(held, play.row.setpoints()))
    assert "n2" in play.controller.status(play.t).domains[0].waiting
    play.row.silent = set()
    play.run(100)
    assert play.held("n0") == FREE
    assert EventKind.FRESH in play.kinds()


def check_no_looser(before: dict[str, Setpoint], now: dict[str, Setpoint]) -> None:
    assert all(held.covers(before[uuid]) for uuid, held in now.items())


@pytest.mark.parametrize("reading", [0.0, 4.0, None, 5000.0, 99_999.0])
def test_a_sensor_that_cannot_be_right_never_lowers_the_counted_power(reading: float | None) -> None:
    controller = started(power_w=400.0)
    before_w = power_w(controller)
    said = controller.on(Heard(T0 + 1, telemetry("n0", (reading, 400.0), seq=2, setpoint=FREE)))
    controller.on(Tick(T0 + 1))
    assert power_w(controller) == pytest.approx(before_w)
    assert [event.kind for event in events(said)] == [EventKind.SENSOR_FAULT]
    for seq in range(3, 9):
        for node in NODES[1:]:
            controller.on(Heard(T0 + seq, say(node, 400.0, seq)))
        controller.on(Heard(T0 + seq, telemetry("n0", (reading, 400.0), seq=seq, setpoint=FREE)))
        controller.on(Tick(T0 + seq))
        assert power_w(controller) >= before_w - 1e-6
    assert power_w(controller) == pytest.approx(before_w + 300.0)  # its board's maximum, now that it is long blind
    mended = controller.on(Heard(T0 + 9, say("n0", 400.0, 9)))
    assert EventKind.SENSOR_OK in [event.kind for event in events(mended)]


def test_a_gap_on_the_controllers_own_side_makes_nobody_stale_and_ends_no_dwell() -> None:
    play = Play(row_spec(), replace(GUARD, lease_s=3600.0))
    for percent in range(30, 66):
        play.run(2, percent / 100)
    play.run(3, 0.3)  # low enough to be let go, but for the dwell
    locked = play.held("n0")
    assert locked != FREE
    play.t += 3000.0
    said = play.controller.on(Tick(play.t))
    assert not events(said, EventKind.STALE)
    assert plans(said)[0].setpoint("rack", "n0", "x", Placement()) == locked


@pytest.mark.parametrize("first", ["tick", "telemetry"])
def test_after_a_gap_that_outlasts_the_leases_nothing_is_loosened_before_the_nodes_were_heard(first: str) -> None:
    play = Play(row_spec())
    play.run(5, 0.3)
    assert play.held("n0") == FREE
    play.t += 60.0
    play.row.load(1.0)  # more than fits without the fail-safe that the nodes have taken meanwhile
    play.row.act(play.t)
    before = play.row.setpoints()
    if first == "tick":
        assert play.on(Tick(play.t)) == []
    play.run(int(GUARD.dwell_s) - 1, check=lambda: check_no_looser(before, play.row.setpoints()))
    assert play.used_frac() < 1.0
    assert play.controller.counters["brakes"] == 0
    assert play.kinds().count(EventKind.RESUME) == 1
    assert EventKind.STALE not in play.kinds()
    play.run(100, 0.3)
    assert play.held("n0") == FREE


def test_after_a_gap_a_node_that_stays_silent_is_waited_for_in_vain_and_keeps_what_it_was_told() -> None:
    play = Play(row_spec())
    for percent in range(30, 90):
        play.run(2, percent / 100)
    locked = play.held("n1")
    assert locked == HIGH_T2
    play.t += 60.0
    play.row.silent = {"n1", "n3"}
    play.run(10)
    assert [output.scope for _, output in play.log if isinstance(output, Event) and output.kind is EventKind.STALE] == [
        "node/n1",
        "node/n3",
    ]
    assert all(play.held(node).covers(locked) for node in ("n1", "n3"))


def test_a_controllers_clock_that_is_set_back_neither_ages_nodes_nor_stops_them_from_ageing() -> None:
    controller = started()
    controller.on(Tick(T0 + 86_400.0))
    for second in range(2):
        assert not events(controller.on(Tick(T0 + second)), EventKind.STALE)
    told = [event for second in range(2, 8) for event in events(controller.on(Tick(T0 + second)), EventKind.STALE)]
    assert len(told) == len(NODES)


@pytest.mark.parametrize("node_t", [0.0, T0 - 7200.0, T0 + 7200.0, 1e11])
def test_a_nodes_own_clock_means_nothing(node_t: float) -> None:
    controller = started()
    for second in range(1, 6):
        for node in NODES:
            controller.on(Heard(T0 + second, replace(say(node, 300.0, second + 1), t=node_t)))
        assert not events(controller.on(Tick(T0 + second)), EventKind.STALE)


# --- names and numbers ----------------------------------------------------------------------------------------------


def test_repeated_and_late_messages_change_nothing() -> None:
    controller = started()
    controller.on(Heard(T0, say("n0", 400.0, 5)))
    before_w = power_w(controller)
    for seq in (5, 4, 1):
        assert controller.on(Heard(T0, say("n0", 100.0, seq))) == []
    controller.on(Tick(T0))
    assert power_w(controller) == pytest.approx(before_w)
    assert controller.counters["out_of_order"] == 3


@pytest.mark.parametrize("agents", [2, 3])
def test_agents_that_share_a_name_are_found_out_and_count_the_worst_case(agents: int) -> None:
    controller = started()
    said = []
    for seq in range(2, 3 * agents):
        said += controller.on(Heard(T0, say("n0", 100.0, seq, boot_id=f"boot{seq % agents}")))
    controller.on(Tick(T0))
    assert len(events(said, EventKind.DUPLICATE_NAME)) == 1
    assert power_w(controller) == pytest.approx(2 * 700.0 + 3 * 600.0)
    assert controller.counters["duplicate_names"] == 1


def test_a_restarted_agent_is_no_duplicate() -> None:
    controller = started()
    said = controller.on(Heard(T0, say("n0", 300.0, 1, boot_id="second")))
    assert said == []
    assert controller.on(Heard(T0, say("n0", 300.0, 2, boot_id="second"))) == []


def test_a_gpu_that_vanishes_goes_on_counting_and_is_the_same_under_another_index() -> None:
    controller = started()
    before_w = power_w(controller)
    one, two = "GPU-n0-0", "GPU-n0-1"
    controller.on(Heard(T0, telemetry("n0", (200.0,), uuids=(two,), seq=2, setpoint=FREE)))
    controller.on(Tick(T0))
    assert power_w(controller) == pytest.approx(before_w - 100.0)
    controller.on(Heard(T0, telemetry("n0", (200.0, 310.0), uuids=(two, one), seq=3, setpoint=FREE)))
    controller.on(Tick(T0))
    assert power_w(controller) == pytest.approx(before_w - 90.0)


def test_a_node_that_makes_up_gpus_counts_no_more_of_them_than_it_can_have() -> None:
    controller = started()
    for seq in range(2, 302):
        controller.on(Heard(T0, telemetry("n0", 300.0, uuids=(f"a{seq}", f"b{seq}"), gpus=2, seq=seq, setpoint=FREE)))
    controller.on(Tick(T0))
    assert power_w(controller) == pytest.approx((4 * 2 + MAX_GPUS) * 300.0)


def test_a_placement_by_uuid_follows_the_gpu_to_its_new_index() -> None:
    controller = started()
    high = NodePlacement("n0", Placement(Priority.LOW), {"GPU-n0-0": Placement(Priority.HIGH)})
    controller.on(Placed(T0, high))
    controller.on(Heard(T0, telemetry("n0", (500.0, 100.0), uuids=("GPU-n0-1", "GPU-n0-0"), seq=2, setpoint=FREE)))
    controller.on(Tick(T0))
    by_class = {each.priority: each.power_w for each in controller.status(T0).classes}
    assert by_class[Priority.HIGH] == pytest.approx(2 * 600.0 + 100.0)


def test_a_node_that_the_inventory_lacks_is_counted_and_told_of_once() -> None:
    controller = started()
    before_w = power_w(controller)
    said = controller.on(Heard(T0, say("stranger", 300.0, 1), "attic"))
    assert [event.kind for event in events(said)] == [EventKind.UNLISTED]
    controller.on(Heard(T0, say("stranger", 300.0, 2), "attic"))
    controller.on(Tick(T0))
    assert power_w(controller) == pytest.approx(before_w + 600.0)
    assert controller.counters["unlisted"] == 1


def test_an_unlisted_node_in_an_unheard_of_rack_brakes_the_row_on_arrival() -> None:
    controller = started(power_w=390.0)
    said = controller.on(Heard(T0, telemetry("stranger", 690.0, gpus=8), "attic"))
    assert plans(said)[0].brake


def test_a_flood_of_made_up_names_is_bounded() -> None:
    controller = started()
    for number in range(1500):
        controller.on(Heard(T0, telemetry(f"x{number}", (1.0,)), "attic"))
    assert controller.status(T0).nodes == 4 + 1024
    assert controller.counters["refused_unlisted"] == 1500 - 1024


def test_what_a_scheduler_says_of_a_node_before_it_speaks_is_kept() -> None:
    controller = started()
    controller.on(Placed(T0, NodePlacement("late", Placement(Priority.HIGH, Role.PROMPT))))
    controller.on(Heard(T0, say("late", 300.0, 1)))
    controller.on(Tick(T0))
    assert (Priority.HIGH, Role.PROMPT) in {(each.priority, each.role) for each in controller.status(T0).classes}


def test_a_node_is_judged_by_the_class_that_it_has_now() -> None:
    controller = started(power_w=500.0)
    controller.on(Tick(T0 + 1))
    assert controller.loose() == {"n0", "n2"}  # locked by T1, and not there yet
    controller.on(Placed(T0 + 1, NodePlacement("n0", Placement(Priority.HIGH))))
    assert controller.loose() == {"n2"}


def test_a_class_that_appears_under_the_brake_is_braked_too() -> None:
    controller = started(power_w=690.0)
    for seq in (2, 3):
        for node in NODES:
            controller.on(Heard(T0 + seq, telemetry(node, 200.0, gpus=2, seq=seq, setpoint=BRAKE)))
        controller.on(Placed(T0 + seq, NodePlacement("n0", Placement(Priority.HIGH, Role.PROMPT))))
        plan = plans(controller.on(Tick(T0 + seq)))[0]
        assert plan.setpoint("rack", "n0", "x", Placement(Priority.HIGH, Role.PROMPT)) == BRAKE


def test_a_64_gpu_node_among_small_ones_is_counted_whole() -> None:
    controller = started()
    before_w = power_w(controller)
    controller.on(Heard(T0, telemetry("big", 20.0, gpus=64)))
    controller.on(Tick(T0))
    assert power_w(controller) == pytest.approx(before_w + 64 * 20.0)
    assert controller.status(T0).gpus == 8 + 64


def test_a_budgeted_rack_without_nodes_harms_nothing() -> None:
    row = replace(row_spec(), racks=(RackSpec("rack"), RackSpec("empty", 100.0)))
    controller = started(row)
    assert {domain.scope for domain in controller.status(T0).domains} == {"row", "rack/empty"}


# --- racks and holds ------------------------------------------------------------------------------------------------


def test_a_rack_over_its_budget_is_braked_on_arrival_while_the_row_is_fine() -> None:
    controller = started(row_spec(budget_frac=1.0, racks=(RackSpec("a", 1500.0), RackSpec("b", 3000.0))), 300.0)
    controller.on(Heard(T0, say("n0", 340.0, 2), "a"))
    said = controller.on(Heard(T0, say("n1", 600.0, 2), "a"))
    assert [(event.kind, event.scope) for event in events(said)] == [(EventKind.BRAKE, "rack/a")]
    plan = plans(said)[0]
    assert plan.setpoint("a", "n1", "x", Placement(Priority.HIGH)) == BRAKE
    assert plan.setpoint("b", "n3", "x", Placement(Priority.HIGH)) == FREE


def test_the_strictest_of_row_rack_and_hold_wins() -> None:
    controller = started(row_spec(racks=(RackSpec("a", 1500.0), RackSpec("b", 3000.0))), 360.0)
    said = controller.on(Held(T0, "work", "node/n0", Setpoint(0.3), T0 + 60))
    plan = plans(said)[0]
    assert plan.setpoint("a", "n0", "x", Placement()) == Setpoint(0.3)
    assert plan.setpoint("a", "n2", "x", Placement()).clock_frac > 0.3
    controller.on(Held(T0, "cap", "rack/a", Setpoint(1.0, 0.4), T0 + 60))
    plan = plans(controller.on(Tick(T0 + 1)))[0]
    assert plan.setpoint("a", "n0", "x", Placement()) == Setpoint(0.3, 0.4)


def test_a_hold_ends_with_its_time_to_live_or_its_release_and_is_told() -> None:
    controller = started()
    assert events(controller.on(Held(T0, "one", "row", Setpoint(0.5), T0 + 2)))[0].kind is EventKind.HOLD
    controller.on(Held(T0, "two", "row", Setpoint(0.6), T0 + 1000))
    for second in (1, 2):
        speak(controller, second)
        said = controller.on(Tick(T0 + second))
    assert [event.kind for event in events(said)] == [EventKind.HOLD_END]
    assert plans(said)[0].setpoint("rack", "n0", "x", Placement()) == Setpoint(0.6)
    released = controller.on(Held(T0 + 2.5, "two"))
    assert [event.kind for event in events(released)] == [EventKind.HOLD_END]
    assert plans(released)[0].rules == ()


def speak(controller: Controller, second: int, watts: float = 300.0) -> None:
    for node in NODES:
        controller.on(Heard(T0 + second, say(node, watts, second + 1)))


def test_a_hold_repeated_by_the_broker_is_told_once_and_one_long_over_not_at_all() -> None:
    controller = started()
    hold = Held(T0, "one", "row", Setpoint(0.5), T0 + 100)
    controller.on(hold)
    assert controller.on(replace(hold, t=T0 + 1)) == []
    assert controller.on(Held(T0 + 2, "old", "row", Setpoint(0.2), T0 - 5)) == []
    assert controller.on(Held(T0 + 3, "unknown")) == []


def test_a_hold_is_not_let_go_into_a_row_that_would_not_fit_without_it() -> None:
    play = Play(row_spec())
    play.run(3, 0.3)
    play.on(Held(play.t, "work", "row", Setpoint(0.5), play.t + 10))
    play.run(30, 1.0)  # free, it would draw 118 % of the budget, and no policy has seen it
    assert EventKind.HOLD_END not in play.kinds()
    assert play.held("n1") == Setpoint(0.5)
    play.run(3, 0.5)
    assert EventKind.HOLD_END in play.kinds()
    assert EventKind.BRAKE not in play.kinds()


def test_a_hold_that_is_renewed_while_it_cannot_be_let_go_is_one_rule_and_a_milder_one_waits() -> None:
    play = Play(row_spec())
    play.run(3, 0.3)
    for _ in range(5):
        play.on(Held(play.t, "work", "row", Setpoint(0.5), play.t + 10))
        play.run(5, 1.0)
    assert [rule.setpoint for rule in last_plan(play).rules if rule.why is Why.OPERATOR] == [Setpoint(0.5)]
    play.on(Held(play.t, "work", "row", Setpoint(0.9), play.t + 10))
    play.run(5)
    assert play.held("n1") == Setpoint(0.5)


@pytest.mark.parametrize("same", ["name", "scope"])
def test_more_holds_than_a_plan_carries_are_refused_and_none_that_binds_is_let_go(same: str) -> None:
    controller = started()
    first = Held(T0, "first", "row", Setpoint(0.5), T0 + 900.0)
    controller.on(first)
    for second in range(1, 6):  # all nodes fall silent: nothing is let go
        controller.on(Tick(T0 + second))
    for number in range(3 * MAX_HOLDS):
        name, scope = (f"h{number}", "row") if same == "scope" else ("h", f"gpu/{number}")
        told = events(controller.on(Held(T0 + 5.0, name, scope, Setpoint(0.9), T0 + 900.0)))
    assert [event.detail for event in told] == [f"hold {name} is refused: 128 holds bind already; release some first"]
    plan = plans(controller.on(Tick(T0 + 6.0)))[0]
    assert sum(rule.why is Why.OPERATOR for rule in plan.rules) == MAX_HOLDS
    assert Rule("row", Setpoint(0.5), Why.OPERATOR) in plan.rules
    assert decode(encode(Address("site", "row", "plan"), plan))[1] == plan
    assert controller.on(replace(first, t=T0 + 6.0, setpoint=Setpoint(0.4)))  # a stricter one takes its place


def last_plan(play: Play) -> Plan:
    return [output for _, output in play.log if isinstance(output, Plan)][-1]


# --- shadow and rivals ----------------------------------------------------------------------------------------------


def test_a_shadow_says_what_it_would_do_and_moves_no_gpu() -> None:
    row = row_spec()
    play = Play(row)
    play.controller = controller_of(row, shadow=True)
    play.run(5, 0.3)
    play.run(5, 0.95)
    assert {output.shadow for _, output in play.log if isinstance(output, Plan)} == {True}
    assert play.controller.counters["brakes"] == 1
    assert set(play.row.setpoints().values()) == {FREE}


def test_a_shadow_beside_a_live_daemon_moves_no_gpu_and_takes_no_row() -> None:
    play = Play(row_spec())
    shadow = controller_of(play.spec, epoch=99, shadow=True)
    for percent in range(30, 86):
        play.run(1, percent / 100)
        for heard in play.row.speak(play.t):
            shadow.on(heard)
        for plan in plans(shadow.on(Tick(play.t))):
            play.row.take(plan, play.t)
    shadow.on(Rival(play.t, 10**12))
    assert play.held("n0") != FREE
    assert {node.lease.obedience(play.t).epoch for node in play.row.nodes.values()} == {1}


def follow(node: str, epoch: int, seq: int) -> Telemetry:
    return say(node, 300.0, seq, plan=Obedience(epoch, 1, LeaseState.HELD))


EPOCH = int(T0 * 1e6)


def test_an_older_daemon_yields_once_nodes_follow_a_newer_one() -> None:
    controller = controller_of(row_spec(), epoch=EPOCH)
    controller.on(Heard(T0, follow("n0", EPOCH, 1)))
    assert [event.kind for event in events(controller.on(Heard(T0, follow("n3", EPOCH + 5, 1))))] == [EventKind.STRAYED]
    controller.on(Heard(T0, follow("n2", EPOCH + 5, 1)))
    with pytest.raises(OutrankedError, match=f"epoch {EPOCH + 5}"):
        controller.on(Heard(T0, follow("n1", EPOCH + 5, 1)))


def test_nodes_that_nobody_listed_end_no_daemon_however_many() -> None:
    controller = controller_of(row_spec(), epoch=EPOCH)
    controller.on(Heard(T0, follow("n0", EPOCH, 1)))
    said = [
        out
        for name in range(100)
        for seq in (1, 2)
        for out in controller.on(Heard(T0, follow(f"x{name}", EPOCH + 5, seq)))
    ]
    assert events(said, EventKind.STRAYED) == []


def test_a_newcomer_with_a_slow_clock_raises_its_epoch_above_what_nodes_follow() -> None:
    controller = controller_of(row_spec(), epoch=EPOCH)
    controller.on(Heard(T0, follow("n0", EPOCH + 3_600_000_000, 1)))
    assert controller.epoch == EPOCH + 3_600_000_001
    controller.on(Heard(T0, follow("n1", EPOCH - 7, 1)))
    assert controller.epoch == EPOCH + 3_600_000_001


@pytest.mark.parametrize("acknowledged", [False, True])
def test_an_absurd_epoch_neither_ends_a_daemon_nor_is_followed(acknowledged: bool) -> None:
    controller = controller_of(row_spec(), epoch=EPOCH)
    if acknowledged:
        controller.on(Heard(T0, follow("n0", EPOCH, 1)))
    controller.on(Heard(T0, follow("n1", 2**53, 1)))
    assert controller.epoch == EPOCH
    assert controller.counters["absurd_epochs"] == 1


@pytest.mark.parametrize(
    "end",
    [
        lambda c: c.on(Rival(T0, EPOCH + 1)),
        lambda c: [c.on(Heard(T0, follow(node, EPOCH + 1, 9))) for node in NODES],
    ],
)
def test_of_two_daemons_one_is_left(end: Callable[[Controller], object]) -> None:
    controller = controller_of(row_spec(), epoch=EPOCH)
    for node in NODES:
        controller.on(Heard(T0, follow(node, EPOCH, 1)))
    assert plans(controller.on(Tick(T0)))
    with pytest.raises(OutrankedError):
        end(controller)


def test_two_daemons_on_one_row_end_with_one_and_no_gpu_is_loosened() -> None:
    play = Play(row_spec())
    for percent in range(30, 86):
        play.run(2, percent / 100)
    before = play.row.setpoints()
    newcomer = controller_of(play.spec, epoch=0)  # its clock is slow
    for _ in range(3):
        play.t += 1.0
        said = play.row.speak(play.t)
        for heard in said:
            newcomer.on(heard)
        for plan in plans(newcomer.on(Tick(play.t))):
            play.row.take(plan, play.t)
        check_no_looser(before, play.row.setpoints())
    with pytest.raises(OutrankedError):
        play.second()


# --- odd telemetry --------------------------------------------------------------------------------------------------


def odd(node: str = "n0") -> list[Telemetry]:
    base = telemetry(node, 300.0, gpus=2, seq=2, setpoint=FREE)
    gpus, force = base.reading.gpus, base.in_force
    assert force is not None

    def but(**columns: object) -> Telemetry:
        return replace(base, reading=replace(base.reading, gpus=replace(gpus, **columns)))  # type: ignore[arg-type]

    return [
        but(max_w=(None, 0.0)),
        but(max_w=(1e5, 700.0)),
        but(enforced_w=(None, 0.0)),
        but(enforced_w=(1e5, 1e5)),
        but(power_w=(None, None)),
        but(uuid=("same", "same"), power_w=(300.0, 310.0)),
        replace(base, in_force=replace(force, uuid=("a", "b"), clock_frac=(None, None), cap_frac=(None, None))),
        replace(base, in_force=None),
        replace(base, plan=None),
        replace(base, period_s=3600.0),
        replace(base, period_s=0.001),
        telemetry(node, (), seq=2, host_power_w=900.0),
        telemetry(node, (), seq=2),
        telemetry(node, 300.0, gpus=64, seq=2),
        telemetry(node, (300.0,), seq=2),
        telemetry(node, 300.0, gpus=2, seq=2, host_power_w=0.0),
        telemetry(node, 300.0, gpus=2, seq=2, host_power_w=1e6),
    ]


@pytest.mark.parametrize("number", range(len(odd())))
def test_odd_telemetry_raises_nothing_and_is_counted_at_no_less_than_a_good_reading(number: int) -> None:
    controller = started()
    others_w = 3 * 600.0
    controller.on(Heard(T0 + 0.5, odd()[number]))
    controller.on(Tick(T0 + 1.0))
    controller.status(T0 + 1.0)
    controller.nodes()
    assert power_w(controller) >= others_w + 600.0 - 1e-6
    controller.on(Heard(T0 + 1.5, say("n0", 300.0, 3)))
    controller.on(Tick(T0 + 2.0))
    assert power_w(controller) >= others_w + 600.0 - 1e-6


@pytest.mark.parametrize("number", range(len(odd())))
def test_odd_telemetry_followed_by_silence_counts_what_the_node_may_draw(number: int) -> None:
    controller = started()
    controller.on(Heard(T0 + 0.5, odd()[number]))
    for second in range(2, 130, 2):
        for node in NODES[1:]:
            controller.on(Heard(T0 + second, say(node, 300.0, second + 1)))
        controller.on(Tick(T0 + second))
    told_w = 700.0 * (0.17 + 0.83 * 0.3)  # what a braked GPU may draw: the least that any silent node can be told
    assert controller.status(T0).nodes_stale == 1
    assert power_w(controller) >= 3 * 600.0 + 2 * told_w


def test_a_server_known_by_its_meter_alone_is_counted_whole() -> None:
    row = RowSpec("row", 20_000.0, (), (NodeSpec("m0", gpus=8), NodeSpec("m1", gpus=0)))
    controller = controller_of(row)
    for node in ("m0", "m1"):
        controller.on(Heard(T0, telemetry(node, (), host_power_w=9000.0)))
    controller.on(Tick(T0))
    assert power_w(controller) == pytest.approx(18_000.0)
    assert controller.counters["sensor_faults"] == 0


@pytest.mark.parametrize("first_w", [None, 0.0, 100.0])
def test_a_meter_whose_server_nobody_knows_counts_all_that_it_shows(first_w: float | None) -> None:
    controller = controller_of(RowSpec("row", 20_000.0, (), (NodeSpec("m0", gpus=0),)))
    for seq, shown_w in enumerate((first_w, 3000.0, 9000.0, 8000.0)):
        controller.on(Heard(T0 + seq, telemetry("m0", (), host_power_w=shown_w, seq=seq)))
        controller.on(Tick(T0 + seq))
    assert power_w(controller, T0 + 3) == pytest.approx(8000.0)
    for second in range(4, 10):
        controller.on(Tick(T0 + second))
    assert power_w(controller, T0 + 9) == pytest.approx(9000.0)  # silent now: the most that it showed


def test_a_servers_own_part_is_what_its_meter_shows_beyond_its_gpus_and_stays_when_the_meter_fails() -> None:
    controller = started()
    for seq, meter in ((2, 1000.0), (3, 0.0), (4, None), (5, 1e6)):
        controller.on(Heard(T0, telemetry("n0", 300.0, gpus=2, seq=seq, setpoint=FREE, host_power_w=meter)))
        controller.on(Tick(T0))
        assert power_w(controller) == pytest.approx(1000.0 + 3 * 600.0)


def test_the_same_events_give_the_same_words() -> None:
    def play() -> list[tuple[float, object]]:
        play = Play(row_spec(racks=(RackSpec("a", 2300.0), RackSpec("b", 2400.0))))
        for percent in range(30, 101, 5):
            play.run(3, percent / 100)
        return [(t, said) for t, said in play.log]

    assert play() == play()


def test_a_node_that_runs_looser_than_its_plan_is_told_of_after_its_time_and_again_when_it_obeys() -> None:
    play = Play(row_spec(), GuardSpec(dwell_s=1000.0))
    for percent in range(30, 76):
        play.run(2, percent / 100)
    play.row.deaf = {"n0"}
    play.row.nodes["n0"].setpoint = dict.fromkeys(play.row.nodes["n0"].uuids, FREE)
    play.row.nodes["n0"].lease = LoopRow(play.spec).nodes["n0"].lease
    play.row.nodes["n0"].lease.offer(Plan("row", 1, 10**6, 0.0, 1000.0, FAIL_SAFE), play.t)
    play.run(10)
    assert play.kinds().count(EventKind.NOT_OBEYED) == 1
    assert play.controller.loose() == {"n0"}
    play.row.silent = {"n0"}
    play.run(10)
    assert EventKind.OBEYED not in play.kinds()
