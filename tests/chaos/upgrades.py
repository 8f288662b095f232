"""Upgrades: programs that are restarted in order while the row is driven, into versions that speak otherwise."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random

from polcad.model import Plan
from tests.chaos.case import EVENTS_IN_FLIGHT, Case
from tests.chaos.faults import Fault
from tests.chaos.row import NODES, ChaosRow
from tests.waiting import until

VERSIONS = ("older", "", "newer")
_BACK_WITHIN_S = 15.0


@dataclass
class Upgrade(Fault):
    """Ends parts in order, one after the other, and starts each as the version named, "" for this one.

    A node is its agent and its actuator. The next part waits until the one before it speaks again.
    """

    versions: Mapping[str, str]
    codes: list[int] = field(default_factory=list, init=False)  # that the old programs ended with

    def begin(self, row: ChaosRow) -> None:
        """Begin with the first; the rest follows while the row is driven."""
        self._thread = threading.Thread(target=self._all, args=(row,), name="upgrade")
        self._thread.start()

    def end(self, row: ChaosRow) -> None:
        """Wait for the last."""
        del row
        self._thread.join()

    def over(self, row: ChaosRow) -> bool:
        """Every program ended in order."""
        del row
        return set(self.codes) == {0}

    def _all(self, row: ChaosRow) -> None:
        for part, version in self.versions.items():
            since_s = time.monotonic()
            self._restart(row, (f"actuator-{part}", part) if part in NODES else (part,), version)
            until(lambda part=part, since_s=since_s: _speaks(row, part, since_s), _BACK_WITHIN_S)  # type: ignore[misc]  # mypy knows no default here

    def _restart(self, row: ChaosRow, programs: tuple[str, ...], version: str) -> None:
        row.broken.update(programs)
        for name in programs:
            self.codes.append(row.programs[name].stop())
            row.versions[name] = version
            row.start_part(name)


def _speaks(row: ChaosRow, part: str, since_s: float) -> bool:
    if part in NODES:
        return any(said.node == part and said.seq == 1 for said in row.tap.nouns("telemetry", since_s))
    plans: list[Plan] = row.tap.nouns("plan", since_s)
    return any(plan.seq == 1 for plan in plans)


def _daemon(run: int, _: Random) -> Fault:
    return Upgrade({"daemon": VERSIONS[(run + 1) % len(VERSIONS)]})


def _nodes(run: int, rng: Random) -> Fault:
    return Upgrade(dict.fromkeys(rng.sample(NODES, len(NODES)), VERSIONS[(run + 1) % len(VERSIONS)]))


def _mixed(_: int, rng: Random) -> Fault:
    nodes = zip(NODES, rng.sample(VERSIONS, len(VERSIONS)), strict=True)
    return Upgrade(dict(rng.sample([("daemon", rng.choice(("older", "newer"))), *nodes], 1 + len(NODES))))


UPGRADES = (
    Case(
        "upgrade-daemon",
        "the daemon is restarted as an older or newer version",
        _daemon,
        may_lose="events in flight",
        events_lost=EVENTS_IN_FLIGHT,
    ),
    Case(
        "upgrade-nodes",
        "all nodes are, one after the other",
        _nodes,
    ),
    Case(
        "mixed-versions",
        "daemon and nodes are, each as another version",
        _mixed,
        may_lose="events in flight",
        events_lost=EVENTS_IN_FLIGHT,
    ),
)
