"""Builds the views that guard and policy tests need."""

from collections.abc import Mapping

from polcad.model import FREE, Priority, Role, Setpoint
from polcad.ports import ClassView, View

BUDGET_W = 10_000.0
Class = tuple[Priority, Role]
LOW: Class = (Priority.LOW, Role.MIXED)
HIGH: Class = (Priority.HIGH, Role.MIXED)


def view(
    used_frac: float,
    held: Mapping[Class, Setpoint] | None = None,
    *,
    t: float = 0.0,
    since_t: float = 0.0,
    demand_frac: float | None = None,
    latency_s: float = 2.0,
) -> View:
    """Power shared alike by the classes, 30 % idle; `demand_frac` of the budget is what it would draw uncapped."""
    held = {LOW: FREE, HIGH: FREE} if held is None else held
    share_w = BUDGET_W / max(1, len(held))
    demand_w = share_w * (used_frac if demand_frac is None else demand_frac)
    classes = {
        name: ClassView(10, share_w * used_frac, demand_w, 0.3 * share_w * used_frac, 1.2 * share_w) for name in held
    }
    return View(t, BUDGET_W, BUDGET_W * used_frac, 0.0, classes, held, since_t, latency_s)
