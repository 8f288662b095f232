"""What is known of each domain at a step, in watts that a pooled regression can use.

All of it is causal, and grows with the domain as its peaks do, so that one regression serves racks and rows:

- five exponential means from seconds to an hour and a half, less the present level: where the level returns to;
- the deviation of the last minute and of the last five: how restless it is just now;
- the largest demand of the last half minute and two minutes, less the present: what it reached lately;
- the rise from now to half an hour on in the profile of past days: where the day goes;
- the scale, the usual deviation from the five-minute mean: how restless it is at all.

Everything is held within a few scales. A slow mean never strays far from the five-minute mean, so a server added or a
job that shrinks is caught up with in minutes instead of hours, and one step changes the scale by little.
"""

from __future__ import annotations

import numpy as np

from polcad.places import Flags, Floats

MEANS_S = (10.0, 60.0, 300.0, 1800.0, 5400.0)
DEVIATIONS_S = (60.0, 300.0)
MAXIMA_BLOCKS = (3, 12)
SCALE_S = 4 * 3600.0
_MINUTE, _FIVE_MINUTES = MEANS_S.index(60.0), MEANS_S.index(300.0)
_MAXIMA = len(MEANS_S) + len(DEVIATIONS_S)
_RISE = _MAXIMA + len(MAXIMA_BLOCKS)
COUNT = _RISE + 2

STRAY = 4.0  # scales: how far a slow mean may be from the five-minute mean, and what a step says of the scale
FAR = 8.0  # scales: no feature says more
FLOOR_FRAC, FLOOR_W = 1e-2, 1e-3  # the least scale: of the level, and at all; constant power has no deviation

DAY_S, BINS, AHEAD_S = 86400.0, 96, 1800.0
FORGET_DAYS = 5.0


class Profile:
    """The usual course of a day: the mean level of each quarter of an hour, NaN where it was never seen."""

    def __init__(self, domains: int) -> None:
        self._mean_w = np.full((BINS, domains), np.nan)
        self._days = np.zeros((BINS, domains))
        self._sum_w, self._seen = np.zeros(domains), np.zeros(domains)
        self._bin = -1

    def observe(self, t: float, level_w: Floats) -> None:
        """Take the level (W, NaN where unknown) into the present quarter."""
        present = int(t % DAY_S / DAY_S * BINS)
        if present != self._bin:
            self._close()
            self._bin = present
        known = ~np.isnan(level_w)
        self._sum_w += np.where(known, level_w, 0.0)
        self._seen += known

    def rise_w(self, t: float) -> Floats:
        """How much higher past days were `AHEAD_S` after this time than at it; 0 where that is not known."""
        rise_w: Floats = np.nan_to_num(self._at(t + AHEAD_S) - self._at(t))
        return rise_w

    def _at(self, t: float) -> Floats:
        place = t % DAY_S / DAY_S * BINS - 0.5
        left = int(np.floor(place))
        part = place - left
        at_w: Floats = (1 - part) * self._mean_w[left % BINS] + part * self._mean_w[(left + 1) % BINS]
        return at_w

    def _close(self) -> None:
        seen = self._seen > 0
        mean_w = self._sum_w[seen] / self._seen[seen]
        days = self._days[self._bin, seen]
        old_w = np.where(days > 0, self._mean_w[self._bin, seen], mean_w)
        self._mean_w[self._bin, seen] = old_w + (mean_w - old_w) / np.minimum(days + 1, FORGET_DAYS)
        self._days[self._bin, seen] = days + 1
        self._sum_w[:], self._seen[:] = 0.0, 0.0


