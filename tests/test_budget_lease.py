"""What a row makes of the site's word: the lease alone, and the controller that acts by it."""

from dataclasses import replace

import pytest

from polcad.budget_lease import BudgetLease
from polcad.controller import Controller
from polcad.model import Budgets, Event, EventKind, LeaseState, Plan, RowBudget, Why
from polcad.ports import Granted, Tick
from tests.row_play import T0, Play, events, row_spec

EPOCH = int(T0 * 1e6)


def said(seq: int, budget_w: float, epoch: int = EPOCH, row: str = "row", fail_safe_w: float = 300.0) -> Budgets:
    return Budgets("site", epoch, seq, 0.0, 10.0, (RowBudget(row, budget_w, fail_safe_w),))


def settled() -> BudgetLease:
    """A lease of 10 s that has just been renewed with 450 W, of 500 W at most and 300 W for sure."""
    lease = BudgetLease("row", 500.0, 300.0)
    for seq, t in enumerate((-4.0, -2.0, 0.0), 1):
        assert lease.offer(said(seq, 450.0), T0 + t) is None
    return lease


def test_a_row_begins_at_its_fail_safe_and_rises_when_messages_have_been_coming() -> None:
    lease = BudgetLease("row", 500.0, 300.0)
    assert lease.budget_w(T0) == 300.0
    assert lease.allowance(T0).lease is LeaseState.NONE
    lease.offer(said(1, 450.0), T0)
    assert lease.budget_w(T0 + 1.9) == 300.0
    lease.offer(said(2, 450.0), T0 + 2.0)
    assert lease.budget_w(T0 + 2.0) == 450.0
    assert lease.allowance(T0 + 2.0).seq == 2


def test_no_word_raises_a_row_above_its_own_budget() -> None:
    lease = settled()
    lease.offer(said(9, 9000.0), T0)
    assert lease.budget_w(T0) == 500.0


def test_in_silence_it_glides_down_from_half_of_the_lease_on_and_is_at_its_fail_safe_when_it_ends() -> None:
    lease = settled()
    found = [lease.budget_w(T0 + t) for t in (4.9, 7.5, 9.0, 10.0, 1e6)]
    assert found == pytest.approx([450.0, 375.0, 330.0, 300.0, 300.0])
    assert lease.allowance(T0 + 10.0).lease is LeaseState.EXPIRED


def test_silence_raises_nothing_and_nor_does_the_first_word_after_it() -> None:
    lease = settled()
    lease.offer(said(4, 200.0), T0 + 1.0)
    assert lease.budget_w(T0 + 100.0) == 200.0
    lease.offer(said(5, 480.0), T0 + 100.0)
    assert lease.budget_w(T0 + 100.0) == 300.0
    lease.offer(said(6, 480.0), T0 + 102.0)
    assert lease.budget_w(T0 + 102.0) == 480.0


@pytest.mark.parametrize("budgets", [said(3, 400.0), said(99, 400.0, epoch=EPOCH - 1)])
def test_what_is_old_is_refused(budgets: Budgets) -> None:
    lease = settled()
    assert "are not newer than" in str(lease.offer(budgets, T0))
    assert lease.budget_w(T0) == 450.0


def test_an_older_daemons_word_is_taken_once_the_newer_one_was_silent_for_more_than_an_hour() -> None:
    lease = settled()
    older = said(99, 400.0, epoch=EPOCH - 1)
    assert lease.offer(older, T0 + 10.0 + 3600.0) is not None
    assert lease.offer(older, T0 + 10.0 + 3601.0) is None
    assert lease.budget_w(T0 + 3611.0) == 300.0


def test_another_site_daemon_raises_nothing_for_a_lease() -> None:
    lease = settled()
    lease.offer(said(4, 400.0), T0 + 1.0)  # a cut, which the next daemon has not heard of
    for second in range(2, 13):
        assert lease.offer(said(second, 450.0, epoch=EPOCH + 1), T0 + second) is None
        assert lease.budget_w(T0 + second) == (400.0 if second < 12 else 450.0)


