"""How a forecaster's bounds did: coverage, margin and losses by horizon, and how crossings were announced.

A bound over a horizon is judged by the largest demand of the steps within it. Not judged are: the warm-up, steps at
which there was no bound yet, and horizons that include a step which is not known or not steady.

A crossing of a threshold is a rise above it after at least a latency below. It was announced if the bound stood above
the threshold at some time since then that was early enough: a latency before, or for a shorter horizon at the first
step that could know. A claim is a bound above the threshold while the demand is below; it stands for its horizon, at
least for a latency, and only then may the next be made. It was needless if the demand did not follow within the
horizon.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import ceil

import numpy as np

from polcad.demand import Demand
from polcad.places import Flags, Floats

LONG_ENOUGH = 400  # horizons in a recording: in fewer, the standard error of 99 % is above half a point


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a forecaster said: by horizon (s), its bounds of shape (steps, domains), and its medians of the row; W."""

    upper_w: Mapping[float, Floats]
    median_w: Mapping[float, Floats]
    update_us: float = 0.0  # an observation and all bounds of all domains


@dataclass(frozen=True, slots=True)
class Terms:
    """By what is judged: `q` of the bounds, `latency_s` of a setting, thresholds in W with their names."""

    q: float
    latency_s: float
    thresholds_w: Mapping[float, float]  # by fraction of the budget
    warmup_s: float


@dataclass(frozen=True, slots=True)
class Alarms:
    """How one threshold was announced. `lead_s` is the mean over crossings of how early; None where there were none."""

    frac: float
    crossings: int
    missed: int
    needless: int
    lead_s: float | None


@dataclass(frozen=True, slots=True)
class Score:
    """How one forecaster did at one horizon; of the row, but for `coverage_worst`, which is its worst part's.

    `margin_w` is the mean of bound less demand, `mape` the mean error of the median bound over the peak that came,
    `pinball_w` the quantile loss of the bound. None: there was nothing to judge by. For `cold_s` after its start the
    forecaster had no bound at this horizon; `judged_s` seconds' bounds were judged. `update_us` is the one figure that
    differs from run to run.
    """

    horizon_s: float
    coverage: float | None
    coverage_worst: float | None
    margin_w: float | None
    mape: float | None
    pinball_w: float | None
    alarms: tuple[Alarms, ...]
    cold_s: float
    judged_s: float
    long_enough: bool
    update_us: float

    @property
    def missed(self) -> int:
        """Of all thresholds."""
        return sum(each.missed for each in self.alarms)

    @property
    def needless(self) -> int:
        """Of all thresholds."""
        return sum(each.needless for each in self.alarms)

    @property
    def lead_s(self) -> float | None:
        """Mean over the crossings of all thresholds."""
        crossings = sum(each.crossings for each in self.alarms)
        return sum(each.crossings * (each.lead_s or 0.0) for each in self.alarms) / crossings if crossings else None


def steps_of(horizon_s: float, step_s: float) -> int:
    """The steps that cover a horizon; at least the next one."""
    return max(1, ceil(horizon_s / step_s - 1e-9))


def judge(demand: Demand, bounds: Bounds, terms: Terms) -> list[Score]:
    """A forecaster's scores, one a horizon."""
    return [_score(demand, horizon_s, bounds, terms) for horizon_s in bounds.upper_w]


def coming_peaks(values: Floats, steps: int) -> Floats:
    """Of every place, the largest of the next `steps` values; NaN where one is not known, or the end comes before."""
    peaks = np.full_like(values, np.nan)
    if steps >= len(values):
        return peaks
    highest, width = values[1:], 1
    while width < steps:  # `highest` covers `width` values: double, and do not overshoot
        shift = min(width, steps - width)
        highest = np.maximum(highest[:-shift], highest[shift:])
        width += shift
    peaks[: len(highest)] = highest
    return peaks


