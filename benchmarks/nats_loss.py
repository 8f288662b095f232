"""What losing a node of a NATS cluster costs a row's clients: how long who goes without plans, and which events.

    python benchmarks/nats_loss.py [--losses 4] [--json]

Three nodes on 127.0.0.1; a daemon's link that sends a plan each 0.1 s and an event each 0.5 s, six agents' and six
listeners' links, spread at random. Then kill -9, and a start again: of the node that leads MQTT's sessions, the one
that leads its messages, the one that leads all of JetStream, the one that leads retained messages, and so on. `beside`
is the longest time without a plan at the agents of the other two nodes, `at it` that at its own; `all back` the
time until every link hears again. Events are counted at all listeners.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field
from itertools import count, pairwise
from pathlib import Path
from random import Random

from polcad.backlog import Received
from polcad.mqtt import Link, Presence
from polcad.testing_nats import NatsCluster
from polcad.wire import Address, Message

PLAN, EVENT = Address("site", "row", "plan"), Address("site", "row", "event")
LED = ("$MQTT_sess", "$MQTT_msgs", "", "$MQTT_rmsgs")  # "": JetStream as a whole
PLAN_S, EVENT_EVERY = 0.1, 5
AT_ONCE_S = 1.5  # within which a link notices that its node was killed
CALM_S, LONGEST_S = 3.0, 60.0
LATE_S = 20.0  # for events that waited until the nodes had agreed on who leads


@dataclass
class Client:
    """A link, what it heard, and when it changed."""

    link: Link
    broke_s: list[float]  # when something of it went down
    heard: list[Received] = field(default_factory=list)

    async def listen(self) -> None:
        """Hear until the link ends."""
        async for batch in self.link.batches():
            self.heard += batch

    def lost_its_node(self, killed_s: float) -> bool:
        """Whether it was connected to a node that was killed then."""
        return any(killed_s <= each < killed_s + AT_ONCE_S for each in self.broke_s)

    def longest_gap_s(self, since_s: float) -> float:
        """The longest time between two messages since then."""
        times = [each.t for each in self.heard if each.t >= since_s - AT_ONCE_S]
        return max(after - before for before, after in pairwise([*times, time.monotonic()]))


@dataclass(frozen=True, slots=True)
class Loss:
    """What one loss cost."""

    led: str
    beside_s: float
    at_it_s: float
    all_back_s: float
    events: int
    events_lost: int


@asynccontextmanager
async def client(cluster: NatsCluster, name: str, *subscriptions: Address) -> AsyncIterator[Client]:
    """A client of the cluster, for as long as the block lasts."""
    broke_s: list[float] = []

    def note(up: bool) -> None:
        if not up:
            broke_s.append(time.monotonic())

    link = Link(cluster.spec(name), Presence(name, subscriptions), time.monotonic, Random(name), on_change=note)  # noqa: S311  # spreads
    made = Client(link, broke_s)
    tasks = [asyncio.create_task(link.run()), asyncio.create_task(made.listen())]
    await link.wait_connected()
    yield made
    tasks[0].cancel()
    await asyncio.wait(tasks)


async def speak(daemon: Client, said: list[tuple[float, bytes]]) -> None:
    """Send plans and events until cancelled; what was said of events is noted."""
    for number in count():
        payload = b"%d" % number
        daemon.link.send(Message(PLAN.topic, payload))
        if number % EVENT_EVERY == 0:
            daemon.link.send(Message(EVENT.topic, payload, 1))
            said.append((time.monotonic(), payload))
        await asyncio.sleep(PLAN_S)


async def lose(cluster: NatsCluster, stream: str, row: Sequence[Client], said: list[tuple[float, bytes]]) -> Loss:
    """Kill the node that leads this, wait until all is well, and start it again. The row is daemon, agents, ears."""
    agents, ears = row[1:7], row[7:]
    node = await asyncio.to_thread(cluster.leader, stream)
    killed_s = time.monotonic()
    await asyncio.to_thread(node.stop, signal.SIGKILL)
    await asyncio.sleep(AT_ONCE_S)
    async with asyncio.timeout(LONGEST_S):
        while not all(each.link.connected for each in row):  # noqa: ASYNC110  # no event tells of all links
            await asyncio.sleep(0.05)
    all_back_s = time.monotonic() - killed_s
    wanted = {payload for t, payload in said if t >= killed_s - AT_ONCE_S}
    await asyncio.sleep(CALM_S)
    gaps = [(each.lost_its_node(killed_s), each.longest_gap_s(killed_s)) for each in agents]
    await asyncio.to_thread(node.start)
    await asyncio.sleep(LATE_S)
    heard = [{each.message.payload for each in ear.heard} for ear in ears]
    return Loss(
        stream or "JetStream",
        max((gap_s for at_it, gap_s in gaps if not at_it), default=0.0),
        max((gap_s for at_it, gap_s in gaps if at_it), default=0.0),
        all_back_s,
        len(wanted) * len(heard),
        sum(len(wanted - each) for each in heard),
    )


async def losses(cluster: NatsCluster, number: int) -> list[Loss]:
    """That many, one after the other."""
    said: list[tuple[float, bytes]] = []
    async with AsyncExitStack() as stack:
        row = [await stack.enter_async_context(client(cluster, "daemon"))]
        row += [await stack.enter_async_context(client(cluster, f"n{each}", PLAN)) for each in range(6)]
        row += [await stack.enter_async_context(client(cluster, f"ear{each}", EVENT)) for each in range(6)]
        speaking = asyncio.create_task(speak(row[0], said))
        await asyncio.sleep(CALM_S)
        found = [await lose(cluster, LED[each % len(LED)], row, said) for each in range(number)]
        speaking.cancel()
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--losses", type=int, default=4)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    with tempfile.TemporaryDirectory() as name, NatsCluster(Path(name)) as cluster:
        found = asyncio.run(losses(cluster, options.losses))
    if options.json:
        print(json.dumps([asdict(each) for each in found]))
        return
    print("| the lost node led | without a plan, beside | without a plan, at it | all back | events lost, of |")
    print("|---|---|---|---|---|")
    for each in found:
        print(
            f"| {each.led} | {each.beside_s:.1f} s | {each.at_it_s:.1f} s | {each.all_back_s:.1f} s "
            f"| {each.events_lost}, {each.events} |"
        )


if __name__ == "__main__":
    main()
