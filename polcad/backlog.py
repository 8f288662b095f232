"""What waits between the broker and us: bounded, and plain about what is given up when one side is slow.

Everything but telemetry and events is level-triggered: the newest message of a topic says all. So a slow or absent
broker is owed the newest message of each topic, and the events in their order; of telemetry the older one is dropped
and counted. On the way in, telemetry beyond the limit pushes the oldest telemetry out, and never a plan, a hold, a
placement or a state: those have a place of their own, which only a flood of their own kind could fill. And no topic has
more than its share of a moment: a node that floods is cut short before anybody decodes it, so it delays no other.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import NamedTuple

from polcad.wire import MAX_PAYLOAD_BYTES, Message

_arrival = attrgetter("t")


@dataclass(slots=True)
class Counters:
    """Messages of one link since it was made."""

    received: int = 0
    sent: int = 0
    dropped_in: int = 0  # not taken in time, or of a flood
    dropped_out: int = 0  # telemetry overtaken before it was sent, and events beyond the limit
    oversized: int = 0  # payloads beyond MAX_PAYLOAD_BYTES
    reconnects: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """How many messages may wait."""

    telemetry: int = 20_000  # 10 000 nodes for two seconds; 40 MB
    a_topic: int = 100  # telemetry of one topic in `MOMENT_S`: a thousand times what a node says
    others: int = 100_000  # retained states and placements of 50 000 nodes, on connecting
    events: int = 1_000  # to send


DEFAULT_LIMITS = Limits()
MOMENT_S = 0.1


class Received(NamedTuple):
    """A message and when it arrived; ``message.retain`` tells that it had been kept by the broker, so is of any age."""

    t: float
    message: Message


_EVENTS_KNOWN = 10_000  # 1 MB, for what comes twice within minutes
_EVENTS = ("/event", "/site_event")


def is_event(topic: str) -> bool:
    """Whether each message of a topic counts, and no two are the same."""
    return topic.endswith(_EVENTS)


def is_telemetry(topic: str) -> bool:
    """Whether the messages of a topic may be dropped for newer ones."""
    return topic.endswith("/telemetry")


class Inbox:
    """Messages received and not yet taken, in the order of their arrival, which `clock` (seconds) tells."""

    def __init__(self, counters: Counters, limits: Limits, clock: Callable[[], float]) -> None:
        self._counters = counters
        self._clock = clock
        self._telemetry: deque[Received] = deque(maxlen=limits.telemetry)
        self._others: deque[Received] = deque(maxlen=limits.others)
        self._most_of_a_topic = limits.a_topic
        self._moment_ends = float("-inf")
        self._this_moment: dict[str, int] = {}  # telemetry by topic
        self._known: dict[int, None] = {}  # hashes of events, oldest first
        self._ready = asyncio.Event()
        self._closed = False

    def put(self, message: Message) -> None:
        """Add what arrives now; drops and counts what is too large, a flood's rest, or the oldest when full."""
        if len(message.payload) > MAX_PAYLOAD_BYTES:
            self.put_oversized()
            return
        if is_event(message.topic) and self._knows(message):
            return
        counters, now_s = self._counters, self._clock()
        counters.received += 1
        lane = self._others
        if is_telemetry(message.topic):
            lane = self._telemetry
            if self._floods(message.topic, now_s):
                counters.dropped_in += 1
                return
        if len(lane) == lane.maxlen:
            counters.dropped_in += 1
        lane.append(Received(now_s, message))
        self._ready.set()

    def _floods(self, topic: str, now_s: float) -> bool:
        if not now_s < self._moment_ends < now_s + 2 * MOMENT_S:  # over, or the clock was set
            self._moment_ends = now_s + MOMENT_S
            self._this_moment.clear()
        said = self._this_moment[topic] = self._this_moment.get(topic, 0) + 1
        return said > self._most_of_a_topic

    def _knows(self, event: Message) -> bool:
        known = hash((event.topic, event.payload))
        if known in self._known:
            return True
        self._known[known] = None
        if len(self._known) > _EVENTS_KNOWN:
            del self._known[next(iter(self._known))]
        return False

    def put_oversized(self) -> None:
        """Count a message too large to be kept."""
        self._counters.received += 1
        self._counters.oversized += 1

    async def take(self) -> list[Received]:
        """Everything that waits, once there is something; empty when the inbox was closed and nothing is left."""
        while not (self._telemetry or self._others or self._closed):
            self._ready.clear()
            await self._ready.wait()
        batch = [*self._others, *self._telemetry]
        if self._others and self._telemetry:
            batch.sort(key=_arrival)  # two runs in order already
        self._others.clear()
        self._telemetry.clear()
        return batch

    def close(self) -> None:
        """Nothing more will come."""
        self._closed = True
        self._ready.set()


class Outbox:
    """Messages to send: the newest of each topic, then the events, oldest first."""

    def __init__(self, counters: Counters, limits: Limits) -> None:
        self._counters = counters
        self._latest: dict[str, Message] = {}
        self._events: deque[Message] = deque(maxlen=limits.events)
        self._ready = asyncio.Event()
        self._idle = asyncio.Event()  # whoever sends has come back for more, and there was none

    def put(self, message: Message) -> None:
        """Add a message; it takes the place of one of the same topic, unless both are events."""
        topic = message.topic
        if is_event(topic):
            self._counters.dropped_out += len(self._events) == self._events.maxlen
            self._events.append(message)
        else:
            self._counters.dropped_out += topic in self._latest and is_telemetry(topic)
            self._latest[topic] = message
        self._idle.clear()
        self._ready.set()

    def put_back(self, message: Message) -> None:
        """Return a message that could not be sent, unless something newer has taken its place."""
        if not is_event(message.topic):
            if self._latest.setdefault(message.topic, message) is not message:
                self._counters.dropped_out += is_telemetry(message.topic)
        elif len(self._events) == self._events.maxlen:
            self._counters.dropped_out += 1
        else:
            self._events.appendleft(message)
        self._ready.set()

    def pop(self) -> Message | None:
        """Remove and return the next message, if any."""
        if self._latest:
            return self._latest.pop(next(iter(self._latest)))
        return self._events.popleft() if self._events else None

    async def get(self) -> Message:
        """Remove and return the next message once there is one."""
        while (message := self.pop()) is None:
            self._ready.clear()
            self._idle.set()
            await self._ready.wait()
        return message

    async def emptied(self) -> None:
        """Return once all that was put has been sent."""
        await self._idle.wait()
