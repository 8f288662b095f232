"""Where a forecaster's lessons are held at once: in a replay or a simulation, whose time stands still meanwhile.

`polcad.school_process` is its pendant beside a live daemon.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Classroom:
    """A `School` that holds each lesson while `begin` is called; `failed` counts those that raised."""

    def __init__(self) -> None:
        self.failed = 0
        self._ended: tuple[Any, ...] | None = None

    def begin(self, lesson: Callable[[], Any]) -> None:
        """Hold the lesson, as `School` tells."""
        try:
            self._ended = (lesson(),)
        except Exception:  # noqa: BLE001  # a forecaster found by name may raise anything, and the row goes on
            self.failed += 1
            self._ended = ()

    def ended(self) -> tuple[Any, ...] | None:
        """What the lesson gave, once, as `School` tells."""
        ended, self._ended = self._ended, None
        return ended
