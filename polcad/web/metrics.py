"""What a daemon tells Prometheus, by the table in `polcad.web.families`.

A hint that has expired is told no more, so a scaler that would follow it finds nothing, and falls back. So it is with a
row whose loop does not tick, as while the broker is gone: old figures would look like new ones. Counters are told from
zero on: Prometheus sees no first step of one that begins at 1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

from polcad.model import ClassStatus, DomainStatus, Event, EventKind, Hint, LeaseState, NodeColumns, RowStatus, Why
from polcad.points import LoopFigures
from polcad.ports import SinkCounts
from polcad.retiming import retimed
from polcad.standby import Contest
from polcad.web.book import Book
from polcad.web.families import COUNTER_NAMES, SPANS
from polcad.web.window import Parts, Window, spans

OLD_S = 30.0  # after the last tick, its figures are told no more
_Node = tuple[str, str]  # rack, name


@dataclass(frozen=True, slots=True)
class Ticked:
    """What was known at a tick."""

    status: RowStatus
    nodes: NodeColumns
    loop: LoopFigures


@dataclass(frozen=True, slots=True)
class Scene:
    """All that one scrape tells, taken at one moment; `laid_out` may then take its time in another thread."""

    row: str
    window_s: float
    broker_up: bool = False
    ready: bool = False
    leads: bool | None = None  # None: no other daemon could
    lock_up: bool | None = None
    ticked: Ticked | None = None
    tick_t: float | None = None
    hints: Sequence[Hint] = ()
    sinks: Mapping[str, SinkCounts] = field(default_factory=dict)
    events: Mapping[str, int] = field(default_factory=dict)
    domains_w: Parts[str] = ()
    nodes_w: Parts[_Node] = ()
    loop_s: Parts[str] = ()

    def laid_out(self) -> Book:
        """The metrics."""
        book, row = Book(), (self.row,)
        book.add("polcad_broker_up", (), self.broker_up)
        book.add("polcad_ready", (), self.ready)
        book.add("polcad_window_seconds", (), self.window_s)
        book.add("polcad_leads", row, self.leads)
        book.add("polcad_lock_up", row, self.lock_up)
        book.add("polcad_tick_timestamp_seconds", row, self.tick_t)
        for kind, n in self.events.items():
            book.add("polcad_events_total", (*row, kind), n)
        for hint in self.hints:
            _add_hint(book, hint)
        for name, counts in self.sinks.items():
            book.add_each("sink_", (name,), _of_sink(counts))
        if self.ticked is not None:
            self._add_tick(book, self.ticked)
        return book

    def _add_tick(self, book: Book, ticked: Ticked) -> None:
        status, row = ticked.status, (self.row,)
        book.add_each("", row, _of_row(status, ticked.loop))
        for name, (_, _, most_s) in spans(self.loop_s).items():
            book.add(f"polcad_{name}_max_seconds", row, most_s)
        for counter, name in COUNTER_NAMES.items():
            book.add(f"polcad_{name}_total", row, status.counters.get(counter, 0))
        for group in status.classes:
            book.add_each("class_", (*row, group.priority.value, group.role.value), _of_class(group))
        self._add_domains(book, ticked)
        _add_nodes(book, self.row, ticked.nodes)
        _add_spans(book, "node", (((self.row, *node), each) for node, each in spans(self.nodes_w).items()))

    def _add_domains(self, book: Book, ticked: Ticked) -> None:
        for domain in ticked.status.domains:
            labels = (self.row, domain.scope)
            book.add_each("domain_", labels, _of_domain(domain))
            for name, frac in ticked.status.thresholds.items():
                book.add("polcad_domain_threshold_watts", (*labels, name), frac * domain.budget_w)
        active = {(domain.scope, rule.why) for domain in ticked.status.domains for rule in domain.rules}
        for scope, why in ticked.loop.causes_s:
            book.add("polcad_domain_cause_active", (self.row, scope, why.value), (scope, why) in active)
        for domain, why in product(ticked.status.domains, Why):
            total_s = ticked.loop.causes_s.get((domain.scope, why), 0.0)
            book.add("polcad_domain_cause_seconds_total", (self.row, domain.scope, why.value), total_s)
        _add_spans(book, "domain", (((self.row, scope), each) for scope, each in spans(self.domains_w).items()))


class Metrics:
    """Keeps what a scrape of one row's daemon tells, in times as `told` tells them; for the event loop's thread."""

    def __init__(self, row: str, window_s: float, told: Callable[[float], float] = lambda t: t) -> None:
        self._row, self._window_s, self._told = row, window_s, told
        self._ticked: Ticked | None = None
        self._events: Counter[str] = Counter(dict.fromkeys(EventKind, 0))
        self._domains_w: Window[str] = Window(window_s)
        self._nodes_w: Window[_Node] = Window(window_s)
        self._loop_s: Window[str] = Window(window_s)

    def note(self, ticked: Ticked) -> None:
        """Take a tick."""
        self._ticked = ticked
        t, nodes = ticked.status.t, ticked.nodes
        self._domains_w.add(t, {domain.scope: domain.power_w for domain in ticked.status.domains})
        columns = zip(nodes.rack, nodes.name, nodes.power_w, strict=True)
        self._nodes_w.add(t, {(rack, name): power_w for rack, name, power_w in columns if power_w is not None})
        self._loop_s.add(t, {"tick_lag": ticked.loop.lag_s, "decide": ticked.loop.decide_s})

    def note_event(self, event: Event) -> None:
        """Count an event."""
        self._events[event.kind.value] += 1

    def scene(
        self,
        t: float,
        hints: Sequence[Hint],
        sinks: Mapping[str, SinkCounts],
        *,
        up: bool,
        ready: bool,
        contest: Contest | None = None,
    ) -> Scene:
        """All that a scrape at `t` tells."""
        tick_t = self._ticked.status.t if self._ticked else None
        fresh = tick_t is not None and t - tick_t <= OLD_S
        return Scene(
            row=self._row,
            window_s=self._window_s,
            broker_up=up,
            ready=ready,
            leads=contest.leads if contest else None,
            lock_up=not contest.trouble if contest else None,
            ticked=self._ticked if fresh else None,
            tick_t=None if tick_t is None else self._told(tick_t),
            hints=[retimed(hint, self._told) for hint in hints],
            sinks=sinks,
            events=dict(self._events),
            domains_w=self._domains_w.parts(),
            nodes_w=self._nodes_w.parts(),
            loop_s=self._loop_s.parts(),
        )


def _add_spans(book: Book, thing: str, found: Iterable[tuple[tuple[str, ...], tuple[float, float, float]]]) -> None:
    for labels, values in found:
        for span, value in zip(SPANS, values, strict=True):
            book.add(f"polcad_{thing}_power_{span}_watts", labels, value)


def _of_row(status: RowStatus, loop: LoopFigures) -> Iterator[tuple[str, float | None]]:
    yield "nodes", status.nodes
    yield "nodes_stale", status.nodes_stale
    yield "gpus", status.gpus
    yield "peak_ratio", status.peak_frac
    yield "shadow", status.shadow
    yield "site_leased", None if status.allowance is None else status.allowance.lease is LeaseState.HELD
    yield "reaction_p50_seconds", loop.reaction_p50_s
    yield "reaction_p99_seconds", status.reaction_p99_s
    yield "over_budget_seconds_total", status.over_budget_s
    yield "sent_plans_total", status.seq


def _of_class(group: ClassStatus) -> Iterator[tuple[str, float]]:
    yield "gpus", group.gpus
    yield "power_watts", group.power_w
    yield "clock_ratio", group.setpoint.clock_frac
    yield "cap_ratio", group.setpoint.cap_frac
    yield "victims", 0 if group.setpoint.free else group.gpus
    yield "obeying_gpus", group.obeying


def _of_domain(domain: DomainStatus) -> Iterator[tuple[str, float | None]]:
    yield "budget_watts", domain.budget_w
    yield "power_watts", domain.power_w
    yield "demand_watts", domain.demand_w
    if outlook := domain.outlook:
        yield "forecast_upper_watts", outlook.upper_w
        yield "forecast_horizon_seconds", outlook.horizon_s
        yield "forecast_hold_watts", outlook.hold_w
        yield "forecast_coverage_ratio", outlook.coverage
        yield "forecast_error_ratio", outlook.error_frac
        yield "forecast_doubted", bool(outlook.doubt)


def _add_nodes(book: Book, row: str, nodes: NodeColumns) -> None:
    columns = zip(
        nodes.name,
        nodes.rack,
        nodes.power_w,
        nodes.max_w,
        nodes.stale,
        nodes.clock_frac,
        nodes.cap_frac,
        nodes.fault,
        strict=True,
    )
    for name, rack, power_w, max_w, stale, clock_frac, cap_frac, fault in columns:
        labels = (row, rack, name)
        book.add("polcad_node_power_watts", labels, power_w)
        book.add("polcad_node_boards_max_watts", labels, max_w)
        book.add("polcad_node_stale", labels, stale)
        book.add("polcad_node_clock_ratio", labels, clock_frac)
        book.add("polcad_node_cap_ratio", labels, cap_frac)
        book.add("polcad_node_fault", labels, bool(fault))


def _add_hint(book: Book, hint: Hint) -> None:
    labels = (hint.row, hint.pool)
    for name, value_of in HINT_GAUGES.items():
        book.add(f"polcad_hint_{name}", labels, value_of(hint))
    for instance, share in hint.weights.items():
        book.add("polcad_hint_weight_ratio", (*labels, instance), share)


HINT_GAUGES: dict[str, Callable[[Hint], float | None]] = {
    "instances": lambda hint: hint.instances,
    "tensor_parallel": lambda hint: hint.tensor_parallel,
    "clock_ratio": lambda hint: hint.clock_frac,
    "requests_per_second": lambda hint: hint.requests_per_s,
    "tokens_per_second": lambda hint: hint.tokens_per_s,
    "power_watts": lambda hint: hint.power_w,
    "saves_watts": lambda hint: hint.saves_w,
    "timestamp_seconds": lambda hint: hint.t,
    "expires_timestamp_seconds": lambda hint: hint.expires_t,
}


def _of_sink(counts: SinkCounts) -> Iterator[tuple[str, float]]:
    yield "written_points_total", counts.written
    yield "dropped_points_total", counts.dropped
    yield "refused_points_total", counts.refused
    yield "retries_total", counts.retries
    yield "waiting_points", counts.waiting
