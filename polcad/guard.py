"""The guard of one domain: it owns safety, above every policy.

- Above the brake threshold everything brakes, at once and without debate.
- What a policy wants tighter is tightened at once; what it wants looser waits: for a dwell since the last change, for
  every node's data to be fresh, and for the power *projected* from uncapped demand to fit under the threshold that
  would make the policy tighten again. So a lock that sheds more than a policy's gap does not flutter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from polcad.curve import dynamic_frac
from polcad.model import FREE, EventKind, Priority, Role, Rule, Setpoint, Why
from polcad.ports import ClassView, Desire, Policy, View
from polcad.spec import GuardSpec
from polcad.tally import Class


class Domain:
    """A row or rack with a budget, and what it holds."""

    def __init__(self, scope: str, budget_w: float, guard: GuardSpec, policy: Policy) -> None:
        self.scope = scope
        self.held: dict[Class, Setpoint] = {}
        self.why: dict[Class, Why] = {}
        self.since_t = float("-inf")
        self.waiting = ""
        self._guard, self._policy = guard, policy
        self._rules: tuple[Rule, ...] = ()
        self._marks_w: list[float] = []
        self.allow(budget_w)

    def allow(self, budget_w: float) -> None:
        """Give the domain another budget, W."""
        self.budget_w = budget_w
        fracs = (*self._policy.thresholds.values(), self._guard.brake_frac)
        self._marks_w = sorted(budget_w * frac for frac in fracs)

    @property
    def braked(self) -> bool:
        """Whether the brake is on."""
        return Why.BRAKE in self.why.values()

    def alarm_w(self, power_w: float) -> float:
        """The power whose crossing from `power_w` is worth deciding at once; above the brake there is no more to do."""
        return next((mark for mark in self._marks_w if mark >= power_w), float("inf"))

    def resume(self, t: float, reported: Mapping[Class, Setpoint]) -> None:
        """Hold what nodes report, as a daemon does that has just started, and no less than was held before."""
        held = {name: setpoint.strictest(self.held.get(name, FREE)) for name, setpoint in reported.items()}
        self._hold(t, {**self.held, **held}, dict.fromkeys(held, Why.RESUME))

    def decide(self, view: View, stale: str) -> EventKind | None:
        """Take the domain to where it should be; what changed, if anything.

        `stale` names the nodes whose data are too old to loosen by; "" when there are none.
        """
        self.waiting = ""
        if view.used_frac > self._guard.brake_frac:
            return self._brake(view)
        desire = self._policy.desired(view)
        tighter = {name: held.strictest(desire.setpoints[name]) for name, held in view.held.items()}
        if tighter != dict(view.held):
            self._hold(view.t, tighter, desire.why)
            return EventKind.TIGHTEN
        if all(desire.setpoints[name].covers(held) for name, held in view.held.items()):
            return None
        return self._loosen(view, desire, stale)

    def _brake(self, view: View) -> EventKind | None:
        braked, self.why = self.braked, {}
        held = {name: held.strictest(self._guard.brake) for name, held in view.held.items()}
        self._hold(view.t, held, dict.fromkeys(held, Why.BRAKE))
        return EventKind.BRAKE if self.braked and not braked else None

    def _loosen(self, view: View, desire: Desire, stale: str) -> EventKind | None:
        self.waiting = stale or self._too_soon(view) or self._too_much(view, desire)
        if self.waiting:
            return None
        kind = EventKind.BRAKE_RELEASE if self.braked else EventKind.LOOSEN
        self._hold(view.t, dict(desire.setpoints), desire.why)
        return kind

    def fits(self, view: View) -> bool:
        """Whether what this domain holds would do, were it all that binds the row."""
        return projected_w(view, view.held) <= self._most_frac * view.budget_w

    @property
    def _most_frac(self) -> float:
        """The highest projected use at which anything may be loosened."""
        return self._guard.brake_frac - self._guard.gap_frac

    def _too_soon(self, view: View) -> str:
        dwell_s = self._guard.brake_dwell_s if self.braked else self._guard.dwell_s
        held_s = view.t - view.since_t
        return f"changed {held_s:.0f} s ago, stays for {dwell_s:.0f} s" if held_s < dwell_s else ""

    def _too_much(self, view: View, desire: Desire) -> str:
        ceiling_frac = min(desire.ceiling_frac, self._most_frac)
        projected_frac = projected_w(view, desire.setpoints) / view.budget_w
        if projected_frac <= ceiling_frac:
            return ""
        return f"would draw {projected_frac:.1%} of the budget, more than {ceiling_frac:.1%}"

    def _hold(self, t: float, held: dict[Class, Setpoint], why: Mapping[Class, Why]) -> None:
        old = {name: self.why[name] for name in self.why if held.get(name) == self.held.get(name)}
        self.why = {
            name: old.get(name) or why.get(name, Why.RESUME) for name, setpoint in held.items() if not setpoint.free
        }
        if held != self.held:
            self.since_t = t
        self.held = held
        self._rules = tuple(
            Rule(self.scope, setpoint, why, priority, role)
            for priority, role, setpoint, why in _merged(self.held, self.why)
        )

    def rules(self) -> tuple[Rule, ...]:
        """What is held, in as few rules as say it."""
        return self._rules

    def holding(self, classes: Iterable[Class]) -> dict[Class, Setpoint]:
        """What these classes hold; one that has just appeared holds what the rules already say of it."""
        return {name: self.held[name] if name in self.held else self._ruled(*name) for name in classes}

    def _ruled(self, priority: Priority, role: Role) -> Setpoint:
        setpoint = FREE
        for rule in self._rules:
            if rule.priority in {None, priority} and rule.role in {None, role}:
                setpoint = setpoint.strictest(rule.setpoint)
        return setpoint


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
