"""Follows plans with one node's GPUs: the lease, the device set by it, and the last plan kept on disk.

One settling: bring the GPUs to what the lease wants, and read back what is in force. Where the agent sets its GPUs
itself, this is a part of it; where `polcad actuator` does, it stands there, and the agent speaks to it through
`polcad.actuator_client`. Both are a `PlanFollower`. Setting may block for as long as a driver pleases, so it runs in a
thread of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from polcad import plugins
from polcad.codec import Codec
from polcad.complaints import Complaints
from polcad.config import AgentSpec
from polcad.errors import WireError
from polcad.lease import Lease
from polcad.model import InForce, LeaseState, NodePlacement, Obedience, Plan, Setpoint
from polcad.ports import Closable, Collector, Device, Releasable

_LOG = logging.getLogger(__name__)
_PLAN = Codec(Plan)


@dataclass(frozen=True, slots=True)
class Followed:
    """What holds on the GPUs, and the plan that was followed for it; None where nobody could tell."""

    in_force: InForce
    obedience: Obedience | None


class PlanFollower(Protocol):
    """Sets one node's GPUs by the plans it is offered, on its own clock. PolcadError when it cannot be asked."""

    wake: asyncio.Event  # set when something else is wanted than was settled last

    async def offer(self, plan: Plan, t: float, signed: bytes = b"") -> None:
        """Follow a plan heard at monotonic time `t`; WireError, with the reason, when it is refused.

        `signed` is its payload where whoever sets the GPUs is to check the signature too.
        """
        ...

    async def place(self, placement: NodePlacement) -> None:
        """Take what runs on each GPU."""
        ...

    async def settle(self, uuids: Iterable[str] = ()) -> Followed:
        """Bring the GPUs to what is wanted now, those named here among them, and read back."""
        ...

    def remaining_s(self) -> float:
        """Seconds until the lease ends; not positive once it has."""
        ...

    async def close(self) -> None:
        """End in order. GPUs stay as they are."""
        ...


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


class Follower:
    """A `PlanFollower` over a device in this process. `monotonic` counts leases."""

    def __init__(self, spec: AgentSpec, device: Device, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.wake = asyncio.Event()
        self._device, self._monotonic = device, monotonic
        self._memory = Memory(spec.plan_path)
        self._lease = Lease(spec.row, spec.rack, spec.node_name, spec.fail, self._memory.recall())
        self._placement = NodePlacement(spec.node_name)
        self._in_force: InForce | None = None  # must be known before anything is wanted
        self._uuids: tuple[str, ...] = ()
        self._gpus = ThreadPoolExecutor(1, thread_name_prefix=f"gpus-{spec.node_name}")
        self._disk = ThreadPoolExecutor(1, thread_name_prefix=f"plan-{spec.node_name}")
        self._remembering: asyncio.Future[None] | None = None  # not waited for: a disk that hangs delays no GPU
        self._turn = asyncio.Lock()
        self._complaints = Complaints(_LOG)

    async def offer(self, plan: Plan, t: float, signed: bytes = b"") -> None:
        """Follow a plan, whose signature was checked; the GPUs are set by the next settling."""
        del signed
        before = self._wanted()
        refusal = self._lease.offer(plan, t)
        if refusal:
            raise WireError(refusal)
        if self._wanted() != before:
            self.wake.set()

    async def place(self, placement: NodePlacement) -> None:
        """Take what runs on each GPU; the GPUs are set by the next settling."""
        if placement != self._placement:
            self._placement = placement
            self.wake.set()

    async def settle(self, uuids: Iterable[str] = ()) -> Followed:
        """Set and read back; one settling at a time."""
        async with self._turn:
            self.wake.clear()
            loop = asyncio.get_running_loop()
            if self._in_force is None:
                self._in_force = await loop.run_in_executor(self._gpus, self._device.in_force)
            self._uuids = tuple(dict.fromkeys((*self._in_force.uuid, *uuids)))
            wanted, obedience = self._wanted(), self._lease.obedience(self._monotonic())
            self._in_force = await loop.run_in_executor(self._gpus, self._act, wanted)
            if self._lease.plan is not None and (self._remembering is None or self._remembering.done()):
                self._remembering = loop.run_in_executor(self._disk, self._remember, self._lease.plan)
            return Followed(self._in_force, obedience)

    def remaining_s(self) -> float:
        """Seconds until the lease ends; not positive once it has."""
        return self._lease.remaining_s(self._monotonic())

    async def close(self) -> None:
        """Wait for what the driver and the disk were asked last."""
        for executor in (self._gpus, self._disk):
            await asyncio.to_thread(executor.shutdown)

    def _act(self, wanted: dict[str, Setpoint]) -> InForce:
        self._device.apply(wanted)
        return self._device.in_force()

    def _remember(self, plan: Plan) -> None:
        try:
            self._memory.keep(plan)
        except OSError as error:
            self._complaints.add("state_dir", f"the plan is not kept for a restart: {error}", self._monotonic())

    def _wanted(self) -> dict[str, Setpoint]:
        force = self._in_force or InForce()
        read = zip(force.uuid, force.clock_frac, force.cap_frac, strict=True)
        known = {
            uuid: None if clock is None or cap is None else Setpoint(clock, cap)
            for uuid, clock, cap in read
            if (clock is None) == (cap is None)  # of one that tells one alone, the other is free or was never set
        }
        return self._lease.wanted(self._monotonic(), self._uuids, self._placement, known)


async def rest(follower: PlanFollower, seconds: float, settled: Obedience | None) -> None:
    """Wait so long, but not past the end of the lease, nor once something else is wanted.

    `settled`: what was obeyed at the last settling, None where it failed. A lease that ended since is not waited on.
    """
    left_s = follower.remaining_s()
    if left_s <= 0 and settled is not None and settled.lease is LeaseState.HELD:
        return
    with contextlib.suppress(TimeoutError):  # wait_for may lose a cancellation before Python 3.12
        async with asyncio.timeout(min(seconds, left_s) if left_s > 0 else seconds):
            await follower.wake.wait()


def check_parts(spec: AgentSpec) -> None:
    """ConfigError when a collector or a device that the configuration names is not installed."""
    plugins.load("polcad.collectors", spec.collector)
    plugins.load("polcad.devices", spec.device)


def build_collector(spec: AgentSpec) -> Collector:
    """The collector that the configuration names; ConfigError, UnavailableError."""
    reads = {"deadline_s": spec.gpu_deadline_s, **spec.collector_options}
    collector: Collector = plugins.load("polcad.collectors", spec.collector)(reads)
    return collector


def build_device(spec: AgentSpec, collector: Collector) -> Device:
    """The device that the configuration names, for the GPUs of `collector`; ConfigError."""
    sets = {"state_dir": spec.state_dir, **spec.device_options}
    device: Device = plugins.load("polcad.devices", spec.device)(sets, collector)
    return device


def release(spec: AgentSpec) -> InForce:
    """Bring this node's GPUs back to what they were before polcad set them; what is in force then.

    The last plan stays on disk: a node that starts again without a daemon takes its fail-safe setpoint.
    """
    collector = build_collector(spec)
    try:
        device = build_device(spec, collector)
        before = device.in_force()
        if not isinstance(device, Releasable):
            return before
        device.release()
        return device.in_force()
    finally:
        if isinstance(collector, Closable):
            collector.close()
