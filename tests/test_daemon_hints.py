"""Hints through a daemon in this process: loads from the broker in, retained hints, events and metrics out."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest
from aiohttp import ClientSession

from polcad.broker_spec import BrokerSpec
from polcad.config import SiteSpec
from polcad.daemon import Daemon
from polcad.hinting import hinting
from polcad.model import Event, EventKind, Hint, Hold, Plan, Setpoint
from polcad.spec import GuardSpec, HintSpec, RowSpec
from polcad.web.board import Board
from polcad.web.server import serve
from polcad.web.spec import WebSpec
from polcad.wire import Address, encode
from policies.polca import Polca
from tests.pool_loads import Fixed, load, plan
from tests.scrapes import telling_of
from tests.test_daemon import Ear, heard, running
from tests.waiting import eventually

SPEC = HintSpec(name="fixed", period_s=0.02, stale_after_s=1.0, gone_after_s=60.0, life_s=600.0, gpus=64)
ROW = RowSpec("row", 50_000.0)
GUARD = GuardSpec(tick_s=0.05, stale_after_s=0.3)


def daemon_at(broker: BrokerSpec, policy: Fixed, *, shadow: bool = False) -> Daemon:
    hints = hinting(SPEC, ROW, policy)
    return Daemon(SiteSpec("site"), ROW, GUARD, Polca(), broker, hinting=hints, shadow=shadow)


async def keep_speaking(ear: Ear) -> None:
    message = encode(Address("site", "", "load", pool="sm", instance="sm-0"), load())
    while True:
        await ear.link.publish(message)
        await asyncio.sleep(0.05)


def hinted(ear: Ear) -> list[Hint]:
    return ear.nouns(Hint)


@pytest.mark.integration
def test_loads_become_one_retained_hint_which_runs_on_while_they_are_stale() -> None:
    policy = Fixed(plan())

    async def scenario() -> None:
        async with heard() as (ear, broker), running(daemon_at(broker, policy)):
            speaking = asyncio.create_task(keep_speaking(ear))
            await eventually(lambda: bool(hinted(ear)))
            asked = len(policy.seen)
            await eventually(lambda: len(policy.seen) > asked + 10)
            speaking.cancel()
            await eventually(lambda: EventKind.HINTS_HELD in [event.kind for event in ear.nouns(Event)])
            assert [(hint.pool, hint.instances, hint.row) for hint in hinted(ear)] == [("sm", 2, "row")]
            policy.plans = [plan(3)]
            speaking = asyncio.create_task(keep_speaking(ear))
            await eventually(lambda: hinted(ear)[-1].instances == 3)
            speaking.cancel()
        told = dict.fromkeys(ear.nouns(Event))  # at QoS 1, an event may come twice
        kinds = [event.kind for event in told if event.kind.startswith("hint")]
        assert kinds == [EventKind.HINT, EventKind.HINTS_HELD, EventKind.HINTS_RESUMED, EventKind.HINT]

    asyncio.run(scenario())


@pytest.mark.integration
def test_a_restarted_daemon_finds_its_hints_and_metrics_tell_them_at_once() -> None:
    async def scenario() -> None:
        async with heard() as (ear, broker):
            async with running(daemon_at(broker, Fixed(plan()))):
                speaking = asyncio.create_task(keep_speaking(ear))
                await eventually(lambda: bool(hinted(ear)))
            policy = Fixed(plan())
            daemon = daemon_at(broker, policy)
            async with running(daemon), serve(daemon.board, WebSpec(port=0), daemon.telling) as url:
                await eventually(lambda: bool(daemon.hints()))
                async with ClientSession() as client:
                    text = await (await client.get(f"{url}metrics")).text()
                await eventually(lambda: len(policy.seen) > 10)
            speaking.cancel()
        assert len(hinted(ear)) == 1
        assert 'polcad_hint_instances{pool="sm",row="row"} 2.0' in text

    asyncio.run(scenario())


@pytest.mark.integration
def test_a_policy_that_fails_leaves_the_row_its_daemon() -> None:
    policy = Fixed(plan())
    policy.error = RuntimeError("no")

    async def scenario() -> None:
        async with heard() as (ear, broker), running(daemon_at(broker, policy)):
            speaking = asyncio.create_task(keep_speaking(ear))
            await eventually(lambda: len(policy.seen) > 3)
            planned = len(ear.nouns(Plan))
            await eventually(lambda: len(ear.nouns(Plan)) > planned)
            speaking.cancel()
        assert hinted(ear) == []

    asyncio.run(scenario())


@pytest.mark.integration
def test_the_rows_budget_and_an_operators_lock_bound_what_is_hinted() -> None:
    policy = Fixed(plan())

    async def scenario() -> None:
        async with heard() as (ear, broker), running(daemon_at(broker, policy)):
            speaking = asyncio.create_task(keep_speaking(ear))
            await eventually(lambda: bool(policy.seen))
            assert (policy.seen[0].power_budget_w, policy.seen[0].cap_clock_frac) == (50_000.0, 1.0)
            hold = Hold("lock", "row", Setpoint(0.6), time.time() + 60.0)
            await ear.link.publish(encode(Address("site", "row", "hold", hold="lock"), hold))
            await eventually(lambda: policy.seen[-1].cap_clock_frac == 0.6)
            speaking.cancel()

    asyncio.run(scenario())


@pytest.mark.integration
def test_a_shadow_hints_nothing() -> None:
    policy = Fixed(plan())

    async def scenario() -> None:
        async with heard() as (ear, broker), running(daemon_at(broker, policy, shadow=True)):
            speaking = asyncio.create_task(keep_speaking(ear))
            await eventually(lambda: len(ear.nouns(Plan)) > 40)
            speaking.cancel()
        assert policy.seen == []

    asyncio.run(scenario())


@pytest.mark.integration
def test_a_load_that_somebody_planted_is_refused() -> None:
    policy = Fixed(plan())

    async def scenario() -> None:
        async with heard() as (ear, broker):
            message = encode(Address("site", "", "load", pool="sm", instance="old"), replace(load(), instance="old"))
            await ear.link.publish(message._replace(retain=True, qos=1))
            daemon = daemon_at(broker, policy)
            async with running(daemon):
                await eventually(lambda: daemon.status().counters["refused_messages"] >= 1)
        assert policy.seen == []

    asyncio.run(scenario())


def test_metrics_tell_what_holds_in_base_units_and_nothing_else() -> None:
    hint = Hint("sm", "row", 1.0, 901.0, 3, 4, 0.8, 2220.0, 5.0, 4000.0, 9000.0, saves_w=None, weights={"sm-0": 0.75})
    shown: list[Hint] = [hint]

    async def scrapes() -> tuple[str, str, str]:
        async with serve(Board(), WebSpec(port=0), telling_of(lambda: shown)) as url, ClientSession() as client:
            response = await client.get(f"{url}metrics")
            text = await response.text()
            shown.clear()
            return response.headers["Content-Type"], text, await (await client.get(f"{url}metrics")).text()

    kind, text, after = asyncio.run(scrapes())
    assert kind.startswith("text/plain; version=0.0.4")
    samples = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert {name: value for name, value in samples.items() if name.startswith("polcad_hint_")} == {
        f'polcad_hint_{name}{{pool="sm",row="row"}}': value
        for name, value in {
            "instances": "3.0",
            "tensor_parallel": "4.0",
            "clock_ratio": "0.8",
            "requests_per_second": "5.0",
            "tokens_per_second": "4000.0",
            "power_watts": "9000.0",
            "timestamp_seconds": "1.0",
            "expires_timestamp_seconds": "901.0",
        }.items()
    } | {'polcad_hint_weight_ratio{instance="sm-0",pool="sm",row="row"}': "0.75"}
    assert any(name.startswith("polcad_build_info{version=") for name in samples)
    assert "sm" not in after
