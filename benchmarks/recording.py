"""Recordings: bytes a sample and samples read a second, beside gzip-packed JSON lines in the same run.

A sample is one GPU's reading: power, energy, utilisation, clocks, temperature, limits. The row is synthetic, and noisy
in power, energy, utilisation, clock and temperature, as a busy row is. Medians of three runs.

    python benchmarks/recording.py [--minutes 3]
"""

from __future__ import annotations

import argparse
import gzip
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from statistics import median
from time import perf_counter

from rich.console import Console
from rich.table import Table

from polcad.model import Gpus, InForce, LeaseState, Obedience, Outcome, Reading, Telemetry
from polcad.recording import RecordingWriter, read
from polcad.wire import Address, Message, decode, encode

NODES, GPUS, RUNS = 40, 8, 3
Entry = tuple[float, Message]


def row(minutes: float) -> Iterator[Entry]:
    """What a recorder hears of 40 nodes x 8 GPUs at 1 Hz."""
    random = Random(1)  # noqa: S311  # noise, not a secret
    power_w = [[random.uniform(200.0, 600.0) for _ in range(GPUS)] for _ in range(NODES)]
    energy_j = [[random.uniform(1e6, 1e9) for _ in range(GPUS)] for _ in range(NODES)]
    for second in range(int(minutes * 60)):
        for node in range(NODES):
            for gpu in range(GPUS):
                power_w[node][gpu] = min(700.0, max(70.0, power_w[node][gpu] + random.gauss(0.0, 25.0)))
                energy_j[node][gpu] += power_w[node][gpu]
            t = 1.7e9 + second + node * 0.01 + random.random() * 0.003
            yield t + 0.002, message(node, second, t, gpus(random, node, power_w[node], energy_j[node]))


def gpus(random: Random, node: int, power_w: list[float], energy_j: list[float]) -> Gpus:
    """One reading."""
    return Gpus(
        uuid=tuple(f"GPU-{node:08x}-1f2e-4d3c-8b7a-{gpu:012x}" for gpu in range(GPUS)),
        power_w=tuple(round(value, 3) for value in power_w),
        max_w=(700.0,) * GPUS,
        min_w=(200.0,) * GPUS,
        energy_j=tuple(round(value, 3) for value in energy_j),
        util_frac=tuple(random.randint(80, 100) / 100 for _ in range(GPUS)),
        memory_frac=(0.8512,) * GPUS,
        sm_mhz=tuple(1980.0 - 15 * random.randint(0, 8) for _ in range(GPUS)),
        max_mhz=(1980.0,) * GPUS,
        temp_c=tuple(float(random.randint(50, 60)) for _ in range(GPUS)),
        throttle=(0,) * GPUS,
        limit_w=(700.0,) * GPUS,
        enforced_w=(700.0,) * GPUS,
    )


def message(node: int, seq: int, t: float, reading: Gpus) -> Message:
    """The message that carries it."""
    n = GPUS
    in_force = InForce(reading.uuid, (1.0,) * n, (1.0,) * n, (Outcome.OK,) * n, ("",) * n)
    plan = Obedience(1_700_000_000_000_000, seq, LeaseState.HELD)
    telemetry = Telemetry(f"n{node}", "3f9c2a71", seq, t, 1.0, Reading(reading), in_force, plan)
    return encode(Address("s", "r", "telemetry", f"rack{node // 8}", f"n{node}"), telemetry)


def write_polcad(path: Path, entries: list[Entry]) -> None:
    """Our own frames, each brought to the disk."""
    with RecordingWriter(path) as writer:
        for t, one in entries:
            writer.add(t, one)


def write_lines(path: Path, entries: list[Entry]) -> None:
    """One JSON object a message, gzip level 6, on the disk only at the end."""
    with gzip.open(path, "wt", compresslevel=6) as file:
        for t, one in entries:
            payload = one.payload.decode()
            file.write(json.dumps({"t": t, "topic": one.topic, "payload": payload}) + "\n")


def read_lines(path: Path) -> Iterator[Entry]:
    """The same again."""
    with gzip.open(path, "rt") as file:
        for line in file:
            entry = json.loads(line)
            yield entry["t"], Message(entry["topic"], entry["payload"].encode())


def seconds(work: Callable[[], object]) -> float:
    """How long it takes, median of the runs."""
    times = []
    for _ in range(RUNS):
        start = perf_counter()
        work()
        times.append(perf_counter() - start)
    return median(times)


def fresh(write: Callable[[Path, list[Entry]], None], path: Path, entries: list[Entry]) -> Callable[[], None]:
    """A write that begins with nothing there."""

    def work() -> None:
        path.unlink(missing_ok=True)
        write(path, entries)

    return work


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=3.0)
    entries = list(row(parser.parse_args().minutes))
    samples = len(entries) * GPUS
    with tempfile.TemporaryDirectory() as folder:
        ours, lines = Path(folder) / "a.rec", Path(folder) / "a.jsonl.gz"
        figures = [
            (seconds(fresh(write_polcad, ours, entries)), seconds(fresh(write_lines, lines, entries))),
            (seconds(lambda: sum(1 for _ in read(ours))), seconds(lambda: sum(1 for _ in read_lines(lines)))),
            (
                seconds(lambda: [decode(one) for _, one in read(ours)]),
                seconds(lambda: [decode(one) for _, one in read_lines(lines)]),
            ),
        ]
        sizes = ours.stat().st_size / samples, lines.stat().st_size / samples
    table = Table("", "recording", "gzip JSON lines", "ratio", title=f"{len(entries)} messages, {samples} samples")
    table.add_row("bytes a sample", f"{sizes[0]:.1f}", f"{sizes[1]:.1f}", f"{sizes[1] / sizes[0]:.2f}")
    for name, (own, other) in zip(("written", "read", "read and decoded"), figures, strict=True):
        rate, other_rate = samples / own / 1e6, samples / other / 1e6
        table.add_row(f"million samples/s {name}", f"{rate:.2f}", f"{other_rate:.2f}", f"{rate / other_rate:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
