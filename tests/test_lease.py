from dataclasses import replace
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polcad.lease import Fail, Lease
from polcad.model import FREE, LeaseState, NodePlacement, Placement, Plan, Priority, Rule, Setpoint, Why
from polcad.spec import BRAKE, FAIL_SAFE

LOCK = Setpoint(0.9)
LOW, HIGH = NodePlacement("n1"), NodePlacement("n1", Placement(Priority.HIGH))


def plan(seq: int = 1, *rules: Rule, epoch: int = 1, lease_s: float = 5.0) -> Plan:
    return Plan("row", epoch, seq, 1_760_000_000.0, lease_s, FAIL_SAFE, rules)


def rule(setpoint: Setpoint, scope: str = "row", priority: Priority | None = None) -> Rule:
    return Rule(scope, setpoint, Why.T1, priority)


def lease(fail: Fail = Fail.SAFE, remembered: Plan | None = None) -> Lease:
    return Lease("row", "r1", "n1", fail, remembered)


def wanted(held: Lease, t: float, placement: NodePlacement = LOW, in_force: Setpoint | None = None) -> Setpoint:
    return held.wanted(t, ["g"], placement, {} if in_force is None else {"g": in_force})["g"]


def test_without_a_plan_nothing_is_touched() -> None:
    assert lease().wanted(0.0, ["g"], LOW, {}) == {}
    assert lease().state(0.0) is LeaseState.NONE


def test_a_plan_holds_for_its_lease_and_then_the_fail_safe_does() -> None:
    held = lease()
    assert held.offer(plan(1, rule(LOCK)), 100.0) is None
    assert wanted(held, 104.9) == LOCK
    assert held.state(104.9) is LeaseState.HELD
    assert wanted(held, 105.0) == FAIL_SAFE
    assert held.state(105.0) is LeaseState.EXPIRED
    assert held.remaining_s(103.0) == pytest.approx(2.0)


def test_after_a_restart_in_silence_a_gpu_that_cannot_be_read_is_left_until_it_can() -> None:
    held = lease(remembered=plan(1, rule(LOCK)))
    assert held.wanted(0.0, ["g", "lost"], LOW, {"g": FREE, "lost": None}) == {"g": FAIL_SAFE}
    assert held.wanted(1.0, ["lost"], LOW, {"lost": BRAKE}) == {"lost": BRAKE}
    assert held.wanted(2.0, ["lost"], LOW, {"lost": None}) == {"lost": BRAKE}


@pytest.mark.parametrize(
    ("fail", "had", "then"),
    [
        (Fail.SAFE, LOCK, FAIL_SAFE),
        (Fail.SAFE, BRAKE, BRAKE),
        (Fail.HOLD, LOCK, LOCK),
        (Fail.RELEASE, BRAKE, FREE),
    ],
)
def test_what_silence_brings_is_the_operators_choice(fail: Fail, had: Setpoint, then: Setpoint) -> None:
    held = lease(fail)
    held.offer(plan(1, rule(had)), 0.0)
    wanted(held, 1.0)
    assert wanted(held, 50.0) == then


@pytest.mark.parametrize(("epoch", "seq"), [(1, 5), (1, 4), (0, 99)])
def test_an_older_or_repeated_plan_is_refused_and_counted(epoch: int, seq: int) -> None:
    held = lease()
    held.offer(plan(5, rule(BRAKE)), 0.0)
    assert "not newer" in str(held.offer(plan(seq, epoch=epoch), 4.0))
    assert wanted(held, 4.0) == BRAKE
    assert held.state(5.0) is LeaseState.EXPIRED  # a refused plan lengthens nothing
    assert held.obedience(4.0).refused == 1


@pytest.mark.parametrize("remembered", [None, plan(5, epoch=9)])
def test_an_epoch_that_was_silent_for_more_than_an_hour_locks_out_nobody_and_is_left_without_loosening(
    remembered: Plan | None,
) -> None:
    held = lease(remembered=remembered)
    if remembered is None:
        held.offer(plan(5, rule(BRAKE), epoch=9), 95.0)
        assert wanted(held, 95.0) == BRAKE
    for t in (100.0, 3700.0):
        assert "not newer" in str(held.offer(plan(1, epoch=8), t))
    assert held.offer(plan(2, epoch=8), 3701.0) is None
    assert wanted(held, 3701.5, in_force=BRAKE) == BRAKE
    assert held.offer(plan(3, epoch=8), 3702.5) is None
    assert wanted(held, 3702.5) == FREE
    assert held.offer(plan(4, epoch=9), 3703.0) is None


def test_a_newer_epoch_is_accepted_whatever_its_sequence() -> None:
    held = lease()
    held.offer(plan(500), 0.0)
    assert held.offer(plan(1, epoch=2), 1.0) is None
    assert (held.obedience(1.0).epoch, held.obedience(1.0).seq) == (2, 1)


def test_a_plan_for_another_row_is_refused() -> None:
    held = lease()
    assert "row other" in str(held.offer(replace(plan(), row="other"), 0.0))
    assert held.plan is None


def test_a_shadow_plan_moves_nothing_and_does_not_stand_in_the_way() -> None:
    held = lease()
    held.offer(plan(1, rule(LOCK)), 0.0)
    assert held.offer(replace(plan(9, epoch=9), shadow=True), 1.0) is None
    assert wanted(held, 1.0) == LOCK
    assert held.offer(plan(2, rule(BRAKE)), 2.0) is None
    assert wanted(held, 2.0) == BRAKE
    assert held.obedience(2.0).refused == 0


