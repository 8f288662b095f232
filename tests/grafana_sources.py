"""A dashboard's questions put to the databases that Grafana would put them to, and what they answer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from polcad.measurements import SCHEMA
from tests.databases import Influx
from tests.grafana import Choice, Json, Range, filled
from tests.real_prometheus import Prometheus

Choices = Mapping[str, Choice]
_TAGS = {"time", *(tag for measurement in SCHEMA.values() for tag in measurement.tags)}


@dataclass(frozen=True, slots=True)
class Series:
    """One series, or a column of a table: its tags, and all of its values that are not null."""

    tags: Mapping[str, str]
    values: tuple[Any, ...]


class Source(Protocol):
    """A database behind Grafana."""

    def offers(self, variable: Json, choices: Choices, seen: Range) -> list[str]:
        """The values that a variable may take."""
        ...

    def answers(self, target: Json, choices: Choices, seen: Range) -> list[Series]:
        """What a panel's query brings; AssertionError or OSError for one that cannot be asked."""
        ...

    def annotated(self, annotation: Json, choices: Choices, seen: Range) -> set[str]:
        """The kinds of the events that are drawn into the curves."""
        ...


@dataclass(frozen=True, slots=True)
class InfluxSource:
    """InfluxQL."""

    database: Influx

    def offers(self, variable: Json, choices: Choices, seen: Range) -> list[str]:
        """As Grafana takes SHOW TAG VALUES."""
        return [row["value"] for row in self.database.ask(filled(variable["query"], choices, seen))]

    def answers(self, target: Json, choices: Choices, seen: Range) -> list[Series]:
        """A series for each combination of tags and each column."""
        found: dict[tuple[frozenset[tuple[str, str]], str], list[Any]] = {}
        for row in self.database.ask(filled(target["query"], choices, seen)):
            tags = frozenset((name, value) for name, value in row.items() if name in _TAGS - {"time"})
            for name, value in row.items():
                if name not in _TAGS:
                    found.setdefault((tags, name), []).extend([] if value is None else [value])
        return [Series({**dict(tags), "column": name}, tuple(values)) for (tags, name), values in found.items()]

    def annotated(self, annotation: Json, choices: Choices, seen: Range) -> set[str]:
        """From the first of the columns that make tags."""
        target = annotation["target"]
        assert target["tagsColumn"].split(",")[0] == "kind"
        rows = self.database.ask(filled(target["query"], choices, seen))
        assert all(row[target["textColumn"]] for row in rows)
        return {row["kind"] for row in rows}


@dataclass(frozen=True, slots=True)
class PrometheusSource:
    """PromQL."""

    database: Prometheus

    def offers(self, variable: Json, choices: Choices, seen: Range) -> list[str]:
        """As Grafana takes label_values and query_result."""
        query = filled(variable["query"]["query"], choices, seen)
        if found := re.fullmatch(r"label_values\((.+), (\w+)\)", query):
            times = {"start": seen.start_t, "end": seen.end_t}
            labels: list[str] = self.database.get(f"label/{found[2]}/values", **{"match[]": found[1]}, **times)
            return labels
        found = re.fullmatch(r"query_result\((.+)\)", query)
        assert found, query
        texts = [_told(each) for each in self.database.get("query", query=found[1], time=seen.end_t)["result"]]
        matches = [re.search(variable["regex"].strip("/"), text) for text in texts]
        return [match[1] for match in matches if match]

    def answers(self, target: Json, choices: Choices, seen: Range) -> list[Series]:
        """At the end of the range, or at each step of it."""
        query = filled(target["expr"], choices, seen)
        assert target["instant"] is not target["range"]
        if target["instant"]:
            result = self.database.get("query", query=query, time=seen.end_t)["result"]
            return [Series(each["metric"], (float(each["value"][1]),)) for each in result]
        return [
            Series(each["metric"], tuple(float(value) for _, value in each["values"]))
            for each in self._range(query, seen)
        ]

    def annotated(self, annotation: Json, choices: Choices, seen: Range) -> set[str]:
        """Of the series that are above zero at any time."""
        assert annotation["tagKeys"] == "kind"
        return {
            each["metric"]["kind"] for each in self._range(filled(annotation["target"]["expr"], choices, seen), seen)
        }

    def _range(self, query: str, seen: Range) -> list[Json]:
        times = {"start": seen.start_t, "end": seen.end_t, "step": seen.interval_s}
        found: list[Json] = self.database.get("query_range", query=query, **times)["result"]
        return found


def _told(series: Json) -> str:
    """A line of text, as Grafana gives it to a variable's regular expression."""
    labels = ",".join(f'{name}="{value}"' for name, value in series["metric"].items())
    return f"{{{labels}}} {series['value'][1]}"
