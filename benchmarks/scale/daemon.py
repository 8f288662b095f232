"""One daemon under more and more load, until it saturates; beside it a bare aiomqtt client at one of these loads.

    python -m benchmarks.scale.daemon [--seconds 8] [--loads 1000x1,10000x2] [--json]

A load is so many nodes of 8 GPUs that speak so often a second, 1549 bytes each time. `us each` is the processor time
of the daemon's process over the messages it heard, ticks and all else included, and `a core` how many a second fill
one core at that price. `plan` is the time from publishing a sample that takes a rack over T1 to the arrival of the
plan that answers, about 20 times a second; `tick` how late ticks came. `lost` are messages that never reached the
controller, most of them dropped by the broker, which keeps 1000 for a client that is behind; `missed` are crossings
that were not answered within three seconds. `bare` does nothing but read JSON and add
up a row's power. The aim: 20 000 messages a second on one core, and at half of that P99 under 100 ms.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import tempfile
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path

import aiomqtt

from benchmarks.scale.bench import CONF, Figures, Meter, cores, measure, pinned, quantile_ms
from benchmarks.scale.feed import feeding
from benchmarks.scale.row import SITE, Row
from polcad.testing_brokers import Mosquitto
from polcad.wire import everywhere

LOADS = "1000x1,5000x1,10000x1,10000x2,10000x3"
BARE = Row("bare", 5000, 1.0)


def row_of(load: str) -> Row:
    """The row that ``10000x2`` stands for."""
    nodes, hz = load.split("x")
    return Row("row", int(nodes), float(hz))


def bare(port: int, pipe: Connection) -> None:
    """The loop of aiomqtt's manual: says when it listens, and at the end how many messages came."""

    async def listen() -> None:
        power_w: dict[str, float] = {}
        heard = 0
        async with aiomqtt.Client("127.0.0.1", port) as client:
            await client.subscribe(everywhere(SITE, BARE.name, "telemetry").topic, 0)
            pipe.send(None)
            async for message in client.messages:
                said = json.loads(message.payload)
                power_w[said["node"]] = sum(said["reading"]["gpus"]["power_w"])
                heard += 1
                if pipe.poll():
                    pipe.send(heard)
                    return

    asyncio.run(listen())


async def measure_bare(folder: Path, seconds: float) -> float:
    """Processor time of the bare client a message, microseconds."""
    own, others = cores()
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    with pinned(others), Mosquitto(folder, CONF) as broker, feeding(BARE, broker.port) as feed:
        with pinned(own[:1]):
            process = context.Process(target=bare, args=(broker.port, there), daemon=True)
            process.start()
        here.recv()
        meter = Meter(process.pid or 0)
        before_s = meter.cpu_s()
        feed.send(None)
        await asyncio.sleep(seconds)
        cpu_s = meter.cpu_s() - before_s
        here.send(None)
        heard: int = here.recv()
        process.join()
    return 1e6 * cpu_s / heard


HEAD = f"{'nodes':>6} {'Hz':>3} {'a second':>8} {'core':>6} {'us each':>8} {'a core':>7} {'MiB':>5}"
HEAD += f" {'plan P50':>9} {'P99 ms':>8} {'tick P99':>9} {'lost':>6} {'missed':>6} {'broker us':>9}"


def line(figures: Figures) -> str:
    """One load."""
    row, answers_s = figures.row, figures.answers_s
    return (
        f"{row.nodes:>6} {row.hz:>3g} {row.rate:>8.0f} {figures.core:>6.0%} {figures.each_us:>8.1f} "
        f"{1e6 / figures.each_us:>7.0f} {figures.memory_mib:>5.0f} {quantile_ms(answers_s, 0.5):>9.1f} "
        f"{quantile_ms(answers_s, 0.99):>8.1f} {quantile_ms(figures.lags_s, 0.99):>9.1f} {figures.lost:>6} "
        f"{figures.missed:>6} {figures.broker_us:>9.1f}"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--loads", default=LOADS)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    found = []
    for load in args.loads.split(","):
        with tempfile.TemporaryDirectory() as folder:
            found += asyncio.run(measure([row_of(load)], Path(folder), args.seconds))
    with tempfile.TemporaryDirectory() as folder:
        bare_us = asyncio.run(measure_bare(Path(folder), args.seconds))
    if args.json:
        print(json.dumps({"bare_us": bare_us, "loads": [asdict(each) for each in found]}))
        return
    print(HEAD, *map(line, found), sep="\n")
    print(f"\nbare: {bare_us:.1f} us a message at {BARE.rate:.0f} a second: {1e6 / bare_us:.0f} a core")


if __name__ == "__main__":
    main()
