"""The site level: what it promises whatever the network does, and what it does with the watts."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from polcad.errors import OutrankedError
from polcad.model import Allowance, EventKind, LeaseState
from polcad.ports import Rival
from tests.site_play import EPOCH, FREE_FRAC, T0, PlayedRow, SitePlay, TwoDaemons, played


def row(name: str, demand_w: float, own_w: float = 400.0, fail_safe_w: float = 200.0, **more: Any) -> PlayedRow:
    return PlayedRow(name, own_w, fail_safe_w, demand_w, **more)


def three(a_w: float = 100.0, b_w: float = 100.0, c_w: float = 100.0, peak_s: float = 300.0) -> SitePlay:
    """Three rows of 400 W at most and 200 W for sure, under 900 W."""
    return played(900.0, peak_s=peak_s, a=row("a", a_w), b=row("b", b_w), c=row("c", c_w))


# --- whatever happens -----------------------------------------------------------------------------------------------

KINDS = ("say", "say", "hear", "hear", "deliver", "deliver", "tick", "wait", "lose", "load", "row dies", "site dies")
STEPS = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 2), st.floats(0.0, 1.0)), max_size=150)
SUBSET = st.frozensets(st.sampled_from("abc"))
SPELLS = st.lists(
    st.tuples(
        st.integers(1, 20),
        SUBSET,
        SUBSET,
        st.sampled_from("abc"),
        st.floats(0.0, 500.0),
        st.sampled_from(("nobody", "nobody", "row", "site")),
    ),
    max_size=6,
)


@given(STEPS)
@settings(max_examples=60, deadline=None)
def test_what_rows_think_they_may_draw_is_never_over_the_sites_budget(steps: list[tuple[str, int, float]]) -> None:
    play = three()
    play.run(25)
    for what, index, part in steps:
        disturb(play, what, "abc"[index], part)
        assert play.granted_w() <= play.budget_w * (1 + 1e-9)
        for each in play.rows.values():
            assert each.budget_w(play.t) <= each.own_w


def disturb(play: SitePlay, what: str, name: str, part: float) -> None:
    each = play.rows[name]
    if what == "say":
        play.going.append(each.say(play.t))
    elif what == "hear" and play.going:  # of what is on its way any, and some twice
        index = int(part * (len(play.going) - 1))
        play.hear(play.going[index] if part > 0.8 else play.going.pop(index))
    elif what == "deliver":
        play.deliver(name)
    elif what == "tick":
        play.tick()
    elif what == "wait":
        play.t += part * 8.0
    elif what == "lose" and play.coming[name]:
        play.coming[name].popleft()
    elif what == "load":
        each.demand_w = part * 500.0
    elif what == "row dies":
        each.start()
        play.coming[name].clear()  # a new subscription hears what is said from now on
    elif what == "site dies":
        play.start()


@given(SPELLS)
@settings(max_examples=40, deadline=None)
def test_nor_is_it_where_rows_hear_and_are_heard_for_some_time_and_then_not(
    spells: list[tuple[int, frozenset[str], frozenset[str], str, float, str]],
) -> None:
    play = three()
    play.run(25)
    for seconds, deaf, mute, name, demand_w, dies in spells:
        play.rows[name].demand_w = demand_w
        if dies == "row":
            play.rows[name].start()
        elif dies == "site":
            play.start()
        play.run(seconds, deaf=deaf, mute=mute)  # which looks each second


def test_an_old_word_that_the_broker_kept_tells_a_new_site_daemon_nothing() -> None:
    play = three(290.0, peak_s=20.0)
    play.run(60)
    kept = play.rows["a"].say(play.t)
    play.rows["a"].demand_w, play.rows["b"].demand_w = 100.0, 290.0
    play.run(120)
    play.start()
    play.hear(kept)
    play.tick()
    assert play.last is not None
    assert play.last.epoch < play.epoch  # nothing is said yet: the row might rise by it
    play.run(60)
    assert play.last.epoch == play.epoch


@given(st.lists(st.floats(0.0, 500.0), min_size=3, max_size=3), st.lists(st.floats(0.0, 500.0), min_size=3, max_size=3))
@settings(max_examples=5, deadline=None, phases=(Phase.explicit, Phase.generate))
def test_where_all_is_well_every_row_soon_has_what_it_is_guaranteed_and_nothing_is_left_that_one_asks_for(
    before_w: list[float], after_w: list[float]
) -> None:
    a_w, b_w, c_w = before_w
    play = three(a_w, b_w, c_w, peak_s=20.0)
    play.run(40)
    for each, demand_w in zip(play.rows.values(), after_w, strict=True):
        each.demand_w = demand_w
    play.run(120)
    gap = 1 + 2 * play.site.gap_frac
    for name, each in play.rows.items():
        assert play.budget_of(name) * gap >= min(each.fail_safe_w, demand_of(each))
    if sum(max(each.fail_safe_w, demand_of(each)) for each in play.rows.values()) * gap <= play.budget_w:
        assert all(play.budget_of(name) * gap >= demand_of(each) for name, each in play.rows.items())
    elif any(play.budget_of(name) * gap < demand_of(each) for name, each in play.rows.items()):
        assert play.granted_w() > 0.99 * play.budget_w


def demand_of(each: PlayedRow) -> float:
    return min(each.demand_w / FREE_FRAC, each.own_w)


# --- moving watts ---------------------------------------------------------------------------------------------------


def test_a_row_that_rises_gets_what_another_does_not_need_and_gives_it_back() -> None:
    play = three()
    play.run(40)
    assert [round(play.budget_of(name)) for name in "abc"] == [300, 300, 300]
    play.rows["a"].demand_w = 290.0
    play.run(30)
    assert play.budget_of("a") >= 0.98 * 290.0 / FREE_FRAC
    play.rows["a"].demand_w, play.rows["b"].demand_w = 100.0, 290.0
    play.run(600)
    assert play.budget_of("b") >= 0.98 * 290.0 / FREE_FRAC


def test_who_is_furthest_above_its_guarantee_gives_first() -> None:
    play = three(320.0, 160.0, 100.0)
    play.run(100)
    play.rows["b"].demand_w = play.rows["c"].demand_w = 250.0
    play.run(200)
    assert play.budget_of("a") == pytest.approx(300.0, rel=0.03)
    assert play.budget_of("b") == pytest.approx(300.0, rel=0.03)


def test_high_priority_goes_before_low() -> None:
    play = played(900.0, a=row("a", 350.0, high_frac=1.0), b=row("b", 350.0), c=row("c", 350.0))
    play.run(200)
    assert play.budget_of("a") == pytest.approx(400.0, rel=0.03)
    assert play.budget_of("b") == pytest.approx(250.0, rel=0.03)


def test_a_cut_brakes_nobody() -> None:
    play = three(300.0, 300.0, 100.0)
    play.run(100)
    play.rows["c"].demand_w = 300.0
    for _ in range(200):
        before_w = {name: play.rows[name].power_w(play.t) for name in "ab"}
        play.second()
        assert all(before_w[name] <= play.budget_of(name) for name in "ab")
    assert play.budget_of("c") == pytest.approx(300.0, rel=0.03)


def test_a_steady_site_says_the_same_again_and_again() -> None:
    play = three(280.0, 250.0, 240.0)
    play.run(300)
    last = play.last
    play.run(60)
    assert last is not None
    assert play.last is not None
    assert play.last.rows == last.rows
    assert play.last.seq == last.seq + 20


# --- silence --------------------------------------------------------------------------------------------------------


def test_without_the_site_rows_fall_to_their_guarantee_within_the_lease_and_rise_again_after() -> None:
    play = three(290.0)
    play.run(60)
    risen_w = play.budget_of("a")
    controller = play.controller
    play.t += play.site.lease_s
    assert [play.budget_of(name) for name in "abc"] == [200.0, 200.0, 200.0]
    assert play.controller is controller
    play.run(60)
    assert play.budget_of("a") == pytest.approx(risen_w, rel=0.03)


def test_what_a_silent_row_may_have_is_given_to_nobody() -> None:
    play = three(290.0)
    play.run(60)
    held_w = play.budget_of("a")
    play.rows["b"].demand_w = play.rows["c"].demand_w = 290.0
    play.rows["a"].start()
    for _ in range(300):
        play.second(mute=frozenset("a"), deaf=frozenset("a"))
        assert play.budget_of("b") + play.budget_of("c") <= 900.0 - held_w + 1e-6
    assert [event.scope for event in play.log if event.kind is EventKind.STALE] == ["row/a"]
    play.rows["a"].demand_w = 100.0
    play.run(400)
    assert play.budget_of("b") + play.budget_of("c") > 900.0 - held_w + 50.0
    assert [event.scope for event in play.log if event.kind is EventKind.FRESH] == ["row/a"]


def test_a_row_that_does_not_take_the_sites_word_frees_nothing_and_keeps_its_guarantee() -> None:
    play = three(290.0)
    play.run(60)
    held_w = play.budget_of("a")
    play.rows["a"].demand_w, play.rows["b"].demand_w = 100.0, 390.0
    for _ in range(300):
        play.second(deaf=frozenset("a"))
        assert play.budget_of("b") + play.budget_of("c") <= 900.0 - held_w + 1e-6
    assert play.budget_of("a") == 200.0


def test_a_row_that_follows_no_site_counts_all_of_its_own_budget() -> None:
    play = played(900.0, a=row("a", 100.0, follows=False), b=row("b", 390.0), c=row("c", 390.0))
    play.run(120)
    assert play.budget_of("b") + play.budget_of("c") == pytest.approx(500.0, rel=0.01)


def test_a_site_daemon_that_starts_renews_what_rows_have_and_gives_nothing_before_old_words_have_died_out() -> None:
    play = three(290.0)
    play.run(60)
    held_w = [play.budget_of(name) for name in "abc"]
    play.start()
    play.rows["b"].demand_w = 290.0
    play.run(int(play.site.lease_s))
    assert [play.budget_of(name) for name in "abc"] == pytest.approx(held_w)
    play.run(60)
    assert play.budget_of("b") > held_w[1] + 50.0


# --- emergencies ----------------------------------------------------------------------------------------------------


def test_a_row_that_does_not_keep_its_budget_is_made_up_for_by_the_others_at_once() -> None:
    play = three(290.0, 290.0, 290.0)
    play.run(100)
    play.rows["a"].obeys, play.rows["a"].demand_w = False, 500.0
    play.run(6)
    assert play.power_w() <= 900.0
    assert next(event.kind for event in play.log if event.scope == "site") is EventKind.BRAKE
    play.rows["a"].obeys = True
    play.run(400)
    assert [event.kind for event in play.log if event.scope == "site"][-1] is EventKind.BRAKE_RELEASE
    assert play.granted_w() > 0.97 * 900.0


def test_rows_go_below_their_guarantee_only_when_nothing_else_fits_and_never_below_their_floor() -> None:
    play = three(290.0, 290.0, 290.0)
    play.run(100)
    play.rows["a"].obeys, play.rows["a"].demand_w = False, 890.0
    play.run(20)
    for name in "bc":
        assert 0.2 * 290.0 <= play.budget_of(name) + 1e-6 < 200.0


# --- two daemons ----------------------------------------------------------------------------------------------------


def test_a_newer_site_daemon_has_the_site_and_an_older_one_is_outranked() -> None:
    play = three()
    play.run(30)
    with pytest.raises(OutrankedError, match="site site: epoch"):
        play.controller.on(Rival(play.t, play.epoch + 5))
    fresh = three()
    assert fresh.controller.on(Rival(T0, EPOCH + 50)) == []
    assert fresh.controller.epoch == EPOCH + 51


def test_an_epoch_of_next_week_is_nobodys() -> None:
    play, absurd = three(), EPOCH + 7 * 86_400 * 10**6
    said = play.rows["a"].say(play.t)
    play.hear(replace(said, allowance=Allowance(200.0, 400.0, 200.0, absurd, 1, LeaseState.HELD)))
    assert play.controller.on(Rival(play.t, absurd)) == []
    assert play.controller.epoch == play.epoch
    assert play.controller.counters["absurd_epochs"] == 2


def test_rows_that_follow_a_newer_epoch_end_a_daemon_only_as_a_majority() -> None:
    play = three()
    play.run(30)
    said = {name: each.say(play.t) for name, each in play.rows.items()}
    newer = Allowance(200.0, 400.0, 200.0, play.epoch + 9, 1, LeaseState.HELD)
    play.hear(replace(said["a"], allowance=newer))
    with pytest.raises(OutrankedError):
        play.hear(replace(said["b"], allowance=newer))


def test_a_daemon_that_starts_takes_an_epoch_above_the_one_that_rows_follow() -> None:
    play = three()
    older = Allowance(200.0, 400.0, 200.0, play.epoch + 9, 1, LeaseState.HELD)
    play.hear(replace(play.rows["a"].say(play.t), allowance=older))
    assert play.controller.epoch == play.epoch + 10


# --- a standby ------------------------------------------------------------------------------------------------------

APART = st.lists(
    st.tuples(st.integers(1, 20), SUBSET, SUBSET, st.sampled_from("abc"), st.floats(0.0, 500.0), st.integers(0, 4)),
    min_size=2,
    max_size=8,
)


@given(APART, st.integers(0, 6))
@settings(max_examples=25, deadline=None)
def test_a_takeover_from_a_daemon_that_lives_on_lends_no_watt_twice_however_the_network_comes_apart(
    spells: list[tuple[int, frozenset[str], frozenset[str], str, float, int]], takes_over_at: int
) -> None:
    play = three(290.0, peak_s=20.0)
    two = TwoDaemons(play)
    two.run(60)
    for index, (seconds, from_leader, from_standby, name, demand_w, late_s) in enumerate(spells):
        if index == min(takes_over_at, len(spells) - 1):
            two.take_over()
        play.rows[name].demand_w = demand_w
        apart = {two.leader: from_leader, two.standby: from_standby}
        two.run(seconds, apart, {two.standby: late_s})  # which looks each second
    two.run(40)
    assert len(two.daemons) == 1


def test_a_takeover_loosens_no_row_and_renews_before_any_budget_falls() -> None:
    play = three(290.0)
    two = TwoDaemons(play)
    two.run(60)
    held_w = [play.budget_of(name) for name in "abc"]
    assert held_w[0] > 350.0
    two.daemons.remove(two.leader)
    two.run(3)
    two.take_over()
    for _ in range(int(play.site.lease_s)):
        two.run(1)
        assert [play.budget_of(name) for name in "abc"] == pytest.approx(held_w)
    play.rows["b"].demand_w = 390.0
    two.run(300)
    assert play.budget_of("b") > held_w[1] + 50.0
    assert two.standby.epoch > EPOCH


def test_who_took_over_renews_as_soon_as_it_has_heard_every_row_and_does_not_wait_for_a_tick() -> None:
    play = three(290.0)
    two = TwoDaemons(play)
    two.run(60)  # the last second is a tick's
    two.daemons.remove(two.leader)
    two.take_over()
    two.run(1)
    assert two.standby.seq == 0  # what is heard first may be kept from before
    two.run(1)
    assert two.standby.seq == 1


def test_who_took_over_gives_nothing_before_every_row_has_taken_its_word() -> None:
    play = three(290.0)
    two = TwoDaemons(play)
    two.run(60)
    two.daemons.remove(two.leader)
    two.take_over()
    play.rows["b"].demand_w = 390.0
    before_w = play.budget_of("b")
    two.run(200, {two.standby: frozenset("c")})
    assert play.budget_of("b") <= before_w
    two.run(200)
    assert play.budget_of("b") > before_w + 50.0


def test_a_daemon_that_waits_says_nothing_and_a_takeover_finds_the_peak_that_it_saw() -> None:
    play = three(290.0)
    two = TwoDaemons(play)
    two.run(60)
    assert two.standby.seq == 0
    play.rows["a"].demand_w = 100.0  # a trough
    two.daemons.remove(two.leader)
    two.take_over()
    two.run(5)
    wants_w = next(row.wants_w for row in two.standby.status(play.t).rows if row.row == "a")
    assert wants_w > 280.0 / FREE_FRAC
