"""The default forecaster: a direct quantile regression of the coming peaks, calibrated online.

For every horizon and quantile the bound is ``level + slopes . features + offset``: features say how restless
the domain is and where its level returns to (`features`), slopes are learned in lessons now and then, from all domains
and from each that has enough to tell (`regression`), offsets follow each domain's own broken bounds (`calibration`), as
the peaks come to be known (`peaks`). A step applies it to all domains at once; learning happens once a block of about
ten seconds.

Before the first lesson the slopes are zero and the offset is the quantile of all excesses seen: persistence with its
own history. A failed lesson leaves everything as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import ceil, inf
from typing import Any

import numpy as np

from polcad.forecast import features as ft
from polcad.forecast.calibration import Calibration
from polcad.forecast.coming import GAP_STEPS, place_of, steps_of
from polcad.forecast.features import Features
from polcad.forecast.peaks import BLOCK_S, Peaks
from polcad.forecast.regression import Fit, Rows, fit, level, offsets
from polcad.places import Flags, Floats

RESTART_S = 300.0  # after so long a silence the past levels mean nothing
FIRST_BLOCKS = 30  # of excesses, before there is a bound; more for long horizons
GROWTH, LOOK_ROWS = 1.5, 6000  # of their number, between two looks at them, and how many are looked at
LEARN_BLOCKS, LEARN_WINDOWS = 180, 48  # the least past to learn slopes from, in time and in horizons
AGE_PART, SLOWEST_S = 0.25, 86400.0  # lessons come each time the past has grown by so much, but no later
MEMORY_S, WIDTH, MOST_ROWS = 7 * 86400.0, 48, 1 << 19
ASTRAY = 1.0  # scales (or offsets, if larger): no offset stays farther below a lesson's


class QuantileForecaster:
    """Bounds from pooled quantile regression and each domain's own calibration.

    Options: `refit_s` is the least time between two lessons, `rows` how many a lesson takes.
    """

    def __init__(
        self,
        *,
        domains: int,
        step_s: float,
        horizons_s: Sequence[float],
        quantiles: Sequence[float],
        refit_s: float = 1800.0,
        rows: int = 24_000,
    ) -> None:
        self._horizons_s, self._quantiles = tuple(sorted(set(horizons_s))), tuple(sorted(set(quantiles)))
        self._step_s, self._refit_s, self._rows_a_lesson = step_s, refit_s, rows
        self._features = Features(domains, step_s)
        self._peaks = Peaks(domains, step_s, [steps_of(each, step_s) for each in self._horizons_s])
        self._calibration = Calibration(self._quantiles, self._peaks.ago, domains)
        width = min(domains, WIDTH)
        slots = int(min(MEMORY_S / BLOCK_S, MOST_ROWS // width))
        self._rows = Rows(domains, ft.COUNT, len(self._horizons_s), slots=slots, width=width)
        self._shape = self._calibration.offset_w.shape
        self._slopes = np.zeros((*self._shape, ft.COUNT))
        origins = max(self._peaks.ago) + 1
        self._origin_w = np.full((origins, domains), np.nan)
        self._look_at = np.maximum(FIRST_BLOCKS, 3 * np.array(self._peaks.ago))
        self._learned = np.zeros(len(self._horizons_s), dtype=np.bool_)
        self._first_t, self._lesson_t = inf, -inf
        self._known_t = np.full(domains, -inf)
        self._upper_w = np.full(self._shape, np.nan)

    def observe(self, t: float, demand_w: Floats, steady: Flags) -> None:
        """One step, as `Forecaster` tells."""
        demand_w = np.array(demand_w, dtype=np.float64)
        known = ~np.isnan(demand_w)
        sure = known & steady
        silent_s = t - self._known_t
        late = silent_s > GAP_STEPS * self._step_s
        self._first_t = min(self._first_t, t)
        if late.any():
            self._features.restart(silent_s > RESTART_S)
        np.copyto(self._known_t, t, where=known)
        self._features.observe(demand_w, known, sure)
        ended = self._peaks.observe(np.where(sure & ~late, demand_w, np.nan))
        bound_w = self._bound()
        if ended:
            self._end_block(t, sure, bound_w)
        self._say(bound_w, late & ~known)

    def upper(self, horizon_s: float, q: float) -> Floats:
        """The bound, W, as `Forecaster` tells."""
        at = place_of(horizon_s, self._horizons_s, "horizon_s")
        upper_w: Floats = self._upper_w[at, place_of(q, self._quantiles, "quantile")]
        return upper_w

    def lesson(self, t: float) -> Callable[[], Fit] | None:
        """The next fit, once the past has grown enough since the last."""
        beat = self._peaks.beat
        if t < self._lesson_t or beat < LEARN_BLOCKS or not self._rows.plenty(beat):
            return None
        self._lesson_t = t + min(max(AGE_PART * (t - self._first_t), self._refit_s), SLOWEST_S)
        windows = {at: beat / ago for at, ago in enumerate(self._peaks.ago) if beat >= LEARN_WINDOWS * ago}
        sample = self._rows.sample(beat, self._rows_a_lesson)
        return partial(fit, sample, windows, self._quantiles, self._features.scale_w.copy())

    def learn(self, result: Any) -> None:
        """Take new slopes, horizon by horizon where they are whole."""
        if not isinstance(result, Fit) or result.slopes.shape != self._slopes.shape:
            return
        if result.offset_w.shape != self._shape:
            return
        for at in range(len(self._horizons_s)):
            if np.isfinite(result.slopes[at]).all() and np.isfinite(result.offset_w[at]).all():
                self._take(at, result.slopes[at], result.offset_w[at])

    def _take(self, at: int, slopes: Floats, offset_w: Floats) -> None:
        """The first slopes come with their offsets; later ones leave the bounds where they are, unless they are astray.

        What broke bounds once may be long past: no offset stays above what the lesson found in all rows.
        """
        if self._learned[at]:
            kept_w = self._calibration.offset_w[at] + self._moved_w(self._slopes[at] - slopes)
            astray_w = ASTRAY * np.maximum(self._features.scale_w, np.abs(offset_w))
            offset_w = np.clip(kept_w, offset_w - astray_w, offset_w)
        self._calibration.offset_w[at] = offset_w
        self._slopes[at] = slopes
        self._learned[at] = True

    def _bound(self) -> Floats:
        """The bounds, as excess over the level, W."""
        bound_w: Floats = self._moved_w(self._slopes) + self._calibration.offset_w
        return bound_w

    def _moved_w(self, slopes: Floats) -> Floats:
        moved_w: Floats = np.einsum("...df,fd->...d", slopes, self._features.values_w)
        return moved_w

    def _say(self, bound_w: Floats, unknown: Flags) -> None:
        """A longer horizon and a higher quantile are never below a shorter and a lower."""
        upper_w = bound_w + self._features.level_w
        np.maximum.accumulate(upper_w, axis=0, out=upper_w)
        np.maximum.accumulate(upper_w, axis=1, out=upper_w)
        if unknown.any():
            upper_w[..., unknown] = np.nan
        self._upper_w = upper_w

    def _end_block(self, t: float, sure: Flags, bound_w: Floats) -> None:
        beat, slots, features = self._peaks.beat, len(self._origin_w), self._features
        for horizon, (peak_w, ago) in enumerate(zip(self._peaks.ended_w(), self._peaks.ago, strict=True)):
            if beat >= ago:
                excess_w = peak_w - self._origin_w[(beat - ago) % slots]
                self._calibration.learn(horizon, beat - ago, excess_w, features.scale_w)
                self._rows.complete(beat - ago, horizon, excess_w)
                self._anchor(horizon)
        self._origin_w[beat % slots] = np.where(sure & features.settled, features.level_w, np.nan)
        self._calibration.show(beat, bound_w)
        self._rows.put(beat, features.values_w)
        features.end_block(t)

    def _anchor(self, horizon: int) -> None:
        """Before there are slopes: the quantile of all excesses seen, looked at again as their number grows."""
        beat, scale_w = self._peaks.beat, self._features.scale_w
        if self._learned[horizon] or beat < self._look_at[horizon]:
            return
        self._look_at[horizon] = ceil(GROWTH * beat)
        sample = self._rows.sample(beat, LOOK_ROWS)
        excess_w, domain = sample.excess_w[:, horizon], sample.domain
        known = np.isfinite(excess_w)
        if known.any():
            left, windows = excess_w[known] / scale_w[domain[known]], beat / self._peaks.ago[horizon]
            shares = [level(q, windows) for q in self._quantiles]
            self._calibration.offset_w[horizon] = scale_w * offsets(left, domain[known], shares, len(scale_w))
