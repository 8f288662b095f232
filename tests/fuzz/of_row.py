"""Any sequence of what a controller may be told, and what must hold of all that it says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Any

from hypothesis import strategies as st

from polcad.controller import Controller
from polcad.errors import OutrankedError
from polcad.model import (
    Event,
    Gpus,
    Hold,
    InForce,
    LeaseState,
    NodePlacement,
    Obedience,
    Outcome,
    Placement,
    Plan,
    Priority,
    Reading,
    Role,
    RowStatus,
    Setpoint,
    Telemetry,
)
from polcad.points import LoopFigures, Points
from polcad.ports import Heard, Held, Input, Placed, Point, Rival, Tick
from polcad.sinks.line import line
from polcad.spec import GuardSpec, NodeSpec, RackSpec, RowSpec
from polcad.wire import Address, decode, encode
from policies.polca import Polca

ROW = RowSpec(
    "row",
    9000.0,
    racks=(RackSpec("r0", 3500.0), RackSpec("r1")),
    nodes=(
        NodeSpec("n0", "r0", gpus=2),
        NodeSpec("n1", "r0", gpus=2, priority=Priority.HIGH, role=Role.TOKEN),
        NodeSpec("n2", "r1", gpus=2, host_w=300.0),
        NodeSpec("n3", "r1", gpus=0, priority=Priority.HIGH),
        NodeSpec("n4", "r1", gpus=2, in_service=False),
    ),
)
GUARD = GuardSpec(dwell_s=5.0, brake_dwell_s=2.0)
T0 = 1_760_000_000.0
EPOCH = int(T0 * 1e6)
_EPOCHS = st.sampled_from((0, EPOCH - 1, EPOCH, EPOCH + 1, EPOCH + 10**7, 2**53))
_NODES = st.sampled_from(("n0", "n1", "n2", "n3", "n4", "u0", "u1"))
_RACKS = st.sampled_from(("r0", "r1", "r2"))
_FRACS = st.sampled_from((0.0, 0.2, 0.5, 0.9, 1.0)) | st.floats(0.0, 1.0)
_SETPOINTS = st.builds(Setpoint, _FRACS, _FRACS)
_WATTS = st.sampled_from((120.0, 300.0, 400.0, 650.0, 700.0, None, 0.0, 5e-324, 1e5)) | st.floats(100.0, 700.0)
_MOST_W = st.sampled_from((700.0, 700.0, 700.0, 400.0, None, 0.0, 5e-324, 1e5))
_UUIDS = st.sampled_from(("g0", "g1", "g2", "g3", "", "a b,c=d\n\\", "ü"))
_STEPS_S = st.sampled_from((0.0, 0.1, 0.5, 1.0, 1.0, 1.0, 2.5, 4.0, 30.0, 1e4, -0.5, -30.0, -1e4))
_PLACEMENTS = st.builds(Placement, st.sampled_from(Priority), st.sampled_from(Role), st.sampled_from(("", "chat")))
_SCOPES = st.sampled_from(("row", "rack/r0", "rack/r9", "node/n0", "node/u1", "gpu/g0", "gpu/a b=\u2028,"))


@st.composite
def _telemetry(draw: st.DrawFn) -> Telemetry:
    uuids = tuple(draw(st.lists(_UUIDS, max_size=3)))
    n = len(uuids)

    def column(values: st.SearchStrategy[float | None]) -> tuple[float | None, ...]:
        return tuple(draw(st.lists(values, min_size=n, max_size=n)))

    gpus = Gpus(uuids, column(_WATTS), column(_MOST_W), enforced_w=column(_MOST_W) if draw(st.booleans()) else ())
    force = InForce((), column(st.none() | _FRACS), column(st.none() | _FRACS), _outcomes(draw, n))
    return Telemetry(
        node=draw(_NODES),
        boot_id=draw(st.sampled_from(("a", "b", "c"))),
        seq=draw(st.sampled_from((0, 1, 1, 1, 1, 1, 2**53 - 10**6))),  # from the one before; see `Row.move`
        t=draw(st.sampled_from((0.0, T0, 1e11))),
        period_s=draw(st.sampled_from((0.001, 1.0, 60.0, 3600.0))),
        reading=Reading(gpus, host_power_w=draw(st.none() | st.sampled_from((0.0, 900.0, 1e6)))),
        in_force=draw(st.sampled_from((force, None))),
        plan=draw(st.none() | st.builds(Obedience, _EPOCHS, st.just(1), st.sampled_from(LeaseState))),
    )


def _outcomes(draw: st.DrawFn, n: int) -> tuple[Outcome, ...]:
    return tuple(draw(st.lists(st.sampled_from(Outcome), min_size=n, max_size=n)))


def _held(name: str, scope: str, setpoint: Setpoint | None, lives_s: float) -> Held:
    return Held(0.0, name, scope, setpoint, T0 + lives_s)


_HEARD = st.builds(Heard, st.just(0.0), _telemetry(), _RACKS)
TOLD: st.SearchStrategy[Input] = st.one_of(
    _HEARD,
    st.builds(Placed, st.just(0.0), st.builds(NodePlacement, _NODES, _PLACEMENTS)),
    st.builds(
        _held,
        st.sampled_from(("h0", "h1")),
        _SCOPES,
        st.none() | _SETPOINTS,
        st.sampled_from((-1.0, 0.0, 3.0, 1e3, 1e10)),
    ),
    st.builds(Rival, st.just(0.0), _EPOCHS),
)
_SECOND = st.tuples(st.just(1.0), st.just(Tick(0.0)))
_AT_ONCE = st.tuples(st.just(0.0), _HEARD)
MOVES = st.lists(st.one_of(_SECOND, _AT_ONCE, _AT_ONCE, st.tuples(_STEPS_S, TOLD)), min_size=10, max_size=60)
Moves = Sequence[tuple[float, Input]]


@dataclass
class Row:
    """A controller that is told moves one by one, and asked each time whether all that must hold does."""

    controller: Controller = field(default_factory=lambda: Controller(ROW, GUARD, Polca(), EPOCH))
    t: float = T0
    moves: int = 0
    plan: Plan | None = None
    placed: bool = False  # since the last plan
    points: Points = field(default_factory=lambda: Points("site", "row"))

    def move(self, step_s: float, told: Input) -> None:
        """Tell it so much later; OutrankedError when it gives up the row."""
        self.t += step_s
        self.moves += 1
        event = _crossed(_numbered(replace(told, t=self.t), self.moves))
        self.placed |= isinstance(event, Placed)
        before = self.plan
        said = self.controller.on(event)
        if isinstance(event, Heard) and self.controller.knows(event.telemetry.node):
            _check_lines(self.points.telemetry(event, NodePlacement(event.telemetry.node)))
        for each in said:
            if isinstance(each, Plan):
                self._take(each)
            else:
                assert _again("event", each) == each
        self._check_status()
        if isinstance(event, Tick) and any(isinstance(each, Plan) for each in said):
            self._check_brake()
            if before is not None and not self.placed:
                self._check_doubt(before)
            self.placed = False

    def _take(self, plan: Plan) -> None:
        assert _again("plan", plan) == plan
        if self.plan is not None:
            assert (plan.epoch, plan.seq) > (self.plan.epoch, self.plan.seq)
        self.plan = plan
        _check_lines(self.points.plan(plan))

    def _check_status(self) -> None:
        status, nodes = self.controller.status(self.t), self.controller.nodes()
        assert _again("daemon", status) == status
        assert len({len(column) for column in (nodes.name, nodes.rack, nodes.power_w, nodes.max_w, nodes.fault)}) == 1
        assert all(isfinite(domain.power_w) and isfinite(domain.demand_w) for domain in status.domains)
        _check_lines(self.points.status(status, LoopFigures(0.0, 0.0)))
        self._check_holds(status)

    def _check_brake(self) -> None:
        """Over its budget, a domain holds all of its own at the brake or below."""
        plan, status = self.plan, self.controller.status(self.t)
        assert plan is not None
        for domain in status.domains:
            if domain.power_w > GUARD.brake_frac * domain.budget_w:
                rack = domain.scope.removeprefix("rack/")
                for node in ROW.nodes:
                    if domain.scope == "row" or node.rack == rack:
                        assert plan.setpoint(node.rack, node.name, "", node.placement).covers(GUARD.brake)

    def _check_doubt(self, before: Plan) -> None:
        """While a node is silent, no class of the row is held less than it was."""
        plan, status = self.plan, self.controller.status(self.t)
        assert plan is not None
        if status.nodes_stale:
            for group in status.classes:
                placement = Placement(group.priority, group.role)
                assert plan.setpoint("", "", "", placement).covers(before.setpoint("", "", "", placement))

    def _check_holds(self, status: RowStatus) -> None:
        """What is published is as strict as every rule of it."""
        if self.plan is not None and status.domains:
            for rule in status.domains[0].rules:
                if rule.scope == "row" and rule.role is None and rule.priority is None:
                    assert self.plan.setpoint("r0", "n0", "", Placement()).covers(rule.setpoint)


def _numbered(event: Input, moves: int) -> Input:
    """The event, its message counted on: most come in order."""
    if not isinstance(event, Heard):
        return event
    seq = event.telemetry.seq
    return replace(event, telemetry=replace(event.telemetry, seq=seq and moves + seq))


def _crossed(event: Input) -> Input:
    """The event as a daemon would have it: through the wire where a message carries it."""
    if isinstance(event, Heard):
        told = event.telemetry
        return replace(event, telemetry=_again("telemetry", told, event.rack, told.node))
    if isinstance(event, Placed):
        node = event.placement.node
        return replace(event, placement=_again("placement", event.placement, "r0", node))
    if isinstance(event, Held) and event.setpoint is not None:
        hold = Hold(event.name, event.scope, event.setpoint, event.until_t)
        assert decode(encode(Address("site", "row", "hold", hold=hold.name), hold))[1] == hold
    return event


def _again(
    kind: str, noun: Event | Plan | RowStatus | Telemetry | NodePlacement, rack: str = "", node: str = ""
) -> Any:
    return decode(encode(Address("site", "row", kind, rack, node), noun))[1]


def _check_lines(points: Sequence[Point]) -> None:
    for point in points:
        assert "\n" not in line(point)


def play(moves: Moves) -> None:
    """Tell all of it, until the controller gives up the row."""
    row = Row()
    try:
        for step_s, told in moves:
            row.move(step_s, told)
    except OutrankedError:
        return
