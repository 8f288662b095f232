"""``polcad replay``: what the controller would have said over a recording. An open loop: nothing obeys it.

The same events in the same order make the same lines, byte for byte: nothing here reads a clock, unless a `speed` asks
for pacing, and then only to wait.
"""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TextIO

import msgspec
from rich.console import Console
from rich.table import Table

from polcad.clock import SteadyClock
from polcad.controller import Controller
from polcad.drive import drive
from polcad.errors import ConfigError
from polcad.foresight import FORECASTER, foresight_for
from polcad.model import Plan, Rule
from polcad.playback import Playback
from polcad.plugins import load
from polcad.ports import Clock, Input, Output
from polcad.progress import bar
from polcad.recording import Loss, read
from polcad.spec import GuardSpec, RowSpec

_BREATH = 2000  # events between two moments at which the program can be stopped
_EPOCH = 1  # any: nobody else is here


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """What is replayed, and how. Raises ConfigError for a budget or speed that means nothing.

    `inventory` gives racks and nodes (priorities, budgets); without it the nodes are taken as they are heard, all of
    low priority. `row` chooses one of several recorded rows. `speed` times recorded time, None is as fast as it goes.
    `forecaster` looks ahead for a policy that can use it. `plans` takes every change of plan and every event as JSON
    Lines, ``-`` on stdout.
    """

    path: Path
    budget_w: float
    policy: str = "polca"
    row: str | None = None
    speed: float | None = None
    plans: Path | None = None
    guard: GuardSpec = field(default_factory=GuardSpec)
    inventory: RowSpec | None = None
    forecaster: str = FORECASTER

    def __post_init__(self) -> None:
        if not (0 < self.budget_w < math.inf):
            raise ConfigError(f"--budget-w {self.budget_w:g}: must be above 0")
        if self.speed is not None and not (0 < self.speed < math.inf):
            raise ConfigError(f"--speed {self.speed:g}: must be above 0; leave it out to go as fast as possible")


@dataclass(frozen=True, slots=True)
class ReplaySummary:
    """What a replay came to; fractions are of the budget, times are recorded time.

    `plans` counts changes of the plan's rules, not the repetitions that are its heartbeat. `peak_frac` is what the
    controller counted, silent nodes at their worst case; `peak_measured_frac` holds each node at its last reading.
    """

    samples: int
    gaps: int
    plans: int
    t1_entries: int
    t2_entries: int
    brakes: int
    peak_frac: float
    peak_measured_frac: float
    over_budget_s: float
    seconds: float
    telemetry: int
    nodes: int
    gpus: int
    sensor_faults: int
    refused: int  # messages that cannot be believed
    jumps: int  # of the recorder's clock
    lost: str  # what of the file could not be read; "" where all could


async def run(
    options: ReplayOptions, *, clock: Clock | None = None, on_bytes: Callable[[int], None] | None = None
) -> ReplaySummary:
    """Replay a recording to its end; ConfigError, RecordingError. `clock` only paces, where there is a speed."""
    recording = read(options.path, on_bytes)
    playback = Playback(recording, options.row, options.guard.tick_s)
    row = replace(options.inventory or RowSpec("row", 0.0), name=playback.row, budget_w=float(options.budget_w))
    policy = load("polcad.policies", options.policy)()
    foresight = foresight_for(policy, options.forecaster)
    controller = Controller(row, options.guard, policy, _EPOCH, foresight=foresight)
    with _opened(options.plans) as file:
        await drive(_paced(playback, options.speed, clock or SteadyClock()), controller, _Lines(file))
    return _summary(playback, controller, options.budget_w, recording.loss)


def replay(options: ReplayOptions, *, as_json: bool = False) -> ReplaySummary:
    """Replay a recording, with a bar, and show its summary: on stdout, or on stderr when stdout takes the plans."""
    with bar(f"replay {options.path.name}", _size(options.path)) as advance:
        summary = asyncio.run(run(options, on_bytes=advance))
    file = sys.stderr if _is_stdout(options.plans) else sys.stdout
    show(summary, file, as_json=as_json)
    return summary


def show(summary: ReplaySummary, file: TextIO, *, as_json: bool) -> None:
    """One JSON object on a line, or a table for people."""
    if as_json:
        file.write(msgspec.json.encode(summary).decode() + "\n")
        return
    table = Table(show_header=False)
    for name, value in _rows(summary):
        table.add_row(name, value)
    Console(file=file).print(table)


def _rows(summary: ReplaySummary) -> Iterator[tuple[str, str]]:
    yield "recorded", f"{summary.nodes} nodes, {summary.gpus} GPUs, {summary.seconds:.0f} s"
    yield "samples", f"{summary.samples} in {summary.telemetry} messages, {summary.gaps} gaps"
    yield "plans", f"{summary.plans} changes; T1 {summary.t1_entries}, T2 {summary.t2_entries}, brakes {summary.brakes}"
    yield "peak", f"{summary.peak_frac:.3f} of the budget counted, {summary.peak_measured_frac:.3f} measured"
    yield "over budget", f"{summary.over_budget_s:.0f} s"
    if summary.sensor_faults or summary.refused or summary.jumps:
        yield (
            "doubted",
            f"{summary.sensor_faults} sensor faults, {summary.refused} messages, {summary.jumps} jumps of the clock",
        )
    if summary.lost:
        yield "file", summary.lost


def _summary(playback: Playback, controller: Controller, budget_w: float, loss: Loss) -> ReplaySummary:
    counters = controller.counters
    return ReplaySummary(
        samples=playback.samples,
        gaps=playback.gaps,
        plans=counters["plans"],
        t1_entries=counters["t1_entries"],
        t2_entries=counters["t2_entries"],
        brakes=counters["brakes"],
        peak_frac=controller.peak_frac,
        peak_measured_frac=playback.peak_w / budget_w,
        over_budget_s=controller.over_budget_s,
        seconds=playback.played_s,
        telemetry=playback.telemetry,
        nodes=playback.nodes,
        gpus=playback.gpus,
        sensor_faults=counters["sensor_faults"],
        refused=playback.refused,
        jumps=playback.jumps,
        lost=str(loss),
    )


class _Lines:
    """Writes what the controller says where anybody asked for it; a plan only when its rules changed."""

    def __init__(self, file: TextIO | None) -> None:
        self._file = file
        self._rules: tuple[Rule, ...] | None = None

    async def apply(self, output: Output) -> None:
        if self._file is None or (isinstance(output, Plan) and output.rules == self._rules):
            return
        kind = "event"
        if isinstance(output, Plan):
            kind, self._rules = "plan", output.rules
        self._file.write(msgspec.json.encode({kind: output}).decode() + "\n")


async def _paced(playback: Playback, speed: float | None, clock: Clock) -> AsyncIterator[Input]:
    start_t = first_t = None
    for count, event in enumerate(playback.events()):
        if speed is not None:
            if start_t is None or first_t is None:
                start_t, first_t = clock.now(), event.t
            await clock.sleep_until(start_t + (event.t - first_t) / speed)
        elif count % _BREATH == 0:
            await asyncio.sleep(0)
        yield event


@contextmanager
def _opened(plans: Path | None) -> Iterator[TextIO | None]:
    if plans is None or _is_stdout(plans):
        yield sys.stdout if plans else None
        return
    try:
        file = plans.open("w", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--plans {plans}: cannot be written: {error.strerror}") from error
    with file:
        yield file


def _is_stdout(plans: Path | None) -> bool:
    return plans is not None and str(plans) == "-"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0  # reading it tells what is wrong
