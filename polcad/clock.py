"""Time for what runs live: Unix seconds that never jump."""

from __future__ import annotations

import asyncio
import time


class SteadyClock:
    """Unix time read once, at the start, and from then on advanced by the monotonic clock.

    A wall clock that is set while the daemon runs therefore moves no deadline. It also means that this clock keeps
    whatever error the wall clock had at the start, and drifts from it by the corrections made since.
    """

    def __init__(self) -> None:
        self._offset_s = time.time() - time.monotonic()

    def now(self) -> float:
        """Unix time, s."""
        return self._offset_s + time.monotonic()

    async def sleep_until(self, t: float) -> None:
        """Return at `t` or later; lets other tasks run even when `t` has passed."""
        while True:
            wait_s = t - self.now()
            await asyncio.sleep(max(0.0, wait_s))
            if self.now() >= t:  # a timer may fire a little early
                return
