"""What a fleet comes to: sums by rack and class, uncapped demand, and who does not obey.

Uncapped demand is what a GPU would draw without the setpoint it reports: its dynamic part divided by the share that the
clock leaves it (`polcad.curve`). A GPU near its power limit hides its demand: it counts its board's maximum.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from polcad.curve import CLOCK_FRAC, DYNAMIC_FRAC
from polcad.fleet import CLASSES, Flags, Fleet, Floats
from polcad.model import GRID_STEP_FRAC, ClassStatus, NodeColumns, Outcome, Priority, Role, Setpoint
from polcad.ports import ClassView

_BINDS_FRAC = 0.95  # of a limit: from here on it may hold back what the GPU would draw


@dataclass(frozen=True, slots=True)
class Tally:
    """Sums, watts: arrays of shape (racks, classes), and `host_w` of shape (racks,)."""

    gpus: Floats
    power_w: Floats
    demand_w: Floats
    idle_w: Floats
    max_w: Floats
    host_w: Floats

    def classes(self, rack: int | None) -> dict[tuple[Priority, Role], ClassView]:
        """The classes that have GPUs in a rack, or in the row."""
        columns = [
            (column.sum(axis=0) if rack is None else column[rack]).tolist()
            for column in (self.gpus, self.power_w, self.demand_w, self.idle_w, self.max_w)
        ]
        return {
            name: ClassView(int(gpus), power_w, demand_w, idle_w, max_w)
            for name, gpus, power_w, demand_w, idle_w, max_w in zip(CLASSES, *columns, strict=True)
            if gpus
        }


def tally(fleet: Fleet, idle_frac: float) -> Tally:
    """Sum the fleet as it stands."""
    n, racks = len(fleet.specs), len(fleet.racks)
    present = fleet.present[:n]
    key = (fleet.rack_of[:n, None] * len(CLASSES) + fleet.class_of[:n])[present]

    def summed(values: Floats) -> Floats:
        sums: Floats = np.bincount(key, values, minlength=racks * len(CLASSES)).astype(float)
        return sums.reshape(racks, len(CLASSES))

    gpu_w, max_w = fleet.gpu_w[:n][present], fleet.max_w[:n][present]
    idle_w = np.minimum(gpu_w, idle_frac * max_w)
    host_w = fleet.counted_w[:n] - fleet.gpu_w[:n].sum(axis=1)
    return Tally(
        summed(np.ones_like(gpu_w)),
        summed(gpu_w),
        summed(_demand_w(fleet, present, idle_w)),
        summed(idle_w),
        summed(max_w),
        np.bincount(fleet.rack_of[:n], host_w, minlength=racks).astype(float),
    )


def _demand_w(fleet: Fleet, present: Flags, idle_w: Floats) -> Floats:
    """Uncapped demand of the GPUs that are `present`, one after another."""
    n = len(present)
    gpu_w, max_w = fleet.gpu_w[:n][present], fleet.max_w[:n][present]
    clock, cap = fleet.clock_frac[:n][present], fleet.cap_frac[:n][present]
    demand_w = gpu_w.copy()
    for role_index, role in enumerate(Role):
        locked = (clock < 1.0) & (fleet.class_of[:n][present] % len(Role) == role_index)
        if locked.any():
            answer = np.interp(clock[locked], CLOCK_FRAC, DYNAMIC_FRAC[role])
            demand_w[locked] = idle_w[locked] + (gpu_w[locked] - idle_w[locked]) / answer
    hidden = (cap < 1.0) & (gpu_w >= _BINDS_FRAC * cap * max_w)
    silent = np.broadcast_to(fleet.stale[:n, None], present.shape)[present]
    return np.where(hidden | silent, np.maximum(gpu_w, max_w), np.minimum(demand_w, np.maximum(gpu_w, max_w)))


def looser(fleet: Fleet) -> Flags:
    """GPUs of believed, led nodes whose reported setpoint is looser than the plan's; shape (nodes, width)."""
    n = len(fleet.specs)
    led = fleet.managed[:n] & ~fleet.stale[:n] & ~fleet.suspect[:n]
    loose = (fleet.clock_frac[:n] > fleet.wanted_clock[:n] + GRID_STEP_FRAC) | (
        fleet.cap_frac[:n] > fleet.wanted_cap[:n] + GRID_STEP_FRAC
    )
    flags: Flags = loose & fleet.present[:n] & led[:, None]
    return flags


