"""Where a plan gets its rows from: the simulated row, or a recording of a real one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from polcad.errors import ConfigError
from polcad.foresight import foresight_for
from polcad.model import InForce, NodePlacement, Placement, Priority, Telemetry
from polcad.playback import Playback
from polcad.plugins import load
from polcad.ports import Heard, Placed, Policy
from polcad.recording import read
from polcad.sim.actuation import Path as Actuating
from polcad.sim.composed import Composed, Recorded
from polcad.sim.profiles import Floats, Hardware
from polcad.sim.requests import Pool
from polcad.sim.result import rise
from polcad.sim.row import RowModel, Tap, simulate
from polcad.simulate import SimulateOptions, summary
from polcad.spec import GuardSpec

CALIBRATE_FRAC = 1 / 3  # of a recording: the thresholds come from it, and are judged on the rest
_CALIBRATE_SEED = 1_000_003  # no judged run has it
_LEAST_STEPS = 60
_SETTLE_S = 1800.0


class Rows(Protocol):
    """Rows of any size under a policy."""

    @property
    def servers(self) -> int:
        """How many there are now."""
        ...

    @property
    def budget_w(self) -> float:
        """What they may draw together, W."""
        ...

    @property
    def judged_days(self) -> float:
        """How long a run is."""
        ...

    def rise_frac(self, latency_s: float) -> float:
        """The largest rise within so long, in the first part, uncapped; of the budget."""
        ...

    def judge(self, servers: int, policy: Policy, seed: int) -> Mapping[str, float]:
        """The figures of a row of that size on the rest."""
        ...

    def assumptions(self) -> tuple[str, ...]:
        """What must be true for the answer to hold."""
        ...


@dataclass(frozen=True, slots=True)
class SimulatedRows:
    """Rows of the model: calibrated on one seed, judged on others."""

    options: SimulateOptions  # its policy is the one to be judged
    servers: int

    @property
    def budget_w(self) -> float:
        """As the model has it."""
        return self.options.model().row_budget_w

    @property
    def judged_days(self) -> float:
        """The whole run."""
        return self.options.weeks * 7

    def rise_frac(self, latency_s: float) -> float:
        """From the readings of a run of another seed."""
        uncapped: Policy = load("polcad.policies", "no_cap")()
        model = self._model(self.servers, _CALIBRATE_SEED, uncapped)
        powers: dict[float, float] = defaultdict(float)

        def heard(event: Heard) -> None:
            powers[event.t] += event.telemetry.reading.host_power_w or 0.0

        simulate(model, tap=Tap(lambda _t, _placement: None, heard, model.meter.period_s))
        settled = list(powers.values())[len(powers) // 10 :]  # a row begins idle
        steps = max(1, round(latency_s / model.meter.period_s))
        return rise(np.array(settled, dtype=np.float32), steps) / model.row_budget_w

    def _model(self, servers: int, seed: int, policy: Policy) -> RowModel:
        return replace(self.options, servers=servers, seed=seed).model(policy)

    def judge(self, servers: int, policy: Policy, seed: int) -> Mapping[str, float]:
        """One run."""
        result = simulate(self._model(servers, seed, policy))
        return {
            key: value for key, value in summary(self.options, result, 0.0).items() if isinstance(value, float | int)
        }

    def assumptions(self) -> tuple[str, ...]:
        """The model's."""
        return ("the simulated row stands for yours: its load, its hardware profile, no recording was given",)


@dataclass(frozen=True, slots=True)
class RecordedRows:
    """Rows composed of recorded servers."""

    recorded: Recorded
    budget_w: float
    path: Actuating
    guard: GuardSpec
    known_priorities: bool
    capped_share: float = 0.0  # of the messages: what a GPU would have drawn then was not recorded

    @property
    def servers(self) -> int:
        """As many as were recorded."""
        return self.recorded.servers

    @property
    def judged_days(self) -> float:
        """What is left after the calibration."""
        return (1 - CALIBRATE_FRAC) * self.recorded.steps * self.recorded.period_s / 86_400

    def rise_frac(self, latency_s: float) -> float:
        """From the first part."""
        first = self.recorded.part(0.0, CALIBRATE_FRAC)
        row_w = (first.gpu_w + first.host_w).sum(axis=0).astype(np.float32)
        return rise(row_w, max(1, round(latency_s / first.period_s))) / self.budget_w

    def judge(self, servers: int, policy: Policy, seed: int) -> Mapping[str, float]:
        """One composition."""
        rest = self.recorded.part(CALIBRATE_FRAC, 1.0)
        foresight = foresight_for(policy)
        return Composed(rest, servers, self.budget_w, self.path, seed).run(policy, self.guard, foresight)

    def assumptions(self) -> tuple[str, ...]:
        """What composing takes for granted."""
        told = (
            "added servers behave like the recorded ones, up to 15 minutes shifted",
            "a slowdown is that of the clocks in force while a server was busy; queueing comes on top",
            f"the recorded row was capped in {self.capped_share:.1%} of its messages; its demand then counts as drawn",
        )
        guessed = "priorities were not recorded: every other server is taken as high priority"
        return told if self.known_priorities else (*told, guessed)


