"""Fakes that stand where a real part would, for tests here and for whoever writes a collector or policy."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from polcad.curve import IDLE_SHARE, dynamic_frac
from polcad.lease import Lease
from polcad.model import (
    FREE,
    Gpus,
    InForce,
    LeaseState,
    NodePlacement,
    Obedience,
    Outcome,
    Plan,
    Reading,
    Setpoint,
    Telemetry,
)
from polcad.ports import Heard
from polcad.spec import NodeSpec, RowSpec


class ManualClock:
    """A Clock whose time moves only by `advance`."""

    def __init__(self, t: float = 0.0) -> None:
        self._t = t
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def now(self) -> float:
        """The time, s."""
        return self._t

    async def sleep_until(self, t: float) -> None:
        """Return once `advance` has brought the clock to `t`."""
        if t <= self._t:
            await asyncio.sleep(0)
            return
        woken = asyncio.get_running_loop().create_future()
        self._sleepers.append((t, woken))
        await woken

    def advance(self, seconds: float) -> None:
        """Move time forward and wake every sleeper whose time has come."""
        self._t += seconds
        due = [woken for t, woken in self._sleepers if t <= self._t]
        self._sleepers = [(t, woken) for t, woken in self._sleepers if t > self._t]
        for woken in due:
            if not woken.done():  # the sleeper may have been cancelled
                woken.set_result(None)


def telemetry(  # noqa: PLR0913  # a builder: a test names the one or two that it is about
    node: str = "n1",
    power_w: float | Sequence[float | None] | None = 300.0,
    *,
    gpus: int = 8,
    uuids: Sequence[str] | None = None,
    max_w: float | None = 700.0,
    seq: int = 1,
    boot_id: str = "boot",
    period_s: float = 1.0,
    host_power_w: float | None = None,
    setpoint: Setpoint | None = None,
    outcome: Outcome = Outcome.OK,
    plan: Obedience | None = None,
) -> Telemetry:
    """One message of a node whose GPUs all are alike; `power_w` may name each GPU's power.

    With a `setpoint` in force the node follows plans, the one named by `plan` or any.
    """
    powers = tuple(power_w) if isinstance(power_w, Sequence) else (power_w,) * gpus
    n = len(powers)
    names = tuple(uuids) if uuids is not None else tuple(f"GPU-{node}-{place}" for place in range(n))
    force = None
    if setpoint is not None:
        force = InForce(names, (setpoint.clock_frac,) * n, (setpoint.cap_frac,) * n, (outcome,) * n, ("",) * n)
        plan = plan or Obedience(lease=LeaseState.HELD)
    reading = Reading(Gpus(names, powers, (max_w,) * n), host_power_w=host_power_w)
    return Telemetry(node, boot_id, seq, 0.0, period_s, reading, force, plan)


class LoopNode:
    """A node whose GPUs draw what their load asks and their setpoint allows, and which follows plans by its lease."""

    def __init__(self, spec: NodeSpec, row: str) -> None:
        self.spec, self.load_frac = spec, 0.0
        self.placement = NodePlacement(spec.name, spec.placement)
        self.uuids = tuple(f"GPU-{spec.name}-{place}" for place in range(spec.gpus))
        self.setpoint: dict[str, Setpoint] = dict.fromkeys(self.uuids, FREE)
        self.lease = Lease(row, spec.rack, spec.name)
        self._seq = 0

    def act(self, t: float) -> None:
        """Bring every GPU to what the lease says at `t`."""
        self.setpoint.update(self.lease.wanted(t, self.uuids, self.placement, self.setpoint))

    def gpu_w(self, uuid: str) -> float:
        """What one GPU draws now."""
        held, max_w = self.setpoint[uuid], self.spec.gpu_max_w
        dynamic = (1 - IDLE_SHARE) * self.load_frac * dynamic_frac(self.spec.role, held.clock_frac)
        return min(max_w * (IDLE_SHARE + dynamic), max_w * held.cap_frac)

    def power_w(self) -> float:
        """What its GPUs draw now."""
        return sum(map(self.gpu_w, self.uuids))

    def message(self, t: float) -> Telemetry:
        """What it says at `t`."""
        self._seq += 1
        held = [self.setpoint[uuid] for uuid in self.uuids]
        n = len(self.uuids)
        return Telemetry(
            node=self.spec.name,
            boot_id="boot",
            seq=self._seq,
            t=t,
            period_s=1.0,
            reading=Reading(Gpus(self.uuids, tuple(map(self.gpu_w, self.uuids)), (self.spec.gpu_max_w,) * n)),
            in_force=InForce(
                self.uuids,
                tuple(each.clock_frac for each in held),
                tuple(each.cap_frac for each in held),
                (Outcome.OK,) * n,
                ("",) * n,
            ),
            plan=self.lease.obedience(t),
        )


class LoopRow:
    """A row that answers to plans: the shortest closed loop around a controller."""

    def __init__(self, row: RowSpec) -> None:
        self.nodes = {spec.name: LoopNode(spec, row.name) for spec in row.nodes}
        self.silent: set[str] = set()  # these nodes hear plans, but nobody hears them
        self.deaf: set[str] = set()  # these hear no plan

    def load(self, load_frac: float) -> None:
        """Give every GPU this share of its full load."""
        for node in self.nodes.values():
            node.load_frac = load_frac

    def take(self, plan: Plan, t: float) -> None:
        """Let the nodes hear a plan, and act."""
        for name, node in self.nodes.items():
            if name not in self.deaf:
                node.lease.offer(plan, t)
                node.act(t)

    def act(self, t: float) -> None:
        """Let the nodes act without a plan, as their leases run."""
        for node in self.nodes.values():
            node.act(t)

    def speak(self, t: float) -> list[Heard]:
        """What the nodes say at `t`."""
        return [
            Heard(t, node.message(t), node.spec.rack) for name, node in self.nodes.items() if name not in self.silent
        ]

    def power_w(self) -> float:
        """What the row draws now."""
        return sum(node.power_w() for node in self.nodes.values())

    def setpoints(self) -> dict[str, Setpoint]:
        """What is in force on every GPU."""
        return {uuid: held for node in self.nodes.values() for uuid, held in node.setpoint.items()}
