"""Questions about what polcad tells, in InfluxQL and PromQL alike, filtered by the variables of a dashboard.

The tables `polcad.measurements.SCHEMA` and `polcad.web.families.FAMILIES` say which tags and labels there are: a
variable filters everything that has a tag or label of its name. In InfluxQL it stands in a regular expression, where
``${name:regex}`` lets Grafana escape it; in PromQL Grafana escapes it by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from dashboards.grafana import Query, Variable
from dashboards.variables import DAEMONS
from polcad.measurements import SCHEMA
from polcad.web.families import DAEMON, FAMILIES

NOTHING: Mapping[str, str] = {}
_OF_DAEMONS = {each.name for each in DAEMON}
_ANY_SCOPE = {"polcad_event", "polcad_plan"}  # what concerns a node, too, is of interest to its row


@dataclass(frozen=True, slots=True)
class Asking:
    """Questions of a dashboard with these variables."""

    variables: tuple[Variable, ...]

    def curve(
        self,
        legend: str,
        influx: tuple[str, str, str],
        prometheus: tuple[str, str] | None,
        *by: str,
        where: Mapping[str, str] = NOTHING,
    ) -> Query:
        """A series for each value of the tags `by`.

        `influx`: measurement, function of an interval's points, field; `prometheus`: function of the series, name.
        """
        measurement, how, field = influx
        influxql = self.over_time(measurement, _selected(how, field), *by, where=where)
        return Query(legend, influxql, self.series(*prometheus, *by, where=where) if prometheus else "")

    def last(
        self,
        legend: str,
        influx: tuple[str, str],
        prometheus: tuple[str, str] | None,
        *by: str,
        where: Mapping[str, str] = NOTHING,
    ) -> Query:
        """What a field of a measurement was last, and what Prometheus has at the end of the range."""
        measurement, field = influx
        influxql = self.newest(measurement, _selected("last", field), *by, where=where)
        return Query(legend, influxql, self.series(*prometheus, *by, where=where) if prometheus else "", instant=True)

    def total(
        self,
        how: str,
        influx: tuple[str, str],
        name: str,
        *by: str,
        where: Mapping[str, str] = NOTHING,
    ) -> Query:
        """One number: `how` (sum, max, count) of what a field was last on each of the tags `by`."""
        measurement, field = influx
        each = self.newest(measurement, f'last("{field}") AS "last"', *by, where=where)
        return Query(
            "",
            f'SELECT {how}("last") FROM ({each})',
            f"{how}({self.series('max', name, *by, where=where)})",
            instant=True,
        )

    def pace(
        self, legend: str, influx: tuple[str, str], counter: str, *by: str, where: Mapping[str, str] = NOTHING
    ) -> Query:
        """How fast a counter grows, a minute."""
        measurement, field = influx
        select = f'non_negative_derivative(max("{field}"), 1m)'
        rate = f"60 * {self.series('sum', counter, *by, where=where, over='rate', window='$__rate_interval')}"
        return Query(legend, self.over_time(measurement, select, *by, where=where, fill="none"), rate)

    def growth(
        self, legend: str, influx: tuple[str, str], counter: str, *by: str, where: Mapping[str, str] = NOTHING
    ) -> Query:
        """By how much a counter grew in the whole range; where it starts anew, it counts from there."""
        measurement, field = influx
        step = f'non_negative_difference(max("{field}")) AS "step"'
        steps = self.over_time(measurement, step, *by, where=where, fill="none")
        grown = self.series("sum", counter, *by, where=where, over="increase", window="$__range")
        return Query(legend, f'SELECT sum("step") FROM ({steps}){_grouped(by)}', grown, instant=True)

    # --- InfluxQL ---------------------------------------------------------------------------------------------------

    def over_time(
        self, measurement: str, select: str, *by: str, where: Mapping[str, str] = NOTHING, fill: str = "null"
    ) -> str:
        """A selection in each interval."""
        return f"SELECT {select} {self.source(measurement, where)}{_grouped(('', *by))} fill({fill})"

    def added(
        self,
        how: str,
        influx: tuple[str, str, str],
        finer: Sequence[str],
        *by: str,
        where: Mapping[str, str] = NOTHING,
        fill: str = "null",
    ) -> str:
        """In each interval, `how` (sum, count) of what a function of a field is for each of the tags `finer`."""
        measurement, function, field = influx
        each = self.over_time(measurement, f'{function}("{field}") AS "each"', *finer, where=where, fill=fill)
        return f'SELECT {how}("each") FROM ({each}) WHERE $timeFilter{_grouped(("", *by))} fill({fill})'

    def newest(self, measurement: str, select: str, *by: str, where: Mapping[str, str] = NOTHING) -> str:
        """A selection in the whole of the chosen time."""
        return f"SELECT {select} {self.source(measurement, where)}{_grouped(by)}"

    def source(self, measurement: str, where: Mapping[str, str] = NOTHING) -> str:
        """Where points come from, in the chosen time."""
        exact = [f"\"{tag}\" = '{value}'" for tag, value in where.items()]
        return f'FROM "{measurement}" WHERE ' + " AND ".join([*exact, *self._tags(measurement, where), "$timeFilter"])

    def _tags(self, measurement: str, where: Mapping[str, str]) -> Iterator[str]:
        for variable in self.variables:
            name = variable.name
            if name in where or name not in SCHEMA[measurement].tags or (name == "scope" and measurement in _ANY_SCOPE):
                continue
            yield f"\"{name}\" = '${{{name}:text}}'" if variable.choices else f'"{name}" =~ /^${{{name}:regex}}$/'

    # --- PromQL -----------------------------------------------------------------------------------------------------

    def series(
        self, how: str, name: str, *by: str, where: Mapping[str, str] = NOTHING, over: str = "", window: str = ""
    ) -> str:
        """A function of all series of a name that differ in nothing but in `by`, each over a window if one is given."""
        found = self.selector(name, where)
        return f"{how} by ({', '.join(by)}) ({f'{over}({found}[{window}])' if over else found})"

    def among(self, name: str, *by: str, where: Mapping[str, str]) -> str:
        """How many series of a name have exactly these labels; 0 where there are others only."""
        return f"{self.series('sum', name, *by, where=where)} or 0 * {self.series('sum', name, *by)}"

    def selector(self, name: str, where: Mapping[str, str] = NOTHING) -> str:
        """The series of a name that were chosen."""
        exact = [f'{label}="{value}"' for label, value in where.items()]
        return f"{name}{{{', '.join([*exact, *self._labels(name, where)])}}}"

    def _labels(self, name: str, where: Mapping[str, str]) -> Iterator[str]:
        labels = ("site", *FAMILIES[name].labels)  # the site is a label that the scrape configuration may add
        for variable in self.variables:
            if variable is DAEMONS and name in _OF_DAEMONS:
                yield 'instance=~"$daemon"'
            elif variable.name in labels and variable.name not in where:
                yield f'{variable.name}{"=~" if variable.several else "="}"${variable.name}"'


def _selected(how: str, field: str) -> str:
    """A function of a field, in the units that Prometheus has too."""
    return f'{how}("{field}") * 1000000' if field.endswith("_mhz") else f'{how}("{field}")'


def _grouped(by: Sequence[str]) -> str:
    """GROUP BY, where "" is the interval."""
    parts = ", ".join(f'"{tag}"' if tag else "time($__interval)" for tag in by)
    return f" GROUP BY {parts}" if by else ""
