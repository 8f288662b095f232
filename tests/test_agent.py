"""One agent, in this process, over GPUs that exist only here."""

import asyncio
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from polcad.agent import Agent, aligned, build_parts
from polcad.broker import embedded
from polcad.broker_spec import BrokerSpec
from polcad.config import AgentSpec
from polcad.errors import ConfigError
from polcad.follower import Memory
from polcad.model import (
    InForce,
    LeaseState,
    NodePlacement,
    Outcome,
    Placement,
    Plan,
    Priority,
    Rule,
    Setpoint,
    Telemetry,
    Why,
)
from polcad.mqtt import Link, Presence
from polcad.testing_brokers import free_port
from polcad.wire import Address, decode, encode
from tests.waiting import eventually

LOW, SAFE = Setpoint(0.8), Setpoint(0.7)
PLAN = Plan("row", 5, 1, 0.0, 60.0, SAFE, (Rule("row", LOW, Why.T1, Priority.LOW),))
PLAN_TOPIC = Address("site", "row", "plan")
TELEMETRY = Address("site", "row", "telemetry", "rack", "n1")
PLACEMENT = Address("site", "row", "placement", "rack", "n1")


def spec_of(folder: Path, **more: Any) -> AgentSpec:
    options = {"gpus": 2, "noise_frac": 0.0}
    given = {"collector": "synthetic", "collector_options": options, "device": "synthetic", "period_s": 0.05, **more}
    return AgentSpec(node="n1", state_dir=str(folder), **given)


# --- what is kept for a restart ---------------------------------------------------------------------------------------


def test_a_plan_is_kept_whole_and_found_by_the_next_run(tmp_path: Path) -> None:
    path = tmp_path / "state" / "plan.json"
    Memory(path).keep(PLAN)
    assert Memory(path).recall() == PLAN
    assert [each.name for each in path.parent.iterdir()] == ["plan.json"]


