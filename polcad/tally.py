"""What a fleet comes to: sums by rack and class, uncapped demand, and who does not obey.

Uncapped demand is what a GPU would draw without the setpoint it reports: its dynamic part divided by the share that the
clock leaves it (`polcad.curve`). A GPU near its power limit hides its demand: it counts its board's maximum.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import repeat

import numpy as np

from polcad.fleet import CLASSES, Fleet
from polcad.model import (
    GRID_STEP_FRAC,
    ClassStatus,
    NodeColumns,
    NodePlacement,
    Outcome,
    Priority,
    Role,
    Setpoint,
)
from polcad.places import Flags, Floats, Places
from polcad.ports import ClassView
from polcad.word import Word

Class = tuple[Priority, Role]

_FINE = (Outcome.OK, Outcome.UNMANAGED)
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

    def take(self, rack: int, fresh: Tally) -> None:
        """Take one rack's sums anew."""
        for column in fields(self):
            getattr(self, column.name)[rack] = getattr(fresh, column.name)[rack]

    def classes(self, rack: int | None) -> dict[Class, ClassView]:
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


def tally(fleet: Fleet, idle_frac: float, rack: int | None = None) -> Tally:
    """Sum the fleet as it stands, or one rack of it: then the others are zero."""
    places = fleet.places(rack)
    gpu_w = fleet.gpu_w.take(places.at)
    idle_w = np.where(_unmoved(fleet, places), gpu_w, np.minimum(gpu_w, idle_frac * places.max_w))
    host_w = fleet.counted_w[places.nodes] - fleet.gpu_w[places.nodes].sum(axis=1)
    return Tally(
        places.summed(),
        places.summed(gpu_w),
        places.summed(_demand_w(fleet, places, gpu_w, idle_w)),
        places.summed(idle_w),
        places.summed(places.max_w),
        np.bincount(places.rack_of, host_w, minlength=places.shape[0]).astype(float),
    )


def _unmoved(fleet: Fleet, places: Places) -> Flags:
    """GPUs that by their own word run looser than they were told: no setpoint moves what they draw, for now.

    A brake would else be let go because of what it would save on them, again and again.
    """
    n = len(fleet.specs)
    wayward = fleet.present[:n] & ~fleet.obedient[:n]
    if wayward.any():
        wayward &= looser(fleet)
    unmoved: Flags = wayward.take(places.at)
    return unmoved


def _demand_w(fleet: Fleet, places: Places, gpu_w: Floats, idle_w: Floats) -> Floats:
    """Uncapped demand, one entry a GPU."""
    cap_frac = fleet.cap_frac.take(places.at)
    hidden = (cap_frac < 1.0) & (gpu_w >= _BINDS_FRAC * cap_frac * places.max_w)
    silent = fleet.stale[places.node_of]
    demand_w = idle_w + (gpu_w - idle_w) / fleet.answer_frac().take(places.at)
    most_w = np.maximum(gpu_w, places.max_w)
    return np.where(hidden | silent, most_w, np.minimum(demand_w, most_w))


def looser(fleet: Fleet) -> Flags:
    """GPUs of believed, led nodes whose reported setpoint is looser than the plan's; shape (nodes, width).

    One that cannot tell what it holds is looser than any plan but a free one.
    """
    n = len(fleet.specs)
    led = fleet.managed[:n] & ~fleet.stale[:n] & ~fleet.suspect[:n]
    clocked = np.nan_to_num(fleet.clock_frac[:n], nan=1.0) <= fleet.wanted_clock[:n] + GRID_STEP_FRAC
    capped = np.nan_to_num(fleet.cap_frac[:n], nan=1.0) <= fleet.wanted_cap[:n] + GRID_STEP_FRAC
    flags: Flags = ~(clocked & capped) & fleet.present[:n] & led[:, None]
    return flags