def test_another_site_daemon_may_cut_at_once() -> None:
    lease = settled()
    lease.offer(said(1, 350.0, epoch=EPOCH + 1), T0 + 1.0)
    assert lease.budget_w(T0 + 1.0) == 350.0


def test_a_row_that_is_not_named_keeps_its_lease_until_it_ends() -> None:
    lease = settled()
    assert lease.offer(said(8, 100.0, row="other"), T0 + 1.0) is None
    assert lease.allowance(T0 + 1.0).seq == 3
    assert lease.budget_w(T0 + 10.0) == 300.0


def test_of_two_fail_safe_budgets_the_lesser_holds() -> None:
    lease = settled()
    lease.offer(said(4, 450.0, fail_safe_w=250.0), T0)
    assert lease.budget_w(T0 + 10.0) == 250.0


# --- the controller -------------------------------------------------------------------------------------------------


def under_a_site(own_frac: float = 0.85, fail_safe_frac: float = 0.6) -> Play:
    """Four nodes whose boards draw 5600 W at most."""
    row = row_spec(budget_frac=own_frac)
    return Play(replace(row, fail_safe_budget_w=fail_safe_frac * 5600.0))


def grant(play: Play, seq: int, budget_w: float) -> list[Event]:
    fail_safe_w = play.spec.fail_safe_budget_w or 0.0
    budgets = Budgets("site", EPOCH, seq, 0.0, 10.0, (RowBudget("row", budget_w, fail_safe_w),))
    return events(play.on(Granted(play.t, budgets)))


def test_a_row_under_no_site_takes_no_word_of_one() -> None:
    play = Play(row_spec())
    play.run(2, 0.3)
    assert grant(play, 1, 100.0) == []
    status = play.controller.status(play.t)
    assert status.allowance is None
    assert status.domains[0].budget_w == play.controller.budget_w == play.spec.budget_w


def test_a_cut_is_acted_on_at_once_and_a_raise_only_loosens_as_the_guard_lets_it() -> None:
    play = under_a_site()
    play.run(1, 0.3)
    for seq in range(1, 8):
        grant(play, seq, 4700.0)
        play.run(1)
    assert play.controller.budget_w == 4700.0
    play.run(1, 0.5)  # 3360 W: nothing to lock for
    assert play.controller.strictest.free
    said = play.on(Granted(play.t, Budgets("site", EPOCH, 8, 0.0, 10.0, (RowBudget("row", 4000.0, 3360.0),))))
    assert [each.kind for each in events(said)] == [EventKind.BUDGET, EventKind.TIGHTEN]
    [plan] = [each for each in said if isinstance(each, Plan)]
    assert {rule.why for rule in plan.rules} == {Why.T1}
    grant(play, 9, 4700.0)
    assert not play.controller.strictest.free  # the dwell runs


def test_in_the_sites_silence_the_row_comes_down_without_a_brake_and_says_so_once() -> None:
    play = under_a_site()
    play.run(1, 0.45)
    for seq in range(1, 40):
        grant(play, seq, 4700.0)
        play.run(1)
    play.run(1, 0.52)  # 3306 W, under 3360 W for sure
    grant(play, 40, 4700.0)
    told = len(play.log)
    play.run(12)
    assert play.controller.budget_w == pytest.approx(3360.0)
    assert [e.kind for e in events([each for _, each in play.log[told:]], EventKind.BUDGET)] == [EventKind.BUDGET]
    assert EventKind.BRAKE not in play.kinds()
    assert play.row.power_w() < 3360.0


def test_a_daemon_that_starts_anew_begins_at_the_fail_safe_budget() -> None:
    play = under_a_site()
    fresh = Controller(play.spec, play.guard, play.controller._policy, 2)
    fresh.on(Tick(T0))
    assert fresh.budget_w == pytest.approx(3360.0)
