from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polcad.guard import Domain, projected_w
from polcad.model import FREE, EventKind, Priority, Role, Setpoint, Why
from polcad.ports import Desire, View
from polcad.spec import BRAKE, GuardSpec
from policies.baselines import NoCap
from policies.polca import Polca
from tests.views import BUDGET_W, HIGH, LOW, Class, view

GUARD = GuardSpec()


class Wish:
    """A policy that wants what it is told to want; `why` may be left out."""

    thresholds: Mapping[str, float] = {"one": 0.5}  # never changed

    def __init__(self, setpoint: Setpoint = FREE) -> None:
        self.setpoint = setpoint

    def desired(self, view: View) -> Desire:
        return Desire(dict.fromkeys(view.classes, self.setpoint), {}, 1.0)


def domain(policy: object = None, guard: GuardSpec = GUARD) -> Domain:
    return Domain("row", BUDGET_W, guard, policy or Wish())  # type: ignore[arg-type]  # any of the policies


def at(held: Domain, used_frac: float, t: float, demand_frac: float | None = None) -> View:
    """A view of what a domain holds."""
    return view(used_frac, held.holding([LOW, HIGH]), t=t, since_t=held.since_t, demand_frac=demand_frac)


def test_above_the_brake_threshold_everything_brakes_whatever_the_policy_says() -> None:
    row = domain(NoCap())
    assert row.decide(at(row, 1.001, 0.0), "n1 is stale") is EventKind.BRAKE
    assert row.held == {LOW: BRAKE, HIGH: BRAKE}
    assert [(rule.priority, rule.role, rule.why) for rule in row.rules()] == [(None, None, Why.BRAKE)]


def test_at_the_brake_threshold_nothing_brakes() -> None:
    row = domain(NoCap())
    assert row.decide(at(row, 1.0, 0.0), "") is None
    assert row.held == {}


def test_the_brake_never_loosens_what_was_held_deeper() -> None:
    deep = Setpoint(0.1, 0.3)
    row = domain()
    row.resume(0.0, {LOW: deep, HIGH: Setpoint(0.5, 0.4)})
    row.decide(at(row, 1.2, 1.0), "")
    assert row.held == {LOW: deep, HIGH: Setpoint(BRAKE.clock_frac, 0.4)}


def test_a_brake_resumed_from_before_a_restart_is_told_once() -> None:
    row = domain()
    row.resume(0.0, {LOW: BRAKE, HIGH: BRAKE})
    assert row.decide(at(row, 1.2, 1.0), "") is EventKind.BRAKE
    assert [row.decide(at(row, 1.2, 2.0 + second), "") for second in range(3)] == [None] * 3


def test_a_brake_is_let_go_after_its_dwell_and_not_before() -> None:
    row = domain(NoCap())
    row.decide(at(row, 1.2, 0.0), "")
    assert row.decide(at(row, 0.4, 9.9, demand_frac=0.9), "") is None
    assert row.decide(at(row, 0.4, 10.0, demand_frac=0.9), "") is EventKind.BRAKE_RELEASE


def test_nothing_is_loosened_on_stale_data_and_the_reason_is_told() -> None:
    row = domain()
    row.resume(0.0, {LOW: Setpoint(0.5), HIGH: FREE})
    assert row.decide(at(row, 0.1, 1000.0), "1 node(s) without fresh data") is None
    assert row.waiting == "1 node(s) without fresh data"
    assert row.decide(at(row, 0.1, 1000.0), "") is EventKind.LOOSEN
    assert row.waiting == ""


def test_nothing_is_loosened_into_a_demand_that_does_not_fit() -> None:
    row = domain()
    row.resume(0.0, {LOW: Setpoint(0.5), HIGH: Setpoint(0.5)})
    assert row.decide(at(row, 0.6, 1000.0, demand_frac=0.96), "") is None
    assert "96.0%" in row.waiting
    assert row.decide(at(row, 0.6, 1000.0, demand_frac=0.94), "") is EventKind.LOOSEN


