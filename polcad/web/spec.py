"""Where the live page, and what machines may ask, are served."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from polcad.model import Range, Text


@dataclass(frozen=True, slots=True)
class WebSpec:
    """The address of the live page. It has no login: another host than loopback shows the row to whoever reaches it."""

    host: Annotated[str, Text(255)] = "127.0.0.1"
    port: Annotated[int, Range(0, 65535)] = 8642  # 0: any free port
    window_s: Annotated[float, Range(1.0, 3600.0)] = 60.0  # of min and max at /metrics; your slowest scraper's interval


@dataclass(frozen=True, slots=True)
class AgentWebSpec:
    """Where the agent tells /metrics, /healthz and /readyz; without this table it listens nowhere. It has no login."""

    host: Annotated[str, Text(255)] = "127.0.0.1"
    port: Annotated[int, Range(0, 65535)] = 8643  # 0: any free port
    window_s: Annotated[float, Range(1.0, 3600.0)] = 60.0  # of min and max at /metrics; your slowest scraper's interval
