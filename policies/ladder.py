"""A policy as a ladder of rungs: each has a power at which it is entered and a lower one at which it is left.

Stateless: the rung a domain stands on is read from the setpoints it holds, so a restarted daemon, a brake or a
fail-safe needs no memory. Upwards a policy may jump; downwards it takes one rung at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from polcad.curve import dynamic_frac
from polcad.model import FREE, Outlook, Priority, Role, Setpoint, Why
from polcad.ports import ClassView, Desire, View

_CLEAR_FRAC = 0.01  # of the budget, below a threshold: a row that would only just fit is tightened again by noise


@dataclass(frozen=True, slots=True)
class Rung:
    """Setpoints by priority, and where `low_token` or `high_token` is set, another one for token-heavy GPUs.

    A `settled` rung is entered only when the rung below has had time to act.
    """

    enter_frac: float
    leave_frac: float
    low: Setpoint
    high: Setpoint
    why: Why
    high_why: Why
    settled: bool = False
    low_token: Setpoint | None = None
    high_token: Setpoint | None = None

    def setpoint(self, priority: Priority, role: Role) -> Setpoint:
        """What GPUs of a priority and role take on this rung."""
        low = priority is Priority.LOW
        token = (self.low_token if low else self.high_token) if role is Role.TOKEN else None
        return token or (self.low if low else self.high)


def climb(view: View, rungs: Sequence[Rung]) -> Desire:
    """The rung that a domain should stand on; `rungs` from mildest to strictest, without the free one."""
    stands = _standing(view, rungs)
    if stands > len(rungs):  # stricter than the ladder knows: braked, or at the fail-safe
        return _desire(view, rungs, len(rungs), ceiling_frac=1.0)
    goes = stands
    for number in range(stands + 1, len(rungs) + 1):
        rung = rungs[number - 1]
        settled = number == stands + 1 and view.t - view.since_t >= view.latency_s
        if view.used_frac > rung.enter_frac and (settled or not rung.settled):
            goes = number
    if goes == stands > 0 and view.used_frac < rungs[stands - 1].leave_frac:
        goes = stands - 1
    return _desire(view, rungs, goes, ceiling_frac=rungs[goes].enter_frac - _CLEAR_FRAC if goes < len(rungs) else 1.0)


def foresee(view: View, outlook: Outlook, rungs: Sequence[Rung], limit_frac: float) -> Desire:
    """The mildest rung under which the bounds on the demand fit `limit_frac` of the budget.

    A stricter one is taken by the bound within the actuation latency, a milder one only by that over the longer time.
    What is measured has the last word: above the limit, one rung more each time the last has had time to act.
    """
    stands, most_w = _standing(view, rungs), limit_frac * view.budget_w
    if stands > len(rungs):
        return _desire(view, rungs, len(rungs), ceiling_frac=1.0)
    goes = next(
        (n for n in range(stands, len(rungs)) if _drawn_w(view, rungs, n, outlook.upper_w) <= most_w), len(rungs)
    )
    if goes == stands:
        settled = view.t - view.since_t >= view.latency_s
        milder_w = most_w - _CLEAR_FRAC * view.budget_w
        if view.power_w > most_w and settled:
            goes = min(stands + 1, len(rungs))
        else:
            goes = next((n for n in range(stands) if _drawn_w(view, rungs, n, outlook.hold_w) <= milder_w), stands)
    desire = _desire(view, rungs, goes, ceiling_frac=limit_frac - _CLEAR_FRAC)
    return replace(desire, why=dict.fromkeys(desire.why, Why.FORECAST))


def _drawn_w(view: View, rungs: Sequence[Rung], number: int, demand_w: float) -> float:
    """What the domain would draw on a rung if its demand were `demand_w`, grown alike in all of its parts."""
    now_w = view.host_w + sum(group.demand_w for group in view.classes.values())
    ratio = demand_w / now_w if now_w > 0.0 else 1.0
    locks = {name: (rungs[number - 1].setpoint(*name) if number else FREE) for name in view.classes}
    return ratio * view.host_w + sum(
        _locked_w(name[1], group, ratio, locks[name].clock_frac) for name, group in view.classes.items()
    )


def _locked_w(role: Role, group: ClassView, ratio: float, clock_frac: float) -> float:
    return group.idle_w + max(0.0, ratio * group.demand_w - group.idle_w) * dynamic_frac(role, clock_frac)


def _standing(view: View, rungs: Sequence[Rung]) -> int:
    """0 when free, then the first rung that is as strict as what is held; one more than all when none is."""
    for number in range(len(rungs) + 1):
        if all(
            (rungs[number - 1].setpoint(*name) if number else FREE).covers(held) for name, held in view.held.items()
        ):
            return number
    return len(rungs) + 1


def _desire(view: View, rungs: Sequence[Rung], number: int, *, ceiling_frac: float) -> Desire:
    if number == 0:
        return Desire(dict.fromkeys(view.classes, FREE), {}, ceiling_frac)
    rung = rungs[number - 1]
    setpoints: Mapping[tuple[Priority, Role], Setpoint] = {name: rung.setpoint(*name) for name in view.classes}
    why = {name: rung.why if name[0] is Priority.LOW else rung.high_why for name in view.classes}
    return Desire(setpoints, why, ceiling_frac)
