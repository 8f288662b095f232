"""Rolling origin: a forecaster lives through a recorded demand step by step, and its bounds are judged afterwards.

At every step it is told the demand and asked for its bounds, as live, and its lessons are held at once. The beginning
of a recording is warm-up: a tenth of it, at most a day. How bounds are judged is told in `polcad.judging`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any

import numpy as np

from polcad.demand import Demand
from polcad.errors import ConfigError
from polcad.foresight import maker
from polcad.judging import Bounds, Score, Terms, coming_peaks, judge, steps_of
from polcad.places import Floats
from polcad.ports import Forecaster, Learner, School
from polcad.school import Classroom

_MEDIAN = 0.5
_WARMUP_FRAC, _WARMUP_MOST_S = 0.1, 86_400.0
_LONGEST_S = 86_400.0
_BUDGET_QUANTILE = 0.99  # of the demand, where nobody said a budget: so it is crossed sometimes
_REPORT_STEPS = 1000
_AROUND = 300  # steps shown before the largest rise, and after it


@dataclass(frozen=True, slots=True)
class BacktestOptions:
    """What is asked; horizons in seconds, thresholds as fractions of the budget. Raises ConfigError for nonsense.

    `latency_s` is how long a setting takes to act: what is announced later comes too late. `budget_w` stands instead of
    the recordings' own.
    """

    forecasters: tuple[str, ...]
    horizons_s: tuple[float, ...] = (2.0, 40.0, 300.0, 1800.0)
    q: float = 0.99
    thresholds: tuple[float, ...] = (0.89, 1.0)
    latency_s: float = 40.0
    budget_w: float | None = None

    def __post_init__(self) -> None:
        """Refuse what means nothing."""
        _check("--forecaster", self.forecasters, all(self.forecasters), "a name")
        short = all(each <= _LONGEST_S for each in self.horizons_s)
        _check(
            "--horizons", self.horizons_s, short and _positive(self.horizons_s), f"above 0, at most {_LONGEST_S:g} s"
        )
        _check("--quantile", (self.q,), _MEDIAN < self.q < 1, "above 0.5 and below 1")
        _check("--thresholds", self.thresholds, _positive(self.thresholds), "above 0")
        _check("--latency", (self.latency_s,), _positive((self.latency_s,)), "above 0 s")
        if self.budget_w is not None:
            _check("--budget-w", (self.budget_w,), _positive((self.budget_w,)), "above 0 W")


def _positive(values: Sequence[float]) -> bool:
    return all(0 < value < math.inf for value in values)


def _check(option: str, values: Sequence[object], good: bool, terms: str) -> None:
    given = ",".join(map(str, values))
    if not values or not good:
        raise ConfigError(f"{option} {given}: must be {terms}")
    if len({*values}) < len(values):
        raise ConfigError(f"{option} {given}: name each once")


@dataclass(frozen=True, slots=True)
class Excerpt:
    """The steps around a recording's largest rise: the row's demand, and each forecaster's bound at one horizon; W."""

    horizon_s: float
    t: Floats
    demand_w: Floats
    upper_w: Mapping[str, Floats]


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one recording; `parts` counts racks or nodes, `scores` are by forecaster."""

    recording: str
    q: float
    seconds: float
    step_s: float
    parts: int
    budget_w: float
    warmup_s: float
    scores: Mapping[str, Sequence[Score]]
    excerpt: Excerpt


def backtest(demand: Demand, options: BacktestOptions, done: Callable[[int], None] = lambda _: None) -> Result:
    """Judge every forecaster; ConfigError for one that does not exist. `done` is told of steps, over all of them."""
    row_w = demand.demand_w[:, 0]
    if not np.isfinite(row_w).any():
        raise ConfigError(f"{demand.name}: the row's demand is never known: some node is always silent")
    budget_w = options.budget_w or demand.budget_w or float(np.nanquantile(row_w, _BUDGET_QUANTILE))
    warmup_s = min(_WARMUP_FRAC * demand.seconds, _WARMUP_MOST_S)
    limits_w = {frac: frac * budget_w for frac in options.thresholds}
    terms = Terms(options.q, options.latency_s, limits_w, warmup_s)
    horizon_s = min(options.horizons_s, key=lambda each: abs(each - options.latency_s))
    shown = _around_largest_rise(demand, horizon_s, warmup_s)
    scores: dict[str, Sequence[Score]] = {}
    upper_w: dict[str, Floats] = {}
    for name in options.forecasters:
        bounds = roll(made(name, demand, options), demand, options, done)
        scores[name] = judge(demand, bounds, terms)
        upper_w[name] = bounds.upper_w[horizon_s][shown, 0].copy()
    excerpt = Excerpt(horizon_s, demand.t[shown], row_w[shown], upper_w)
    parts = len(demand.domains) - 1
    return Result(demand.name, options.q, demand.seconds, demand.step_s, parts, budget_w, warmup_s, scores, excerpt)


def _around_largest_rise(demand: Demand, horizon_s: float, warmup_s: float) -> slice:
    row_w = demand.demand_w[:, 0]
    rises_w = np.nan_to_num(coming_peaks(row_w, steps_of(horizon_s, demand.step_s)) - row_w, nan=-np.inf)
    warmup = round(warmup_s / demand.step_s)
    place = warmup + int(rises_w[warmup:].argmax())
    return slice(max(0, place - _AROUND), place + _AROUND)


def made(name: str, demand: Demand, options: BacktestOptions) -> Forecaster:
    """The forecaster of that name, with its default options; ConfigError where there is none."""
    return maker(name)(
        domains=len(demand.domains),
        step_s=demand.step_s,
        horizons_s=options.horizons_s,
        quantiles=(_MEDIAN, options.q),
    )


def roll(
    forecaster: Forecaster,
    demand: Demand,
    options: BacktestOptions,
    done: Callable[[int], None] = lambda _: None,
    stopwatch: Callable[[], float] = perf_counter,
) -> Bounds:
    """Let a forecaster live through the demand, and keep what it said."""
    steps, domains = demand.demand_w.shape
    upper_w = {horizon_s: np.empty((steps, domains)) for horizon_s in options.horizons_s}
    median_w = {horizon_s: np.empty(steps) for horizon_s in options.horizons_s}
    school, taken_s = Classroom(), 0.0
    for step, t in enumerate(demand.t.tolist()):
        start_s = stopwatch()
        forecaster.observe(t, demand.demand_w[step], demand.steady[step])
        for horizon_s in options.horizons_s:
            upper_w[horizon_s][step] = forecaster.upper(horizon_s, options.q)
            median_w[horizon_s][step] = forecaster.upper(horizon_s, _MEDIAN)[0]
        taken_s += stopwatch() - start_s
        if isinstance(forecaster, Learner):
            _teach(forecaster, school, t)
        if step % _REPORT_STEPS == 0:
            done(min(_REPORT_STEPS, steps - step))
    return Bounds(upper_w, median_w, taken_s / steps * 1e6)


def _teach(learner: Learner, school: School, t: float) -> None:
    lesson = learner.lesson(t)
    if lesson is None:
        return
    school.begin(lesson)
    if given := school.ended():  # () if it failed
        learner.learn(*given)


def as_json(result: Result) -> Iterator[dict[str, Any]]:
    """One object a forecaster and horizon; what there was nothing to judge by is null."""
    for name, scores in result.scores.items():
        for score in scores:
            yield {
                "recording": result.recording,
                "forecaster": name,
                "horizon_s": score.horizon_s,
                "coverage": score.coverage,
                "coverage_worst": score.coverage_worst,
                "margin_w": score.margin_w,
                "mape": score.mape,
                "pinball_w": score.pinball_w,
                "lead_s": score.lead_s,
                "missed": score.missed,
                "needless": score.needless,
                "thresholds": [asdict(each) for each in score.alarms],
                "long_enough": score.long_enough,
                "judged_s": score.judged_s,
                "cold_s": score.cold_s,
                "warmup_s": result.warmup_s,
                "step_s": result.step_s,
                "seconds": result.seconds,
                "quantile": result.q,
                "scope": "row",
                "parts": result.parts,
                "budget_w": result.budget_w,
                "update_us": score.update_us,
            }
