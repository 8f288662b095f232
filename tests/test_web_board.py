"""The page's memory: bounded, in order, and nobody waits for anybody."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import pairwise

import msgspec

from polcad.model import Event, EventKind, RowStatus
from polcad.web.board import EVENTS, HISTORY_S, Board
from tests.row_feed import COLD_S, START_T, run


def statuses(seconds: int) -> list[RowStatus]:
    return [second.status for second in run(seconds)]


def event(number: int) -> Event:
    return Event(START_T + number, EventKind.TIGHTEN, "row", f"event {number}")


def test_history_and_events_are_bounded_and_keep_the_newest() -> None:
    board = Board()
    for number, status in enumerate(statuses(HISTORY_S + 50)):
        board.put_status(status)
        board.put_event(event(number))
    state = board.since(0)
    assert len(state["points"]) == HISTORY_S
    assert len(state["events"]) == EVENTS
    assert state["points"][-1].t == START_T + HISTORY_S + 49
    assert state["events"][-1]["event"].detail == f"event {HISTORY_S + 49}"


def test_a_second_keeps_its_highest_power_and_its_last_rules() -> None:
    board = Board()
    low, high = statuses(600)[0], statuses(600)[400]
    board.put_status(replace(high, t=START_T + 0.2))
    board.put_status(replace(low, t=START_T + 0.7))
    (point,) = board.since(0)["points"]
    assert point.power_w == high.domains[0].power_w
    assert (point.low, point.high) == ("", "")


def test_points_stay_in_order_when_the_clock_is_set_back() -> None:
    board = Board()
    for status in statuses(30):
        board.put_status(status)
    board.put_status(replace(statuses(30)[0], t=START_T + 5.5))
    times = [point.t for point in board.since(0)["points"]]
    assert times[-1] == START_T + 5
    assert all(earlier < later for earlier, later in pairwise(times))


def test_what_a_browser_has_is_not_told_again() -> None:
    board = Board()
    board.put_event(event(1))
    first = statuses(2)[0]
    board.put_status(first)
    known = board.n
    board.put_event(event(2))
    news = board.since(known)
    assert [item["event"].detail for item in news["events"]] == ["event 2"]
    assert news["points"] == []
    assert "status" not in news
    assert not news["whole"]


def test_age_of_the_status_is_told() -> None:
    now = 100.0
    board = Board(monotonic=lambda: now)
    board.put_status(statuses(1)[0])
    now = 107.5
    assert board.since(0)["age_s"] == 7.5


def test_those_who_wait_wake_at_the_next_put() -> None:
    async def wait_and_put() -> int:
        board = Board()
        async with asyncio.timeout(5.0), asyncio.TaskGroup() as group:
            waiting = [group.create_task(board.newer(0)) for _ in range(3)]
            await asyncio.sleep(0)
            assert not any(task.done() for task in waiting)
            board.put_event(event(1))
        return board.n

    assert asyncio.run(wait_and_put()) == 1


def test_lanes_name_the_strictest_rule_of_each_priority() -> None:
    board = Board()
    for status in statuses(600):
        board.put_status(status)
    lanes = {(point.low, point.high) for point in board.since(0)["points"]}
    assert lanes == {("", ""), ("T1 90 %", ""), ("T2 79 %", "T2 93 %"), ("BRAKE 20 %", "BRAKE 20 %")}


def test_a_point_has_the_forecasts_bound_unless_it_is_doubted_or_absent() -> None:
    board = Board()
    for status in statuses(600)[COLD_S - 1 : COLD_S + 1]:
        board.put_status(status)
    known = statuses(600)[COLD_S]
    row = replace(known.domains[0], outlook=None)
    board.put_status(replace(known, t=known.t + 1, domains=(row, *known.domains[1:])))

    assert [point.upper_w for point in board.since(0)["points"]] == [None, upper_w(known), None]


def test_the_last_bound_of_a_second_stands() -> None:
    board = Board()
    high, low = statuses(600)[400], statuses(600)[100]
    for number, status in enumerate((high, low)):
        board.put_status(replace(status, t=START_T + number / 2))
    (point,) = board.since(0)["points"]
    assert (point.demand_w, point.upper_w) == (high.domains[0].demand_w, upper_w(low))


def upper_w(status: RowStatus) -> float:
    outlook = status.domains[0].outlook
    assert outlook is not None
    return outlook.upper_w


def test_the_forecast_is_told_in_words_and_its_figures_reach_the_pages_json() -> None:
    board = Board()
    board.put_status(statuses(600)[300])
    state = msgspec.json.decode(msgspec.json.encode(board.since(0)))
    assert state["outlook"].endswith(
        "of such bounds in the last hour 99.2 % held, and the peak was 1.8 % off the forecast on average."
    )
    outlook = state["status"]["domains"][0]["outlook"]
    assert (outlook["coverage"], outlook["error_frac"]) == (0.992, 0.0181)
    assert outlook["upper_w"] == state["points"][0]["upper_w"]


def test_without_a_forecast_nothing_is_said_of_it() -> None:
    board = Board()
    status = statuses(1)[0]
    board.put_status(replace(status, domains=(replace(status.domains[0], outlook=None),)))
    assert board.since(0)["outlook"] == ""
