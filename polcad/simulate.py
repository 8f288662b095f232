"""``polcad simulate row``: a modelled row under a policy, as figures, and as a recording that ``replay`` reads."""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from math import ceil, isfinite
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

import numpy as np

from polcad.errors import ConfigError
from polcad.foresight import FORECASTER, foresight_for
from polcad.model import MAX_GPUS, NodePlacement, Priority
from polcad.plugins import load
from polcad.ports import Heard, Policy
from polcad.recording import RecordingWriter
from polcad.sim.actuation import PATHS
from polcad.sim.inject import Injection
from polcad.sim.phases import told_phases
from polcad.sim.profiles import PROFILES
from polcad.sim.requests import WEEK_S, Load, Source, Trace
from polcad.sim.result import RowResult
from polcad.sim.row import STEP_S, RowModel, Tap, simulate
from polcad.sim.training import PRUNED, WithTraining
from polcad.wire import Address, encode

T = TypeVar("T")

SITE = "sim"
_MOST_MESSAGES = 1_000_000  # of a recording: six weeks have a message every four seconds
WHAT_IF = {
    "quicker": "settings take 37 % less time in the median and 63 % less in the slowest hundredth (kernel bypass)",
    "pruned": f"training is pruned to {100 * PRUNED[-1]:g} % of its operations, so its power steps down",
}
_COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")


@dataclass(frozen=True, slots=True)
class SimulateOptions:
    """What is simulated. `faults` are `Injection.parse`'s texts; `budget_w` defaults to 40 servers' provisioned power.

    `hungrier_frac` lets busy GPUs draw so much more; `forecaster` looks ahead for a policy that can use it;
    `record_period_s` None takes the shortest that keeps a recording below a million messages.
    """

    servers: int
    weeks: float = 1.0
    policy: str = "polca"
    seed: int = 1
    trace: Path | None = None
    actuation: str = "out-of-band"
    hardware: str = "dgx-a100"
    budget_w: float | None = None
    hungrier_frac: float = 0.0
    forecaster: str = FORECASTER
    faults: tuple[str, ...] = ()
    record: Path | None = None
    record_period_s: float | None = None
    training: float = 0.0  # share of the servers
    what_if: tuple[str, ...] = ()  # of WHAT_IF

    def model(self, policy: Policy | None = None) -> RowModel:
        """The row; ConfigError for options that mean nothing. `policy` instead of the one named, with its options."""
        hardware = _named(PROFILES, self.hardware, "--hardware")
        path = _named(PATHS, self.actuation, "--actuation")
        policy = policy or load("polcad.policies", self.policy)()
        model = RowModel(
            servers=self.servers,
            policy=policy,
            weeks=self.weeks,
            seed=self.seed,
            hardware=hardware.hungrier(self.hungrier_frac) if self.hungrier_frac else hardware,
            source=self._source(),
            hypothetical=self.supposed(),
            budget_w=self.budget_w,
            path=path.quicker() if "quicker" in self.what_if else path,
            injections=tuple(Injection.parse(text) for text in self.faults),
            foresight=foresight_for(policy, self.forecaster),
        )
        return told_phases(model, self.policy)

    def _source(self) -> Source:
        requests: Source = Load() if self.trace is None else read_trace(self.trace)
        if not self.training:
            return requests
        stages = PRUNED if "pruned" in self.what_if else (1.0,)
        source = WithTraining(requests, self.training, self.weeks * WEEK_S, stages)
        source.pools(self.servers)  # refused here rather than when it runs
        return source

    def supposed(self) -> str:
        """What is not so today, in words; ConfigError for what cannot be asked."""
        told = [_named(WHAT_IF, name, "--what-if") for name in self.what_if]
        if "pruned" in self.what_if and not self.training:
            raise ConfigError("--what-if pruned: say --training SHARE, for there is no training to prune")
        return "; ".join(f"hypothetical: {what}" for what in told)


def run(options: SimulateOptions, progress: Callable[[int], None] | None = None) -> RowResult:
    """Simulate; ConfigError, RecordingError. `progress` is told the simulated seconds done since the last call."""
    model = options.model()
    with _recorded(options, model) as tap:
        return simulate(model, progress, tap)


