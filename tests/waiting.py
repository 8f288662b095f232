"""Waiting for something to become true, with an end."""

import asyncio
import time
from collections.abc import Callable


def until(holds: Callable[[], bool], within_s: float = 10.0) -> None:
    """Return as soon as `holds()`; fail when it does not within the time."""
    end = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < end, f"not within {within_s} s"
        time.sleep(0.005)


async def eventually(holds: Callable[[], bool], within_s: float = 10.0) -> None:
    """The same beside other tasks of the event loop."""
    end = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < end, f"not within {within_s} s"
        await asyncio.sleep(0.005)
