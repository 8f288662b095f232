"""The live page in a real browser: what it shows, what it never does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from polcad import words
from polcad.model import Event, EventKind
from polcad.web.board import Board
from polcad.web.server import serve
from polcad.web.spec import WebSpec
from tests.browser import Page, browse
from tests.row_feed import HOSTILE, Second, run

pytestmark = pytest.mark.integration

READY = "document.querySelectorAll('#nodes .tile').length"
RUN = list(run(600))
AT_T2 = 470  # seconds into it T2 stands, one node is stale, one GPU disobeys, the brake has come and gone


def put(board: Board, second: Second) -> None:
    board.put_status(second.status)
    board.put_nodes(second.t, second.nodes)
    for event in second.events:
        board.put_event(event)


def look(profile: Path, seconds: list[Second], body: Callable[[Board, Page], Awaitable[None]]) -> None:
    """Run `body` with a page that shows these seconds; it must have been quiet, and have asked nobody else."""

    async def main() -> None:
        board = Board(site="here")
        for second in seconds:
            put(board, second)
        async with serve(board, WebSpec(port=0)) as url, browse(profile, url) as page:
            await page.until(READY)
            await body(board, page)
            assert page.errors == []
            assert {urlsplit(asked).netloc for asked in page.requests} == {urlsplit(url).netloc}

    asyncio.run(main())


async def text(page: Page, selector: str) -> str:
    """The text of an element, its white space made single."""
    return " ".join(str(await page.ask(f"document.querySelector('{selector}').textContent")).split())


def test_the_page_shows_the_rows_figures_rules_and_nodes(tmp_path: Path) -> None:
    async def body(_: Board, page: Page) -> None:
        assert await text(page, "#row") == "row-a"
        assert await text(page, "#used") == "92 %"
        row = RUN[AT_T2 - 1].status.domains[0]
        assert await text(page, "#power") == words.watts(row.power_w)
        assert await text(page, "#demand") == words.watts(row.demand_w)
        assert await text(page, "#demand-sub") == f"{words.watts(row.demand_w - row.power_w)} held back"
        assert await text(page, "#heard") == "11 / 12"
        assert await text(page, "#condition") == "live"
        assert await text(page, "title") == "92 % · row-a · polcad"
        assert "Power passed T2 (89 % of budget)." in await text(page, "#why")
        assert "stays because projected 84 %" in await text(page, "#why")
        assert "clock ≤ 79 %⚠ 23/24" in await text(page, "#classes tr:last-child")
        assert "T1 90 %" in await text(page, "#lanes")
        assert await page.ask("document.querySelector('#plot canvas').width") > 100
        stale = await page.ask("[...document.querySelectorAll('#nodes .tile.stale')].map((tile) => tile.ariaLabel)")
        assert [label.split(" ·")[0] for label in stale] == ["n03"]
        assert "stale: counted at its worst" in stale[0]
        assert "does not obey" in await page.ask("document.querySelector('#nodes .tile.fault').ariaLabel")
        assert await page.ask("document.querySelectorAll('#nodes .tile.lock').length") == 11

    look(tmp_path, RUN[:AT_T2], body)


def test_the_forecast_is_a_band_with_its_words_until_it_is_doubted(tmp_path: Path) -> None:
    async def body(board: Board, page: Page) -> None:
        assert "forecast bound" in await text(page, "#key")
        assert (await text(page, "#outlook")).startswith("Within 40 s the uncapped demand stays below")
        outlook = RUN[AT_T2 - 1].status.domains[0].outlook
        assert outlook is not None
        assert f"forecast at most {words.watts(outlook.upper_w)}" in await label(page)
        await page.look(1280, 900)
        await page.until("innerWidth === 1280 && document.querySelector('#plot canvas').width < 1280")
        await page.send("Input.dispatchMouseEvent", type="mouseMoved", **await middle(page))
        await page.until("document.querySelector('#reading').textContent.includes('forecast ≤')")

        row, *racks = RUN[AT_T2].status.domains
        doubted = replace(row, outlook=replace(outlook, doubt="it was <b>wrong</b>"))
        board.put_status(replace(RUN[AT_T2].status, domains=(doubted, *racks)))
        await page.until("document.querySelector('#outlook').textContent.includes('not used: it was <b>wrong</b>')")
        assert "forecast at most" not in await label(page)

    look(tmp_path, RUN[:AT_T2], body)


def test_a_page_of_a_row_that_nobody_forecasts_shows_no_trace_of_it(tmp_path: Path) -> None:
    async def body(_: Board, page: Page) -> None:
        assert "forecast" not in await text(page, "#key")
        assert await page.ask("document.querySelector('#outlook').hidden")

    look(tmp_path, [unforeseen(second) for second in RUN[:30]], body)


def unforeseen(second: Second) -> Second:
    row, *racks = second.status.domains
    return replace(second, status=replace(second.status, domains=(replace(row, outlook=None), *racks)))


async def label(page: Page) -> str:
    return " ".join(str(await page.ask("document.querySelector('#plot').ariaLabel")).split())


async def middle(page: Page) -> dict[str, float]:
    """The middle of the chart, in pixels."""
    box = await page.ask("(({x, y, width, height}) => [x, y, width, height])(plot.getBoundingClientRect())")
    return {"x": box[0] + box[2] / 2, "y": box[1] + box[3] / 2}


def test_markup_in_an_event_stays_text(tmp_path: Path) -> None:
    async def body(_: Board, page: Page) -> None:
        assert HOSTILE in str(await page.ask("document.querySelector('#events').textContent"))
        assert await page.ask("document.querySelectorAll('#events script, #events img').length") == 0
        assert "owned" not in await page.ask("document.title")

    look(tmp_path, RUN[:40], body)


def test_events_and_figures_arrive_live_and_a_brake_is_shown(tmp_path: Path) -> None:
    async def body(board: Board, page: Page) -> None:
        before = await page.ask("document.querySelectorAll('#events li').length")
        assert await page.ask("document.querySelector('#brake').hidden")
        braked = next(second for second in RUN if any(event.kind is EventKind.BRAKE for event in second.events))
        put(board, braked)
        await page.until("!document.querySelector('#brake').hidden")
        assert await page.ask("document.querySelectorAll('#events li').length") == before + 1
        assert "brake row t2 → brake" in await text(page, "#events li:first-child")
        board.put_status(replace(braked.status, online=False))
        await page.until("document.body.dataset.condition === 'offline'")

    look(tmp_path, RUN[:300], body)


def test_a_page_that_lost_its_server_says_so_and_comes_back_without_repeating(tmp_path: Path) -> None:
    async def main() -> None:
        board = Board()
        for second in RUN[:60]:
            put(board, second)
        async with serve(board, WebSpec(port=0)) as url:
            browser = browse(tmp_path, url)
            page = await browser.__aenter__()
            await page.until(READY)
        port = urlsplit(url).port
        assert port is not None
        await page.until("document.body.dataset.condition === 'late'")
        board.put_event(Event(RUN[60].t, EventKind.HOLD, "row", "while away"))
        async with serve(board, WebSpec(port=port)):
            await page.until("document.querySelector('#events').textContent.includes('while away')")
            assert await page.ask("document.querySelectorAll('#events li').length") == 4
            await browser.__aexit__(None, None, None)

    asyncio.run(main())


def test_nodes_are_reached_by_keyboard_and_their_figures_told(tmp_path: Path) -> None:
    async def body(_: Board, page: Page) -> None:
        await page.send("Page.bringToFront")
        await page.ask("document.querySelector('.tile[tabindex=\"0\"]').focus()")
        for _press in range(2):
            await page.send("Input.dispatchKeyEvent", type="keyDown", key="ArrowRight")
        await page.until("document.activeElement.textContent.includes('n03')")
        await page.until("!document.querySelector('#tip').hidden")
        assert "stale: counted at its worst" in await text(page, "#tip")
        assert await page.ask("document.querySelectorAll('.tile[tabindex=\"0\"]').length") == 1

    look(tmp_path, RUN[:AT_T2], body)


@pytest.mark.parametrize("width", [1280, 390])
def test_a_row_of_520_nodes_fits_the_width(tmp_path: Path, width: int) -> None:
    async def body(_: Board, page: Page) -> None:
        await page.look(width, 800, "dark")
        await page.until(f"innerWidth === {width}")
        assert await page.ask(READY) == 520
        assert await page.ask("document.documentElement.scrollWidth") <= width

    look(tmp_path, list(run(60, nodes=520, racks=13)), body)
