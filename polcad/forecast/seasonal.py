"""The same time in past days and weeks: where the load goes from here, by where it went then.

Each quarter of an hour's mean is kept, in a profile of the day (of about the last seven) and one of the week (of about
the last four, once there is one). The expected peak is the profile's highest within the horizon, and the part of
today's deviation from the profile that lasted over this horizon of late (least squares); where no past day is known,
the last value. Days are those of UTC: summer time shifts the load against its profile until a week has passed.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp

import numpy as np

from polcad.forecast.band import Band
from polcad.forecast.coming import Then, steps_of
from polcad.forecast.rolling import DAY_S
from polcad.places import Flags, Floats

_SLOT_S = 900.0
_SLOTS = int(DAY_S / _SLOT_S)  # a day
_DAYS, _WEEKS = 7, 4  # that a profile remembers, about


class Seasonal:
    """A `Forecaster` by profiles of the day and the week."""

    def __init__(self, *, domains: int, step_s: float, horizons_s: Sequence[float], quantiles: Sequence[float]) -> None:
        self._band = Band(domains, step_s, horizons_s, quantiles)
        self._lasting = _Lasting(domains, step_s, horizons_s)
        self._profile = _Profile(domains)
        self._ahead_s = [steps_of(horizon_s, step_s) * step_s for horizon_s in horizons_s]

    def observe(self, t: float, demand_w: Floats, steady: Flags) -> None:
        """One step, as `Forecaster` tells."""
        peak_w = self._band.passed(t, demand_w, steady)
        self._profile.take(t, np.where(steady, demand_w, np.nan))
        course_w = np.stack([self._profile.highest(t, ahead_s) for ahead_s in self._ahead_s])
        deviation_w = demand_w - self._profile.at(t)
        expected_w = course_w + self._lasting.share(peak_w, course_w, deviation_w) * deviation_w
        self._band.expect(np.where(np.isfinite(expected_w), expected_w, demand_w))

    def upper(self, horizon_s: float, q: float) -> Floats:
        """The bound, W, as `Forecaster` tells."""
        return self._band.upper(horizon_s, q)


class _Profile:
    """The load (W) by time of the week, straight between the middles of quarters of an hour."""

    def __init__(self, domains: int) -> None:
        self._day = _Cycle(_SLOTS, _DAYS, domains)
        self._week = _Cycle(7 * _SLOTS, _WEEKS, domains)
        self._level_w = self._week.mean_w.copy()
        self._slot = -1
        self._sum_w, self._count = np.zeros(domains), np.zeros(domains)

    def take(self, t: float, load_w: Floats) -> None:
        """Take one step; NaN: not known."""
        slot = int(t // _SLOT_S)
        if slot != self._slot:
            self._close()
            self._slot = slot
        known = np.isfinite(load_w)
        self._sum_w += np.where(known, load_w, 0.0)
        self._count += known

    def at(self, t: float) -> Floats:
        """The load at `t`; NaN where no such time is known."""
        left, share = divmod(t / _SLOT_S - 0.5, 1.0)
        level_w: Floats = (1.0 - share) * self._middle(int(left)) + share * self._middle(int(left) + 1)
        return level_w

    def highest(self, t: float, ahead_s: float) -> Floats:
        """The highest from `t` on for `ahead_s`: it is at an end, or in the middle of a quarter between."""
        highest_w: Floats = np.maximum(self.at(t), self.at(t + ahead_s))
        for slot in range(int(t / _SLOT_S + 0.5), int((t + ahead_s) / _SLOT_S - 0.5) + 1):
            highest_w = np.maximum(highest_w, self._middle(slot))
        return highest_w

    def _middle(self, slot: int) -> Floats:
        middle_w: Floats = self._level_w[slot % len(self._level_w)]
        return middle_w

    def _close(self) -> None:
        """Learn the quarter that ended."""
        mean_w = np.where(self._count > 0, self._sum_w / np.maximum(self._count, 1), np.nan)
        for cycle in (self._day, self._week):
            cycle.learn(self._slot, mean_w)
        week_w = self._week.mean_w
        self._level_w = np.where(np.isfinite(week_w), week_w, np.tile(self._day.mean_w, (7, 1)))
        self._sum_w[:] = self._count[:] = 0.0


class _Cycle:
    """Means by place in a cycle, each of about the last `memory` turns."""

    def __init__(self, slots: int, memory: int, domains: int) -> None:
        self.mean_w = np.full((slots, domains), np.nan)
        self._turns = np.zeros((slots, domains))
        self._memory = memory

    def learn(self, slot: int, mean_w: Floats) -> None:
        place, known = slot % len(self.mean_w), np.isfinite(mean_w)
        self._turns[place] = np.minimum(self._turns[place] + known, self._memory)
        before_w = np.where(self._turns[place] > 1, self.mean_w[place], mean_w)
        after_w = before_w + (mean_w - before_w) / np.maximum(self._turns[place], 1)
        self.mean_w[place] = np.where(known, after_w, self.mean_w[place])


class _Lasting:
    """What share of a deviation from the profile is left in the peak of a horizon: least squares over the last day."""

    def __init__(self, domains: int, step_s: float, horizons_s: Sequence[float]) -> None:
        self._course, self._deviation = (Then(domains, step_s, horizons_s) for _ in range(2))
        self._fade = exp(-step_s / DAY_S)
        self._both, self._own = (np.zeros((len(horizons_s), domains)) for _ in range(2))

    def share(self, peak_w: Floats, course_w: Floats, deviation_w: Floats) -> Floats:
        """Take the peaks known now, and what is expected of those ahead; between 0 and 1, 1 while nothing is known."""
        then_w = self._deviation.swap(np.broadcast_to(deviation_w, peak_w.shape))
        left_w = peak_w - self._course.swap(course_w)
        known = np.isfinite(left_w) & np.isfinite(then_w)
        self._both = self._fade * self._both + np.where(known, left_w * then_w, 0.0)
        self._own = self._fade * self._own + np.where(known, then_w * then_w, 0.0)
        some = self._own > 0.0
        return np.where(some, np.clip(self._both / np.where(some, self._own, 1.0), 0.0, 1.0), 1.0)
