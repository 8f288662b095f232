"""Whom to believe, told once when it begins and once when it ends, and counted.

Nodes nobody listed, messages out of order, two agents under one name, sensors that cannot be right, and nodes that do
not do what they are told.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence

import numpy as np

from polcad.fleet import Fleet
from polcad.model import Event, EventKind, Telemetry
from polcad.ports import Heard
from polcad.spec import GuardSpec
from polcad.tally import looser

_FORMER_RUNS = 8  # remembered of each node: so many agents may share its name and are found out
_ENDED_FOR_PERIODS = 6  # two agents under one name are forgotten after so many periods without the second


class Witness:
    """Watches the messages of one row's nodes. `now_s` is the controller's waking time, seconds."""

    def __init__(self, fleet: Fleet, guard: GuardSpec, counters: Counter[str]) -> None:
        self._fleet, self._guard, self._counters = fleet, guard, counters
        self._former: dict[int, deque[tuple[str, float]]] = {}  # the last runs of a node's agent, and when each ended
        self._doubted_until_s: dict[int, float] = {}
        self._blind: set[int] = set()  # nodes with a sensor that is not believed
        self._loose_since_s: dict[int, float] = {}
        self._disobedient: set[int] = set()
        self._loose: frozenset[int] = frozenset()
        self._compared = -1  # the fleet's revision that `_loose` is of

    @property
    def blind(self) -> frozenset[int]:
        """Slots of nodes with a sensor that is not believed."""
        return frozenset(self._blind)

    def admit(self, event: Heard, now_s: float) -> tuple[int | None, Sequence[Event]]:
        """The slot of the message's node, None when the message is not to be taken; and what is to be told."""
        telemetry = event.telemetry
        slot = self._fleet.slots.get(telemetry.node)
        last = None if slot is None else self._fleet.word(slot)
        if slot is None or last is None:
            return self._admit_new(event)
        if last.boot_id == telemetry.boot_id:
            if telemetry.seq > self._fleet.seq(slot):
                return slot, ()
            self._counters["out_of_order"] += 1
            return None, ()
        return slot, self._compare_runs(slot, event, last.boot_id, now_s)

    def _admit_new(self, event: Heard) -> tuple[int | None, Sequence[Event]]:
        known = event.telemetry.node in self._fleet.slots
        slot = self._fleet.slot_of(event.telemetry.node, event.rack)
        if known and slot is not None:
            return slot, self._compare_racks(slot, event)
        if slot is None:
            self._counters["refused_unlisted"] += 1
            return None, ()
        self._counters["unlisted"] += 1
        detail = "it speaks, but the inventory lacks it: its power is counted; add it or silence it"
        return slot, (Event(event.t, EventKind.UNLISTED, _scope(event.telemetry), detail),)

    def _compare_racks(self, slot: int, event: Heard) -> Sequence[Event]:
        rack = self._fleet.specs[slot].rack
        if rack == event.rack:
            return ()
        detail = f"it speaks from rack {event.rack}, the inventory has it in {rack}: rules for its rack pass it by"
        return (Event(event.t, EventKind.MISPLACED, _scope(event.telemetry), detail),)

    def _compare_runs(self, slot: int, event: Heard, last_run: str, now_s: float) -> Sequence[Event]:
        former = self._former.setdefault(slot, deque(maxlen=_FORMER_RUNS))
        patience_s = max(self._guard.stale_after_s, event.telemetry.period_s)
        hurried = len(former) == _FORMER_RUNS and now_s - former[0][1] < patience_s  # no agent starts so often
        again = event.telemetry.boot_id in {run for run, _ in former}
        former.append((last_run, now_s))
        return self._doubt(slot, event, now_s, patience_s) if again or hurried else ()

    def _doubt(self, slot: int, event: Heard, now_s: float, patience_s: float) -> list[Event]:
        """Two agents speak in turn under one name: neither is believed, and the node counts its worst case."""
        first = slot not in self._doubted_until_s
        self._fleet.doubt(slot, suspect=True)
        self._doubted_until_s[slot] = now_s + _ENDED_FOR_PERIODS * patience_s
        if not first:
            return []
        self._counters["duplicate_names"] += 1
        detail = "two agents speak under this name: rename one; until then the node counts its worst case"
        return [Event(event.t, EventKind.DUPLICATE_NAME, _scope(event.telemetry), detail)]

    def end_doubts(self, now_s: float) -> None:
        """Believe again the names that one agent alone has used for long enough."""
        for slot, until_s in list(self._doubted_until_s.items()):
            if now_s > until_s:
                del self._doubted_until_s[slot]
                self._fleet.doubt(slot, suspect=False)

    def note_sensors(self, slot: int, event: Heard, *, believed: bool) -> list[Event]:
        """Tell when a node's readings stop or start being believable."""
        if not believed:
            self._counters["sensor_faults"] += 1
        if believed is (slot not in self._blind):
            return []
        if believed:
            self._blind.discard(slot)
            return [Event(event.t, EventKind.SENSOR_OK, _scope(event.telemetry))]
        self._blind.add(slot)
        gpus = event.telemetry.reading.gpus
        shown = ", ".join("none" if power is None else f"{power:g}" for power in gpus.power_w[:8])
        note = next((fault for fault in gpus.fault if fault), "not a power that such a GPU draws")
        return [Event(event.t, EventKind.SENSOR_FAULT, _scope(event.telemetry), f"power_w {shown}: {note}"[:512])]

    def compare_obedience(self, t: float, now_s: float) -> list[Event]:
        """Tell who has had the time to obey the plan and does not, and who does again."""
        fleet = self._fleet
        if self._compared != fleet.revision:
            self._compared = fleet.revision
            self._loose = frozenset(np.flatnonzero(looser(fleet).any(axis=1)).tolist())
        loose = self._loose
        if not loose and not self._disobedient:
            self._loose_since_s = {}
            return []
        self._loose_since_s = {slot: self._loose_since_s.get(slot, now_s) for slot in loose}
        patience_s = self._guard.latency_s + self._guard.stale_after_s
        late = {slot for slot, since_s in self._loose_since_s.items() if now_s - since_s > patience_s}
        silent = set(np.flatnonzero(fleet.stale).tolist())  # nobody knows what they do
        fresh, mended = sorted(late - self._disobedient), sorted(self._disobedient - loose - silent)
        self._counters["not_obeyed"] += len(fresh)
        self._disobedient = (self._disobedient | late).difference(mended)
        names = [spec.name for spec in fleet.specs]
        return [
            *(Event(t, EventKind.NOT_OBEYED, f"node/{names[slot]}", self._excuse(slot)) for slot in fresh),
            *(Event(t, EventKind.OBEYED, f"node/{names[slot]}") for slot in mended),
        ]

    def _excuse(self, slot: int) -> str:
        word = self._fleet.word(slot)
        details = [detail for detail in (word.in_force.detail if word and word.in_force else ()) if detail]
        return details[0] if details else "runs looser than its plan, and gives no reason"


def _scope(telemetry: Telemetry) -> str:
    return f"node/{telemetry.node}"
