"""What a plan asks of every GPU, laid out beside what the GPUs report."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from polcad.fleet import CLASSES, Fleet
from polcad.model import Rule
from polcad.places import Flags, Floats


def order(fleet: Fleet, rules: Iterable[Rule]) -> None:
    """Fill `wanted_clock` and `wanted_cap`: the strictest of the rules that speak of a GPU."""
    n, shape = len(fleet.specs), (len(fleet.racks), len(CLASSES))
    clock, cap = np.ones(shape), np.ones(shape)
    racks = {name: index for index, name in enumerate(fleet.racks)}
    narrow = []
    for rule in rules:
        kind, _, name = rule.scope.partition("/")
        if kind in {"node", "gpu"}:
            narrow.append(rule)
        elif kind == "row" or name in racks:
            rack = slice(None) if kind == "row" else racks[name]
            _tighten(clock, cap, (rack, _classes_of(rule)), rule)
    at = fleet.rack_of[:n, None] * len(CLASSES) + fleet.class_of[:n]  # in the tables, laid out flat
    fleet.wanted_clock[:n], fleet.wanted_cap[:n] = clock.take(at), cap.take(at)
    for rule in narrow:
        for slot, places in _places(fleet, rule.scope):
            own = places & np.isin(fleet.class_of[slot], _classes_of(rule))
            _tighten(fleet.wanted_clock[slot], fleet.wanted_cap[slot], own, rule)
    fleet.reclassed = False
    fleet.revision += 1


def _tighten(clock: Floats, cap: Floats, at: Any, rule: Rule) -> None:
    clock[at] = np.minimum(clock[at], rule.setpoint.clock_frac)
    cap[at] = np.minimum(cap[at], rule.setpoint.cap_frac)


def _classes_of(rule: Rule) -> list[int]:
    return [
        index
        for index, (priority, role) in enumerate(CLASSES)
        if rule.priority in {None, priority} and rule.role in {None, role}
    ]


def _places(fleet: Fleet, scope: str) -> Iterator[tuple[int, Flags]]:
    """The slots and places of a single node or GPU."""
    kind, _, name = scope.partition("/")
    if kind == "node":
        if name in fleet.slots:
            yield fleet.slots[name], fleet.present[fleet.slots[name]]
        return
    for slot in range(len(fleet.specs)):
        word = fleet.word(slot)
        if word is not None and name in word.uuids:
            places = np.zeros(fleet.present.shape[1], dtype=bool)
            places[[place for place, uuid in enumerate(word.uuids) if uuid == name]] = True
            yield slot, places
