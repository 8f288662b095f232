"""The controller alone: what one tick and one telemetry event of a large row cost.

    python benchmarks/controller.py [--nodes 10000] [--rounds 20] [--json]

Nodes of 8 GPUs in racks of 40, every rack with a budget; powers move in each message, locks are in force on half of
the GPUs. `surge` is a second in which every rack crosses a threshold, decided on arrival. Beside them,
in the same run, the bare cost of adding up the same figures: ``sum()`` of one message's powers, and numpy's sum of
an array of all GPUs. Targets: a tick in 50 ms, an event in 20 us.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np

from polcad.controller import Controller
from polcad.model import FREE, LeaseState, Obedience, Priority, Setpoint, Telemetry
from polcad.ports import Heard, Tick
from polcad.spec import GuardSpec, NodeSpec, RackSpec, RowSpec
from polcad.testing import telemetry
from policies.polca import Polca

GPUS, RACK_NODES, BOARD_W = 8, 40, 700.0
LOCK = Setpoint(1275 / 1410)
CALM, SURGE = 0.62, 0.66  # of the boards' maximum; budgets are .8 of it, so T1 is at .64
T0 = 1_760_000_000.0


class Bench:
    """A row that speaks once a second."""

    def __init__(self, nodes: int) -> None:
        racks = -(-nodes // RACK_NODES)
        budget_w = 0.8 * RACK_NODES * GPUS * BOARD_W
        specs = tuple(
            NodeSpec(f"n{i}", f"r{i // RACK_NODES}", priority=Priority.HIGH if i % 2 else Priority.LOW)
            for i in range(nodes)
        )
        row = RowSpec("row", racks * budget_w, tuple(RackSpec(f"r{i}", budget_w) for i in range(racks)), specs)
        self.controller = Controller(row, GuardSpec(), Polca(), epoch=1)
        self._specs, self._seq, self._rng = specs, 0, random.Random(7)  # noqa: S311  # figures, not secrets
        self.t = T0

    def messages(self, level: float) -> list[Heard]:
        """One second of telemetry, at this share of the boards' maximum."""
        self._seq += 1
        self.t += 1.0
        return [Heard(self.t, self._message(spec, level), spec.rack) for spec in self._specs]

    def _message(self, spec: NodeSpec, level: float) -> Telemetry:
        powers = tuple(round(BOARD_W * level * self._rng.uniform(0.95, 1.05), 1) for _ in range(GPUS))
        setpoint = LOCK if spec.priority is Priority.LOW else FREE
        plan = Obedience(1, self._seq, LeaseState.HELD)
        return telemetry(spec.name, powers, seq=self._seq, setpoint=setpoint, plan=plan)

    def hear(self, messages: Sequence[Heard]) -> list[float]:
        """Seconds that each message took."""
        on, taken_s = self.controller.on, []
        for message in messages:
            start_s = time.perf_counter()
            on(message)
            taken_s.append(time.perf_counter() - start_s)
        return taken_s

    def tick(self) -> float:
        """Seconds that a tick took."""
        return timed(lambda: self.controller.on(Tick(self.t)))


def timed(work: Callable[[], object]) -> float:
    """Seconds that `work` took."""
    start_s = time.perf_counter()
    work()
    return time.perf_counter() - start_s


def measure(nodes: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of each kind of work."""
    bench = Bench(nodes)
    found: dict[str, list[float]] = {name: [] for name in ("tick", "status", "event", "surge", "sum()", "numpy sum")}
    bench.hear(bench.messages(CALM))
    bench.tick()
    for _ in range(rounds):
        messages = bench.messages(CALM)
        gc.collect()
        found["event"] += bench.hear(messages)
        found["tick"].append(bench.tick())
        found["status"].append(timed(lambda: bench.controller.status(bench.t)))
        columns = [message.telemetry.reading.gpus.power_w for message in messages]
        found["sum()"] += [timed(lambda column=column: sum(column)) for column in columns]  # type: ignore[misc]
        every = np.array(columns, dtype=float)
        found["numpy sum"].append(timed(lambda every=every: every.sum()))  # type: ignore[misc]
    found["surge"].append(sum(bench.hear(bench.messages(SURGE))))
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--nodes", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = measure(options.nodes, options.rounds)
    table = {
        name: {"median_us": statistics.median(taken_s) * 1e6, "p99_us": float(np.quantile(taken_s, 0.99)) * 1e6}
        for name, taken_s in found.items()
    }
    if options.json:
        print(json.dumps({"nodes": options.nodes, "gpus": GPUS * options.nodes, **table}))
        return
    said = {
        "tick": "one tick: every domain decides, plan made",
        "status": "what the daemon says of itself after a tick",
        "event": "one telemetry event",
        "surge": "a second of events in which every rack crosses T1 and the row too",
        "sum()": "bare: sum() of one message's powers",
        "numpy sum": "bare: numpy sum of all powers",
    }
    print(f"{options.nodes} nodes x {GPUS} GPUs, racks of {RACK_NODES} with budgets, {options.rounds} rounds\n")
    print(f"{'':68} {'median':>12} {'P99':>12}")
    for name, row in table.items():
        print(f"{said[name]:68} {row['median_us']:>9.1f} us {row['p99_us']:>9.1f} us")


if __name__ == "__main__":
    main()
