"""What a daemon hears and says, as points for time-series databases: the nouns go in, rows of `SCHEMA` come out.

Times are the daemon's: telemetry counts from its arrival, so a node whose clock is wrong writes into no other hour.
Times come in as the daemon counts them, and go out as `told` tells them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from polcad.measurements import COUNTERS, SCHEMA, THROTTLE
from polcad.model import (
    FREE,
    ClassStatus,
    DomainStatus,
    Event,
    Gpus,
    Hint,
    InForce,
    LeaseState,
    NodeColumns,
    NodePlacement,
    Outcome,
    Plan,
    PoolLoad,
    RowStatus,
    Rule,
    Why,
)
from polcad.ports import Heard, Point, SinkCounts

Tags = tuple[tuple[str, str], ...]
Fields = Mapping[str, float | str]

_GPU_COLUMNS = (
    *("power_w", "average_w", "energy_j", "util_frac", "memory_frac", "sm_mhz", "max_mhz", "temp_c"),
    *("max_w", "limit_w", "enforced_w", "throttle"),
)
_LOAD_FIELDS = tuple(each.name for each in SCHEMA["polcad_load"].fields)
_PLANS_KEPT = 256  # whose time is remembered, to tell the age of the plan that a node follows


@dataclass(frozen=True, slots=True)
class LoopFigures:
    """What a daemon knows of its own loop at a tick, besides `RowStatus`."""

    lag_s: float  # how late the tick came
    decide_s: float  # what the controller took for it
    reaction_last_s: float | None = None
    reaction_p50_s: float | None = None
    causes_s: Mapping[tuple[str, Why], float] = field(default_factory=dict)  # by scope: how long each has held


@dataclass(slots=True)
class _Node:
    """A node as last heard: its GPUs' tags, laid out once for as long as they serve."""

    uuids: tuple[str, ...]
    placement: NodePlacement
    tags: Tags
    gpu_tags: tuple[Tags, ...]
    t: float


