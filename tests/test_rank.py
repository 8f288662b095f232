"""Who is followed, when epochs or clocks are wrong: a daemon's rank alone, and over a row's real leases."""

from collections import Counter
from dataclasses import replace

import pytest

from polcad.controller import Controller
from polcad.errors import OutrankedError
from polcad.model import Event, EventKind, LeaseState, Plan
from polcad.ports import Heard, Input, Tick
from polcad.rank import Rank, epoch_at, is_absurd
from polcad.spec import FAIL_SAFE, RowSpec
from polcad.testing import LoopRow
from tests.row_play import T0, controller_of, row_spec

DAY_S = 86_400.0
NODES = ("a", "b", "c", "d", "e")


def rank(epoch: int = epoch_at(T0)) -> Rank:
    return Rank("row r", NODES, epoch, Counter())


def follow(who: Rank, epoch: int, names: str, t: float = T0, *, held: bool = True) -> None:
    for name in names:
        who.hear(name, epoch, t, held=held)


def followed() -> Rank:
    made = rank()
    made.speak()
    follow(made, made.epoch, "abcde")
    return made


def test_what_a_majority_follows_is_outranked_though_no_daemon_can_have_started_then() -> None:
    far = epoch_at(T0 + 2 * DAY_S)
    late = rank()
    follow(late, far, "ab", held=False)
    assert late.epoch == epoch_at(T0)
    follow(late, far, "c", held=False)
    assert late.epoch == far + 1


def test_one_node_that_names_a_greater_epoch_than_the_others_is_not_believed() -> None:
    far = epoch_at(T0 + 2 * DAY_S)
    late = rank()
    follow(late, 2**52 - 1, "a")
    follow(late, far, "bcd")
    assert late.epoch == far + 1


def test_an_epoch_that_leaves_no_room_is_not_outranked() -> None:
    late = rank()
    follow(late, 2**53, "abcde")
    assert late.epoch == epoch_at(T0)


def test_nodes_whose_lease_has_ended_end_no_daemon_and_are_taken_back_where_nobody_comes_for_them() -> None:
    leader = followed()
    for t in (T0, T0 + 19.0, T0 + 20.0):
        assert leader.epoch == epoch_at(T0)
        follow(leader, leader.epoch + 500, "abc", t, held=False)
    assert leader.epoch == epoch_at(T0) + 501


def test_an_older_daemon_that_hears_again_of_nodes_that_were_cut_off_too_does_not_take_them_back() -> None:
    leader = followed()
    newer = leader.epoch + 500
    follow(leader, newer, "abc", held=False)
    with pytest.raises(OutrankedError):
        follow(leader, newer, "abc", T0 + 25.0)


def test_nodes_that_a_newer_daemon_leads_end_the_older_one() -> None:
    leader = followed()
    with pytest.raises(OutrankedError):
        follow(leader, leader.epoch + 500, "abc")


def test_a_plan_planted_for_next_week_ends_no_daemon_and_takes_no_row_from_it() -> None:
    leader = followed()
    planted = epoch_at(T0 + 7 * DAY_S)
    follow(leader, planted, "abcde")
    assert leader.epoch == planted + 1


@pytest.mark.parametrize("waits", [True, False])
def test_one_stolen_node_cannot_talk_a_daemon_out_of_room(waits: bool) -> None:
    victim = rank()
    if waits:
        victim.wait()
    for _ in range(1000):
        victim.hear("a", victim.epoch + 20 * 3_600_000_000, T0, held=True)
    assert not is_absurd(victim.epoch, T0)


def test_a_successor_of_a_daemon_with_a_far_epoch_is_believed() -> None:
    far = epoch_at(T0 + 9 * DAY_S)
    leader = rank(far)
    leader.speak()
    with pytest.raises(OutrankedError):
        leader.meet(far + 1, T0)


def test_who_was_made_the_leader_and_said_nothing_yet_does_not_outrank_the_next() -> None:
    leader = rank()
    leader.wait()
    leader.lead(leader.epoch)
    with pytest.raises(OutrankedError):
        leader.meet(leader.epoch + 1, T0)


# --- clocks ---------------------------------------------------------------------------------------------------------


