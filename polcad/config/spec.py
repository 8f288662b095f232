"""The sections that no other part of the product owns."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from polcad.lease import Fail
from polcad.model import Items, Name, Range, Text


class Level(StrEnum):
    """How much is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class SiteSpec:
    """The site, in the topic of every message: one broker may serve several."""

    name: Name = "site"


@dataclass(frozen=True, slots=True)
class LogSpec:
    """What is written to the log (standard error)."""

    level: Level = Level.INFO


@dataclass(frozen=True, slots=True)
class AgentSpec:
    """The agent of one node: who it is, what it reads and sets, and what it does in silence."""

    row: Name = "row"
    rack: Name = "rack"
    node: Name | None = None  # left out: this host's name up to the first dot, in lower case
    collector: Annotated[str, Text(64)] = "nvml"
    collector_options: Annotated[Mapping[str, Any], Items(64)] = field(default_factory=dict)
    device: Annotated[str, Text(64)] = "nvml"  # "dry_run" sets nothing and says what it would set
    device_options: Annotated[Mapping[str, Any], Items(64)] = field(default_factory=dict)
    period_s: Annotated[float, Range(0.01, 3600.0)] = 1.0  # between two readings; under 0.1 sensors repeat themselves
    gpu_deadline_s: Annotated[float, Range(0.01, 60.0)] = 0.5  # a GPU that takes longer to answer is missing
    state_dir: Annotated[str, Text(4096)] = "/var/lib/polcad"  # the last plan is kept here, for a restart in silence
    fail: Fail = Fail.SAFE  # at the lease's end: fail-safe setpoint, stay, or go free (uncounted by the daemon)

    @property
    def node_name(self) -> str:
        """The node's name, of the configuration or of the host."""
        return self.node or socket.gethostname().split(".")[0].lower()

    @property
    def plan_path(self) -> Path:
        """The file that keeps the last plan."""
        return Path(self.state_dir) / f"plan-{self.node_name}.json"
