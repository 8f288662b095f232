"""``nvidia-smi dmon``, best with ``-o DT`` (date and time), as columns or ``--format csv``.

Headings start with ``#`` and come back every screenful; a second line of units follows each. ``-`` is not known.
``pwr`` is the driver's average, in whole watts. A log with times and no date begins on the day of
`ImportOptions.start`; one without either begins there and takes a step of `ImportOptions.period_s` each time a GPU
comes round again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from math import ceil

from polcad.errors import ConfigError, RecordingError
from polcad.importers.log import Log, Sample
from polcad.importers.table import Column, Table

_QUANTITIES = {
    "gpu": Column("gpu"),
    "pwr": Column("power_w"),
    "gtemp": Column("temp_c"),
    "temp": Column("temp_c"),
    "sm": Column("util_frac", 0.01),
    "pclk": Column("sm_mhz"),
}
_DAY_S = 86_400.0


def fits(head: Sequence[str]) -> bool:
    """Whether a file that begins so can be imported."""
    return any({"gpu", "pwr"} <= set(_heading(text)) for text in head)


def parse(log: Log) -> Iterator[Sample]:
    """The samples of a log."""
    names: list[str] = []
    table, times = Table([]), _Times(log)
    for line, text in log.lines():
        if text.startswith("#"):
            if "gpu" in (heading := _heading(text)):
                names, table = heading, Table([_QUANTITIES.get(name, Column("")) for name in heading])
        elif not table.has("power_w"):
            raise RecordingError(
                f"{log.path}:{line}: no `# gpu … pwr` heading before the figures; log with `dmon -s puc -o DT`"
            )
        else:
            cells = _cells(text)
            cell_of = dict(zip(names, cells, strict=False))
            t = times.of(line, cell_of)
            if t is not None and (sample := table.sample(log, line, cells, t)):
                yield sample


class _Times:
    """When each line was written, as far as the log says."""

    def __init__(self, log: Log) -> None:
        self._log = log
        try:
            self._t = log.parse_time(log.options.start)
        except (ValueError, OverflowError):
            raise ConfigError(f"--start {log.options.start!r}: not a time such as 2026-01-31T12:00:00") from None
        self._gpus: set[str] = set()
        self._said = False

    def of(self, line: int, cells: dict[str, str]) -> float | None:
        date, time = cells.get("date"), cells.get("time")
        if date and time:
            day = f"{date[:4]}-{date[4:6]}-{date[6:]}" if date.isdecimal() else date
            return self._log.time(line, f"{day}T{time}")
        self._say_once("no date" if time else "no time")
        return self._of_day(line, time) if time else self._counted(cells.get("gpu", ""))

    def _say_once(self, what: str) -> None:
        if not self._said:
            self._log.options.tell(
                f"{self._log.path}: {what} in the log: counted from {self._log.options.start} (--start)"
            )
            self._said = True

    def _of_day(self, line: int, time: str) -> float | None:
        t = self._log.time(line, f"{self._log.options.start[:10]}T{time}")
        if t is None:
            return None
        past_s = self._t - _DAY_S / 2 - t
        self._t = t = t + _DAY_S * max(0, ceil(past_s / _DAY_S))  # one day on for each midnight that passed
        return t

    def _counted(self, gpu: str) -> float:
        if gpu in self._gpus:
            self._gpus.clear()
            self._t += self._log.options.period_s
        self._gpus.add(gpu)
        return self._t


def _heading(text: str) -> list[str]:
    return [name.lower() for name in _cells(text.lstrip("# "))] if text.startswith("#") else []


def _cells(text: str) -> list[str]:
    return [cell for cell in re.split(r"[,\s]+", text) if cell]
