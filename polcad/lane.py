"""One connection to the broker after the other, for as long as a link lives: `polcad.mqtt` has one lane, or two.

* It reconnects for ever, with a wait of random length that doubles, so that a row of nodes does not return as one.
* Of a cluster it tries one node after the other, its own first but the one that it lost last, and waits once it has
  tried all. So lanes that begin at several nodes stay apart where every node lets them in; they may meet at one while
  the others refuse, and stay there until it is lost.
* Every connection starts the same way: subscribe, say the birth messages, then all that waits.
* A stop is clean: the farewell is said, then DISCONNECT, so that the last will stays unsaid. A crash leaves the will.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from polcad.backlog import Counters, Inbox, Outbox
from polcad.broker_spec import BrokerSpec
from polcad.connection import Connection
from polcad.errors import ConfigError, UnavailableError
from polcad.wire import Address, Message

FAREWELL_S = 2.0  # the longest that a clean stop may take
FIRST_RETRY_S = 1.0  # the first wait is a random part of this
_PLACING = 8  # placements that may wait for their acknowledgement at once: one by one they take minutes in a large row
_LOG = logging.getLogger("polcad.mqtt")


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
    most_qos: int = 1  # of what is subscribed to


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


@dataclass(frozen=True, slots=True)
class Traffic:
    """What waits on both sides of a lane, and what is counted of it; lanes of one link may share inbox and counters."""

    inbox: Inbox
    outboxes: tuple[Outbox, ...]
    counters: Counters
    placements: tuple[Outbox, ...] = ()  # left unsent at a clean stop: whoever comes next says them again


class Lane:
    """A connection that is kept up while `run` runs; `on_change` hears each time it comes up or goes down.

    `nodes` are tried in turn. FAREWELL_S bounds a clean stop.
    """

    def __init__(
        self,
        nodes: Sequence[BrokerSpec],
        presence: Presence,
        traffic: Traffic,
        backoff: Backoff,
        on_change: Callable[[bool], None],
    ) -> None:
        self.connection: Connection | None = None  # while it is up
        self._nodes, self._presence, self._traffic = nodes, presence, traffic
        self._backoff, self._on_change = backoff, on_change
        self._connected_s: float | None = None  # when it last came up, by the event loop's clock
        self._warned: set[str] = set()  # since it was last up

    async def run(self, *, patient: bool = True) -> None:
        """Keep it up until cancelled, which says farewell and disconnects.

        Unless `patient`, a first connection that fails, at each node, raises UnavailableError instead of being tried
        again.
        ConfigError when a password or certificate file cannot be read for it; later, such a file is waited for: it may
        be about to be renewed.
        """
        loop = asyncio.get_running_loop()
        to_try: list[BrokerSpec] = []
        while True:
            to_try = to_try or list(self._nodes)
            node, tried_s = to_try.pop(0), loop.time()
            all_tried = not to_try
            try:
                await self._connect_and_serve(node)
            except (UnavailableError, ConfigError) as error:
                never = self._connected_s is None
                if never and (isinstance(error, ConfigError) or (all_tried and not patient)):
                    raise
                self._warn_once(f"{error}; trying again")
            came_up = self._connected_s is not None and self._connected_s >= tried_s
            if came_up:
                to_try = [*(each for each in self._nodes if each is not node), node]
            if came_up or all_tried:
                await asyncio.sleep(self._backoff.wait_s(loop.time() - tried_s if came_up else 0.0))

    async def _connect_and_serve(self, node: BrokerSpec) -> None:
        """One connection from beginning to end; UnavailableError says why it could not be made, or broke."""
        connection = Connection(node, self._presence.client_id, self._presence.will, self._traffic.inbox)
        try:
            await connection.open()
            try:
                await connection.subscribe(self._presence.subscriptions, self._presence.most_qos)
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
        pumped = (*self._traffic.outboxes, *(_PLACING * self._traffic.placements))
        tasks += [asyncio.create_task(self._pump(connection, outbox)) for outbox in pumped]
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
            self._traffic.counters.sent += 1

    async def _leave(self, connection: Connection) -> None:
        """Send what waits and the farewell, and disconnect, as far as that goes within FAREWELL_S.

        Placements are left: whoever comes next says them again.
        """
        try:
            async with asyncio.timeout(FAREWELL_S):
                for outbox in self._traffic.outboxes:
                    while message := outbox.pop():
                        await connection.publish(message)
                        self._traffic.counters.sent += 1
                for message in self._presence.farewell:
                    await connection.publish(message)
                await connection.disconnect()
        except (UnavailableError, TimeoutError) as error:
            why = str(error) or f"no answer within {FAREWELL_S:g} s"
            _LOG.warning("the farewell was not sent, so the last will speaks: %s", why)

    def _mark_up(self, connection: Connection, node: BrokerSpec) -> None:
        self._traffic.counters.reconnects += self._connected_s is not None
        self._connected_s = asyncio.get_running_loop().time()
        self.connection = connection
        self._warned.clear()
        _LOG.info("broker %s: connected", node.url)
        self._on_change(True)

    def _mark_down(self) -> None:
        if self.connection is not None:
            self.connection = None
            self._on_change(False)

    def _warn_once(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            _LOG.warning("%s", text)
