"""Says once a minute a source what is wrong with its messages, and counts every time.

A node that sends garbage ten times a second must not fill the log, nor hide another node that sends garbage too.
Made-up sources are bounded: past `max_sources` within one interval they share the source ``others``.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

OTHERS = "others"


@dataclass(slots=True)
class _Source:
    said_t: float
    unsaid: int = 0


class Complaints:
    """At most one log line a source and `interval_s`; `total` counts all complaints."""

    def __init__(self, logger: logging.Logger, interval_s: float = 60.0, max_sources: int = 1000) -> None:
        self.total = 0
        self._logger = logger
        self._interval_s = interval_s
        self._max_sources = max_sources
        self._sources: dict[str, _Source] = {}

    def add(self, source: str, text: str, t: float) -> None:
        """Count one complaint about `source` at `t` (of any clock, s), and log it unless one was logged lately."""
        self.total += 1
        known = self._sources.get(source)
        if known is None and len(self._sources) >= self._max_sources:
            self._forget_old(t)
            if len(self._sources) >= self._max_sources:
                source = OTHERS
                known = self._sources.get(source)
        if known is not None and 0.0 <= t - known.said_t < self._interval_s:
            known.unsaid += 1
            return
        more = f" (and {known.unsaid} more since the last line)" if known is not None and known.unsaid else ""
        self._logger.warning("%s: %s%s", source, text, more)
        self._sources[source] = _Source(t)

    def _forget_old(self, t: float) -> None:
        """Drop the sources that may speak again anyway."""
        self._sources = {
            name: source for name, source in self._sources.items() if 0.0 <= t - source.said_t < self._interval_s
        }
