"""The judge's own eyes: what every board draws and is set to, read at the boards a hundred times a second.

Nothing here comes from polcad: the power is what the fake's hardware draws (`fake_plug_mw`), whatever its driver and
its sensors say, and the settings are the board's registers.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Self

from tests.fake_nvml.control import FakeGpu
from tests.live_row import clock_mhz
from tests.waiting import until

PERIOD_S = 0.01


class Look(NamedTuple):
    """All boards at one monotonic moment: what the row draws, and each board's highest clock and limit."""

    t: float
    row_w: float
    mhz: tuple[int, ...]
    limit_w: tuple[float, ...]


class Meter:
    """Looks at boards in a thread of its own, from the beginning of the block to its end."""

    def __init__(self, lib_dir: Path, gpus: Sequence[FakeGpu]) -> None:
        self.looks: list[Look] = []
        self.gpus = tuple(gpus)
        self._plug_mw = ctypes.CDLL(str(lib_dir / "libnvidia-ml.so.1")).fake_plug_mw
        self._plug_mw.restype = ctypes.c_double
        self._states = [ctypes.c_void_p(gpu.address) for gpu in gpus]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="meter")

    def __enter__(self) -> Self:
        self._thread.start()
        until(lambda: bool(self.looks))
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(5.0)

    def look(self) -> Look:
        """All boards now."""
        row_w = sum(self._plug_mw(state) for state in self._states) / 1000
        return Look(
            time.monotonic(),
            row_w,
            tuple(clock_mhz(gpu) for gpu in self.gpus),
            tuple(gpu.limit_w for gpu in self.gpus),
        )

    def _watch(self) -> None:
        while not self._stop.wait(PERIOD_S):
            self.looks.append(self.look())

    def since(self, t: float) -> list[Look]:
        """What was seen from a monotonic time on; copied as `tests.live_row.Wiretap` tells."""
        return [look for look in self.looks.copy() if look.t >= t]
