"""What crossed the wire, as the judge hears it: plans with their time of arrival, each node's last word, and gaps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from polcad.errors import WireError
from polcad.model import Event, Placement, Plan, Priority, Setpoint, Telemetry
from polcad.signing import verify
from polcad.wire import decode
from tests.live_row import Wiretap

RACK = "r1"


@dataclass(frozen=True)
class Heard:
    """A plan and its monotonic time of arrival."""

    t: float
    plan: Plan

    def setpoint(self, node: str, priority: str) -> Setpoint:
        """What it asks of a node's GPUs."""
        return _setpoint(self.plan, node, priority)

    def fallen(self, node: str, priority: str) -> Setpoint:
        """What a node that followed it takes when nothing newer comes."""
        return self.setpoint(node, priority).strictest(self.plan.fail_safe)


@lru_cache(4096)
def _setpoint(plan: Plan, node: str, priority: str) -> Setpoint:
    return plan.setpoint(RACK, node, "", Placement(Priority(priority)))


class Ear:
    """Understands what a wiretap hears, each message once."""

    def __init__(self, tap: Wiretap, keys: Sequence[bytes] = ()) -> None:
        """Where there are `keys`, plans that none of them signed are no plans."""
        self.plans: list[Heard] = []
        self.last: dict[str, tuple[float, Telemetry]] = {}
        self.told: set[tuple[str, int, str]] = set()  # telemetry: node, sequence, boot
        self.lost: Counter[str] = Counter()  # telemetry by node, of runs that went on
        self.events: set[Event] = set()
        self._tap, self._next, self._keys = tap, 0, keys

    def listen(self) -> Ear:
        """Take in what has arrived since."""
        heard = self._tap.heard
        while self._next < len(heard):
            received = heard[self._next]
            self._next += 1
            try:
                noun = decode(received.message)[1]
                if isinstance(noun, Plan) and self._keys:
                    verify(received.message.topic, received.message.payload, self._keys)
            except WireError:
                continue
            if not received.message.retain:
                self._take(received.t, noun)
        return self

    def _take(self, t: float, noun: object) -> None:
        if isinstance(noun, Plan) and not noun.shadow:
            if not self.plans or (noun.epoch, noun.seq) > (self.plans[-1].plan.epoch, self.plans[-1].plan.seq):
                self.plans.append(Heard(t, noun))  # of what is older, late or replayed, nobody takes any
        elif isinstance(noun, Telemetry):
            before = self.last.get(noun.node)
            if before is not None and before[1].boot_id == noun.boot_id:
                self.lost[noun.node] += max(0, noun.seq - before[1].seq - 1)
            self.last[noun.node] = (t, noun)
            self.told.add((noun.node, noun.seq, noun.boot_id))
        elif isinstance(noun, Event):
            self.events.add(noun)