def strictest_reported(fleet: Fleet) -> list[dict[Class, Setpoint]]:
    """By rack, the strictest setpoint that nodes which follow plans report for each class.

    GPUs that do not do as they were told (somebody else holds them lower) count only where no other speaks for their
    class.
    """
    n, shape = len(fleet.specs), (len(fleet.racks), len(CLASSES))
    clock, cap = np.full(shape, np.inf), np.full(shape, np.inf)
    rack = np.broadcast_to(fleet.rack_of[:n, None], fleet.present[:n].shape)
    led = fleet.present[:n] & (fleet.managed[:n] & ~fleet.stale[:n])[:, None]
    for speaking in (led & fleet.obedient[:n], led):
        mask = speaking & np.isinf(clock[rack, fleet.class_of[:n]])
        at = rack[mask], fleet.class_of[:n][mask]
        np.minimum.at(clock, at, np.nan_to_num(fleet.clock_frac[:n][mask], nan=1.0))
        np.minimum.at(cap, at, np.nan_to_num(fleet.cap_frac[:n][mask], nan=1.0))
    return [
        {name: Setpoint(*pair) for name, *pair in zip(CLASSES, clocks, caps, strict=True) if pair[0] <= 1.0}
        for clocks, caps in zip(clock.tolist(), cap.tolist(), strict=True)
    ]


def class_statuses(fleet: Fleet, totals: Tally, setpoints: Mapping[Class, Setpoint]) -> tuple[ClassStatus, ...]:
    """The row's classes, for those who look."""
    n = len(fleet.specs)
    led = fleet.present[:n] & fleet.managed[:n, None] & ~fleet.stale[:n, None]
    obeying = led & ~looser(fleet)
    counts = np.bincount(fleet.class_of[:n][obeying], minlength=len(CLASSES))
    return tuple(
        ClassStatus(
            *name,
            group.gpus,
            group.power_w,
            setpoints.get(name, Setpoint()),
            int(counts[CLASSES.index(name)]),
            group.demand_w,
            group.idle_w,
        )
        for name, group in totals.classes(None).items()
    )


def node_columns(fleet: Fleet) -> NodeColumns:
    """Every node, for those who draw them."""
    n = len(fleet.specs)
    words = [fleet.word(slot) for slot in range(n)]
    clock, cap = (np.fmin.reduce(column[:n], axis=1).tolist() for column in (fleet.clock_frac, fleet.cap_frac))
    power_w = np.round(fleet.gpu_w[:n].sum(axis=1), 1).tolist()
    return NodeColumns(
        name=tuple(spec.name for spec in fleet.specs),
        rack=tuple(fleet.racks[rack] for rack in fleet.rack_of[:n].tolist()),
        power_w=tuple(power if said else None for power, said in zip(power_w, words, strict=True)),
        max_w=tuple(fleet.max_w[:n].sum(axis=1).tolist()),
        priority=tuple(_priority(fleet.placement(slot)) for slot in range(n)),
        stale=tuple(fleet.stale[:n].tolist()),
        clock_frac=tuple(value if value <= 1.0 else None for value in clock),  # NaN: no GPU of it tells
        cap_frac=tuple(value if value <= 1.0 else None for value in cap),
        fault=tuple(map(_fault, words, fleet.suspect[:n].tolist())),
    )


def _priority(placement: NodePlacement) -> Priority | None:
    if not placement.gpus:
        return placement.default.priority
    priorities = {placement.default.priority, *(each.priority for each in placement.gpus.values())}
    return priorities.pop() if len(priorities) == 1 else None


def _fault(word: Word | None, suspect: bool) -> str:
    if word is None:
        return "never heard"
    if suspect:
        return "two nodes under this name"
    faults, force = word.faults, word.in_force
    if not any(faults) and (force is None or force.outcome.count(Outcome.OK) == len(force.outcome)):
        return ""
    notes = [note for note in faults if note]
    if force is not None:
        wrong = zip(force.outcome, force.detail or repeat(""), strict=False)
        notes += [detail or outcome.value for outcome, detail in wrong if outcome not in _FINE]
    return notes[0] if notes else ""
