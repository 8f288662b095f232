"""``[forecast]``: its own settings, and beside them the options of the forecaster that it names.

The four things that all forecasters are made with come from the row and the guard.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from polcad import plugins
from polcad.config.parts import section_of
from polcad.config.sections import Report, build, is_table
from polcad.errors import ConfigError
from polcad.ports import Forecaster, ForecasterMaker
from polcad.spec import ForecastSpec

GROUP = "polcad.forecasters"
GIVEN = ("domains", "step_s", "horizons_s", "quantiles")  # by the controller, to every forecaster
OURS = tuple(item.name for item in fields(ForecastSpec))
_PATH = ("forecast",)


@dataclass(frozen=True, slots=True)
class MadeWith:
    """A forecaster's class and what the operator says of it; call it for a fresh forecaster."""

    kind: type[Any]
    options: Mapping[str, Any]

    def __call__(
        self, *, domains: int, step_s: float, horizons_s: tuple[float, ...], quantiles: tuple[float, ...]
    ) -> Forecaster:
        """A fresh forecaster; ConfigError for what it cannot do."""
        made: Forecaster = self.kind(
            domains=domains, step_s=step_s, horizons_s=horizons_s, quantiles=quantiles, **self.options
        )
        return made


def read_forecast(data: Mapping[str, Any], report: Report) -> tuple[ForecastSpec, ForecasterMaker | None]:
    """The settings and the maker of the forecaster, None where nothing forecasts; problems are noted.

    As the policy, it is loaded only where a row needs it, or somebody set it.
    """
    table = data.get("forecast", {})
    if data.keys().isdisjoint({"forecast", "row"}) or not is_table(table, _PATH, report):
        return ForecastSpec(), None
    name = table.get("name", ForecastSpec().name)
    if not isinstance(name, str):
        report.add((*_PATH, "name"), 'must be the name of a forecaster, in quotes; "" for none')
        return ForecastSpec(), None
    return _read_named(name, table, report)


def _read_named(name: str, table: dict[str, Any], report: Report) -> tuple[ForecastSpec, ForecasterMaker | None]:
    try:
        kind: type | None = plugins.load(GROUP, name) if name else None
        section: Any = build(table, section_of(kind, ForecastSpec, GIVEN) if kind else ForecastSpec, _PATH, report)
    except ConfigError as error:
        report.add((*_PATH, "name"), str(error))
        return ForecastSpec(), None
    if section is None:
        return ForecastSpec(), None
    values = {item.name: getattr(section, item.name) for item in fields(section)}
    spec = ForecastSpec(**{name: values.pop(name) for name in OURS})
    return spec, _tried(MadeWith(kind, values), spec, report) if kind else None


def _tried(maker: MadeWith, spec: ForecastSpec, report: Report) -> MadeWith:
    """The maker, once it has made one: what a forecaster has against its options is told at the door."""
    try:
        maker(domains=1, step_s=1.0, horizons_s=(1.0, spec.hold_s), quantiles=(0.5, spec.q))
    except (ConfigError, ValueError) as error:
        named = [name for name in maker.options if name in str(error)]
        report.add((*_PATH, *named[:1]), str(error))
    return maker
