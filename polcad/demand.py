"""What a row and its parts would draw uncapped, step by step: what forecasts are fed with, and what judges them.

A recording is played through the same `Fleet` and `tally` as a live controller's, so its demand is what the controller
would have seen, locks and limits in force included; a node that was silent for three steps makes its sums "not known"
(NaN). Its parts are the racks, or where it has no two racks the nodes. A modelled row is uncapped: its meter's readings
are its demand, and its servers, dealt round, make four racks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from itertools import islice
from pathlib import Path
from statistics import median

import numpy as np

from polcad.errors import ConfigError, RecordingError
from polcad.fleet import Fleet
from polcad.model import GRID_STEP_FRAC, Gpus, InForce, Telemetry
from polcad.outlook import MOVED_FRAC
from polcad.places import Flags, Floats
from polcad.playback import Playback
from polcad.plugins import load
from polcad.ports import Heard, Placed
from polcad.recording import Recording, read
from polcad.sim.row import Tap, simulate
from polcad.simulate import SimulateOptions
from polcad.spec import GuardSpec, RowSpec
from polcad.tally import tally

_PERIOD_MESSAGES = 1000  # from which a recording's step is estimated
_STALE_STEPS = 3
_MODEL_RACKS = 4
_SETTLE_S = 1800.0  # a modelled row begins idle: its filling is no rise that anybody asked about
_MADE_BY_MODEL = "polcad simulate row"


@dataclass(frozen=True, slots=True)
class Demand:
    """Uncapped demand: arrays of shape (steps, domains), the row in the first column, its parts in the others.

    NaN is "not known". What is not `steady` was estimated while settings changed, or under a brake. `budget_w` is the
    row's, None where nobody said it.
    """

    name: str
    domains: tuple[str, ...]
    step_s: float
    t: Floats
    demand_w: Floats
    steady: Flags
    budget_w: float | None = None

    @property
    def seconds(self) -> float:
        """How long it is."""
        return len(self.t) * self.step_s

    def after(self, seconds: float) -> Demand:
        """Without its beginning."""
        skip = round(seconds / self.step_s)
        return replace(self, t=self.t[skip:], demand_w=self.demand_w[skip:], steady=self.steady[skip:])


def recorded(
    path: Path, row: str | None = None, step_s: float | None = None, on_bytes: Callable[[int], None] | None = None
) -> Demand:
    """The demand of a recording, by default on a grid of its nodes' median period.

    Raises RecordingError for no recording, one without telemetry of the row, or one of several rows and no `row`;
    ConfigError for one too short to have a step.
    """
    recording = read(path, on_bytes)
    modelled = recording.metadata.get("made_by") == _MADE_BY_MODEL
    step_s = step_s or _median_period_s(recording, row)
    watch = _Watch(step_s)
    for event in Playback(recording, row, tick_s=60.0).events():
        if isinstance(event, Heard | Placed):
            for each in _dealt(event) if modelled else (event,):
                watch.take(each)
    told_w = recording.metadata.get("budget_w")
    demand = watch.demand(str(path), float(told_w) if told_w else None)
    return demand.after(min(_SETTLE_S, demand.seconds / 2)) if modelled else demand


def _median_period_s(recording: Recording, row: str | None) -> float:
    heard = (event for event in Playback(recording, row, tick_s=60.0).events() if isinstance(event, Heard))
    periods_s = [event.telemetry.period_s for event in islice(heard, _PERIOD_MESSAGES)]
    if not periods_s:
        raise RecordingError(f"{recording.path}: it holds no telemetry of the row {row}")
    return median(periods_s)


class _Watch:
    """Hears a row, and looks at it half a step after its messages are due, so that jitter moves none of them."""

    def __init__(self, step_s: float) -> None:
        self._step_s = step_s
        guard = GuardSpec(stale_after_s=_STALE_STEPS * step_s)
        self._brake_frac, self._idle_frac = guard.brake.clock_frac + GRID_STEP_FRAC, guard.idle_frac
        self._fleet = Fleet(RowSpec("row", 0.0), guard)
        self._rack_of: dict[str, str] = {}
        self._next_t: float | None = None
        self._t: list[float] = []
        self._demand_w: list[Floats] = []  # by node, in the order in which they were first heard
        self._steady: list[Flags] = []

    def take(self, event: Heard | Placed) -> None:
        """Take an event; before it, look at every step that was due."""
        if self._next_t is None:  # by then every node has spoken once
            self._next_t = event.t + (_STALE_STEPS + 0.5) * self._step_s
        while self._next_t < event.t:
            self._look(self._next_t)
            self._next_t += self._step_s
        if isinstance(event, Placed):
            self._fleet.place(event.placement)
            return
        node = event.telemetry.node
        slot = self._fleet.slot_of(node, node)  # each its own rack: so `tally` sums by node
        if slot is not None:
            self._rack_of.setdefault(node, event.rack)
            self._fleet.hear(slot, event.telemetry, event.t)

    def _look(self, t: float) -> None:
        """Note every node; it is not steady if it brakes, or its settings or silence changed since the last look."""
        fleet, n = self._fleet, len(self._fleet.specs)
        fleet.age(t)
        totals = tally(fleet, self._idle_frac)
        demand_w = totals.demand_w.sum(axis=1) + totals.host_w
        demand_w[fleet.stale[:n]] = np.nan
        self._t.append(t)
        self._demand_w.append(demand_w)
        braked = (fleet.clock_frac[:n] <= self._brake_frac).any(axis=1)
        self._steady.append((fleet.moved_frac()[:n] == 0.0) & ~braked)

    def demand(self, name: str, budget_w: float | None) -> Demand:
        """All that was seen."""
        if not self._t:
            raise ConfigError(f"{name}: it ends before its nodes have spoken {_STALE_STEPS} times: nothing to judge by")
        nodes, shape = list(self._rack_of), (len(self._t), len(self._rack_of))
        demand_w, steady = np.zeros(shape), np.ones(shape, dtype=bool)
        for step, (powers_w, calm) in enumerate(zip(self._demand_w, self._steady, strict=True)):
            demand_w[step, : len(powers_w)], steady[step, : len(calm)] = powers_w, calm
        racks = list(dict.fromkeys(self._rack_of.values()))
        if len(racks) > 1:
            parts = {f"rack/{rack}": [self._rack_of[node] == rack for node in nodes] for rack in racks}
        else:
            parts = {f"node/{node}": [other == node for other in nodes] for node in nodes} if len(nodes) > 1 else {}
        members = np.array([[True] * len(nodes), *parts.values()])
        sums = [(demand_w[:, own].sum(axis=1), steady[:, own].mean(axis=1) >= 1 - MOVED_FRAC) for own in members]
        columns, calms = np.array([each for each, _ in sums]).T, np.array([each for _, each in sums]).T
        columns[columns == 0.0] = np.nan  # of a part that nobody had heard yet
        return Demand(name, ("row", *parts), self._step_s, np.array(self._t), columns, calms, budget_w)


def _dealt(event: Heard | Placed) -> Iterator[Heard | Placed]:
    """What a modelled row's group says, as if its servers stood in racks, dealt round."""
    for rack in range(_MODEL_RACKS):
        if isinstance(event, Placed):
            yield replace(event, placement=replace(event.placement, node=f"{event.placement.node}-{rack}"))
        elif rack < len(event.telemetry.reading.gpus.uuid):
            yield Heard(event.t, _share(event.telemetry, rack), f"rack-{rack}")


