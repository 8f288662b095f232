"""A site in the terminal: its budget, and what each row may draw; a function of the noun alone."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from polcad.model import SiteStatus
from polcad.words import duration, percent, plain, watts

LATE_S = 30.0  # after its last word a site's daemon counts as silent


def well(status: SiteStatus, *, age_s: float) -> bool:
    """Whether the site's daemon speaks, every row can be moved, and the site is within its budget."""
    within = not status.over and status.power_w <= status.budget_w
    return status.online and age_s <= LATE_S and within and not any(row.note for row in status.rows)


def table(status: SiteStatus, *, age_s: float) -> RenderableType:
    """The site at a glance."""
    return Group(_title(status, age_s), Text(), _rows(status)) if status.rows else _title(status, age_s)


def _title(status: SiteStatus, age_s: float) -> RenderableType:
    if not status.online:
        return Text(f"{status.site}: its daemon is gone; rows are at what they fall to", "bold red")
    text = Text.assemble((status.site, "bold"), f"  {watts(status.power_w)} of {watts(status.budget_w)}")
    if status.budget_w:
        text.append(f" ({percent(status.power_w / status.budget_w)})")
    text.append(f", {watts(sum(row.budget_w for row in status.rows))} granted")
    if status.host:
        text.append(f", led by {plain(status.host)}")
    if status.over:
        text.append("  OVER ITS BUDGET: rows are cut at once", "bold white on red")
    if age_s > LATE_S:
        text.append(f"  silent for {duration(age_s)}", "bold red")
    return text


def _rows(status: SiteStatus) -> Table:
    found = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("Row", "Power", "May draw", "Asks for", "Falls to", "Kept for it", ""):
        found.add_column(name, overflow="fold")
    for row in status.rows:
        figures = (row.power_w, row.budget_w, row.wants_w, row.fail_safe_w, row.reserved_w)
        found.add_row(row.row, *map(watts, figures), Text(plain(row.note)))
    return found
