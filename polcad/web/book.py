"""Metrics filled in by the table of families, and laid out as the text of a scrape."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.registry import Collector

from polcad.web.families import FAMILIES, Family, Type


class Book(Collector):
    """One scrape: values by the name of their family; what is None is left out."""

    def __init__(self) -> None:
        build = InfoMetricFamily("polcad_build", FAMILIES["polcad_build_info"].help)
        build.add_metric((), {"version": version("polcad")})
        self._filled: dict[str, Metric] = {"polcad_build_info": build}

    def add(self, name: str, labels: Sequence[str], value: float | None) -> None:
        """Note the value of one series."""
        if value is not None:
            filled = self._filled.get(name) or self._begin(FAMILIES[name])
            filled.add_metric(labels, value)  # type: ignore[attr-defined]  # every kind that is begun has it

    def _begin(self, family: Family) -> Metric:
        kind = CounterMetricFamily if family.type is Type.COUNTER else GaugeMetricFamily
        metric = self._filled[family.name] = kind(family.name, family.help, labels=family.labels)
        return metric

    def add_each(self, prefix: str, labels: Sequence[str], values: Iterable[tuple[str, float | None]]) -> None:
        """Note several values of one thing, by the ends of their names."""
        for name, value in values:
            self.add(f"polcad_{prefix}{name}", labels, value)

    def collect(self) -> Iterator[Metric]:
        """Every metric that has a value."""
        yield from self._filled.values()

    def text(self, accept: str) -> tuple[bytes, str]:
        """The text of a scrape in a form that is accepted, and its content type."""
        encode, content_type = choose_encoder(accept)
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        return encode(registry), content_type
