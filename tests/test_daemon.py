"""The daemon in this process, on the embedded broker: what it takes from the wire and what it says there."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import pytest

from polcad import daemon as module
from polcad.backlog import Received
from polcad.broker import embedded
from polcad.broker_spec import BrokerSpec
from polcad.config import SiteSpec
from polcad.daemon import Daemon
from polcad.model import (
    FREE,
    Event,
    EventKind,
    Hold,
    NodePlacement,
    Placement,
    Plan,
    Priority,
    Role,
    RowStatus,
    Setpoint,
)
from polcad.mqtt import Link, Presence
from polcad.pki import make_plan_key
from polcad.ports import Heard, Held, Point, SinkCounts, Tick
from polcad.signing import SigningSpec
from polcad.spec import GuardSpec, NodeSpec, RackSpec, RowSpec
from polcad.telling import Outlets
from polcad.testing import telemetry
from polcad.testing_brokers import free_port
from polcad.wire import KINDS, Address, Message, decode, encode, everywhere
from policies.polca import Polca
from tests.waiting import eventually

T = TypeVar("T")

NODES = (
    NodeSpec("n1", "r1", gpus=2, gpu_max_w=400.0, priority=Priority.HIGH, role=Role.PROMPT),
    NodeSpec("n2", "r1", gpus=2, gpu_max_w=400.0),
)
ROW = RowSpec("row", 1500.0, (RackSpec("r1"),), NODES)
GUARD = GuardSpec(tick_s=0.02, stale_after_s=5.0)


class Ear:
    """Hears everything in the row, and says what a test wants."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.messages: list[Message] = []

    async def listen(self) -> None:
        async for batch in self.link.batches():
            self.messages += [received.message for received in batch]

    def nouns(self, noun: type[T]) -> list[T]:
        heard = [decode(message)[1] for message in self.messages]
        return [each for each in heard if isinstance(each, noun)]

    async def say(self, kind: str, noun: Any, node: str = "", rack: str = "r1") -> None:
        await self.link.publish(encode(Address("site", "row", kind, rack if node else "", node), noun))


def daemon_at(broker: BrokerSpec, *, shadow: bool = False) -> Daemon:
    return Daemon(SiteSpec("site"), ROW, GUARD, Polca(), broker, shadow=shadow)


@asynccontextmanager
async def heard() -> AsyncIterator[tuple[Ear, BrokerSpec]]:
    async with embedded() as broker:
        presence = Presence("ear", tuple(everywhere("site", "row", kind) for kind in KINDS))
        async with Link(broker, presence, time.monotonic, Random(1)).opened() as link:  # noqa: S311  # spreads retries
            ear = Ear(link)
            listening = asyncio.create_task(ear.listen())
            yield ear, broker
            listening.cancel()


