"""Turns the power logs that people already have into recordings: one file a format, found in FORMATS by name.

A format's `parse` yields samples (`log`), `sweep` makes sweeps of them and sets aside what cannot be, `meter` makes
messages of those. Everything that is not used is told, one line each: ``FILE:LINE: what was there, why``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

from polcad.errors import ConfigError, RecordingError
from polcad.importers import bmc, dmon, gpu_csv, nvidia_smi, wattameter
from polcad.importers.log import ImportOptions, Log, Sample
from polcad.importers.meter import Meters
from polcad.importers.sweep import sweeps, with_period, without_glitches
from polcad.model import NAME_PATTERN
from polcad.recording import RecordingWriter
from polcad.wire import Message

__all__ = ["FORMATS", "ImportOptions", "ImportReport", "import_log"]

_HEAD_LINES = 12


class Format(NamedTuple):
    """One kind of log: whether a file that begins with these lines can be one, and its samples."""

    fits: Callable[[Sequence[str]], bool]
    parse: Callable[[Log], Iterator[Sample]]


FORMATS: Mapping[str, Format] = {
    "nvidia-smi": Format(nvidia_smi.fits, nvidia_smi.parse),
    "dmon": Format(dmon.fits, dmon.parse),
    "wattameter": Format(wattameter.fits, wattameter.parse),
    "gpu-csv": Format(gpu_csv.fits, gpu_csv.parse),
    "bmc-csv": Format(bmc.fits, bmc.parse),
}


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What became of a log: `samples` are readings of power that were kept, `set_aside` lines or values not used."""

    source: str
    samples: int
    messages: int
    gaps: int  # silences of a node longer than three periods
    set_aside: int
    nodes: int
    gpus: int
    first_t: float
    last_t: float
    period_s: float


def import_log(source: str, path: Path, options: ImportOptions) -> ImportReport:
    """Import the log `path` of the format `source` (a key of FORMATS) into the new recording `options.out`.

    RecordingError when nothing of the log can be used, with the formats that would fit it better, or when the output
    exists; ConfigError for an option that cannot be. No output is left behind then.
    """
    if source not in FORMATS:
        raise ConfigError(f"--from {source}: not one of {', '.join(FORMATS)}")
    if not re.fullmatch(NAME_PATTERN, options.row):
        raise ConfigError(f"--row {options.row}: a name on the wire is of a-z, 0-9, _ and -")
    log = Log(path, options)
    try:
        period_s, clean = with_period(
            without_glitches(log, sweeps(log, FORMATS[source].parse(log))), default_s=options.period_s
        )
        meters = Meters(log, period_s)
        messages = (message for sweep in clean for message in meters.messages(sweep))
        first = _first(messages, log)
    except RecordingError as error:
        raise RecordingError(f"{error}{_better(source, path)}") from None
    last_t = _write(options.out, source, chain([first], messages))
    return ImportReport(
        source=source,
        samples=meters.samples,
        messages=meters.count,
        gaps=meters.gaps,
        set_aside=log.set_aside,
        nodes=meters.nodes,
        gpus=meters.gpus,
        first_t=first[0],
        last_t=last_t,
        period_s=period_s,
    )


def _first(messages: Iterator[tuple[float, Message]], log: Log) -> tuple[float, Message]:
    first = next(messages, None)
    if first is None:
        raise RecordingError(f"{log.path}: nothing in it can be used; {log.first_aside or 'it holds no readings'}")
    return first


def _write(out: Path, source: str, messages: Iterator[tuple[float, Message]]) -> float:
    """Write all of them; when the last arrived. A recording begun and not finished is removed."""
    writer = RecordingWriter(out, {"made_by": "polcad import", "source": source}, frame_s=math.inf)
    try:
        with writer:
            for t, message in messages:
                writer.add(t, message)
    except BaseException:
        out.unlink(missing_ok=True)
        raise
    return t


def _better(source: str, path: Path) -> str:
    """What to say of other formats that the file looks like."""
    quiet = Log(path, ImportOptions(out=path))
    try:
        head = [text for _, text in islice(quiet.lines(), _HEAD_LINES)]
    except RecordingError:
        return ""
    names = [name for name, one in FORMATS.items() if name != source and one.fits(head)]
    return f"; it looks like --from {' or '.join(names)}" if names else ""