def test_a_node_that_only_ever_heard_a_shadow_touches_nothing() -> None:
    held = lease(remembered=replace(plan(), shadow=True))
    held.offer(replace(plan(2), shadow=True), 0.0)
    assert held.wanted(1.0, ["g"], LOW, {"g": BRAKE}) == {}
    assert held.state(1.0) is LeaseState.NONE


def test_the_strictest_of_the_rules_for_a_gpu_holds() -> None:
    held = lease()
    rules = (rule(LOCK), rule(Setpoint(1.0, 0.5), "rack/r1"), rule(Setpoint(0.8), "node/n1"), rule(BRAKE, "gpu/other"))
    held.offer(plan(1, *rules), 0.0)
    assert wanted(held, 1.0) == Setpoint(0.8, 0.5)


def test_a_gpu_takes_the_rule_of_its_placement_when_that_changes() -> None:
    held = lease()
    held.offer(plan(1, rule(BRAKE, priority=Priority.LOW)), 0.0)
    assert [wanted(held, 1.0, placement) for placement in (LOW, HIGH, LOW)] == [BRAKE, FREE, BRAKE]


def test_in_silence_a_placement_that_changes_loosens_nothing() -> None:
    held = lease()
    held.offer(plan(1, rule(BRAKE, priority=Priority.LOW)), 0.0)
    assert [wanted(held, 9.0, placement) for placement in (LOW, HIGH)] == [BRAKE, BRAKE]


@pytest.mark.parametrize("in_force", [None, FREE, LOCK, BRAKE])
def test_a_restarted_agent_without_a_daemon_is_at_its_fail_safe_or_stricter(in_force: Setpoint | None) -> None:
    held = lease(remembered=plan(7, rule(LOCK)))
    assert held.state(0.0) is LeaseState.EXPIRED
    assert wanted(held, 0.0, in_force=in_force) == FAIL_SAFE.strictest(in_force or FREE)
    assert "not newer" in str(held.offer(plan(7), 1.0))


def test_a_gpu_that_comes_back_in_silence_takes_what_was_asked_while_it_was_gone() -> None:
    held = lease()
    held.offer(plan(1), 0.0)
    assert wanted(held, 1.0) == FREE
    held.offer(plan(2, rule(BRAKE)), 2.0)
    held.wanted(3.0, [], LOW, {})  # it is gone
    assert wanted(held, 60.0) == BRAKE


def test_after_silence_what_comes_late_loosens_nothing() -> None:
    held = lease()
    held.offer(plan(1), 0.0)
    assert wanted(held, 6.0) == FAIL_SAFE
    for seq in range(2, 20):  # a link that was cut is mended, and delivers what waited: the oldest first
        held.offer(plan(seq), 10.0 + seq / 1000)
        assert wanted(held, 10.0 + seq / 1000) == FAIL_SAFE
    held.offer(plan(20, rule(BRAKE)), 10.1)
    assert wanted(held, 10.1) == BRAKE


def test_after_silence_plans_that_go_on_are_followed_again() -> None:
    held = lease()
    held.offer(plan(1), 0.0)
    wanted(held, 6.0)
    held.offer(plan(2, rule(LOCK)), 10.0)
    assert wanted(held, 10.0) == FAIL_SAFE
    assert held.state(10.0) is LeaseState.HELD
    held.offer(plan(3, rule(LOCK)), 11.0)
    assert wanted(held, 11.0) == LOCK
    held.offer(plan(4), 11.1)
    assert wanted(held, 11.1) == FREE


offers = st.tuples(
    st.just("offer"),
    st.integers(1, 3),  # epoch
    st.integers(1, 6),  # sequence
    st.sampled_from([FREE, LOCK, BRAKE, Setpoint(1.0, 0.5)]),
    st.floats(0.1, 10.0),  # lease
    st.floats(-1e9, 1e9),  # how far the daemon's wall clock is off
)
waits = st.tuples(st.just("wait"), st.floats(0.0, 20.0))
Move = tuple[object, ...]


def play(moves: list[Move], fail: Fail, off: bool) -> list[tuple[bool, Setpoint, LeaseState]]:
    held, t, seen = lease(fail), 0.0, []
    for kind, *rest in moves:
        accepted = False
        if kind == "wait":
            t += cast("float", rest[0])
        else:
            epoch, seq, setpoint, lease_s, off_s = cast("tuple[int, int, Setpoint, float, float]", rest)
            offered = plan(seq, rule(setpoint), epoch=epoch, lease_s=lease_s)
            accepted = held.offer(replace(offered, t=offered.t + off_s * off), t) is None
        seen.append((accepted, held.wanted(t, ["g"], LOW, {}).get("g", FREE), held.state(t)))
    return seen


@settings(max_examples=80, deadline=None)
@given(moves=st.lists(st.one_of(offers, waits), max_size=25), fail=st.sampled_from([Fail.SAFE, Fail.HOLD]))
def test_silence_never_loosens_and_no_older_plan_is_ever_accepted(moves: list[Move], fail: Fail) -> None:
    before, newest = FREE, (0, 0)
    for move, (accepted, now, state) in zip(moves, play(moves, fail, off=False), strict=True):
        if not accepted:
            assert now.covers(before)
        if move[0] == "offer":
            name = cast("tuple[int, int]", move[1:3])
            assert accepted is (name > newest)
            newest = max(newest, name)
        if state is LeaseState.EXPIRED and fail is Fail.SAFE:
            assert now.covers(FAIL_SAFE)
        before = now


@settings(max_examples=30, deadline=None)
@given(moves=st.lists(st.one_of(offers, waits), max_size=25))
def test_wall_clocks_mean_nothing(moves: list[Move]) -> None:
    assert play(moves, Fail.SAFE, off=True) == play(moves, Fail.SAFE, off=False)
