"""Clocks: the wall clocks of programs are set, drift, or repeat a second, while the monotonic one goes on."""

from __future__ import annotations

import mmap
import struct
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from polcad.model import Plan
from tests.chaos.case import EVENTS_IN_FLIGHT, Case
from tests.chaos.faults import Fault
from tests.chaos.place import Place
from tests.chaos.row import NODES, ChaosRow
from tests.live_row import PERIOD_S
from tests.waiting import until

HOUR_S = 3600.0
DAY_S = 24 * HOUR_S
LEAP_S = -1.0  # a second is repeated: the kernel sets the clock back
DRIFT = 0.01
ACTUATORS = tuple(f"actuator-{node}" for node in NODES)
EVERYBODY = ("daemon", "recorder", *NODES, *ACTUATORS)
_SAYS_SO = (": clock: ", "CERTIFICATE_VERIFY_FAILED")  # in its log, with a wrong clock
_TRUE_WITHIN_S = 0.5 + PERIOD_S  # of the wall clock, that a time just told may be
_SOURCE = Path(__file__).with_name("clock.c")
_MOVED = struct.Struct("3d")  # as in clock.c


class Clocks(Place):
    """Each program has a wall clock of its own, which can be set while it runs."""

    def _build(self) -> None:
        self._lib = self.folder / "clock.so"
        subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", self._lib, _SOURCE, "-lm"], check=True)
        self._clocks = {part: self._made(part) for part in EVERYBODY}

    def _made(self, part: str) -> mmap.mmap:
        path = self._path(part)
        path.write_bytes(bytes(_MOVED.size))
        with path.open("r+b") as file:
            clock = mmap.mmap(file.fileno(), _MOVED.size)
        self._stack.callback(clock.close)
        return clock

    def _path(self, part: str) -> Path:
        return self.folder / f"{part}.clock"

    def env(self, part: str) -> Mapping[str, str]:
        """The clock of the part."""
        return {"LD_PRELOAD": str(self._lib), "POLCAD_FAKE_CLOCK": str(self._path(part))}

    def move(self, part: str, by_s: float, drift: float = 0.0) -> None:
        """Set a part's clock to so much from the true time, and let it drift from there."""
        _MOVED.pack_into(self._clocks[part], 0, by_s, drift, time.monotonic())

    def t(self, part: str) -> float:
        """What a part's clock shows now."""
        by_s, drift, since_s = _MOVED.unpack_from(self._clocks[part])
        return time.time() + float(by_s + drift * (time.monotonic() - since_s))


def _clocks(row: ChaosRow) -> Clocks:
    assert isinstance(row.place, Clocks)
    return row.place


@dataclass
class ClocksMoved(Fault):
    """The clocks of these parts are set by some seconds, and drift; then they are set right.

    `judges_age`: plans are signed, so that who does not share the daemon's clock follows none.
    """

    parts: tuple[str, ...]
    by_s: float = 0.0
    drift: Mapping[str, float] = field(default_factory=dict)
    judges_age: bool = False

    def __post_init__(self) -> None:
        """Whose clock is not the daemon's any more hears no plan that it may follow."""
        moved = {part.removeprefix("actuator-") for part in self.parts}
        if self.judges_age and abs(self.by_s) >= HOUR_S and not moved >= {"daemon", *NODES}:
            self.deaf = frozenset(NODES if "daemon" in moved else moved)

    def begin(self, row: ChaosRow) -> None:
        """Set them."""
        for part in self.parts:
            _clocks(row).move(part, self.by_s, self.drift.get(part, 0.0))

    def end(self, row: ChaosRow) -> None:
        """Set them right."""
        for part in self.parts:
            _clocks(row).move(part, 0.0)

    def amiss(self, row: ChaosRow) -> list[str]:
        """Programs whose told times do not follow their clock."""
        try:
            until(lambda: not _untrue(row), 2.0)
        except AssertionError:
            return [f"the times that it tells are not those of its clock: {each}" for each in _untrue(row)]
        return []


def _untrue(row: ChaosRow) -> list[str]:
    """Parts whose last word is not of now by their own clock."""
    status, plans = row.tap.status(), row.ear.listen().plans
    said: dict[str, list[float]] = {"daemon": [status.t if status else 0.0, plans[-1].plan.t]}
    for node in NODES:
        telemetry = row.tap.telemetry(node)
        said[node] = [telemetry.t if telemetry else 0.0]
    return [part for part, times in said.items() if any(abs(_clocks(row).t(part) - t) > _TRUE_WITHIN_S for t in times)]


@dataclass
class RestartedAtAnotherTime(Fault):
    """The daemon dies, its clock is set, and it is started again: newer, though by its clock it may be older."""

    by_s: float

    def begin(self, row: ChaosRow) -> None:
        """Kill it, and set the clock."""
        row.kill("daemon")
        _clocks(row).move("daemon", self.by_s)

    def end(self, row: ChaosRow) -> None:
        """Start it; its clock stays as it is, for the next run to set."""
        row.start_part("daemon")

    def over(self, row: ChaosRow) -> bool:
        """The new daemon's epoch is newer than any before it."""
        plans: list[Plan] = [heard.plan for heard in row.ear.listen().plans]
        return plans[-1].epoch == max(plan.epoch for plan in plans)


