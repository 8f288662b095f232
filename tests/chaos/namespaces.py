"""A real network that fails: each node and the daemon in a network namespace of its own, the broker on a bridge.

What is cut is silent, as it is where a switch dies: no program is told anything, and TCP finds out by itself. The
cables to the bridge are ours (`tests.chaos.cables`): they lose every frame of a way that is cut, a share of them, or
let them come late.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from tests.chaos.cables import Cable, Carrier, Fate, at_once, late, lossy, lost, tap
from tests.chaos.case import EVENTS_IN_FLIGHT, Case
from tests.chaos.faults import Fault, Tells, silent
from tests.chaos.place import LOOPBACK, Place, as_root
from tests.chaos.row import NODES, ChaosRow

PARTS = (*NODES, "daemon")
_NETS = 250  # 10.213.0.0/24 and so on: rows that stand at the same time


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], check=False, capture_output=True)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(arguments)}: {done.stderr.decode().strip()}")


class Network(Place):
    """A bridge, and a namespace for each node and the daemon. Actuators and the recorder stay outside."""

    def _build(self) -> None:
        as_root("network namespaces")
        self._net = self._bridge()
        listeners = (f"listener {{port}} {address}" for address in (LOOPBACK, self.host("daemon")))
        self.broker_conf = (*listeners, "allow_anonymous true", "set_tcp_nodelay true")
        self.cables = {part: self._join(part) for part in PARTS}
        self._stack.enter_context(Carrier(self.cables.values()))

    def _bridge(self) -> int:
        """Make the first bridge that nobody has; its number."""
        for number in range(_NETS):
            with contextlib.suppress(RuntimeError):  # another row has it
                _ip("link", "add", f"pc{number}", "type", "bridge")
                break
        else:
            raise RuntimeError("no bridge can be made: look what `ip link add pc0 type bridge` says")
        self._stack.callback(_ip, "link", "del", f"pc{number}")
        _ip("addr", "add", f"10.213.{number}.1/24", "dev", f"pc{number}")
        _ip("link", "set", f"pc{number}", "up")
        return number

    def _join(self, part: str) -> Cable:
        """Put a part into a namespace, and lay its cable to the bridge."""
        name, port = self.name(part), f"pc{self._net}p{PARTS.index(part)}"
        here, there = (self._stack.enter_context(tap(device)) for device in (f"{port}h", port))
        _ip("netns", "add", name)
        self._stack.callback(_ip, "netns", "del", name)
        _ip("link", "set", f"{port}h", "netns", name, "name", "eth0")
        _ip("link", "set", port, "master", f"pc{self._net}", "up")
        _ip("-n", name, "addr", "add", f"{self._address(part)}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            _ip("-n", name, "link", "set", device, "up")
        return Cable.between(here, there)

    def name(self, part: str) -> str:
        """A part's namespace."""
        return f"pc{self._net}-{part}"

    def _address(self, part: str) -> str:
        return f"10.213.{self._net}.{2 + PARTS.index(part)}"

    def host(self, part: str) -> str:
        """The bridge, from within a namespace."""
        return f"10.213.{self._net}.1" if part in PARTS else LOOPBACK

    def before(self, part: str) -> Sequence[str]:
        """Enter the namespace."""
        return ("nsenter", f"--net=/run/netns/{self.name(part)}") if part in PARTS else ()


@dataclass
class BadNet(Fault):
    """The frames between these parts and the broker meet this fate, these ways."""

    parts: tuple[str, ...]
    ways: tuple[str, ...] = ("up", "down")
    fate: Fate = lost

    def begin(self, row: ChaosRow) -> None:
        """Spoil their cables."""
        self._meet(row, self.fate)

    def end(self, row: ChaosRow) -> None:
        """Mend them."""
        self._meet(row, at_once)

    def _meet(self, row: ChaosRow, fate: Fate) -> None:
        assert isinstance(row.place, Network)
        for part in self.parts:
            row.place.cables[part].meet(fate, self.ways)


@dataclass
class CutNet(BadNet):
    """What these parts and the broker say to each other is lost, these ways."""

    def __post_init__(self) -> None:
        """Who is cut off from the broker hears nothing, nor does who is not heard for long: the broker hangs up."""
        self.deaf = frozenset(self.parts)

    def tells(self) -> Sequence[Tells]:
        """Nodes that are not heard are told to be silent, while the daemon hears the others."""
        return [silent(part) for part in self.parts if "up" in self.ways and "daemon" not in self.parts]


def _case(name: str, what: str, make: Any, **more: Any) -> Case:
    return Case(
        name,
        what,
        make,
        may_lose="what is said until all are connected again",
        silences=True,
        events_lost=EVENTS_IN_FLIGHT,
        place=Network,
        **more,
    )


def _bad(name: str, what: str, fate: Callable[[Random], Fate]) -> Case:
    """A bad network: everybody's, the daemon's, or a node's. TCP makes up for it, so nothing may be lost."""

    def make(run: int, rng: Random) -> Fault:
        parts = (PARTS, ("daemon",), (rng.choice(NODES),))[run % 3]
        return BadNet(parts, fate=fate(Random(rng.random())))  # noqa: S311  # of the thread that carries the frames

    return Case(name, f"{what}, of all, the daemon or a node", make, hold_s=(1.0, 5.0), place=Network)


def _nodes(run: int, rng: Random) -> Fault:
    return CutNet(tuple(rng.sample(NODES, 1 + run % 2)))


def _one_way(run: int, rng: Random) -> Fault:
    return CutNet((("daemon", rng.choice(NODES))[run % 2],), (("up",), ("down",))[run // 2 % 2])


def _anybody(run: int, rng: Random) -> Fault:
    half = _half(rng)
    return (CutNet(half), CutNet(("daemon",)), CutNet(half[:1], ("up",)), CutNet(("daemon",), ("down",)))[run % 4]


def _half(rng: Random) -> tuple[str, ...]:
    return tuple(rng.sample(NODES, 2))


NETWORK = (
    _case("net-nodes", "one node's network, or two of three", _nodes),
    _case("net-daemon", "the daemon's network", lambda _, __: CutNet(("daemon",))),
    _case("net-one-way", "one way of the daemon's or a node's network", _one_way),
    _bad("net-late", "each frame comes 200 ± 100 ms later, each way", late),
    _bad("net-lossy-1", "1 of 100 frames is lost, each way", lambda rng: lossy(rng, 0.01)),
    _bad("net-lossy-10", "1 of 10 frames is lost, each way", lambda rng: lossy(rng, 0.1)),
)
TEN_MINUTES: Mapping[str, Any] = {"hold_s": (600.0, 600.0), "most_runs": 4}
LONG_NETWORK = (
    _case(
        "net-10min-half", "two of three nodes' networks, for 10 min", lambda _, rng: CutNet(_half(rng)), **TEN_MINUTES
    ),
    _case("net-10min-daemon", "the daemon's network, for 10 min", lambda _, __: CutNet(("daemon",)), **TEN_MINUTES),
    _case("net-10min-one-way", "one way of the daemon's or a node's network, for 10 min", _one_way, **TEN_MINUTES),
    _case("net-30s", "half the nodes, the daemon, or one way, for 30 s", _anybody, hold_s=(30.0, 30.0), most_runs=8),
)
