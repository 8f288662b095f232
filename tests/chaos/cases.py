"""The cases: what breaks, for how long, and what may be lost by it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from random import Random
from typing import Any

from tests.chaos.case import EVENTS_IN_FLIGHT, LEASE_S, TELEMETRY_IN_FLIGHT, Case
from tests.chaos.clocks import CLOCKS, LONG_CLOCKS
from tests.chaos.disks import DISKS
from tests.chaos.faults import (
    MOMENTS,
    Board,
    Cut,
    Driver,
    Fault,
    Freeze,
    Full,
    Kill,
    Reload,
    SecondDaemon,
    blind,
    loose,
)
from tests.chaos.hostile import HOSTILE
from tests.chaos.namespaces import LONG_NETWORK, NETWORK
from tests.chaos.row import FRAME_S, NODES
from tests.chaos.standby import STANDBY
from tests.chaos.starved import STARVED
from tests.chaos.upgrades import UPGRADES
from tests.fake_nvml.control import NO_PERMISSION, FakeGpu

PARTS = ("broker", "daemon", "agent", "actuator", "recorder", "database")


def named(part: str, rng: Random) -> str:
    """A part of the row; an agent or actuator is that of any node."""
    node = rng.choice(NODES)
    return {"agent": node, "actuator": f"actuator-{node}"}.get(part, part)


def _kill(part: str) -> Case:
    def make(_: int, rng: Random) -> Fault:
        return Kill((named(part, rng),))

    return _with_bounds(f"kill-{part}", "kill -9, and started again", part, make)


def _with_bounds(name: str, what: str, part: str, make: Callable[[int, Random], Fault]) -> Case:
    """A case that breaks one part: what is in flight there may be lost, and nothing else."""
    broker, daemon, recorder = (part == each for each in ("broker", "daemon", "recorder"))
    return Case(
        name,
        what,
        make,
        may_lose=_MAY_LOSE.get(part, "nothing"),
        silences=broker,
        events_lost=EVENTS_IN_FLIGHT if broker or daemon else 0,
        history=True,
        recording_gap_s=FRAME_S if recorder else 0.0 if broker else None,
        database_gap_s=0.0 if broker or daemon else None,
    )


_MAY_LOSE = {
    "broker": "what is said until all are connected again",
    "daemon": "events in flight; the database lacks its absence",
    "recorder": "the recording lacks its absence, and 5 s before it",
}


def _kill_two(name: str, what: str, each: int) -> Case:
    """Every pair of parts, `each` times one after the other."""
    pairs = tuple(combinations(PARTS, 2))

    def make(run: int, rng: Random) -> Fault:
        return Kill(tuple(named(part, rng) for part in pairs[run // each % len(pairs)]))

    return replace(
        _with_bounds(name, what, "broker", make),
        may_lose="as each alone",
        recording_gap_s=FRAME_S,
        runs=each * len(pairs),
    )


def _freeze(part: str) -> Case:
    def make(_: int, rng: Random) -> Fault:
        return Freeze((named(part, rng),))

    return _with_bounds(f"freeze-{part}", "SIGSTOP, and SIGCONT", part, make)


def _freeze_for(part: str, hold_s: float) -> Case:
    case = _freeze(part)
    if part == "agent":  # the broker hangs up after 15 s
        what = f"{TELEMETRY_IN_FLIGHT} messages a run, said to a broker that had hung up"
        case = replace(case, telemetry_lost=TELEMETRY_IN_FLIGHT, may_lose=what)
    return replace(case, name=f"{case.name}-{hold_s:g}s", hold_s=(hold_s, hold_s), most_runs=4)


def _cut(name: str, what: str, make: Callable[[int, Random], Fault], **more: Any) -> Case:
    return Case(
        name,
        what,
        make,
        may_lose=_MAY_LOSE["broker"],
        silences=True,
        events_lost=EVENTS_IN_FLIGHT,
        links=True,
        **more,
    )


def _half(rng: Random) -> tuple[str, ...]:
    return tuple(rng.sample(NODES, 2))


LINKS = (
    _cut("cut-node", "a node and the broker, both ways", lambda _, rng: Cut((rng.choice(NODES),))),
    _cut("cut-half", "two of three nodes and the broker", lambda _, rng: Cut(_half(rng))),
    _cut("cut-daemon", "daemon and broker, both ways", lambda _, __: Cut(("daemon",))),
    _cut("cut-node-up", "a node is not heard, and hears", lambda _, rng: Cut((rng.choice(NODES),), ("up",))),
    _cut("cut-node-down", "a node is heard, and hears nothing", lambda _, rng: Cut((rng.choice(NODES),), ("down",))),
    _cut("cut-daemon-up", "the daemon is not heard, and hears", lambda _, __: Cut(("daemon",), ("up",))),
    _cut("cut-daemon-down", "the daemon hears nothing, and is heard", lambda _, __: Cut(("daemon",), ("down",))),
    _cut(
        "cut-all-30s",
        "everybody and the broker, for 30 s",
        lambda _, __: Cut((*NODES, "daemon")),
        hold_s=(30.0, 30.0),
        most_runs=2,
    ),
)


def _full() -> tuple[Case, ...]:
    state = Case("full-state", "no file of a node's agent and actuator can grow", lambda _, rng: Full((*_both(rng),)))
    recorder = Case(
        "full-recorder",
        "no file of the recorder can grow; started again if it ends",
        lambda _, __: Full(("recorder",)),
        hold_s=(3.0, FRAME_S + 1.0),
        may_lose=_MAY_LOSE["recorder"],
        history=True,
        recording_gap_s=FRAME_S,
    )
    return state, recorder


def _both(rng: Random) -> tuple[str, str]:
    node = rng.choice(NODES)
    return node, f"actuator-{node}"


def _board(name: str, what: str, breaks: Callable[[FakeGpu], None], **more: Any) -> Case:
    return Case(name, what, lambda _, rng: Board(rng.choice(NODES), breaks, **more))


def _disobeyed(case: Case) -> Case:
    """The same, for long enough that it is told."""
    return replace(case, hold_s=(0.2, 3.0 * LEASE_S))


def _spike(gpu: FakeGpu) -> None:
    gpu.force_power_mw(2_000_000)


def _zero(gpu: FakeGpu) -> None:
    gpu.force_power_mw(0)


def _stuck(gpu: FakeGpu) -> None:
    gpu.force_power_mw(232_500)  # of a board at the load before the rise


def _hold_limit(gpu: FakeGpu) -> None:
    gpu.hold_limit(150.0)


def _ignore(gpu: FakeGpu) -> None:
    gpu.ignore_lock()


def _refuse(gpu: FakeGpu) -> None:
    gpu.fail_writes(NO_PERMISSION)


BOARDS = (
    _board("gpu-lost", "a board is off the bus", FakeGpu.vanish, settable=False, says=blind),
    _board("gpu-hung", "every NVML call of a board hangs", FakeGpu.hang, settable=False, says=blind),
    _disobeyed(_board("gpu-refuses", "a board refuses locks and limits", _refuse, settable=False, says=loose)),
    _board("gpu-unlocked-outside", "another tool takes a board's lock away", FakeGpu.unlock, outside=True),
    _board("limit-held-outside", "a BMC holds a board at 150 W", _hold_limit),
    _board("sensor-zero", "a board reads 0 W", _zero, says=blind),
    _board("sensor-stuck", "a board reads its power before the rise", _stuck),
    _board("sensor-spikes", "a board reads 2000 W", _spike, says=blind),
    _board("node-at-zero", "every board of a node reads 0 W", _zero, every=True, says=blind),
    _disobeyed(
        _board("node-ignores-plan", "locks succeed on a node, and change nothing", _ignore, every=True, says=loose)
    ),
    Case(
        "driver-reload",
        "a node's driver goes, with all locks, and comes back",
        lambda _, rng: Driver(rng.choice(NODES)),
    ),
)
CHANGES = (
    Case(
        "second-daemon",
        "a second daemon starts: the first must end with 76",
        lambda _, __: SecondDaemon(),
        may_lose="events in flight",
        events_lost=EVENTS_IN_FLIGHT,
    ),
    Case(
        "reload",
        "SIGHUP to daemon, agents and actuators at once",
        lambda _, __: Reload(bad=False),
        may_lose="events in flight",
        events_lost=EVENTS_IN_FLIGHT,
    ),
    Case("reload-bad", "the same, with files that are wrong", lambda _, __: Reload(bad=True)),
)
CASES = (
    *map(_kill, PARTS),
    _kill_two("kill-two", "two parts at once, every pair", 1),
    *LINKS,
    *map(_freeze, PARTS),
    *_full(),
    *BOARDS,
    *CHANGES,
    *UPGRADES,
    *HOSTILE,
    *CLOCKS,
    *STARVED,
    *DISKS,
    *NETWORK,
    *STANDBY,
)
LONG = (  # the longest first
    *LONG_NETWORK,
    _kill_two("kill-two-moments", "two parts at once, every pair at every moment", len(MOMENTS)),
    *LONG_CLOCKS,
    *(_freeze_for(part, 20.0) for part in PARTS),
)
