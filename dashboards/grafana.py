"""What Grafana's dashboards are made of, and the plain dicts that it takes: panels, places, variables, links, events.

A dashboard is written once, with each question in InfluxQL and in PromQL, and comes out once for each database.
The JSON is that of schema version 39 (Grafana 10.4); later ones take it and bring it up to date by themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from string import ascii_uppercase

from dashboards.fields import Json, override, thresholds

SCHEMA_VERSION = 39
COLUMNS = 24  # of Grafana's grid
TAG = "polcad"


class Database(StrEnum):
    """Whose language a dashboard speaks; also Grafana's name for its kind of data source."""

    INFLUXDB = "influxdb"
    PROMETHEUS = "prometheus"


@dataclass(frozen=True, slots=True)
class Query:
    """One question in both languages; "" where a database has no answer to it.

    ``{{tag}}`` in `legend` stands for the value of a tag; without a legend, series are called as their columns.
    """

    legend: str
    influxql: str
    promql: str
    instant: bool = False  # only what holds at the end of the range
    table: bool = False

    def asks(self, database: Database) -> bool:
        """Whether there is anything to ask."""
        return bool(self.influxql if database is Database.INFLUXDB else self.promql)


@dataclass(frozen=True, slots=True)
class Link:
    """From the cells of a column to a dashboard on the same database; `choices` are parameters of its URL."""

    column: str
    title: str
    board: str
    choices: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One panel; it is left out where none of its queries can be asked."""

    kind: str
    title: str
    help: str
    queries: tuple[Query, ...]
    unit: str
    width: int = 12
    height: int = 8
    defaults: Json = field(default_factory=dict)  # of its fields, beside the unit
    overrides: tuple[Json, ...] = ()
    options: Json = field(default_factory=dict)
    transformations: tuple[Json, ...] = ()
    repeat: str = ""  # a variable: one panel for each of its values
    interval: str = "2s"  # the shortest that points are grouped by; Prometheus has that of its scrapes
    links: tuple[Link, ...] = ()


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and its panels, laid out from left to right."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Variable:
    """A choice at the top of a dashboard; it is left out where the database has no query for it."""

    name: str
    label: str
    help: str
    influxql: str = ""
    promql: str = ""
    regex: str = ""  # what of an answer to take
    several: bool = False  # or all, which is where it starts
    start: str = ""  # the value to start with; "" is the first
    hidden: bool = False
    choices: Mapping[str, str] = field(default_factory=dict)  # instead of queries: values by their text

    def offered(self, database: Database) -> bool:
        """Whether there is anything to choose."""
        return bool(self.choices or (self.influxql if database is Database.INFLUXDB else self.promql))


@dataclass(frozen=True, slots=True)
class Dashboard:
    """A dashboard before it is told which database it asks."""

    name: str
    title: str
    help: str
    variables: tuple[Variable, ...]
    sections: tuple[Section, ...]
    events: Query  # drawn into every curve


def render(board: Dashboard, database: Database) -> Json:
    """The dashboard as Grafana takes it, whether imported by hand, through its API, or provisioned."""
    return {
        "annotations": {"list": [_grafanas_own(), _annotation(board.events, database)]},
        "description": board.help,
        "editable": True,
        "fiscalYearStartMonth": 0,
        "graphTooltip": 1,  # one crosshair through all panels
        "id": None,
        "links": [_link(database)],
        "panels": _laid_out(board.sections, database),
        "refresh": "10s",
        "schemaVersion": SCHEMA_VERSION,
        "tags": [TAG, f"{TAG}-{database}"],
        "templating": {
            "list": [
                _source_variable(database),
                *(_variable(each, database) for each in board.variables if each.offered(database)),
            ]
        },
        "time": {"from": "now-1h", "to": "now"},
        "timepicker": {},
        "timezone": "browser",
        "title": f"polcad / {board.title}" + (" (Prometheus)" if database is Database.PROMETHEUS else ""),
        "uid": uid(board.name, database),
        "version": 1,
        "weekStart": "",
    }


def uid(name: str, database: Database) -> str:
    """By which dashboards link to each other."""
    return f"polcad-{name}-{database}"


def source(database: Database) -> Json:
    """The data source chosen at the top of the dashboard."""
    return {"type": str(database), "uid": "${datasource}"}


def _laid_out(sections: Iterable[Section], database: Database) -> list[Json]:
    """All panels with their places; ids count from 1."""
    placed: list[Json] = []
    y = 0
    for section in sections:
        panels = [panel for panel in section.panels if any(query.asks(database) for query in panel.queries)]
        if not panels:
            continue
        placed.append({**_heading(section.title), "gridPos": {"h": 1, "w": COLUMNS, "x": 0, "y": y}})
        y += 1
        for line in _lines(panels):
            x = 0
            for panel in line:
                spot = {"h": panel.height, "w": panel.width, "x": x, "y": y}
                placed.append({**_panel(panel, database), "gridPos": spot})
                x += panel.width
            y += max(panel.height for panel in line)
    return [{**panel, "id": number} for number, panel in enumerate(placed, 1)]


def _lines(panels: Iterable[Panel]) -> list[list[Panel]]:
    """Panels side by side, as many as fit; one that is repeated has its line for itself."""
    lines: list[list[Panel]] = []
    for panel in panels:
        fits = lines and sum(each.width for each in lines[-1]) + panel.width <= COLUMNS
        if fits and not panel.repeat and not lines[-1][-1].repeat:
            lines[-1].append(panel)
        else:
            lines.append([panel])
    return lines


def _heading(title: str) -> Json:
    return {"type": "row", "title": title, "collapsed": False, "panels": []}


def _way(link: Link, database: Database) -> Json:
    chosen = "&".join(["${datasource:queryparam}", *link.choices, "${__url_time_range}"])
    url = f"/d/{uid(link.board, database)}?{chosen}"
    return override(link.column, links=[{"title": link.title, "url": url, "targetBlank": False}])


def _panel(panel: Panel, database: Database) -> Json:
    asked = [query for query in panel.queries if query.asks(database)]
    repeated = (
        {"repeat": panel.repeat, "repeatDirection": "h", "maxPerRow": COLUMNS // panel.width} if panel.repeat else {}
    )
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.help,
        "datasource": source(database),
        **({"interval": panel.interval} if database is Database.INFLUXDB else {}),
        "targets": [_target(query, database, ref) for query, ref in zip(asked, ascii_uppercase, strict=False)],
        "fieldConfig": {
            "defaults": {"unit": panel.unit, "mappings": [], "thresholds": thresholds({}), **panel.defaults},
            "overrides": [*panel.overrides, *(_way(link, database) for link in panel.links)],
        },
        "options": panel.options,
        "transformations": list(panel.transformations),
        **repeated,
    }


def _target(query: Query, database: Database, ref: str) -> Json:
    common = {"refId": ref, "datasource": source(database)}
    if database is Database.INFLUXDB:
        return {
            **common,
            "query": query.influxql,
            "rawQuery": True,
            "resultFormat": "table" if query.table else "time_series",
            "alias": query.legend.replace("{{", "$tag_").replace("}}", "") or "$col",
        }
    once = query.instant or query.table
    return {
        **common,
        "expr": query.promql,
        "editorMode": "code",
        "legendFormat": query.legend or "__auto",
        "instant": once,
        "range": not once,
        "format": "table" if query.table else "time_series",
    }


def _link(database: Database) -> Json:
    """To the other dashboards on the same database, keeping what was chosen."""
    return {
        "type": "dashboards",
        "title": "polcad",
        "tags": [f"{TAG}-{database}"],
        "asDropdown": False,
        "includeVars": True,
        "keepTime": True,
        "targetBlank": False,
        "icon": "external link",
        "tooltip": "",
        "url": "",
    }


def _source_variable(database: Database) -> Json:
    kind = "InfluxDB whose query language is InfluxQL" if database is Database.INFLUXDB else "Prometheus"
    return {
        "type": "datasource",
        "name": "datasource",
        "label": "Data source",
        "description": f"A data source of the kind {kind}.",
        "query": str(database),
        "hide": 0,
        "includeAll": False,
        "multi": False,
        "options": [],
        "refresh": 1,
        "regex": "",
        "skipUrlSync": False,
    }


def _variable(variable: Variable, database: Database) -> Json:
    common = {
        "name": variable.name,
        "label": variable.label,
        "description": variable.help,
        "hide": 2 if variable.hidden else 0,
        "includeAll": variable.several,
        "multi": variable.several,
        "skipUrlSync": False,
    }
    return {**common, **(_choices(variable) if variable.choices else _asked_for(variable, database))}


def _choices(variable: Variable) -> Json:
    options = [
        {"selected": index == 0, "text": text, "value": value}
        for index, (text, value) in enumerate(variable.choices.items())
    ]
    query = ",".join(f"{text} : {value}" for text, value in variable.choices.items())
    return {"type": "custom", "query": query, "current": options[0], "options": options}


def _asked_for(variable: Variable, database: Database) -> Json:
    influx = database is Database.INFLUXDB
    text = variable.influxql if influx else variable.promql
    return {
        "type": "query",
        "datasource": source(database),
        "definition": text,
        "query": text if influx else {"query": text, "refId": variable.name},
        "regex": variable.regex,
        "options": [],
        "refresh": 2,  # whenever the time range changes
        "sort": 7,  # n2 before n10
        **({"allValue": ".*"} if variable.several and not variable.regex else {}),
        **_start(variable),
    }


def _start(variable: Variable) -> Json:
    """What is chosen at first; without it, the first value that is offered."""
    if variable.several:
        return {"current": {"selected": True, "text": ["All"], "value": ["$__all"]}}
    if variable.start:
        return {"current": {"selected": True, "text": variable.start, "value": variable.start}}
    return {}


def _grafanas_own() -> Json:
    return {
        "builtIn": 1,
        "datasource": {"type": "grafana", "uid": "-- Grafana --"},
        "enable": True,
        "hide": True,
        "iconColor": "rgba(0, 211, 255, 1)",
        "name": "Annotations & Alerts",
        "type": "dashboard",
    }


def _annotation(events: Query, database: Database) -> Json:
    common = {"name": "Events", "datasource": source(database), "enable": True, "iconColor": "orange"}
    if database is Database.INFLUXDB:
        columns = {"textColumn": "detail", "tagsColumn": "kind,scope", "titleColumn": "", "timeEndColumn": ""}
        asked = {"query": events.influxql, "rawQuery": True, "textEditor": True, "fromAnnotations": True}
        return {**common, "target": {"refId": "Events", "name": "Events", **asked, **columns}}
    return {
        **common,
        "titleFormat": "{{kind}}",
        "tagKeys": "kind",
        "textFormat": events.legend,
        "useValueForTime": False,
        "target": {"refId": "Events", "expr": events.promql, "interval": ""},
    }
