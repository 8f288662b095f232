"""docs/metrics.md, written from the tables: what is told to time-series databases and to Prometheus."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from polcad.measurements import SCHEMA, Measurement
from polcad.web.families import AGENT, BOTH, DAEMON, SITE, Family

_HEAD = """\
# Metrics

Written from the code by `make generate`; a test compares it. [monitoring.md](monitoring.md) tells how to collect what
stands here. What is not known is left out, never zero.

## InfluxDB: measurements

A daemon writes these where its configuration has `[influxdb]`. Times are the daemon's, in microseconds; telemetry
counts from its arrival. Fractions have the unit 1. Where a database keeps numbers only (VictoriaMetrics), texts become
0; its series are called MEASUREMENT_FIELD. `mode` is `live`, or `shadow` of a daemon whose plans nobody follows.
"""
_PROMETHEUS = """\
## Prometheus: metrics

In base units. `_min_`, `_mean_` and `_max_` are over at least the last `polcad_window_seconds` (`web.window_s`,
`agent.web.window_s`): a scrape changes nothing, so every scraper finds the same, and one whose interval is not longer
misses no peak. Figures of a row that has not ticked for 30 s are not told.
"""


def page() -> str:
    """The text of docs/metrics.md."""
    parts = [_HEAD, *map(_measurement, SCHEMA.values()), _PROMETHEUS]
    parts.append(_families("At a daemon's and at an agent's `/metrics`", BOTH))
    parts.append(_families("At a daemon's", DAEMON))
    parts.append(_families("At an agent's (`[agent.web]`)", AGENT))
    parts.append(_families("At a site's (`polcad site`)", SITE))
    return "\n".join(parts)


def _measurement(each: Measurement) -> str:
    rows = ((f"`{field.name}`", field.value.value, field.unit, field.help) for field in each.fields)
    table = "\n".join(_table(("field", "kind", "unit", "meaning"), rows))
    tags = ", ".join(f"`{tag}`" for tag in each.tags)
    return f"### {each.name}\n\n{each.help} One point: {each.when}. Tags: {tags}.\n\n{table}\n"


def _families(title: str, families: Iterable[Family]) -> str:
    rows = ((f"`{each.name}`", each.type.value, ", ".join(each.labels), each.help) for each in families)
    return "\n".join((f"### {title}", "", *_table(("metric", "type", "labels", "meaning"), rows), ""))


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