@asynccontextmanager
async def running(daemon: Daemon) -> AsyncIterator[None]:
    task = asyncio.create_task(daemon.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


@pytest.mark.integration
def test_a_daemon_speaks_of_its_row_at_once_and_plans_once_every_node_has_spoken() -> None:
    async def scenario() -> None:
        async with heard() as (ear, broker), running(daemon_at(broker)):
            await eventually(lambda: bool(ear.nouns(RowStatus)))
            assert ear.nouns(RowStatus)[-1].domains == ()
            assert not ear.nouns(Plan)
            await ear.say("telemetry", telemetry("n1", 390.0, gpus=2, max_w=400.0, setpoint=FREE), "n1")
            await ear.say("telemetry", telemetry("n2", 390.0, gpus=2, max_w=400.0, setpoint=FREE), "n2")
            await eventually(lambda: any(plan.rules for plan in ear.nouns(Plan)))
            await eventually(lambda: ear.nouns(RowStatus)[-1].nodes_stale == 0)
            await eventually(lambda: bool(ear.nouns(Event)))  # acknowledged, so on a way of its own
            assert [event.kind for event in ear.nouns(Event)] == [EventKind.BRAKE]

    asyncio.run(scenario())


@pytest.mark.integration
def test_a_daemon_that_stops_says_so_and_its_word_is_kept() -> None:
    async def scenario() -> None:
        async with heard() as (ear, broker):
            async with running(daemon_at(broker)):
                await eventually(lambda: bool(ear.nouns(RowStatus)))
            await eventually(lambda: not ear.nouns(RowStatus)[-1].online)

    asyncio.run(scenario())


@pytest.mark.integration
def test_nodes_are_told_what_the_inventory_says_unless_the_scheduler_has_spoken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_HEARD_BEFORE_PLACING_S", 0.1)
    scheduled = NodePlacement("n1", Placement(Priority.LOW, Role.TOKEN), source="scheduler")

    async def scenario() -> None:
        async with heard() as (ear, broker):
            await ear.say("placement", scheduled, "n1")
            await eventually(lambda: bool(ear.nouns(NodePlacement)))
            async with running(daemon_at(broker)):
                await eventually(lambda: len(ear.nouns(NodePlacement)) == 2)
                await eventually(lambda: len(ear.nouns(RowStatus)) > 5)
        assert ear.nouns(NodePlacement) == [scheduled, NodePlacement("n2", NODES[1].placement)]

    asyncio.run(scenario())


@pytest.mark.integration
@pytest.mark.parametrize("beside_a_live_one", [True, False])
def test_a_shadow_places_nobody_and_beside_the_rows_own_daemon_it_says_its_plans_alone(
    monkeypatch: pytest.MonkeyPatch,
    beside_a_live_one: bool,
) -> None:
    monkeypatch.setattr(module, "_HEARD_BEFORE_PLACING_S", 0.0)

    async def scenario() -> None:
        async with heard() as (ear, broker):
            if beside_a_live_one:
                await ear.say("daemon", RowStatus("row", online=True, epoch=1))
                await eventually(lambda: bool(ear.nouns(RowStatus)))
            async with running(daemon_at(broker, shadow=True)):
                async with asyncio.timeout(10.0):
                    while not any(plan.rules for plan in ear.nouns(Plan)):  # it may not listen yet
                        for node in ("n1", "n2"):
                            said = telemetry(node, 390.0, gpus=2, max_w=400.0, seq=time.time_ns() % 2**53)
                            await ear.say("telemetry", said, node)
                        await asyncio.sleep(0.01)
                planned = len(ear.nouns(Plan))
                await eventually(lambda: len(ear.nouns(Plan)) > planned + 10)
                await eventually(lambda: beside_a_live_one or bool(ear.nouns(Event)))
        assert all(plan.shadow for plan in ear.nouns(Plan))
        assert not ear.nouns(NodePlacement)
        assert not (beside_a_live_one and ear.nouns(Event))
        assert len(ear.nouns(RowStatus)) == 1 or not beside_a_live_one

    asyncio.run(scenario())


@pytest.mark.integration
def test_a_placement_of_the_scheduler_counts_from_then_on() -> None:
    async def scenario() -> None:
        async with heard() as (ear, broker), running(daemon_at(broker)):
            await eventually(lambda: bool(ear.nouns(RowStatus)))
            for node in ("n1", "n2"):
                await ear.say("telemetry", telemetry(node, 100.0, gpus=2, max_w=400.0, setpoint=FREE), node)
            await ear.say("placement", NodePlacement("n2", Placement(Priority.HIGH, Role.TOKEN)), "n2")
            classes = {(Priority.HIGH, Role.PROMPT), (Priority.HIGH, Role.TOKEN)}
            await eventually(
                lambda: {(each.priority, each.role) for each in ear.nouns(RowStatus)[-1].classes} == classes
            )

    asyncio.run(scenario())


@pytest.mark.integration
def test_nothing_is_judged_while_the_broker_is_away() -> None:
    daemon = daemon_at(BrokerSpec(port=free_port()))

    async def scenario() -> None:
        async with running(daemon):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):  # ten ticks
                    await asyncio.Event().wait()

    asyncio.run(scenario())
    assert daemon.controller.counters["ticks"] == 0


