"""The whole loop: from the sample that breaches a threshold to the setpoint read back on the last node.

    python benchmarks/loop.py [--nodes 40] [--seconds 120] [--json]

Mosquitto, a daemon, and real agents over synthetic GPUs (8 a node, 1 Hz) in a process of their own; the load goes up
and down, so that the row passes T1 and T2 again and again. Each reaction begins at the time the breaching sample was
taken, and ends when the daemon has heard from the last node that had to change. All clocks are this machine's.
`bare` is the same way of the same messages with nothing in between, in the same run: a telemetry message to a client
that answers with a plan to all nodes, each of which answers with a telemetry message; plain aiomqtt with TCP_NODELAY.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import multiprocessing
import socket
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import aiomqtt

from polcad.broker_spec import BrokerSpec
from polcad.config import SiteSpec
from polcad.daemon import Daemon
from polcad.demo import SITE, agents_of
from polcad.model import Plan, Priority, Setpoint
from polcad.ports import Heard, Input
from polcad.spec import GuardSpec, NodeSpec, RackSpec, RowSpec
from polcad.testing_brokers import Mosquitto
from polcad.wire import Address, encode
from policies.polca import Polca

GPU_MAX_W, HOST_W, IDLE_W = 400.0, 1500.0, 68.0
CYCLE_S = 8.0
CONF = ("listener {port} 127.0.0.1", "allow_anonymous true", "set_tcp_nodelay true")
BARE_EACH_S = 0.25


def row_of(nodes: int) -> RowSpec:
    """Racks of eight nodes, every second one of low priority."""
    specs = tuple(
        NodeSpec(f"n{index}", f"r{index // 8}", 8, GPU_MAX_W, HOST_W, Priority.LOW if index % 2 else Priority.HIGH)
        for index in range(nodes)
    )
    racks = tuple(RackSpec(name) for name in sorted({spec.rack for spec in specs}))
    return RowSpec("row", 0.85 * nodes * (HOST_W + 8 * GPU_MAX_W), racks, specs)


def schedule(row: RowSpec, seconds: float) -> list[tuple[float, float]]:
    """The load that takes the uncapped row from 70 % of its budget to 98 % and back, again and again."""

    def load(share: float) -> float:
        return ((share * row.budget_w / len(row.nodes) - HOST_W) / 8 - IDLE_W) / (GPU_MAX_W - IDLE_W)

    low, high = load(0.70), load(0.98)
    shape = ((0.0, low), (0.30, low), (0.50, high), (0.75, high), (0.85, low))
    return [((n + at) * CYCLE_S, level) for n in range(int(seconds / CYCLE_S) + 2) for at, level in shape]


class Watched(Daemon):
    """A daemon that notes, for each reaction, when the sample was taken that began it."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.seconds: list[float] = []
        self._lead_s = 0.0

    def note(self, event: Input) -> None:
        """As the daemon, with the way of the first sample added to the reaction."""
        before = len(self.reactions.seconds)
        super().note(event)
        self.seconds += [self._lead_s + each for each in list(self.reactions.seconds)[before:]]
        if any(isinstance(output, Plan) for output in self._said):
            self._lead_s = event.t - event.telemetry.t if isinstance(event, Heard) else 0.0


async def play(port: int, nodes: int, seconds: float, state_dir: str) -> None:
    """All agents of the row, until the end."""
    row = row_of(nodes)
    options = {"schedule": schedule(row, seconds), "noise_frac": 0.01}
    async with agents_of(row, BrokerSpec(port=port), state_dir, lambda _: options, 1.0):
        await asyncio.sleep(seconds)


def play_in_process(port: int, nodes: int, seconds: float, state_dir: str) -> None:
    """The agents' process."""
    logging.disable(logging.CRITICAL)
    asyncio.run(play(port, nodes, seconds, state_dir))


async def measure(port: int, nodes: int, seconds: float) -> list[float]:
    """The reactions of `seconds`."""
    guard = GuardSpec(dwell_s=0.5)
    daemon = Watched(SiteSpec(SITE), row_of(nodes), guard, Polca(), BrokerSpec(port=port))
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await daemon.run()
    return daemon.seconds


def client(port: int) -> aiomqtt.Client:
    """A plain client."""
    return aiomqtt.Client("127.0.0.1", port, socket_options=((socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),))


async def echo(port: int, nodes: int, payload: bytes) -> None:
    """The nodes of the bare way: each answers a plan with a telemetry message."""

    async def node(index: int) -> None:
        async with client(port) as mqtt:
            await mqtt.subscribe("bare/plan")
            async for _ in mqtt.messages:
                await mqtt.publish(f"bare/{index}", payload)

    await asyncio.gather(*(node(index) for index in range(nodes)))


def echo_in_process(port: int, nodes: int, payload: bytes) -> None:
    """The process of the bare nodes."""
    asyncio.run(echo(port, nodes, payload))


async def measure_bare(port: int, nodes: int, telemetry: bytes, plan: bytes, rounds: int) -> list[float]:
    """How long the bare way takes, `rounds` times."""
    async with client(port) as row, client(port) as first:
        await row.subscribe("bare/+")
        arriving = row.messages
        while True:  # until all nodes have subscribed
            await row.publish("bare/plan", plan)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    if await _heard(arriving, nodes):
                        break
        seconds = []
        for _ in range(rounds):
            await asyncio.sleep(BARE_EACH_S)
            began_s = time.perf_counter()
            await first.publish("bare/first", telemetry)
            async for message in arriving:
                if message.topic.value == "bare/first":
                    break
            await row.publish("bare/plan", plan)
            await _heard(arriving, nodes)
            seconds.append(time.perf_counter() - began_s)
        return seconds


async def _heard(arriving: Any, nodes: int) -> bool:
    left = {f"bare/{index}" for index in range(nodes)}
    async for message in arriving:
        left.discard(message.topic.value)
        if not left:
            return True
    return False


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="from the breaching sample to the last read-back")
    parser.add_argument("--nodes", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    logging.disable(logging.CRITICAL)
    context = multiprocessing.get_context("spawn")
    plan = encode(Address(SITE, "row", "plan"), Plan("row", 1, 1, time.time(), 5.0, Setpoint(0.79))).payload
    with tempfile.TemporaryDirectory() as folder, Mosquitto(Path(folder), CONF) as broker:
        nodes = context.Process(target=echo_in_process, args=(broker.port, args.nodes, bytes(1550)))
        nodes.start()
        bare = asyncio.run(measure_bare(broker.port, args.nodes, bytes(1550), plan, rounds=100))
        nodes.terminate()
        nodes.join()
        agents = context.Process(target=play_in_process, args=(broker.port, args.nodes, args.seconds + 2, folder))
        agents.start()
        ours = asyncio.run(measure(broker.port, args.nodes, args.seconds))
        agents.join()
    figures = {name: _figures(values) for name, values in (("bare", bare), ("polcad", ours))}
    if args.json:
        print(json.dumps(figures))
        return
    print(f"{args.nodes} nodes x 8 GPUs at 1 Hz through Mosquitto, {args.seconds:.0f} s; milliseconds:")
    for name, figure in figures.items():
        ratio = figure["median_ms"] / figures["bare"]["median_ms"]
        print(
            f"  {name:8} median {figure['median_ms']:6.1f}   P99 {figure['p99_ms']:6.1f}   "
            f"({figure['count']:.0f} times)   {ratio:4.1f} x bare"
        )


def _figures(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    p99 = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
    return {"median_ms": 1e3 * statistics.median(ordered), "p99_ms": 1e3 * p99, "count": len(ordered)}


if __name__ == "__main__":
    main()
