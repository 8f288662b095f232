"""Starved: programs that get little of the processor, and a daemon whose loop is blocked by its own policy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from tempfile import mkdtemp

from tests.chaos.case import EVENTS_IN_FLIGHT, Case
from tests.chaos.faults import Fault
from tests.chaos.place import Place, as_root
from tests.chaos.row import NODES, ChaosRow
from tests.waiting import until

_ROOT = Path("/sys/fs/cgroup")
_PERIOD_US = 100_000
_POLICY = "tests.chaos.blocking:Blocking"
BLOCKED_S = 3.0


class Group:
    """A control group that gets a share of one processor: of version 1 or 2, whichever this kernel has mounted."""

    def __init__(self, share: float) -> None:
        as_root("control groups")
        quota_us = int(share * _PERIOD_US)
        first = _ROOT / "cpu"
        self._root = first if first.is_dir() else _ROOT
        self._folder = Path(mkdtemp(prefix="polcad-chaos-", dir=self._root))
        if self._root == first:
            (self._folder / "cpu.cfs_quota_us").write_text(str(quota_us))
        else:
            (self._folder / "cpu.max").write_text(f"{quota_us} {_PERIOD_US}")

    def take(self, pid: int) -> None:
        """Put a process in, with all its threads."""
        (self._folder / "cgroup.procs").write_text(str(pid))

    @property
    def throttled(self) -> int:
        """How many periods ended with somebody waiting for the next."""
        stat = (self._folder / "cpu.stat").read_text().split()
        return int(stat[stat.index("nr_throttled") + 1])

    def end(self) -> None:
        """Let everybody out, and remove it."""
        for pid in (self._folder / "cgroup.procs").read_text().split():
            (self._root / "cgroup.procs").write_text(pid)
        until(lambda: not (self._folder / "cgroup.procs").read_text(), 5.0)
        self._folder.rmdir()


@dataclass
class Starve(Fault):
    """These programs get a share of one processor between them."""

    parts: tuple[str, ...]
    share: float
    _group: Group | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        """Who hardly runs sets hardly anything, and hears plans late."""
        self.unset = frozenset(part.removeprefix("actuator-") for part in self.parts if part.startswith("actuator-"))
        self.deaf = frozenset(self.parts)

    def begin(self, row: ChaosRow) -> None:
        """Starve them."""
        self._group = Group(self.share)
        row.stack.callback(self.end, row)  # where the run does not come to its end
        for part in self.parts:
            self._group.take(row.programs[part].process.pid)

    def amiss(self, row: ChaosRow) -> list[str]:
        """They must have wanted more than they got."""
        del row
        assert self._group is not None
        return [] if self._group.throttled > 2 else [f"{', '.join(self.parts)} had enough of the processor"]

    def end(self, row: ChaosRow) -> None:
        """Feed them."""
        del row
        if self._group is not None:
            self._group.end()
            self._group = None


class Blockable(Place):
    """The daemon's policy is POLCA, which blocks the loop for some seconds where it is told to."""

    policy = '[policy]\nname = "blocking"\nt1_frac = 0.90\nt2_frac = 0.97\n'

    def _build(self) -> None:
        installed = self.folder / "blocking-1.dist-info"
        installed.mkdir()
        (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: blocking\nVersion: 1\n")
        (installed / "entry_points.txt").write_text(f"[polcad.policies]\nblocking = {_POLICY}\n")

    @property
    def order(self) -> Path:
        """While this file is there, the policy blocks once more, for as many seconds as it says."""
        return self.folder / "block"

    def env(self, part: str) -> Mapping[str, str]:
        """Where the policy is found, and its order."""
        if part != "daemon":
            return {}
        return {"PYTHONPATH": f"{self.folder}:{Path(__file__).parents[2]}", "POLCAD_CHAOS_BLOCK": str(self.order)}


class Block(Fault):
    """The daemon's event loop stands still inside its policy."""

    def begin(self, row: ChaosRow) -> None:
        """Order it."""
        assert isinstance(row.place, Blockable)
        fresh = row.place.order.with_suffix(".new")
        fresh.write_text(str(BLOCKED_S))
        fresh.replace(row.place.order)

    def end(self, row: ChaosRow) -> None:
        """It ends by itself; the order must have been taken."""
        assert isinstance(row.place, Blockable)
        assert not row.place.order.exists(), "the policy was never asked"


def _starve(run: int, rng: Random) -> Fault:
    node = rng.choice(NODES)
    parts = (("daemon",), (node,), (node, f"actuator-{node}"), ("daemon", *NODES))[run % 4]
    return Starve(parts, share=(0.01, 0.02)[run // 4 % 2])


STARVED = (
    Case(
        "starved",
        "daemon, agent, a node, or daemon and agents share 1 or 2 % of one processor",
        _starve,
        hold_s=(1.0, 3.0),
        may_lose="what a starved program is too slow to read",
        silences=True,
        events_lost=EVENTS_IN_FLIGHT,
    ),
    Case(
        "blocked-loop",
        f"the daemon's policy blocks its loop for {BLOCKED_S:g} s",
        lambda _, __: Block(),
        hold_s=(BLOCKED_S, BLOCKED_S),
        place=Blockable,
    ),
)
