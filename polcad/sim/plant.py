"""The row's servers as one machine: advance it, set a server, read its meter."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from polcad.curve import power_frac, time_ratio
from polcad.model import Role, Setpoint
from polcad.sim.backlog import Backlog
from polcad.sim.profiles import Floats, Hardware
from polcad.sim.servers import Drive, advance, empty_log, free_drive, idle_state, plant, retime


class Servers:
    """All servers of a row and their twins, in steps of `step_s`. `seen` is what the meter makes of one watt."""

    def __init__(self, backlog: Backlog, hardware: Hardware, step_s: float, period: int) -> None:
        self.step = 0
        self._set: dict[int, Setpoint] = {}
        self.drive: Drive = free_drive(backlog.servers)
        self.state = idle_state(backlog.servers, hardware.batch_max)
        self._hardware, self._backlog, self._period = hardware, backlog, period
        self._plant = plant(hardware, step_s)
        self._offset, self._seen = 0, np.zeros(0)
        self.log = empty_log(backlog.servers)

    def begin_chunk(self, steps: int, seen: Floats) -> None:
        """Make room for so many steps from here."""
        self._offset, self._seen = self.step, seen
        self.log = self.log._replace(row_w=np.zeros(steps), twin_w=np.zeros(steps))
        self.settle()

    def settle(self) -> None:
        """Account for everything up to now, and see what the backlog holds."""
        for runner in range(len(self.state.head)):
            self._retime(runner)

    def _retime(self, runner: int) -> None:
        t = self.step * self._plant.step_s
        retime(runner, t, self._plant, self._backlog.work, self.state, self.drive, self.log)

    def run(self, steps: int, wake_w: float) -> None:
        """Run so many steps, or to the first reading above `wake_w`."""
        self.step += advance(
            self._plant,
            self._backlog.work,
            self.state,
            self.drive,
            self.log,
            self.step,
            steps,
            self._offset,
            self._period,
            self._seen,
            wake_w,
        )

    @property
    def seen(self) -> float:
        """What the meter makes of a watt, in the reading that has just ended; NaN when it is silent."""
        return float(self._seen[(self.step - 1 - self._offset) // self._period])

    def windows_w(self) -> tuple[list[float], list[float]]:
        """Mean power of the reading that has just ended, by server: of its GPUs, and of the rest of it."""
        seconds = self._period * self._plant.step_s
        return (self.log.window_gpu_j / seconds).tolist(), (self.log.window_host_j / seconds).tolist()

    def set(self, server: int, setpoint: Setpoint) -> None:
        """Bring a setpoint into force."""
        if self._set.get(server) == setpoint:
            return
        self._set[server] = setpoint
        for column, value in zip(self.drive[:4], _answer(setpoint.clock_frac), strict=True):
            column[server] = value
        gpus_w = self._hardware.gpus * self._hardware.gpu_max_w
        self.drive.limit_w[server] = setpoint.cap_frac * gpus_w if setpoint.cap_frac < 1.0 else np.inf
        self._retime(server)


@lru_cache(maxsize=256)
def _answer(clock_frac: float) -> tuple[float, float, float, float]:
    """Time and power of the prompt phase, time and power of the token phase, of those at the maximum clock."""
    return (
        time_ratio(Role.PROMPT, clock_frac),
        power_frac(Role.PROMPT, clock_frac),
        time_ratio(Role.TOKEN, clock_frac),
        power_frac(Role.TOKEN, clock_frac),
    )
