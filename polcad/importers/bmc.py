"""Power of whole servers, as their management controllers (BMC) say it: no GPUs, `Reading.host_power_w` only.

Two shapes are taken. A CSV with a time and one column of watts a node (``n1_watts``, ``n2_power_w`` …; what begins with
``total`` is left out). And what ``ipmitool dcmi power reading`` prints, once or many times, each perhaps after a line
with the date; without such a line its own ``IPMI timestamp`` counts, in `ImportOptions.timezone`, since the
abbreviation of a time zone does not name one. A node without a value gets no message at that time: silence is what
makes it stale.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from polcad.errors import RecordingError
from polcad.importers.log import Log, Sample, scale_of
from polcad.model import PowerKind

_TIME = re.compile(r"timestamp|time|date_?time|date|t", re.IGNORECASE)
_NODE = re.compile(r"(?!total)(?P<node>.{1,200}?)[ _\[(.-]++(?:power[ _]?)?(?P<unit>watts|kw|w)[\])]*+", re.IGNORECASE)
_OF_GPUS = re.compile(r"gpu|index|uuid|power\.", re.IGNORECASE)
_WATTS = re.compile(r"Instantaneous power reading:\s*(\S+)\s*(\S*)")
_STAMP = re.compile(r"IPMI timestamp:\s++(\S.{0,60}?)\s*+(?:Sampling period|$)")
_STAMP_PATTERNS = ("%m/%d/%Y %I:%M:%S %p", "%a %b %d %H:%M:%S %Y")


def fits(head: Sequence[str]) -> bool:
    """Whether a file that begins so can be imported."""
    return bool(head) and (_is_table(head[0]) or any("Instantaneous power reading:" in text for text in head))


def parse(log: Log) -> Iterator[Sample]:
    """The samples of a log."""
    lines = log.lines()
    for line, text in lines:
        if _is_table(text):
            yield from _table(log, text, lines)
        elif "," in text:
            raise RecordingError(f"{log.path}:{line}: no time and column of watts a node (n1_watts) in its heading")
        else:
            yield from _dcmi(log, line, text, lines)


def _is_table(text: str) -> bool:
    cells = [cell.strip() for cell in text.split(",")]
    one_node_a_column = not any(_OF_GPUS.match(cell) for cell in cells)
    return bool(_TIME.fullmatch(cells[0])) and one_node_a_column and any(_NODE.fullmatch(cell) for cell in cells[1:])


def _table(log: Log, heading: str, lines: Iterator[tuple[int, str]]) -> Iterator[Sample]:
    matches = [_NODE.fullmatch(cell.strip()) for cell in heading.split(",")]
    for line, text in lines:
        cells = text.split(",")
        if text == heading:  # again where logs were joined
            continue
        if len(cells) != len(matches):
            log.aside(line, text, f"{len(cells)} columns, not {len(matches)}")
        elif (t := log.time(line, cells[0])) is not None:
            for match, cell in zip(matches, cells, strict=True):
                if match:
                    yield _sample(line, t, log.number(line, cell, scale_of(match["unit"]), needed=True), match["node"])


def _dcmi(log: Log, line: int, text: str, lines: Iterator[tuple[int, str]]) -> Iterator[Sample]:
    """Blocks of ipmitool: a date before, or an IPMI timestamp after, each reading."""
    dated: float | None = None
    watts: tuple[int, str] | None = None
    while True:
        dated = _date(log, text) or dated
        if match := _WATTS.search(text):
            watts = line, f"{match[1]} {match[2]}"
        stamp = _STAMP.search(text)
        if watts and (dated is not None or stamp):
            t = dated if dated is not None else _stamp(log, line, stamp[1] if stamp else "")
            if t is not None:
                yield _sample(watts[0], t, log.number(*watts, needed=True))
            watts = dated = None
        try:
            line, text = next(lines)
        except StopIteration:
            return


def _sample(line: int, t: float, watts: float | None, node: str = "") -> Sample:
    return Sample(line, t, "", {} if watts is None else {"host_power_w": watts}, node, PowerKind.INSTANT)


def _date(log: Log, text: str) -> float | None:
    try:
        return log.parse_time(text)
    except (ValueError, OverflowError):
        return None


def _stamp(log: Log, line: int, text: str) -> float | None:
    for pattern in _STAMP_PATTERNS:
        for candidate in (text, text.rsplit(" ", 1)[0]):  # with and without the name of a time zone
            try:
                return log.parse_time(candidate, pattern)
            except (ValueError, OverflowError):
                continue
    log.aside(line, text, "not a time")
    return None
