"""What an agent knows of itself, for those who watch it."""

from __future__ import annotations

from dataclasses import dataclass

from polcad.model import Telemetry


@dataclass(frozen=True, slots=True)
class AgentFacts:
    """An agent at one moment; counts are since its start."""

    last: Telemetry | None  # None: no message went out yet
    last_age_s: float  # since then; as long as the agent has run, where no message went out
    connected: bool  # to the broker
    stalled: str  # why its loop counts as standing still; "" while it turns
    complaints: int
    dropped: int  # messages
    reconnects: int
    lease_left_s: float | None  # None: no plan was followed since the start
    plan_age_s: float | None
