"""How much of each kind is coming: the peak of the next epoch, by the same time in past days and what holds of today.

The work is a `Forecaster`'s (by default `polcad.forecast.seasonal`): a domain a kind, and in place of watts the
logarithm of the load: what surprises is a share of the load, so by night a bound is not as far above it as by day. It
bounds the highest load of the time in which instances asked for now will serve: from their start to the end of the
epoch. Until it knows enough, the bound is the highest load of the last epoch, and a margin.
A forecaster that learns in lessons gets none here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from math import exp

import numpy as np

from polcad.cluster.nouns import KINDS, Demand, Kind
from polcad.forecast.coming import ComingPeaks, follows
from polcad.forecast.seasonal import Seasonal
from polcad.places import Floats
from polcad.ports import ForecasterMaker

_UNITS = 1000.0  # to a unit of the logarithm: forecasters count in watts, and resolve about a twentieth of one
_LEAST = 0.01  # requests a second: loads that are lower still hardly differ
_LENGTHS_S = 3600.0  # over so long mean lengths are taken
_KEPT = tuple(item.name for item in fields(Demand) if item.name != "requests_per_s")


class Prediction:
    """The coming peak of each kind. `step_s`: loads are averaged over it; `q`: how surely the bound should hold."""

    def __init__(
        self,
        *,
        step_s: float = 60.0,
        ahead_s: float = 1800.0 + 420.0,
        q: float = 0.9,
        margin_frac: float = 0.3,
        make: ForecasterMaker = Seasonal,
    ) -> None:
        self._forecaster = make(domains=len(KINDS), step_s=step_s, horizons_s=(ahead_s,), quantiles=(q,))
        self._recent = ComingPeaks(len(KINDS), step_s, (ahead_s,))
        self._step_s, self._ahead_s, self._q, self._margin_frac = step_s, ahead_s, q, margin_frac
        self._sum, self._count, self._step = np.zeros(len(KINDS)), 0, -1
        self._highest = self._now = np.zeros(len(KINDS))
        self._lengths = _Lengths()
        self._t = float("-inf")

    def observe(self, t: float, demand: Mapping[Kind, Demand]) -> None:
        """Take the load at `t`; a kind that is not named has none."""
        self._now = np.array([demand[kind].requests_per_s if kind in demand else 0.0 for kind in KINDS])
        self._lengths.learn(t - self._t if follows(t, self._t, self._step_s) else self._step_s, demand)
        step = int(t // self._step_s)
        if step != self._step and self._count:
            self._close(t)
        self._step, self._t = step, t
        self._sum += self._now
        self._count += 1

    def peak(self) -> dict[Kind, Demand]:
        """The highest load of each kind to be ready for, never below the load now."""
        bound = _rates(self._forecaster.upper(self._ahead_s, self._q))
        early = (1.0 + self._margin_frac) * np.maximum(self._highest, self._now)
        rates = np.maximum(np.where(np.isfinite(bound), bound, early), self._now).tolist()
        return {
            kind: replace(self._lengths.of(kind), requests_per_s=rate)
            for kind, rate in zip(KINDS, rates, strict=True)
            if rate
        }

    def _close(self, t: float) -> None:
        """Learn the step that ended."""
        mean, steady = self._sum / self._count, np.ones(len(KINDS), dtype=np.bool_)
        self._forecaster.observe(t, _told(mean), steady)
        peak = self._recent.passed(t, mean, steady)[0]
        self._highest = np.where(np.isfinite(peak), peak, np.maximum(self._highest, mean))
        self._sum, self._count = np.zeros(len(KINDS)), 0


def _told(rates: Floats) -> Floats:
    """Loads as the forecaster is told of them."""
    return _UNITS * np.log1p(rates / _LEAST)


def _rates(told: Floats) -> Floats:
    """And back, in requests a second."""
    return _LEAST * np.expm1(told / _UNITS)


class _Lengths:
    """What a `Demand` tells of each kind's requests beside their number, of about the last hour."""

    def __init__(self) -> None:
        self._requests = np.zeros(len(KINDS))
        self._tokens: Floats = np.zeros((len(KINDS), len(_KEPT)))

    def learn(self, lasted_s: float, demand: Mapping[Kind, Demand]) -> None:
        """Take a load that stood for `lasted_s`."""
        kept = exp(-lasted_s / _LENGTHS_S)
        self._requests *= kept
        self._tokens *= kept
        for place, kind in enumerate(KINDS):
            if (seen := demand.get(kind)) and seen.requests_per_s > 0.0:
                requests = lasted_s * seen.requests_per_s
                self._requests[place] += requests
                self._tokens[place] += [requests * getattr(seen, name) for name in _KEPT]

    def of(self, kind: Kind) -> Demand:
        """No requests of these lengths; of one token each where none was seen."""
        place = KINDS.index(kind)
        if self._requests[place] <= 0.0:
            return Demand(0.0, 1.0, 1.0)
        means = (self._tokens[place] / self._requests[place]).tolist()
        return Demand(0.0, *means)
