"""What is known of a row's nodes: arrays with one slot a node and one place a GPU, and how much power each counts for.

A fresh node counts what it measured. A stale one, or one never heard, counts the most that the setpoints it may have in
force allow: silence is never headroom. A GPU whose reading is missing or cannot be true (zero, beyond its limit) counts
its last good power for as long as a node may be silent, and its worst case after that. A GPU that is left out of its
node's messages counts its last power until it is back, or the agent starts anew.

Ages are counted on the controller's own waking time: if the controller itself slept, nobody grew stale meanwhile.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from polcad.curve import CLOCK_FRAC, DYNAMIC_FRAC, HIGHEST_FRAC
from polcad.model import MAX_GPUS, LeaseState, NodePlacement, Outcome, Placement, Priority, Reading, Role, Telemetry
from polcad.places import Floats, Places
from polcad.spec import GuardSpec, NodeSpec, RowSpec
from polcad.word import Word

CLASSES = tuple((priority, role) for priority in Priority for role in Role)
_CLASS_INDEX = {name: index for index, name in enumerate(CLASSES)}
_FLOOR_FRAC = 0.02  # of a board's maximum: below it no powered board draws
_SPIKE_FRAC = 1.5  # of a board's maximum: above it no board draws for the length of a reading
_PERIODS_TO_STALE = 3
_LONGEST_STALE_S = 120.0  # a node that claims a period of an hour is not believed for three
_SERVER_PER_GPUS = 2.0  # a server's nameplate beside its GPUs': 6500 W of 3200 (A100), 10200 of 5600 (H100)
_OBEYED = {Outcome.OK, Outcome.CLAMPED}
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
        self._words: list[Word | None] = []
        self._seq: list[int] = []  # of each node's last message
        self._lost: list[dict[str, float]] = []  # a node's GPUs that its agent leaves out since some message
        self._sure_w: list[tuple[float, float]] = []  # between these every GPU of the node is believed
        self._early: dict[str, NodePlacement] = {}  # said of nodes that nobody knows yet
        self.reclassed = False  # GPUs changed their class since the plan was laid out
        self.revision = 0  # grows with every change of setpoints, reported or wanted, and of who is believed
        self._places: dict[int | None, Places] = {}  # by rack, and under None of the row; as long as no GPU moves
        self._answered = -1  # the revision that `_answer_frac` is of
        self._listed = len(row.nodes)
        self._allocate(max(len(row.nodes), 16), max((node.gpus for node in row.nodes), default=8) or 1)
        for rack in row.racks:
            self._rack(rack.name)
        for node in row.nodes:
            self._add(node)

    def _allocate(self, nodes: int, width: int) -> None:
        self.counted_w = np.zeros(nodes)
        self.host_w = np.zeros(nodes)  # the part of a node that is not its GPUs
        self.lost_w = np.zeros(nodes)  # last drawn by GPUs that the node names no more
        self.rack_of = np.zeros(nodes, dtype=np.intp)
        self.managed = np.zeros(nodes, dtype=bool)  # follows plans, and sets at least one of its GPUs
        self.stale = np.zeros(nodes, dtype=bool)
        self.suspect = np.zeros(nodes, dtype=bool)  # not believed: two senders under one name
        self._told_stale = np.zeros(nodes, dtype=bool)
        self._moved = np.zeros(nodes, dtype=bool)  # changed its settings, fell silent or came back, since last asked
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
        self.obedient = np.zeros(shape, dtype=bool)  # by its own word it is as it was told, within the board's range
        self.class_of = np.zeros(shape, dtype=np.intp)
        self.wanted_clock = np.ones(shape)  # by the plan that stands
        self.wanted_cap = np.ones(shape)
        self._good_s = np.full(shape, -np.inf)  # when each GPU was last believed
        self._answer_frac = np.ones(shape)  # of its dynamic power, left by the clock in force

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
        self._words.append(None)
        self._seq.append(-1)
        self._lost.append({})
        self._sure_w.append((0.0, 0.0))
        self._placements.append(self._early.pop(spec.name, NodePlacement(spec.name, spec.placement)))
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
        self._sure_w[slot] = (_FLOOR_FRAC * max(max_w, default=0.0), _SPIKE_FRAC * min(max_w, default=0.0))
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

    def heard_w(self) -> float:
        """What the nodes that have spoken count for: the rest is not known, or not any more."""
        return float(self.counted_w[np.isfinite(self._heard_s)].sum())

    def unhear(self, *, silent: bool = True) -> None:
        """Expect every node to speak anew; what it reported stays its worst case until it does.

        Unless `silent`, one that is stale already is not waited for.
        """
        self._heard_s[slice(None) if silent else ~self.stale] = -np.inf

    def word(self, slot: int) -> Word | None:
        """What the node's last message said beside its readings; None: never heard."""
        return self._words[slot]

    def seq(self, slot: int) -> int:
        """The sequence number of the node's last message."""
        return self._seq[slot]

    def placement(self, slot: int) -> NodePlacement:
        """The node's placement."""
        return self._placements[slot]

    def pool_clocks_frac(self) -> dict[str, float]:
        """By the pool that GPUs are placed in, the mean clock in force on those that report one."""
        clocks: dict[str, list[float]] = {}
        for slot, (placement, word) in enumerate(zip(self._placements, self._words, strict=True)):
            for place, uuid in enumerate(word.uuids if word is not None else ()):
                if (pool := placement.of(uuid).pool) and np.isfinite(self.clock_frac[slot, place]):
                    clocks.setdefault(pool, []).append(float(self.clock_frac[slot, place]))
        return {pool: sum(each) / len(each) for pool, each in clocks.items()}

    def place(self, placement: NodePlacement) -> None:
        """Take a node's placement; that of a node not known yet is kept until it speaks."""
        slot = self.slots.get(placement.node)
        if slot is not None:
            self._placements[slot] = placement
            self._classify(slot)
        elif len(self._early) < _MAX_UNLISTED:
            self._early[placement.node] = placement

    def _classify(self, slot: int) -> None:
        placement, word = self._placements[slot], self._words[slot]
        self.class_of[slot] = class_index(placement.default)
        for place, uuid in enumerate(word.uuids if word is not None else ()):
            self.class_of[slot, place] = class_index(placement.of(uuid))
        self.reclassed = True
        self.revision += 1
        self._places.clear()

    def places(self, rack: int | None) -> Places:
        """Where the GPUs of a rack stand, or of the row."""
        if rack not in self._places:
            n, shape = len(self.specs), (len(self.racks), len(CLASSES))
            nodes = np.arange(n) if rack is None else np.flatnonzero(self.rack_of[:n] == rack)
            self._places[rack] = Places.lay_out(shape, self.present, self.class_of, self.rack_of, self.max_w, nodes)
        return self._places[rack]

    def answer_frac(self) -> Floats:
        """The share of its dynamic power that the clock in force leaves each GPU; 1 where none is reported."""
        if self._answered != self.revision:
            self._answered, roles = self.revision, self.class_of % len(Role)
            for index, role in enumerate(Role):
                own = roles == index
                clock = np.nan_to_num(self.clock_frac[own], nan=1.0)
                self._answer_frac[own] = np.interp(clock, CLOCK_FRAC, DYNAMIC_FRAC[role])
        return self._answer_frac

    def moved_frac(self) -> Floats:
        """Shares of the nodes whose settings or silence changed since this was last asked: by rack, then of the row."""
        n, racks = len(self.specs), len(self.racks)
        moved = np.bincount(self.rack_of[:n], self._moved[:n], minlength=racks)
        nodes = np.bincount(self.rack_of[:n], minlength=racks)
        self._moved[:] = False
        shares: Floats = np.append(moved, moved.sum()) / np.maximum(np.append(nodes, n), 1)
        return shares

    def doubt(self, slot: int, *, suspect: bool) -> None:
        """Believe a node no more, or again."""
        self.suspect[slot] = suspect
        self.revision += 1

    def hear(self, slot: int, telemetry: Telemetry, now_s: float) -> tuple[float, bool]:
        """Take one message: how much the node's counted power changed (W), and whether every sensor was believed."""
        reading, word = telemetry.reading, self._words[slot]
        if word is None or not word.stands(telemetry) or self._outgrown(slot, reading):
            self._take_word(slot, telemetry, word)
        self._seq[slot] = telemetry.seq
        self._heard_s[slot] = now_s
        gpus_w, believed = self._take_powers(slot, reading.gpus.power_w or (reading.host_power_w,), now_s)
        if reading.host_power_w is not None and reading.gpus.uuid:
            self._take_host(slot, reading.host_power_w, gpus_w)
        self.stale[slot] = False
        if self.suspect[slot]:
            return 0.0, believed
        before_w = float(self.counted_w[slot])
        self.counted_w[slot] = after_w = gpus_w + float(self.host_w[slot]) + float(self.lost_w[slot])
        return after_w - before_w, believed

    def _take_word(self, slot: int, telemetry: Telemetry, last: Word | None) -> None:
        """Take what a node says beside its readings, where it is news."""
        self._words[slot] = Word.of(telemetry)
        found = bool(self._lost[slot]) and last is not None and last.boot_id != telemetry.boot_id  # by an agent anew
        if last is None or found or not last.has_gpus(telemetry) or self._outgrown(slot, telemetry.reading):
            self._settle(slot, telemetry, last)
            last = None
        self._take_setpoints(slot, telemetry, last)

    def _settle(self, slot: int, telemetry: Telemetry, last: Word | None) -> None:
        """Take in a node that is new, or whose GPUs are others than before."""
        spec, gpus = self.specs[slot], telemetry.reading.gpus
        self._note_lost(slot, telemetry, last)
        if gpus.uuid:
            self._fit(slot, tuple(max_w or spec.gpu_max_w for max_w in gpus.max_w))
            if last is not None and not last.uuids:
                self.host_w[slot] = spec.host_w
        else:  # a meter of the whole server: one place stands for it
            most_w = max(float(self.max_w[slot, 0]), telemetry.reading.host_power_w or 0.0)
            self._fit(slot, (_server_w(spec) or most_w,))
            self.host_w[slot] = 0.0
        self._expected[slot] = True
        patience_s = min(_PERIODS_TO_STALE * telemetry.period_s, _LONGEST_STALE_S)
        self._stale_after_s[slot] = max(self._guard.stale_after_s, patience_s)
        self._classify(slot)

    def _outgrown(self, slot: int, reading: Reading) -> bool:
        """Whether the meter of a server whose nameplate nobody knows shows more than it ever did."""
        if reading.gpus.uuid:
            return False
        return (reading.host_power_w or 0.0) > self.max_w[slot, 0] and not _server_w(self.specs[slot])

    def _note_lost(self, slot: int, telemetry: Telemetry, last: Word | None) -> None:
        """Go on counting GPUs that one run of an agent names no more."""
        lost, uuids = self._lost[slot], telemetry.reading.gpus.uuid
        if last is None or last.boot_id != telemetry.boot_id or not uuids:
            lost.clear()
        else:
            lost.update(zip(last.uuids, self.gpu_w[slot].tolist(), strict=False))
            for uuid in uuids:
                lost.pop(uuid, None)
            for uuid in list(lost)[:-MAX_GPUS]:  # more than a node can have: it makes them up
                del lost[uuid]
        self.lost_w[slot] = sum(lost.values())

    def _take_host(self, slot: int, server_w: float, gpus_w: float) -> None:
        """Believe the meter of a whole server that shows more than its GPUs, and not many times what they can draw."""
        most_w = _SPIKE_FRAC * (_SERVER_PER_GPUS * float(self.max_w[slot].sum()) + self.specs[slot].host_w)
        if gpus_w < server_w <= most_w:
            self.host_w[slot] = max(0.0, server_w - gpus_w - float(self.lost_w[slot]))

    def _take_setpoints(self, slot: int, telemetry: Telemetry, last: Word | None) -> None:
        force, plan, gpus = telemetry.in_force, telemetry.plan, telemetry.reading.gpus
        n = len(gpus.uuid)
        if last is None or not last.reports_orders(telemetry):
            self.revision += 1
            self._moved[slot] = True
            led = force is not None and plan is not None and plan.lease is not LeaseState.NONE
            outcomes = force.outcome if force is not None else ()
            self.managed[slot] = led and any(outcome is not Outcome.UNMANAGED for outcome in outcomes)
            if force is not None:
                self.clock_frac[slot, :n] = force.clock_frac
                self.cap_frac[slot, :n] = force.cap_frac
                self.obedient[slot, :n] = [outcome in _OBEYED for outcome in outcomes]
        if last is None or last.enforced_w != gpus.enforced_w:
            limit_w = np.array(gpus.enforced_w or (None,) * n, dtype=float)  # None becomes NaN, which compares false
            max_w = self.max_w[slot, :n]
            self.limit_w[slot, :n] = np.where(limit_w >= _FLOOR_FRAC * max_w, limit_w, max_w)

    def _take_powers(self, slot: int, powers: tuple[float | None, ...], now_s: float) -> tuple[float, bool]:
        n, (floor_w, spike_w) = len(powers), self._sure_w[slot]
        if None not in powers:
            known: tuple[float, ...] = powers  # type: ignore[assignment]  # none is None
            if floor_w <= min(known) and max(known) <= spike_w:
                self.gpu_w[slot, :n] = known
                self._good_s[slot, :n] = now_s
                return sum(known), True
        read_w = np.array(powers, dtype=float)  # None becomes NaN, and NaN compares false
        good = (read_w >= _FLOOR_FRAC * self.max_w[slot, :n]) & (read_w <= _SPIKE_FRAC * self.max_w[slot, :n])
        forgotten = now_s - self._good_s[slot, :n] > self._stale_after_s[slot]
        worst_w = self._worst_gpu_w(np.array([slot]))[0, :n]
        self.gpu_w[slot, :n] = np.where(good, read_w, np.where(forgotten, worst_w, self.gpu_w[slot, :n]))
        self._good_s[slot, :n][good] = now_s
        return float(self.gpu_w[slot, :n].sum()), bool(good.all())

    def age(self, now_s: float) -> tuple[list[int], list[int]]:
        """Recount what is silent; the slots that grew stale since the last time, and those that came back."""
        n = len(self.specs)
        stale = self._expected[:n] & (now_s - self._heard_s[:n] > self._stale_after_s[:n])
        changed = stale != self._told_stale[:n]
        grew, back = np.flatnonzero(changed & stale), np.flatnonzero(changed & ~stale)
        self.revision += changed.any()
        self._moved[:n] |= changed
        self.stale[:n] = self._told_stale[:n] = stale
        doubted = np.flatnonzero(stale | self.suspect[:n])
        if doubted.size:
            self.gpu_w[doubted] = self._worst_gpu_w(doubted)
            self.counted_w[doubted] = self.gpu_w[doubted].sum(axis=1) + self.host_w[doubted] + self.lost_w[doubted]
        return grew.tolist(), back.tolist()

    def _worst_gpu_w(self, nodes: NDArray[np.intp]) -> Floats:
        """The most that GPUs of silent nodes may draw: under what they last reported, or were told since.

        That a lease must have ended bounds nothing: the agent that would take the fail-safe may be what is dead. What a
        GPU reports that does not do as it was told is no bound either.
        """
        reported_w = self._bound_w(nodes, np.nan_to_num(self.clock_frac[nodes], nan=1.0), self.cap_frac[nodes])
        told_w = self._bound_w(nodes, self.wanted_clock[nodes], self.wanted_cap[nodes])
        unled_w = self._bound_w(nodes, np.float64(1.0), np.float64(1.0))
        led = self.managed[nodes][:, None] & self.obedient[nodes]
        worst: Floats = np.where(led, np.maximum(reported_w, told_w), unled_w)
        return worst

    def _bound_w(
        self, nodes: NDArray[np.intp], clock_frac: Floats | np.float64, cap_frac: Floats | np.float64
    ) -> Floats:
        """The most that GPUs may draw under a lock and a limit, by the curve that falls least."""
        max_w = self.max_w[nodes]
        idle_w = self._guard.idle_frac * max_w
        locked_w = idle_w + (max_w - idle_w) * np.interp(clock_frac, CLOCK_FRAC, HIGHEST_FRAC)
        capped_w = np.nan_to_num(cap_frac, nan=1.0) * max_w
        bound: Floats = np.minimum(np.minimum(locked_w, capped_w), self.limit_w[nodes])
        return bound


def _server_w(spec: NodeSpec) -> float:
    """The most that a whole server may draw, as far as the inventory tells; 0 where it does not."""
    gpus_max_w = spec.gpus * spec.gpu_max_w
    return gpus_max_w + spec.host_w if spec.host_w else _SERVER_PER_GPUS * gpus_max_w


def class_index(placement: Placement) -> int:
    """The place of a placement's priority and role in CLASSES."""
    return _CLASS_INDEX[placement.priority, placement.role]
