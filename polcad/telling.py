"""What a row's daemon tells besides MQTT and its page: points to sinks, metrics to scrapers, and whether it is well."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from polcad.causes import Causes
from polcad.model import Event, Hint, NodeColumns, NodePlacement, Plan, PoolLoad, RowStatus
from polcad.points import LoopFigures, Points
from polcad.ports import Heard, Point, Sink
from polcad.pulse import Pulse
from polcad.reaction import Reactions
from polcad.standby import Contest
from polcad.web.metrics import OLD_S, Metrics, Scene, Ticked


@dataclass(frozen=True, slots=True)
class Outlets:
    """Where a daemon tells: its sinks, by name, and how far back min, mean and max of its metrics look (s)."""

    sinks: Mapping[str, Sink] = field(default_factory=dict)
    window_s: float = 60.0


class Telling:
    """Told by one daemon, from its event loop's thread, on its clock `now`; what its page's server watches.

    `hints` gives those that hold now.
    """

    def __init__(
        self,
        points: Points,
        metrics: Metrics,
        sinks: Mapping[str, Sink],
        now: Callable[[], float],
        hints: Callable[[], Sequence[Hint]] = tuple,
        contest: Contest | None = None,
    ) -> None:
        self.pulse = Pulse()
        self.connected = False  # to the broker
        self._points, self._metrics, self._sinks = points, metrics, sinks
        self._now, self._hints, self._contest = now, hints, contest
        self._causes = Causes()
        self._status: RowStatus | None = None  # of the last tick

    # --- told -------------------------------------------------------------------------------------------------------

    def heard(self, heard: Heard, placement: NodePlacement) -> None:
        """A node's message."""
        if self._sinks:
            self._put(self._points.telemetry(heard, placement))

    def heard_load(self, t: float, load: PoolLoad) -> None:
        """A serving instance's message."""
        if self._sinks:
            self._put(self._points.load(t, load))

    def said(self, output: Plan | Event) -> None:
        """What the daemon said."""
        if isinstance(output, Event):
            self._metrics.note_event(output)
        if self._sinks:
            self._put(self._points.plan(output) if isinstance(output, Plan) else self._points.event(output))

    def ticked(
        self, status: RowStatus, nodes: NodeColumns, reactions: Reactions, lag_s: float, decide_s: float
    ) -> None:
        """A tick is over, which came late by `lag_s`, and for which the controller took `decide_s`."""
        self._status = status
        self._causes.note(status)
        last_s = reactions.seconds[-1] if reactions.seconds else None
        loop = LoopFigures(lag_s, decide_s, last_s, reactions.quantile_s(0.5), dict(self._causes.seconds))
        self._metrics.note(Ticked(status, nodes, loop))
        if self._sinks:
            t, points = status.t, self._points
            counts = {name: sink.counts() for name, sink in self._sinks.items()}
            self._put([*points.status(status, loop), *points.nodes(t, nodes)])
            self._put([*points.hints(t, self._hints()), *points.sinks(t, counts)])

    def _put(self, points: Sequence[Point]) -> None:
        for sink in self._sinks.values():
            sink.put(points)

    # --- watched ----------------------------------------------------------------------------------------------------

    def scene(self) -> Scene:
        """What a scrape tells now."""
        counts = {name: sink.counts() for name, sink in self._sinks.items()}
        ready = not self.unready()
        return self._metrics.scene(
            self._now(), self._hints(), counts, up=self.connected, ready=ready, contest=self._contest
        )

    def stalled(self) -> str:
        """Why the daemon's loop counts as standing still; "" while it turns."""
        return self.pulse.stalled()

    def unready(self) -> list[str]:
        """Why the daemon cannot keep its row, or could not take it; empty while it can."""
        contest = self._contest
        inside = contest.trouble if contest is not None and not contest.leads else self._blind()
        return [why for why in ("" if self.connected else "the broker is not reached", inside) if why]

    def _blind(self) -> str:
        """Why the row is not seen; "" when it is."""
        status = self._status
        if status is None or self._now() - status.t > OLD_S:
            return "the loop has not ticked of late"
        if not status.domains:
            return "not every node was heard since the start: no plan yet"
        if status.nodes_stale == status.nodes:
            return f"none of {status.nodes} nodes is fresh"
        return ""
