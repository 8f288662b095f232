"""The controller of a site: what its rows say goes in, their budgets come out. As pure as the one of a row.

Rows are its nodes, and a budget is its setpoint: the whole of it goes out once a tick, under a lease (`polcad.model.
Budgets`). Together, what rows may draw is never more than the site's budget, whatever is lost or late, because watts
that one row gives up are given to another only when the first has told that it took the cut (`polcad.site_account`).
So a site is over its budget only when some row is over its own; then the others are cut at once, without regard to what
they draw, until it fits. Otherwise rows are cut when another is short of what it asks for, no sooner than a dwell after
the last cut, and no deeper at once than leaves a row within its new budget: a cut brakes nobody. What nobody asks for
is dealt out too, so that a row that rises finds room before it asks.

A message is never to arrive later than a lease after it was sent: for so long a site daemon that has just started gives
nothing to anybody, and only renews what rows say they have. One that took the site over from another gives nothing
before every row has followed it for a lease either: the other one may live where it is not heard.
"""

from __future__ import annotations

import math
from collections import Counter

from polcad.model import Budgets, Event, EventKind, LeaseState, RowBudget, SiteStatus
from polcad.ports import RowSaid, SiteInput, SiteOutput, Tick
from polcad.rank import Rank, wrong_clock
from polcad.site_account import Account
from polcad.site_division import divide
from polcad.spec import SiteSpec

_NEAR_FRAC = 1e-6  # of a budget: closer is the same


