"""What breaks, how it breaks, and how it is mended."""

from __future__ import annotations

import resource
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from polcad.model import EventKind
from tests.chaos.row import NODES, ChaosRow
from tests.fake_nvml.control import FakeGpu, FakeNode
from tests.live_row import Program

OUTRANKED = 76  # what a daemon ends with when a newer one has its row
BAD = "[guard]\ntick_s = -1\nlaese_s = 3\n"
MOMENTS = ("calm", "plan", "brake", "settled")  # at which a row breaks; each run has the next
_STALE_S = 1.2  # in which a silent node is told to be: stale_after_s, a tick, and as much for a busy machine
_FAULT_S = 0.7
_LOOSE_S = 1.8  # latency_s, stale_after_s, the way to the first plan, and as much


@dataclass(frozen=True, slots=True)
class Tells:
    """An event that must be told of a fault that lasts `due_s` and began at one of these moments, and its end after."""

    kind: EventKind
    end: EventKind
    scope: str
    due_s: float
    moments: tuple[str, ...] = MOMENTS


def silent(node: str) -> Tells:
    """Of a node that is not heard."""
    return Tells(EventKind.STALE, EventKind.FRESH, f"node/{node}", _STALE_S)


def blind(node: str) -> Tells:
    """Of a node one of whose readings is not to be believed."""
    return Tells(EventKind.SENSOR_FAULT, EventKind.SENSOR_OK, f"node/{node}", _FAULT_S)


def loose(node: str) -> Tells:
    """Of a node that was free before it had to be locked, and cannot be."""
    return Tells(EventKind.NOT_OBEYED, EventKind.OBEYED, f"node/{node}", _LOOSE_S, ("calm",))


@dataclass
class Fault:
    """Breaks a row, and mends it. Names are of nodes, or UUIDs of single boards."""

    unset: frozenset[str] = field(default=frozenset(), init=False)  # nobody can set these: others make up for them
    deaf: frozenset[str] = field(default=frozenset(), init=False)  # no plan may reach these
    meddled: frozenset[str] = field(default=frozenset(), init=False)  # somebody outside loosens these
    away: dict[str, tuple[float, float]] = field(default_factory=dict, init=False)  # by node, when nobody could set it

    def begin(self, row: ChaosRow) -> None:
        """Break it."""
        raise NotImplementedError

    def end(self, row: ChaosRow) -> None:
        """Mend it."""
        raise NotImplementedError

    def over(self, row: ChaosRow) -> bool:
        """What else belongs to a row that has recovered from it."""
        del row
        return True

    def tells(self) -> Sequence[Tells]:
        """The events that it must come to."""
        return ()

    def amiss(self, row: ChaosRow) -> list[str]:
        """What else should be so by now, while it is broken, and is not."""
        del row
        return []


@dataclass
class _OfParts(Fault):
    """Breaks parts."""

    parts: tuple[str, ...]

    def __post_init__(self) -> None:
        """A node without actuator cannot be set; one without agent, or without broker, hears no plan."""
        setters = (part for part in self.parts if part.startswith("actuator-"))
        self.unset = frozenset(part.removeprefix("actuator-") for part in setters)
        self.deaf = frozenset(NODES if "broker" in self.parts else self.parts)

    def tells(self) -> Sequence[Tells]:
        """A node whose agent alone is gone is told to be silent."""
        return [silent(part) for part in self.parts if part in NODES and len(self.parts) == 1]


class Kill(_OfParts):
    """kill -9, then started again, in the order named."""

    def begin(self, row: ChaosRow) -> None:
        """Kill all at once."""
        for part in self.parts:
            row.kill(part)

    def end(self, row: ChaosRow) -> None:
        """Start them again."""
        for part in self.parts:
            row.start_part(part)


class Freeze(_OfParts):
    """SIGSTOP, then SIGCONT: alive, connected, and silent."""

    def begin(self, row: ChaosRow) -> None:
        """Stop them."""
        for part in self.parts:
            row.freeze(part)

    def end(self, row: ChaosRow) -> None:
        """Let them go on."""
        for part in self.parts:
            row.freeze(part, signal.SIGCONT)


