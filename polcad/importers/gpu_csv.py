"""A long CSV, as training scripts write it: timestamp, gpu_index, power_W and whatever else, one GPU a line.

Columns are known by name: a time, a power with W in its name, and optionally index, UUID, node, temperature,
utilisation, SM clock and power limit. Such scripts read what nvidia-smi reads, so power is taken as the driver's
average.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence

from polcad.errors import RecordingError
from polcad.importers.log import Log, Sample, scale_of
from polcad.importers.table import Column, Table

_UNIT = re.compile(r"(?P<name>.{1,200}?)[ _\[(]*+(?P<unit>watts|mw|kw|w|percent|pct|%|mhz|c)?[\])]*+")
_NAMES = (
    ("t", r"timestamp|time|datetime|date|t"),
    ("gpu", r"(gpu|device)_?(index|id|idx)?|index"),
    ("uuid", r"(gpu_?)?uuid"),
    ("node", r"node|host|host_?name|server"),
    ("power_w", r"(gpu_)?power(_draw|_usage)?"),
    ("limit_w", r"(gpu_)?power_(limit|cap)"),
    ("util_frac", r"(gpu_)?util(ization|isation)?(_gpu)?"),
    ("temp_c", r"(gpu_)?temp(erature)?(_gpu)?"),
    ("sm_mhz", r"(gpu_|sm_)?clocks?(_sm)?|sm"),
)


def fits(head: Sequence[str]) -> bool:
    """Whether a file that begins so can be imported."""
    if not head:
        return False
    table = _table(_cells(head[0]))
    return table.has("t") and table.has("power_w") and (table.has("gpu") or table.has("uuid"))


def parse(log: Log) -> Iterator[Sample]:
    """The samples of a log."""
    heading: list[str] = []
    table = Table([])
    for line, text in log.lines():
        cells = _cells(text)
        if not heading:
            heading, table = cells, _table(cells)
            if not (table.has("t") and table.has("power_w")):
                raise RecordingError(
                    f"{log.path}:{line}: the heading names no time or no power: {', '.join(cells)[:200]}"
                )
        elif cells != heading and (sample := table.sample(log, line, cells)):  # the same again where logs were joined
            yield sample


def _table(cells: Sequence[str]) -> Table:
    columns: list[Column] = []
    known: set[str] = set()
    for cell in cells:
        column = _column(cell.strip().lower())
        columns.append(column if column.quantity not in known else Column(""))
        known.add(column.quantity)
    return Table(columns)


def _column(text: str) -> Column:
    match = _UNIT.fullmatch(text)
    name, unit = (match["name"], match["unit"] or "") if match else (text, "")
    for quantity, pattern in _NAMES:
        if re.fullmatch(pattern, name):
            return Column(quantity, scale_of(unit or ("%" if quantity == "util_frac" else "")))
    return Column("")


def _cells(text: str) -> list[str]:
    try:
        return next(csv.reader([text], skipinitialspace=True), [])
    except csv.Error:
        return text.split(",")
