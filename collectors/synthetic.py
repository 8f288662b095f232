"""GPUs that exist only here: for the demo, for tests, and to try a set-up before there is hardware.

A GPU draws ``idle + (full - idle) * load * dynamic(clock)``, at most its power limit, with the measured curves of
`polcad.curve`. The load follows a schedule that starts at the first reading, with seeded noise; nothing is hidden in
global state, so two runs with the same times read the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from polcad.curve import dynamic_frac
from polcad.errors import ConfigError
from polcad.model import FREE, Gpus, InForce, Outcome, PowerKind, Reading, Role, Setpoint
from polcad.ports import Collector

_STEP_MHZ = 15


@dataclass(frozen=True, slots=True)
class Board:
    """What every GPU of a synthetic node is: an A100-SXM unless told otherwise."""

    max_w: float = 400.0
    min_w: float = 100.0
    idle_w: float = 68.0
    max_mhz: float = 1410.0
    min_mhz: float = 210.0

    def snapped(self, wanted: Setpoint) -> tuple[Setpoint, str]:
        """The setpoint that the board can take, and what had to be clamped."""
        steps = int(wanted.clock_frac * self.max_mhz / _STEP_MHZ + 1e-6)  # 1110 of 1410 MHz is on the grid
        clock_mhz = min(float(steps * _STEP_MHZ), self.max_mhz)
        cap_w = wanted.cap_frac * self.max_w
        notes = []
        if clock_mhz < self.min_mhz:
            notes.append(f"clock_mhz={clock_mhz:.0f} is below the board's {self.min_mhz:.0f}")
        if cap_w < self.min_w:
            notes.append(f"cap_w={cap_w:.1f} is below the board's {self.min_w:.1f}")
        taken = Setpoint(max(clock_mhz, self.min_mhz) / self.max_mhz, max(cap_w, self.min_w) / self.max_w)
        return taken, "; ".join(notes)


class SyntheticCollector:
    """One node's GPUs (a `polcad.ports.Collector`).

    Options: `gpus`, `name` (UUIDs begin with it), `role`, `board` (fields of `Board`), `schedule` (pairs of seconds
    since the first reading and load, between which the load runs straight), `noise_frac` and `seed`. Raises ConfigError
    for an option that means nothing.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        known = {"gpus", "name", "role", "board", "schedule", "noise_frac", "seed", "deadline_s"}
        if unknown := sorted(options.keys() - known):
            raise ConfigError(f"collector synthetic: unknown option {unknown[0]}; known: {', '.join(sorted(known))}")
        if (role := options.get("role", Role.MIXED)) not in tuple(Role):
            raise ConfigError(f"collector synthetic: role={role!r} is none of {', '.join(Role)}")
        name = options.get("name", "synthetic")
        try:
            self.board = Board(**options.get("board", {}))
            self._role = Role(role)
            self._noise_frac = float(options.get("noise_frac", 0.02))
            self._schedule = [(float(s), float(load)) for s, load in options.get("schedule", [(0.0, 0.6)])]
            self.uuids = tuple(f"{name}-gpu{index}" for index in range(int(options.get("gpus", 8))))
        except (TypeError, ValueError) as error:
            raise ConfigError(f"collector synthetic: {error}") from error
        self.in_force: dict[str, Setpoint] = {}
        self._random = Random(str(options.get("seed", name)))  # noqa: S311  # noise, not a secret
        self._start_t: float | None = None

    def read(self, t: float) -> Reading:
        """The reading at `t`."""
        self._start_t = t if self._start_t is None else self._start_t
        load = load_at(self._schedule, t - self._start_t)
        loads = [min(1.0, max(0.0, load * (1 + self._random.gauss(0.0, self._noise_frac)))) for _ in self.uuids]
        set_to = [self.in_force.get(uuid, FREE) for uuid in self.uuids]
        board, n = self.board, len(self.uuids)
        return Reading(
            Gpus(
                uuid=self.uuids,
                power_w=tuple(round(self._power_w(at, to), 2) for at, to in zip(loads, set_to, strict=True)),
                max_w=(board.max_w,) * n,
                min_w=(board.min_w,) * n,
                util_frac=tuple(round(at, 3) for at in loads),
                sm_mhz=tuple(round(to.clock_frac * board.max_mhz, 1) for to in set_to),
                max_mhz=(board.max_mhz,) * n,
                limit_w=tuple(to.cap_frac * board.max_w for to in set_to),
                enforced_w=tuple(to.cap_frac * board.max_w for to in set_to),
            ),
            PowerKind.INSTANT,
        )

    def _power_w(self, load: float, setpoint: Setpoint) -> float:
        board = self.board
        dynamic_w = (board.max_w - board.idle_w) * load * dynamic_frac(self._role, setpoint.clock_frac)
        return min(board.idle_w + dynamic_w, setpoint.cap_frac * board.max_w)


class SyntheticDevice:
    """Sets the GPUs of a `SyntheticCollector` (a `polcad.ports.Device`). It takes no options."""

    def __init__(self, options: Mapping[str, Any], collector: Collector) -> None:
        if unknown := sorted(options.keys() - {"state_dir"}):
            raise ConfigError(f"device synthetic: it takes no options, here are {', '.join(unknown)}")
        if not isinstance(collector, SyntheticCollector):
            raise ConfigError(f"device synthetic: it needs collector synthetic, not {type(collector).__name__}")
        self._node = collector
        self._notes: dict[str, str] = {}

    def apply(self, wanted: Mapping[str, Setpoint]) -> None:
        """Take every setpoint, snapped and clamped to the board."""
        for uuid, setpoint in wanted.items():
            self._node.in_force[uuid], self._notes[uuid] = self._node.board.snapped(setpoint)

    def in_force(self) -> InForce:
        """What holds now."""
        uuids = self._node.uuids
        setpoints = [self._node.in_force.get(uuid, FREE) for uuid in uuids]
        notes = tuple(self._notes.get(uuid, "") for uuid in uuids)
        return InForce(
            uuids,
            tuple(setpoint.clock_frac for setpoint in setpoints),
            tuple(setpoint.cap_frac for setpoint in setpoints),
            tuple(Outcome.CLAMPED if note else Outcome.OK for note in notes),
            notes,
        )


def load_at(schedule: Sequence[tuple[float, float]], elapsed_s: float) -> float:
    """The load at a time since the start, on straight lines between the points of the schedule."""
    before = schedule[0]
    for point in schedule:
        if point[0] > elapsed_s:
            span_s = point[0] - before[0]
            return before[1] + (point[1] - before[1]) * (elapsed_s - before[0]) / span_s if span_s else point[1]
        before = point
    return before[1]
