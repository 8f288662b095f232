"""How long the loop takes: from the sample that made a plan tighten to the read-back on the last node it tightened.

Both ends are arrivals at the daemon, so no node's clock is trusted; the way of the first sample to it is not in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from polcad.model import Event, EventKind, Plan
from polcad.ports import Heard, Input, Output

_KEPT = 1000
_TIGHTER = frozenset({EventKind.TIGHTEN, EventKind.BRAKE})


class Reactions:
    """Watches what a controller hears and says."""

    def __init__(self) -> None:
        self.seconds: deque[float] = deque(maxlen=_KEPT)  # the last reactions, oldest first
        self._awaited: set[str] = set()
        self._wanted = (0, 0)
        self._heard_t = 0.0

    def watch(self, event: Input, outputs: Sequence[Output], loose: Callable[[], set[str]]) -> None:
        """Take an event and what the controller answered; `loose` names the nodes that have yet to obey."""
        if isinstance(event, Heard) and event.telemetry.node in self._awaited:
            self._hear(event)
        plan = next((output for output in outputs if isinstance(output, Plan)), None)
        tightened = any(isinstance(output, Event) and output.kind in _TIGHTER for output in outputs)
        if plan is not None and tightened:
            self._wanted, self._heard_t, self._awaited = (plan.epoch, plan.seq), event.t, loose()

    def _hear(self, event: Heard) -> None:
        plan = event.telemetry.plan
        if plan is not None and (plan.epoch, plan.seq) >= self._wanted:
            self._awaited.discard(event.telemetry.node)
            if not self._awaited:
                self.seconds.append(event.t - self._heard_t)

    def quantile_s(self, q: float) -> float | None:
        """The q-quantile of the reactions kept; None before the first."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(q * len(ordered)))] if ordered else None
