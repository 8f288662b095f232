"""``nvidia-smi --query-gpu=timestamp,…,power.draw,… --format=csv[,nounits] -l|-lms``, with its heading.

``power.draw`` and ``power.draw.average`` are the driver's average (1 s on Ampere and later; on A100 the value of the
moment under the same name), ``power.draw.instant`` the value of the moment, which is preferred. The highest limit is
``power.max_limit``, else ``power.limit``. Without ``index`` and ``uuid`` the log speaks of one GPU, gpu-0.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from polcad.errors import RecordingError
from polcad.importers.log import Log, Sample, scale_of
from polcad.importers.table import Column, Table
from polcad.model import PowerKind

_CELL = re.compile(r"^([a-z0-9_.]+)(?: \[(\S+)\])?$")
_QUANTITIES = {
    "timestamp": "t",
    "index": "gpu",
    "uuid": "uuid",
    "gpu_uuid": "uuid",
    "utilization.gpu": "util_frac",
    "memory.used": "used",
    "memory.total": "total",
    "clocks.sm": "sm_mhz",
    "clocks.current.sm": "sm_mhz",
    "clocks.max.sm": "max_mhz",
    "temperature.gpu": "temp_c",
    "power.limit": "limit_w",
    "enforced.power.limit": "enforced_w",
    "power.max_limit": "max_w",
    "power.min_limit": "min_w",
    "clocks_throttle_reasons.active": "throttle",
    "clocks_event_reasons.active": "throttle",
}
_POWERS = ("power.draw.instant", "power.draw", "power.draw.average")  # the first there is, is power_w


def fits(head: Sequence[str]) -> bool:
    """Whether a file that begins so can be imported."""
    return bool(head) and {"t", "power_w"} <= {column.quantity for column in _table(head[0]).columns}


def parse(log: Log) -> Iterator[Sample]:
    """The samples of a log."""
    table: Table | None = None
    for line, text in log.lines():
        if table is None or "power.draw" in text:  # again where logs were joined
            table = _checked(log, line, _table(text))
        elif sample := table.sample(log, line, text.split(",")):
            if "max_w" not in sample.values and "limit_w" in sample.values:
                sample.values["max_w"] = sample.values["limit_w"]
            yield sample


def _table(heading: str) -> Table:
    cells = [_CELL.match(cell.strip()) for cell in heading.split(",")]
    names = [cell[1] if cell else "" for cell in cells]
    power = next((name for name in _POWERS if name in names), "")
    kind = PowerKind.INSTANT if power == _POWERS[0] else PowerKind.AVERAGE
    return Table([_column(cell, power) for cell in cells], kind)


def _column(cell: re.Match[str] | None, power: str) -> Column:
    if cell is None:
        return Column("")
    name, unit = cell[1], cell[2] or ("%" if cell[1].startswith("utilization") else "")
    quantity = "power_w" if name == power else "average_w" if name in _POWERS else _QUANTITIES.get(name, "")
    return Column(quantity, scale_of(unit))


def _checked(log: Log, line: int, table: Table) -> Table:
    if not any(column.quantity for column in table.columns):
        raise RecordingError(f"{log.path}:{line}: no heading of nvidia-smi; log without `noheader`")
    for quantity, name in (("t", "timestamp"), ("power_w", "power.draw")):
        if not table.has(quantity):
            raise RecordingError(
                f"{log.path}:{line}: no `{name}` column, so it holds no power over time; "
                "log with --query-gpu=timestamp,index,power.draw"
            )
    return table
