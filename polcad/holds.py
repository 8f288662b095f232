"""Operators' holds: what they bind, and until when.

A hold can only tighten, and it has a time to live. When that is over, or the operator releases it, it is let go as
carefully as the guard loosens: not before the row would fit without it. What it held back is not seen in the row's
power, so no policy has made room for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from polcad.model import Event, EventKind, Rule, Setpoint, Why
from polcad.ports import Held

MAX_HOLDS = 128  # a plan with more rules than a message takes would be refused by every node


class Holds:
    """The holds on one row."""

    def __init__(self) -> None:
        self._holds: list[Held] = []

    def take(self, event: Held) -> list[Event]:
        """Take, replace or release a hold; one that is repeated, as a retained message is, changes nothing."""
        if any(replace(event, t=hold.t) == hold for hold in self._holds):
            return []
        binds = event.setpoint is not None and event.until_t > event.t
        if binds and len(self._holds) >= MAX_HOLDS and not any(_supersedes(event, hold) for hold in self._holds):
            detail = f"hold {event.name} is refused: {MAX_HOLDS} holds bind already; release some first"
            return [Event(event.t, EventKind.HOLD_END, event.scope, detail)]
        self._holds = [
            replace(hold, until_t=min(hold.until_t, event.t)) if hold.name == event.name else hold
            for hold in self._holds
            if not _supersedes(event, hold)
        ]
        if not binds:
            return []
        self._holds.append(event)
        return [_told(EventKind.HOLD, event, event.t)]

    def end(self, t: float, fits: Callable[[], bool]) -> list[Event]:
        """Let go the holds whose time is over, if the row `fits` without holds."""
        ended = [hold for hold in self._holds if hold.until_t <= t]
        if not ended or not fits():
            return []
        self._holds = [hold for hold in self._holds if hold.until_t > t]
        return [_told(EventKind.HOLD_END, hold, t) for hold in ended]

    def rules(self) -> list[Rule]:
        """What the holds ask of the plan."""
        return [Rule(hold.scope, hold.setpoint, Why.OPERATOR) for hold in self._holds if hold.setpoint]


def _supersedes(new: Held, old: Held) -> bool:
    """Whether nothing is let go when `new` takes the place of `old`: one that is renewed for ever must not pile up."""
    if new.name != old.name or new.scope != old.scope or not new.setpoint or not old.setpoint or new.until_t <= new.t:
        return False
    return new.setpoint == new.setpoint.strictest(old.setpoint)


def _told(kind: EventKind, hold: Held, t: float) -> Event:
    setpoint = hold.setpoint or Setpoint()
    detail = f"hold {hold.name}: clock at most {setpoint.clock_frac:.3f}, power limit at most {setpoint.cap_frac:.3f}"
    return Event(t, kind, hold.scope, detail)
