"""A rescue at the instances of a simulated cluster: each tick, where more waits than is read together.

A request's deadline is that of the kind it is taken for. Prompts that wait are read together, so each counts with its
share of a full one where that is less than its own time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from polcad.cluster.nouns import Shape
from polcad.cluster.profiles import Profile
from polcad.cluster.waiting import Queue, Rescue, Rung, Step
from polcad.sim.deployment import Deployment
from polcad.sim.engines import Engines
from polcad.sim.profiles import Floats
from polcad.sim.serving import PROMPT_BATCH

_OTHERS = 4  # instances with least work, that requests may move to


class Rescuing:
    """Asks `rescue` what to do for those that wait too long, and does it."""

    def __init__(
        self, rescue: Rescue, engines: Engines, deployment: Deployment, profile: Profile, *, clocks: bool
    ) -> None:
        """`clocks`: whether instances may run faster than is planned; no row's power bounds them then."""
        self.done: Counter[Rung] = Counter()  # queues reordered, instances made faster, requests moved and dropped
        self._rescue, self._engines, self._deployment, self._profile = rescue, engines, deployment, profile
        self._clocks = clocks
        self._rates: dict[Shape, tuple[Floats, Floats]] = {}

    def tick(self, t: float) -> None:
        """Look at all instances."""
        crowded = self._engines.crowded(PROMPT_BATCH)
        shapes = self._deployment.shapes if crowded else {}
        for slot in crowded:
            self._help(t, slot, shapes)

    def _help(self, t: float, slot: int, shapes: Mapping[int, Shape]) -> None:
        idlest = [other for other in self._engines.idlest(_OTHERS + 1) if other != slot]
        waiting, queue = self._engines.waiting(slot), self._queue(t, slot, shapes[slot])
        most_frac = self._deployment.limit_frac(slot) if self._clocks else shapes[slot].clock_frac
        fastest = Shape(shapes[slot].tensor_parallel, most_frac)
        speedup = float(self._prompt_s(shapes[slot], np.array([PROMPT_BATCH]))[0])
        speedup /= float(self._prompt_s(fastest, np.array([PROMPT_BATCH]))[0])
        steps = self._rescue(queue, speedup, [self._queue(t, other, shapes[other]) for other in idlest])
        for step in steps:
            self.done[step.rung] += len(step.requests) if step.rung in {Rung.MOVE, Rung.DROP} else 1
        self._requeue(t, slot, waiting, idlest, {step.rung: step for step in steps})
        if any(step.rung is Rung.FASTEST for step in steps):
            self._deployment.hurry(t, slot)

    def _requeue(
        self, t: float, slot: int, waiting: Sequence[int], idlest: Sequence[int], steps: Mapping[Rung, Step]
    ) -> None:
        """The order, the moves and the drops."""
        if Rung.REORDER not in steps:
            return
        moves, drops = (steps.get(rung, _NONE) for rung in (Rung.MOVE, Rung.DROP))
        gone = {*moves.requests, *drops.requests}
        self._engines.requeue(slot, [waiting[place] for place in steps[Rung.REORDER].requests if place not in gone])
        for place, to in zip(moves.requests, moves.to, strict=True):
            self._engines.enqueue(idlest[to], waiting[place], t)
        for place in drops.requests:
            self._engines.drop(waiting[place])

    def _queue(self, t: float, slot: int, shape: Shape) -> Queue:
        deadline_s, tokens, busy_s = self._engines.queue(slot, t)
        full_s = self._prompt_s(shape, np.array([PROMPT_BATCH]))[0]
        return Queue(deadline_s, np.minimum(self._prompt_s(shape, tokens), tokens / PROMPT_BATCH * full_s), busy_s)

    def _prompt_s(self, shape: Shape, tokens: Floats) -> Floats:
        """What prompts take, s."""
        if shape not in self._rates:
            points = np.array(self._profile.degree(shape.tensor_parallel).prompt_tokens)
            self._rates[shape] = points, np.array([self._profile.prompt_s(shape, point) for point in points.tolist()])
        times_s: Floats = np.interp(tokens, *self._rates[shape])
        return np.where(tokens > 0.0, times_s, 0.0)


_NONE = Step(Rung.REORDER, (), "")
