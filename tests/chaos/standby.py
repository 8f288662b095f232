"""A row with a second daemon: the one that leads is killed, and the other takes over."""

from __future__ import annotations

from dataclasses import dataclass

from polcad.testing_nats import NatsServer
from tests.chaos.case import EVENTS_IN_FLIGHT, Case
from tests.chaos.faults import Fault
from tests.chaos.place import Place
from tests.chaos.row import POLICY, ChaosRow
from tests.waiting import until

_PAIR = ("daemon", "daemon-2")
_STARTED = "the page is at "  # in a log, with each start


class WithNats(Place):
    """This machine, with a NATS that keeps the row's lock."""

    def _build(self) -> None:
        nats = self._stack.enter_context(NatsServer(self.folder))
        self.policy = f'{POLICY}[standby]\nservers = ["{nats.url}"]\nhost = "{_PAIR[0]}"\n'


@dataclass
class Takeover(Fault):
    """kill -9 of the daemon that leads; it is started again, as the standby, once the row has recovered."""

    missing: str = ""

    def begin(self, row: ChaosRow) -> None:
        """Kill it, once the other one waits."""
        leader = _leader(row)
        waiting = _PAIR[1 - _PAIR.index(leader)]
        if waiting not in row.programs:
            _start(row, waiting)
        until(lambda: _waits(row, waiting), 20.0)
        row.programs.pop(leader).kill()
        self.missing = leader

    def end(self, row: ChaosRow) -> None:
        """Nobody does anything: the other one must take over."""

    def over(self, row: ChaosRow) -> bool:
        """The other one leads; the next run needs a standby."""
        if self.missing:
            _start(row, self.missing)
            self.missing = ""
        return True


def _leader(row: ChaosRow) -> str:
    status = row.tap.status()
    assert status is not None
    return status.host


def _start(row: ChaosRow, name: str) -> None:
    text = (row.folder / f"{_PAIR[0]}.toml").read_text()
    (row.folder / f"{name}.toml").write_text(text.replace(f'host = "{_PAIR[0]}"', f'host = "{name}"'))
    row.start("daemon", name, {})


def _waits(row: ChaosRow, name: str) -> bool:
    """Whether a program has seen, since it was started, who leads."""
    return " holds it" in (row.folder / f"{name}.log").read_text().rpartition(_STARTED)[2]


STANDBY = (
    Case(
        "standby",
        "kill -9 of the daemon that leads; a second one waits",
        lambda _, __: Takeover(),
        hold_s=(0.0, 0.0),
        may_lose="events in flight",
        events_lost=EVENTS_IN_FLIGHT,
        place=WithNats,
    ),
)
