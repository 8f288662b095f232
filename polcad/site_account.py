"""One row in the books of the site level: what it was granted, what it may still draw, and what it asks for.

`reserved_w` is the most that the row may draw by any word that may still hold there. A cut frees nothing until the row
has told that it took it: until then an older, higher grant may be in force. A row that falls silent keeps what it may
have; silence frees nothing.
"""

from __future__ import annotations

from polcad.model import Priority, RowStatus, SiteRow
from polcad.site_division import Claim
from polcad.spec import SiteRowSpec, SiteSpec

_GAP_FRAC = 0.05  # that a row's use must fall below a threshold to be let go: POLCA's gap
_ABOVE_FRAC = 0.25  # of the way from a row's last lock to its brake; the rest is for what rises meanwhile
_LEAST_FRAC = 0.1  # the lowest threshold that is believed


class Account:
    """One row; powers in W. `epoch` is the site daemon's, times are its clock's."""

    def __init__(self, spec: SiteRowSpec, site: SiteSpec) -> None:
        self.name = spec.name
        self.granted_w: float | None = None  # None: nothing was said to it yet
        self.power_w = self.demand_w = 0.0
        self.taken_t = float("inf")  # when it first took a word of this daemon
        self._site, self._spec = site, spec
        self._status: RowStatus | None = None  # its last word, once it was seen to speak now
        self._known = (-1, -1)  # epoch and sequence of its last word
        self._heard_t = float("-inf")
        self._answered_t = float("inf")  # when it last confirmed more than before
        self._confirmed = 0  # the sequence of ours that it took last
        self._sent: list[tuple[int, float]] = []  # each grant, and the sequence it began with, from the one in force
        self._peak_w = 0.0

    def renewed(self) -> Account:
        """The same row, of which nothing is known but how much it asked for of late."""
        fresh = Account(self._spec, self._site)
        fresh._peak_w, fresh._heard_t = self._peak_w, self._heard_t
        return fresh

    # --- what it says -----------------------------------------------------------------------------------------------

    def hear(self, t: float, status: RowStatus, epoch: int) -> None:
        """Take its word. The first may be an old one that the broker kept: only the next shows that it speaks now."""
        if not status.online:
            self._heard_t = float("-inf") if status.epoch >= self._known[0] else self._heard_t
            return
        word = (status.epoch, status.seq)
        if status.shadow or not status.domains or word <= self._known:
            return
        first, self._known = self._known[0] != status.epoch, word
        if first and self._status is None:
            return
        self._note_demand(t, status)
        self._status, self._heard_t = status, t
        self._note_answer(t, status, epoch)

    def _note_demand(self, t: float, status: RowStatus) -> None:
        row = status.domains[0]
        expected_w = row.outlook.hold_w if row.outlook and not row.outlook.doubt else 0.0
        fading = max(0.0, 1.0 - (t - self._heard_t) / self._site.peak_s)
        self.power_w, self.demand_w = row.power_w, row.demand_w
        self._peak_w = max(row.demand_w, expected_w, row.demand_w + (self._peak_w - row.demand_w) * fading)

    def _note_answer(self, t: float, status: RowStatus, epoch: int) -> None:
        told = status.allowance
        if told is None or told.epoch != epoch or told.seq <= self._confirmed:
            return
        self._confirmed, self._answered_t, self.taken_t = told.seq, t, min(t, self.taken_t)
        began = [seq for seq, _ in self._sent if seq <= told.seq]
        if began:
            self._sent = [(seq, grant_w) for seq, grant_w in self._sent if seq >= began[-1]]

    # --- what is said to it -----------------------------------------------------------------------------------------

    def grant(self, t: float, seq: int, grant_w: float) -> None:
        """Note what message `seq`, which goes out now, grants it."""
        self.granted_w = grant_w
        if not self._sent:
            self._answered_t = t
        if not self._sent or self._sent[-1][1] != grant_w:
            self._sent.append((seq, grant_w))

    # --- what it may draw -------------------------------------------------------------------------------------------

    @property
    def heard(self) -> bool:
        """Whether it was seen to speak."""
        return self._status is not None

    @property
    def follows(self) -> bool:
        """Whether it takes the site's word at all."""
        return self._status is not None and self._status.allowance is not None

    @property
    def confirmed(self) -> bool:
        """Whether it has taken a word of this daemon."""
        return self._confirmed > 0

    @property
    def own_w(self) -> float:
        """Its own budget, that of its breaker, as far as it is known."""
        if self._status is None:
            return self._spec.fail_safe_w
        told = self._status.allowance
        return told.own_w if told else self._status.domains[0].budget_w

    @property
    def in_force_w(self) -> float:
        """What it said last that it may draw."""
        return self._status.domains[0].budget_w if self._status else self._spec.fail_safe_w

    @property
    def fail_safe_w(self) -> float:
        """What it may always draw: by its own word and by ours, whichever is more."""
        if self._status is None:
            return self._spec.fail_safe_w
        told = self._status.allowance
        return max(self._spec.fail_safe_w, told.fail_safe_w if told else self.own_w)

    def reserved_w(self, *, settled: bool) -> float:
        """The most that it may draw. Until `settled`, words of another site daemon may still be on their way to it."""
        words_w = [grant_w for _, grant_w in self._sent]
        if not self.confirmed:
            words_w.append(self.in_force_w if settled else self.own_w)
        return max(self.fail_safe_w, self.power_w, *words_w)

    def note(self, t: float) -> str:
        """Why its budget is not to be moved at `t`; "" when it may be."""
        if self._status is None:
            return "not heard since the start"
        if t - self._heard_t > self._site.stale_after_s:
            return "silent: keeps what it may have"
        if self._status.allowance is None:
            return "follows no site: keeps its own budget"
        if t - self._answered_t > self._site.stale_after_s:
            return "does not take the site's word: keeps what it may have"
        return ""

    # --- what it asks for -------------------------------------------------------------------------------------------

    @property
    def wants_w(self) -> float:
        """The budget with which its policy would let go all that it holds, at the recent peak of its demand."""
        fracs = self._status.thresholds.values() if self._status else ()
        return self._peak_w / max(_LEAST_FRAC, min(fracs, default=1.0) - _GAP_FRAC)

    @property
    def softly_w(self) -> float:
        """The least budget that it takes with a lock and without a brake: just above the last threshold before it."""
        *locks, brake = sorted(self._status.thresholds.values() if self._status else ()) or [1.0]
        lock = max(locks, default=brake)
        return self.power_w / (lock + _ABOVE_FRAC * (brake - lock))

    @property
    def offends(self) -> bool:
        """Whether it draws clearly more than it said it may."""
        return self.power_w > (1 + self._site.gap_frac) * self.in_force_w

    def claim(self) -> Claim:
        """Its claim, from the most urgent step to the least."""
        classes = self._status.classes if self._status else ()
        moves_w = {
            priority: sum(each.demand_w - each.idle_w for each in classes if each.priority is priority)
            for priority in Priority
        }
        demand_w = max(self.demand_w, 1.0)
        floor_w = max(1.0, demand_w - sum(moves_w.values()))
        high_frac = (demand_w - moves_w[Priority.LOW]) / demand_w
        wants_w = self.wants_w
        return Claim(min(floor_w, self.fail_safe_w), self.fail_safe_w, high_frac * wants_w, wants_w, self.own_w)

    def row(self, t: float, *, settled: bool) -> SiteRow:
        """The row, for those who look."""
        return SiteRow(
            self.name,
            self.in_force_w if self.granted_w is None else self.granted_w,
            self.reserved_w(settled=settled),
            self.fail_safe_w,
            self.power_w,
            self.demand_w,
            self.wants_w,
            self.note(t),
        )
