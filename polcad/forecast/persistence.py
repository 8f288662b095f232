"""What is, stays: the last value, and above it what it has risen by before.

`Persistence` adds the largest rise ever seen within the horizon, the margin by which POLCA sets its thresholds
(arXiv 2308.12908 §5). `PersistenceQuantile` adds the quantile of the rises of the last day. Each domain has its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from polcad.forecast.band import Band
from polcad.forecast.coming import ComingPeaks, Then, place_of
from polcad.places import Flags, Floats

_MEDIAN = 0.5


class Persistence:
    """A `Forecaster` that knows no probabilities: above the median the largest rise, up to it the last value alone."""

    def __init__(self, *, domains: int, step_s: float, horizons_s: Sequence[float], quantiles: Sequence[float]) -> None:
        self._horizons_s, self._quantiles = tuple(horizons_s), tuple(quantiles)
        self._peaks = ComingPeaks(domains, step_s, self._horizons_s)
        self._then = Then(domains, step_s, self._horizons_s)
        self._last_w = np.full(domains, np.nan)
        self._rise_w = np.full((len(self._horizons_s), domains), np.nan)

    def observe(self, t: float, demand_w: Floats, steady: Flags) -> None:
        """One step, as `Forecaster` tells."""
        self._last_w = demand_w.astype(float)
        peak_w = self._peaks.passed(t, demand_w, steady)
        start_w = self._then.swap(np.broadcast_to(self._last_w, peak_w.shape))
        self._rise_w = np.fmax(self._rise_w, np.maximum(peak_w - start_w, 0.0))

    def upper(self, horizon_s: float, q: float) -> Floats:
        """The bound, W, as `Forecaster` tells."""
        rise_w = self._rise_w[place_of(horizon_s, self._horizons_s, "horizon_s")]
        if self._quantiles[place_of(q, self._quantiles, "quantile")] <= _MEDIAN:
            rise_w = np.minimum(rise_w, 0.0)  # none, once any is known
        bound_w: Floats = self._last_w + rise_w
        return bound_w


class PersistenceQuantile:
    """A `Forecaster`: the last value and the quantile of what the peaks of the last day rose by."""

    def __init__(self, *, domains: int, step_s: float, horizons_s: Sequence[float], quantiles: Sequence[float]) -> None:
        self._band = Band(domains, step_s, horizons_s, quantiles)

    def observe(self, t: float, demand_w: Floats, steady: Flags) -> None:
        """One step, as `Forecaster` tells."""
        self._band.passed(t, demand_w, steady)
        self._band.expect(demand_w)

    def upper(self, horizon_s: float, q: float) -> Floats:
        """The bound, W, as `Forecaster` tells."""
        return self._band.upper(horizon_s, q)
