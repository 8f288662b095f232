"""Events: drawn into every curve, counted by kind, and listed."""

from __future__ import annotations

from dashboards.asking import Asking
from dashboards.fields import override
from dashboards.grafana import Panel, Query
from dashboards.panels import curves
from dashboards.tables import listing

_LAST = "ORDER BY time DESC LIMIT 500"


def annotation(ask: Asking) -> Query:
    """What is drawn into every curve."""
    columns = '"detail", "kind", "scope", "row"'
    counted = ask.series("sum", "polcad_events_total", "row", "kind", over="increase", window="$__rate_interval")
    return Query("row {{row}}", f"SELECT {columns} {ask.source('polcad_event')} {_LAST}", f"{counted} > 0")


def paced(ask: Asking, width: int = 8) -> Panel:
    """How many of each kind."""
    return curves(
        "Events",
        "Events of each kind a minute; docs/operate.md tells what each asks of you.",
        "cpm",
        Query(
            "{{kind}}",
            ask.over_time("polcad_event", 'sum("count") * 60000 / $__interval_ms', "kind"),
            f"60 * {ask.series('sum', 'polcad_events_total', 'kind', over='rate', window='$__rate_interval')} > 0",
        ),
        width=width,
        style="bars",
        min=0,
    )


def listed(ask: Asking) -> Panel:
    """The last of them, in words."""
    columns = ", ".join(f'"{name}"' for name in ("row", "kind", "scope", "detail", "power_w", "budget_w"))
    return listing(
        "Last events",
        "What happened, newest first; docs/operate.md tells what each asks of you.",
        f"SELECT {columns} {ask.source('polcad_event')} {_LAST}",
        (override("power_w", unit="watt"), override("budget_w", unit="watt")),
    )
