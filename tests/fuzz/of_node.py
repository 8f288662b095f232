"""Any sequence of what an agent may hand to an actuator, and what must hold of the GPUs that it sets."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hypothesis import strategies as st

from polcad.actuator import Actuator
from polcad.actuator_wire import ANSWERS, REQUESTS, Answer, Request, framed
from polcad.config import AgentSpec
from polcad.devices.bounded import BoundedDevice, Bounds
from polcad.follower import Follower
from polcad.model import (
    FREE,
    InForce,
    LeaseState,
    NodePlacement,
    Outcome,
    Placement,
    Plan,
    Priority,
    Role,
    Rule,
    Setpoint,
    Why,
)

BOUNDS = Bounds(lowest_clock_frac=0.3, lowest_cap_frac=0.4)
_GPUS = ("g0", "g1")
_START_S = 1000.0
_FRACS = st.sampled_from((0.0, 0.2, 0.5, 0.8, 1.0))
_SETPOINTS = st.builds(Setpoint, _FRACS, _FRACS)
_PRIORITIES, _ROLES = st.sampled_from((None, *Priority)), st.sampled_from((None, *Role))
_SCOPES = st.sampled_from(("row", "rack/rack", "node/n1", "node/n2", "gpu/g1"))
_RULES = st.builds(Rule, _SCOPES, _SETPOINTS, st.sampled_from(Why), _PRIORITIES, _ROLES)
_PLANS = st.builds(
    Plan,
    row=st.sampled_from(("row", "row", "row", "another")),
    epoch=st.integers(1, 3) | st.just(2**53),
    seq=st.integers(1, 9),
    t=st.sampled_from((0.0, 1.8e9, 1e11)),
    lease_s=st.sampled_from((0.1, 5.0, 3600.0)),
    fail_safe=_SETPOINTS,
    rules=st.lists(_RULES, max_size=3).map(tuple),
    shadow=st.sampled_from((False, False, True)),
)
_PLACEMENTS = st.builds(Placement, st.sampled_from(Priority), st.sampled_from(Role))
_REQUESTS = st.builds(
    Request,
    plan=st.none() | _PLANS,
    heard=st.sampled_from(("", "", "", "{}")),
    heard_s=st.sampled_from((0.0, _START_S, _START_S + 50.0, 1e10)),
    placement=st.none() | st.builds(NodePlacement, st.just("n1"), _PLACEMENTS),
    settle=st.booleans(),
)
Order = Request | float | None  # a request, seconds that pass, or the actuator starts anew
ORDERS: st.SearchStrategy[list[Order]] = st.lists(
    st.one_of(_REQUESTS, _REQUESTS, st.sampled_from((0.05, 1.0, 4.0, 100.0)), st.none()), max_size=25
)
Orders = Sequence[Order]


class Board:
    """Two GPUs that do as they are told, and keep it when the actuator is gone."""

    def __init__(self) -> None:
        self.held = dict.fromkeys(_GPUS, FREE)

    def apply(self, wanted: Mapping[str, Setpoint]) -> None:
        """Take every setpoint."""
        assert set(wanted) <= set(_GPUS)
        for uuid, setpoint in wanted.items():
            assert setpoint == BOUNDS.within(setpoint)
            self.held[uuid] = setpoint

    def in_force(self) -> InForce:
        """What holds."""
        clocks = tuple(each.clock_frac for each in self.held.values())
        caps = tuple(each.cap_frac for each in self.held.values())
        return InForce(_GPUS, clocks, caps, (Outcome.OK,) * len(_GPUS))


@dataclass
class Node:
    """An actuator over its GPUs, with a clock that moves when told."""

    folder: str
    board: Board
    now_s: float = _START_S
    newest: tuple[int, int] = (0, 0)  # of the plans that it accepted
    told: bool = False  # one was accepted, or a placement was, since it settled last

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Begin anew with what is on the disk and in the boards."""
        spec = AgentSpec(node="n1", state_dir=self.folder)
        self.follower = Follower(spec, BoundedDevice(self.board, BOUNDS), lambda: self.now_s)
        self.actuator = Actuator(self.follower, frozenset(), lambda: self.now_s)
        kept = self.follower._lease.plan  # what was accepted and not settled, or differs by its number alone, is not
        self.newest = (kept.epoch, kept.seq) if kept else (0, 0)
        self.told = False

    async def obey(self, order: Order) -> None:
        """Carry out one order, and ask whether all holds that must."""
        if order is None:
            await self.follower.close()
            self.start()
            await self._ask(Request(settle=True))
        elif isinstance(order, float):
            self.now_s += order
            await self._ask(Request(settle=True))
        else:
            await self._ask(order)

    async def _ask(self, request: Request) -> None:
        before = dict(self.board.held)
        kept = self.follower._lease.plan
        answer = await self.actuator._answer(REQUESTS.decode(framed(request)[4:]))
        assert ANSWERS.decode(framed(answer)[4:]) == answer
        plan = self.follower._lease.plan
        if plan is not None and plan is not kept:
            assert (plan.row, plan.shadow) == ("row", False)
            assert (plan.epoch, plan.seq) > self.newest
            self.newest, self.told = (plan.epoch, plan.seq), True
        self.told |= request.placement is not None  # a plan asks other things of another placement
        if answer.obedience is not None:
            self._check(answer, before)
            self.told = False

    def _check(self, answer: Answer, before: Mapping[str, Setpoint]) -> None:
        """What a settling left is as strict as the plan; in silence as the fail-safe too, and as what was there."""
        plan, placement = self.follower._lease.plan, self.follower._placement
        assert answer.obedience is not None
        if plan is None:
            assert self.board.held == before
            return
        for uuid, held in self.board.held.items():
            asked = plan.setpoint("rack", "n1", uuid, placement.of(uuid))
            if answer.obedience.lease is LeaseState.EXPIRED:
                asked = asked.strictest(plan.fail_safe)
                assert self.told or held.covers(before[uuid])
            assert held.covers(BOUNDS.within(asked))


def follow(orders: Orders) -> None:
    """Give a node all of these orders."""

    async def give(folder: str) -> None:
        node = Node(folder, Board())
        try:
            for order in orders:
                await node.obey(order)
        finally:
            await node.follower.close()

    with tempfile.TemporaryDirectory(prefix="polcad-fuzz-") as folder:
        asyncio.run(give(folder))