def test_a_policy_that_gives_no_reason_is_obeyed_all_the_same() -> None:
    row = domain(Wish(Setpoint(0.5)))
    assert row.decide(at(row, 0.6, 0.0), "") is EventKind.TIGHTEN
    assert {rule.setpoint for rule in row.rules()} == {Setpoint(0.5)}


def test_a_class_that_appears_takes_what_the_rules_already_say_of_it() -> None:
    row = domain(NoCap())
    row.decide(at(row, 1.2, 0.0), "")
    late = (Priority.HIGH, Role.PROMPT)
    assert row.holding([late]) == {late: BRAKE}
    free = domain()
    free.resume(0.0, {LOW: Setpoint(0.5)})
    assert free.holding([(Priority.LOW, Role.TOKEN), HIGH]) == {(Priority.LOW, Role.TOKEN): Setpoint(0.5), HIGH: FREE}


def test_a_domain_without_gpus_over_its_budget_has_nothing_to_brake() -> None:
    row = domain()
    empty = View(0.0, 100.0, 500.0, 500.0, {}, {}, 0.0, 2.0)
    assert [row.decide(empty, "") for _ in range(2)] == [None, None]
    assert row.rules() == ()


def test_alarms_ring_at_the_next_threshold_and_never_above_the_brake() -> None:
    row = domain(Polca())
    assert row.alarm_w(0.0) == pytest.approx(8000.0)
    assert row.alarm_w(8000.0) == pytest.approx(8000.0)
    assert row.alarm_w(8000.1) == pytest.approx(8900.0)
    assert row.alarm_w(9999.0) == pytest.approx(10_000.0)
    assert row.alarm_w(10_000.1) == float("inf")


def test_projected_power_is_the_demand_when_free_and_less_the_stricter_the_setpoint() -> None:
    seen = view(0.6, demand_frac=0.9)
    powers_w = [
        projected_w(seen, {LOW: setpoint, HIGH: setpoint})
        for setpoint in (FREE, Setpoint(0.9), Setpoint(0.7), BRAKE, Setpoint(0.1))
    ]
    assert powers_w[0] == pytest.approx(9000.0)
    assert powers_w == sorted(powers_w, reverse=True)
    assert projected_w(seen, {LOW: Setpoint(1.0, 0.1), HIGH: Setpoint(1.0, 0.1)}) == pytest.approx(1200.0)


Step = tuple[float, float, float, bool]
steps = st.lists(
    st.tuples(
        st.floats(0.1, 20.0),  # seconds to the next
        st.floats(0.0, 1.5),  # use
        st.floats(0.0, 1.0),  # how much more the uncapped demand is
        st.booleans(),  # stale
    ),
    min_size=1,
    max_size=40,
)


@settings(max_examples=80, deadline=None)
@given(steps=steps, policy=st.sampled_from([Polca(), NoCap(), Wish(Setpoint(0.6)), Wish()]))
def test_whatever_the_power_does_the_guard_keeps_its_word(steps: list[Step], policy: object) -> None:
    row, t = domain(policy), 0.0
    changed_t: float | None = None
    before: dict[Class, Setpoint] = {LOW: FREE, HIGH: FREE}
    for wait_s, used_frac, hidden_frac, stale in steps:
        t += wait_s
        seen = at(row, used_frac, t, demand_frac=used_frac + hidden_frac)
        was_braked = row.braked
        row.decide(seen, "stale" if stale else "")
        now = row.holding([LOW, HIGH])
        loosened = any(not now[name].covers(before[name]) for name in now)
        braking = used_frac > GUARD.brake_frac
        if braking:
            assert row.braked
            assert all(held.covers(GUARD.brake) for held in now.values())
        else:
            assert row.braked <= was_braked  # it never begins on its own
            wanted = policy.desired(seen).setpoints  # type: ignore[attr-defined]  # any of the policies
            assert all(now[name].covers(wanted[name]) for name in now)
        if loosened:
            assert not braking
            assert not stale
            assert changed_t is not None
            assert t - changed_t >= (GUARD.brake_dwell_s if was_braked else GUARD.dwell_s)
            assert projected_w(seen, now) <= (GUARD.brake_frac - GUARD.gap_frac) * BUDGET_W
        if now != before:
            changed_t = t
        before = now
