"""Where a daemon's time goes: each stage of a message, of a tick and of a crossing, alone and in this process.

    python -m benchmarks.scale.stages [--nodes 10000] [--rounds 6] [--json]

Processor time, median of the rounds; in a round each node speaks once, the daemon ticks, and a rack goes over T1. What
the kernel, asyncio and the MQTT client take is what `benchmarks.scale.daemon` measures more than the sum of these.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from benchmarks.scale.row import FIRST_SEQ, Row
from polcad.backlog import DEFAULT_LIMITS, Counters, Inbox
from polcad.config import Config, load
from polcad.daemon import Daemon
from polcad.garbage import little_to_collect
from polcad.intake import READ_BYTES, Intake
from polcad.model import NodePlacement, Plan
from polcad.outlook import Foresight
from polcad.points import Points
from polcad.ports import Heard, Tick
from polcad.reaction import Reactions
from polcad.school_process import ProcessSchool
from polcad.sinks.line import line
from polcad.wire import Address, Message, decode, encode

T = TypeVar("T")
LINES = 100  # messages made into lines in a round


class Stages:
    """A daemon without its broker; `us` has the processor time of each stage, one entry a round."""

    def __init__(self, row: Row, config: Config, school: ProcessSchool) -> None:
        spec, policy = config.the_row()
        maker, forecast = config.forecaster, config.forecast
        foresight = Foresight(maker, school, forecast.hold_s, forecast.q) if maker else None
        self.us: dict[str, list[float]] = {}
        self._daemon = Daemon(config.site, spec, config.guard, policy, config.broker, foresight=foresight)
        self._inbox = Inbox(Counters(), DEFAULT_LIMITS, time.monotonic)
        self._intake = Intake(self._inbox, mqtt5=False)
        self._points = Points(config.site.name, row.name)
        self._packets = list(row.packets())
        self._seq, self._t = FIRST_SEQ, time.time()

    def round(self) -> None:
        """Everything once."""
        self._t += 1.0
        self._seq += 1
        self._tell(self._hear(b"".join(calm.numbered(b"%d" % self._seq) for calm, _ in self._packets))[:LINES])
        self._tick()
        self._cross()
        self._time("a look for cycles: among what is new", lambda: gc.collect(0))
        self._time("a look for cycles: among all but what is set aside", gc.collect)

    def _hear(self, stream: bytes) -> list[Heard]:
        pieces = [stream[at : at + READ_BYTES] for at in range(0, len(stream), READ_BYTES)]
        n = len(self._packets)
        self._time("a message: split from the stream", lambda: [self._intake.feed(piece) for piece in pieces], n)
        messages = self._taken()
        self._time("a message: decoded", lambda: [decode(message) and None for message in messages], n)
        heard = [self._heard(message) for message in messages]
        for what, take in (("heard by the controller", self._daemon.on), ("told to metrics", self._daemon.note)):
            self._time(f"a message: {what}", lambda take=take: [take(each) and None for each in heard], n)  # type: ignore[misc]
        return heard

    def _taken(self) -> list[Message]:
        batches = self._inbox.take()
        try:
            batches.send(None)
        except StopIteration as taken:
            return [received.message for received in taken.value]
        raise RuntimeError("nothing was split from the stream")

    def _heard(self, message: Message) -> Heard:
        address, telemetry = decode(message)
        return Heard(self._t, telemetry, address.rack)

    def _tell(self, heard: list[Heard]) -> None:
        places = [(each, NodePlacement(each.telemetry.node)) for each in heard]

        def lines() -> None:
            for each, placement in places:
                for point in self._points.telemetry(each, placement):
                    line(point).encode()

        self._time("a message: points and lines for a database, if any", lines, len(places))

    def _tick(self) -> None:
        controller, telling = self._daemon.controller, self._daemon.telling
        self._time("a tick: every domain decides", lambda: controller.on(Tick(self._t)))
        self._time("a tick: the row's status", self._daemon.status)
        self._time("a tick: every node in columns", controller.nodes)
        status, nodes = self._daemon.status(), controller.nodes()
        self._time("a tick: told to metrics", lambda: telling.ticked(status, nodes, Reactions(), 0.0, 0.0))
        self._time("a tick: status as JSON", lambda: encode(Address("site", "row", "daemon"), status))

    def _cross(self) -> None:
        """The next probe goes over T1; at the next tick it is free again."""
        self._seq += 1
        number = str(self._seq).encode()
        probes = [over for _, over in self._packets if over is not None]
        self._intake.feed(bytes(probes[self._seq // 2 % len(probes)].numbered(number)))
        [message] = self._taken()
        event = self._heard(message)
        said = self._time("a crossing: its rack decides, the plan is made", lambda: self._daemon.on(event))
        [plan] = [output for output in said if isinstance(output, Plan)]
        self._time("a crossing: the plan as JSON", lambda: encode(Address("site", "row", "plan"), plan))
        self._time("a crossing: who has yet to obey it", lambda: self._daemon.note(event))

    def _time(self, what: str, work: Callable[[], T], times: int = 1) -> T:
        start_s = time.thread_time()
        result = work()
        self.us.setdefault(what, []).append(1e6 * (time.thread_time() - start_s) / times)
        return result


def measure(nodes: int, rounds: int) -> dict[str, list[float]]:
    """Microseconds of each stage."""
    row = Row("row", nodes, 1.0)
    with tempfile.TemporaryDirectory() as folder, closing(ProcessSchool()) as school:
        path = Path(folder) / "row.toml"
        path.write_text(row.config(1883))
        stages = Stages(row, load([path], {}), school)
        with little_to_collect():
            for _ in range(rounds + 1):
                stages.round()
    return {what: us[1:] for what, us in stages.us.items()}  # the first lays everything out


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    found = {what: statistics.median(us) for what, us in measure(args.nodes, args.rounds).items()}
    if args.json:
        print(json.dumps({"nodes": args.nodes, "us": found}))
        return
    print(f"{args.nodes} nodes, median of {args.rounds} rounds, processor time:")
    for what, us in sorted(found.items()):
        print(f"  {what:55} {us:>10.1f} us")


if __name__ == "__main__":
    main()
