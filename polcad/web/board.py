"""What the live page shows, held in memory: the daemon puts, browsers ask for what is newer than what they have.

Every put gets the next number. A browser that has all up to `n` is owed what came after `n`: the latest status and
nodes (older ones are of no use to it), and each point and event. So nothing is queued for anyone: a slow browser costs
no memory, a fast tick no traffic, and one that comes back is told nothing twice.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from polcad import words
from polcad.model import Event, NodeColumns, Priority, RowStatus

HISTORY_S = 900
EVENTS = 200


@dataclass(frozen=True, slots=True)
class Point:
    """One second of the row: the most it drew, and the last of everything else. `low` and `high` as `words.lane`."""

    t: int
    power_w: float
    demand_w: float
    budget_w: float
    low: str
    high: str
    upper_w: float | None = None  # bounds the demand within the latency; None: no forecast, or one in doubt


class Board:
    """The state of one row's page. Puts return at once; use it from the event loop's thread only."""

    def __init__(self, site: str = "", monotonic: Callable[[], float] = time.monotonic) -> None:
        self.site = site
        self.run = uuid.uuid4().hex[:12]  # a number of another run says nothing about this one
        self.n = 0
        self._monotonic = monotonic
        self._status: tuple[int, float, RowStatus] | None = None  # number, when it was put, what
        self._nodes: tuple[int, float, NodeColumns] | None = None  # number, t, what
        self._points: deque[tuple[int, Point]] = deque(maxlen=HISTORY_S)
        self._events: deque[tuple[int, Event]] = deque(maxlen=EVENTS)
        self._news = asyncio.Event()

    def put_status(self, status: RowStatus) -> None:
        """The row as it is now; it becomes a point of the history, one a second."""
        self._status = (self._next(), self._monotonic(), status)
        if row := words.row_of(status):
            low, high = words.lane(status, Priority.LOW), words.lane(status, Priority.HIGH)
            upper_w = row.outlook.upper_w if row.outlook and not row.outlook.doubt else None
            self._put_point(Point(int(status.t), row.power_w, row.demand_w, row.budget_w, low, high, upper_w))

    def put_nodes(self, t: float, nodes: NodeColumns) -> None:
        """The nodes as they are at `t`."""
        self._nodes = (self._next(), t, nodes)

    def put_event(self, event: Event) -> None:
        """Something happened; the oldest of many is forgotten."""
        self._events.append((self._next(), event))

    async def newer(self, n: int) -> None:
        """Return once something was put after number `n`."""
        while self.n <= n:
            await self._news.wait()

    def since(self, n: int) -> dict[str, Any]:
        """What was put after number `n`, ready for JSON; all of it for 0."""
        status, nodes = self._status, self._nodes
        state: dict[str, Any] = {"run": self.run, "n": self.n, "site": self.site, "whole": n == 0}
        if status and status[0] > n:
            state["status"] = status[2]
            state["age_s"] = self._monotonic() - status[1]
            state["standing"] = list(words.standing(status[2]))
            state["outlook"] = _outlook(status[2])
        if nodes and nodes[0] > n:
            state["nodes"] = {"t": nodes[1], "columns": nodes[2]}
        state["points"] = [point for number, point in self._points if number > n]
        state["events"] = [{"n": number, "event": event} for number, event in self._events if number > n]
        return state

    def _put_point(self, point: Point) -> None:
        points = self._points
        while points and points[-1][1].t > point.t:  # the daemon's clock was set back: the future never was
            points.pop()
        if points and points[-1][1].t == point.t:
            last = points.pop()[1]
            power_w, demand_w = max(last.power_w, point.power_w), max(last.demand_w, point.demand_w)
            point = replace(point, power_w=power_w, demand_w=demand_w)
        points.append((self.n, point))

    def _next(self) -> int:
        self.n += 1
        self._news.set()
        self._news = asyncio.Event()  # those who waited on the old one are awake; the next wait on this one
        return self.n


def _outlook(status: RowStatus) -> str:
    """The row's forecast in a sentence; "" where there is none."""
    row = words.row_of(status)
    return words.outlook_words(row.outlook) if row and row.outlook else ""
