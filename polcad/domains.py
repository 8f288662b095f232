"""The row and its racks with budgets: what each draws and will draw, what each decides, and what it says of itself.

The row comes first everywhere, as None where a rack would be its index in the fleet.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from polcad.fleet import CLASSES, Fleet
from polcad.guard import Domain
from polcad.model import DomainStatus, Event, EventKind, Rule, Setpoint, Why
from polcad.outlook import MOVED_FRAC, Foresight, Outlooks
from polcad.ports import Policy, View
from polcad.spec import GuardSpec, RowSpec
from polcad.tally import Class, Tally, strictest_reported, tally


class Domains:
    """All domains of one row. `counters` takes what their decisions come to."""

    def __init__(
        self,
        row: RowSpec,
        guard: GuardSpec,
        policy: Policy,
        fleet: Fleet,
        counters: Counter[str],
        foresight: Foresight | None = None,
    ) -> None:
        self._guard, self._fleet, self._counters = guard, fleet, counters
        self.row = Domain("row", row.budget_w, guard, policy)
        self._racks = {
            fleet.racks.index(rack.name): Domain(f"rack/{rack.name}", rack.budget_w, guard, policy)
            for rack in row.racks
            if rack.budget_w is not None
        }
        self.row_w = 0.0
        self._rack_w: list[float] = []
        self._alarm_w = float("inf")
        self._rack_alarms_w: list[float] = []
        self._totals: Tally | None = None
        self.scopes: tuple[int | None, ...] = (None, *self._racks)
        names = ["row", *(domain.scope for domain in self._racks.values())]
        self._outlooks = Outlooks(names, guard, foresight) if foresight else None

    def __iter__(self) -> Iterator[tuple[int | None, Domain]]:
        yield None, self.row
        yield from self._racks.items()

    # --- power ------------------------------------------------------------------------------------------------------

    def take(self, rack: int, change_w: float) -> tuple[int | None, ...]:
        """Count a change of power at once: who should decide before the next tick because of it."""
        self.row_w += change_w
        known = rack < len(self._rack_w)
        if known:
            self._rack_w[rack] += change_w
        if self.row_w > self._alarm_w:
            return (None,)
        return (rack,) if known and self._rack_w[rack] > self._rack_alarms_w[rack] else ()

    def count(self) -> None:
        """Sum everything anew."""
        self._totals = totals = tally(self._fleet, self._guard.idle_frac)
        self._rack_w = (totals.power_w.sum(axis=1) + totals.host_w).tolist()
        self._rack_alarms_w = [float("inf")] * len(self._rack_w)
        self.row_w = sum(self._rack_w)

    def count_rack(self, rack: int) -> None:
        """Sum one rack anew: a rack alone may be many times a second over one of its thresholds."""
        fresh = tally(self._fleet, self._guard.idle_frac, rack)
        if self._totals is not None:
            self._totals.take(rack, fresh)
        self._rack_w[rack] = float(fresh.power_w[rack].sum() + fresh.host_w[rack])

    @property
    def totals(self) -> Tally:
        """The last sums."""
        return self._totals or tally(self._fleet, self._guard.idle_frac)

    def look_ahead(self, t: float) -> list[Event]:
        """Let the forecaster see this tick; what is to be told of it."""
        return self._look(t)

    def _look(self, t: float, *, braked: bool = False) -> list[Event]:
        if self._outlooks is None:
            return []
        totals, moved = self.totals, self._fleet.moved_frac()
        racks_w = totals.demand_w.sum(axis=1) + totals.host_w
        demand_w = [float(racks_w.sum() if rack is None else racks_w[rack]) for rack in self.scopes]
        calm = [not (braked or domain.braked) for _, domain in self]
        still = [bool(moved[-1 if rack is None else rack] <= MOVED_FRAC) for rack, _ in self]
        return self._outlooks.observe(t, np.array(demand_w), np.array(calm) & np.array(still))

    def foresee(self, t: float) -> None:
        """Let the forecaster see a tick of another daemon's row, in which that one decides."""
        if self._outlooks is None:
            return
        self.count()
        reported = [setpoint for rack in strictest_reported(self._fleet) for setpoint in rack.values()]
        self._look(t, braked=any(setpoint.covers(self._guard.brake) for setpoint in reported))

    def view(self, t: float, rack: int | None) -> View:
        """What a policy sees of one domain."""
        domain, totals = self._domain(rack), self.totals
        classes = totals.classes(rack)
        host_w = float(totals.host_w.sum() if rack is None else totals.host_w[rack])
        power_w = self.row_w if rack is None else self._rack_w[rack]
        held = domain.holding(classes)
        outlook = self._outlooks.of(self.scopes.index(rack)) if self._outlooks else None
        return View(t, domain.budget_w, power_w, host_w, classes, held, domain.since_t, self._guard.latency_s, outlook)

    def _domain(self, rack: int | None) -> Domain:
        return self.row if rack is None else self._racks[rack]

    # --- deciding ---------------------------------------------------------------------------------------------------

    def decide(self, t: float, rack: int | None, doubts: Mapping[int | None, Sequence[int]]) -> list[Event]:
        """Let one domain decide; `doubts` are the slots by whose data nothing may be loosened, by rack."""
        domain, view = self._domain(rack), self.view(t, rack)
        before = set(domain.why.values())
        kind = domain.decide(view, self._stale_note(doubts.get(rack, ())))
        if rack is None:
            self._alarm_w = domain.alarm_w(self.row_w)
        else:
            self._rack_alarms_w[rack] = domain.alarm_w(self._rack_w[rack])
        if kind is None:
            return []
        if rack is None:
            self._count_entries(kind, before, set(domain.why.values()))
        detail = "; ".join((*(_told(rule) for rule in domain.rules()), *_foreseen(view, domain))) or "all free"
        return [Event(t, kind, domain.scope, detail[:512], view.power_w, domain.budget_w)]

    def _stale_note(self, slots: Sequence[int]) -> str:
        return f"{len(slots)} node(s) without fresh data, first {self._fleet.specs[slots[0]].name}" if slots else ""

    def _count_entries(self, kind: EventKind, before: set[Why], after: set[Why]) -> None:
        if kind is EventKind.BRAKE:
            self._counters["brakes"] += 1
        if kind is EventKind.TIGHTEN:
            self._counters["t1_entries"] += not before & {Why.T1, Why.T2} and bool(after & {Why.T1, Why.T2})
            self._counters["t2_entries"] += Why.T2 in after - before

    def rules(self) -> list[Rule]:
        """What all of them hold."""
        return [rule for _, domain in self for rule in domain.rules()]

    def fit(self, t: float) -> bool:
        """Whether every domain would fit its budget by what the domains themselves hold."""
        return all(domain.fits(self.view(t, rack)) for rack, domain in self)

    def sleep(self, s: float) -> None:
        """Let no dwell run on over a time in which the controller slept."""
        for _, domain in self:
            domain.since_t += s

    # --- starting ---------------------------------------------------------------------------------------------------

    def resume(self, t: float) -> bool:
        """Hold what nodes report: each rack with a budget its own, the row what all of its racks have in common."""
        reported = strictest_reported(self._fleet)
        for rack, domain in self._racks.items():
            domain.resume(t, reported[rack])
        self.row.resume(t, {name: found for name in CLASSES if (found := self._in_common(name, reported))})
        return any(not setpoint.free for rack in reported for setpoint in rack.values())

    def _in_common(self, name: Class, reported: list[dict[Class, Setpoint]]) -> Setpoint | None:
        unled = [found[name] for rack, found in enumerate(reported) if name in found and rack not in self._racks]
        if unled:  # only the row can hold them, so it must hold the strictest
            return Setpoint(min(each.clock_frac for each in unled), min(each.cap_frac for each in unled))
        led = [found[name] for found in reported if name in found]
        return Setpoint(max(each.clock_frac for each in led), max(each.cap_frac for each in led)) if led else None

    # --- for those who look -----------------------------------------------------------------------------------------

    def statuses(self, t: float, holds: Sequence[Rule]) -> tuple[DomainStatus, ...]:
        """Every domain; operators' holds are shown with the row."""
        return tuple(self._status(t, rack, domain, () if rack is not None else holds) for rack, domain in self)

    def _status(self, t: float, rack: int | None, domain: Domain, holds: Sequence[Rule]) -> DomainStatus:
        view = self.view(t, rack)
        demand_w = view.host_w + sum(group.demand_w for group in view.classes.values())
        return DomainStatus(
            domain.scope,
            domain.budget_w,
            view.power_w,
            demand_w,
            (*domain.rules(), *holds),
            max(0.0, domain.since_t),
            domain.waiting,
            view.outlook,
        )


def _foreseen(view: View, domain: Domain) -> Iterator[str]:
    """The bound by which a domain holds what it holds, for events."""
    outlook = view.outlook
    if outlook and Why.FORECAST in domain.why.values():
        yield f"at most {outlook.upper_w:.0f} W of demand expected within {outlook.horizon_s:g} s ({outlook.q:.0%})"


def _told(rule: Rule) -> str:
    """A rule in a few words, for events."""
    who = " ".join(part.value for part in (rule.priority, rule.role) if part) or "all"
    clock = f" clock {rule.setpoint.clock_frac:.3f}" if rule.setpoint.clock_frac < 1.0 else ""
    cap = f" limit {rule.setpoint.cap_frac:.3f}" if rule.setpoint.cap_frac < 1.0 else ""
    return f"{who}:{clock}{cap} ({rule.why.value})"
