"""Every query of every dashboard against a real database that the real programs filled, as Grafana would ask it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import isfinite
from pathlib import Path

import pytest

from tests.grafana import Choice, Json, Range, panels
from tests.grafana_row import SCRAPE_S, Shown, shown
from tests.grafana_sources import Choices, InfluxSource, PrometheusSource, Series, Source
from tests.test_dashboards import BOARDS
from tests.waiting import until

pytestmark = pytest.mark.integration

NOT_MEASURED = {"Power of the server"}  # no server of this row measures its own power
SINGLE = {"scope": "rack/r1", "node": "n2"}  # chosen by the person who looks at one thing; else the first

every_board = pytest.mark.parametrize("path", BOARDS)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory, fake_nvml_lib: Path) -> Iterator[tuple[Shown, Range]]:
    start_t = time.time()
    with shown(tmp_path_factory.mktemp("row"), fake_nvml_lib) as row:
        until(lambda: bool(row.influx.ask('SELECT * FROM "polcad_hint" LIMIT 1')))
        yield row, Range(start_t, time.time(), scrape_s=SCRAPE_S)


def source_of(path: str, row: Shown) -> Source:
    return InfluxSource(row.influx) if path.startswith("influxdb/") else PrometheusSource(row.prometheus)


def chosen(board: Json, source: Source, seen: Range, single: Mapping[str, str]) -> Choices:
    """What is chosen at the top: all of what can be several, or what `single` says."""
    choices: dict[str, Choice] = {}
    for variable in board["templating"]["list"][1:]:
        name, current = variable["name"], variable.get("current", {})
        if variable["type"] == "custom":
            choices[name] = Choice((current["value"],), text=current["text"])
            continue
        offered = source.offers(variable, choices, seen)
        assert offered, f"no value for {name}"
        if variable["includeAll"] and not single:
            every = (variable["allValue"],) if "allValue" in variable else tuple(offered)
            choices[name] = Choice(every, several=True, raw="allValue" in variable)
        else:
            value = single.get(name, current.get("value", offered[0]) if not variable["multi"] else offered[0])
            assert value in offered
            choices[name] = Choice((value,), several=variable["multi"])
    return choices


def asked(panel: Json, source: Source, choices: Choices, seen: Range) -> list[list[Series]]:
    """What each query of a panel brings; of one that is repeated, that for the first value."""
    wider = replace(seen, interval_s=max(seen.interval_s, int(panel.get("interval", "1s").rstrip("s"))))
    if repeated := panel.get("repeat"):
        choices = {**choices, repeated: Choice(("0",), several=True)}
    return [source.answers(target, choices, wider) for target in panel["targets"]]


def shows(series: list[Series]) -> bool:
    values = [value for each in series for value in each.values]
    return bool(values) and all(isfinite(value) for value in values if isinstance(value, float))


@every_board
@pytest.mark.parametrize("single", [{}, SINGLE], ids=["all", "one"])
def test_every_query_of_every_panel_brings_something(
    path: str, single: Mapping[str, str], seen: tuple[Shown, Range]
) -> None:
    row, when = seen
    board, source = BOARDS[path], source_of(path, row)
    choices = chosen(board, source, when, single)
    empty = [
        (panel["title"], target.get("query", target.get("expr")))
        for panel in panels(board)
        for target, series in zip(panel["targets"], asked(panel, source, choices, when), strict=True)
        if not shows(series) and panel["title"] not in NOT_MEASURED
    ]
    assert empty == []


@every_board
def test_every_column_of_a_table_is_filled(path: str, seen: tuple[Shown, Range]) -> None:
    row, when = seen
    board, source = BOARDS[path], source_of(path, row)
    choices = chosen(board, source, when, {})
    for panel in panels(board):
        for series in asked(panel, source, choices, when) if panel["type"] == "table" else ():
            columns = {each.tags.get("column", "") for each in series}
            assert columns == {each.tags.get("column", "") for each in series if each.values}


@every_board
def test_events_are_drawn_into_the_curves(path: str, seen: tuple[Shown, Range]) -> None:
    row, when = seen
    board, source = BOARDS[path], source_of(path, row)
    annotation = board["annotations"]["list"][1]
    kinds = source.annotated(annotation, chosen(board, source, when, {}), when)
    assert {"brake", "tighten", "stale", "hold", "hint"} <= kinds


@pytest.mark.parametrize("database", ["influxdb", "prometheus"])
def test_the_row_shows_what_happened_to_it(database: str, seen: tuple[Shown, Range]) -> None:
    row, when = seen
    path = f"{database}/polcad-row.json"
    source, board = source_of(path, row), BOARDS[path]
    choices = chosen(board, source, when, {})
    found = {panel["title"]: asked(panel, source, choices, when) for panel in panels(board)}

    def number(title: str) -> float:
        ((one,),) = found[title]
        return float(one.values[-1])

    held_s = {each.tags["why"]: each.values[-1] for each in found["Time in each cause"][0]}
    assert min(held_s[why] for why in ("t1", "t2", "brake")) > 0.1
    assert number("Brakes") >= 1.0
    assert number("Silent nodes") == 1.0
    assert number("Victims") >= 2.0
    assert number("Budget") == 2360.0
    locks = [value for each in found["Clock locks of the classes"][0] for value in each.values]
    assert min(locks) < 0.3
    assert max(locks) == 1.0


def test_a_shadows_figures_stand_apart_from_those_of_the_rows_own_daemon(seen: tuple[Shown, Range]) -> None:
    row, when = seen
    board = BOARDS["prometheus/polcad-row.json"]
    source = PrometheusSource(row.prometheus)
    choices = chosen(board, source, when, {})
    (variable,) = (each for each in board["templating"]["list"] if each["name"] == "daemon")
    live = source.offers(variable, choices, when)
    shadow = source.offers(variable, {**choices, "mode": Choice(("1",), text="shadow")}, when)
    assert live == [f"127.0.0.1:{row.row.ports['daemon']}"]
    assert shadow == [f"127.0.0.1:{row.row.ports['shadow']}"]
    modes = row.influx.ask('SHOW TAG VALUES FROM "polcad_domain" WITH KEY = "mode"')
    assert {each["value"] for each in modes} == {"live", "shadow"}
