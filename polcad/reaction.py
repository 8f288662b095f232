"""How long the loop takes: from the sample that made a plan tighten to the read-back on the last node.

The nodes that count are those that followed plans when the plan was made; their clocks are taken to agree with the
daemon's only through the arrival of their messages, so the figure is honest across machines.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from polcad.model import Event, EventKind, LeaseState, Plan
from polcad.ports import Heard, Input, Output

_KEPT = 1000
_TIGHTER = frozenset({EventKind.TIGHTEN, EventKind.BRAKE})


class Reactions:
    """Watches what a controller hears and says."""

    def __init__(self) -> None:
        self.seconds: deque[float] = deque(maxlen=_KEPT)  # the last reactions, oldest first
        self._following: set[str] = set()
        self._awaited: set[str] = set()
        self._wanted = (0, 0)
        self._sampled_t = 0.0

    def watch(self, event: Input, outputs: Sequence[Output]) -> None:
        """Take an event and what the controller answered."""
        if isinstance(event, Heard):
            self._hear(event)
        plan = next((output for output in outputs if isinstance(output, Plan)), None)
        tightened = any(isinstance(output, Event) and output.kind in _TIGHTER for output in outputs)
        if plan is not None and tightened:
            self._wanted, self._sampled_t = (plan.epoch, plan.seq), event.t
            self._awaited = set(self._following)

    def _hear(self, event: Heard) -> None:
        plan, node = event.telemetry.plan, event.telemetry.node
        if plan is None or plan.lease is not LeaseState.HELD:
            self._following.discard(node)
            return
        self._following.add(node)
        if node in self._awaited and (plan.epoch, plan.seq) >= self._wanted:
            self._awaited.discard(node)
            if not self._awaited:
                self.seconds.append(event.t - self._sampled_t)

    def quantile_s(self, q: float) -> float | None:
        """The q-quantile of the reactions kept; None before the first."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(q * len(ordered)))] if ordered else None
