"""A day of simulated nodes, as fast as the daemon takes it: ``python -m tests.soak.feed PORT NODES HOURS``.

Each recorded second every node speaks once. The load has the shape of a day, with bursts, and drives the row over its
thresholds; nodes follow the plans that they hear. Each recorded hour something happens to one of them: its agent starts
anew, or it is silent for a while, or an operator holds it. The daemon's own count of what it took sets the pace, so
nothing may be dropped. Every five seconds a line tells how far it is: recorded seconds, messages sent,
messages dropped.
"""

from __future__ import annotations

import math
import random
import sys
import threading
import time
from dataclasses import replace

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from polcad.errors import WireError
from polcad.model import Hold, Plan, RowStatus, Setpoint, Telemetry
from polcad.spec import NodeSpec, RowSpec
from polcad.testing import LoopRow
from polcad.wire import Address, Message, decode, encode

GPUS, GPU_MAX_W = 4, 400.0
HOUR_S = 3600
_AHEAD = 1000  # messages that may be on their way
_TELL_S = 5.0
_SILENT_S = 600  # recorded: long enough for the daemon to miss the node at any pace


def names(nodes: int) -> list[str]:
    """What the simulated nodes are called."""
    return [f"s{number}" for number in range(nodes)]


def load(second: int, rng: random.Random) -> float:
    """The load of a recorded second: a day's wave, a quarter of an hour's, and noise."""
    day = 0.55 - 0.35 * math.cos(2 * math.pi * second / (24 * HOUR_S))
    return min(1.0, max(0.0, day + 0.2 * math.sin(2 * math.pi * second / 900) + rng.gauss(0.0, 0.03)))


class Feed:
    """The nodes, and their connection."""

    def __init__(self, port: int, nodes: int) -> None:
        specs = tuple(NodeSpec(name, "r1", gpus=GPUS, gpu_max_w=GPU_MAX_W) for name in names(nodes))
        self.row = LoopRow(RowSpec("row", 1.0, nodes=specs))
        self.sent = self.taken = self.dropped = 0
        self._runs = dict.fromkeys(self.row.nodes, 0)
        self._plan: Plan | None = None
        self._news = threading.Condition()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id="soak-feed")
        self._client.on_message = lambda _, __, said: self._hear(Message(said.topic, bytes(said.payload)))
        self._client.connect("127.0.0.1", port)
        for kind in ("plan", "daemon"):
            self._client.subscribe(Address("site", "row", kind).topic)
        self._client.loop_start()

    def _hear(self, message: Message) -> None:
        try:
            noun = decode(message)[1]
        except WireError:
            return
        with self._news:
            if isinstance(noun, Plan):
                self._plan = noun
            elif isinstance(noun, RowStatus):
                self.dropped = noun.counters.get("dropped_in", 0)
                self.taken = noun.counters.get("telemetry", 0) + self.dropped
            self._news.notify()

    def second(self) -> None:
        """One recorded second of all nodes, once the daemon has taken enough of what was sent."""
        with self._news:
            self._news.wait_for(lambda: self.sent - self.taken < _AHEAD, 60.0)
            plan, self._plan = self._plan, None
        if plan is not None:
            self.row.take(plan, time.monotonic())
        for heard in self.row.speak(time.monotonic()):
            self._say(heard.telemetry)

    def _say(self, said: Telemetry) -> None:
        run = self._runs[said.node]
        message = encode(Address("site", "row", "telemetry", "r1", said.node), replace(said, boot_id=f"run{run}"))
        self._client.publish(message.topic, message.payload)
        self.sent += 1

    def happen(self, hour: int, node: str) -> None:
        """What happens in an hour: one thing to one node."""
        self.row.silent.clear()
        if hour % 3 == 0:
            self._runs[node] += 1
        elif hour % 3 == 1:
            self.row.silent.add(node)
        else:
            hold = Hold(f"h{hour}", f"node/{node}", Setpoint(0.9), time.time() + 2.0, "soak")
            held = encode(Address("site", "row", "hold", hold=hold.name), hold)
            self._client.publish(held.topic, held.payload, held.qos)


def main() -> None:
    """Feed the day."""
    port, nodes, hours = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    rng, told_s = random.Random(7), 0.0  # noqa: S311  # the same day each time
    feed = Feed(port, nodes)
    for second in range(int(hours * HOUR_S)):
        hour, into_s = divmod(second, HOUR_S)
        if into_s == 0:
            feed.happen(hour, names(nodes)[hour % nodes])
        elif into_s == _SILENT_S:
            feed.row.silent.clear()
        feed.row.load(load(second, rng))
        feed.second()
        if time.monotonic() - told_s > _TELL_S:
            told_s = time.monotonic()
            sys.stdout.write(f"{second} {feed.sent} {feed.dropped}\n")
            sys.stdout.flush()
    sys.stdout.write(f"{second + 1} {feed.sent} {feed.dropped}\n")


if __name__ == "__main__":
    main()
