"""The link to the broker: kept up for the life of a task (`polcad.lane`), and never in anyone's way.

* `Link.send` never blocks; a slow or absent broker is owed the newest message of each topic (`polcad.backlog`).
* Plans (QoS 0) never wait for the acknowledgement of an event (QoS 1), and neither waits for the thousands of
  placements that a daemon says when it comes: each has a pump of its own.
* At a cluster, what is to be acknowledged has a connection of its own, and subscriptions are at QoS 0. For ten seconds
  after a node is lost, while the others agree on a new leader, NATS takes nothing more from a client that has sent at
  QoS 1, and brings nothing for a new subscription at QoS 1. One at QoS 0 brings the same messages at once.
* Whoever listens to events has a connection to each node for them. NATS acknowledges an event once two of three nodes
  have it, and a third may lose what was on its way there with the node that it came from.
* Readers take all that has arrived in one wake-up.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from random import Random

from polcad.backlog import DEFAULT_LIMITS, Counters, Inbox, Limits, Outbox, Received, is_event
from polcad.broker_spec import BrokerSpec
from polcad.errors import UnavailableError
from polcad.lane import Backoff, Lane, Presence, Traffic
from polcad.wire import Message

__all__ = ["Backoff", "Link", "Presence"]


class Link:
    """One client's link to the broker, and what waits on both sides of it.

    `clock` stamps arrivals (seconds); `rng` spreads the retries; `on_change` hears each time the link comes up (True)
    or goes down. Nothing happens until `run` runs: as a task of a daemon, or by ``async with link.opened()``.
    """

    def __init__(
        self,
        spec: BrokerSpec,
        presence: Presence,
        clock: Callable[[], float],
        rng: Random,
        *,
        limits: Limits = DEFAULT_LIMITS,
        on_change: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self.counters = Counters()
        self._spec = spec
        self._on_change = on_change
        self._inbox = Inbox(self.counters, limits, clock)
        self._unacknowledged, self._acknowledged, self._placements = (Outbox(self.counters, limits) for _ in range(3))
        nodes = list(spec.nodes())
        if len(nodes) > 1:
            rng.shuffle(nodes)  # clients spread over the nodes, and over those that are left when one is gone
        self._lanes = [
            Lane(nodes[first:] + nodes[:first], part, traffic, Backoff(spec.retry_max_s, rng), self._note)
            for first, (part, traffic) in enumerate(self._parts(presence, len(nodes)))
        ]
        self._up = asyncio.Event()
        self._complete_once = False

    @property
    def connected(self) -> bool:
        """Whether all that was subscribed to comes; from the first time on that birth messages were said, too."""
        return self._complete_once and self._lanes[0].connection is not None

    def _parts(self, presence: Presence, nodes: int) -> Iterator[tuple[Presence, Traffic]]:
        """Who we are and what waits, by lane; each begins at a node of its own.

        There is one for all, or else one that waits for no acknowledgement, one that does, and ears at the other nodes.
        """
        plain, sure = self._unacknowledged, self._acknowledged
        if nodes == 1:
            yield presence, Traffic(self._inbox, (plain, sure), self.counters, (self._placements,))
            return
        quick = Presence(f"{presence.client_id}-quick", presence.subscriptions, most_qos=0)
        yield quick, Traffic(self._inbox, (plain,), self.counters)
        events = tuple(each for each in presence.subscriptions if is_event(each.topic))
        surely = replace(presence, subscriptions=events, most_qos=0)
        yield surely, Traffic(self._inbox, (sure,), self.counters, (self._placements,))
        for number in range(2, nodes if events else 0):
            ear = Presence(f"{presence.client_id}-ear{number}", events, most_qos=0)
            yield ear, Traffic(self._inbox, (), self.counters)

    def _note(self, _: bool) -> None:
        """A lane came up, or went down."""
        self._complete_once = self._complete_once or all(lane.connection is not None for lane in self._lanes)
        if self.connected == self._up.is_set():
            return
        if self.connected:
            self._up.set()
        else:
            self._up.clear()
        self._on_change(self.connected)

    async def wait_connected(self) -> None:
        """Return once the link is up."""
        await self._up.wait()

    def send(self, message: Message) -> None:
        """Queue a message and return at once; what cannot be sent in time follows the rule of `polcad.backlog`."""
        self._lane(message).put(message)

    def _lane(self, message: Message) -> Outbox:
        if not message.qos:
            return self._unacknowledged
        return self._placements if message.topic.endswith("/placement") else self._acknowledged

    async def flush(self, within_s: float) -> None:
        """Return once what needs no acknowledgement is handed to the kernel, or the time is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._unacknowledged.emptied()

    async def publish(self, message: Message) -> None:
        """Send a message and wait until it is written (QoS 0) or acknowledged; UnavailableError when that fails."""
        connection = self._lanes[1 if message.qos and len(self._lanes) > 1 else 0].connection
        if connection is None:
            raise UnavailableError(f"broker {self._spec.url}: not connected")
        await connection.publish(message)
        self.counters.sent += 1

    async def batches(self) -> AsyncIterator[list[Received]]:
        """All that has arrived, each time something has; ends when `run` has ended."""
        while batch := await self._inbox.take():
            yield batch

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[Link]:
        """The link, up, for commands: UnavailableError at once when the broker cannot be reached, or refuses."""
        task = asyncio.create_task(self.run(patient=False), name="mqtt")
        up = asyncio.create_task(self._up.wait())
        try:
            await asyncio.wait({task, up}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
            yield self
        finally:
            task.cancel()
            up.cancel()
            await asyncio.wait({task, up})
            if not task.cancelled():
                task.result()

    async def run(self, *, patient: bool = True) -> None:
        """Keep the link up until cancelled, which says farewell and disconnects.

        Unless `patient`, a first connection that fails raises UnavailableError instead of being tried again.
        ConfigError when a password or certificate file cannot be read for it; later, such a file is waited for: it may
        be about to be renewed.
        """
        lanes = [asyncio.create_task(lane.run(patient=patient), name="lane") for lane in self._lanes]
        try:
            done, _ = await asyncio.wait(lanes, return_when=asyncio.FIRST_COMPLETED)
            done.pop().result()  # a lane ends only by an error
        finally:
            for task in lanes:
                task.cancel()
            await asyncio.gather(*lanes, return_exceptions=True)
            self._inbox.close()