def strictest_reported(fleet: Fleet) -> dict[tuple[Priority, Role], Setpoint]:
    """The strictest setpoint that nodes which follow plans report for each class, leaving out what others impose."""
    n = len(fleet.specs)
    usable = fleet.present[:n] & fleet.obedient[:n] & (fleet.managed[:n] & ~fleet.stale[:n])[:, None]
    found: dict[tuple[Priority, Role], Setpoint] = {}
    for index, name in enumerate(CLASSES):
        mask = usable & (fleet.class_of[:n] == index)
        if mask.any():
            clock, cap = fleet.clock_frac[:n][mask], fleet.cap_frac[:n][mask]
            found[name] = Setpoint(float(np.nanmin(np.append(clock, 1.0))), float(np.nanmin(np.append(cap, 1.0))))
    return found


def class_statuses(
    fleet: Fleet, totals: Tally, setpoints: Mapping[tuple[Priority, Role], Setpoint]
) -> tuple[ClassStatus, ...]:
    """The row's classes, for those who look."""
    n = len(fleet.specs)
    led = fleet.present[:n] & fleet.managed[:n, None] & ~fleet.stale[:n, None]
    obeying = led & ~looser(fleet)
    counts = np.bincount(fleet.class_of[:n][obeying], minlength=len(CLASSES))
    return tuple(
        ClassStatus(*name, group.gpus, group.power_w, setpoints.get(name, Setpoint()), int(counts[CLASSES.index(name)]))
        for name, group in totals.classes(None).items()
    )


def node_columns(fleet: Fleet) -> NodeColumns:
    """Every node, for those who draw them."""
    n = len(fleet.specs)
    spoke = [fleet.last(slot) is not None for slot in range(n)]
    clock = np.nanmin(np.where(fleet.present[:n], np.nan_to_num(fleet.clock_frac[:n], nan=2.0), 2.0), axis=1).tolist()
    cap = np.nanmin(np.where(fleet.present[:n], np.nan_to_num(fleet.cap_frac[:n], nan=2.0), 2.0), axis=1).tolist()
    power_w = np.round(fleet.gpu_w[:n].sum(axis=1), 1).tolist()
    return NodeColumns(
        name=tuple(spec.name for spec in fleet.specs),
        rack=tuple(fleet.racks[rack] for rack in fleet.rack_of[:n].tolist()),
        power_w=tuple(power if heard else None for power, heard in zip(power_w, spoke, strict=True)),
        max_w=tuple(fleet.max_w[:n].sum(axis=1).tolist()),
        priority=tuple(_priority(fleet, slot) for slot in range(n)),
        stale=tuple(fleet.stale[:n].tolist()),
        clock_frac=tuple(value if value <= 1.0 else None for value in clock),
        cap_frac=tuple(value if value <= 1.0 else None for value in cap),
        fault=tuple(_fault(fleet, slot) for slot in range(n)),
    )


def _priority(fleet: Fleet, slot: int) -> Priority | None:
    placement = fleet.placement(slot)
    priorities = {placement.default.priority, *(each.priority for each in placement.gpus.values())}
    return priorities.pop() if len(priorities) == 1 else None


def _fault(fleet: Fleet, slot: int) -> str:
    last = fleet.last(slot)
    if last is None:
        return "never heard"
    if fleet.suspect[slot]:
        return "two nodes under this name"
    notes = [note for note in last.reading.gpus.fault if note]
    if last.in_force is not None:
        wrong = zip(last.in_force.outcome, last.in_force.detail, strict=False)
        notes += [
            detail or outcome.value for outcome, detail in wrong if outcome not in {Outcome.OK, Outcome.UNMANAGED}
        ]
    return notes[0] if notes else ""
