"""Whether a loop turns: it beats at each turn, and others ask how long ago that was."""

from __future__ import annotations

import time
from collections.abc import Callable

STALLED_S = 30.0  # a loop that turns at least each few seconds, or once a period, has come to a stand by then


class Pulse:
    """The pulse of one loop, on a monotonic clock."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._beat_s = monotonic()

    def beat(self) -> None:
        """The loop has turned."""
        self._beat_s = self._monotonic()

    @property
    def age_s(self) -> float:
        """Seconds since it last did."""
        return self._monotonic() - self._beat_s

    def stalled(self, patience_s: float = STALLED_S) -> str:
        """Why the loop counts as standing still, "" while it turns."""
        age_s = self.age_s
        return f"the loop has not turned for {age_s:.0f} s" if age_s > patience_s else ""
