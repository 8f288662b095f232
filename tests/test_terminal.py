"""A row in words and in the terminal: what is said, at the widths people have."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from polcad import words
from polcad.backlog import Received
from polcad.explain import explain
from polcad.model import Event, EventKind, Gpus, NodePlacement, Placement, Priority, Reading, RowStatus, Telemetry, Why
from polcad.terminal import render, summary, well
from polcad.top import run_top
from polcad.wire import Address, Message, encode
from tests.row_feed import COLD_S, START_T, THRESHOLDS, Second, run

RUN = list(run(600))
FREE, T1, T2 = (
    next(each for each in RUN if words.lane(each.status, Priority.LOW).startswith(lane)) for lane in ("", "T1", "T2")
)
BRAKE = next(each for each in RUN if words.lane(each.status, Priority.LOW).startswith("BRAKE"))

FORESEEN = RUN[COLD_S].status.domains[0].outlook
UPPER_W = FORESEEN.upper_w if FORESEEN else 0.0


def shown(second: Second, width: int, age_s: float = 0.4, *events: Event) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(render(second.status, second.nodes, events, age_s=age_s))
    return str(console.file.getvalue())  # type: ignore[attr-defined]  # it is the StringIO from above


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("second", [FREE, T1, T2, BRAKE])
def test_no_line_is_wider_than_the_terminal_and_no_figure_is_lost(second: Second, width: int) -> None:
    text = shown(second, width)
    row = second.status.domains[0]
    assert max(map(len, text.splitlines())) <= width
    for figure in (
        words.watts(row.power_w),
        f"of {words.watts(row.budget_w)}",
        words.watts(row.demand_w),
        "n05:",
        "r3",
    ):
        if figure != "n05:" or second is not FREE:
            assert figure in text


@pytest.mark.parametrize("width", [80, 120])
def test_rules_say_who_what_why_since_and_what_they_wait_for(width: int) -> None:
    text = " ".join(shown(T2, width).split())
    assert "Row, low priority: clock ≤ 79 % power passed T2 (89 % of budget)" in text
    assert "Row, high priority: clock ≤ 93 % still above T2 (89 % of budget) after the low priority had slowed" in text
    assert "stays because projected 84 % of the budget is above T1 (80 %)" in text
    assert text.count("since ") == 1
    assert "! 23/24" in text


def test_a_free_row_says_so() -> None:
    assert "No rule stands: every GPU is free." in shown(FREE, 80)


def test_a_brake_is_named_in_the_title() -> None:
    assert "BRAKE" in shown(BRAKE, 80).splitlines()[0]


@pytest.mark.parametrize(
    ("age_s", "word"), [(0.4, "● live"), (7.0, "▲ late"), (60.0, "■ silent, heard 1 min 00 s ago")]
)
def test_the_title_says_what_the_status_is_worth(age_s: float, word: str) -> None:
    assert word in shown(T1, 80, age_s).splitlines()[0]


def test_one_sign_a_node_tells_stale_and_faulty_from_power() -> None:
    lines = shown(T2, 80).splitlines()
    strips = [line.split()[1] for line in lines if line.startswith(("r1 ", "r2 ")) and "kW" not in line]
    assert [len(strip) for strip in strips] == [4, 4]
    assert strips[0][2] == "?"
    assert strips[1][0] == "!"


def test_a_strangers_escape_sequences_and_markup_stay_text() -> None:
    event = Event(START_T, EventKind.UNLISTED, "node/ghost", "\x1b]0;owned\x07[red]x[/red]")
    text = shown(T1, 80, 0.4, event)
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "[red]x[/red]" in text


def test_explain_tells_the_whole_reason() -> None:
    told = " ".join(explain(T2.status, T2.nodes, age_s=0.4))
    assert "above T2 (89 %)" in told or "above T1 (80 %)" in told
    assert "Low priority: clock ≤ 79 %, because power passed T2 (89 % of budget)." in told
    assert "is not loosened because projected 84 %" in told
    assert "1 of 24 GPUs (low priority, token) are not seen to follow the plan (clock ≤ 79 %)." in told
    assert "Node n03: not heard of late, counted at its worst." in told
    assert "Shadow" not in told
    assert "Shadow mode" in " ".join(explain(replace(T2.status, shadow=True)))


def ahead(second: Second, **changes: Any) -> RowStatus:
    """The same with every rule made by the forecast, and the row's outlook changed."""
    row, *racks = second.status.domains
    assert row.outlook is not None
    rules = tuple(replace(rule, why=Why.FORECAST) for rule in row.rules)
    row = replace(row, rules=rules, outlook=replace(row.outlook, upper_w=50_000.0, hold_w=52_400.0, **changes))
    return replace(second.status, thresholds={**THRESHOLDS, "limit": 0.97}, domains=(row, *racks))


