"""Time for what runs live: Unix seconds that never jump, and what the wall clock calls them.

Deadlines, dwells and leases count on time that never jumps. What is told to others is for people and databases, who
compare it with clocks of their own: it follows the wall clock, which may be set. Only the edge of a program knows of
both: inside, a time is the steady one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

STEP_S = 0.1  # that the wall clock must have been set by: less is slewed, and the monotonic clock is slewed with it
_SURE_S = 0.01  # two clocks that were read further apart say nothing about each other


class SteadyClock:
    """Unix time read once, at the start, and from then on advanced by the monotonic clock.

    A wall clock that is set while the program runs therefore moves no deadline; `told` and `own` go between the two.
    """

    def __init__(self, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._wall, self._monotonic = wall, monotonic
        self._offset_s = wall() - monotonic()
        self._set_by_s = 0.0  # the wall clock, since the start

    def now(self) -> float:
        """Unix time, s, as it was counted since the start."""
        return self._offset_s + self._monotonic()

    def told(self, t: float) -> float:
        """What the wall clock, as it is set now, calls a time of this clock."""
        return max(0.0, t + self._moved_s())

    def own(self, told_t: float) -> float:
        """The time of this clock that the wall clock, as it is set now, calls so."""
        return told_t - self._moved_s()

    async def sleep_until(self, t: float) -> None:
        """Return at `t` or later; lets other tasks run even when `t` has passed."""
        while True:
            wait_s = t - self.now()
            await asyncio.sleep(max(0.0, wait_s))
            if self.now() >= t:  # a timer may fire a little early
                return

    def _moved_s(self) -> float:
        """By how much the wall clock was set since the start; the same until it is set again."""
        before_s, wall_t, after_s = self._monotonic(), self._wall(), self._monotonic()
        moved_s = wall_t - before_s - self._offset_s
        if after_s - before_s < _SURE_S and abs(moved_s - self._set_by_s) > STEP_S:
            self._set_by_s = moved_s
        return self._set_by_s
