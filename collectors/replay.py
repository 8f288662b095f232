"""One node's readings, played again out of a recording as if the node were alive.

It opens no file: whoever makes it hands it the readings (`polcad.playback.node_readings`). Recorded time runs `speed`
times as fast as the time it is asked for. Silence is played too: in a gap, before the first reading and past the last
one the GPUs are there and their power is not known, since a value repeated would pass for a fresh one.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from statistics import median
from typing import Any

from polcad.errors import ConfigError
from polcad.model import Gpus, Reading

_HOLD_PERIODS = 3  # how long a reading stands for what was drawn, as everywhere
_KNOWN = frozenset({"readings", "speed", "start_t", "deadline_s"})


class ReplayCollector:
    """Plays one node (a `polcad.ports.Collector`).

    Options: `readings`, pairs of recorded Unix time and `Reading`, in order; `speed` (1); `start_t`, the recorded time
    that the first call of `read` stands for (the first reading's; give all nodes of a row the same); `deadline_s` is
    taken and means nothing here. Raises ConfigError for anything else, and where there are no readings.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        if unknown := sorted(options.keys() - _KNOWN):
            raise ConfigError(f"collector replay: unknown option {unknown[0]}; known: {', '.join(sorted(_KNOWN))}")
        played: list[tuple[float, Reading]] = list(options.get("readings", ()))
        if not played:
            raise ConfigError("collector replay: no `readings`; `polcad replay FILE --broker URL` gives them")
        self._speed = float(options.get("speed", 1.0))
        if not self._speed > 0:
            raise ConfigError(f"collector replay: speed={self._speed:g} must be above 0")
        self._times = [t for t, _ in played]
        self._readings = [reading for _, reading in played]
        self._start_t = float(options.get("start_t", self._times[0]))
        self._period_s = median([after - before for before, after in pairwise(self._times)] or [1.0])
        self._first_t: float | None = None  # by the caller's clock

    def read(self, t: float) -> Reading:
        """The latest reading at or before the recorded time that `t` stands for."""
        if self._first_t is None:
            self._first_t = t
        recorded_t = self._start_t + (t - self._first_t) * self._speed
        place = bisect_right(self._times, recorded_t) - 1
        if place < 0:
            return _silent(self._readings[0], "the recording has not begun for this node")
        last = place == len(self._times) - 1
        age_s = recorded_t - self._times[place]
        if age_s > self._period_s * (1 if last else _HOLD_PERIODS):
            return _silent(self._readings[place], "recording ended" if last else "a gap in the recording")
        return self._readings[place]


def _silent(like: Reading, fault: str) -> Reading:
    """The same GPUs, and nothing known of them but what they are."""
    gpus, n = like.gpus, len(like.gpus.uuid)
    constants = Gpus(gpus.uuid, (None,) * n, gpus.max_w, gpus.min_w, max_mhz=gpus.max_mhz, fault=(fault,) * n)
    return replace(like, gpus=constants, host_power_w=None)