def summary(options: SimulateOptions, result: RowResult, wall_s: float) -> dict[str, Any]:
    """The figures of ``--json``."""
    high, low = (result.slowdown.get(priority) for priority in (Priority.HIGH, Priority.LOW))
    supposed = options.supposed()
    return ({"hypothetical": supposed} if supposed else {}) | {
        "servers": result.servers,
        "weeks": result.weeks,
        "policy": options.policy,
        "seed": result.seed,
        "peak_frac": result.peak_frac,
        "mean_frac": result.mean_frac,
        "rise_2s_frac": result.rise_2s_frac,
        "rise_40s_frac": result.rise_40s_frac,
        "brakes": result.brakes,
        "seconds_over_budget": result.seconds_over_budget,
        "capped_hours_high": result.capped_hours.get(Priority.HIGH, 0.0),
        "capped_hours_low": result.capped_hours.get(Priority.LOW, 0.0),
        "high_p50_slowdown": high.p50 if high else 0.0,
        "high_p99_slowdown": high.p99 if high else 0.0,
        "low_p50_slowdown": low.p50 if low else 0.0,
        "low_p99_slowdown": low.p99 if low else 0.0,
        "throughput_frac": result.throughput_frac,
        "energy_kwh": result.energy_kwh,
        "wall_s": wall_s,
    }


def timed(options: SimulateOptions, progress: Callable[[int], None] | None = None) -> tuple[RowResult, dict[str, Any]]:
    """Simulate, and the figures with the time it took."""
    start = perf_counter()
    result = run(options, progress)
    return result, summary(options, result, perf_counter() - start)


def read_trace(path: Path) -> Trace:
    """Requests in the columns of the Azure LLM traces, plain or .gz; ConfigError, with the line, for what is none."""
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8", newline="") as file:
            rows = list(_trace_rows(path, csv.DictReader(file)))
    except (OSError, EOFError, zlib.error, csv.Error, UnicodeDecodeError) as error:
        raise ConfigError(f"--trace {path}: cannot be read: {error}") from error
    if not rows:
        raise ConfigError(f"--trace {path}: it has no requests")
    columns = np.array(rows, dtype=np.float64).T
    try:
        return Trace(columns[0] - columns[0][0], columns[1], columns[2], start_t=float(columns[0][0]))
    except ConfigError as error:
        raise ConfigError(f"--trace {path}: {error}") from error


def _trace_rows(path: Path, reader: csv.DictReader[str]) -> Iterator[tuple[float, float, float]]:
    missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
    if missing:
        raise ConfigError(f"--trace {path}: it lacks the column {missing[0]}; needed are {', '.join(_COLUMNS)}")
    for row in reader:
        try:
            yield _trace_time(row["TIMESTAMP"] or ""), _tokens(row["ContextTokens"]), _tokens(row["GeneratedTokens"])
        except (TypeError, ValueError) as error:
            raise ConfigError(f"--trace {path}: line {reader.line_num}: {error}") from error


def _tokens(text: str) -> float:
    number = float(text)
    if not isfinite(number):
        raise ValueError(f"{text} is no number of tokens")
    return number


def _trace_time(text: str) -> float:
    """Seconds; Azure writes seven digits of a second, more than Python reads."""
    head, _, tail = text.partition(".")
    digits = len(tail) - len(tail.lstrip("0123456789"))
    zone = tail[digits:]
    return datetime.fromisoformat(head + (zone or "+00:00")).timestamp() + float(f"0.{tail[:digits] or 0}")


@contextmanager
def _recorded(options: SimulateOptions, model: RowModel) -> Iterator[Tap | None]:
    """What writes the recording that was asked for."""
    if options.record is None:
        yield None
        return
    metadata = {"made_by": "polcad simulate row", "site": SITE, "row": "row", "budget_w": f"{model.row_budget_w:.0f}"}
    with RecordingWriter(options.record, metadata) as writer:

        def placed(t: float, placement: NodePlacement) -> None:
            writer.add(t, encode(Address(SITE, "row", "placement", "rack", placement.node), placement))

        def heard(event: Heard) -> None:
            node = event.telemetry.node
            writer.add(event.t, encode(Address(SITE, "row", "telemetry", event.rack, node), event.telemetry))

        yield Tap(placed, heard, _record_period_s(options, model))


def _record_period_s(options: SimulateOptions, model: RowModel) -> float:
    """A multiple of the meter's period."""
    shortest_s = model.steps * STEP_S * ceil(model.servers / MAX_GPUS) / _MOST_MESSAGES
    asked_s = shortest_s if options.record_period_s is None else options.record_period_s
    return max(1, ceil(asked_s / model.meter.period_s)) * model.meter.period_s


def _named(known: dict[str, T], name: str, option: str) -> T:
    if name not in known:
        raise ConfigError(f"{option} {name}: it is none of {', '.join(known)}")
    return known[name]