@dataclass
class StartedBeforeItsClockWasSet(Fault):
    """The daemon dies, and is started with a clock that is days off or shows 1970; then the clock is set right.

    `judges_age`: certificates are used and plans are signed, so that it is not followed, nor reaches the broker, before
    its clock is right. Nobody starts it again.
    """

    by_s: float
    judges_age: bool = False

    def __post_init__(self) -> None:
        """Who judges a plan's age follows none meanwhile."""
        self.deaf = frozenset(NODES if self.judges_age else ())

    def begin(self, row: ChaosRow) -> None:
        """Kill it, set the clock, start it, and let it say what is wrong: by an event, if it reaches the broker."""
        row.kill("daemon")
        _clocks(row).move("daemon", self.by_s)
        log = row.folder / "daemon.log"
        before = len(log.read_text())
        row.start_part("daemon")
        until(lambda: any(word in log.read_text()[before:] for word in _SAYS_SO), 30.0)

    def end(self, row: ChaosRow) -> None:
        """Set the clock right."""
        _clocks(row).move("daemon", 0.0)

    def over(self, row: ChaosRow) -> bool:
        """Its epoch is the newest, and not of another day."""
        plans: list[Plan] = [heard.plan for heard in row.ear.listen().plans]
        newest = max(plan.epoch for plan in plans)
        return plans[-1].epoch == newest and newest < (time.time() + HOUR_S) * 1e6


_STEPS_S = (HOUR_S, -HOUR_S, LEAP_S)


@dataclass
class AgentBeforeItsClockWasSet(Fault):
    """A node's agent dies, and is started in 1970: it follows the plan as the others do."""

    node: str

    def begin(self, row: ChaosRow) -> None:
        """Kill it, set the clock, and start it."""
        row.kill(self.node)
        _clocks(row).move(self.node, _to_1970_s())
        row.start_part(self.node)

    def end(self, row: ChaosRow) -> None:
        """Wait until it follows, and set its clock right."""
        until(lambda: row.follows(self.node), 30.0)
        _clocks(row).move(self.node, 0.0)


def _to_1970_s() -> float:
    return 60.0 - time.time()


def _unset(run: int) -> float:
    """By how much a clock is off at a start: two days on, two days back, or at 1970."""
    return (2 * DAY_S, -2 * DAY_S, _to_1970_s())[run % 3]


def _one(run: int, rng: Random) -> Fault:
    node = rng.choice(NODES)
    part = ("daemon", node, f"actuator-{node}")[run % 3]
    return ClocksMoved((part,), _STEPS_S[run // 3 % 3])


def _all(run: int, _: Random) -> Fault:
    return ClocksMoved(EVERYBODY, _STEPS_S[run % 3])


def _signed(run: int, rng: Random) -> Fault:
    node = rng.choice(NODES)
    parts = (("daemon",), (node,), (f"actuator-{node}",), EVERYBODY)[run % 4]
    return ClocksMoved(parts, rng.choice((HOUR_S, -HOUR_S)), judges_age=True)


def _drift(_: int, rng: Random) -> Fault:
    return ClocksMoved(EVERYBODY, drift={part: rng.choice((DRIFT, -DRIFT)) for part in EVERYBODY})


CLOCKS = (
    Case("clock-one", "the clock of one program is set 1 h on, 1 h back, or repeats a second", _one, place=Clocks),
    Case("clock-all", "all clocks are", _all, place=Clocks),
    Case(
        "clock-signed",
        "plans are signed, and a clock is set by 1 h: the daemon's, one of a node's, or all",
        _signed,
        secured=True,
        place=Clocks,
    ),
    Case(
        "clock-drift",
        "every clock gains or loses 1 %",
        _drift,
        hold_s=(2.0, 4.0),
        most_runs=4,
        place=Clocks,
    ),
    Case(
        "clock-restart",
        "the daemon dies, its clock is set by 1 h, and it is started again",
        lambda run, _: RestartedAtAnotherTime((-HOUR_S, HOUR_S)[run % 2]),
        may_lose="events in flight",
        events_lost=EVENTS_IN_FLIGHT,
        place=Clocks,
    ),
    Case(
        "clock-start",
        "the daemon dies, and is started with a clock 2 days off or at 1970",
        lambda run, _: StartedBeforeItsClockWasSet(_unset(run)),
        may_lose="events in flight",
        events_lost=EVENTS_IN_FLIGHT,
        place=Clocks,
    ),
    Case(
        "clock-start-agent",
        "an agent dies, and is started with a clock at 1970",
        lambda _, rng: AgentBeforeItsClockWasSet(rng.choice(NODES)),
        silences=True,
        place=Clocks,
    ),
    Case(
        "clock-start-signed",
        "the daemon does, where certificates are used and plans are signed",
        lambda run, _: StartedBeforeItsClockWasSet(_unset(run), judges_age=True),
        may_lose="events in flight",
        events_lost=EVENTS_IN_FLIGHT,
        secured=True,
        place=Clocks,
    ),
)
LONG_CLOCKS = (
    Case(
        "clock-drift-120s",
        "every clock gains or loses 1 %, for 120 s",
        _drift,
        hold_s=(120.0, 120.0),  # 1 % of it is more than is taken for the same
        most_runs=2,
        place=Clocks,
    ),
)
