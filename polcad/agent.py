"""The agent of one node: reads its GPUs, says so, follows the plan, and takes care of itself in silence.

One cycle: bring the GPUs to what the lease wants, read back what is in force, read their power, send both. A cycle runs
each period, at once when a plan changes anything, and at the moment the lease ends. Reading and setting may block for
as long as a driver pleases, so they run in a thread of their own and the link to the broker never waits for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from random import Random

from polcad import plugins
from polcad.backlog import Received
from polcad.broker_spec import BrokerSpec
from polcad.clock import SteadyClock
from polcad.codec import Codec
from polcad.complaints import Complaints
from polcad.config import AgentSpec, Config
from polcad.errors import PolcadError, WireError
from polcad.lease import Lease
from polcad.model import InForce, NodePlacement, NodeState, Outcome, Plan, Reading, Setpoint, Telemetry
from polcad.mqtt import Link, Presence
from polcad.ports import Closable, Collector, Device, Releasable
from polcad.wire import Address, decode, encode

_LOG = logging.getLogger(__name__)
_PLAN = Codec(Plan)


class Memory:
    """The last plan, kept on disk for a restart in silence."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._kept: Plan | None = None

    def recall(self) -> Plan | None:
        """The plan of an earlier run; None, said aloud, when there is none that can be read."""
        try:
            self._kept = _PLAN.decode(self._path.read_bytes())
        except FileNotFoundError:
            _LOG.info("%s: no plan of an earlier run", self._path)
        except (OSError, WireError) as error:
            _LOG.error("%s: the plan of an earlier run cannot be read (%s): GPUs stay as they are", self._path, error)
        return self._kept

    def keep(self, plan: Plan) -> None:
        """Write the plan if it asks for anything else than the one kept; OSError when it cannot be written."""
        kept = self._kept
        if kept is not None and (plan.epoch, plan.rules, plan.fail_safe, plan.shadow) == (
            kept.epoch,
            kept.rules,
            kept.fail_safe,
            kept.shadow,
        ):
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        draft = self._path.with_suffix(".new")
        with draft.open("wb") as file:
            file.write(_PLAN.encode(plan))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._path)
        self._kept = plan


