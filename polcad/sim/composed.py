"""A row made of recorded servers, and more of them, with the live controller inside.

Each server replays one recorded server, from a moment shifted by up to `SHIFT_S`: far enough that bursts do not fall
together more than they did, near enough that the hour of the day stays. A lock takes power away as `polcad.curve` says
and stretches nothing: work that a real server would finish later is not made up here, so a slowdown is that of the
clocks in force while a server was busy, without queueing. Power limits are not modelled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from polcad.controller import Controller
from polcad.curve import dynamic_frac, time_ratio
from polcad.errors import ConfigError
from polcad.model import Plan, Priority
from polcad.outlook import Foresight
from polcad.ports import Input, Placed, Policy, Tick
from polcad.sim.actuation import Actuation, Path
from polcad.sim.profiles import Floats, Hardware
from polcad.sim.requests import HOUR_S, Ints, Pool
from polcad.sim.result import Singles
from polcad.sim.speech import RACK, Speech, groups_of, row_spec
from polcad.spec import GuardSpec

SHIFT_S = 900.0
_BUSY_FRAC = 1.15  # of a server's idle GPU power: below it nobody waits for it
_WAKE_FRAC = 0.98  # of the lowest threshold: from here on the controller is given every reading


@dataclass(frozen=True, slots=True)
class Recorded:
    """Servers' powers in W: one row a server, one column a `period_s`; `pools` in the order of the rows."""

    gpu_w: Floats
    host_w: Floats
    pools: tuple[Pool, ...]
    period_s: float
    hardware: Hardware

    def part(self, start_frac: float, end_frac: float) -> Recorded:
        """A stretch of it."""
        cut = slice(int(start_frac * self.steps), int(end_frac * self.steps))
        return Recorded(self.gpu_w[:, cut], self.host_w[:, cut], self.pools, self.period_s, self.hardware)

    @property
    def steps(self) -> int:
        """How many readings of each."""
        return int(self.gpu_w.shape[1])

    @property
    def servers(self) -> int:
        """How many were recorded."""
        return len(self.gpu_w)


class Composed:
    """One row of at least as many servers as were recorded, to be run once; added ones copy recorded ones by turns."""

    def __init__(self, recorded: Recorded, servers: int, budget_w: float, path: Path, seed: int) -> None:
        random = np.random.default_rng([seed, servers])
        self._recorded, self._budget_w = recorded, budget_w
        self._unit, self._shift, pools = _drawn(recorded, servers, random)
        self._groups = groups_of(pools)
        self._where = [
            (group.name, *each) for group in self._groups for each in zip(group.uuids, group.placements, strict=True)
        ]
        self._actuation = Actuation(servers, path, recorded.hardware.max_mhz, random)
        self._speech = Speech(self._groups, recorded.hardware, recorded.period_s)
        self._speech.set(self._actuation.in_force, set())
        self._idle_w = recorded.hardware.gpus * recorded.hardware.gpu_idle_w
        self._power, self._time = np.ones(servers), np.ones(servers)  # ratios of what is in force
        self._books = _Books([placement.priority for _, _, placement in self._where])

    def run(self, policy: Policy, guard: GuardSpec, foresight: Foresight | None = None) -> Mapping[str, float]:
        """Figures named as those of ``simulate row --json``; ConfigError for a policy that limits power."""
        recorded, period_s = self._recorded, self._recorded.period_s
        spec = row_spec(self._groups, recorded.hardware, self._budget_w)
        controller = Controller(spec, guard, policy, 1, foresight=foresight)
        for group in self._groups:
            controller.on(Placed(0.0, group.placement))
        wake_w = _WAKE_FRAC * self._budget_w * min([*policy.thresholds.values(), guard.brake_frac])
        plan: Plan | None = None
        told = None
        for step in range(recorded.steps):
            t = step * period_s
            if self._actuation.act(t):
                self._take()
            power_w, gpu_w, host_w = self._draw(step)
            if power_w < wake_w and not told and self._actuation.all_free and not foresight:
                continue  # the controller would say the same free plan again
            events: list[Input] = [*self._speech.say(t, gpu_w.tolist(), host_w.tolist(), plan, lease_held=True)]
            outputs = [output for event in (*events, Tick(t)) for output in controller.on(event)]
            plan = next((output for output in reversed(outputs) if isinstance(output, Plan)), plan)
            if plan is not None and plan.rules != told:
                told = plan.rules
                self._tell(plan, t)
        return {**self._books.figures(period_s), "brakes": float(controller.counters["brakes"])}

    def _draw(self, step: int) -> tuple[float, Floats, Floats]:
        """What the row, its servers' GPUs and the rest of each draw."""
        column = (step + self._shift) % self._recorded.steps
        asked_w, host_w = self._recorded.gpu_w[self._unit, column], self._recorded.host_w[self._unit, column]
        gpu_w: Floats = asked_w - np.maximum(asked_w - self._idle_w, 0.0) * (1 - self._power)
        power_w = float(gpu_w.sum() + host_w.sum())
        self._books.note(power_w / self._budget_w, asked_w > _BUSY_FRAC * self._idle_w, self._time)
        return power_w, gpu_w, host_w

    def _tell(self, plan: Plan, t: float) -> None:
        for server, (node, uuid, placement) in enumerate(self._where):
            setpoint = plan.setpoint(RACK, node, uuid, placement)
            if setpoint.cap_frac < 1 and not plan.brake:
                raise ConfigError(
                    "a plan from a recording knows what a clock does, not a power limit: take a policy that locks"
                )
            self._actuation.tell(server, setpoint, t, fast=plan.brake)

    def _take(self) -> None:
        """From now on other clocks are in force."""
        for server, (_, _, placement) in enumerate(self._where):
            clock_frac = self._actuation.in_force[server].clock_frac
            self._power[server] = dynamic_frac(placement.role, clock_frac)
            self._time[server] = time_ratio(placement.role, clock_frac)
        self._speech.set(self._actuation.in_force, set())