def test_a_plan_that_asks_for_the_same_is_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    memory = Memory(path)
    memory.keep(PLAN)
    written = path.stat().st_mtime_ns
    memory.keep(replace(PLAN, seq=2, t=9.0))
    assert path.stat().st_mtime_ns == written
    memory.keep(replace(PLAN, seq=3, rules=()))
    assert Memory(path).recall() == replace(PLAN, seq=3, rules=())


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b'{"row": "row"}', b"[]"])
def test_what_cannot_be_read_is_said_aloud_and_is_no_plan(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    (tmp_path / "plan.json").write_bytes(content)
    assert Memory(tmp_path / "plan.json").recall() is None
    assert "GPUs stay as they are" in caplog.text


def test_a_draft_left_by_a_crash_is_nothing(tmp_path: Path) -> None:
    memory = Memory(tmp_path / "plan.json")
    memory.keep(PLAN)
    (tmp_path / "plan.new").write_bytes(b'{"row": ')
    assert Memory(tmp_path / "plan.json").recall() == PLAN


def test_a_disk_that_takes_nothing_is_an_error_that_leaves_the_old_plan(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        Memory(tmp_path / "file" / "plan.json").keep(PLAN)


def test_a_disk_that_hangs_keeps_no_brake_from_the_gpus(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    collector, follower = build_parts(spec)
    gpus: Any = collector
    draft = spec.plan_path.with_suffix(".new")
    os.mkfifo(draft)  # whoever writes it waits for a reader

    async def scenario() -> None:
        await follower.offer(PLAN, time.monotonic())
        await asyncio.wait_for(follower.settle(), 5.0)
        brake = replace(PLAN, seq=2, rules=(Rule("row", Setpoint(0.5), Why.BRAKE),))
        await follower.offer(brake, time.monotonic())
        await asyncio.wait_for(follower.settle(), 5.0)
        assert {round(each.clock_frac, 1) for each in gpus.in_force.values()} == {0.5}
        with draft.open("rb"):
            await follower.close()

    asyncio.run(scenario())


# --- alignment and parts ----------------------------------------------------------------------------------------------


def test_what_is_in_force_is_told_in_the_order_of_the_reading() -> None:
    force = InForce(("a", "b"), (0.5, 0.6), (1.0, 0.9), (Outcome.OK, Outcome.CLAMPED), ("", "low"))
    assert aligned(force, ("b", "x", "a")) == InForce(
        (), (0.6, None, 0.5), (0.9, None, 1.0), (Outcome.CLAMPED, Outcome.UNMANAGED, Outcome.OK), ("low", "", "")
    )


def test_where_all_is_well_nothing_is_said_in_detail() -> None:
    assert aligned(InForce(("a",), (1.0,), (1.0,), (Outcome.OK,), ("",)), ("a",)).detail == ()


def test_parts_that_are_not_there_are_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nonsense"):
        build_parts(spec_of(tmp_path, collector="nonsense"))
    with pytest.raises(ConfigError, match="it needs collector nvml"):
        build_parts(spec_of(tmp_path, device="nvml"))


def test_an_agent_loads_neither_numpy_nor_statsmodels_nor_a_web_server() -> None:
    program = "import sys, polcad.cli, polcad.agent, collectors.nvml, polcad.devices.nvml; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert {"numpy", "scipy", "statsmodels", "aiohttp", "amqtt"}.isdisjoint(loaded)


# --- a whole agent, without a broker ----------------------------------------------------------------------------------


async def cycles(agent: Agent, done: Callable[[], bool]) -> None:
    """Let the agent run until something is so."""
    running = asyncio.create_task(agent.run())
    try:
        await eventually(done)
    finally:
        running.cancel()
        await asyncio.wait({running})


def agent_of(spec: AgentSpec, broker: BrokerSpec | None = None) -> tuple[Agent, Any]:
    """An agent and its collector; without a broker nobody answers."""
    parts = build_parts(spec)
    return Agent(spec, "site", broker or BrokerSpec(port=free_port()), *parts), parts[0]


def test_an_agent_that_starts_in_silence_takes_the_fail_safe_of_the_plan_it_kept(tmp_path: Path) -> None:
    Memory(spec_of(tmp_path).plan_path).keep(replace(PLAN, rules=()))
    agent, gpus = agent_of(spec_of(tmp_path))
    asyncio.run(cycles(agent, lambda: len(gpus.in_force) == 2))
    assert {round(setpoint.clock_frac, 2) for setpoint in gpus.in_force.values()} == {0.69}  # on the board's grid


def test_an_agent_that_starts_in_silence_with_nothing_kept_sets_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spec = spec_of(tmp_path)
    spec.plan_path.write_bytes(b"{")
    agent, gpus = agent_of(spec)
    asyncio.run(cycles(agent, lambda: agent._seq > 2))
    assert gpus.in_force == {}
    assert "cannot be read" in caplog.text


def test_a_gpu_that_the_device_found_stricter_stays_so_in_silence(tmp_path: Path) -> None:
    Memory(spec_of(tmp_path).plan_path).keep(PLAN)
    agent, gpus = agent_of(spec_of(tmp_path))
    gpus.in_force[gpus.uuids[0]] = Setpoint(0.5)
    asyncio.run(cycles(agent, lambda: len(gpus.in_force) == 2))
    assert gpus.in_force[gpus.uuids[0]].clock_frac <= 0.5
    assert 0.6 < gpus.in_force[gpus.uuids[1]].clock_frac <= 0.7


# --- a whole agent, on the embedded broker ----------------------------------------------------------------------------


class Row:
    """The other end of the wire: says plans, hears one node."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.said: list[Telemetry] = []

    async def listen(self) -> None:
        async for batch in self.link.batches():
            self.said += [decode(received.message)[1] for received in batch]

    async def say(self, address: Address, noun: Any) -> None:
        await self.link.publish(encode(address, noun))

    async def until(self, holds: Callable[[Telemetry], bool]) -> Telemetry:
        """The first message from now on that is so."""
        start = len(self.said)
        async with asyncio.timeout(5.0):
            while True:
                for said in self.said[start:]:
                    if holds(said):
                        return said
                await asyncio.sleep(0.005)


@asynccontextmanager
async def running(spec: AgentSpec) -> AsyncIterator[tuple[Row, Any]]:
    """A running agent that is heard, and its collector."""
    async with embedded() as broker:
        presence = Presence("row", (TELEMETRY,))
        async with Link(broker, presence, time.monotonic, Random(1)).opened() as link:  # noqa: S311  # spreads retries
            row = Row(link)
            agent, gpus = agent_of(spec, broker)
            tasks = [asyncio.create_task(row.listen()), asyncio.create_task(agent.run())]
            try:
                await row.until(lambda _: agent._link.connected)
                yield row, gpus
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)


def clocks(said: Telemetry) -> list[float | None]:
    return [clock and round(clock, 2) for clock in said.in_force.clock_frac] if said.in_force else []


@pytest.mark.integration
def test_telemetry_tells_what_was_read_and_what_is_in_force(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(spec_of(tmp_path)) as (row, gpus):
            first = await row.until(lambda _: True)
            later = await row.until(lambda said: said.seq > first.seq + 1)
            assert first.boot_id == later.boot_id
            assert (first.node, first.period_s, first.dropped) == ("n1", 0.05, 0)
            assert first.plan is not None
            assert (first.plan.lease, first.plan.epoch) == (LeaseState.NONE, 0)
            assert first.reading.gpus.uuid == gpus.uuids
            assert first.reading.gpus.fault == ()
            assert first.in_force == InForce((), (1.0, 1.0), (1.0, 1.0), (Outcome.OK, Outcome.OK), ())
            assert abs(first.t - time.time()) < 60.0

    asyncio.run(scenario())


@pytest.mark.integration
def test_a_plan_is_followed_at_once_and_a_change_of_placement_too(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(spec_of(tmp_path, period_s=30.0)) as (row, gpus):
            hours_off = replace(PLAN, t=time.time() + 7 * 3600.0)
            await row.say(PLAN_TOPIC, hours_off)
            said = await row.until(lambda said: clocks(said) == [0.8, 0.8])
            assert said.plan is not None
            assert (said.plan.epoch, said.plan.seq, said.plan.lease) == (5, 1, LeaseState.HELD)
            high = NodePlacement("n1", gpus={gpus.uuids[1]: Placement(Priority.HIGH)})
            await row.say(PLACEMENT, high)
            await row.until(lambda said: clocks(said) == [0.8, 1.0])

    asyncio.run(scenario())


@pytest.mark.integration
def test_a_shadow_plan_and_an_older_one_move_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(spec_of(tmp_path)) as (row, _):
            await row.say(PLAN_TOPIC, PLAN)
            await row.until(lambda said: clocks(said) == [0.8, 0.8])
            await row.say(PLAN_TOPIC, replace(PLAN, epoch=9, rules=(), shadow=True))
            await row.say(PLAN_TOPIC, replace(PLAN, epoch=4, seq=99, rules=()))
            said = await row.until(lambda said: bool(said.plan and said.plan.refused == 1))
            assert clocks(said) == [0.8, 0.8]

    asyncio.run(scenario())


@pytest.mark.integration
def test_the_end_of_a_lease_is_not_waited_for_until_the_next_period(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(spec_of(tmp_path, period_s=30.0)) as (row, _):
            await row.say(PLAN_TOPIC, replace(PLAN, lease_s=0.2))
            said = await row.until(lambda said: bool(said.plan and said.plan.lease is LeaseState.EXPIRED))
            assert clocks(said) == [0.69, 0.69]

    asyncio.run(scenario())


@pytest.mark.integration
def test_a_dry_run_tells_every_gpu_unmanaged_from_its_first_message(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(spec_of(tmp_path, device="dry_run")) as (row, gpus):
            await row.say(PLAN_TOPIC, PLAN)
            await row.until(lambda said: bool(said.plan and said.plan.lease is LeaseState.HELD))
            assert gpus.in_force == {}
            for said in row.said:
                assert said.in_force is not None
                assert said.in_force.outcome == (Outcome.UNMANAGED, Outcome.UNMANAGED)
                assert said.in_force.clock_frac == (None, None)

    asyncio.run(scenario())


@pytest.mark.integration
def test_a_plan_is_followed_though_the_disk_takes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")

    async def scenario() -> None:
        async with running(spec_of(tmp_path / "file")) as (row, _):
            await row.say(PLAN_TOPIC, PLAN)
            said = await row.until(lambda said: clocks(said) == [0.8, 0.8])
            await row.until(lambda later: later.seq > said.seq + 3)

    caplog.set_level(logging.WARNING)
    asyncio.run(scenario())
    assert caplog.text.count("is not kept for a restart") == 1


def test_the_kept_plan_is_the_wires_own_json(tmp_path: Path) -> None:
    Memory(tmp_path / "plan.json").keep(PLAN)
    assert json.loads((tmp_path / "plan.json").read_text())["epoch"] == 5
