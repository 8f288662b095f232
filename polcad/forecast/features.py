"""What is known of each domain at a step, in numbers a pooled regression can use.

A rack and a row differ by their size; divided by the domain's own scale (the usual deviation from its five-minute
mean) they behave alike, so one regression serves all and learns from all. The features, all causal:

- five exponential means from seconds to an hour and a half, less the present level: where the level returns to;
- the deviation of the last minute and of the last five: how restless it is just now;
- the largest demand of the last half minute and two minutes, less the present: what it reached lately;
- the rise from now to half an hour on in the profile of past days: where the day goes.

Everything is held within a few scales. A slow mean never strays far from the faster ones, so a server added or a job
that shrinks is caught up with in minutes instead of hours, and one step changes the scale by little.
"""

from __future__ import annotations

import numpy as np

from polcad.places import Flags, Floats

MEANS_S = (10.0, 60.0, 300.0, 1800.0, 5400.0)
DEVIATIONS_S = (60.0, 300.0)
SCALE_S = 4 * 3600.0
MAXIMA_BEATS = (3, 12)
COUNT = len(MEANS_S) + len(DEVIATIONS_S) + len(MAXIMA_BEATS) + 1  # and the day's profile

STRAY = 4.0  # scales: how far a slow mean may be from the five-minute mean, and what a step says of the scale
FAR = 8.0  # scales: no feature says more
FLOOR_FRAC, FLOOR_W = 1e-3, 1e-3  # the least scale: of the level, and at all: constant power has no deviation

DAY_S, BINS, AHEAD_S = 86400.0, 96, 1800.0
FORGET_DAYS = 5.0
_MINUTE, _FIVE_MINUTES = MEANS_S.index(60.0), MEANS_S.index(300.0)


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

    `z` has a row a feature and a column a domain; `level_w` is the last known demand (0: none yet), `scale_w` what
    divides it.
    """

    def __init__(self, domains: int, step_s: float) -> None:
        steps = np.array([*MEANS_S, *DEVIATIONS_S, SCALE_S]) / step_s
        self._gain = np.minimum(1 / steps, 1.0)[:, None]
        self._state = np.zeros((len(steps), domains))  # means (W), then mean squares (W²): two deviations, the scale
        self._means, self._squares = self._state[: len(MEANS_S)], self._state[len(MEANS_S) :]
        self._is_mean = np.arange(len(steps))[:, None] < len(MEANS_S)
        self._news = np.zeros((3, domains))
        self._step_s = step_s
        self._age = np.zeros(domains)
        self._fresh = np.ones(domains, dtype=np.bool_)
        self._blocks = np.full((max(MAXIMA_BEATS), domains), -np.inf)
        self._block = np.full(domains, -np.inf)
        self._past_max = np.full((len(MAXIMA_BEATS), domains), -np.inf)
        self._beats = 0
        self._profile = Profile(domains)
        self._rise_w = np.zeros(domains)
        self.level_w = np.zeros(domains)
        self.scale_w = np.full(domains, FLOOR_W)
        self.z = np.zeros((COUNT, domains))

    def restart(self, domains: Flags) -> None:
        """Begin anew for some domains at their next known step, as after a long silence; the scale is kept."""
        self._fresh |= domains

    @property
    def settled(self) -> Flags:
        """The domains that were known long enough for their scale to mean something."""
        return self._age * self._step_s >= MEANS_S[_FIVE_MINUTES]

    def observe(self, demand_w: Floats, known: Flags, sure: Flags) -> None:
        """One step: an unknown demand changes nothing, an unsure one (an estimate) moves the means alone."""
        if sure.all():
            self.level_w = demand_w
            self._take(known, 1.0)
            np.maximum(self._block, demand_w, out=self._block)
        else:
            self.level_w = np.where(known, demand_w, self.level_w)
            self._take(known, np.where(self._is_mean, known, sure))
            np.fmax(self._block, demand_w, out=self._block, where=sure)
        self._shape()

    def beat(self, t: float) -> None:
        """A block of steps has ended: the running maxima move on by one, and the day's profile."""
        self._blocks[self._beats % len(self._blocks)] = self._block
        self._block.fill(-np.inf)
        self._beats += 1
        for row, beats in zip(self._past_max, MAXIMA_BEATS, strict=True):
            newest = np.arange(self._beats - beats, self._beats) % len(self._blocks)
            self._blocks[newest].max(axis=0, out=row)
        self._profile.observe(t, np.where(self._age > 0, self._means[1], np.nan))
        self._rise_w = self._profile.rise_w(t)

    def _take(self, known: Flags, weight: Floats | float) -> None:
        """Move the means and the mean squares; the first steps count fully, so that nothing starts from zero."""
        level_w, means = self.level_w, self._means
        if self._fresh.any():
            self._begin(level_w, known)
        self._age += known
        gain = np.maximum(self._gain, 1 / np.maximum(self._age, 1.0)) * weight
        means += gain[: len(means)] * (level_w - means)
        self._leash(means)
        off = level_w - means[_MINUTE : _FIVE_MINUTES + 1]
        self._news[:2] = off * off
        np.minimum(self._news[1], (STRAY * self.scale_w) ** 2, out=self._news[2])
        self._squares += gain[len(means) :] * (self._news - self._squares)
        np.sqrt(self._squares[-1], out=self.scale_w)
        np.maximum(self.scale_w, FLOOR_FRAC * np.abs(level_w) + FLOOR_W, out=self.scale_w)

    def _begin(self, level_w: Floats, known: Flags) -> None:
        begun = self._fresh & known
        self._means[:, begun] = level_w[begun]
        self._squares[:-1, begun] = self._squares[-1, begun]
        self._fresh &= ~known

    def _leash(self, means: Floats) -> None:
        stray_w = STRAY * self.scale_w
        slow, middle_w = means[_FIVE_MINUTES + 1 :], means[_FIVE_MINUTES]
        np.maximum(slow, middle_w - stray_w, out=slow)
        np.minimum(slow, middle_w + stray_w, out=slow)

    def _shape(self) -> None:
        """Lay the features out, in scales."""
        z, means, level_w = self.z, len(MEANS_S), self.level_w
        np.subtract(self._means, level_w, out=z[:means])
        np.sqrt(self._squares[:2], out=z[means : means + 2])
        np.maximum(self._past_max, np.maximum(self._block, level_w), out=z[means + 2 : -1])
        z[means + 2 : -1] -= level_w
        z[-1] = self._rise_w
        z /= self.scale_w
        np.maximum(z, -FAR, out=z)
        np.minimum(z, FAR, out=z)
