"""Rows spread over daemons, each a process of its own on a core of its own, as far as there are cores.

    python -m benchmarks.scale.many [--seconds 5] [--daemons 1,2,4] [--nodes 1000] [--json]

They share nothing but the broker. What a message costs each of them must not grow with their number: then a machine
takes as many rows as it has cores for. `us each` is the processor time of a daemon over the messages it heard, `all`
how many a second so many cores take at that price, and `linear` that over as many times one daemon's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
from dataclasses import asdict
from pathlib import Path

from benchmarks.scale.bench import Figures, measure
from benchmarks.scale.row import Row


async def spread(daemons: int, nodes: int, seconds: float) -> list[Figures]:
    """What each of so many daemons did."""
    rows = [Row(f"row{number}", nodes, 1.0) for number in range(daemons)]
    with tempfile.TemporaryDirectory() as folder:
        return await measure(rows, Path(folder), seconds)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--daemons", default="1,2,4")
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    found = [asyncio.run(spread(int(number), args.nodes, args.seconds)) for number in args.daemons.split(",")]
    if args.json:
        print(json.dumps([[asdict(each) for each in figures] for figures in found]))
        return
    print(f"rows of {args.nodes} nodes at 1 Hz, a daemon each, one broker")
    print(f"{'daemons':>7} {'us each':>8} {'all':>8} {'linear':>7} {'MiB each':>9} {'lost':>6} {'broker us':>9}")
    first_us = statistics.mean(each.each_us for each in found[0])
    for figures in found:
        each_us = statistics.mean(each.each_us for each in figures)
        memory_mib = statistics.mean(each.memory_mib for each in figures)
        print(
            f"{len(figures):>7} {each_us:>8.1f} {1e6 * len(figures) / each_us:>8.0f} {first_us / each_us:>7.0%} "
            f"{memory_mib:>9.0f} {sum(each.lost for each in figures):>6} {figures[0].broker_us:>9.1f}"
        )


if __name__ == "__main__":
    main()
