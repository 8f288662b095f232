"""Fakes that stand where a real part would, for tests here and for whoever writes a collector or policy."""

from __future__ import annotations

import asyncio


class ManualClock:
    """A Clock whose time moves only by `advance`."""

    def __init__(self, t: float = 0.0) -> None:
        self._t = t
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def now(self) -> float:
        """The time, s."""
        return self._t

    async def sleep_until(self, t: float) -> None:
        """Return once `advance` has brought the clock to `t`."""
        if t <= self._t:
            await asyncio.sleep(0)
            return
        woken = asyncio.get_running_loop().create_future()
        self._sleepers.append((t, woken))
        await woken

    def advance(self, seconds: float) -> None:
        """Move time forward and wake every sleeper whose time has come."""
        self._t += seconds
        due = [woken for t, woken in self._sleepers if t <= self._t]
        self._sleepers = [(t, woken) for t, woken in self._sleepers if t > self._t]
        for woken in due:
            if not woken.done():  # the sleeper may have been cancelled
                woken.set_result(None)
