"""The peaks that forecasts spoke of, once they are known, and what had been said of them.

A forecast made at step k for h steps can be judged at step k + h, when the largest of steps k + 1 to k + h is known.
The largest of the last h values costs two comparisons a step (van Herk 1992): time is cut in blocks of h; a window is
the end of one block, whose maxima from each place to its end are kept, and the start of the next, whose maximum runs
along.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import numpy as np

from polcad.places import Flags, Floats

GAP_STEPS = 2.5  # a step that comes later than this after the last follows a gap: one step may be lost


def follows(t: float, last_t: float, step_s: float) -> bool:
    """Whether the step at `t` comes soon enough after the last, and after it; else time was lost between them."""
    return 0.0 < t - last_t <= GAP_STEPS * step_s


def steps_of(horizon_s: float, step_s: float) -> int:
    """The steps that cover `horizon_s`; at least one."""
    return max(1, ceil(horizon_s / step_s - 1e-9))


def place_of(asked: float, announced: Sequence[float], what: str) -> int:
    """Where `asked` stands among what was announced; ValueError where it does not."""
    if asked not in announced:
        raise ValueError(f"{what} {asked:g} was not announced: {', '.join(f'{each:g}' for each in announced)}")
    return announced.index(asked)


class ComingPeaks:
    """The largest demand of the last h steps, for each of several h: one row a horizon, one column a domain."""

    def __init__(self, domains: int, step_s: float, horizons_s: Sequence[float]) -> None:
        self._windows = [_Window(steps_of(horizon_s, step_s), domains) for horizon_s in horizons_s]
        self._steps = np.array([[steps_of(horizon_s, step_s)] for horizon_s in horizons_s])
        self._step_s = step_s
        self._clean = np.zeros(domains, dtype=np.intp)  # steps that can be learned from, without a break up to now
        self._t = float("-inf")

    def passed(self, t: float, demand_w: Floats, steady: Flags) -> Floats:
        """Take one step; the peaks (W) of the times that end with it.

        NaN where the time, or the step that it was foretold at, includes what cannot be learned from.
        """
        if not follows(t, self._t, self._step_s):
            self._clean[:] = 0
        self._t = t
        self._clean = np.where(steady & np.isfinite(demand_w), self._clean + 1, 0)
        largest_w = np.stack([window.largest(demand_w) for window in self._windows])
        return np.where(self._clean > self._steps, largest_w, np.nan)


class Then:
    """What was said one horizon ago: one row a horizon, one column a domain."""

    def __init__(self, domains: int, step_s: float, horizons_s: Sequence[float]) -> None:
        self._said = [np.full((steps_of(horizon_s, step_s), domains), np.nan) for horizon_s in horizons_s]
        self._k = 0

    def swap(self, now: Floats) -> Floats:
        """Take what is said now; what was said when the times began that end now, NaN before there was any."""
        then = np.empty((len(self._said), self._said[0].shape[1]))
        for row, said in enumerate(self._said):
            place = self._k % len(said)
            then[row], said[place] = said[place], now[row]
        self._k += 1
        return then


class _Window:
    """The largest of the last `steps` values of each domain; a NaN stays for as long as it is among them."""

    def __init__(self, steps: int, domains: int) -> None:
        self._kept = np.full((steps, domains), np.nan)  # this block's values; beyond them the last one's maxima
        self._largest = np.full(domains, np.nan)  # of this block
        self._place = 0

    def largest(self, values: Floats) -> Floats:
        """Take one step; the largest up to it."""
        kept, place = self._kept, self._place
        kept[place] = values
        self._largest = np.maximum(self._largest, values) if place else values.copy()
        self._place = (place + 1) % len(kept)
        if self._place == 0:
            np.maximum.accumulate(kept[::-1], axis=0, out=kept[::-1])
            return self._largest
        return np.asarray(np.maximum(self._largest, kept[self._place]))
