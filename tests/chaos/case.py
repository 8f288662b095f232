"""What a case is: one way to break a row, and what may be lost by it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from tests.chaos.faults import Fault
from tests.chaos.place import Place
from tests.chaos.row import GUARD

LEASE_S = GUARD["lease_s"]
EVENTS_IN_FLIGHT = 20  # that a killed daemon or broker may take with it, or that pass while the judge reconnects
TELEMETRY_IN_FLIGHT = 5  # messages that a node that wakes up says before it sees that the broker has hung up


@dataclass(frozen=True, slots=True)
class Case:
    """One way to break a row. `make` gives the fault of a run, by the run's number and its random numbers."""

    name: str
    what: str  # breaks
    make: Callable[[int, Random], Fault]
    hold_s: tuple[float, float] = (0.2, 2.0 * LEASE_S)  # for how long it stays broken
    may_lose: str = "nothing"  # in words, what the bounds below allow
    silences: bool = False  # messages may be lost while it is broken, and until everybody is connected again
    telemetry_lost: int = 0  # at most, a run, of a case that does not silence
    events_lost: int = 0  # at most, a run
    history: bool = False  # the recording and the database are compared with what was said
    recording_gap_s: float | None = None  # of a run's messages, beside those while it was broken; None: nothing
    database_gap_s: float | None = None
    runs: int = 0  # at least
    most_runs: int = 1000
    secured: bool = False  # the broker asks for certificates, and plans are signed
    nats: bool = False  # that broker is a cluster of NATS
    links: bool = False  # programs reach the broker by links that can be cut
    place: type[Place] = Place  # where the programs run