def recorded_rows(path: Path, budget_w: float | None, hardware: Hardware, acting: Actuating) -> RecordedRows:
    """Read a recording; ConfigError where it is too short or no budget is known, RecordingError for no recording."""
    recording = read(path)
    told_w = recording.metadata.get("budget_w")
    if budget_w is None and told_w is None:
        raise ConfigError(f"{path}: its budget is not known: give --budget-w")
    playback = Playback(recording, None, tick_s=60.0)
    heard: dict[str, list[tuple[float, Telemetry]]] = defaultdict(list)
    places: dict[str, NodePlacement] = {}
    for event in playback.events():
        if isinstance(event, Heard):
            heard[event.telemetry.node].append((event.t, event.telemetry))
        elif isinstance(event, Placed):
            places[event.placement.node] = event.placement
    many = recording.metadata.get("made_by") == "polcad simulate row"  # whose "GPUs" are whole servers
    servers = _gridded(path, heard, places, hardware, many=many)
    if many:  # a simulated row begins idle: its filling is no rise that anybody asked about
        servers = servers.part(min(0.5, _SETTLE_S / (servers.steps * servers.period_s)), 1.0)
    budget = float(budget_w if budget_w is not None else told_w or 0.0)
    period_s = servers.period_s
    guard = GuardSpec(
        tick_s=period_s,
        lease_s=5 * period_s,
        stale_after_s=3 * period_s,
        latency_s=acting.latency_s,
        dwell_s=max(GuardSpec().dwell_s, acting.latency_s),
        idle_frac=hardware.gpu_idle_w / hardware.gpu_max_w,
    )
    return RecordedRows(
        servers, budget, acting, guard, known_priorities=bool(places), capped_share=_capped_share(heard)
    )


def _capped_share(heard: Mapping[str, list[tuple[float, Telemetry]]]) -> float:
    """How many of the messages tell of a lock or limit in force."""
    told = [message.in_force for readings in heard.values() for _, message in readings]
    return sum(force is not None and _is_capped(force) for force in told) / len(told)


def _is_capped(force: InForce) -> bool:
    return any(value is not None and value < 1 for value in (*force.clock_frac, *force.cap_frac))


def _gridded(
    path: Path,
    heard: Mapping[str, list[tuple[float, Telemetry]]],
    places: Mapping[str, NodePlacement],
    hardware: Hardware,
    *,
    many: bool,
) -> Recorded:
    """All nodes on one grid of time, a gap filled with what was last known; servers of one placement together."""
    period_s = max(1.0, float(np.median([told.period_s for readings in heard.values() for _, told in readings])))
    start = min(readings[0][0] for readings in heard.values())
    steps = 1 + int((max(readings[-1][0] for readings in heard.values()) - start) / period_s)
    if steps < _LEAST_STEPS:
        raise ConfigError(f"{path}: {steps} readings are too few to plan by; at least {_LEAST_STEPS} are needed")
    rows: dict[Placement, list[tuple[Floats, Floats]]] = defaultdict(list)
    for place, (node, readings) in enumerate(sorted(heard.items())):
        at = ((np.array([t for t, _ in readings]) - start) / period_s).astype(np.int64)
        last = np.maximum(np.searchsorted(at, np.arange(steps), side="right") - 1, 0)
        gpu_w, host_w = _powers([told for _, told in readings], many=many)
        guess = NodePlacement(node, Placement(Priority.HIGH if place % 2 else Priority.LOW))
        for one, uuid in enumerate(readings[0][1].reading.gpus.uuid[: gpu_w.shape[1]]):
            rows[places.get(node, guess).of(uuid)].append((gpu_w[last, one], host_w[last, one]))
    pools = tuple(Pool(f"pool-{index}", len(own), key) for index, (key, own) in enumerate(rows.items()))
    columns = [pair for own in rows.values() for pair in own]
    gpu, host = (np.array([pair[side] for pair in columns]) for side in (0, 1))
    return Recorded(gpu, host, pools, period_s, hardware)


def _powers(told: list[Telemetry], *, many: bool) -> tuple[Floats, Floats]:
    """By time and server: its GPUs together, and the rest of it where the whole was measured; nothing known is 0."""
    width = max(len(each.reading.gpus.power_w) for each in told)
    gpu_w = np.zeros((len(told), width))
    for row, each in enumerate(told):
        powers = [power_w or 0.0 for power_w in each.reading.gpus.power_w]
        gpu_w[row, : len(powers)] = powers
    whole_w = np.array([each.reading.host_power_w or 0.0 for each in told])
    rest_w = np.maximum(whole_w - gpu_w.sum(axis=1), 0.0)
    if many:
        return gpu_w, np.repeat(rest_w[:, None] / width, width, axis=1)
    return gpu_w.sum(axis=1, keepdims=True), rest_w[:, None]