def test_a_plan_is_signed_with_the_time_that_nodes_judge_it_by_though_the_clock_was_set_since_the_start(
    tmp_path: Path,
) -> None:
    private, public = make_plan_key(tmp_path, "row")
    spec = SigningSpec(str(private), str(public))
    daemon, trust = Daemon(SiteSpec(), ROW, GUARD, Polca(), BrokerSpec(), signer=spec.signer()), spec.trust()
    assert trust is not None
    daemon._clock._offset_s -= 3600.0  # the wall clock was set an hour forward since
    asyncio.run(daemon.apply(Plan("row", 1, 1, daemon._clock.now(), 5.0, FREE)))
    message = daemon._link._unacknowledged.pop()
    assert message is not None
    assert trust.plan(message.topic, message.payload, time.time()).seq == 1


def test_all_that_is_told_after_the_wall_clock_was_set_is_in_its_time_and_all_that_is_counted_in_ours() -> None:
    sink = Filled()
    daemon = Daemon(SiteSpec(), ROW, GUARD, Polca(), BrokerSpec(), outlets=Outlets({"filled": sink}))
    daemon._clock._offset_s += 3600.0  # the wall clock was set an hour back since
    t, wall_t = daemon._clock.now(), time.time()
    asyncio.run(daemon.apply(Plan("row", 1, 1, t, 5.0, FREE)))
    asyncio.run(daemon.apply(Event(t, EventKind.RESUME, "row")))
    said = replace(telemetry("n1", 100.0, gpus=2, max_w=400.0), t=wall_t)
    for event in (Heard(t, said, "r1"), Heard(t, replace(said, node="n2"), "r1"), Tick(t)):
        daemon.on(event)
        daemon.note(event)

    sent = [*iter(daemon._link._unacknowledged.pop, None), *iter(daemon._link._acknowledged.pop, None)]
    nouns = [decode(message)[1] for message in sent]
    assert {type(noun) for noun in nouns} == {Plan, Event, RowStatus}
    assert all(noun.t == pytest.approx(wall_t, abs=5.0) for noun in nouns)
    assert all(point.t == pytest.approx(wall_t, abs=5.0) for point in sink.points)
    delays_s = [point.fields["delay_s"] for point in sink.points if "delay_s" in point.fields]
    assert delays_s == [pytest.approx(0.0, abs=5.0)] * 2
    scene = daemon.telling.scene()
    assert scene.tick_t == pytest.approx(wall_t, abs=5.0)
    assert scene.ticked is not None  # it counts as fresh
    hold = Hold("h1", "row", Setpoint(0.5), wall_t + 60.0)
    held = daemon._event(Received(t, encode(Address("site", "row", "hold", hold="h1"), hold)))
    assert isinstance(held, Held)
    assert held.until_t == pytest.approx(t + 60.0, abs=5.0)


def test_a_flood_of_made_up_names_fills_no_database() -> None:
    sink = Filled()
    daemon = Daemon(SiteSpec(), ROW, GUARD, Polca(), BrokerSpec(), outlets=Outlets({"filled": sink}))
    for number in range(2000):
        heard = Heard(number / 1000, telemetry(f"made-up-{number}"), "r1")
        daemon.on(heard)
        daemon.note(heard)
    refused = daemon.status().counters["refused_unlisted"]
    assert refused > 0
    assert len(sink.nodes) == 2000 - refused


class Filled:
    """A sink that remembers which nodes it was told of."""

    def __init__(self) -> None:
        self.nodes: set[str] = set()
        self.points: list[Point] = []

    def put(self, points: Sequence[Point]) -> None:
        self.points += points
        self.nodes |= {value for point in points for name, value in point.tags if name == "node"}

    def counts(self) -> SinkCounts:
        return SinkCounts()


def test_an_event_is_one_line_of_log() -> None:
    event = Event(1.0, EventKind.TIGHTEN, "row", "low: clock 0.9", 1200.0, 1500.0)
    assert str(event) == "row: tighten at 1200 W of 1500 W: low: clock 0.9"
    assert str(Event(1.0, EventKind.FRESH, "node/n1")) == "node/n1: fresh"
