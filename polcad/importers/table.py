"""Tables with one GPU a line: which column is which quantity, and the sample that a line holds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from polcad.importers.log import Log, Sample
from polcad.model import PowerKind

_INDEX = re.compile(r"(?:gpu[-_ ]?)?(\d{1,4})")
_MAX_UUID = 96  # of `model.Uuid`
_MAX_BITS_CHARS = 66  # of 64 bits in binary, with what says so


class Column(NamedTuple):
    """One column: the `quantity` it holds (of `Sample.values`, or t, gpu, uuid, node, used, total; "" is nothing)."""

    quantity: str
    scale: float = 1.0


class Table(NamedTuple):
    """The columns of a log, and what its power is."""

    columns: Sequence[Column]
    kind: PowerKind = PowerKind.AVERAGE

    def has(self, quantity: str) -> bool:
        """Whether a column holds this quantity."""
        return any(column.quantity == quantity for column in self.columns)

    def sample(self, log: Log, line: int, cells: Sequence[str], t: float | None = None) -> Sample | None:
        """The sample in a line's cells; `t` where the line itself holds no time. None when the line was set aside."""
        if len(cells) != len(self.columns):
            log.aside(line, ",".join(cells), f"{len(cells)} columns, not {len(self.columns)}")
            return None
        names = {column.quantity: cell.strip() for column, cell in zip(self.columns, cells, strict=True)}
        if t is None:
            t = log.time(line, names["t"])
        gpu = _gpu(log, line, names)
        if t is None or gpu is None:
            return None
        return Sample(line, t, gpu, self._values(log, line, cells), names.get("node", ""), self.kind)

    def _values(self, log: Log, line: int, cells: Sequence[str]) -> dict[str, float]:
        values: dict[str, float] = {}
        for (quantity, scale), cell in zip(self.columns, cells, strict=True):
            if quantity in {"", "t", "gpu", "uuid", "node"}:
                continue
            value = (
                _bits(cell) if quantity == "throttle" else log.number(line, cell, scale, needed=quantity == "power_w")
            )
            if value is not None:
                values.setdefault(quantity, value)
        used, total = values.pop("used", None), values.pop("total", None)
        if used is not None and total:
            values["memory_frac"] = used / total
        return values


def _gpu(log: Log, line: int, names: dict[str, str]) -> str | None:
    """The GPU that a line speaks of: its UUID, else gpu-INDEX, else gpu-0 where the log has one GPU only."""
    uuid = names.get("uuid", "")
    if 0 < len(uuid) <= _MAX_UUID:
        return uuid
    if match := _INDEX.fullmatch(names.get("gpu", "0").lower()):
        return f"gpu-{int(match[1])}"
    log.aside(line, names["gpu"], "not the index of a GPU")
    return None


def _bits(cell: str) -> int | None:
    text = cell.strip()
    try:
        return int(text, 0) if len(text) <= _MAX_BITS_CHARS else None
    except ValueError:
        return None
