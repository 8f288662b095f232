"""Tables: a line for each thing that has the same tags, a column for each of its figures.

InfluxDB answers one query a measurement, Prometheus one a column; Grafana merges the answers by the tags they share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from string import ascii_uppercase

from dashboards.asking import Asking
from dashboards.fields import Json, override
from dashboards.grafana import Link, Panel, Query

COLORED = {"type": "color-text"}
_CELLS: Json = {"custom": {"align": "auto", "filterable": True, "cellOptions": {"type": "auto"}}}
_OPTIONS: Json = {"showHeader": True, "cellHeight": "sm"}


@dataclass(frozen=True, slots=True)
class Column:
    """The last value of a field; `promql` says the same, or "" where Prometheus cannot."""

    name: str
    unit: str
    influx: tuple[str, str] | None  # measurement, field
    promql: str = ""
    look: Json = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Table:
    """A table over the tags `by`; `where` holds exact tags of a measurement."""

    title: str
    help: str
    by: tuple[str, ...]
    columns: tuple[Column, ...]
    where: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    links: tuple[Link, ...] = ()
    width: int = 24
    height: int = 8

    def panel(self, ask: Asking) -> Panel:
        """The panel."""
        asked = [column for column in self.columns if column.promql]
        names = {f"Value #{ref}": column.name for ref, column in zip(ascii_uppercase, asked, strict=False)}
        return Panel(
            kind="table",
            title=self.title,
            help=self.help,
            queries=(*self._influxql(ask), *(Query("", "", column.promql, table=True) for column in asked)),
            unit="none",
            width=self.width,
            height=self.height,
            defaults=_CELLS,
            overrides=tuple(self._looks()),
            links=self.links,
            options=_OPTIONS,
            transformations=(
                {"id": "filterFieldsByName", "options": {"exclude": {"pattern": "^Time$"}}},
                {"id": "merge", "options": {}},
                {"id": "organize", "options": {"excludeByName": {}, "indexByName": {}, "renameByName": names}},
            ),
        )

    def _influxql(self, ask: Asking) -> list[Query]:
        """One query a measurement, in the order of the columns."""
        fields: dict[str, list[str]] = {}
        for column in self.columns:
            if column.influx:
                measurement, name = column.influx
                fields.setdefault(measurement, []).append(f'last("{name}") AS "{column.name}"')
        grouped = ", ".join(f'"{tag}"' for tag in self.by)
        return [
            Query(
                "",
                f"SELECT {', '.join(chosen)} {ask.source(name, self.where.get(name, {}))} GROUP BY {grouped}",
                "",
                table=True,
            )
            for name, chosen in fields.items()
        ]

    def _looks(self) -> Sequence[Json]:
        return [override(column.name, unit=column.unit, **column.look) for column in self.columns]


def listing(title: str, text: str, influxql: str, overrides: tuple[Json, ...], height: int = 10) -> Panel:
    """Points as they are, which Prometheus does not have."""
    return Panel(
        kind="table",
        title=title,
        help=text,
        queries=(Query("", influxql, "", table=True),),
        unit="none",
        width=24,
        height=height,
        defaults=_CELLS,
        overrides=overrides,
        options=_OPTIONS,
    )
