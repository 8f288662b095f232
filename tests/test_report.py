"""The report page: what is on it, and what never is."""

import asyncio
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from polcad.errors import ConfigError
from polcad.model import Event, EventKind, Priority
from polcad.report import Figure, Plot, Series, Table, check_writable, of_row, page, write
from polcad.sim.inject import Injection
from polcad.sim.row import START_T, simulate
from tests.browser import browse
from tests.sim_rows import small_row

pytestmark = pytest.mark.integration  # rows take seconds

HOSTILE = "</script><img src=x onerror=alert(1)>@@DATA@@"


@pytest.fixture(scope="module")
def row_page() -> str:
    model = small_row(injections=(Injection.parse("brake@120+60"), Injection.parse("ignore:3@200+60")))
    return of_row(model, simulate(model), "polca")


def hostile_page() -> str:
    plot = Plot(HOSTILE, [0.0, 1.0], [Series(HOSTILE, [0.5, float("nan")])], note=HOSTILE)
    table = Table(HOSTILE, [HOSTILE], [[HOSTILE]], note=HOSTILE)
    return page(HOSTILE, HOSTILE, [Figure(HOSTILE, HOSTILE, HOSTILE)], [plot, table])


def plots_of(text: str) -> list[dict[str, object]]:
    found = re.search(r'<script type="application/json" id="plots">(.*?)</script>', text, re.DOTALL)
    assert found
    plots: list[dict[str, object]] = json.loads(found[1])
    return plots


def test_the_page_names_no_other_place(row_page: str) -> None:
    own = row_page.split("<script>", maxsplit=1)[0]
    assert "http" not in own.replace("http-equiv", "")
    assert "default-src 'none'" in own


def test_no_text_becomes_markup() -> None:
    text = hostile_page()
    assert "<img" not in text
    assert "&lt;img" in text
    assert text.count("<script") == 2
    assert plots_of(text)[0]["series"][0]["label"] == HOSTILE  # type: ignore[index]  # of a plain JSON object


def test_what_is_not_a_number_is_left_open() -> None:
    assert plots_of(hostile_page())[0]["series"][0]["values"] == [0.5, None]  # type: ignore[index]  # as above


def test_a_row_has_its_plots_tables_and_faults(row_page: str) -> None:
    assert len(plots_of(row_page)) == 4
    for text in ("8 servers under polca", "Injected faults", "ignore", "token_request_s", "Peak", "assumed"):
        assert text in row_page


def test_the_same_row_gives_the_same_page(row_page: str) -> None:
    model = small_row(injections=(Injection.parse("brake@120+60"), Injection.parse("ignore:3@200+60")))
    assert of_row(model, simulate(model), "polca") == row_page


def test_long_runs_are_drawn_with_as_many_points_as_a_screen_has() -> None:
    model = small_row(seconds=600)
    result = simulate(model)
    minutes = result.minutes
    long = replace(
        minutes,
        **{
            name: getattr(minutes, name).repeat(2000)
            for name in ("power_min", "power_mean", "power_max", "uncapped_max")
        },
        clock={priority: clock.repeat(2000) for priority, clock in minutes.clock.items()},
    )
    plot = plots_of(of_row(model, replace(result, minutes=long), "polca"))[0]
    assert 3000 <= len(plot["x"]) <= 6000  # type: ignore[arg-type]  # as above
    assert max(plot["series"][0]["values"]) == pytest.approx(float(minutes.power_max.max()), rel=1e-4)  # type: ignore[index]


def test_an_events_words_are_escaped() -> None:
    model = small_row()
    result = replace(simulate(model), events=(Event(START_T, EventKind.TIGHTEN, "row", HOSTILE),))
    assert "<img" not in of_row(model, result, HOSTILE)
    assert set(result.slowdown) == set(Priority)


def test_a_page_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    for attempt in (check_writable, lambda path: write(path, "")):
        with pytest.raises(ConfigError, match=r"none/r\.html: cannot be written"):
            attempt(tmp_path / "none" / "r.html")


@pytest.mark.integration
def test_a_browser_draws_every_plot_and_asks_nobody(tmp_path: Path, row_page: str) -> None:
    path = tmp_path / "row.html"
    write(path, row_page)

    async def main() -> None:
        async with browse(tmp_path / "profile", path.as_uri()) as shown:
            await shown.until("document.querySelectorAll('.u-over').length === 4")
            for scheme in ("dark", "light"):
                await shown.look(1280, 900, scheme)
            assert shown.errors == []
            assert shown.requests == [path.as_uri()]

    asyncio.run(main())
