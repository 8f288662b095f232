"""A row in simulated time: servers, meter and actuation around the live controller.

While nothing is held, nothing is on its way and the row stays below every threshold, a controller whose policy depends
on its view alone (`polcad.ports.Policy`) says the same free plan again and again. Such readings are not given to it:
the servers run on to the first reading that could matter. `skip_quiet=False` gives it every reading; a test holds that
both make the same plans.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil, inf

import numpy as np

from polcad.controller import Controller
from polcad.errors import ConfigError
from polcad.model import Event, NodePlacement, Plan, Rule
from polcad.outlook import Foresight
from polcad.ports import Heard, Input, Placed, Policy, Tick
from polcad.sim.actuation import OUT_OF_BAND, Actuation, Path
from polcad.sim.backlog import Backlog
from polcad.sim.inject import Fault, Injection
from polcad.sim.ledger import Ledger
from polcad.sim.meter import Meter
from polcad.sim.plant import Servers
from polcad.sim.profiles import DGX_A100, Hardware
from polcad.sim.requests import WEEK_S, Load, Pool, Source
from polcad.sim.result import RowResult
from polcad.sim.speech import RACK, Speech, groups_of, row_spec
from polcad.spec import GuardSpec

START_T = 1_750_032_000.0  # Monday 16 June 2025, 00:00 UTC: time 0 of a simulation
STEP_S = 1.0
DEFAULT_LOAD, DEFAULT_METER = Load(), Meter()
_CHUNK_STEPS = 21_600
_BUDGET_SERVERS = 40  # a POLCA row
_LONGEST_LEASE_S = 3600.0  # as long as the wire allows
_WAKE_FRAC = 0.98  # of the lowest threshold: from here on the controller is given every reading


@dataclass(frozen=True, slots=True)
class RowModel:
    """One simulated row. `budget_w` defaults to 40 servers' provisioned power, `guard` to what the path needs.

    Raises ConfigError for a row that cannot be.
    """

    servers: int
    policy: Policy
    weeks: float = 1.0
    seed: int = 1
    hardware: Hardware = DGX_A100
    source: Source = DEFAULT_LOAD
    budget_w: float | None = None
    meter: Meter = DEFAULT_METER
    path: Path = OUT_OF_BAND
    guard: GuardSpec | None = None
    injections: tuple[Injection, ...] = ()
    skip_quiet: bool = True
    foresight: Foresight | None = None  # who looks ahead must see every reading
    hypothetical: str = ""  # what of it is not so today

    def __post_init__(self) -> None:
        """Refuse rows that cannot be."""
        if self.servers < 1:
            raise ConfigError(f"servers={self.servers}: a row has at least 1")
        if not 0 < self.weeks <= 520:  # noqa: PLR2004  # ten years
            raise ConfigError(f"weeks={self.weeks:g}: must be above 0 and at most 520")
        idle_w = self.servers * self.hardware.idle_w
        if not idle_w < self.row_budget_w < float("inf"):
            raise ConfigError(
                f"budget_w={self.row_budget_w:.0f} is not above the {idle_w:.0f} W that {self.servers} idle servers "
                f"draw: no policy can keep it"
            )
        for injection in self.injections:
            if injection.fault is Fault.IGNORE and injection.server >= self.servers:
                raise ConfigError(
                    f"server {injection.server} cannot ignore its plan: the row has 0..{self.servers - 1}"
                )

    @property
    def row_budget_w(self) -> float:
        """The row's budget, W."""
        return self.budget_w if self.budget_w is not None else _BUDGET_SERVERS * self.hardware.provisioned_w

    @property
    def steps(self) -> int:
        """How long it runs, in whole readings."""
        period = int(self.meter.period_s)
        return max(1, round(self.weeks * WEEK_S / period)) * period

    @property
    def row_guard(self) -> GuardSpec:
        """How careful the guard is."""
        if self.guard is not None:
            return self.guard
        period_s, latency_s = self.meter.period_s, self.path.latency_s
        return GuardSpec(
            tick_s=period_s,
            lease_s=5 * period_s,
            stale_after_s=3 * period_s,
            latency_s=latency_s,
            dwell_s=max(GuardSpec().dwell_s, latency_s),
            idle_frac=self.hardware.gpu_idle_w / self.hardware.gpu_max_w,
        )

    def pools(self) -> tuple[Pool, ...]:
        """The row's servers by the requests they serve."""
        return self.source.pools(self.servers)


