"""``polcad replay FILE --broker URL``: the nodes of a recording as live agents, which follow no plan.

Each node speaks at the recorded pace (times `speed`) through a real agent whose device sets nothing, so a daemon, a
recorder or a dashboard can be tried on a row that once was.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from random import Random
from statistics import median

from polcad.agent import Agent, build_parts
from polcad.broker_spec import BrokerSpec
from polcad.config import AgentSpec
from polcad.model import Reading
from polcad.mqtt import Link, Presence
from polcad.playback import Playback, node_readings
from polcad.recording import read
from polcad.replay import ReplayOptions

_LOG = logging.getLogger(__name__)
_SHORTEST_PERIOD_S, _LONGEST_PERIOD_S = 0.05, 60.0
_AFTERGLOW_PERIODS = 3  # how long the nodes go on past the end, with nothing to read


async def run(options: ReplayOptions, site: str, broker: BrokerSpec) -> None:
    """Play the recording to its end, or until cancelled; RecordingError, ConfigError, UnavailableError at the start."""
    async with Link(broker, Presence("polcad-replay"), time.monotonic, Random()).opened():  # noqa: S311  # spreads retries
        pass  # agents would wait for a broker that is not there, and play to nobody
    row = Playback(read(options.path), options.row, options.guard.tick_s).row
    nodes = node_readings(options.path, row)
    speed = options.speed or 1.0
    start_t = min(readings[0][0] for readings in nodes.values())
    end_t = max(readings[-1][0] for readings in nodes.values())
    with tempfile.TemporaryDirectory(prefix="polcad-replay-") as state_dir:
        specs = [
            AgentSpec(
                row=row,
                node=node,
                collector="replay",
                collector_options={"readings": readings, "speed": speed, "start_t": start_t},
                device="dry_run",
                period_s=_period_s(readings, speed),
                state_dir=state_dir,
            )
            for node, readings in nodes.items()
        ]
        for_s = (end_t - start_t) / speed + _AFTERGLOW_PERIODS * max(spec.period_s for spec in specs)
        _LOG.info("row %s: %d nodes for %.0f s at %s", row, len(specs), for_s, broker.url)
        agents = [Agent(spec, site, broker, *build_parts(spec)) for spec in specs]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(for_s), asyncio.TaskGroup() as tasks:
                for agent in agents:
                    tasks.create_task(agent.run())


def _period_s(readings: Sequence[tuple[float, Reading]], speed: float) -> float:
    spacing_s = median([after - before for (before, _), (after, _) in pairwise(readings)] or [1.0]) / speed
    return min(_LONGEST_PERIOD_S, max(_SHORTEST_PERIOD_S, spacing_s))
