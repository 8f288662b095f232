"""The lowest, mean and highest of many series over a time that slides, whoever asks and however often.

A scrape tells one moment; what happens between two would be lost. That time need not be told by the scraper: looking
changes nothing here, so a second Prometheus, or a person with curl, takes nothing from the first. The time is covered
by parts of fixed length; it is at least as long as was asked for, and at most a part longer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable, Mapping
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
PARTS = 12

_Part = dict[K, tuple[float, float, float, int]]  # lowest, highest, sum, how many
Parts = tuple[_Part[K], ...]


class Window(Generic[K]):
    """Series by key, over at least the last `span_s` of the times that are given."""

    def __init__(self, span_s: float) -> None:
        self._span_s, self._part_s = span_s, span_s / PARTS
        self._closed: deque[tuple[float, _Part[K]]] = deque(maxlen=PARTS + 1)  # with the end of each
        self._open: _Part[K] = {}
        self._ends_t = float("-inf")

    def add(self, t: float, values: Mapping[K, float]) -> None:
        """Take what each series is at `t`; one left out is not known then."""
        if not 0.0 < self._ends_t - t <= self._part_s:  # its end has come, or the clock was set
            self._close(t)
        part = self._open
        for key, value in values.items():
            low, high, total, n = part.get(key, (value, value, 0.0, 0))
            part[key] = (min(low, value), max(high, value), total + value, n + 1)

    def _close(self, t: float) -> None:
        """Begin a new part, and forget those that ended before the window."""
        self._closed.append((self._ends_t, self._open))
        while self._closed and self._closed[0][0] <= t - self._span_s:
            self._closed.popleft()
        self._open, self._ends_t = {}, t + self._part_s

    def parts(self) -> Parts[K]:
        """What is known now, for `spans` in any thread."""
        return (*(part for _, part in self._closed), dict(self._open))


def spans(parts: Iterable[_Part[K]]) -> dict[K, tuple[float, float, float]]:
    """Lowest, mean and highest of each series."""
    merged: _Part[K] = {}
    for part in parts:
        for key, (low, high, total, n) in part.items():
            before = merged.get(key, (low, high, 0.0, 0))
            merged[key] = (min(before[0], low), max(before[1], high), before[2] + total, before[3] + n)
    return {key: (low, total / n, high) for key, (low, high, total, n) in merged.items()}