def test_explain_tells_the_bound_how_often_it_held_and_that_it_made_the_plan() -> None:
    told = list(explain(ahead(T2)))
    assert (
        "Within 40 s the uncapped demand stays below 50.0 kW, within 5 min below 52.4 kW (99 % sure); of such bounds "
        "in the last hour 99.2 % held, and the peak was 1.8 % off the forecast on average."
    ) in told
    assert (
        "Low priority: clock ≤ 79 %, because at a milder setting its demand could pass the limit (97 % of budget): "
        "the 99 % bound on it is now 50.0 kW within 40 s, 52.4 kW within 5 min."
    ) in told


def test_a_bound_that_none_has_judged_yet_is_told_without_a_record() -> None:
    told = list(explain(ahead(T2, coverage=None, error_frac=None)))
    assert "Within 40 s the uncapped demand stays below 50.0 kW, within 5 min below 52.4 kW (99 % sure)." in told


def test_a_doubted_forecast_gives_its_reason_and_no_bound() -> None:
    told = list(explain(ahead(T2, doubt="only 30 s were\x1b judged")))
    assert "The forecast is not used: only 30 s were� judged." in told
    assert "50.0 kW" not in " ".join(told)
    assert any(line.endswith("at a milder setting its demand could pass the limit (97 % of budget).") for line in told)


@pytest.mark.parametrize(
    ("second", "line"),
    [
        (RUN[COLD_S - 1], f"Forecast  not used: it has watched the row for {COLD_S - 1} of {COLD_S} s"),
        (RUN[COLD_S], f"Forecast  ≤ {words.watts(UPPER_W)} within 40 s (99 %); last hour: 99.2 % held, error 1.8 %"),
    ],
)
def test_the_forecast_takes_one_line_of_eighty_columns(second: Second, line: str) -> None:
    assert line in shown(second, 80).splitlines()


@pytest.mark.parametrize(
    ("length_s", "told"), [(0.5, "0.5 s"), (40.0, "40 s"), (300.0, "5 min"), (330.0, "5 min 30 s"), (3600.0, "1 h")]
)
def test_horizons_are_told_as_they_were_set(length_s: float, told: str) -> None:
    assert words.horizon(length_s) == told


def test_explain_of_a_row_without_a_daemon_says_what_nodes_do() -> None:
    (only,) = explain(RowStatus("row-a", online=False, epoch=0))
    assert "fail-safe" in only


def test_status_is_well_only_when_live_within_budget_and_unbraked() -> None:
    over = replace(T2.status, domains=(replace(T2.status.domains[0], power_w=T2.status.domains[0].budget_w + 1.0),))
    assert well(T2.status, age_s=1.0)
    assert not well(T2.status, age_s=60.0)
    assert not well(over)
    assert not well(BRAKE.status)
    assert not well(replace(T2.status, online=False))
    assert not well(RowStatus("row-a", online=True, epoch=1))


def test_summary_of_a_daemons_last_will_is_one_line() -> None:
    console = Console(file=io.StringIO(), width=80)
    console.print(summary(RowStatus("row-a", online=False, epoch=0), age_s=1e9))
    assert "■ offline" in console.file.getvalue()  # type: ignore[attr-defined]  # it is the StringIO from above


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0 W"), (845.4, "845 W"), (43210, "43.2 kW"), (1.254e6, "1.25 MW"), (-2500, "-2.50 kW")]
)
def test_watts_have_three_figures(value: float, text: str) -> None:
    assert words.watts(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(12, "12 s"), (185, "3 min 05 s"), (7800, "2 h 10 min"), (270000, "3 d 3 h"), (-4, "0 s")]
)
def test_durations_have_two_units(value: float, text: str) -> None:
    assert words.duration(value) == text


def test_top_draws_what_the_rows_topics_bring() -> None:
    gpus = Gpus(uuid=("a", "b"), power_w=(350.0, None), max_w=(700.0, 700.0), fault=(None, "lost"))
    heard = Telemetry("n1", "boot", 1, START_T, 1.0, Reading(gpus))
    messages = [
        Message("polcad/v1/s/row-a/rubbish", b"{"),
        encode(Address("s", "row-a", "daemon"), T1.status),
        encode(Address("s", "row-a", "telemetry", "r9", "n1"), heard),
        encode(Address("s", "row-a", "placement", "r9", "n1"), NodePlacement("n1", Placement(Priority.HIGH))),
        encode(Address("s", "row-a", "event"), Event(START_T, EventKind.HOLD, "row", "by hand")),
    ]

    async def batches() -> AsyncIterator[list[Received]]:
        yield [Received(T1.t, message) for message in messages]

    console = Console(file=io.StringIO(), width=100, height=60)
    asyncio.run(run_top(batches(), console, lambda: T1.t + 1.0))
    text = console.file.getvalue()  # type: ignore[attr-defined]  # it is the StringIO from above
    assert "row-a" in text
    assert "heard 1 s ago" in text
    assert "r9 !" in text
    assert "n1: lost" in text
    assert "hold  row  by hand" in text
