"""`polcad top`: a row in the terminal, fed by a subscription to the row's topics.

The daemon's retained status says everything of the row; the nodes are drawn from their own telemetry.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from itertools import repeat

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from polcad.backlog import Received
from polcad.errors import WireError
from polcad.model import Event, NodeColumns, NodePlacement, Outcome, Priority, RowStatus, Telemetry
from polcad.terminal import render
from polcad.wire import decode

REDRAW_S = 0.25
EVENTS_SHOWN = 6
STALE_PERIODS = 3.0  # a node that missed so many of its own periods is stale, as for the daemon
LEAST_STALE_S = 3.0


@dataclass(frozen=True, slots=True)
class Heard:
    """The last telemetry of one node, and when it came."""

    t: float
    rack: str
    telemetry: Telemetry


class Screen:
    """What has been heard of one row."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._status: tuple[float, RowStatus] | None = None
        self._nodes: dict[str, Heard] = {}
        self._priorities: dict[str, Priority | None] = {}
        self._events: deque[Event] = deque(maxlen=EVENTS_SHOWN)

    def put(self, received: Received) -> None:
        """Take one message; what cannot be believed is passed over."""
        try:
            address, noun = decode(received.message)
        except WireError:
            return
        if isinstance(noun, RowStatus):
            arrived_t = noun.t if received.message.retain else received.t  # a kept word is as old as it says
            self._status = (arrived_t, noun)
        elif isinstance(noun, Telemetry):
            self._nodes[noun.node] = Heard(received.t, address.rack, noun)
        elif isinstance(noun, NodePlacement):
            priorities = {noun.default.priority, *(each.priority for each in noun.gpus.values())}
            self._priorities[noun.node] = priorities.pop() if len(priorities) == 1 else None
        elif isinstance(noun, Event):
            self._events.appendleft(noun)

    def draw(self) -> RenderableType:
        """The view of now."""
        if self._status is None:
            return Text("waiting for the daemon of this row …")
        t = self._now()
        heard_t, status = self._status
        return render(status, self.nodes(t), self._events, age_s=max(0.0, t - heard_t))

    def nodes(self, t: float) -> NodeColumns:
        """The nodes heard so far, by rack and name."""
        heard = sorted(self._nodes.values(), key=lambda item: (item.rack, item.telemetry.node))
        said = [item.telemetry for item in heard]
        return NodeColumns(
            name=tuple(one.node for one in said),
            rack=tuple(item.rack for item in heard),
            power_w=tuple(_total_w(one.reading.gpus.power_w) for one in said),
            max_w=tuple(_total_w(one.reading.gpus.max_w) or 0.0 for one in said),
            priority=tuple(self._priorities.get(one.node) for one in said),
            stale=tuple(t - item.t > max(LEAST_STALE_S, STALE_PERIODS * item.telemetry.period_s) for item in heard),
            clock_frac=tuple(_least(one.in_force.clock_frac if one.in_force else ()) for one in said),
            cap_frac=tuple(_least(one.in_force.cap_frac if one.in_force else ()) for one in said),
            fault=tuple(_fault(one) for one in said),
        )


async def run_top(batches: AsyncIterator[Sequence[Received]], console: Console, now: Callable[[], float]) -> None:
    """Draw while messages come: the row's `daemon`, `event`, `telemetry` and `placement` topics. Ends with them."""
    screen = Screen(now)
    with Live(console=console, screen=console.is_terminal, auto_refresh=False) as live:
        drawing = asyncio.create_task(_draw(live, screen), name="top")
        try:
            async for batch in batches:
                for received in batch:
                    screen.put(received)
        finally:
            drawing.cancel()
            live.update(screen.draw(), refresh=True)


async def _draw(live: Live, screen: Screen) -> None:
    while True:
        live.update(screen.draw(), refresh=True)
        await asyncio.sleep(REDRAW_S)


def _total_w(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _least(values: Sequence[float | None]) -> float | None:
    return min((value for value in values if value is not None), default=None)


def _fault(telemetry: Telemetry) -> str:
    """The first thing wrong with a node's GPUs, in words."""
    notes = [note for note in telemetry.reading.gpus.fault if note]
    if force := telemetry.in_force:
        told = zip(force.outcome, force.detail or repeat(""), strict=False)
        notes += [detail or outcome for outcome, detail in told if outcome not in {Outcome.OK, Outcome.UNMANAGED}]
    return notes[0] if notes else ""
