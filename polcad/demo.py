"""The demo: a whole polcad in one process. Only the GPUs are made up.

An embedded broker, a row of real agents over synthetic GPUs, the daemon and its live page. The load climbs until
POLCA's T1 and T2 act, stays, and falls again, so that everything is released before the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from polcad.agent import Agent, build_parts
from polcad.broker import embedded
from polcad.broker_spec import BrokerSpec
from polcad.config import AgentSpec, SiteSpec
from polcad.daemon import Daemon
from polcad.foresight import maker
from polcad.model import Priority, Role, RowStatus
from polcad.outlook import Foresight
from polcad.ports import Policy
from polcad.school_process import ProcessSchool
from polcad.spec import GuardSpec, NodeSpec, RackSpec, RowSpec
from polcad.web.server import serve
from polcad.web.spec import WebSpec

_LOG = logging.getLogger(__name__)
SITE = "demo"
ROW = "row1"
GPUS = 8
GPU_MAX_W = 400.0
HOST_W = 1500.0  # the idle power of a DGX-A100 (POLCA's servers)
_ROLES = (Role.PROMPT, Role.TOKEN, Role.MIXED)

# The uncapped row, as shares of its budget: past T1 (.80), past T2 (.89) even with the low priority locked, and back.
_COURSE = ((0.0, 0.70), (0.10, 0.70), (0.50, 1.03), (0.70, 1.03), (0.80, 0.60), (1.0, 0.60))


@dataclass(frozen=True, slots=True)
class DemoSpec:
    """How large and how long: `for_s` None runs until stopped, the load's course again and again."""

    nodes: int = 12
    for_s: float | None = None
    course_s: float = 180.0  # one course of the load, when `for_s` is None
    period_s: float = 1.0
    web: WebSpec = field(default_factory=WebSpec)


def row_of(spec: DemoSpec) -> RowSpec:
    """The demo's inventory: racks of six nodes, every second one of low priority; budget 85 % of what it could draw."""
    nodes = tuple(
        NodeSpec(
            name=f"n{index:03}",
            rack=f"rack{index // 6 + 1}",
            gpus=GPUS,
            gpu_max_w=GPU_MAX_W,
            host_w=HOST_W,
            priority=Priority.LOW if index % 2 else Priority.HIGH,
            role=_ROLES[index // 2 % len(_ROLES)],
        )
        for index in range(spec.nodes)
    )
    racks = tuple(RackSpec(name) for name in sorted({node.rack for node in nodes}))
    return RowSpec(ROW, 0.85 * spec.nodes * (HOST_W + GPUS * GPU_MAX_W), racks, nodes)


def guard_of(spec: DemoSpec) -> GuardSpec:
    """The defaults, with dwells that a viewer has the patience for."""
    course_s = spec.for_s or spec.course_s
    return GuardSpec(dwell_s=min(30.0, course_s / 30), brake_dwell_s=min(10.0, course_s / 30))


def schedule(row: RowSpec, spec: DemoSpec) -> list[tuple[float, float]]:
    """The load of each GPU in time that takes the uncapped row along the course."""
    idle_w, full_w = 68.0, GPU_MAX_W
    budget_w = row.budget_w / len(row.nodes)  # of one node
    once = [(share_s, ((share * budget_w - HOST_W) / GPUS - idle_w) / (full_w - idle_w)) for share_s, share in _COURSE]
    courses = 1 if spec.for_s is not None else 100
    course_s = spec.for_s or spec.course_s
    return [((number + share_s) * course_s, load) for number in range(courses) for share_s, load in once]


@contextlib.asynccontextmanager
async def agents_of(
    row: RowSpec, broker: BrokerSpec, state_dir: str, options: Callable[[NodeSpec], dict[str, Any]], period_s: float
) -> AsyncIterator[None]:
    """A real agent over synthetic GPUs for every node of a row, while the context lasts."""
    agents = []
    for node in row.nodes:
        spec = AgentSpec(
            row=row.name,
            rack=node.rack,
            node=node.name,
            collector="synthetic",
            collector_options={"name": node.name, "gpus": node.gpus, "role": node.role, **options(node)},
            device="synthetic",
            period_s=period_s,
            state_dir=state_dir,
        )
        agents.append(Agent(spec, SITE, broker, *build_parts(spec)))
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(agent.run(), name=f"agent-{index}") for index, agent in enumerate(agents)]
        try:
            yield
        finally:
            for task in running:
                task.cancel()


async def run(spec: DemoSpec, policy: Policy, on_ready: Callable[[str, BrokerSpec], None]) -> RowStatus:
    """Play the demo; the row as it was at the end. `on_ready` is given the page's URL and the broker."""
    row, guard = row_of(spec), guard_of(spec)
    course = schedule(row, spec)
    with (
        tempfile.TemporaryDirectory(prefix="polcad-demo-") as state_dir,
        contextlib.closing(ProcessSchool()) as school,
    ):
        async with embedded() as broker:
            foresight = Foresight(maker(), school)
            daemon = Daemon(SiteSpec(SITE), row, guard, policy, broker, foresight=foresight)
            async with (
                serve(daemon.board, spec.web, daemon.telling) as url,
                agents_of(row, broker, state_dir, lambda _: {"schedule": course}, spec.period_s),
            ):
                on_ready(url, broker)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(spec.for_s):
                        await daemon.run()
    return daemon.status()


def invitation(url: str, broker: BrokerSpec) -> str:
    """Where to look."""
    top = f"polcad top --broker {broker.url} --site {SITE} --row {ROW}"
    return f"the live page is at {url}\nin another terminal: {top}"


def summary(spec: DemoSpec, status: RowStatus) -> dict[str, Any]:
    """What ``polcad demo --for S --json`` prints."""
    counters = status.counters
    return {
        "nodes": spec.nodes,
        "gpus": status.gpus,
        "telemetry": counters.get("telemetry", 0),
        "plans": counters.get("plans", 0),
        "t1_entries": counters.get("t1_entries", 0),
        "t2_entries": counters.get("t2_entries", 0),
        "brakes": counters.get("brakes", 0),
        "peak_frac": round(status.peak_frac, 4),
        "seconds_over_budget": status.over_budget_s,
        "reaction_p99_s": None if status.reaction_p99_s is None else round(status.reaction_p99_s, 4),
    }