@dataclass(frozen=True, slots=True)
class Tap:
    """Hears the row's placements at its start, then its messages every `every_s`, a multiple of the meter's period."""

    placed: Callable[[float, NodePlacement], None]
    heard: Callable[[Heard], None]
    every_s: float


def simulate(model: RowModel, progress: Callable[[int], None] | None = None, tap: Tap | None = None) -> RowResult:
    """Run a row to its end. `progress` is told the seconds done since the last call, `tap` hears what the row says."""
    return _Run(model, progress or (lambda _: None), tap).run()


class _Run:
    def __init__(self, model: RowModel, progress: Callable[[int], None], tap: Tap | None) -> None:
        hardware, pools = model.hardware, model.pools()
        groups = groups_of(pools)
        self._model, self._progress, self._tap = model, progress, tap
        self._pools, self._guard = pools, model.row_guard
        self._period = int(model.meter.period_s / STEP_S)
        self._spec = row_spec(groups, hardware, model.row_budget_w)
        self._where = [
            (group.name, *each) for group in groups for each in zip(group.uuids, group.placements, strict=True)
        ]
        self._backlog = Backlog(pools, hardware)
        self._servers = Servers(self._backlog, hardware, STEP_S, self._period)
        self._speech = Speech(groups, hardware, model.meter.period_s)
        random = np.random.default_rng([model.seed, 1])
        self._actuation = Actuation(model.servers, model.path, hardware.max_mhz, random)
        self._ledger = Ledger([placement.priority for _, _, placement in self._where], STEP_S)
        self._faults = sorted(model.injections, key=lambda fault: fault.at_s)
        self._active: set[Injection] = set()
        self._counters: Counter[str] = Counter()
        self._epoch, self._plan, self._told_rules = 1, None, None
        self._controller: Controller | None = self._new_controller()
        self._lease_ends_s = inf  # of every server, once the daemon is dead
        self._calm = False  # the last reading could not matter
        marks = (*model.policy.thresholds.values(), self._guard.brake_frac)
        self._wake_w = _WAKE_FRAC * model.row_budget_w * min(marks)
        self._next_tap_s = 0.0 if tap else inf

    _plan: Plan | None
    _told_rules: tuple[Rule, ...] | None  # what the servers were told last

    def _new_controller(self) -> Controller:
        # Quiet readings are skipped, and a controller takes a silence longer than a lease for a sleep of its own.
        guard = replace(self._guard, lease_s=_LONGEST_LEASE_S)
        model = self._model
        controller = Controller(self._spec, guard, model.policy, self._epoch, foresight=model.foresight)
        for group in self._speech.groups:
            controller.on(Placed(START_T + self._servers.step * STEP_S, group.placement))
        return controller

    # --- time -------------------------------------------------------------------------------------------------------

    def run(self) -> RowResult:
        self._begin()
        for start in range(0, self._model.steps, _CHUNK_STEPS):
            end = min(start + _CHUNK_STEPS, self._model.steps)
            self._run_chunk(start, end)
            self._ledger.close_chunk(self._servers.log, *self._backlog.finished())
            self._progress(int((end - start) * STEP_S))
        self._servers.settle()
        self._count(self._controller)
        return self._ledger.result(self._model, self._servers.log, self._backlog, self._counters)

    def _begin(self) -> None:
        self._note_setpoints(0.0)
        if self._tap:
            for group in self._speech.groups:
                self._tap.placed(START_T, group.placement)

    def _run_chunk(self, start: int, end: int) -> None:
        model, servers = self._model, self._servers
        random = np.random.default_rng([model.seed, 2, start // _CHUNK_STEPS])
        batch = model.source.between(start * STEP_S, end * STEP_S, self._pools, model.hardware, random)
        self._backlog.take(batch, servers.state)
        seen = model.meter.factors((end - start) // self._period, random)
        servers.begin_chunk(end - start, seen)
        silences = [*(start + self._period * np.flatnonzero(np.isnan(seen))).tolist(), end]
        while servers.step < end:
            self._advance(silences[bisect_left(silences, servers.step)])
            t = servers.step * STEP_S
            self._change_faults(t)
            self._end_leases(t)
            self._bring_into_force(t)
            if servers.step % self._period == 0:
                self._read(t)

    def _advance(self, silence: int) -> None:
        """Run to the next reading, or while nothing matters to one that does; at most to where something acts.

        The reading before one that the meter drops (which begins at step `silence`) is always looked at, so that
        nobody looks older than it is.
        """
        step, now = self._servers.step, self._servers.step * STEP_S
        until, wake_w = step - step % self._period + self._period, inf
        if self._quiet():
            until, wake_w = max(until, silence), self._wake_w
        for t in (self._actuation.next_s, self._next_fault_s(now), self._lease_ends_s, self._next_tap_s):
            if now < t < until * STEP_S:
                until = ceil(t / STEP_S)
        self._servers.run(until - step, wake_w)

    def _quiet(self) -> bool:
        return (
            self._model.skip_quiet
            and self._model.foresight is None
            and self._calm
            and not self._told_rules
            and not self._active
            and self._actuation.all_free
        )

    # --- the loop ---------------------------------------------------------------------------------------------------

    def _read(self, t: float) -> None:
        """The meter reads the row, and the controller hears it."""
        gpu_w, host_w, seen = *self._servers.windows_w(), self._servers.seen
        reading_w = seen * (sum(gpu_w) + sum(host_w))
        self._calm = reading_w <= self._wake_w
        silent = np.isnan(seen) or any(fault.fault is Fault.METER for fault in self._active)
        heard: list[Heard] = []
        if not silent:
            held = t < self._lease_ends_s
            shown = [seen * power_w for power_w in gpu_w], [seen * power_w for power_w in host_w]
            heard = self._speech.say(START_T + t, *shown, self._plan, lease_held=held)
        if self._tap and t >= self._next_tap_s:
            self._next_tap_s = t + self._tap.every_s
            for message in heard:
                self._tap.heard(replace(message, telemetry=replace(message.telemetry, period_s=self._tap.every_s)))
        if self._controller is not None:
            events: list[Input] = [*heard, Tick(START_T + t)]
            for event in events:
                self._tell(self._controller, event, t)

    def _tell(self, controller: Controller, event: Input, t: float) -> None:
        for output in controller.on(event):
            if isinstance(output, Event):
                self._ledger.note_event(output)
            else:
                self._plan = output
                self._follow(output, t)

    def _follow(self, plan: Plan, t: float) -> None:
        if plan.rules == self._told_rules:
            return
        self._told_rules = plan.rules
        self._ledger.note_plan(t, plan.rules)
        for server, (node, uuid, placement) in enumerate(self._where):
            self._actuation.tell(server, plan.setpoint(RACK, node, uuid, placement), t, fast=plan.brake)

    def _end_leases(self, t: float) -> None:
        """In the silence of a dead daemon, servers fall to the fail-safe where it is stricter."""
        if t < self._lease_ends_s or self._plan is None or self._controller is not None or self._told_rules is None:
            return
        self._told_rules = None
        for server, had in enumerate(self._actuation.in_force):
            self._actuation.tell(server, had.strictest(self._plan.fail_safe), t, fast=False)
        self._lease_ends_s = -inf  # over

    def _bring_into_force(self, t: float) -> None:
        if self._actuation.act(t):
            self._note_setpoints(t)

    def _note_setpoints(self, t: float) -> None:
        """Let servers, messages and the ledger know what is in force."""
        brakes = any(fault.fault is Fault.BRAKE for fault in self._active)
        in_force = [had.strictest(self._guard.brake) if brakes else had for had in self._actuation.in_force]
        for server, setpoint in enumerate(in_force):
            self._servers.set(server, setpoint)
        self._speech.set(in_force, self._actuation.ignoring)
        self._ledger.note_setpoints(t, in_force)

    # --- faults -----------------------------------------------------------------------------------------------------

    def _next_fault_s(self, t: float) -> float:
        return min((edge for fault in self._faults for edge in (fault.at_s, fault.end_s) if edge > t), default=inf)

    def _change_faults(self, t: float) -> None:
        active = {fault for fault in self._faults if fault.at_s <= t < fault.end_s}
        for fault in self._faults:
            if (fault in active) is not (fault in self._active):
                self._change_fault(fault, t, begins=fault in active)
        if active != self._active:
            self._active = active
            self._note_setpoints(t)

    def _change_fault(self, fault: Injection, t: float, *, begins: bool) -> None:
        self._ledger.note_fault(t, fault, begins=begins)
        if fault.fault is Fault.IGNORE:
            self._actuation.ignore(fault.server, ignores=begins)
            self._told_rules = None if not begins else self._told_rules
        elif fault.fault is Fault.DAEMON and begins:
            self._count(self._controller)
            self._controller, self._lease_ends_s = None, t + self._guard.lease_s
        elif fault.fault is Fault.DAEMON:
            self._epoch += 1
            self._controller, self._lease_ends_s, self._told_rules = self._new_controller(), inf, None

    def _count(self, controller: Controller | None) -> None:
        if controller is not None:
            self._counters.update(controller.counters)
