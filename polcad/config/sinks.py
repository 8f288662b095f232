"""Tables named after a sink, such as ``[influxdb]``: where points are written, with the sink's own settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from polcad import plugins
from polcad.config.sections import Report, build
from polcad.errors import ConfigError
from polcad.ports import SinkSettings

GROUP = "polcad.sinks"


def read_sinks(tables: Mapping[str, Any], report: Report) -> dict[str, SinkSettings]:
    """The settings of every sink that has a table; problems are noted."""
    found = {name: _read(name, table, report) for name, table in tables.items()}
    return {name: settings for name, settings in found.items() if settings is not None}


def _read(name: str, table: Any, report: Report) -> SinkSettings | None:
    try:
        kind: type[SinkSettings] = plugins.load(GROUP, name)
    except ConfigError as error:
        report.add((name,), str(error))
        return None
    return build(table, kind, (name,), report)