def _score(demand: Demand, horizon_s: float, bounds: Bounds, terms: Terms) -> Score:
    step_s, steps = demand.step_s, steps_of(horizon_s, demand.step_s)
    upper_w, known_w = bounds.upper_w[horizon_s], np.where(demand.steady, demand.demand_w, np.nan)
    peak_w = coming_peaks(known_w, steps)
    judged = np.isfinite(peak_w) & np.isfinite(upper_w) & np.isfinite(known_w)
    judged[: round(terms.warmup_s / step_s)] = False
    held = [_mean((peak_w <= upper_w)[own, domain]) for domain, own in enumerate(judged.T)]
    row = _Row(known_w[:, 0], upper_w[:, 0], peak_w[:, 0], judged[:, 0], steps, steps_of(terms.latency_s, step_s))
    now, upper, peak = (column[row.judged] for column in (row.known_w, row.upper_w, row.peak_w))
    return Score(
        horizon_s=horizon_s,
        coverage=held[0],
        coverage_worst=min((each for each in held[1:] if each is not None), default=None),
        margin_w=_mean(upper - now),
        mape=_mean(np.abs(bounds.median_w[horizon_s][row.judged] - peak) / peak),
        pinball_w=_mean(np.maximum(terms.q * (peak - upper), (terms.q - 1) * (peak - upper))),
        alarms=tuple(row.alarms(frac, limit_w, step_s) for frac, limit_w in terms.thresholds_w.items()),
        cold_s=step_s * _first(np.isfinite(row.upper_w)),
        judged_s=step_s * len(now),
        long_enough=demand.seconds >= LONG_ENOUGH * max(horizon_s, step_s),
        update_us=bounds.update_us,
    )


@dataclass(frozen=True, slots=True)
class _Row:
    """The row's columns, W, and how many steps a horizon and a latency have."""

    known_w: Floats
    upper_w: Floats
    peak_w: Floats
    judged: Flags
    horizon: int
    latency: int

    def alarms(self, frac: float, limit_w: float, step_s: float) -> Alarms:
        """How a threshold was announced. What is not known counts as above it: nothing rises out of it."""
        above, said = ~(self.known_w <= limit_w), ~(self.upper_w <= limit_w)
        early = min(self.latency, self.horizon)  # so many steps before a crossing it must be announced
        leads = [self._lead(place, above, said) for place in self._crossings(limit_w, above, early)]
        return Alarms(
            frac=frac,
            crossings=len(leads),
            missed=sum(lead < early for lead in leads),
            needless=sum(bool(self.peak_w[place] <= limit_w) for place in self._claims(said & ~above)),
            lead_s=step_s * sum(leads) / len(leads) if leads else None,
        )

    def _crossings(self, limit_w: float, above: Flags, early: int) -> list[int]:
        """Where the demand crosses, and could have been said to by a bound that is judged."""
        places = np.flatnonzero(_rises(above, self.latency) & (self.known_w > limit_w))
        return [place for place in places.tolist() if place >= early and self.judged[place - early]]

    def _claims(self, claimed: Flags) -> Iterator[int]:
        """Where the claims that are judged begin."""
        places = np.flatnonzero(claimed & self.judged)
        while places.size:
            yield int(places[0])
            places = places[np.searchsorted(places, places[0] + max(self.horizon, self.latency)) :]

    def _lead(self, place: int, above: Flags, said: Flags) -> int:
        """How many steps before a crossing, within the horizon and since the last one, the bound first said so."""
        before = np.flatnonzero(above[max(0, place - self.horizon) : place])
        since = max(0, place - self.horizon) + (int(before[-1]) + 1 if before.size else 0)
        announced = said[since:place]
        return len(announced) - int(announced.argmax()) if announced.any() else 0


def _rises(flags: Flags, quiet: int) -> Flags:
    """Where flags stand after at least `quiet` places without one."""
    count = np.concatenate([[0], np.cumsum(flags)])
    rises = flags.copy()
    rises[:quiet] = False
    rises[quiet:] &= count[quiet:-1] == count[: -1 - quiet]
    return rises


def _first(flags: Flags) -> int:
    return int(flags.argmax()) if flags.any() else len(flags)


def _mean(values: Floats | Flags) -> float | None:
    return float(values.mean()) if values.size else None
