"""What it costs a daemon to write points to a database and to be scraped, and how late its ticks come meanwhile.

    python benchmarks/telling.py [--seconds 20]

Nodes of 8 GPUs with all that NVML tells; the sink writes to a real VictoriaMetrics on this machine. `told` is what one
message costs the event loop: points made, made into lines, left for the sink's thread; beside it the same nine lines
made by influxdb-client's own Point. `arrived` is how many points a second are in the database when they are told as
fast as that goes, and the processor time of both threads for each. A scrape is what the event loop gives (`scene`) and
what a thread beside it lays out (`text`). `lag` is how late a tick of 10 Hz comes on an event loop that tells a row at
1 Hz and is scraped each second, beside one that does the same without telling or being scraped.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from influxdb_client.client.write.point import Point as ClientPoint

sys.path.insert(0, str(Path(__file__).parents[1]))
from polcad.controller import Controller
from polcad.model import Gpus, InForce, LeaseState, NodePlacement, Obedience, Outcome, Reading, Telemetry
from polcad.points import Points
from polcad.ports import Closable, Heard, Sink, Tick
from polcad.reaction import Reactions
from polcad.sinks.influxdb import InfluxDb
from polcad.spec import GuardSpec, NodeSpec, RackSpec, RowSpec
from polcad.telling import Telling
from polcad.web.metrics import Metrics
from policies.polca import Polca
from tests.databases import VictoriaMetrics
from tests.waiting import until

GPUS, RACK_NODES, BOARD_W = 8, 40, 700.0
TICK_S = 0.1
ROUNDS = 20
WARM_UP_S = 2.0
TURNS = 4


class Row:
    """A row that speaks once a second, and what is told of it."""

    def __init__(self, nodes: int, sink: Sink | None) -> None:
        racks = -(-nodes // RACK_NODES)
        budget_w = RACK_NODES * GPUS * BOARD_W
        specs = tuple(NodeSpec(f"n{i}", f"r{i // RACK_NODES}") for i in range(nodes))
        row = RowSpec("row", racks * budget_w, tuple(RackSpec(f"r{i}", budget_w) for i in range(racks)), specs)
        self.controller = Controller(row, GuardSpec(tick_s=TICK_S), Polca(), epoch=1)
        sinks = {} if sink is None else {"influxdb": sink}
        self.telling = Telling(Points("site", "row"), Metrics("row", 60.0), sinks, time.time)
        self._messages = [message(spec.name) for spec in specs]
        self._racks = [spec.rack for spec in specs]
        self._placements = [NodePlacement(spec.name) for spec in specs]

    def speak(self, t: float, first: int = 0, step: int = 1, *, told: bool = True) -> None:
        """Each `step`-th node says its message at `t`."""
        for index in range(first, len(self._messages), step):
            heard = Heard(t, replace(self._messages[index], t=t), self._racks[index])
            self.controller.on(heard)
            if told:
                self.telling.heard(heard, self._placements[index])

    def tick(self, t: float, *, told: bool = True) -> None:
        """A tick of the controller, told."""
        self.controller.on(Tick(t))
        status, nodes = self.controller.status(t), self.controller.nodes()
        if told:
            self.telling.ticked(status, nodes, Reactions(), 0.0, 0.0)

    def heard(self, t: float) -> list[Heard]:
        """All messages of a second."""
        return [Heard(t, replace(each, t=t), rack) for each, rack in zip(self._messages, self._racks, strict=True)]


def message(node: str) -> Telemetry:
    """What an agent over NVML says."""
    eight = lambda value: (value,) * GPUS  # noqa: E731  # a column
    gpus = Gpus(
        uuid=tuple(f"GPU-{node}-{place}" for place in range(GPUS)),
        power_w=tuple(412.7 + place for place in range(GPUS)),
        max_w=eight(BOARD_W),
        min_w=eight(200.0),
        average_w=eight(410.3),
        energy_j=eight(5.123e9),
        util_frac=eight(0.97),
        memory_frac=eight(0.83),
        sm_mhz=eight(1755.0),
        max_mhz=eight(1980.0),
        temp_c=eight(61.0),
        throttle=eight(4),
        limit_w=eight(BOARD_W),
        enforced_w=eight(BOARD_W),
    )
    force = InForce((), eight(1.0), eight(1.0), eight(Outcome.OK), ())
    return Telemetry(node, "b1", 1, 0.0, 1.0, Reading(gpus), force, Obedience(1, 1, LeaseState.HELD))


def spent(work: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds that `work` takes."""
    start_s = clock()
    work()
    return clock() - start_s