class Agent:
    """One node. `monotonic` counts leases; `clock` stamps telemetry."""

    def __init__(
        self,
        spec: AgentSpec,
        site: str,
        broker: BrokerSpec,
        parts: tuple[Collector, Device],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._spec, self._node, self._monotonic = spec, spec.node_name, monotonic
        self._collector, self._device = parts
        self._clock = SteadyClock()
        self._boot_id = uuid.uuid4().hex[:16]
        self._seq = 0
        self._memory = Memory(spec.plan_path)
        self._lease = Lease(spec.row, spec.rack, self._node, spec.fail, self._memory.recall())
        self._placement = NodePlacement(self._node)
        self._reading: Reading | None = None
        self._in_force = InForce()
        self._wake = asyncio.Event()
        self._complaints = Complaints(_LOG)
        self._to = {
            kind: Address(site, spec.row, kind, spec.rack, self._node) for kind in ("telemetry", "state", "placement")
        }
        self._plan_topic = Address(site, spec.row, "plan")
        offline = encode(self._to["state"], NodeState(self._node, online=False, boot_id=self._boot_id))
        online = NodeState(self._node, online=True, boot_id=self._boot_id, version=version("polcad"))
        presence = Presence(
            client_id=f"polcad-agent-{self._node}-{self._boot_id}",
            subscriptions=(self._plan_topic, self._to["placement"]),
            birth=(encode(self._to["state"], online),),
            farewell=(offline,),
            will=offline,
        )
        self._link = Link(broker, presence, self._monotonic, Random())  # noqa: S311  # spreads retries

    async def run(self) -> None:
        """Until cancelled. GPUs stay as they are then: their lease ends with nobody to loosen it."""
        with ThreadPoolExecutor(1, thread_name_prefix=f"gpus-{self._node}") as gpus:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._link.run(), name="mqtt")
                tasks.create_task(self._listen(), name="plans")
                tasks.create_task(self._report(gpus), name="telemetry")

    async def _listen(self) -> None:
        async for batch in self._link.batches():
            for received in batch:
                try:
                    self._take(received)
                except WireError as error:
                    self._complaints.add(received.message.topic, str(error), received.t)

    def _take(self, received: Received) -> None:
        message = received.message
        address, noun = decode(message)
        if isinstance(noun, Plan):
            if message.retain:
                raise WireError(f"{address.topic}: a plan is never retained; somebody planted this one")
            before = self._wanted()
            refusal = self._lease.offer(noun, received.t)
            if refusal:
                raise WireError(f"{address.topic}: {refusal}")
            if self._wanted() != before:
                self._wake.set()
        elif address.kind == "placement":
            self._placement = noun or NodePlacement(self._node)
            self._wake.set()

    async def _report(self, gpus: ThreadPoolExecutor) -> None:
        loop = asyncio.get_running_loop()
        next_s = self._monotonic()
        while True:
            self._wake.clear()
            try:
                if self._reading is None:  # what is in force must be known before anything is wanted
                    self._in_force = await loop.run_in_executor(gpus, self._device.in_force)
                    self._reading = await loop.run_in_executor(gpus, self._collector.read, self._clock.now())
                await self._cycle(loop, gpus)
            except PolcadError as error:
                self._complaints.add("gpus", str(error), self._monotonic())
            now_s = self._monotonic()
            if now_s >= next_s:
                next_s += self._spec.period_s * (1 + (now_s - next_s) // self._spec.period_s)
            left_s = self._lease.remaining_s(now_s)
            with contextlib.suppress(TimeoutError):  # wait_for may lose a cancellation before Python 3.12
                async with asyncio.timeout(min(next_s - now_s, left_s if left_s > 0 else next_s - now_s)):
                    await self._wake.wait()

    async def _cycle(self, loop: asyncio.AbstractEventLoop, gpus: ThreadPoolExecutor) -> None:
        wanted, t = self._wanted(), self._clock.now()
        obedience = self._lease.obedience(self._monotonic())
        self._in_force, reading = await loop.run_in_executor(gpus, self._act, wanted, t)
        self._reading = reading
        self._seq += 1
        telemetry = Telemetry(
            node=self._node,
            boot_id=self._boot_id,
            seq=self._seq,
            t=t,
            period_s=self._spec.period_s,
            reading=reading if any(reading.gpus.fault) else replace(reading, gpus=replace(reading.gpus, fault=())),
            in_force=aligned(self._in_force, reading.gpus.uuid),
            plan=obedience,
            dropped=self._link.counters.dropped_out,
        )
        self._link.send(encode(self._to["telemetry"], telemetry))
        if self._lease.plan is not None:
            await loop.run_in_executor(gpus, self._remember, self._lease.plan)

    def _act(self, wanted: dict[str, Setpoint], t: float) -> tuple[InForce, Reading]:
        """In the GPUs' thread: set, read back, read."""
        self._device.apply(wanted)
        return self._device.in_force(), self._collector.read(t)

    def _remember(self, plan: Plan) -> None:
        try:
            self._memory.keep(plan)
        except OSError as error:
            self._complaints.add("state_dir", f"the plan is not kept for a restart: {error}", self._monotonic())

    def _wanted(self) -> dict[str, Setpoint]:
        uuids: Iterable[str] = self._reading.gpus.uuid if self._reading else ()
        force = self._in_force
        known = {
            uuid: Setpoint(clock, cap)
            for uuid, clock, cap in zip(force.uuid, force.clock_frac, force.cap_frac, strict=True)
            if clock is not None and cap is not None
        }
        return self._lease.wanted(self._monotonic(), uuids, self._placement, known)


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


def with_parts(config: Config) -> Config:
    """The same configuration; ConfigError when a part that it names is not installed."""
    plugins.load("polcad.collectors", config.agent.collector)
    plugins.load("polcad.devices", config.agent.device)
    return config


def build_parts(spec: AgentSpec) -> tuple[Collector, Device]:
    """The collector and the device that the configuration names; ConfigError, UnavailableError."""
    reads = {"deadline_s": spec.gpu_deadline_s, **spec.collector_options}
    collector: Collector = plugins.load("polcad.collectors", spec.collector)(reads)
    sets = {"state_dir": spec.state_dir, **spec.device_options}
    device: Device = plugins.load("polcad.devices", spec.device)(sets, collector)
    return collector, device


def release(config: Config) -> InForce:
    """Bring this node's GPUs back to what they were before polcad set them; what is in force then.

    The last plan stays on disk: an agent that starts again without a daemon takes its fail-safe setpoint.
    """
    collector, device = build_parts(config.agent)
    try:
        before = device.in_force()
        if not isinstance(device, Releasable):
            return before
        device.release()
        return device.in_force()
    finally:
        if isinstance(collector, Closable):
            collector.close()


async def run(config: Config) -> None:
    """The agent that a configuration describes, until cancelled; ConfigError, UnavailableError."""
    parts = build_parts(config.agent)
    try:
        await Agent(config.agent, config.site.name, config.broker, parts).run()
    finally:
        if isinstance(parts[0], Closable):
            parts[0].close()
