"""WattAMeter's NVML log: a ``# timestamp`` heading with ``gpu-0[mW]`` and ``gpu-0[C]``, one line a reading of all GPUs.

Its power is NVML's ``GetPowerUsage``: the driver's average, except on A100.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from polcad.errors import RecordingError
from polcad.importers.log import Log, Sample, scale_of

_COLUMN = re.compile(r"gpu-(\d{1,4})\[([^\]]+)\]")
_QUANTITIES = {"mw": "power_w", "w": "power_w", "c": "temp_c", "%": "util_frac", "mhz": "sm_mhz"}


def fits(head: Sequence[str]) -> bool:
    """Whether a file that begins so can be imported."""
    return any(_columns(text) for text in head)


def parse(log: Log) -> Iterator[Sample]:
    """The samples of a log."""
    columns: list[tuple[str, str, float]] = []
    for line, text in log.lines():
        if text.startswith("#"):
            columns = _columns(text) or columns
        elif not columns:
            raise RecordingError(f"{log.path}:{line}: no `# timestamp … gpu-0[mW]` heading before the figures")
        else:
            yield from _samples(log, line, text.split(), columns)


def _columns(text: str) -> list[tuple[str, str, float]]:
    """GPU, quantity and scale of each column ("": not used); empty when `text` is not a heading with power."""
    names = text.lstrip("# ").split()
    if not text.startswith("#") or names[:1] != ["timestamp"]:
        return []
    matches = [_COLUMN.fullmatch(name) for name in names]
    columns = [
        (f"gpu-{match[1]}", _QUANTITIES.get(match[2].lower(), ""), scale_of(match[2])) if match else ("", "", 1.0)
        for match in matches
    ]
    return columns if any(quantity == "power_w" for _, quantity, _ in columns) else []


def _samples(log: Log, line: int, cells: list[str], columns: list[tuple[str, str, float]]) -> Iterator[Sample]:
    if len(cells) != len(columns):
        log.aside(line, " ".join(cells), f"{len(cells)} columns, not {len(columns)}")
        return
    t = log.time(line, cells[0])
    if t is None:
        return
    gpus: dict[str, dict[str, float]] = {}
    for (gpu, quantity, scale), cell in zip(columns, cells, strict=True):
        if quantity:
            values = gpus.setdefault(gpu, {})
            if (value := log.number(line, cell, scale, needed=quantity == "power_w")) is not None:
                values[quantity] = value
    for gpu, values in gpus.items():
        yield Sample(line, t, gpu, values)
