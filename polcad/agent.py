"""The agent of one node: reads its GPUs, says so, and hands the plans it hears to whoever sets them.

One cycle: let the GPUs be settled (`polcad.follower`), read their power, send both. A cycle runs each period, at once
when a plan changes anything, and at the moment the lease ends. Reading may block for as long as a driver pleases, so it
runs in a thread of its own and the link to the broker never waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.metadata import version
from math import isfinite
from pathlib import Path
from random import Random

from polcad import service
from polcad.actuator_client import ActuatorClient
from polcad.agent_facts import AgentFacts
from polcad.alone import alone
from polcad.backlog import Received
from polcad.broker_spec import BrokerSpec
from polcad.clock import SteadyClock
from polcad.complaints import Complaints
from polcad.config import AgentSpec, Config
from polcad.errors import ConfigError, PolcadError, WireError
from polcad.follower import Followed, Follower, PlanFollower, build_collector, build_device, check_parts, rest
from polcad.model import InForce, NodePlacement, NodeState, Obedience, Outcome, Plan, Telemetry
from polcad.mqtt import Link, Presence
from polcad.ports import Closable, Collector
from polcad.pulse import STALLED_S, Pulse
from polcad.signing import Trust
from polcad.wire import Address, decode, encode

_LOG = logging.getLogger(__name__)
_DEADLINES = 6  # of a GPU, that one settling may take: initialise, read, set, read back, and as much again
_LEAST_DEADLINE_S = 2.0
_NOTE = 512  # longest detail


class Agent:
    """One node. `monotonic` stamps what is heard; `trust`: whose signed plans alone are followed.

    `told`, where set, is given each message that goes out, and how long its cycle took (s).
    """

    def __init__(  # noqa: PLR0913  # each is another part of the configuration, or made of one
        self,
        spec: AgentSpec,
        site: str,
        broker: BrokerSpec,
        collector: Collector,
        follower: PlanFollower,
        monotonic: Callable[[], float] = time.monotonic,
        *,
        trust: Trust | None = None,
    ) -> None:
        self._spec, self._node, self._monotonic, self._trust = spec, spec.node_name, monotonic, trust
        self._collector, self._follower = collector, follower
        self._clock = SteadyClock()
        self._boot_id = uuid.uuid4().hex[:16]
        self._seq = 0
        self._uuids: tuple[str, ...] = ()
        self.told: Callable[[Telemetry, float], None] = _nobody
        self._last: Telemetry | None = None
        self._last_s = self._followed_s = monotonic()
        self._pulse = Pulse(monotonic)
        self._complaints = Complaints(_LOG)
        self._to = {
            kind: Address(site, spec.row, kind, spec.rack, self._node) for kind in ("telemetry", "state", "placement")
        }
        self._plan_topic = Address(site, spec.row, "plan")
        offline = encode(self._to["state"], NodeState(self._node, online=False, boot_id=self._boot_id))
        online = NodeState(self._node, online=True, boot_id=self._boot_id, version=version("polcad"))
        presence = Presence(
            client_id=f"polcad-agent-{self._node}-{uuid.uuid4().hex[:16]}",  # who knew it could cut the agent off
            subscriptions=(self._plan_topic, self._to["placement"]),
            birth=(encode(self._to["state"], online),),
            farewell=(offline,),
            will=offline,
        )
        self._link = Link(broker, presence, self._monotonic, Random())  # noqa: S311  # spreads retries

    async def run(self) -> None:
        """Until cancelled. GPUs stay as they are then: their lease ends with nobody to loosen it."""
        with ThreadPoolExecutor(1, thread_name_prefix=f"reads-{self._node}") as reads:
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._link.run(), name="mqtt")
                    tasks.create_task(self._listen(), name="plans")
                    tasks.create_task(self._report(reads), name="telemetry")
            finally:
                await self._follower.close()

    async def _listen(self) -> None:
        async for batch in self._link.batches():
            for received in batch:
                try:
                    await self._take(received)
                except PolcadError as error:
                    self._complaints.add(received.message.topic, str(error), received.t)

    async def _take(self, received: Received) -> None:
        message = received.message
        address, noun = decode(message)
        if isinstance(noun, Plan):
            if message.retain:
                raise WireError(f"{address.topic}: a plan is never retained; somebody planted this one")
            if noun.shadow:  # nobody's to follow, signed or not
                return
            if self._trust:
                self._trust.check(message.topic, message.payload, noun.t, time.time())
            await self._follower.offer(noun, received.t, message.payload if self._trust else b"")
            self._followed_s = received.t
        elif address.kind == "placement":
            await self._follower.place(noun or NodePlacement(self._node))

    async def _report(self, reads: ThreadPoolExecutor) -> None:
        next_s = self._monotonic()
        while True:
            settled = None
            try:
                settled = await self._cycle(reads)
            except PolcadError as error:
                self._complaints.add("gpus", str(error), self._monotonic())
            service.alive(f"{self._seq} messages, broker {'up' if self._link.connected else 'not reached'}")
            self._pulse.beat()
            now_s = self._monotonic()
            if now_s >= next_s:
                next_s += self._spec.period_s * (1 + (now_s - next_s) // self._spec.period_s)
            await rest(self._follower, next_s - now_s, settled)

    async def _cycle(self, reads: ThreadPoolExecutor) -> Obedience | None:
        """One cycle; what was obeyed in it."""
        loop, t, start_s = asyncio.get_running_loop(), self._clock.now(), self._monotonic()
        if not self._uuids:  # not known yet
            self._uuids = (await loop.run_in_executor(reads, self._collector.read, t)).gpus.uuid
        followed = await self._settled()
        reading = await loop.run_in_executor(reads, self._collector.read, t)
        self._uuids = reading.gpus.uuid
        self._seq += 1
        telemetry = Telemetry(
            node=self._node,
            boot_id=self._boot_id,
            seq=self._seq,
            t=self._clock.told(t),
            period_s=self._spec.period_s,
            reading=reading if any(reading.gpus.fault) else replace(reading, gpus=replace(reading.gpus, fault=())),
            in_force=aligned(followed.in_force, self._uuids),
            plan=followed.obedience,
            dropped=self._link.counters.dropped_out,
        )
        self._link.send(encode(self._to["telemetry"], telemetry))
        self._last, self._last_s = telemetry, self._monotonic()
        self.told(telemetry, self._monotonic() - start_s)
        return followed.obedience

    def facts(self) -> AgentFacts:
        """What the agent knows of itself now."""
        counters, left_s = self._link.counters, self._follower.remaining_s()
        return AgentFacts(
            last=self._last,
            last_age_s=self._monotonic() - self._last_s,
            connected=self._link.connected,
            stalled=self._pulse.stalled(STALLED_S + 2 * self._spec.period_s),
            complaints=self._complaints.total,
            dropped=counters.dropped_out,
            reconnects=counters.reconnects,
            lease_left_s=left_s if isfinite(left_s) else None,
            plan_age_s=self._monotonic() - self._followed_s if isfinite(left_s) else None,
        )

    async def _settled(self) -> Followed:
        """What came of settling; where nobody settles, power is told all the same, and that nothing is known."""
        try:
            return await self._follower.settle(self._uuids)
        except PolcadError as error:
            self._complaints.add("gpus", str(error), self._monotonic())
            return Followed(unknown(self._uuids, str(error)), None)


def _nobody(_: Telemetry, __: float) -> None:
    """Nobody watches."""


def aligned(force: InForce, uuids: tuple[str, ...]) -> InForce:
    """The columns in the order of `uuids`, as telemetry says them; a GPU the device does not name is unmanaged."""
    at = {uuid: place for place, uuid in enumerate(force.uuid)}
    places = [at.get(uuid) for uuid in uuids]
    detail = tuple("" if place is None else force.detail[place] for place in places)
    return InForce(
        clock_frac=tuple(None if place is None else force.clock_frac[place] for place in places),
        cap_frac=tuple(None if place is None else force.cap_frac[place] for place in places),
        outcome=tuple(Outcome.UNMANAGED if place is None else force.outcome[place] for place in places),
        detail=detail if any(detail) else (),
    )


def unknown(uuids: tuple[str, ...], why: str) -> InForce:
    """What is in force where nobody can tell."""
    n = len(uuids)
    return InForce(uuids, (None,) * n, (None,) * n, (Outcome.FAILED,) * n, (why[:_NOTE],) * n)


def usable(config: Config) -> Config:
    """The same configuration, for an agent; ConfigError when a part or a file that it names cannot be used."""
    config.broker.check()
    config.signing.trust()
    check_parts(config.agent)
    return config


def build_parts(spec: AgentSpec) -> tuple[Collector, Follower]:
    """What reads and sets the GPUs, both in this process; ConfigError, UnavailableError."""
    collector = build_collector(spec)
    return collector, Follower(spec, build_device(spec, collector))


@contextlib.asynccontextmanager
async def _watched(agent: Agent, spec: AgentSpec) -> AsyncIterator[None]:
    """Tell machines of the agent while the context lasts, where the configuration asks for it; UnavailableError."""
    if spec.web is None:
        yield
        return
    from polcad.agent_vitals import AgentVitals, exposed  # noqa: PLC0415  # 13 MiB for those who ask for it

    vitals = AgentVitals(spec, spec.web.window_s, agent.facts)
    agent.told = vitals.told
    async with exposed(vitals, spec.web, "agent.web") as url:
        _LOG.info("node %s: its metrics are at %smetrics", spec.node_name, url)
        yield


async def run(config: Config) -> None:
    """The agent that a configuration describes, until cancelled; ConfigError, UnavailableError."""
    with contextlib.nullcontext() if config.actuator.socket else _alone(config.agent):
        await _run(config)


@contextlib.contextmanager
def _alone(spec: AgentSpec) -> Iterator[None]:
    """Nobody else sets these GPUs; where that cannot be known, since there is no folder to hold, say so and go on."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(alone(Path(spec.state_dir)))
        except ConfigError as error:
            _LOG.warning("agent.%s: a second agent would not be noticed, and nothing is kept for a restart", error)
        yield


async def _run(config: Config) -> None:
    spec, socket, trust = config.agent, config.actuator.socket, config.signing.trust()
    if socket:
        deadline_s = max(_LEAST_DEADLINE_S, _DEADLINES * spec.gpu_deadline_s)
        collector: Collector = build_collector(spec)
        follower: PlanFollower = ActuatorClient(socket, deadline_s)
    else:
        collector, follower = build_parts(spec)
    try:
        agent = Agent(spec, config.site.name, config.broker, collector, follower, trust=trust)
        async with _watched(agent, spec):
            await agent.run()
    finally:
        if isinstance(collector, Closable):
            collector.close()
