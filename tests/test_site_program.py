"""What an operator has of the site level: configuration, the view in the terminal, metrics."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from polcad.config import check_config, load
from polcad.errors import ConfigError
from polcad.explain import explain
from polcad.model import Allowance, Event, EventKind, LeaseState, RowStatus, SiteRow, SiteStatus
from polcad.site_text import table, well
from polcad.site_vitals import SiteVitals
from polcad.terminal import summary
from tests.row_feed import run

ROWS = (
    SiteRow("row1", 2.5e6, 2.5e6, 1.8e6, 2.0e6, 2.0e6, 2.6e6),
    SiteRow("row2", 1.8e6, 2.2e6, 1.8e6, 1.0e6, 1.0e6, 1.3e6, "silent: keeps what it may have"),
)
STATUS = SiteStatus("fra1", online=True, epoch=1, seq=7, t=50.0, budget_w=5e6, power_w=3e6, rows=ROWS)
SITE = """
[site]
name = "fra1"
budget_w = 5e6
[[site.rows]]
name = "row1"
fail_safe_w = 1.8e6
[[site.rows]]
name = "row2"
fail_safe_w = 1.8e6
"""

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def to_file(text: str) -> Path:
        path = tmp_path / "polcad.toml"
        path.write_text(text)
        return path

    return to_file


def shown(status: SiteStatus, age_s: float = 0.0) -> str:
    console = Console(width=140)
    with console.capture() as capture:
        console.print(table(status, age_s=age_s))
    return capture.get()


def test_a_site_is_its_budget_and_its_rows(write: Write) -> None:
    site, budget_w = load([write(SITE)], {}).the_site()
    assert (site.name, budget_w, [row.name for row in site.rows]) == ("fra1", 5e6, ["row1", "row2"])


@pytest.mark.parametrize(
    ("before", "after", "place", "what"),
    [
        ("budget_w = 5e6", "budget_w = 3e6", ":4: site.budget_w", "less than the 3.6e+06 W that its rows fall to"),
        ('"row2"', '"row1"', ":9: site.rows[1].name", "used before"),
        ('name = "row2"', 'nmae = "row2"', ":9: site.rows[1].nmae", "did you mean name"),
        ("budget_w = 5e6", "budget_w = 5e6\nlease_s = 4.0", ":5: site.lease_s", "less than two ticks"),
    ],
)
def test_what_is_wrong_with_it_is_told_with_its_place(
    write: Write, before: str, after: str, place: str, what: str
) -> None:
    head, _, tail = SITE.rpartition(before)
    told = "\n".join(map(str, check_config([write(head + after + tail)], {})))
    assert place in told
    assert what in told


def test_a_fail_safe_budget_under_what_cannot_be_shed_is_refused(write: Write) -> None:
    row = '[row]\nname = "row1"\nbudget_w = 20000\nfail_safe_budget_w = {}\n[[node]]\nname = "n1"\n'
    assert "fail_safe_budget_w: 900 W is not above" in str(check_config([write(row.format(900))], {})[0])
    [warning] = check_config([write(row.format(2000))], {})
    assert warning.warning
    assert warning.key == "row.fail_safe_budget_w"


def test_without_a_budget_or_rows_there_is_no_site_to_divide(write: Write) -> None:
    with pytest.raises(ConfigError, match=r"site: it has no budget_w or no \[\[site.rows\]\]"):
        load([write('[site]\nname = "fra1"\n')], {}).the_site()


def test_the_view_names_what_each_row_may_draw_and_why_one_is_not_moved() -> None:
    text = shown(STATUS)
    assert "fra1  3.00 MW of 5.00 MW (60 %), 4.30 MW granted" in text
    assert "silent: keeps what it may have" in text
    assert "its daemon is gone" in shown(SiteStatus("fra1", online=False, epoch=1))
    assert "OVER ITS BUDGET" in shown(replace(STATUS, over=True))
    assert "silent for" in shown(STATUS, age_s=60.0)
    assert "led by a-host" in shown(replace(STATUS, host="a-host"))
    assert "led by" not in shown(STATUS)


def test_a_site_is_well_when_its_daemon_speaks_every_row_moves_and_it_is_within_its_budget() -> None:
    good = replace(STATUS, rows=ROWS[:1])
    assert well(good, age_s=1.0)
    assert not well(STATUS, age_s=1.0)
    assert not well(good, age_s=60.0)
    assert not well(replace(good, over=True), age_s=1.0)
    assert not well(replace(good, power_w=6e6), age_s=1.0)
    assert not well(replace(good, online=False), age_s=1.0)


def test_a_scrape_finds_the_site_and_each_of_its_rows() -> None:
    now = [100.0]
    vitals = SiteVitals("fra1", lambda: now[0])
    assert vitals.unready() == ["the broker is not reached", "the loop has not ticked yet"]
    vitals.connected = True
    vitals.ticked(100.0, STATUS)
    vitals.note_event(Event(1.0, EventKind.STALE, "row/row2"))
    text = vitals.scene().laid_out().text()
    for line in (
        'polcad_site_granted_watts{site="fra1"} 4300000.0',
        'polcad_site_row_reserved_watts{row="row2",site="fra1"} 2200000.0',
        'polcad_site_row_held{row="row2",site="fra1"} 1.0',
        'polcad_site_events_total{kind="stale",site="fra1"} 1.0',
        'polcad_site_events_total{kind="brake",site="fra1"} 0.0',
        "polcad_ready 1.0",
    ):
        assert line in text
    now[0] += 60.0
    assert "polcad_site_granted_watts{" not in vitals.scene().laid_out().text()


def test_a_site_none_of_whose_rows_can_be_moved_is_not_ready() -> None:
    vitals = SiteVitals("fra1", lambda: 0.0)
    vitals.connected = True
    vitals.ticked(0.0, replace(STATUS, rows=ROWS[1:]))
    assert vitals.unready() == ["none of 1 rows can be moved: silent: keeps what it may have"]


@pytest.mark.parametrize(
    ("lease", "words"), [(LeaseState.HELD, "by the site's word"), (LeaseState.EXPIRED, "not heard")]
)
def test_a_rows_own_view_says_whose_its_budget_is(lease: LeaseState, words: str) -> None:
    status: RowStatus = replace(next(run(1)).status, allowance=Allowance(2.5e6, 2.6e6, 1.8e6, 1, 7, lease))
    console = Console(width=140)
    with console.capture() as capture:
        console.print(summary(status))
    assert words in capture.get()
    assert "1.80 MW for sure, 2.60 MW at most" in capture.get()
    assert any(words in sentence for sentence in explain(status))