class Points:
    """The points of one row's daemon."""

    def __init__(
        self, site: str, row: str, *, shadow: bool = False, told: Callable[[float], float] = lambda t: t
    ) -> None:
        self._told = told
        self._of_row: Tags = (("site", site), ("row", row))
        self._of_daemon: Tags = (*self._of_row, ("mode", "shadow" if shadow else "live"))
        self._nodes: dict[str, _Node] = {}
        self._plans: dict[tuple[int, int], float] = {}  # when each went out
        self._rules: tuple[Rule, ...] | None = None

    # --- nodes ------------------------------------------------------------------------------------------------------

    def telemetry(self, heard: Heard, placement: NodePlacement) -> list[Point]:
        """A node's message: one point a GPU, and one of the node."""
        said, before = heard.telemetry, self._nodes.get(heard.telemetry.node)
        node = self._node(heard, placement, before)
        self._nodes[said.node] = node
        columns = zip(node.gpu_tags, _gpu_fields(said.reading.gpus, said.in_force), strict=True)
        told_t = self._told(heard.t)
        points = [Point("polcad_gpu", tags, fields, told_t) for tags, fields in columns if fields]
        gap_s = None if before is None else heard.t - before.t
        fields = self._node_fields(heard, told_t - said.t, gap_s)
        points.append(Point("polcad_node", node.tags, fields, told_t))
        return points

    def _node(self, heard: Heard, placement: NodePlacement, before: _Node | None) -> _Node:
        said = heard.telemetry
        uuids = said.reading.gpus.uuid
        tags = (*self._of_row, ("rack", heard.rack), ("node", said.node))
        if before and before.uuids == uuids and before.placement == placement and before.tags == tags:
            return _Node(uuids, placement, before.tags, before.gpu_tags, heard.t)
        gpu_tags = tuple(_gpu_tags(tags, index, uuid, placement) for index, uuid in enumerate(uuids))
        return _Node(uuids, placement, tags, gpu_tags, heard.t)

    def _node_fields(self, heard: Heard, delay_s: float, gap_s: float | None) -> Fields:
        said = heard.telemetry
        gpus, force, plan = said.reading.gpus, said.in_force, said.plan
        read = [power_w for power_w in gpus.power_w if power_w is not None]
        fields = {
            "power_w": sum(read) if read else None,
            "host_w": said.reading.host_power_w,
            "gpus": len(gpus.uuid),
            "gpus_read": len(read),
            "gap_s": gap_s,
            "delay_s": delay_s,
            "dropped": said.dropped,
            "overridden": force.outcome.count(Outcome.OVERRIDDEN) if force else None,
            "stale": 0,
        }
        if plan is not None:
            sent_t = self._plans.get((plan.epoch, plan.seq))
            fields |= {"leased": int(plan.lease is LeaseState.HELD), "plan_seq": plan.seq, "refused": plan.refused}
            fields["plan_age_s"] = None if sent_t is None else heard.t - sent_t
        known = _known(fields)
        return known if plan is None else {**known, "lease": plan.lease.value}

    def nodes(self, t: float, columns: NodeColumns) -> list[Point]:
        """The nodes that are silent."""
        silent = (
            (name, rack) for name, rack, stale in zip(columns.name, columns.rack, columns.stale, strict=True) if stale
        )
        return [
            Point("polcad_node", (*self._of_row, ("rack", rack), ("node", name)), {"stale": 1}, self._told(t))
            for name, rack in silent
        ]

    # --- the daemon -------------------------------------------------------------------------------------------------

    def plan(self, plan: Plan) -> list[Point]:
        """The rules of a plan, where they are others than those of the plan before."""
        self._plans[plan.epoch, plan.seq] = plan.t
        if len(self._plans) > _PLANS_KEPT:
            del self._plans[next(iter(self._plans))]
        if plan.rules == self._rules:
            return []
        self._rules = plan.rules
        return [
            self._point("polcad_plan", plan.t, _rule_tags(rule), {**_setpoint(rule), "seq": plan.seq})
            for rule in plan.rules or (None,)
        ]

    def event(self, event: Event) -> list[Point]:
        """One event."""
        tags = (("kind", event.kind.value), ("scope", event.scope))
        powers = _known({"power_w": event.power_w, "budget_w": event.budget_w})
        return [self._point("polcad_event", event.t, tags, {"count": 1, "detail": event.detail, **powers})]

    def status(self, status: RowStatus, loop: LoopFigures) -> list[Point]:
        """The row at a tick."""
        t = status.t
        points = [self._point("polcad_loop", t, (), _loop_fields(status, loop))]
        points += [self._point("polcad_class", t, _class_tags(each), _class_fields(each)) for each in status.classes]
        for domain in status.domains:
            points += self._domain(t, domain, status.thresholds)
        for (scope, why), total_s in loop.causes_s.items():
            active = any(rule.why is why for domain in status.domains if domain.scope == scope for rule in domain.rules)
            tags = (("scope", scope), ("why", why.value))
            points.append(self._point("polcad_cause", t, tags, {"active": int(active), "total_s": total_s}))
        return points

    def _domain(self, t: float, domain: DomainStatus, thresholds: Mapping[str, float]) -> Iterator[Point]:
        scope = ("scope", domain.scope)
        yield self._point("polcad_domain", t, (scope,), _domain_fields(t, domain))
        for name, frac in thresholds.items():
            fields = {"limit_w": frac * domain.budget_w, "limit_frac": frac}
            yield self._point("polcad_threshold", t, (scope, ("name", name)), fields)
        if outlook := domain.outlook:
            figures = _known(
                {
                    "upper_w": outlook.upper_w,
                    "horizon_s": outlook.horizon_s,
                    "hold_w": outlook.hold_w,
                    "hold_s": outlook.hold_s,
                    "q_frac": outlook.q,
                    "coverage_frac": outlook.coverage,
                    "error_frac": outlook.error_frac,
                    "doubted": int(bool(outlook.doubt)),
                }
            )
            yield self._point("polcad_forecast", t, (scope,), {**figures, "doubt": outlook.doubt})

    def sinks(self, t: float, counts: Mapping[str, SinkCounts]) -> list[Point]:
        """What became of the points so far."""
        return [
            self._point(
                "polcad_sink",
                t,
                (("sink", name),),
                {
                    "written": each.written,
                    "dropped": each.dropped,
                    "refused": each.refused,
                    "retries": each.retries,
                    "waiting": each.waiting,
                },
            )
            for name, each in counts.items()
        ]

    def _point(self, measurement: str, t: float, tags: Tags, fields: Fields) -> Point:
        return Point(measurement, self._of_daemon + tags, fields, self._told(t))

    # --- pools ------------------------------------------------------------------------------------------------------

    def hints(self, t: float, hints: Sequence[Hint]) -> list[Point]:
        """The hints that hold at `t`."""
        told_t = self._told(t)
        tags = (((*self._of_row, ("pool", hint.pool)), hint) for hint in hints)
        return [Point("polcad_hint", tag, {**_hint_fields(t, hint), "why": hint.why}, told_t) for tag, hint in tags]

    def load(self, t: float, load: PoolLoad) -> list[Point]:
        """An instance's load, heard at `t`."""
        tags = (*self._of_row, ("pool", load.pool), ("instance", load.instance))
        figures = {name: getattr(load, name) for name in _LOAD_FIELDS}
        fields = {name: value for name, value in figures.items() if value is not None}
        return [Point("polcad_load", tags, fields, self._told(t))]


def _known(fields: Mapping[str, float | None]) -> dict[str, float | str]:
    return {name: value for name, value in fields.items() if value is not None}


