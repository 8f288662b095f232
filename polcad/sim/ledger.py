"""Keeps what a run leaves behind, and sums it up at its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from polcad.model import Event, Priority, Rule, Setpoint
from polcad.sim.backlog import Backlog
from polcad.sim.inject import Injection
from polcad.sim.profiles import Floats
from polcad.sim.requests import HOUR_S, Ints
from polcad.sim.result import (
    MINUTE_S,
    QUANTILES,
    Duration,
    FaultEdge,
    Minutes,
    PlanChange,
    RowResult,
    Singles,
    Slowdown,
    rise,
    slowdown_of,
)
from polcad.sim.servers import Log

if TYPE_CHECKING:
    from polcad.sim.row import RowModel

_MOST_NOTES = 20_000  # of plans and of events: a row that flutters for weeks must not fill the memory
_SETTLE_S = 1800  # a row begins idle: its filling is no rise that anybody asked about
_J_PER_KWH = 3.6e6


class Ledger:
    """One run's books. Times are seconds since the start."""

    def __init__(self, priorities: Sequence[Priority], step_s: float) -> None:
        self._step_s = step_s
        self._servers = {
            name: [server for server, priority in enumerate(priorities) if priority is name]
            for name in Priority
            if name in priorities
        }
        self._priorities = np.array([list(Priority).index(priority) for priority in priorities])
        self._row: list[Singles] = []
        self._twin: list[Singles] = []
        self._slowdowns: list[tuple[Ints, Singles]] = []
        self._setpoints: list[tuple[float, dict[Priority, tuple[float, float]]]] = []
        self._plans: list[PlanChange] = []
        self._events: list[Event] = []
        self._faults: list[FaultEdge] = []

    def close_chunk(self, log: Log, servers: Ints, slowdowns: Floats) -> None:
        """Take a chunk's powers, and the slowdowns of the requests that ended in it."""
        self._row.append(log.row_w.astype(np.float32))
        self._twin.append(log.twin_w.astype(np.float32))
        self._slowdowns.append((self._priorities[servers], slowdowns.astype(np.float32)))

    def note_setpoints(self, t: float, in_force: Sequence[Setpoint]) -> None:
        """From now on these are in force."""
        self._setpoints.append((t, {name: _of(in_force, servers) for name, servers in self._servers.items()}))

    def note_plan(self, t: float, rules: tuple[Rule, ...]) -> None:
        """A plan changed."""
        if len(self._plans) < _MOST_NOTES:
            self._plans.append(PlanChange(t, rules))

    def note_event(self, event: Event) -> None:
        """The controller told something."""
        if len(self._events) < _MOST_NOTES:
            self._events.append(event)

    def note_fault(self, t: float, fault: Injection, *, begins: bool) -> None:
        """An injected fault began or ended."""
        self._faults.append(FaultEdge(t, fault, begins))

    def result(self, model: RowModel, log: Log, backlog: Backlog, counters: Mapping[str, int]) -> RowResult:
        """All of it, summed up."""
        budget_w = model.row_budget_w
        row_w, twin_w = np.concatenate(self._row), np.concatenate(self._twin)
        row, twin = row_w / np.float32(budget_w), twin_w / np.float32(budget_w)
        settled = row[min(round(_SETTLE_S / self._step_s), len(row) // 2) :]
        n = model.servers
        return RowResult(
            servers=n,
            weeks=model.weeks,
            policy=type(model.policy).__name__,
            seed=model.seed,
            budget_w=budget_w,
            peak_frac=float(row.max()),
            mean_frac=float(row.mean(dtype=np.float64)),
            uncapped_peak_frac=float(twin.max()),
            rise_2s_frac=rise(settled, round(2 / self._step_s)),
            rise_40s_frac=rise(settled, round(40 / self._step_s)),
            ramp_w_per_s=rise(settled, 1) * budget_w / self._step_s,
            brakes=counters.get("brakes", 0),
            seconds_over_budget=float((row > 1.0).sum() * self._step_s),
            capped_hours=self._capped_hours(len(row) * self._step_s),
            slowdown=self._slowdown(),
            throughput_frac=float(log.tokens[:n].sum() / max(log.tokens[n:].sum(), 1.0)),
            energy_kwh=float(row_w.sum(dtype=np.float64)) * self._step_s / _J_PER_KWH,
            gpu_energy_kwh=float(log.gpu_j.sum()) / _J_PER_KWH,
            requests=backlog.asked,
            finished=int(log.ended[:n].sum()),
            duration=Duration(_quantiles(row), _quantiles(twin)),
            minutes=self._minutes(row, twin),
            plans=tuple(self._plans),
            events=tuple(self._events),
            faults=tuple(self._faults),
            counters=dict(counters),
        )

    def _capped_hours(self, end_s: float) -> dict[Priority, float]:
        hours = dict.fromkeys(self._servers, 0.0)
        for (start, shares), (end, _) in pairwise([*self._setpoints, (end_s, {})]):
            for name, (_, capped) in shares.items():
                hours[name] += capped * (end - start) / HOUR_S
        return hours

    def _slowdown(self) -> dict[Priority, Slowdown]:
        priority = np.concatenate([one for one, _ in self._slowdowns])
        values = np.concatenate([one for _, one in self._slowdowns])
        return {name: slowdown_of(values[priority == index]) for index, name in enumerate(Priority)}

    def _minutes(self, row: Singles, twin: Singles) -> Minutes:
        steps = max(1, round(MINUTE_S / self._step_s))
        starts = np.arange(0, len(row), steps)
        lengths = np.diff(np.append(starts, len(row)))
        means: Singles = (np.add.reduceat(row, starts) / lengths).astype(np.float32)
        return Minutes(
            np.minimum.reduceat(row, starts),
            means,
            np.maximum.reduceat(row, starts),
            np.maximum.reduceat(twin, starts),
            {name: self._clock(name, starts.astype(np.float64) * self._step_s) for name in self._servers},
        )

    def _clock(self, name: Priority, at_s: Floats) -> Singles:
        changes = np.array([t for t, _ in self._setpoints])
        clocks = np.array([shares[name][0] for _, shares in self._setpoints], dtype=np.float32)
        result: Singles = clocks[np.searchsorted(changes, at_s, side="right") - 1]
        return result


def _of(in_force: Sequence[Setpoint], servers: Sequence[int]) -> tuple[float, float]:
    """Mean clock of these servers, and the share of them that is not free."""
    own = [in_force[server] for server in servers]
    return sum(each.clock_frac for each in own) / len(own), sum(not each.free for each in own) / len(own)


def _quantiles(values: Singles) -> tuple[float, ...]:
    return tuple(np.quantile(values, QUANTILES).tolist())