def quantile(values: Sequence[float], q: float) -> float:
    """Of what was measured."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def show(what: str, *figures: str) -> None:
    """One line."""
    print(f"{what:62} {'   '.join(figures)}")


def tell_costs(sink: Sink) -> None:
    """What a message costs the event loop."""
    row, t = Row(40, sink), time.time() - 600.0
    taken_us = []
    for second in range(ROUNDS):
        heard = row.heard(t + second)
        taken_us += [
            1e6 * spent(lambda each=each: row.telling.heard(each, NodePlacement(each.telemetry.node))) for each in heard
        ]  # type: ignore[misc]
    median_us = statistics.median(taken_us)
    points = GPUS + 1
    made = Points("site", "row").telemetry(heard[0], NodePlacement("n0"))

    def by_client() -> None:
        for point in made:
            each = ClientPoint(point.measurement).time(round(point.t * 1e6), "us")
            for name, value in point.tags:
                each.tag(name, value)
            for field, figure in point.fields.items():
                each.field(field, figure)
            each.to_line_protocol()

    client_us = 1e6 * statistics.median(spent(by_client) for _ in range(200))
    show("told: a message of 8 GPUs, nine points", f"{median_us:.0f} us", f"P99 {quantile(taken_us, 0.99):.0f} us")
    show("  points a second on one core", f"{1e6 * points / median_us:,.0f}")
    show("  the same nine lines by the client's Point", f"{client_us:.0f} us")


def arrivals(victoria: VictoriaMetrics) -> None:
    """How many points a second arrive."""
    sink = InfluxDb(url=victoria.url, flush_s=0.05).open()
    row, t, seconds = Row(40, sink), time.time() - 2000.0, 600

    def write() -> None:
        for second in range(seconds):
            for heard in row.heard(t + second):
                row.telling.heard(heard, NodePlacement(heard.telemetry.node))
        until(lambda: sink.counts().waiting == 0, 120.0)

    cpu_s, wall_s = time.process_time(), spent(write)
    cpu_s = time.process_time() - cpu_s
    counts = sink.counts()
    show("arrived in VictoriaMetrics, beside it on two cores", f"{counts.written / wall_s:,.0f} points/s")
    show("  processor time of all of this process", f"{1e6 * cpu_s / counts.written:.1f} us a point")
    show("  points lost", str(counts.dropped + counts.refused))
    close(sink)


def scrapes(nodes: int) -> None:
    """What a scrape costs."""
    row, t = Row(nodes, None), time.time()
    for second in range(60):
        row.speak(t - 60 + second)
        row.tick(t - 60 + second)
    row.tick(time.time())
    scene_ms = [1e3 * spent(row.telling.scene) for _ in range(ROUNDS)]
    text_ms = [1e3 * spent(lambda: row.telling.scene().laid_out().text()) for _ in range(ROUNDS)]
    size = len(row.telling.scene().laid_out().text())
    scene, text = statistics.median(scene_ms), statistics.median(text_ms)
    show(f"a scrape of {nodes} nodes", f"scene {scene:.2f} ms", f"text {text:.1f} ms", f"{size / 1024:.0f} KiB")


async def lags(nodes: int, sink: Sink | None, seconds: float) -> list[float]:
    """How late each tick came, ms; with a sink, the row is told and scraped too."""
    row, told = Row(nodes, sink), sink is not None
    late_ms: list[float] = []
    due, number = time.perf_counter() + TICK_S, 0
    scrape: asyncio.Task[object] | None = None
    while len(late_ms) < (WARM_UP_S + seconds) / TICK_S:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        late_ms.append(1e3 * (time.perf_counter() - due))
        due += TICK_S
        t = time.time()
        row.speak(t, number % 10, 10, told=told)
        row.tick(t, told=told)
        if told and number % 10 == 0:
            scene = row.telling.scene()
            scrape = asyncio.create_task(asyncio.to_thread(lambda scene=scene: scene.laid_out().text()))  # type: ignore[misc]
        number += 1
    if scrape is not None:
        await scrape
    return late_ms[round(WARM_UP_S / TICK_S) :]


def compare_lags(nodes: int, sink: Sink, seconds: float) -> None:
    """Both kinds in turns, so that what else this machine does meets both."""
    kinds = {"alone": None, "told and scraped": sink}
    late_ms: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(TURNS):
        for name, where in kinds.items():
            late_ms[name] += asyncio.run(lags(nodes, where, seconds / TURNS))
    for name, values in late_ms.items():
        figures = (
            f"{label} {quantile(values, q):.1f} ms" for label, q in (("median", 0.5), ("P90", 0.9), ("P99", 0.99))
        )
        show(f"lag of a tick, {nodes} nodes, {name}", *figures)


def close(sink: Sink) -> None:
    """End a sink."""
    if isinstance(sink, Closable):
        sink.close()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, VictoriaMetrics(Path(folder)) as victoria:
        sink = InfluxDb(url=victoria.url).open()
        tell_costs(sink)
        arrivals(victoria)
        for nodes in (40, 1000):
            scrapes(nodes)
        for nodes in (40, 1000):
            compare_lags(nodes, sink, options.seconds)
        counts = sink.counts()
        show("  points lost meanwhile", str(counts.dropped + counts.refused))
        close(sink)


if __name__ == "__main__":
    main()
