"""An expected peak and the quantiles of what came beside it in the last day: most forecasters' way to a bound."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from polcad.forecast.coming import ComingPeaks, Then, place_of
from polcad.forecast.rolling import DAY_S, RollingQuantiles
from polcad.places import Flags, Floats

_LEAST_STEPS = 300  # to remember: of a day of quarters of an hour, no 99 % quantile can be told


class Band:
    """One row a horizon, one column a domain; made from the arguments that every forecaster is made with.

    A step is `passed`, then `expect`.
    """

    def __init__(self, domains: int, step_s: float, horizons_s: Sequence[float], quantiles: Sequence[float]) -> None:
        self._horizons_s, self._quantiles = tuple(horizons_s), tuple(quantiles)
        self._peaks = ComingPeaks(domains, step_s, self._horizons_s)
        self._then = Then(domains, step_s, self._horizons_s)
        memory_s = max(DAY_S, _LEAST_STEPS * step_s)
        self._surprises = RollingQuantiles((len(self._horizons_s), domains), self._quantiles, step_s, memory_s)
        self._peak_w = self._expected_w = np.full((len(self._horizons_s), domains), np.nan)

    def passed(self, t: float, demand_w: Floats, steady: Flags) -> Floats:
        """Take one step of demand; the peaks (W) of the horizons that end with it, as `ComingPeaks.passed` tells."""
        self._peak_w = self._peaks.passed(t, demand_w, steady)
        return self._peak_w

    def expect(self, expected_w: Floats) -> None:
        """Take the peaks (W) expected of the horizons that begin now; one row serves all horizons."""
        self._expected_w = np.broadcast_to(expected_w, self._peak_w.shape).copy()  # the caller may reuse its array
        self._surprises.see(self._peak_w - self._then.swap(self._expected_w))

    def upper(self, horizon_s: float, q: float) -> Floats:
        """The bound, W, as `Forecaster.upper` tells."""
        horizon = place_of(horizon_s, self._horizons_s, "horizon_s")
        quantile = place_of(q, self._quantiles, "quantile")
        bound_w: Floats = self._expected_w[horizon] + self._surprises.values_w[quantile, horizon]
        return bound_w
