"""Which events a listener misses whose node of a NATS cluster is lost: with a session that outlives it, and as polcad.

    python benchmarks/nats_sessions.py [--losses 2] [--json]

Three nodes on 127.0.0.1 and a daemon's link that tells an event each 0.1 s. Ten listeners with sessions that the broker
keeps (MQTT 3.1.1, QoS 1) are at the node that is killed, ten at another; ten links of polcad listen at every node.
`late` is the longest time from telling to hearing at those that were at the lost node.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import signal
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import cycle
from pathlib import Path
from random import Random

import aiomqtt

from polcad.broker_spec import BrokerSpec
from polcad.mqtt import Link, Presence
from polcad.testing_nats import NatsCluster
from polcad.wire import Address, Message

EVENT = Address("site", "row", "event")
LED = ("$MQTT_msgs", "$MQTT_sess", "", "$MQTT_rmsgs")  # "": JetStream as a whole
LISTENERS = 10  # of each kind
EVERY_S, BEFORE, AFTER = 0.1, 20, 150
LATE_S = 35.0  # NATS brings again after 30 s what was not acknowledged
Heard = dict[bytes, float]  # by event, when it was first heard


@dataclass(frozen=True, slots=True)
class Missed:
    """What one loss cost; each count is of events times listeners."""

    led: str
    told: int
    by_sessions_at_it: int
    by_sessions_beside: int
    by_polcad: int
    late_s: float


async def keep_session(ports: Sequence[int], name: str, heard: Heard) -> None:
    """Listen with a session that outlives its connections, at one node after the other."""
    for port in cycle(ports):
        with contextlib.suppress(aiomqtt.MqttError):
            async with aiomqtt.Client(
                "127.0.0.1", port, identifier=name, clean_session=False, timeout=5.0, keepalive=5
            ) as client:
                await client.subscribe(EVENT.topic, 1)
                async for message in client.messages:
                    if isinstance(message.payload, bytes):
                        heard.setdefault(message.payload, time.monotonic())
        await asyncio.sleep(0.2)


async def listen(spec: BrokerSpec, seed: int, heard: Heard) -> None:
    """Listen as polcad does."""
    link = Link(spec, Presence(f"ear{seed}-{time.time_ns():x}", (EVENT,)), time.monotonic, Random(seed))  # noqa: S311  # spreads
    running = asyncio.create_task(link.run())
    try:
        async for batch in link.batches():
            for received in batch:
                heard.setdefault(received.message.payload, received.t)
    finally:
        running.cancel()


async def tell(link: Link, number: int, told: dict[bytes, float]) -> None:
    """Tell events, one after the other."""
    for _ in range(number):
        payload = f"{time.time_ns()}".encode()
        told[payload] = time.monotonic()
        link.send(Message(EVENT.topic, payload, 1))
        await asyncio.sleep(EVERY_S)


async def lose(cluster: NatsCluster, stream: str, turn: int) -> Missed:
    """Kill the node that leads this while events are told, and start it again at the end."""
    lost = await asyncio.to_thread(cluster.leader, stream)
    beside = [node.port for node in cluster.nodes if node is not lost]
    at_it, others, ours = ([Heard() for _ in range(LISTENERS)] for _ in range(3))
    told: dict[bytes, float] = {}
    speaker = Link(BrokerSpec(port=beside[0]), Presence(f"daemon{turn}"), time.monotonic, Random(turn))  # noqa: S311  # spreads
    async with asyncio.TaskGroup() as tasks:
        ears = [keep_session([lost.port, *beside], f"at{turn}-{n}", heard) for n, heard in enumerate(at_it)]
        ears += [keep_session(beside[::-1], f"beside{turn}-{n}", heard) for n, heard in enumerate(others)]
        ears += [listen(cluster.spec("ear"), n, heard) for n, heard in enumerate(ours)]
        running = [tasks.create_task(each) for each in (speaker.run(), *ears)]
        await speaker.wait_connected()
        while not all([*at_it, *others, *ours]):
            await tell(speaker, 1, {})
        await tell(speaker, BEFORE, told)
        await asyncio.to_thread(lost.stop, signal.SIGKILL)
        await tell(speaker, AFTER, told)
        await asyncio.sleep(LATE_S)
        for task in running:
            task.cancel()
    await asyncio.to_thread(lost.start)
    a, b, c = (sum(len(told.keys() - heard.keys()) for heard in kind) for kind in (at_it, others, ours))
    late_s = max(heard[each] - told[each] for heard in at_it for each in told.keys() & heard.keys())
    return Missed(stream or "JetStream", len(told) * LISTENERS, a, b, c, late_s)


async def losses(cluster: NatsCluster, number: int) -> list[Missed]:
    """That many, one after the other."""
    return [await lose(cluster, LED[turn % len(LED)], turn) for turn in range(number)]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--losses", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    logging.basicConfig(level=logging.CRITICAL)
    with tempfile.TemporaryDirectory() as name, NatsCluster(Path(name)) as cluster:
        found = asyncio.run(losses(cluster, options.losses))
    if options.json:
        print(json.dumps([asdict(each) for each in found]))
        return
    print("| the lost node led | events heard if none were missed | sessions at it | sessions beside | polcad | late |")
    print("|---|---|---|---|---|---|")
    for each in found:
        missed = f"{each.by_sessions_at_it} | {each.by_sessions_beside} | {each.by_polcad}"
        print(f"| {each.led} | {each.told} | {missed} | {each.late_s:.1f} s |")


if __name__ == "__main__":
    main()
