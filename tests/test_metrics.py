"""What Prometheus is told, and when a program says that it is not well."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from aiohttp import ClientSession
from hypothesis import given
from hypothesis import strategies as st

from polcad.causes import Causes
from polcad.model import DomainStatus, Event, EventKind, RowStatus, Rule, Setpoint, Why
from polcad.pulse import Pulse
from polcad.reaction import Reactions
from polcad.telling import Telling
from polcad.web.board import Board
from polcad.web.families import COUNTER_NAMES, FAMILIES, Type
from polcad.web.server import serve
from polcad.web.spec import WebSpec
from polcad.web.window import PARTS, Window, spans
from tests.scrapes import samples, telling_of
from tests.test_points import HINT, NODES, STATUS, T

ROW = (("row", "row"),)
OF_ROW = (("row", "row"), ("scope", "row"))


def tick(telling: Telling, status: RowStatus, lag_s: float = 0.0) -> None:
    telling.ticked(status, NODES, Reactions(), lag_s, 0.001)


def powered(t: float, power_w: float) -> RowStatus:
    return replace(STATUS, t=t, domains=(replace(STATUS.domains[0], power_w=power_w),))


def scraped(telling: Telling) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return samples(telling.scene().laid_out().text())


@given(st.lists(st.tuples(st.floats(0.05, 3.0), st.floats(0.0, 1e6)), min_size=1, max_size=200))
def test_a_window_tells_all_of_its_time_and_little_more(steps: list[tuple[float, float]]) -> None:
    window: Window[str] = Window(12.0)
    t, told = 0.0, []
    for step_s, value in steps:
        t += step_s
        window.add(t, {"row": value})
        told.append((t, value))
    low, mean, high = spans(window.parts())["row"]
    inside = [value for when, value in told if when > t - 12.0]
    nearby = [value for when, value in told if when > t - 12.0 - 2 * 12.0 / PARTS]
    assert low <= min(inside)
    assert high >= max(inside)
    assert low in nearby
    assert high in nearby
    assert low - 1e-6 <= mean <= high + 1e-6


def test_a_window_forgets_and_survives_a_clock_that_is_set() -> None:
    window: Window[str] = Window(12.0)
    window.add(T, {"row": 9.0})
    window.add(T + 100.0, {"row": 1.0})
    assert spans(window.parts())["row"] == (1.0, 1.0, 1.0)
    window.add(T - 5000.0, {"row": 2.0})
    for step in range(40):
        window.add(T - 5000.0 + step, {"row": 3.0})
    assert spans(window.parts())["row"] == (3.0, 3.0, 3.0)


def test_a_peak_between_two_scrapes_is_told_to_every_scraper_and_as_often_as_asked() -> None:
    now = [T]
    telling = telling_of(now=lambda: now[0])
    for second in range(60):
        now[0] = T + second
        tick(telling, powered(now[0], 9500.0 if second == 20 else 7000.0))
    found = [scraped(telling) for _ in range(3)]
    assert found[0] == found[1] == found[2]
    assert found[0]["polcad_domain_power_watts", OF_ROW] == 7000.0
    assert found[0]["polcad_domain_power_max_watts", OF_ROW] == 9500.0
    assert found[0]["polcad_domain_power_min_watts", OF_ROW] == 7000.0
    assert found[0]["polcad_domain_power_mean_watts", OF_ROW] == pytest.approx(7041.7, abs=0.1)


def test_time_under_a_cause_is_added_up_and_told_as_over_when_it_is() -> None:
    now = [T]
    telling = telling_of(now=lambda: now[0])
    free = replace(STATUS, domains=(replace(STATUS.domains[0], rules=()),))
    for second in range(10):
        now[0] = T + second
        tick(telling, replace(STATUS if second < 4 else free, t=now[0]))
    labels = (*OF_ROW, ("why", "t1"))
    assert scraped(telling)["polcad_domain_cause_seconds_total", labels] == 4.0
    assert scraped(telling)["polcad_domain_cause_active", labels] == 0.0


def test_a_silence_counts_for_no_cause() -> None:
    causes = Causes()
    causes.note(STATUS)
    causes.note(replace(STATUS, t=T + 1000.0))
    causes.note(replace(STATUS, t=T + 1001.0))
    assert causes.seconds == {("row", Why.T1): 1.0}


def test_everything_told_stands_in_the_table_in_base_units() -> None:
    telling = telling_of(lambda: (HINT,), now=lambda: T)
    telling.said(Event(T, EventKind.TIGHTEN, "row"))
    tick(telling, STATUS, lag_s=0.25)
    found = scraped(telling)
    for name, labels in found:
        assert set(dict(labels)) == set(FAMILIES[name].labels), name
    assert found["polcad_tick_lag_max_seconds", ROW] == 0.25
    assert found["polcad_events_total", (("kind", "tighten"), ("row", "row"))] == 1.0
    assert found["polcad_domain_threshold_watts", (("name", "t1"), *OF_ROW)] == 7200.0
    assert found["polcad_domain_forecast_upper_watts", OF_ROW] == 8500.0
    assert found["polcad_telemetry_messages_total", ROW] == 5.0
    assert found["polcad_node_stale", (("node", "n2"), ("rack", "r2"), ("row", "row"))] == 1.0
    assert ("polcad_node_power_watts", (("node", "n2"), ("rack", "r2"), ("row", "row"))) not in found


def test_the_table_keeps_to_the_conventions_of_prometheus() -> None:
    for name, family in FAMILIES.items():
        assert name.startswith("polcad_")
        assert name.endswith("_total") == (family.type is Type.COUNTER), name
        assert not name.endswith(("_w", "_s", "_frac", "_mhz", "_kw", "_percent"))
        assert family.help.endswith(".")
    assert len(set(COUNTER_NAMES.values())) == len(COUNTER_NAMES)


def test_old_figures_are_told_no_more() -> None:
    now = [T]
    telling = telling_of(now=lambda: now[0])
    tick(telling, STATUS)
    now[0] = T + 60.0
    found = scraped(telling)
    assert ("polcad_domain_power_watts", OF_ROW) not in found
    assert found["polcad_tick_timestamp_seconds", ROW] == T
    assert found["polcad_ready", ()] == 0.0


def test_a_daemon_is_ready_when_the_broker_is_up_and_telemetry_fresh() -> None:
    now = [T]
    telling = telling_of(now=lambda: now[0])
    assert telling.unready() == ["the broker is not reached", "the loop has not ticked of late"]
    telling.connected = True
    tick(telling, replace(STATUS, domains=()))
    assert telling.unready() == ["not every node was heard since the start: no plan yet"]
    tick(telling, replace(STATUS, nodes_stale=2))
    assert telling.unready() == ["none of 2 nodes is fresh"]
    tick(telling, STATUS)
    assert telling.unready() == []
    now[0] += 60.0
    assert telling.unready() == ["the loop has not ticked of late"]


def test_health_is_that_of_the_loop_and_readiness_tells_each_reason() -> None:
    monotonic = [0.0]
    telling = telling_of()
    telling.pulse = Pulse(lambda: monotonic[0])

    async def asked(path: str) -> tuple[int, str]:
        async with serve(Board(), WebSpec(port=0), telling) as url, ClientSession(url) as client:
            response = await client.get(path)
            return response.status, await response.text()

    assert asyncio.run(asked("/healthz")) == (200, "ok\n")
    assert asyncio.run(asked("/readyz")) == (503, "the broker is not reached\nthe loop has not ticked of late\n")
    monotonic[0] = 40.0
    assert asyncio.run(asked("/healthz")) == (503, "the loop has not turned for 40 s\n")
    telling.pulse.beat()
    assert asyncio.run(asked("/healthz")) == (200, "ok\n")


def test_causes_of_a_rack_are_its_own() -> None:
    rule = Rule("rack/r1", Setpoint(0.2), Why.BRAKE)
    rack = DomainStatus("rack/r1", 900.0, 950.0, 950.0, (rule,), T)
    causes = Causes()
    for second in range(3):
        causes.note(replace(STATUS, t=T + second, domains=(*STATUS.domains, rack)))
    assert causes.seconds == {("row", Why.T1): 2.0, ("rack/r1", Why.BRAKE): 2.0}
