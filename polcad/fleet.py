"""What is known of a row's nodes: arrays with one slot a node and one place a GPU, and how much power each counts for.

A fresh node counts what it measured. A stale one, or one never heard, counts the most that the setpoints it may have in
force allow: silence is never headroom. A GPU whose reading is missing or cannot be true (zero, beyond its limit) counts
its last good power for as long as a node may be silent, and its worst case after that.

Ages are counted on the controller's own waking time: if the controller itself slept, nobody grew stale meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from polcad.curve import CLOCK_FRAC, DYNAMIC_FRAC
from polcad.model import LeaseState, NodePlacement, Outcome, Placement, Priority, Role, Rule, Telemetry
from polcad.spec import GuardSpec, NodeSpec, RowSpec

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

CLASSES = tuple((priority, role) for priority in Priority for role in Role)
_CLASS_INDEX = {name: index for index, name in enumerate(CLASSES)}
_FLOOR_FRAC = 0.02  # of a board's maximum: below it no powered board draws
_SPIKE_FRAC = 1.5  # of a board's maximum: above it no board draws for the length of a reading
_PERIODS_TO_STALE = 3
_MAX_UNLISTED = 1024  # names made up by a flood must not grow the row without end


class Fleet:
    """The nodes of one row. `now_s` is the controller's waking time, seconds."""

    def __init__(self, row: RowSpec, guard: GuardSpec) -> None:
        self._guard = guard
        self.slots: dict[str, int] = {}
        self.specs: list[NodeSpec] = []
        self.racks: list[str] = []
        self._rack_index: dict[str, int] = {}
        self._placements: list[NodePlacement] = []
        self._last: list[Telemetry | None] = []
        self._listed = len(row.nodes)
        self._allocate(max(len(row.nodes), 16), max((node.gpus for node in row.nodes), default=8) or 1)
        for rack in row.racks:
            self._rack(rack.name)
        for node in row.nodes:
            self._add(node)

    def _allocate(self, nodes: int, width: int) -> None:
        self.counted_w = np.zeros(nodes)
        self.host_w = np.zeros(nodes)  # the part of a node that is not its GPUs
        self.rack_of = np.zeros(nodes, dtype=np.intp)
        self.managed = np.zeros(nodes, dtype=bool)  # follows plans
        self.stale = np.zeros(nodes, dtype=bool)
        self.suspect = np.zeros(nodes, dtype=bool)  # not believed: two senders under one name
        self._told_stale = np.zeros(nodes, dtype=bool)
        self._expected = np.zeros(nodes, dtype=bool)  # in service, or heard since
        self._heard_s = np.full(nodes, -np.inf)
        self._stale_after_s = np.full(nodes, self._guard.stale_after_s)
        shape = (nodes, width)
        self.present = np.zeros(shape, dtype=bool)
        self.gpu_w = np.zeros(shape)
        self.max_w = np.zeros(shape)
        self.limit_w = np.zeros(shape)  # enforced
        self.clock_frac = np.full(shape, np.nan)  # in force, as reported; NaN: not known
        self.cap_frac = np.full(shape, np.nan)
        self.obedient = np.zeros(shape, dtype=bool)  # what is in force is what the node was told, by its own word
        self.class_of = np.zeros(shape, dtype=np.intp)
        self.wanted_clock = np.ones(shape)  # by the plan that stands
        self.wanted_cap = np.ones(shape)
        self._good_s = np.full(shape, -np.inf)  # when each GPU was last believed

    def _grow(self, nodes: int, width: int) -> None:
        old = {name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        self._allocate(nodes, width)
        for name, value in old.items():
            getattr(self, name)[tuple(map(slice, value.shape))] = value

    def _rack(self, name: str) -> int:
        if name not in self._rack_index:
            self._rack_index[name] = len(self.racks)
            self.racks.append(name)
        return self._rack_index[name]

    def _add(self, spec: NodeSpec) -> int:
        slot = len(self.specs)
        if slot == len(self.counted_w):
            self._grow(2 * slot, self.gpu_w.shape[1])
        self.slots[spec.name] = slot
        self.specs.append(spec)
        self._last.append(None)
        self._placements.append(NodePlacement(spec.name, spec.placement))
        self.rack_of[slot] = self._rack(spec.rack)
        self._expected[slot] = spec.in_service
        self.host_w[slot] = spec.host_w
        self._fit(slot, (spec.gpu_max_w,) * spec.gpus)
        self._classify(slot)
        return slot

    def _fit(self, slot: int, max_w: tuple[float, ...]) -> None:
        """Give a node as many places as it has GPUs."""
        n = len(max_w)
        if n > self.gpu_w.shape[1]:
            self._grow(len(self.counted_w), n)
        self.present[slot] = np.arange(self.gpu_w.shape[1]) < n
        self.max_w[slot] = self.limit_w[slot] = self.gpu_w[slot] = 0.0
        self.max_w[slot, :n] = self.limit_w[slot, :n] = max_w
        self.clock_frac[slot] = self.cap_frac[slot] = np.nan
        self.obedient[slot] = False
        self._good_s[slot] = -np.inf

    def slot_of(self, node: str, rack: str) -> int | None:
        """The slot of a node, made for one that the inventory lacks; None when there are too many of those."""
        slot = self.slots.get(node)
        if slot is None and len(self.specs) - self._listed < _MAX_UNLISTED:
            slot = self._add(NodeSpec(node, rack))
        return slot

    def listed(self, slot: int) -> bool:
        """Whether the inventory has the node."""
        return slot < self._listed

    def all_heard(self) -> bool:
        """Whether every node in service has spoken."""
        n = len(self.specs)
        return n > 0 and bool((np.isfinite(self._heard_s[:n]) | ~self._expected[:n]).all())

    def last(self, slot: int) -> Telemetry | None:
        """The node's last message."""
        return self._last[slot]

    def placement(self, slot: int) -> NodePlacement:
        """The node's placement."""
        return self._placements[slot]

    def place(self, slot: int, placement: NodePlacement) -> None:
        """Take a node's placement."""
        self._placements[slot] = placement
        self._classify(slot)

    def _classify(self, slot: int) -> None:
        placement, last = self._placements[slot], self._last[slot]
        uuids: Iterable[str] = last.reading.gpus.uuid if last else ()
        self.class_of[slot] = class_index(placement.default)
        for place, uuid in enumerate(uuids):
            self.class_of[slot, place] = class_index(placement.of(uuid))

    def hear(self, slot: int, telemetry: Telemetry, now_s: float) -> tuple[float, bool]:
        """Take one message: how much the node's counted power changed (W), and whether every sensor was believed."""
        last, self._last[slot] = self._last[slot], telemetry
        reading = telemetry.reading
        if last is None or last.reading.gpus.uuid != reading.gpus.uuid or last.period_s != telemetry.period_s:
            self._settle(slot, telemetry)
            last = None
        self._take_setpoints(slot, telemetry, last)
        self._heard_s[slot] = now_s
        gpus_w, believed = self._take_powers(slot, reading.gpus.power_w or (reading.host_power_w,), now_s)
        if reading.host_power_w is not None and reading.gpus.uuid:
            self.host_w[slot] = max(0.0, reading.host_power_w - gpus_w)
        self.stale[slot] = False
        if self.suspect[slot]:
            return 0.0, believed
        before = float(self.counted_w[slot])
        self.counted_w[slot] = after = gpus_w + float(self.host_w[slot])
        return after - before, believed

    def _settle(self, slot: int, telemetry: Telemetry) -> None:
        """Take in a node that is new, or whose GPUs are others than before."""
        spec, gpus = self.specs[slot], telemetry.reading.gpus
        if gpus.uuid:
            self._fit(slot, tuple(max_w or spec.gpu_max_w for max_w in gpus.max_w))
        else:  # a meter of the whole server: one place stands for it
            self._fit(slot, (spec.gpus * spec.gpu_max_w + spec.host_w,))
            self.host_w[slot] = 0.0
        self._expected[slot] = True
        self._stale_after_s[slot] = max(self._guard.stale_after_s, _PERIODS_TO_STALE * telemetry.period_s)
        self._classify(slot)

    def _take_setpoints(self, slot: int, telemetry: Telemetry, last: Telemetry | None) -> None:
        force, plan, gpus = telemetry.in_force, telemetry.plan, telemetry.reading.gpus
        n = len(gpus.uuid)
        self.managed[slot] = force is not None and plan is not None and plan.lease is not LeaseState.NONE
        if force is not None and (last is None or last.in_force != force):
            self.clock_frac[slot, :n] = force.clock_frac
            self.cap_frac[slot, :n] = force.cap_frac
            self.obedient[slot, :n] = [outcome is Outcome.OK for outcome in force.outcome]
        if gpus.enforced_w and (last is None or last.reading.gpus.enforced_w != gpus.enforced_w):
            limits = np.array(gpus.enforced_w, dtype=float)  # None becomes NaN
            self.limit_w[slot, :n] = np.where(np.isnan(limits), self.max_w[slot, :n], limits)

    def _take_powers(self, slot: int, powers: tuple[float | None, ...], now_s: float) -> tuple[float, bool]:
        n, max_w = len(powers), float(self.max_w[slot, 0])
        if None not in powers:
            known: tuple[float, ...] = powers  # type: ignore[assignment]  # none is None
            if _FLOOR_FRAC * max_w <= min(known) and max(known) <= _SPIKE_FRAC * max_w:
                self.gpu_w[slot, :n] = known
                self._good_s[slot, :n] = now_s
                return sum(known), True
        read_w = np.array(powers, dtype=float)  # None becomes NaN, and NaN compares false
        good = (read_w >= _FLOOR_FRAC * self.max_w[slot, :n]) & (read_w <= _SPIKE_FRAC * self.max_w[slot, :n])
        forgotten = now_s - self._good_s[slot, :n] > self._stale_after_s[slot]
        worst_w = self._worst_gpu_w(np.array([slot]), now_s)[0, :n]
        self.gpu_w[slot, :n] = np.where(good, read_w, np.where(forgotten, worst_w, self.gpu_w[slot, :n]))
        self._good_s[slot, :n][good] = now_s
        return float(self.gpu_w[slot, :n].sum()), bool(good.all())

    def age(self, now_s: float) -> tuple[list[int], list[int]]:
        """Recount what is silent; the slots that grew stale since the last time, and those that came back."""
        n = len(self.specs)
        stale = self._expected[:n] & (now_s - self._heard_s[:n] > self._stale_after_s[:n])
        grew = np.flatnonzero(stale & ~self._told_stale[:n])
        back = np.flatnonzero(~stale & self._told_stale[:n])
        self.stale[:n] = self._told_stale[:n] = stale
        doubted = np.flatnonzero(stale | self.suspect[:n])
        if doubted.size:
            self.gpu_w[doubted] = self._worst_gpu_w(doubted, now_s)
            self.counted_w[doubted] = self.gpu_w[doubted].sum(axis=1) + self.host_w[doubted]
        return grew.tolist(), back.tolist()

    def _worst_gpu_w(self, nodes: NDArray[np.intp], now_s: float) -> Floats:
        """The most that GPUs of silent nodes may draw: under what they last reported, or were told since.

        Once its lease must have ended, a node that follows plans is at the fail-safe or at what it is told.
        """
        reported_w = self._bound_w(nodes, np.nan_to_num(self.clock_frac[nodes], nan=1.0), self.cap_frac[nodes])
        told_w = self._bound_w(nodes, self.wanted_clock[nodes], self.wanted_cap[nodes])
        safe = self._guard.fail_safe
        safe_w = self._bound_w(nodes, np.float64(safe.clock_frac), np.float64(safe.cap_frac))
        ended = now_s - self._heard_s[nodes] > self._guard.lease_s + self._guard.latency_s
        reported_w = np.where(ended[:, None], np.minimum(reported_w, safe_w), reported_w)
        unled_w = self._bound_w(nodes, np.float64(1.0), np.float64(1.0))
        worst: Floats = np.where(self.managed[nodes][:, None], np.maximum(reported_w, told_w), unled_w)
        return worst

    def _bound_w(
        self, nodes: NDArray[np.intp], clock_frac: Floats | np.float64, cap_frac: Floats | np.float64
    ) -> Floats:
        """The most that GPUs may draw under a lock and a limit, by the curve that falls least."""
        max_w = self.max_w[nodes]
        idle_w = self._guard.idle_frac * max_w
        locked_w = idle_w + (max_w - idle_w) * np.interp(clock_frac, CLOCK_FRAC, DYNAMIC_FRAC[Role.TOKEN])
        capped_w = np.nan_to_num(cap_frac, nan=1.0) * max_w
        bound: Floats = np.minimum(np.minimum(locked_w, capped_w), self.limit_w[nodes])
        return bound

    def want(self, rules: Iterable[Rule]) -> None:
        """Note what the plan that stands asks of every GPU."""
        self.wanted_clock[:] = 1.0
        self.wanted_cap[:] = 1.0
        for rule in rules:
            mask = self.present & self._in_scope(rule.scope) & self._in_class(rule)
            self.wanted_clock[mask] = np.minimum(self.wanted_clock[mask], rule.setpoint.clock_frac)
            self.wanted_cap[mask] = np.minimum(self.wanted_cap[mask], rule.setpoint.cap_frac)

    def _in_class(self, rule: Rule) -> Flags:
        matching = [
            index
            for index, (priority, role) in enumerate(CLASSES)
            if rule.priority in {None, priority} and rule.role in {None, role}
        ]
        flags: Flags = np.isin(self.class_of, matching)
        return flags

    def _in_scope(self, scope: str) -> Flags:
        kind, _, name = scope.partition("/")
        mask: Flags = np.zeros(self.present.shape, dtype=bool)
        if kind == "row":
            mask[:] = True
        elif kind == "rack" and name in self._rack_index:
            mask[self.rack_of == self._rack_index[name]] = True
        elif kind == "node" and name in self.slots:
            mask[self.slots[name]] = True
        elif kind == "gpu":
            for slot, last in enumerate(self._last):
                if last is not None and name in last.reading.gpus.uuid:
                    mask[slot, last.reading.gpus.uuid.index(name)] = True
        return mask


def class_index(placement: Placement) -> int:
    """The place of a placement's priority and role in CLASSES."""
    return _CLASS_INDEX[placement.priority, placement.role]
