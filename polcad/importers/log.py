"""Reading logs that others wrote: lines, numbers with units, times; and telling of everything that is set aside."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from io import BufferedReader
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from polcad.errors import ConfigError, RecordingError
from polcad.model import PowerKind

_MAX_LINE_BYTES = 64 * 1024  # a row of 64 GPUs in every column of nvidia-smi takes 20 KiB
_MAX_T = 1e11  # of `model.Seconds`; greater numbers in a time column are milliseconds and finer
_REPORT_EVERY = 4096  # lines between two words of progress
_NUMBER = re.compile(r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*([A-Za-z%]*)")
_NOT_KNOWN = re.compile(r"-|nan|n/?a|none|null|err!?|\[.*\]|", re.IGNORECASE)
_SCALES = {"w": 1.0, "watts": 1.0, "mw": 1e-3, "kw": 1e3, "%": 0.01, "percent": 0.01, "pct": 0.01, "ghz": 1e3}


def _nobody(_: object) -> None:
    """Tells nobody."""


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """How a log is imported into the new recording `out`.

    `node` names the node of a log that does not (default: after the file); `timezone` is that of times without one;
    `gpu_max_w` is the boards' highest limit where the log has none. `start` and `period_s` serve logs without dates or
    times. `tell` gets each line of the report, `on_bytes` the bytes read since it was called last.
    """

    out: Path
    row: str = "row"
    node: str | None = None
    timezone: str = "UTC"
    gpu_max_w: float | None = None
    start: str = "1970-01-02T00:00:00"  # in range in every time zone
    period_s: float = 1.0
    tell: Callable[[str], None] = _nobody
    on_bytes: Callable[[int], None] = _nobody


@dataclass(frozen=True, slots=True)
class Sample:
    """What one line says of one GPU, or of a whole server where `gpu` is "".

    `values` is by the names of the columns of `model.Gpus`, in their units; a server's is ``host_power_w``. What is not
    in it is not known. `node` is "" where the log does not say.
    """

    line: int
    t: float
    gpu: str
    values: dict[str, float] = field(default_factory=dict)
    node: str = ""
    kind: PowerKind = PowerKind.AVERAGE


class Log:
    """One file being imported, and the count of what was set aside."""

    def __init__(self, path: Path, options: ImportOptions) -> None:
        self.path = path
        self.options = options
        self.set_aside = 0
        self.first_aside = ""
        self._zone = _zone(options.timezone)

    def lines(self) -> Iterator[tuple[int, str]]:
        """Each line that is not blank, with its number from 1. A file cut short ends the lines, and is told."""
        number = 0
        try:
            with self.path.open("rb") as file:
                for number, data in enumerate(self._raw_lines(file), 1):
                    text = data.decode("utf-8", "replace").strip("\ufeff \t\r\n\0")
                    if len(data) >= _MAX_LINE_BYTES:
                        self.aside(number, text, f"longer than {_MAX_LINE_BYTES} bytes")
                    elif text:
                        yield number, text
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            self.aside(number + 1, "the packed file", f"damaged or cut short here: {error}")
        except OSError as error:
            raise RecordingError(f"{self.path}: cannot be read: {error.strerror}") from error

    def _raw_lines(self, file: BufferedReader) -> Iterator[bytes]:
        packed = file.peek(2)[:2] == b"\x1f\x8b"
        source = gzip.GzipFile(fileobj=file) if packed else file
        done, count = 0, 0
        while data := source.readline(_MAX_LINE_BYTES):
            yield data
            while len(data) == _MAX_LINE_BYTES and data[-1:] != b"\n":  # the rest of an overlong line
                data = source.readline(_MAX_LINE_BYTES)
            count += 1
            if count % _REPORT_EVERY == 0:
                self.options.on_bytes(file.tell() - done)
                done = file.tell()

    def aside(self, line: int, what: str, why: str) -> None:
        """Tell that something of a line is not used."""
        self.set_aside += 1
        text = f"{self.path}:{line}: {what[:100]!r}, {why}"
        self.first_aside = self.first_aside or text
        self.options.tell(text)

    def note(self, line: int, what: str) -> None:
        """Tell something of a line that loses nothing."""
        self.options.tell(f"{self.path}:{line}: {what}")

    def number(self, line: int, cell: str, scale: float = 1.0, *, needed: bool = False) -> float | None:
        """The number in a cell, in the column's unit unless it has its own; None, and told, when it is none.

        A placeholder (``-``, ``N/A``, ``[Unknown Error]`` …) is None too, and told only where the number is `needed`.
        """
        text = cell.strip()
        if _NOT_KNOWN.fullmatch(text):
            if needed:
                self.aside(line, text, "no power is known")
            return None
        if match := _NUMBER.fullmatch(text):
            return round(float(match[1]) * _SCALES.get(match[2].lower(), scale), 9)
        self.aside(line, text, "not a number")
        return None

    def time(self, line: int, cell: str) -> float | None:
        """The Unix time in a cell; None, and told, when it is none."""
        try:
            return self.parse_time(cell)
        except (ValueError, OverflowError):
            self.aside(line, cell, "not a time")
            return None

    def parse_time(self, text: str, pattern: str | None = None) -> float:
        """Unix time of ISO 8601, its cousins with ``/`` or ``_``, seconds or milliseconds since 1970, or `pattern`."""
        text = text.strip()
        if pattern:
            return self._unix(datetime.strptime(text, pattern))  # noqa: DTZ007  # the zone follows
        if _NUMBER.fullmatch(text):
            return _in_range(float(text))
        return self._unix(datetime.fromisoformat(text.replace("/", "-").replace("_", " ")))

    def _unix(self, moment: datetime) -> float:
        return _in_range((moment if moment.tzinfo else moment.replace(tzinfo=self._zone)).timestamp())


def scale_of(unit: str) -> float:
    """What turns a number of this unit into the product's: W, MHz, C, or a fraction of one."""
    return _SCALES.get(unit.strip().lower(), 1.0)


def _in_range(t: float) -> float:
    while t > _MAX_T and t != float("inf"):
        t /= 1000.0
    if not 0.0 <= t <= _MAX_T:
        raise ValueError(t)
    return t


def _zone(name: str) -> tzinfo:
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ConfigError(f"--timezone {name!r}: not a time zone here; give one such as UTC or Asia/Tokyo") from None
