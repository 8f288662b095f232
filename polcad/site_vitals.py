"""What a site's daemon shows machines: its budget and its rows as metrics, and whether it is well."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from polcad.model import Event, EventKind, SiteRow, SiteStatus
from polcad.pulse import Pulse
from polcad.standby import Contest
from polcad.web.book import Book

_OLD_S = 30.0  # after the last tick its figures are told no more
_OF_ROW: dict[str, Callable[[SiteRow], float]] = {
    "granted_watts": lambda row: row.budget_w,
    "reserved_watts": lambda row: row.reserved_w,
    "fail_safe_watts": lambda row: row.fail_safe_w,
    "power_watts": lambda row: row.power_w,
    "demand_watts": lambda row: row.demand_w,
    "wants_watts": lambda row: row.wants_w,
    "held": lambda row: bool(row.note),
}


@dataclass(frozen=True, slots=True)
class SiteScene:
    """All that one scrape tells, taken at one moment."""

    connected: bool
    ready: bool
    site: str = ""
    leads: bool | None = None  # None: no other daemon could
    lock_up: bool | None = None
    status: SiteStatus | None = None
    events: Mapping[str, int] = field(default_factory=dict)

    def laid_out(self) -> Book:
        """The metrics."""
        book = Book()
        book.add("polcad_broker_up", (), self.connected)
        book.add("polcad_ready", (), self.ready)
        site = (self.site,)
        book.add("polcad_site_leads", site, self.leads)
        book.add("polcad_site_lock_up", site, self.lock_up)
        if (status := self.status) is None:
            return book
        book.add("polcad_site_budget_watts", site, status.budget_w)
        book.add("polcad_site_power_watts", site, status.power_w)
        book.add("polcad_site_granted_watts", site, sum(row.budget_w for row in status.rows))
        book.add("polcad_site_over", site, status.over)
        book.add("polcad_site_sent_budgets_total", site, status.seq)
        for kind, n in self.events.items():
            book.add("polcad_site_events_total", (*site, kind), n)
        for row in status.rows:
            for name, value_of in _OF_ROW.items():
                book.add(f"polcad_site_row_{name}", (*site, row.row), value_of(row))
        return book


class SiteVitals:
    """What is watched of one site's daemon, on its clock `now`; from its event loop's thread."""

    def __init__(self, site: str, now: Callable[[], float], contest: Contest | None = None) -> None:
        self.pulse = Pulse()
        self.connected = False  # to the broker
        self._site, self._now, self._contest = site, now, contest
        self._ticked_t = float("-inf")
        self._status: SiteStatus | None = None
        self._events: Counter[str] = Counter(dict.fromkeys(EventKind, 0))

    def ticked(self, t: float, status: SiteStatus) -> None:
        """A tick is over."""
        self._ticked_t, self._status = t, status

    def note_event(self, event: Event) -> None:
        """Count an event."""
        self._events[event.kind.value] += 1

    def scene(self) -> SiteScene:
        """What a scrape tells now."""
        status = self._status if self._now() - self._ticked_t <= _OLD_S else None
        contest = self._contest
        return SiteScene(
            self.connected,
            not self.unready(),
            self._site,
            contest.leads if contest else None,
            not contest.trouble if contest else None,
            status,
            dict(self._events),
        )

    def stalled(self) -> str:
        """Why the loop counts as standing still; "" while it turns."""
        return self.pulse.stalled()

    def unready(self) -> list[str]:
        """Why the daemon cannot divide its site's power, or could not take that over; empty while it can."""
        found = [] if self.connected else ["the broker is not reached"]
        if self._contest is not None and not self._contest.leads:
            return [*found, *filter(None, [self._contest.trouble])]
        status = self._status
        if status is None:
            return [*found, "the loop has not ticked yet"]
        if status.rows and all(row.note for row in status.rows):
            found.append(f"none of {len(status.rows)} rows can be moved: {status.rows[0].note}")
        return found