def _gpu_tags(node: Tags, index: int, uuid: str, placement: NodePlacement) -> Tags:
    placed = placement.of(uuid)
    pool = (("pool", placed.pool),) if placed.pool else ()
    return (
        *node,
        ("gpu", str(index)),
        ("uuid", uuid),
        ("priority", placed.priority.value),
        ("role", placed.role.value),
        *pool,
    )


def _gpu_fields(gpus: Gpus, force: InForce | None) -> Iterator[dict[str, float | str]]:
    """One entry a GPU; columns that were not measured are empty, and cost nothing."""
    columns: dict[str, Iterable[float | str | None]] = {name: getattr(gpus, name) for name in _GPU_COLUMNS}
    columns["throttled_by"] = tuple(None if bits is None else throttled_by(bits) for bits in gpus.throttle)
    columns["fault"] = gpus.fault
    if force is not None:
        columns |= {
            "clock_frac": force.clock_frac,
            "cap_frac": force.cap_frac,
            "outcome": tuple(outcome.value for outcome in force.outcome),
            "overridden": tuple(int(outcome is Outcome.OVERRIDDEN) for outcome in force.outcome),
            "failed": tuple(int(outcome in {Outcome.FAILED, Outcome.DENIED}) for outcome in force.outcome),
        }
    measured = {name: column for name, column in columns.items() if column}
    names = tuple(measured)
    for values in zip(*measured.values(), strict=True):
        yield {name: value for name, value in zip(names, values, strict=True) if value is not None}


@lru_cache(maxsize=1024)
def throttled_by(bits: int) -> str:
    """The names of NVML's reasons in `bits`, joined by ``+``; "" for none."""
    return "+".join(name for name, bit in THROTTLE.items() if bits & bit)


def _setpoint(rule: Rule | None) -> dict[str, float]:
    setpoint = FREE if rule is None else rule.setpoint
    return {"clock_frac": setpoint.clock_frac, "cap_frac": setpoint.cap_frac}


def _rule_tags(rule: Rule | None) -> Tags:
    if rule is None:
        return (("scope", "row"), ("why", "none"), ("priority", "any"), ("role", "any"))
    priority, role = (each.value if each else "any" for each in (rule.priority, rule.role))
    return (("scope", rule.scope), ("why", rule.why.value), ("priority", priority), ("role", role))


def _class_tags(group: ClassStatus) -> Tags:
    return (("priority", group.priority.value), ("role", group.role.value))


def _class_fields(group: ClassStatus) -> Fields:
    return {
        "gpus": group.gpus,
        "power_w": group.power_w,
        "clock_frac": group.setpoint.clock_frac,
        "cap_frac": group.setpoint.cap_frac,
        "victims": 0 if group.setpoint.free else group.gpus,
        "obeying": group.obeying,
    }


def _domain_fields(t: float, domain: DomainStatus) -> Fields:
    setpoints = [rule.setpoint for rule in domain.rules]
    held = {"held_s": t - domain.since_t} if domain.since_t else {}
    return {
        "budget_w": domain.budget_w,
        "power_w": domain.power_w,
        "demand_w": domain.demand_w,
        "headroom_w": domain.budget_w - domain.power_w,
        "used_frac": domain.power_w / domain.budget_w,
        "clock_frac": min((each.clock_frac for each in setpoints), default=1.0),
        "cap_frac": min((each.cap_frac for each in setpoints), default=1.0),
        "rules": len(domain.rules),
        "why": "+".join(sorted({rule.why.value for rule in domain.rules})) or "none",
        "waiting": domain.waiting,
        **held,
    }


def _loop_fields(status: RowStatus, loop: LoopFigures) -> Fields:
    counted = {name: status.counters.get(name, 0) for name in COUNTERS}
    return _known(
        {
            "nodes": status.nodes,
            "nodes_stale": status.nodes_stale,
            "gpus": status.gpus,
            "gpus_loose": sum(group.gpus - group.obeying for group in status.classes),
            "lag_s": loop.lag_s,
            "decide_s": loop.decide_s,
            "reaction_last_s": loop.reaction_last_s,
            "reaction_p50_s": loop.reaction_p50_s,
            "reaction_p99_s": status.reaction_p99_s,
            "peak_frac": status.peak_frac,
            "over_budget_s": status.over_budget_s,
            "seq": status.seq,
            **counted,
        }
    )


def _hint_fields(t: float, hint: Hint) -> Fields:
    return _known(
        {
            "instances": hint.instances,
            "tensor_parallel": hint.tensor_parallel,
            "clock_frac": hint.clock_frac,
            "requests_per_s": hint.requests_per_s,
            "tokens_per_s": hint.tokens_per_s,
            "power_w": hint.power_w,
            "saves_w": hint.saves_w,
            "left_s": hint.expires_t - t,
        }
    )
