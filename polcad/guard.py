"""The guard of one domain: it owns safety, above every policy.

- Above the brake threshold everything brakes, at once and without debate.
- What a policy wants tighter is tightened at once; what it wants looser waits: for a dwell since the last change, for
  every node's data to be fresh, and for the power *projected* from uncapped demand to fit under the threshold that
  would make the policy tighten again. So a lock that sheds more than a policy's gap does not flutter.
"""

from __future__ import annotations

from collections.abc import Mapping

from polcad.curve import dynamic_frac
from polcad.model import FREE, EventKind, Priority, Role, Rule, Setpoint, Why
from polcad.ports import ClassView, Desire, Policy, View
from polcad.spec import GuardSpec

Class = tuple[Priority, Role]


class Domain:
    """A row or rack with a budget, and what it holds."""

    def __init__(self, scope: str, budget_w: float, guard: GuardSpec, policy: Policy) -> None:
        self.scope, self.budget_w = scope, budget_w
        self.held: dict[Class, Setpoint] = {}
        self.why: dict[Class, Why] = {}
        self.since_t = float("-inf")
        self.waiting = ""
        self._guard, self._policy = guard, policy
        self._marks_w = sorted(budget_w * frac for frac in (*policy.thresholds.values(), guard.brake_frac))

    @property
    def braked(self) -> bool:
        """Whether the brake is on."""
        return Why.BRAKE in self.why.values()

    def alarm_w(self, power_w: float) -> float:
        """The next power above `power_w` that is worth deciding at once."""
        return next((mark for mark in self._marks_w if mark > power_w), max(power_w, self._marks_w[-1]))

    def resume(self, t: float, reported: Mapping[Class, Setpoint]) -> None:
        """Hold what nodes report, as a daemon does that has just started."""
        self._hold(t, dict(reported), dict.fromkeys(reported, Why.RESUME))

    def decide(self, view: View, stale: str) -> EventKind | None:
        """Take the domain to where it should be; what changed, if anything.

        `stale` names the nodes whose data are too old to loosen by; "" when there are none.
        """
        self.waiting = ""
        if view.used_frac > self._guard.brake_frac:
            braked = self.braked
            self._hold(view.t, dict.fromkeys(view.classes, self._guard.brake), dict.fromkeys(view.classes, Why.BRAKE))
            return None if braked else EventKind.BRAKE
        desire = self._policy.desired(view)
        tighter = {name: held.strictest(desire.setpoints[name]) for name, held in view.held.items()}
        if tighter != dict(view.held):
            self._hold(view.t, tighter, desire.why)
            return EventKind.TIGHTEN
        if all(desire.setpoints[name].covers(held) for name, held in view.held.items()):
            return None
        return self._loosen(view, desire, stale)

    def _loosen(self, view: View, desire: Desire, stale: str) -> EventKind | None:
        self.waiting = stale or self._too_soon(view) or self._too_much(view, desire)
        if self.waiting:
            return None
        kind = EventKind.BRAKE_RELEASE if self.braked else EventKind.LOOSEN
        self._hold(view.t, dict(desire.setpoints), desire.why)
        return kind

    def _too_soon(self, view: View) -> str:
        dwell_s = self._guard.brake_dwell_s if self.braked else self._guard.dwell_s
        held_s = view.t - view.since_t
        return f"changed {held_s:.0f} s ago, stays for {dwell_s:.0f} s" if held_s < dwell_s else ""

    def _too_much(self, view: View, desire: Desire) -> str:
        ceiling_frac = min(desire.ceiling_frac, self._guard.brake_frac - self._guard.gap_frac)
        projected_frac = projected_w(view, desire.setpoints) / view.budget_w
        if projected_frac <= ceiling_frac:
            return ""
        return f"would draw {projected_frac:.1%} of the budget, more than {ceiling_frac:.1%}"

    def _hold(self, t: float, held: dict[Class, Setpoint], why: Mapping[Class, Why]) -> None:
        self.why = {
            name: self.why[name] if setpoint == self.held.get(name) and name in self.why else why[name]
            for name, setpoint in held.items()
            if not setpoint.free and (name in why or name in self.why)
        }
        if held != self.held:
            self.since_t = t
        self.held = held

    def rules(self) -> tuple[Rule, ...]:
        """What is held, in as few rules as say it."""
        return tuple(
            Rule(self.scope, setpoint, why, priority, role)
            for priority, role, setpoint, why in _merged(self.held, self.why)
        )


def projected_w(view: View, setpoints: Mapping[Class, Setpoint]) -> float:
    """What the domain would draw with these setpoints, from its uncapped demand; an upper bound where limits bind."""
    return view.host_w + sum(_class_w(name[1], group, setpoints[name]) for name, group in view.classes.items())


def _class_w(role: Role, group: ClassView, setpoint: Setpoint) -> float:
    locked_w = group.idle_w + (group.demand_w - group.idle_w) * dynamic_frac(role, setpoint.clock_frac)
    return min(locked_w, setpoint.cap_frac * group.max_w) if setpoint.cap_frac < 1.0 else locked_w


_Merged = list[tuple[Priority | None, Role | None, Setpoint, Why]]


def _merged(held: Mapping[Class, Setpoint], why: Mapping[Class, Why]) -> _Merged:
    """One entry for a brake on everything, one a priority where its roles agree, else one a class.

    A wider entry also takes in GPUs of a class that appears before the next tick.
    """
    marks = {name: (setpoint, why[name]) for name, setpoint in held.items() if name in why}
    if len(set(marks.values())) == 1 and set(why.values()) == {Why.BRAKE} and len(marks) == len(held):
        return [(None, None, *next(iter(marks.values())))]
    merged: _Merged = []
    for priority in Priority:
        own = {role: marks.get((of, role)) for of, role in held if of is priority}
        agreed = len(set(own.values())) == 1
        for role, mark in list(own.items())[: 1 if agreed else None]:
            if mark is not None:
                merged.append((priority, None if agreed else role, *mark))
    return merged


def held_in(held: Mapping[Class, Setpoint], classes: Mapping[Class, ClassView]) -> dict[Class, Setpoint]:
    """What every class present holds; one that is new holds nothing yet."""
    return {name: held.get(name, FREE) for name in classes}
