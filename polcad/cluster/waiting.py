"""Requests that wait at instances, and what may be done for those that would miss their objective."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from polcad.places import Floats


class Rung(StrEnum):
    """What is done, from the mildest to the hardest."""

    REORDER = "reorder"
    FASTEST = "fastest"
    MOVE = "move"
    DROP = "drop"


@dataclass(frozen=True, slots=True)
class Queue:
    """The requests that wait at one instance, in the order in which they would be served."""

    deadline_s: Floats  # of each first token, from now on; negative: overdue
    work_s: Floats  # what each prompt takes at the clock in force
    busy_s: float = 0.0  # until the instance is free


@dataclass(frozen=True, slots=True)
class Step:
    """One rung: whom it is about (places in the queue), where they go, and why."""

    rung: Rung
    requests: tuple[int, ...]
    why: str
    to: tuple[int, ...] = field(default=())  # of a move: the other instance of each, a place in `others`


Rescue = Callable[[Queue, float, Sequence[Queue]], Sequence[Step]]  # of one queue: `speedup`, and who else may serve
