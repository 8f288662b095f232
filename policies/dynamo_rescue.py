"""What an instance does for requests that would miss their objective: DynamoLLM's ladder, one rung after the other.

Reorder by deadline; run at the highest clock; move to another instance what would still be late here; drop what is
overdue wherever it goes, so that it does not make others late. A rung is climbed only when those below do not suffice,
and each says why.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from polcad.cluster.waiting import Queue, Rung, Step
from polcad.places import Indices


def rescue(queue: Queue, speedup: float, others: Sequence[Queue]) -> list[Step]:
    """What to do; nothing where nobody would be late.

    `speedup`: how many times faster prompts run at the highest clock allowed (1: they do already); `others`: instances
    that may take requests, at their own clocks.
    """
    arrival = np.arange(len(queue.deadline_s))
    late = _late(queue, arrival, 1.0)
    if not len(late):
        return []
    order = _by_deadline(queue, speedup)
    steps = [Step(Rung.REORDER, tuple(order.tolist()), f"{len(late)} of {len(arrival)} would be late in this order")]
    late = _late(queue, order, 1.0)
    if len(late) and speedup > 1.0:
        steps.append(Step(Rung.FASTEST, (), f"{len(late)} would be late at this clock"))
        late = _late(queue, order, speedup)
    if len(late):
        steps += _moved(queue, late, others)
        gone = {place for step in steps if step.rung is Rung.MOVE for place in step.requests}
        steps += _dropped(queue, [place for place in late if place not in gone], speedup)
    return steps


def _by_deadline(queue: Queue, speedup: float) -> Indices:
    """Who can still be in time first, by deadline; behind them those who cannot, however fast."""
    hopeless = queue.busy_s + queue.work_s / speedup > queue.deadline_s
    return np.lexsort((queue.deadline_s, hopeless)).astype(np.intp)


def _late(queue: Queue, order: Indices, speedup: float) -> Indices:
    """Who would be late, served in this order, so many times faster."""
    ends_s = queue.busy_s + np.cumsum(queue.work_s[order]) / speedup
    return order[ends_s > queue.deadline_s[order]]


def _moved(queue: Queue, late: Indices, others: Sequence[Queue]) -> list[Step]:
    """Late ones to the other instance that is free first, as far as they are in time there."""
    free_s = np.array([other.busy_s + float(other.work_s.sum()) for other in others])
    found: list[tuple[int, int]] = []
    for place in late.tolist() if len(others) else []:
        to = int(free_s.argmin())
        ends_s = float(free_s[to] + queue.work_s[place])
        if ends_s <= queue.deadline_s[place]:
            free_s[to] = ends_s
            found.append((place, to))
    if not found:
        return []
    places, to_all = zip(*found, strict=True)
    return [Step(Rung.MOVE, places, f"{len(found)} would be late here at any clock, and are in time there", to_all)]


def _dropped(queue: Queue, late: Sequence[int], speedup: float) -> list[Step]:
    """Those whom nothing saves."""
    overdue = tuple(place for place in late if queue.busy_s + queue.work_s[place] / speedup > queue.deadline_s[place])
    return [Step(Rung.DROP, overdue, f"{len(overdue)} are overdue, even if served next")] if overdue else []
