"""How a setpoint gets to a server: through the operating system (in band), or through its BMC (out of band).

Each server takes what it is told after a delay of its own; a newer word replaces one that is on its way. The brake has
a faster way; leaving the brake is a setting like any other, so a braked server stays braked until its lock is there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from typing import Annotated

import numpy as np

from polcad.model import FREE, Setpoint
from polcad.sim.profiles import Known

_GRID_MHZ = 15.0  # of A100 and H100


@dataclass(frozen=True, slots=True)
class Path:
    """Delays are uniform between two bounds."""

    name: str
    delay_s: Annotated[tuple[float, float], Known("s", "in band NVML; out of band POLCA: up to 40 s")]
    brake_s: Annotated[tuple[float, float], Known("s", "POLCA: at most 5 s")]
    latency_s: Annotated[float, Known("s", "what the guard allows for: the delay, and a reading that shows it")]
    median_ratio: Annotated[float, Known("of each delay", "1: as measured")] = 1.0
    p99_ratio: Annotated[float, Known("of the slowest hundredth's", "no delay is longer; inf: as measured")] = inf

    def quicker(self, median_ratio: float = 0.63, p99_ratio: float = 0.37) -> Path:
        """What kernel bypass would give (Junctiond, 2403.03377: median -37 %, P99 -63 %). Hypothetical."""
        slowest_s = p99_ratio * _p99_s(self.delay_s)
        shown_s = self.latency_s - self.delay_s[1]  # the rest of it is for a reading
        return replace(
            self,
            latency_s=shown_s + slowest_s,
            median_ratio=median_ratio,
            p99_ratio=p99_ratio,
            name=f"{self.name}, quicker",
        )

    def drawn_s(self, random: np.random.Generator, *, fast: bool) -> float:
        """How long one setting takes; `fast`: the brake."""
        bounds_s = self.brake_s if fast else self.delay_s
        return min(self.median_ratio * random.uniform(*bounds_s), self.p99_ratio * _p99_s(bounds_s))


def _p99_s(bounds_s: tuple[float, float]) -> float:
    return bounds_s[0] + 0.99 * (bounds_s[1] - bounds_s[0])


IN_BAND = Path("in-band", (0.05, 0.2), (0.05, 0.2), latency_s=4.0)
OUT_OF_BAND = Path("out-of-band", (5.0, 40.0), (1.0, 5.0), latency_s=40.0)
PATHS = {path.name: path for path in (IN_BAND, OUT_OF_BAND)}


def snapped(wanted: Setpoint, max_mhz: float) -> Setpoint:
    """The setpoint on the board's clock grid, snapped down."""
    steps = int(wanted.clock_frac * max_mhz / _GRID_MHZ + 1e-6)
    return Setpoint(min(1.0, steps * _GRID_MHZ / max_mhz), wanted.cap_frac)


class Actuation:
    """What is in force on each server, and what is on its way. Times are seconds since the start."""

    def __init__(self, servers: int, path: Path, max_mhz: float, random: np.random.Generator) -> None:
        self.in_force = [FREE] * servers
        self.ignoring: set[int] = set()  # servers that take nothing
        self._wanted = [FREE] * servers
        self._coming: dict[int, tuple[float, Setpoint]] = {}
        self._path, self._max_mhz, self._random = path, max_mhz, random

    def tell(self, server: int, setpoint: Setpoint, t: float, *, fast: bool) -> None:
        """Set a server; one that is told again what it was told last is left alone."""
        wanted = snapped(setpoint, self._max_mhz)
        if server in self.ignoring or wanted == self._wanted[server]:
            return
        self._wanted[server] = wanted
        self._coming[server] = (t + self._path.drawn_s(self._random, fast=fast), wanted)

    def ignore(self, server: int, *, ignores: bool) -> None:
        """Make a server deaf, and what is on its way lost; or let it hear again."""
        if ignores:
            self.ignoring.add(server)
            self._coming.pop(server, None)
        else:
            self.ignoring.discard(server)
        self._wanted[server] = self.in_force[server]

    @property
    def next_s(self) -> float:
        """When the next setting acts; infinity when none is on its way."""
        return min((due for due, _ in self._coming.values()), default=float("inf"))

    @property
    def all_free(self) -> bool:
        """Whether every server is free, and nothing is on its way."""
        return not self._coming and all(setpoint.free for setpoint in self.in_force)

    def act(self, t: float) -> bool:
        """Bring into force what is due at `t`; whether anything was."""
        due = [server for server, (due_s, _) in self._coming.items() if due_s <= t]
        for server in due:
            self.in_force[server] = self._coming.pop(server)[1]
        return bool(due)