class SiteController:
    """Keeps a site's rows under its budget by moving theirs."""

    def __init__(self, site: SiteSpec, budget_w: float, epoch: int) -> None:
        self.counters: Counter[str] = Counter()
        self.over = False
        self._site, self._budget_w = site, budget_w
        self._accounts = {row.name: Account(row, site) for row in site.rows}
        self._notes = dict.fromkeys(self._accounts, "")
        self._told: set[str] = set()  # rows that were said to be moved no more
        self._settled_t: float | None = None  # from then on nothing of an earlier site daemon is on its way
        self._cut_t = float("-inf")
        self._rank = Rank(f"site {site.name}", self._accounts.keys(), epoch, self.counters)
        self._took_over = False
        self._clock_told = False

    @property
    def epoch(self) -> int:
        """The epoch of this daemon's budgets."""
        return self._rank.epoch

    @property
    def seq(self) -> int:
        """How many messages went out."""
        return self._rank.seq

    @property
    def begun(self) -> bool:
        """Whether this daemon spoke, or was made the leader: a daemon that is gone is then no rival any more."""
        return self._rank.begun

    @property
    def waits(self) -> bool:
        """Whether another daemon has the site."""
        return self._rank.waits

    def wait(self) -> None:
        """Hear all and say nothing, until `lead`; to be called before the first event."""
        self._rank.wait()

    def lead(self, epoch: int) -> None:
        """Take the site with this epoch, or a greater one where such was heard of. Rows are heard anew first."""
        self._rank.lead(epoch)
        self._took_over, self._settled_t = True, None
        self._accounts |= {name: account.renewed() for name, account in self._accounts.items()}

    def on(self, event: SiteInput) -> list[SiteOutput]:
        """Take one event; what is to be said. Raises OutrankedError when a newer daemon has the site."""
        if self._settled_t is None:
            self._settled_t = event.t + self._site.lease_s
        if isinstance(event, RowSaid):
            return self._hear(event)
        if isinstance(event, Tick):
            self._rank.mend(event.t)
            return [] if self._rank.waits else self._tick(event.t)
        self._rank.meet(event.epoch, event.t)
        return []

    # --- hearing ----------------------------------------------------------------------------------------------------

    def _hear(self, event: RowSaid) -> list[SiteOutput]:
        account = self._accounts.get(event.status.row)
        if account is None:
            return []
        self.counters["statuses"] += 1
        self._rank.note_clock(account.name, event.status.t, event.t)
        told = event.status.allowance
        if told is not None:
            self._rank.hear(account.name, told.epoch, event.t, held=told.lease is LeaseState.HELD)
        account.hear(event.t, event.status, self.epoch)
        if self._rank.waits:
            return []
        starts = self.seq == 0 and all(each.heard for each in self._accounts.values())
        urgent = not self.over and self._is_over(event.t)
        return self._tick(event.t) if starts or urgent else []

    # --- the tick ---------------------------------------------------------------------------------------------------

    def _tick(self, t: float) -> list[SiteOutput]:
        self.counters["ticks"] += 1
        out: list[SiteOutput] = [*self._tell_clock(t), *self._tell_notes(t), *self._tell_over(t)]
        grants_w = self._divided(t)
        if not grants_w:
            return out
        seq = self._rank.speak()
        for name, grant_w in grants_w.items():
            self._accounts[name].grant(t, seq, grant_w)
        rows = tuple(RowBudget(name, grant_w, self._accounts[name].fail_safe_w) for name, grant_w in grants_w.items())
        return [*out, Budgets(self._site.name, self.epoch, seq, t, self._site.lease_s, rows)]

    def _divided(self, t: float) -> dict[str, float]:
        """What each row that was heard is granted now."""
        grants_w = {
            name: min(account.own_w, _grant_w(account), account.in_force_w if self._renews(t, account) else math.inf)
            for name, account in self._accounts.items()
            if account.follows
        }
        if not self._settled(t):
            return grants_w
        free = [account for name, account in self._accounts.items() if name in grants_w and self._can_move(account)]
        targets_w = self._targets(t, free)
        grants_w |= self._cuts(t, free, targets_w)
        return grants_w | self._raises(t, grants_w, targets_w)

    def _can_move(self, account: Account) -> bool:
        """Whether a cut of this row's budget would free anything."""
        return not self._notes[account.name] and not (self.over and account.offends)

    def _targets(self, t: float, free: list[Account]) -> dict[str, float]:
        """Where rows whose budget may be moved should be, were it all up to them."""
        held_w = sum(self._reserved_w(t, account) for account in self._accounts.values() if account not in free)
        given_w = divide(self._budget_w - held_w, [account.claim() for account in free])
        return {account.name: each_w for account, each_w in zip(free, given_w, strict=True)}

    def _cuts(self, t: float, free: list[Account], targets_w: dict[str, float]) -> dict[str, float]:
        """Grants that fall now: softly where a row is short, and all the way where the site is over its budget."""
        short = any(_grant_w(each) * (1 + self._site.gap_frac) < min(each.wants_w, each.own_w) for each in free)
        if not (self.over or (short and t - self._cut_t >= self._site.dwell_s)):
            return {}
        cuts_w: dict[str, float] = {}
        for account in free:
            least_w = 0.0 if self.over else account.softly_w
            cut_w, grant_w = max(targets_w[account.name], least_w), _grant_w(account)
            if cut_w < grant_w * (1 - self._site.gap_frac):
                cuts_w[account.name] = cut_w
        if cuts_w:
            self._cut_t = t
            self.counters["cuts"] += len(cuts_w)
        return cuts_w

    def _raises(self, t: float, grants_w: dict[str, float], targets_w: dict[str, float]) -> dict[str, float]:
        """Grants that rise now, as far as what others have certainly given up allows."""
        reserved_w = {
            name: max(self._reserved_w(t, account), grants_w.get(name, 0.0)) for name, account in self._accounts.items()
        }
        room_w = self._budget_w - sum(reserved_w.values())
        asked_w = {name: target_w - grants_w[name] for name, target_w in targets_w.items() if target_w > grants_w[name]}
        total_w = sum(max(0.0, grants_w[name] + each_w - reserved_w[name]) for name, each_w in asked_w.items())
        if self.over or room_w <= _NEAR_FRAC * self._budget_w or not asked_w or not self._alone(t):
            return {}
        part = min(1.0, room_w / max(total_w, room_w))
        return {name: min(targets_w[name], grants_w[name] + part * each_w) for name, each_w in asked_w.items()}

    # --- what is counted --------------------------------------------------------------------------------------------

    def _settled(self, t: float) -> bool:
        return self._settled_t is not None and t >= self._settled_t

    def _renews(self, t: float, account: Account) -> bool:
        """Whether a row gets no more than it says it has: another daemon may have cut it since, and lent the watts."""
        return not self._settled(t) or (self._took_over and t < account.taken_t + self._site.lease_s)

    def _alone(self, t: float) -> bool:
        """Whether no row can have watts by the word of a daemon from which this one took over."""
        rows = self._accounts.values()
        return not self._took_over or all(row.heard and not (row.follows and self._renews(t, row)) for row in rows)

    def _reserved_w(self, t: float, account: Account) -> float:
        return account.reserved_w(settled=self._settled(t))

    def _counted_w(self, t: float) -> float:
        """What the site draws: as told, and of rows that are silent all that they may."""
        return sum(
            self._reserved_w(t, account) if self._notes[name] else account.power_w
            for name, account in self._accounts.items()
        )

    def _is_over(self, t: float) -> bool:
        return self._settled(t) and self._counted_w(t) > self._budget_w

    # --- telling ----------------------------------------------------------------------------------------------------

    def _tell_clock(self, t: float) -> list[SiteOutput]:
        """Once, that this daemon started with a wrong clock."""
        behind_s = self._rank.behind_s()
        if not behind_s or self._clock_told:
            return []
        self._clock_told = True
        return [Event(t, EventKind.CLOCK, "site", wrong_clock(behind_s, "rows' daemons"))]

    def _tell_notes(self, t: float) -> list[SiteOutput]:
        """Rows that can be moved no more, or again."""
        told: list[SiteOutput] = []
        self._notes = {name: account.note(t) for name, account in self._accounts.items()}
        for name, note in self._notes.items() if self._settled(t) else ():
            if bool(note) is (name in self._told):
                continue
            self._told ^= {name}
            account, kind = self._accounts[name], EventKind.STALE if note else EventKind.FRESH
            told.append(Event(t, kind, f"row/{name}", note, account.power_w, _grant_w(account)))
        return told

    def _tell_over(self, t: float) -> list[SiteOutput]:
        """Whether the site is over its budget; once it was, it must come down by the gap before it is not."""
        counted_w = self._counted_w(t)
        most_w = self._budget_w * (1 - self._site.gap_frac if self.over else 1.0)
        before, self.over = self.over, self._settled(t) and counted_w > most_w
        if before is self.over:
            return []
        self.counters["over"] += self.over
        kind = EventKind.BRAKE if self.over else EventKind.BRAKE_RELEASE
        detail = "rows are cut at once" if self.over else "rows are cut softly again"
        return [Event(t, kind, "site", detail, counted_w, self._budget_w)]

    def status(self, t: float) -> SiteStatus:
        """The site at `t`."""
        return SiteStatus(
            self._site.name,
            online=True,
            epoch=self.epoch,
            seq=self.seq,
            t=t,
            budget_w=self._budget_w,
            power_w=self._counted_w(t),
            over=self.over,
            rows=tuple(account.row(t, settled=self._settled(t)) for account in self._accounts.values()),
            counters=dict(self.counters),
        )


def _grant_w(account: Account) -> float:
    return account.in_force_w if account.granted_w is None else account.granted_w