def clocks(who: Rank, ahead_s: float, names: str, t: float = T0) -> float:
    for name in names:
        who.note_clock(name, t + ahead_s, t)
    return who.mend(t)


@pytest.mark.parametrize("ahead_s", [-2 * DAY_S, 7200.0])
def test_a_clock_that_most_nodes_contradict_is_not_believed(ahead_s: float) -> None:
    wrong = rank()
    assert clocks(wrong, ahead_s, "ab") == 0.0
    assert clocks(wrong, ahead_s, "c") == ahead_s
    assert wrong.epoch == epoch_at(T0 + ahead_s)


def test_a_daemon_that_has_spoken_keeps_its_epoch() -> None:
    leader = followed()
    assert clocks(leader, -2 * DAY_S, "abcde") == -2 * DAY_S
    assert leader.epoch == epoch_at(T0)


@pytest.mark.parametrize("shown_t", [100.0, 1e11])
def test_clocks_that_were_never_set_say_nothing(shown_t: float) -> None:
    assert clocks(rank(), shown_t - T0, "abcde") == 0.0


def test_clocks_that_disagree_among_each_other_say_nothing() -> None:
    wrong = rank()
    clocks(wrong, -DAY_S, "ab")
    assert clocks(wrong, DAY_S, "cd") == 0.0


def test_a_clock_that_was_set_right_is_believed_again() -> None:
    wrong = rank()
    clocks(wrong, DAY_S, "abc")
    assert clocks(wrong, 0.0, "abc") == 0.0


# --- a row ----------------------------------------------------------------------------------------------------------


class Row:
    """Nodes with right clocks and real leases, which hear one daemon after another."""

    def __init__(self) -> None:
        self.spec: RowSpec = row_spec()
        self.nodes = LoopRow(self.spec)
        self.t = T0
        self.events: list[Event] = []

    def start(self, clock_off_s: float = 0.0) -> Controller:
        self.off_s = clock_off_s
        self.controller = controller_of(self.spec, epoch=epoch_at(self.t + clock_off_s))
        return self.controller

    def run(self, seconds: int) -> None:
        for _ in range(seconds):
            self.t += 1.0
            self.nodes.act(self.t)
            events: list[Input] = [self._at(each) for each in self.nodes.speak(self.t)]
            for said in [out for event in [*events, Tick(self.t + self.off_s)] for out in self.controller.on(event)]:
                if isinstance(said, Plan):
                    self.nodes.take(said, self.t)
                else:
                    self.events.append(said)

    def _at(self, heard: Heard) -> Heard:
        return Heard(self.t + self.off_s, replace(heard.telemetry, t=self.t), heard.rack)

    def leases(self) -> set[LeaseState]:
        return {node.lease.state(self.t) for node in self.nodes.nodes.values()}

    def epochs(self) -> set[int]:
        return {node.lease.obedience(self.t).epoch for node in self.nodes.nodes.values()}


@pytest.mark.parametrize("off_s", [2 * DAY_S, -2 * DAY_S, 40.0 - T0])
def test_a_daemon_that_starts_with_a_wrong_clock_leads_says_so_and_the_next_with_a_right_one_too(off_s: float) -> None:
    row = Row()
    row.start()
    row.run(5)
    for clock_off_s in (off_s, 0.0):
        row.events.clear()
        row.start(clock_off_s)
        row.run(5)
        assert row.leases() == {LeaseState.HELD}
        assert row.epochs() == {row.controller.epoch}
        assert not is_absurd(row.controller.epoch, row.t)
        told = [event.detail for event in row.events if event.kind is EventKind.CLOCK]
        assert len(told) == bool(clock_off_s)
        assert EventKind.STRAYED not in {event.kind for event in row.events}


def test_a_row_that_was_led_into_the_far_future_is_led_by_the_next_daemon_at_once() -> None:
    row = Row()
    row.start()
    plan = Plan("row", epoch_at(T0 + 30 * DAY_S), 1, T0, 5.0, FAIL_SAFE, ())  # of one that heard nobody's clock
    row.nodes.take(plan, T0)
    row.start()
    row.run(4)
    assert row.leases() == {LeaseState.HELD}
    assert row.epochs() == {row.controller.epoch} == {plan.epoch + 1}
