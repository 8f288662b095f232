"""Telemetry ingest: node messages a second on one core, ours against a bare aiomqtt loop.

    python benchmarks/mqtt.py [--messages 10000] [--rounds 5] [--json]

One Mosquitto; this process publishes as fast as the broker takes it; the readers, each its own process, take turns.
`bare` is ``async for message in client.messages`` that decodes nothing, `nodelay` the same with TCP_NODELAY. `ours` is
`Link.batches` with `wire.decode` and the row's power kept by node; `daemon` is the same with `Controller.on` instead,
which also decides. A message is a node of 8 GPUs with all columns.
Counted is the reader's processor time, so that the publisher and the broker beside it do not matter.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import random
import socket
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import aiomqtt

from polcad import wire
from polcad.broker_spec import BrokerSpec
from polcad.controller import Controller
from polcad.model import Gpus, InForce, LeaseState, Obedience, Outcome, Reading, Telemetry
from polcad.mqtt import Link, Presence
from polcad.ports import Heard
from polcad.spec import GuardSpec, NodeSpec, RowSpec
from polcad.testing_brokers import Mosquitto
from policies.polca import Polca

NODES = 100
EVERY = wire.Address("site", "row", "telemetry", "+", "+")


CONF = ("listener {port} 127.0.0.1", "allow_anonymous true", "set_tcp_nodelay true", "max_queued_messages 0")


def telemetry(node: int, seq: int, power_w: float | None = None) -> Telemetry:
    """A node of 8 GPUs, every column filled; each draws `power_w`, or any power."""
    rng = random.Random(1000 * node + seq)  # noqa: S311  # figures, not secrets
    uuids = tuple(f"GPU-{node:08x}-1111-2222-3333-{gpu:012x}" for gpu in range(8))
    eight = range(8)
    gpus = Gpus(
        uuid=uuids,
        power_w=tuple(power_w or round(rng.uniform(60.0, 700.0), 1) for _ in eight),
        max_w=(700.0,) * 8,
        min_w=(200.0,) * 8,
        average_w=tuple(round(rng.uniform(60.0, 700.0), 1) for _ in eight),
        energy_j=tuple(round(rng.uniform(1e6, 1e9), 3) for _ in eight),
        util_frac=tuple(round(rng.random(), 2) for _ in eight),
        memory_frac=tuple(round(rng.random(), 3) for _ in eight),
        sm_mhz=(1410.0,) * 8,
        max_mhz=(1980.0,) * 8,
        temp_c=tuple(float(rng.randint(30, 85)) for _ in eight),
        throttle=(4,) * 8,
        limit_w=(700.0,) * 8,
        enforced_w=(700.0,) * 8,
    )
    force = InForce(clock_frac=(1.0,) * 8, cap_frac=(1.0,) * 8, outcome=(Outcome.OK,) * 8)
    return Telemetry(
        f"n{node}", "boot", seq, 1.7e9 + seq, 1.0, Reading(gpus), force, Obedience(1, seq, LeaseState.HELD)
    )


def message(node: int, seq: int) -> wire.Message:
    """The same, as it is published."""
    return wire.encode(wire.Address("site", "row", "telemetry", f"r{node % 10}", f"n{node}"), telemetry(node, seq))


def flood(messages: int) -> list[bytes]:
    """What all nodes say, second by second, as packets of MQTT 3.1.1."""
    return [packet(message(number % NODES, number // NODES)) for number in range(messages)]


def publish(port: int, packets: Sequence[bytes]) -> None:
    """Publish at QoS 0 by a plain socket: a CONNECT, the messages, and DISCONNECT."""
    with socket.create_connection(("127.0.0.1", port)) as sock:
        hello(sock, b"publisher")
        for start in range(0, len(packets), NODES):
            sock.sendall(b"".join(packets[start : start + NODES]))
        sock.sendall(b"\xe0\x00")


def hello(sock: socket.socket, name: bytes) -> None:
    """Connect as a client of this name, and wait until the broker has taken it."""
    body = b"\x00\x04MQTT\x04\x02\x00\x00" + struct.pack("!H", len(name)) + name
    sock.sendall(b"\x10" + bytes([len(body)]) + body)
    sock.recv(4)


def packet(message: wire.Message) -> bytes:
    """A message as a packet of MQTT 3.1.1, published at QoS 0."""
    body = struct.pack("!H", len(message.topic)) + message.topic.encode() + message.payload
    left, length = len(body), b""
    while left:
        left, low = divmod(left, 128)
        length += bytes([low | (128 if left else 0)])
    return b"\x30" + length + body


async def bare(port: int, messages: int, ready: Callable[[], None]) -> float:
    """The loop of aiomqtt's manual."""
    return await _bare(port, messages, ready, ())