class _Books:
    """What a run leaves behind: the row's use, and how long each server was busy at which slowdown."""

    def __init__(self, priorities: Sequence[Priority]) -> None:
        self._servers = {
            name: np.array([place for place, each in enumerate(priorities) if each is name], dtype=np.int64)
            for name in Priority
        }
        self._used: list[float] = []
        self._busy: list[NDArray[np.bool_]] = []
        self._time: list[Singles] = []

    def note(self, used_frac: float, busy: NDArray[np.bool_], time: Floats) -> None:
        self._used.append(used_frac)
        self._busy.append(busy)
        self._time.append(time.astype(np.float32))

    def figures(self, period_s: float) -> dict[str, float]:
        used, busy, time = np.array(self._used), np.array(self._busy), np.array(self._time)
        figures = {
            "peak_frac": float(used.max()),
            "mean_frac": float(used.mean()),
            "seconds_over_budget": float((used > 1).sum()) * period_s,
        }
        for name, servers in self._servers.items():
            slowed = time[:, servers][busy[:, servers]] - 1
            p50, p99 = np.quantile(slowed, [0.5, 0.99]).tolist() if slowed.size else (0.0, 0.0)
            locked = time[:, servers] > 1
            hours = float(locked.mean()) * len(used) * period_s / HOUR_S if servers.size else 0.0
            figures |= {f"{name}_p50_slowdown": p50, f"{name}_p99_slowdown": p99, f"capped_hours_{name}": hours}
        return figures


def _drawn(recorded: Recorded, servers: int, random: np.random.Generator) -> tuple[Ints, Ints, tuple[Pool, ...]]:
    """For each server of the new row, pool by pool: the recorded one it replays, its shift in steps; and the pools."""
    reach = int(SHIFT_S / recorded.period_s)
    more = servers - recorded.servers
    by_pool: list[list[int]] = []
    first = 0
    for pool in recorded.pools:
        by_pool.append(list(range(first, first + pool.servers)))
        first += pool.servers
    added = [random.permutation(recorded.servers) for _ in range(-(-more // recorded.servers))]
    copies = np.concatenate([*added, np.zeros(0, np.int64)])[: max(0, more)].astype(np.int64).tolist()
    units: list[int] = []
    shifts: list[int] = []
    pools: list[Pool] = []
    for pool, own in zip(recorded.pools, by_pool, strict=True):
        new = [unit for unit in copies if unit in own]
        units += own + new
        shifts += [0] * len(own) + random.integers(-reach, reach, len(new), endpoint=True).tolist()
        pools.append(Pool(pool.name, len(own) + len(new), pool.placement))
    return np.array(units), np.array(shifts), tuple(pools)
