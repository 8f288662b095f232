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
from polcad.web.spec import AgentWebSpec


class Level(StrEnum):
    """How much is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


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
    web: AgentWebSpec | None = None

    @property
    def node_name(self) -> str:
        """The node's name, of the configuration or of the host."""
        return self.node or host_name()

    @property
    def plan_path(self) -> Path:
        """The file that keeps the last plan."""
        return Path(self.state_dir) / f"plan-{self.node_name}.json"


@dataclass(frozen=True, slots=True)
class ActuatorSpec:
    """`polcad actuator`, which sets the GPUs in the agent's stead; row, rack, node, device and fail are the agent's."""

    socket: Annotated[str, Text(107)] = ""  # where both meet; left out: the agent sets the GPUs itself
    user: Annotated[str, Text(32)] = "polcad"  # who may speak to it, besides root
    bounds: Annotated[str, Text(4096)] = "/etc/polcad/bounds.toml"  # the lowest it sets; only root may write this file
    state_dir: Annotated[str, Text(4096)] = "/var/lib/polcad-actuator"  # the last plan, and the GPUs as they were found


@dataclass(frozen=True, slots=True)
class LoadSpec:
    """What `polcad load` reads beside one serving instance, and in whose name it speaks."""

    pool: Name = "pool"
    instance: Name | None = None  # left out: this host's name up to the first dot, in lower case
    url: Annotated[str, Text(2048)] = "http://127.0.0.1:8000/metrics"  # where its engine tells its metrics
    tensor_parallel: Annotated[int, Range(1, 1024)] = 1  # GPUs that it runs over
    collector: Annotated[str, Text(64)] = "vllm"
    collector_options: Annotated[Mapping[str, Any], Items(64)] = field(default_factory=dict)
    period_s: Annotated[float, Range(0.1, 3600.0)] = 5.0  # between two readings
    deadline_s: Annotated[float, Range(0.01, 60.0)] = 2.0  # an engine that takes longer to answer is a fault

    @property
    def instance_name(self) -> str:
        """The instance's name, of the configuration or of the host."""
        return self.instance or host_name()


def host_name() -> str:
    """The name of this host, after which nodes and instances are called."""
    return socket.gethostname().split(".")[0].lower()
