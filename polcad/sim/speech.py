"""What the row says to its controller: one telemetry message a group, one column a server.

A group is up to 64 servers; it stands for a node, and a server for a GPU with the power of all of its own. So the
controller sees every server's setpoint in force, a reading of 52 servers costs it one message, not 52, and it never
adds servers of this reading to servers of the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from polcad.model import (
    MAX_GPUS,
    Gpus,
    InForce,
    LeaseState,
    NodePlacement,
    Obedience,
    Outcome,
    Placement,
    Plan,
    Reading,
    Setpoint,
    Telemetry,
)
from polcad.ports import Heard
from polcad.sim.profiles import Hardware
from polcad.sim.requests import Pool
from polcad.spec import NodeSpec, RowSpec

RACK = "rack"


@dataclass(frozen=True, slots=True)
class Group:
    """Servers `first` to `first + len(uuids)`."""

    name: str
    first: int
    uuids: tuple[str, ...]
    placements: tuple[Placement, ...]

    @property
    def placement(self) -> NodePlacement:
        """Where its servers belong."""
        return NodePlacement(self.name, gpus=dict(zip(self.uuids, self.placements, strict=True)))


def groups_of(pools: Sequence[Pool]) -> tuple[Group, ...]:
    """The row in groups; server 0 is the first of the first pool."""
    placements = [pool.placement for pool in pools for _ in range(pool.servers)]
    return tuple(
        Group(
            f"servers-{first // MAX_GPUS}",
            first,
            tuple(f"server-{server}" for server in range(first, min(first + MAX_GPUS, len(placements)))),
            tuple(placements[first : first + MAX_GPUS]),
        )
        for first in range(0, len(placements), MAX_GPUS)
    )


def row_spec(groups: Sequence[Group], hardware: Hardware, budget_w: float) -> RowSpec:
    """The inventory of the modelled row."""
    gpus_w = hardware.gpus * hardware.gpu_max_w
    host_w = hardware.host_idle_w + hardware.host_load_w
    nodes = tuple(
        NodeSpec(group.name, RACK, len(group.uuids), gpu_max_w=gpus_w, host_w=len(group.uuids) * host_w)
        for group in groups
    )
    return RowSpec("row", budget_w, nodes=nodes)


class Speech:
    """Makes the messages of one row. Powers in W, by server."""

    def __init__(self, groups: Sequence[Group], hardware: Hardware, period_s: float) -> None:
        self.groups = tuple(groups)
        self._max_w, self._period_s = hardware.gpus * hardware.gpu_max_w, period_s
        self._seq = 0
        self._force: dict[str, InForce] = {}

    def set(self, in_force: Sequence[Setpoint], ignoring: set[int]) -> None:
        """Say from now on that these setpoints are in force."""
        for group in self.groups:
            servers = range(group.first, group.first + len(group.uuids))
            self._force[group.name] = InForce(
                group.uuids,
                tuple(in_force[server].clock_frac for server in servers),
                tuple(in_force[server].cap_frac for server in servers),
                tuple(Outcome.OVERRIDDEN if server in ignoring else Outcome.OK for server in servers),
            )

    def say(
        self, t: float, gpu_w: Sequence[float], host_w: Sequence[float], plan: Plan | None, *, lease_held: bool
    ) -> list[Heard]:
        """What a reading at `t` makes every group say."""
        self._seq += 1
        lease = LeaseState.HELD if lease_held else LeaseState.EXPIRED
        obedience = Obedience(plan.epoch, plan.seq, lease) if plan else Obedience()
        return [self._heard(group, t, gpu_w, host_w, obedience) for group in self.groups]

    def _heard(
        self, group: Group, t: float, gpu_w: Sequence[float], host_w: Sequence[float], obedience: Obedience
    ) -> Heard:
        own = slice(group.first, group.first + len(group.uuids))
        power_w, force = tuple(gpu_w[own]), self._force[group.name]
        gpus = Gpus(group.uuids, power_w, (self._max_w,) * len(group.uuids))
        reading = Reading(gpus, host_power_w=sum(power_w) + sum(host_w[own]))
        message = Telemetry(group.name, "sim", self._seq, t, self._period_s, reading, force, obedience)
        return Heard(t, message, RACK)
