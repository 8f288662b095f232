"""What each way of brokers costs: Mosquitto, NATS from node to node of a cluster of three, and over a bridge.

    python benchmarks/brokers.py [--plans 200] [--messages 50000] [--json]

All in one run on 127.0.0.1. `plan` is the time from `Link.send` of a plan of 300 bytes to its arrival at a client of
the other end; `event` the time until a message at QoS 1 is acknowledged. `messages/s/core` are telemetry messages of
1.5 KB from the nodes' end to the daemon's, over the processor time of all broker processes together; senders and
receivers do not count.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

from polcad.broker_spec import BrokerSpec
from polcad.mqtt import Link, Presence
from polcad.testing_brokers import BridgedMosquittos, Mosquitto, Server
from polcad.testing_nats import NatsCluster
from polcad.wire import Address, Message, everywhere

BRIDGE = (
    "listener {port} 127.0.0.1",
    "allow_anonymous true",
    "set_tcp_nodelay true",
    "connection upper",
    "address 127.0.0.1:{upper}",
    "notifications false",
    "topic polcad/v1/site/row/+/+/telemetry out 0",
    "topic polcad/v1/site/row/plan in 0",
)
NODES = 100
BURST = 100  # messages between two looks at what arrived
PLAN = Address("site", "row", "plan")
EVERY = everywhere("site", "row", "telemetry")


@dataclass(frozen=True, slots=True)
class Way:
    """Where the daemon's end is, where the nodes' is, and the brokers between them."""

    name: str
    upper: BrokerSpec
    lower: BrokerSpec
    servers: Sequence[Server]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the result."""

    name: str
    plan_median_ms: float
    plan_p99_ms: float
    event_median_ms: float
    messages_s_core: float


def link(spec: BrokerSpec, name: str, *subscriptions: Address) -> Link:
    """A client of one end."""
    return Link(spec, Presence(name, subscriptions), time.perf_counter, Random(1))  # noqa: S311  # spreads retries


async def plans_ms(way: Way, count: int) -> list[float]:
    """How long each plan took."""
    took: list[float] = []
    async with link(way.lower, "node", PLAN).opened() as node, link(way.upper, "daemon").opened() as daemon:
        batches = node.batches()
        for number in range(count + 10):  # a bridge subscribes when its other end does; the first are not counted
            sent_s = time.perf_counter()
            daemon.send(Message(PLAN.topic, b"%300d" % number))
            batch = await asyncio.wait_for(anext(batches), 10.0)
            took.append(1000 * (batch[-1].t - sent_s))
    return took[10:]


async def events_ms(way: Way, count: int) -> list[float]:
    """How long each acknowledgement took."""
    took: list[float] = []
    async with link(way.upper, "daemon").opened() as daemon:
        for number in range(count):
            sent_s = time.perf_counter()
            await daemon.publish(Message("polcad/v1/site/row/event", b"%300d" % number, 1))
            took.append(1000 * (time.perf_counter() - sent_s))
    return took


async def carried_s(way: Way, count: int) -> float:
    """Processor time of the brokers for so many telemetry messages, s."""
    async with AsyncExitStack() as stack:
        daemon = await stack.enter_async_context(link(way.upper, "daemon", EVERY).opened())
        node = await stack.enter_async_context(link(way.lower, "node").opened())
        topics = [Address("site", "row", "telemetry", "r1", f"n{number}").topic for number in range(NODES)]
        before_s = cpu_s(way.servers)
        for number in range(count):
            await node.publish(Message(topics[number % NODES], bytes(1500)))
            await arrived(daemon, number - BURST)
        await arrived(daemon, count)
        return cpu_s(way.servers) - before_s


async def arrived(daemon: Link, count: int) -> None:
    """Wait for so many messages; TimeoutError when they do not come."""
    async with asyncio.timeout(10.0):
        while daemon.counters.received < count:  # noqa: ASYNC110  # a counter tells nobody
            await asyncio.sleep(0.001)


def cpu_s(servers: Sequence[Server]) -> float:
    """User and system time of these processes so far."""
    stats = (Path(f"/proc/{server.pid}/stat").read_text().rsplit(")", 1)[1].split() for server in servers)
    return sum(int(stat[11]) + int(stat[12]) for stat in stats) / os.sysconf("SC_CLK_TCK")


async def measured(way: Way, plans: int, messages: int) -> Row:
    """All figures of one way."""
    plan, event, cpu = await plans_ms(way, plans), await events_ms(way, plans), await carried_s(way, messages)
    p99 = statistics.quantiles(plan, n=100)[98]
    return Row(way.name, statistics.median(plan), p99, statistics.median(event), messages / cpu)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--plans", type=int, default=200)
    parser.add_argument("--messages", type=int, default=50_000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with Mosquitto(folder) as one, NatsCluster(folder) as nats, BridgedMosquittos(folder, BRIDGE) as two:
            first, second, _ = nats.nodes
            ways = (
                Way("Mosquitto", one.spec("x"), one.spec("x"), (one,)),
                Way("NATS, node to node", first.spec("x"), second.spec("x"), nats.nodes),
                Way("Mosquitto, bridged", two.upper.spec("x"), two.lower.spec("x"), (two.upper, two.lower)),
            )
            rows = [asyncio.run(measured(way, options.plans, options.messages)) for way in ways]
    if options.json:
        print(json.dumps([asdict(row) for row in rows]))
        return
    print("| brokers | plan, median | plan, P99 | event acknowledged, median | telemetry messages/s/core of brokers |")
    print("|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row.name} | {row.plan_median_ms:.2f} ms | {row.plan_p99_ms:.2f} ms | {row.event_median_ms:.2f} ms "
            f"| {row.messages_s_core:.0f} |"
        )


if __name__ == "__main__":
    main()
