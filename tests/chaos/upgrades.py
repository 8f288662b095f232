"""Upgrades: programs that are restarted in order while the row is driven, into versions that speak otherwise."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from random import Random

from polcad.model import LeaseState, Plan, Telemetry
from tests.chaos.case import EVENTS_IN_FLIGHT, Case
from tests.chaos.faults import Fault
from tests.chaos.row import NODES, ChaosRow
from tests.waiting import until

VERSIONS = ("older", "", "newer")
_BACK_WITHIN_S = 60.0  # on a machine that does much else


@dataclass
class Upgrade(Fault):
    """Ends parts in order, one after the other, and starts each as the version named, "" for this one.

    A node is its agent and its actuator. The next part waits until the one before it is back.
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
        """Every program ended in order, and every part is back."""
        del row
        return set(self.codes) == {0} and self.away.keys() == self.versions.keys()

    def _all(self, row: ChaosRow) -> None:
        for part, version in self.versions.items():
            since_s, before = time.monotonic(), row.tap.telemetry(part)
            self._restart(row, (f"actuator-{part}", part) if part in NODES else (part,), version)
            until(partial(_is_back, row, part, since_s, before), _BACK_WITHIN_S)
            self.away[part] = since_s, time.monotonic()

    def _restart(self, row: ChaosRow, programs: tuple[str, ...], version: str) -> None:
        row.broken.update(programs)
        for name in programs:
            self.codes.append(row.programs[name].stop())
            row.versions[name] = version
            row.start_part(name)


def _is_back(row: ChaosRow, part: str, since_s: float, before: Telemetry | None) -> bool:
    """Whether a node follows a plan, by its new agent's word, or a new daemon plans."""
    if part not in NODES:
        plans: list[Plan] = row.tap.nouns("plan", since_s)
        return any(plan.seq == 1 for plan in plans)
    said = row.tap.telemetry(part)
    anew = said is not None and before is not None and said.boot_id != before.boot_id
    return bool(anew and said and said.plan and said.plan.lease is LeaseState.HELD)


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
