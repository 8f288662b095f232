"""The link to the broker: kept up for the life of a task, and never in anyone's way.

* It reconnects for ever, with a wait of random length that doubles, so that a row of nodes does not return as one.
* Of a cluster it tries one node after the other, each link in an order of its own, and waits once it has tried all.
* Every connection starts the same way: subscribe, say the birth messages, then all that waits.
* `Link.send` never blocks; a slow or absent broker is owed the newest message of each topic (`polcad.backlog`).
* Plans (QoS 0) never wait for the acknowledgement of an event (QoS 1): each has a pump of its own.
* Readers take all that has arrived in one wake-up.
* A stop is clean: the farewell is said, then DISCONNECT, so that the last will stays unsaid. A crash leaves the will.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from itertools import cycle
from random import Random

from polcad.backlog import DEFAULT_LIMITS, Counters, Inbox, Limits, Outbox, Received
from polcad.broker_spec import BrokerSpec
from polcad.connection import Connection
from polcad.errors import ConfigError, UnavailableError
from polcad.wire import Address, Message

FAREWELL_S = 2.0  # the longest that a clean stop may take
FIRST_RETRY_S = 1.0  # the first wait is a random part of this
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Presence:
    """What a client is to the broker.

    `client_id` must be unique at the broker: of two with the same, each takes the connection from the other. `birth` is
    sent first after each connect, `farewell` last before a clean disconnect, `will` by the broker if we vanish.
    """

    client_id: str
    subscriptions: tuple[Address, ...] = ()
    birth: tuple[Message, ...] = ()
    farewell: tuple[Message, ...] = ()
    will: Message | None = None


class Backoff:
    """How long to wait before the next try: a random part of a span that doubles up to `max_s`."""

    def __init__(self, max_s: float, rng: Random) -> None:
        self._max_s = max_s
        self._rng = rng
        self._span_s = FIRST_RETRY_S

    def wait_s(self, lasted_s: float) -> float:
        """Seconds to wait after a connection of `lasted_s` (0: there was none); one that lasted starts anew.

        One that breaks soon does not: two clients with one name would else hammer the broker for ever.
        """
        if lasted_s > self._max_s:
            self._span_s = FIRST_RETRY_S
        wait_s = self._rng.random() * min(self._span_s, self._max_s)
        self._span_s = min(2.0 * self._span_s, self._max_s)
        return wait_s


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
        self._nodes = list(spec.nodes())
        if len(self._nodes) > 1:
            rng.shuffle(self._nodes)  # clients spread over the nodes, and over those that are left when one is gone
        self._presence = presence
        self._backoff = Backoff(spec.retry_max_s, rng)
        self._on_change = on_change
        self._inbox = Inbox(self.counters, limits, clock)
        self._outboxes = (Outbox(self.counters, limits), Outbox(self.counters, limits))  # QoS 0; acknowledged
        self._up = asyncio.Event()
        self._connection: Connection | None = None  # while the link is up
        self._connected_s: float | None = None  # when the link last came up, by the event loop's clock
        self._warned: set[str] = set()  # since the link was last up

    @property
    def connected(self) -> bool:
        """Whether the link is up: subscribed, and the birth messages are sent."""
        return self._connection is not None

    async def wait_connected(self) -> None:
        """Return once the link is up."""
        await self._up.wait()

    def send(self, message: Message) -> None:
        """Queue a message and return at once; what cannot be sent in time follows the rule of `polcad.backlog`."""
        self._outboxes[message.qos > 0].put(message)

    async def flush(self, within_s: float) -> None:
        """Return once what needs no acknowledgement is handed to the kernel, or the time is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._outboxes[0].emptied()

    async def publish(self, message: Message) -> None:
        """Send a message and wait until it is written (QoS 0) or acknowledged; UnavailableError when that fails."""
        if self._connection is None:
            raise UnavailableError(f"broker {self._spec.url}: not connected")
        await self._connection.publish(message)
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

        Unless `patient`, a first connection that fails, at each node, raises UnavailableError instead of being tried
        again.
        ConfigError when a password or certificate file cannot be read for it; later, such a file is waited for: it may
        be about to be renewed.
        """
        loop = asyncio.get_running_loop()
        try:
            for node in cycle(self._nodes):
                tried_s = loop.time()
                all_tried = node is self._nodes[-1]
                try:
                    await self._connect_and_serve(node)
                except (UnavailableError, ConfigError) as error:
                    never = self._connected_s is None
                    if never and (isinstance(error, ConfigError) or (all_tried and not patient)):
                        raise
                    self._warn_once(f"{error}; trying again")
                came_up = self._connected_s is not None and self._connected_s >= tried_s
                if came_up or all_tried:
                    await asyncio.sleep(self._backoff.wait_s(loop.time() - tried_s if came_up else 0.0))
        finally:
            self._inbox.close()

    async def _connect_and_serve(self, node: BrokerSpec) -> None:
        """One connection from beginning to end; UnavailableError says why it could not be made, or broke."""
        connection = Connection(node, self._presence.client_id, self._presence.will, self._inbox)
        try:
            await connection.open()
            try:
                await connection.subscribe(self._presence.subscriptions)
                for message in self._presence.birth:
                    await connection.publish(message)
                self._mark_up(connection, node)
                await self._serve(connection)
            except asyncio.CancelledError:
                await self._leave(connection)
                raise
        finally:
            self._mark_down()
            await connection.drop()

    async def _serve(self, connection: Connection) -> None:
        """Send what waits until the connection breaks: UnavailableError."""
        tasks: list[asyncio.Task[None]] = [asyncio.create_task(connection.ended())]
        tasks += [asyncio.create_task(self._pump(connection, outbox)) for outbox in self._outboxes]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
        raise next(end for end in ends if isinstance(end, Exception))

    async def _pump(self, connection: Connection, outbox: Outbox) -> None:
        """Send one message after the other; one that was not sent for certain goes back."""
        while True:
            message = await outbox.get()
            try:
                await connection.publish(message)
            except BaseException:  # a cancellation too
                outbox.put_back(message)
                raise
            self.counters.sent += 1

    async def _leave(self, connection: Connection) -> None:
        """Send what waits and the farewell, and disconnect, as far as that goes within FAREWELL_S."""
        try:
            async with asyncio.timeout(FAREWELL_S):
                for outbox in self._outboxes:
                    while message := outbox.pop():
                        await connection.publish(message)
                        self.counters.sent += 1
                for message in self._presence.farewell:
                    await connection.publish(message)
                await connection.disconnect()
        except (UnavailableError, TimeoutError) as error:
            why = str(error) or f"no answer within {FAREWELL_S:g} s"
            _LOG.warning("the farewell was not sent, so the last will speaks: %s", why)

    def _mark_up(self, connection: Connection, node: BrokerSpec) -> None:
        self.counters.reconnects += self._connected_s is not None
        self._connected_s = asyncio.get_running_loop().time()
        self._connection = connection
        self._up.set()
        self._warned.clear()
        _LOG.info("broker %s: connected", node.url)
        self._on_change(True)

    def _mark_down(self) -> None:
        if self._connection is not None:
            self._connection = None
            self._up.clear()
            self._on_change(False)

    def _warn_once(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            _LOG.warning("%s", text)