class Features:
    """The features of several domains, renewed at each step.

    `values_w` has a row a feature and a column a domain; `level_w` is the last known demand (0: none yet), `scale_w`
    the domain's usual deviation.
    """

    def __init__(self, domains: int, step_s: float) -> None:
        means, deviations = len(MEANS_S), len(DEVIATIONS_S)
        self._step_s = step_s
        self._gain = np.minimum(step_s / np.array([*MEANS_S, *DEVIATIONS_S, SCALE_S]), 1.0)[:, None]
        self._is_mean = np.arange(len(self._gain))[:, None] < means
        self._means = np.zeros((means, domains))
        self._squares = np.zeros((deviations, domains))  # W²
        self._age = np.zeros(domains)
        self._fresh = np.ones(domains, dtype=np.bool_)
        self._blocks_w = np.full((max(MAXIMA_BLOCKS), domains), -np.inf)
        self._block_w = np.full(domains, -np.inf)
        self._past_max_w = np.full((len(MAXIMA_BLOCKS), domains), -np.inf)
        self._blocks = 0
        self._profile = Profile(domains)
        self._rise_w = np.zeros(domains)
        self._usual_w = np.zeros(domains)
        self.level_w = np.zeros(domains)
        self.scale_w = np.full(domains, FLOOR_W)
        self.values_w = np.zeros((COUNT, domains))

    @property
    def settled(self) -> Flags:
        """The domains that were known long enough for their scale to mean something."""
        return np.asarray(self._age * self._step_s >= MEANS_S[_FIVE_MINUTES])

    def restart(self, domains: Flags) -> None:
        """Begin anew for some domains at their next known step, as after a long silence; the scale is kept."""
        self._fresh |= domains

    def observe(self, demand_w: Floats, known: Flags, sure: Flags) -> None:
        """One step: an unknown demand changes nothing, an unsure one (an estimate) moves the means alone."""
        if sure.all():
            self.level_w = demand_w
            self._take(known, 1.0)
            np.maximum(self._block_w, demand_w, out=self._block_w)
        else:
            self.level_w = np.where(known, demand_w, self.level_w)
            self._take(known, np.where(self._is_mean, known, sure))
            np.fmax(self._block_w, demand_w, out=self._block_w, where=sure)
        self._shape()

    def end_block(self, t: float) -> None:
        """A block of steps has ended: the running maxima move on by one, and the day's profile."""
        self._blocks_w[self._blocks % len(self._blocks_w)] = self._block_w
        self._block_w.fill(-np.inf)
        self._blocks += 1
        for row, blocks in zip(self._past_max_w, MAXIMA_BLOCKS, strict=True):
            newest = np.arange(self._blocks - blocks, self._blocks) % len(self._blocks_w)
            self._blocks_w[newest].max(axis=0, out=row)
        self._profile.observe(t, np.where(self._age > 0, self._means[_MINUTE], np.nan))
        self._rise_w = self._profile.rise_w(t)

    def _take(self, known: Flags, weight: Floats | float) -> None:
        """Move the means and deviations; the first steps count fully, so that nothing starts from zero."""
        level_w, means, count = self.level_w, self._means, len(MEANS_S)
        if self._fresh.any():
            self._begin(known)
        self._age += known
        gain = np.maximum(self._gain, 1 / np.maximum(self._age, 1.0)) * weight
        means += gain[:count] * (level_w - means)
        stray_w = STRAY * self.scale_w
        self._leash(stray_w)
        off_w = level_w - means[_MINUTE : _FIVE_MINUTES + 1]
        self._squares += gain[count:-1] * (off_w * off_w - self._squares)
        self._usual_w += gain[-1] * (np.minimum(np.abs(off_w[-1]), stray_w) - self._usual_w)
        np.maximum(self._usual_w, FLOOR_FRAC * np.abs(level_w) + FLOOR_W, out=self.scale_w)

    def _begin(self, known: Flags) -> None:
        begun = self._fresh & known
        self._means[:, begun] = self.level_w[begun]
        self._squares[:, begun] = self._usual_w[begun] ** 2
        self._fresh &= ~known

    def _leash(self, stray_w: Floats) -> None:
        slow, middle_w = self._means[_FIVE_MINUTES + 1 :], self._means[_FIVE_MINUTES]
        np.maximum(slow, middle_w - stray_w, out=slow)
        np.minimum(slow, middle_w + stray_w, out=slow)

    def _shape(self) -> None:
        """Lay the features out."""
        values_w, means, level_w = self.values_w, len(MEANS_S), self.level_w
        np.subtract(self._means, level_w, out=values_w[:means])
        np.sqrt(self._squares, out=values_w[means:_MAXIMA])
        np.maximum(self._past_max_w, np.maximum(self._block_w, level_w), out=values_w[_MAXIMA:_RISE])
        values_w[_MAXIMA:_RISE] -= level_w
        values_w[_RISE] = self._rise_w
        far_w = FAR * self.scale_w
        np.maximum(values_w, -far_w, out=values_w)
        np.minimum(values_w, far_w, out=values_w)
        values_w[-1] = self.scale_w