@dataclass
class Cut(Fault):
    """Nothing passes on the links of these parts, in these directions; TCP delivers what waited once it is mended."""

    parts: tuple[str, ...]
    ways: tuple[str, ...] = ("up", "down")

    def __post_init__(self) -> None:
        """Who is cut off from the broker hears nothing."""
        self.deaf = frozenset(self.parts if "down" in self.ways else ())

    def tells(self) -> Sequence[Tells]:
        """Nodes that are not heard are told to be silent, while the daemon hears the others."""
        return [silent(part) for part in self.parts if "up" in self.ways and "daemon" not in self.parts]

    def begin(self, row: ChaosRow) -> None:
        """Cut them."""
        for part in self.parts:
            row.links[part].cut(*self.ways)

    def end(self, row: ChaosRow) -> None:
        """Mend them."""
        for part in self.parts:
            row.links[part].mend()


@dataclass
class Full(Fault):
    """No file of these programs can grow, as on a full disk; one that ends by it is started again."""

    parts: tuple[str, ...]

    def begin(self, row: ChaosRow) -> None:
        """Fill it."""
        self._limit(row, 0)

    def end(self, row: ChaosRow) -> None:
        """Make room."""
        self._limit(row, resource.RLIM_INFINITY)
        for part in self.parts:
            if row.programs[part].process.poll() is not None:
                row.start_part(part)

    def _limit(self, row: ChaosRow, most_bytes: int) -> None:
        for part in self.parts:
            process = row.programs[part].process
            if process.poll() is None:
                resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (most_bytes, resource.RLIM_INFINITY))


@dataclass
class Board(Fault):
    """The first board of a node fails, or all of them."""

    node: str
    breaks: Callable[[FakeGpu], None]
    every: bool = False
    settable: bool = True
    outside: bool = False
    says: Callable[[str], Tells] | None = None

    def tells(self) -> Sequence[Tells]:
        """What is told of its node."""
        return [self.says(self.node)] if self.says else []

    def begin(self, row: ChaosRow) -> None:
        """Break it."""
        for gpu in self._gpus(row):
            self.breaks(gpu)

    def end(self, row: ChaosRow) -> None:
        """All is well again."""
        for gpu in self._gpus(row):
            gpu.well()

    def _gpus(self, row: ChaosRow) -> list[FakeGpu]:
        gpus = row.boards[self.node].gpus[: None if self.every else 1]
        uuids = frozenset(gpu.uuid for gpu in gpus)
        self.unset, self.meddled = frozenset() if self.settable else uuids, uuids if self.outside else frozenset()
        return gpus


@dataclass
class Driver(Fault):
    """A node's driver goes, with every lock, and comes back."""

    node: str

    def __post_init__(self) -> None:
        """While it is away nothing can be set."""
        self.unset = frozenset({self.node})

    def tells(self) -> Sequence[Tells]:
        """Its boards cannot be read."""
        return [blind(self.node)]

    def begin(self, row: ChaosRow) -> None:
        """Unload it."""
        self._of(row).unload_driver()

    def end(self, row: ChaosRow) -> None:
        """Load it."""
        self._of(row).load_driver()

    def _of(self, row: ChaosRow) -> FakeNode:
        return row.boards[self.node]


@dataclass
class SecondDaemon(Fault):
    """A second daemon starts for the same row: the newer has it, and the older ends and says so."""

    older: list[Program] = field(default_factory=list, init=False)

    def begin(self, row: ChaosRow) -> None:
        """Start it."""
        self.older.append(row.programs["daemon"])
        row.start_part("daemon")

    def end(self, row: ChaosRow) -> None:
        """Nobody does anything: they must settle it between them."""

    def over(self, row: ChaosRow) -> bool:
        """The older one has ended."""
        del row
        return all(program.process.poll() == OUTRANKED for program in self.older)


@dataclass
class Reload(Fault):
    """Daemon, agents and actuators are told to read their configuration again; `bad`: it is none that could serve."""

    bad: bool

    def begin(self, row: ChaosRow) -> None:
        """Tell them."""
        parts = [part for part in row.programs if part != "recorder"]
        if self.bad:
            for part in parts:
                (row.folder / f"{part}.toml").write_text(BAD)
        for part in parts:
            row.programs[part].process.send_signal(signal.SIGHUP)

    def end(self, row: ChaosRow) -> None:
        """Put the good files back."""
        row.write_config()