async def nodelay(port: int, messages: int, ready: Callable[[], None]) -> float:
    """The same, with TCP_NODELAY."""
    return await _bare(port, messages, ready, ((socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),))


async def _bare(
    port: int, messages: int, ready: Callable[[], None], options: tuple[tuple[int, int, int], ...]
) -> float:
    async with aiomqtt.Client("127.0.0.1", port, socket_options=options) as client:
        await client.subscribe(EVERY.topic, 0)
        ready()
        began_s, left = time.process_time(), messages
        async for _ in client.messages:
            left -= 1
            if not left:
                break
        return time.process_time() - began_s


async def ours(port: int, messages: int, ready: Callable[[], None]) -> float:
    """Link, decode, and a row's power."""
    power_w: dict[str, float] = {}

    def keep(_: float, noun: Telemetry) -> None:
        power_w[noun.node] = sum(filter(None, noun.reading.gpus.power_w))

    spent_s = await _linked(port, messages, ready, keep)
    if len(power_w) != NODES:
        raise RuntimeError(f"{len(power_w)} nodes were heard of {NODES}")
    return spent_s


async def daemon(port: int, messages: int, ready: Callable[[], None]) -> float:
    """Link, decode, and the controller."""
    nodes = tuple(NodeSpec(f"n{node}", f"r{node % 10}") for node in range(NODES))
    controller = Controller(RowSpec("row", 450.0 * 8 * NODES, nodes=nodes), GuardSpec(), Polca(), epoch=1)

    def hear(t: float, noun: Telemetry) -> None:
        controller.on(Heard(t, noun))

    spent_s = await _linked(port, messages, ready, hear)
    if controller.counters["telemetry"] != messages:
        raise RuntimeError(f"{controller.counters}")
    return spent_s


async def _linked(
    port: int, messages: int, ready: Callable[[], None], use: Callable[[float, Telemetry], None]
) -> float:
    link = Link(BrokerSpec(port=port), Presence("daemon", (EVERY,)), time.time, random.Random(1))  # noqa: S311  # spreads retries
    async with link.opened():
        ready()
        began_s, left = time.process_time(), messages
        async for batch in link.batches():
            for received in batch:
                _, noun = wire.decode(received.message)
                use(received.t, noun)
            left -= len(batch)
            if left <= 0:
                break
        spent_s = time.process_time() - began_s
    if link.counters.dropped_in:
        raise RuntimeError(f"{link.counters}")
    return spent_s


READERS = {"bare": bare, "nodelay": nodelay, "ours": ours, "daemon": daemon}


def read(name: str, port: int, messages: int, pipe: Connection) -> None:
    """A reader's process."""
    reader: Callable[[int, int, Callable[[], None]], Coroutine[None, None, float]] = READERS[name]
    pipe.send(asyncio.run(reader(port, messages, lambda: pipe.send(None))))


def measure(name: str, port: int, packets: Sequence[bytes]) -> float:
    """Messages a second of processor time of one reader."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=read, args=(name, port, len(packets), there))
    process.start()
    try:
        here.recv()
        publish(port, packets)
        if not here.poll(60.0):
            raise RuntimeError(f"{name}: not all messages arrived")
        return len(packets) / float(here.recv())
    finally:
        process.terminate()
        process.join()


def main() -> None:
    """Measure, print, and fail when `ours` is not twice as fast as `bare`."""
    parser = argparse.ArgumentParser(description="telemetry ingest against a bare aiomqtt loop")
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    packets = flood(args.messages)
    rates: dict[str, list[float]] = {name: [] for name in READERS}
    with tempfile.TemporaryDirectory() as folder, Mosquitto(Path(folder), CONF) as broker:
        for _ in range(args.rounds):
            for name in READERS:
                rates[name].append(measure(name, broker.port, packets))
    rate = {name: statistics.median(values) for name, values in rates.items()}
    ratio = statistics.median(ours / bare for ours, bare in zip(rates["ours"], rates["bare"], strict=True))
    payload = len(message(0, 1).payload)
    if args.json:
        print(json.dumps({"payload_bytes": payload, "messages_per_core_s": rate, "ratio": ratio, "rounds": rates}))
    else:
        print(f"{args.messages} messages of {payload} bytes, {args.rounds} rounds, median a second of one core:")
        for name, value in rate.items():
            print(f"  {name:8} {value:9.0f}   {value / rate['bare']:5.2f} x bare")
    if ratio < 2.0:
        sys.exit(f"ours is {ratio:.2f} times bare; at least 2 is asked")


if __name__ == "__main__":
    main()
