"""Hostile cases: a thief in the secured row, with a node's certificate or the daemon's, while the row is driven."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from polcad.access import Inventory
from polcad.pki import make_plan_key
from polcad.spec import NodeSpec, RowSpec
from tests.chaos.attacker import ATTACKS
from tests.chaos.case import EVENTS_IN_FLIGHT, Case
from tests.chaos.faults import Fault
from tests.chaos.row import BUDGET_W, NODES, ChaosRow
from tests.secured import Secured, secure


def secured(folder: Path, *, nats: bool) -> Secured:
    """Certificates, access list and plan key of the row that is broken."""
    nodes = tuple(NodeSpec(name, "r1", gpus=2, gpu_max_w=400.0) for name in NODES)
    made = secure(folder, [Inventory("site", RowSpec("row", BUDGET_W, nodes=nodes))], cluster=nats)
    make_plan_key(folder / "pki", "row")
    return made


@dataclass
class Hostile(Fault):
    """Somebody who has stolen a node's certificate does his worst."""

    attack: str
    node: str

    def begin(self, row: ChaosRow) -> None:
        """Let him in."""
        where = (self.attack, str(row.broker.port), str(row.pki), self.node)
        command = [sys.executable, "-m", "tests.chaos.attacker", *where]
        self._thief = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])
        row.stack.callback(self._thief.kill)
        assert self._thief.stdout is not None
        assert self._thief.stdout.readline() == b"go\n", f"the attacker {self.attack} did not begin"

    def end(self, row: ChaosRow) -> None:
        """Catch him; he must have been at it."""
        del row
        assert self._thief.poll() is None, f"the attacker {self.attack} ended by itself"
        self._thief.kill()
        self._thief.communicate()


def _case(name: str, what: str, *attacks: str, **more: Any) -> Case:
    def make(run: int, rng: Random) -> Fault:
        return Hostile(attacks[run % len(attacks)], rng.choice(NODES))

    more = {"may_lose": "events that come a second late", **more}
    return Case(name, what, make, secured=True, events_lost=EVENTS_IN_FLIGHT, **more)


HOSTILE = (
    _case(
        "hostile-flood",
        "a node's certificate floods: 10 000 readings a second, or 10 MB/s",
        "flood",
        "big",
        hold_s=(1.0, 3.0),
        may_lose="telemetry that the flood pushes out; events that come a second late",
        silences=True,
    ),
    _case("hostile-forged", "it says what it may not, plants what it may, leaves wills", "foreign", "planted", "wills"),
    _case("hostile-garbage", "it speaks no MQTT, and opens links without end", "garbage"),
    _case("hostile-replay", "the daemon's certificate, without its key, replays and forges plans", "replays"),
    _case(
        "hostile-nats",
        "all of these, where the broker is three NATS nodes",
        *ATTACKS,
        hold_s=(1.0, 3.0),
        may_lose="telemetry that the flood pushes out; events that come a second late",
        silences=True,
        nats=True,
    ),
)
