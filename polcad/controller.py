"""The controller of one row: events in, plans out. It knows nothing of MQTT, clocks or GPUs.

The same object runs live, over a recording and over a model; given the same events it says the same things. It answers
each tick with the whole plan (which is also the heartbeat), and at once, between ticks, when a message carries the row
or a rack over a threshold. What a domain holds after a start is what its nodes report, so a restarted daemon loosens
nothing: until every node has spoken, or has been silent for too long, no plan goes out at all. So it is, too, after a
silence of its own that outlasted the leases: its nodes are at their fail-safe, and what they would draw is not known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np

from polcad.brevity import Brevity
from polcad.budget_lease import BudgetLease
from polcad.domains import Domains
from polcad.fleet import Fleet
from polcad.holds import Holds
from polcad.model import (
    FREE,
    Event,
    EventKind,
    LeaseState,
    NodeColumns,
    Obedience,
    Plan,
    RowStatus,
    Rule,
    Setpoint,
)
from polcad.orders import order
from polcad.outlook import Foresight
from polcad.ports import Granted, Heard, Held, Input, Output, Placed, Policy, Rival, Tick
from polcad.rank import Rank, wrong_clock
from polcad.spec import GuardSpec, RowSpec
from polcad.tally import class_statuses, looser, node_columns
from polcad.witness import Witness

_STRAYED = (
    "it follows epoch {epoch} and refuses this daemon's plans: somebody planted a plan; it forgets that an hour after "
    "the last of them, or at once without plan-*.json in its state_dir and with its agent restarted"
)


class Controller:
    """Keeps a row and its racks under their budgets."""

    def __init__(
        self,
        row: RowSpec,
        guard: GuardSpec,
        policy: Policy,
        epoch: int,
        *,
        foresight: Foresight | None = None,
        shadow: bool = False,
    ) -> None:
        self.counters: Counter[str] = Counter()
        self.peak_frac = 0.0
        self.over_budget_s = 0.0
        self._row, self._guard, self._policy = row, guard, policy
        self._shadow = shadow
        self._fleet = Fleet(row, guard)
        voters = {node.name for node in row.nodes} or self._fleet.slots.keys()
        self._rank = Rank(f"row {row.name}", voters, epoch, self.counters)
        self._clock_told = False
        self._witness = Witness(self._fleet, guard, self.counters)
        self._domains = Domains(row, guard, policy, self._fleet, self.counters, foresight)
        self._site = (
            None
            if row.fail_safe_budget_w is None
            else BudgetLease(row.name, row.budget_w, min(row.budget_w, row.fail_safe_budget_w))
        )
        if self._site is not None:
            self._domains.row.allow(self._site.fail_safe_w)
        self._budget_why = ""  # the reason last told for the row's budget
        self._holds = Holds()
        self._brevity = Brevity(guard.dwell_s)
        self._rules: tuple[Rule, ...] = ()
        self._ordered = True  # the rules are laid out over the GPUs
        self._t: float | None = None  # of the last event
        self._awake_s = 0.0  # counted from the first event, without the time this controller itself slept
        self._longest_s = 2 * guard.tick_s  # between two events of a controller that is awake
        self._ready = False
        self._started_s = 0.0  # of waking time
        self._planned_t = float("-inf")  # when the last plan went out

    @property
    def epoch(self) -> int:
        """The epoch of this daemon's plans."""
        return self._rank.epoch

    @property
    def seq(self) -> int:
        """How many plans went out."""
        return self._rank.seq

    @property
    def begun(self) -> bool:
        """Whether this daemon spoke, or was made the leader: a daemon that is gone is then no rival any more."""
        return self._rank.begun

    @property
    def budget_w(self) -> float:
        """The row's budget in force: its own, or what the site level allows."""
        return self._domains.row.budget_w

    def wait(self) -> None:
        """Hear all and say nothing, until `lead`; to be called before the first event."""
        self._rank.wait()

    def lead(self, epoch: int) -> None:
        """Take the row with this epoch, or a greater one where such was heard of.

        Nodes may have fallen to their fail-safe since they last spoke, so whoever is not silent is heard anew first.
        """
        self._rank.lead(epoch)
        self._started_s = self._awake_s
        self._fleet.unhear(silent=False)

    @property
    def waits(self) -> bool:
        """Whether another daemon has the row."""
        return self._rank.waits

    def on(self, event: Input) -> list[Output]:
        """Take one event; what is to be said, in order. Raises OutrankedError when a newer daemon has the row."""
        said = self._take(event)
        return [] if self._rank.waits else said

    def _take(self, event: Input) -> list[Output]:
        self._wake(event.t)
        if isinstance(event, Heard):
            return self._hear(event)
        if isinstance(event, Tick):
            return self._tick(event.t)
        if isinstance(event, Placed):
            return self._place(event)
        if isinstance(event, Rival):
            if not self._shadow:  # nobody follows a shadow: it has no row to give up
                self._rank.meet(event.epoch, event.t)
            return []
        if isinstance(event, Granted):
            return self._take_grant(event)
        return self._take_hold(event)

    def _wake(self, t: float) -> None:
        """Count waking time. Over a gap, or a clock that was set, nobody grows stale and no dwell runs on."""
        step_s = 0.0 if self._t is None else t - self._t
        if 0.0 <= step_s <= self._longest_s:
            self._awake_s += step_s
            self._t = t
        elif abs(step_s) > self._longest_s:
            awake_s = self._longest_s if step_s > 0.0 else 0.0
            self._awake_s += awake_s
            self._domains.sleep(step_s - awake_s)
            self._t = t
            if self._ready and t - self._planned_t >= self._guard.lease_s:
                self._start_anew()

    def _start_anew(self) -> None:
        """Every lease has ended: say nothing until the nodes have told what they hold and draw now."""
        self._ready, self._started_s = False, self._awake_s
        self._fleet.unhear()

    # --- telemetry --------------------------------------------------------------------------------------------------

    def _hear(self, event: Heard) -> list[Output]:
        telemetry, fleet = event.telemetry, self._fleet
        self.counters["telemetry"] += 1
        self._rank.note_clock(telemetry.node, telemetry.t, event.t)
        out = [] if telemetry.plan is None else self._compare_epochs(event.t, telemetry.node, telemetry.plan)
        slot, told = self._witness.admit(event, self._awake_s)
        out += told
        if slot is None:
            return out
        change_w, believed = fleet.hear(slot, telemetry, self._awake_s)
        out += self._witness.note_sensors(slot, event, believed=believed)
        for scope in self._domains.take(int(fleet.rack_of[slot]), change_w):
            out += self._decide(event.t, scope)
        return out

    def _compare_epochs(self, t: float, node: str, plan: Obedience) -> list[Output]:
        """Learn whom a node follows."""
        if not self._rank.hear(node, plan.epoch, t, held=plan.lease is LeaseState.HELD):
            return []
        self.counters["strays"] += 1
        return [Event(t, EventKind.STRAYED, f"node/{node}", _STRAYED.format(epoch=plan.epoch))]

    # --- placement and holds ----------------------------------------------------------------------------------------

    def _place(self, event: Placed) -> list[Output]:
        self._fleet.place(event.placement)
        return []

    def _take_hold(self, event: Held) -> list[Output]:
        told = [*self._holds.take(event), *self._holds.end(event.t, lambda: self._fits_without_holds(event.t))]
        return [*told, *self._publish(event.t, always=False)]

    # --- the row's budget -------------------------------------------------------------------------------------------

    def _take_grant(self, event: Granted) -> list[Output]:
        if self._site is None:
            return []
        if self._site.offer(event.budgets, event.t) is not None:
            self.counters["budgets_refused"] += 1
            return []
        return self._allow(event.t, f"by the site's word {event.budgets.epoch}/{event.budgets.seq}")

    def _allow_in_silence(self, t: float) -> list[Output]:
        if self._site is None:
            return []
        silent = self._site.silent(t)
        return self._allow(t, "the site is not heard" if silent else "the site is heard again")

    def _allow(self, t: float, why: str) -> list[Output]:
        """Bring the row's budget to what holds now; one that was cut is acted on at once. A glide is told once."""
        before_w, row = self._domains.row.budget_w, self._domains.row
        budget_w = before_w if self._site is None else self._site.budget_w(t)
        if budget_w == before_w:
            return []
        row.allow(budget_w)
        detail = f"{why}; it was {before_w:.0f} W"
        told = Event(t, EventKind.BUDGET, "row", detail, self._domains.row_w, budget_w)
        news, self._budget_why = why != self._budget_why, why
        return [*([told] if news else ()), *(self._decide(t) if budget_w < before_w else ())]

    # --- the tick ---------------------------------------------------------------------------------------------------

    def _tick(self, t: float) -> list[Output]:
        fleet = self._fleet
        self.counters["ticks"] += 1
        self._lay_out_rules()
        out = self._allow_in_silence(t)
        out += [*self._holds.end(t, lambda: self._fits_without_holds(t))]
        self._witness.end_doubts(self._awake_s)
        grew, back = fleet.age(self._awake_s)
        out += self._tell_staleness(t, grew, back)
        out += self._tell_clock(t)
        if self._rank.waits:
            self._foresee(t)
            return out
        if not self._ready and not self._start(t, out):
            return out
        if self._domains.row_w > self._domains.row.budget_w:
            self.over_budget_s += self._guard.tick_s
        out += self._decide(t, heartbeat=True)
        if not self._shadow:
            out += self._witness.compare_obedience(t, self._awake_s)
        return out

    def _tell_clock(self, t: float) -> list[Output]:
        """Once, that this daemon started with a wrong clock."""
        behind_s = self._rank.mend(t)
        if not behind_s or self._rank.waits or self._clock_told:
            return []
        self._clock_told = True
        return [Event(t, EventKind.CLOCK, "row", wrong_clock(behind_s, "nodes"))]

    def _foresee(self, t: float) -> None:
        """Keep the forecast warm: of a row that is all known, for what is not heard yet would look like demand."""
        if self._fleet.all_heard():
            self._domains.foresee(t)

    def _fits_without_holds(self, t: float) -> bool:
        return self._rank.seq == 0 or (not self._doubts() and self._domains.fit(t))

    def _tell_staleness(self, t: float, grew: Iterable[int], back: Iterable[int]) -> list[Output]:
        specs = self._fleet.specs
        if not self._ready:  # nobody has had the time to speak yet
            return []
        told: list[Output] = [
            Event(t, EventKind.STALE, f"node/{specs[slot].name}", "silent: counts its worst case") for slot in grew
        ]
        return told + [Event(t, EventKind.FRESH, f"node/{specs[slot].name}") for slot in back]

    def _start(self, t: float, out: list[Output]) -> bool:
        """Whether the row is known well enough to speak: every node was heard, or had its time, or it must brake."""
        patience_s = self._guard.stale_after_s + self._guard.tick_s
        self._domains.row_w = self._fleet.heard_w()
        calm = self._domains.row_w <= self._guard.brake_frac * self._domains.row.budget_w
        if not self._fleet.all_heard() and self._awake_s - self._started_s < patience_s and calm:
            return False
        self._ready = True
        if self._domains.resume(t):
            out.append(Event(t, EventKind.RESUME, "row", "holds what the nodes report; loosens from there"))
        silent = [spec.name for slot, spec in enumerate(self._fleet.specs) if self._fleet.stale[slot]]
        out += [Event(t, EventKind.STALE, f"node/{name}", "not heard since the start") for name in silent]
        return True

    # --- deciding ---------------------------------------------------------------------------------------------------

    def _decide(self, t: float, rack: int | None = None, *, heartbeat: bool = False) -> list[Output]:
        """Let every domain decide, or one rack, and publish; between ticks only if the plan changed."""
        if not self._ready:
            return []
        domains, doubts = self._domains, self._doubts()
        if rack is None:
            domains.count()
            self.peak_frac = max(self.peak_frac, domains.row_w / domains.row.budget_w)
        else:
            domains.count_rack(rack)
        out: list[Output] = [*domains.look_ahead(t)] if heartbeat else []
        for scope in domains.scopes if rack is None else (rack,):
            out += domains.decide(t, scope, doubts)
        return out + self._publish(t, always=heartbeat)

    def _doubts(self) -> dict[int | None, list[int]]:
        """Nodes by whose data nothing may be loosened: of each rack, and under None of the row."""
        fleet, n = self._fleet, len(self._fleet.specs)
        slots = {*np.flatnonzero(fleet.stale[:n] | fleet.suspect[:n]).tolist(), *self._witness.blind}
        doubts: dict[int | None, list[int]] = {}
        for slot in sorted(slots):
            doubts.setdefault(None, []).append(slot)
            doubts.setdefault(int(fleet.rack_of[slot]), []).append(slot)
        return doubts

    def _publish(self, t: float, *, always: bool) -> list[Output]:
        if not self._ready:
            return []
        wanted = [*self._domains.rules(), *self._holds.rules()]
        rules, told = self._brevity.take(t, wanted, lambda: always and self._fits_without_holds(t))
        changed = rules != self._rules
        if not (changed or told or always):
            return []
        if changed:
            self._rules = rules
            self.counters["plans"] += 1
            self._ordered = False
        self._planned_t = t
        guard, seq = self._guard, self._rank.speak()
        plan = Plan(self._row.name, self.epoch, seq, t, guard.lease_s, guard.fail_safe, self._rules, self._shadow)
        return [*told, plan]

    def _lay_out_rules(self) -> None:
        if self._fleet.reclassed or not self._ordered:
            order(self._fleet, self._rules)
            self._ordered = True

    # --- for those who look -----------------------------------------------------------------------------------------

    def status(self, t: float) -> RowStatus:
        """The row at `t`."""
        fleet, n = self._fleet, len(self._fleet.specs)
        totals = self._domains.totals
        setpoints = self._domains.row.holding(totals.classes(None))
        holds = self._holds.rules()
        return RowStatus(
            row=self._row.name,
            online=True,
            epoch=self.epoch,
            seq=self.seq,
            t=t,
            policy=type(self._policy).__name__,
            shadow=self._shadow,
            thresholds={**self._policy.thresholds, "brake": self._guard.brake_frac},
            domains=self._domains.statuses(t, holds) if self._ready else (),
            classes=class_statuses(fleet, totals, setpoints),
            nodes=n,
            nodes_stale=int(fleet.stale[:n].sum()),
            gpus=int(fleet.present[:n].sum()),
            peak_frac=self.peak_frac,
            over_budget_s=self.over_budget_s,
            counters=dict(self.counters),
            allowance=None if self._site is None else self._site.allowance(t),
        )

    @property
    def strictest(self) -> Setpoint:
        """The strictest that the plan holds any class of the whole row to, an operator's orders included."""
        setpoint = FREE
        for rule in self._rules:
            if rule.scope == "row":
                setpoint = setpoint.strictest(rule.setpoint)
        return setpoint

    def loose(self) -> set[str]:
        """Names of the nodes that follow plans and report a looser setpoint than theirs."""
        self._lay_out_rules()
        return {self._fleet.specs[slot].name for slot in np.flatnonzero(looser(self._fleet).any(axis=1))}

    def pool_clocks_frac(self) -> dict[str, float]:
        """By the pool that GPUs are placed in, the mean clock in force on those that report one."""
        return self._fleet.pool_clocks_frac()

    def knows(self, node: str) -> bool:
        """Whether the node is listed, or was taken in when it spoke; more made-up names than the bound are not."""
        return node in self._fleet.slots

    def nodes(self) -> NodeColumns:
        """Every node, in columns."""
        return node_columns(self._fleet)