def _share(telemetry: Telemetry, rack: int) -> Telemetry:
    gpus, own = telemetry.reading.gpus, slice(rack, None, _MODEL_RACKS)
    powers = [power_w or 0.0 for power_w in gpus.power_w]
    mine = Gpus(**{item.name: getattr(gpus, item.name)[own] for item in fields(Gpus)})
    rest_w = (telemetry.reading.host_power_w or sum(powers)) - sum(powers)
    host_w = sum(powers[own]) + rest_w * len(mine.uuid) / len(powers)
    force = telemetry.in_force
    if force is not None:
        force = InForce(*(getattr(force, item.name)[own] for item in fields(InForce)))
    reading = replace(telemetry.reading, gpus=mine, host_power_w=host_w)
    return replace(telemetry, node=f"{telemetry.node}-{rack}", reading=reading, in_force=force)


def simulated(options: SimulateOptions, progress: Callable[[int], None] | None = None) -> Demand:
    """The readings of a modelled row that nobody caps; a reading that its meter missed counts as the one before."""
    model = options.model(load("polcad.policies", "no_cap")())
    start_t, step_s = 0.0, model.meter.period_s
    powers_w = np.full((round(model.steps / step_s) + 1, 1 + _MODEL_RACKS), np.nan)

    def heard(event: Heard) -> None:
        nonlocal start_t
        start_t = start_t or event.t
        reading = event.telemetry.reading
        gpu_w, host_w = np.array(reading.gpus.power_w), reading.host_power_w or 0.0
        server_w = gpu_w + (host_w - gpu_w.sum()) / len(gpu_w)
        racks_w = [server_w[rack::_MODEL_RACKS].sum() for rack in range(_MODEL_RACKS)]
        row = powers_w[round((event.t - start_t) / step_s)]
        row[:] = np.nan_to_num(row) + np.array([host_w, *racks_w])

    simulate(model, progress, Tap(lambda _t, _placement: None, heard, step_s))
    powers_w = powers_w[: 1 + int(np.flatnonzero(np.isfinite(powers_w[:, 0])).max(initial=0))]
    known = np.isfinite(powers_w[:, 0])
    last = np.maximum.accumulate(np.where(known, np.arange(len(known)), 0))
    missed = np.arange(len(known)) - last >= _STALE_STEPS
    demand_w: Floats = np.where(missed[:, None], np.nan, powers_w[last])
    named = f"simulated {options.servers} servers, seed {options.seed}, {options.weeks:g} weeks"
    domains = ("row", *(f"rack/rack-{rack}" for rack in range(_MODEL_RACKS)))
    t: Floats = start_t + step_s * np.arange(len(known), dtype=np.float64)
    steady = np.ones(demand_w.shape, dtype=bool)
    demand = Demand(named, domains, step_s, t, demand_w, steady, model.row_budget_w)
    return demand.after(min(_SETTLE_S, demand.seconds / 2))
