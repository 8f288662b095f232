"""The forecasters that a better one must beat: persistence, seasons and an autoregression."""

import math
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polcad.forecast.autoregressive import Autoregressive, Paths, fitted
from polcad.forecast.coming import ComingPeaks, Then, steps_of
from polcad.forecast.persistence import Persistence, PersistenceQuantile
from polcad.forecast.rolling import RollingQuantiles
from polcad.forecast.seasonal import Seasonal
from tests.forecasting import STEP_S, Floats, Q, fed, made, noise, peaks

DAY_S = 86400.0
ONE = np.ones(1, dtype=np.bool_)
DAILY_S, AHEAD_S = 600.0, 3600.0  # step and horizon of the seasonal tests


def days(count: float) -> Floats:
    """A load that swings by 20 kW a day, with noise of 200 W."""
    steps = int(count * DAY_S / DAILY_S)
    swing = np.sin(2 * math.pi * np.arange(steps) * DAILY_S / DAY_S)
    load_w: Floats = 60_000.0 + 20_000.0 * swing + 200.0 * np.random.default_rng(0).standard_normal(steps)
    return load_w[:, None]


demands = st.floats(0.0, 1e6) | st.just(math.nan)
passing = st.sampled_from([2, 2, 2, 4, 6, 60])
steps = st.lists(st.tuples(demands, st.booleans() | st.just(value=True), passing), max_size=40)


@settings(max_examples=60, deadline=None)
@given(steps=steps, horizon=st.integers(1, 6))
def test_a_peak_is_the_largest_of_its_steps_and_unknown_across_anything_that_is(
    steps: list[tuple[float, bool, float]], horizon: int
) -> None:
    tracker, then, t = ComingPeaks(1, 2.0, [2.0 * horizon]), Then(1, 2.0, [2.0 * horizon]), 0.0
    seen: list[float] = []
    for demand_w, steady, passed_s in steps:
        t += passed_s
        if passed_s > 5.0:
            seen = []
        seen = [*seen, demand_w] if steady and math.isfinite(demand_w) else []
        (peak_w,) = tracker.passed(t, np.array([demand_w]), np.array([steady]))[0]
        (start_w,) = then.swap(np.array([[demand_w]]))[0]
        if len(seen) > horizon:
            assert (peak_w, start_w) == (max(seen[-horizon:]), seen[-horizon - 1])
        else:
            assert math.isnan(peak_w)


def test_a_horizon_is_covered_by_whole_steps_and_has_at_least_one() -> None:
    assert [steps_of(horizon_s, 2.0) for horizon_s in (0.5, 2.0, 3.0, 40.0)] == [1, 1, 2, 20]
    assert steps_of(0.3, 0.1) == 3


@pytest.mark.parametrize("scale_w", [1.0, 1e3, 1e6])
def test_rolling_quantiles_are_those_of_what_was_seen(scale_w: float) -> None:
    seen_w = np.random.default_rng(1).gamma(2.0, scale_w, (4000, 2)) - scale_w
    rolling = RollingQuantiles((2,), (0.5, 0.99), STEP_S, DAY_S)
    for values_w in seen_w:
        rolling.see(values_w)
    assert rolling.values_w == pytest.approx(np.quantile(seen_w, (0.5, 0.99), axis=0), rel=0.02, abs=0.02 * scale_w)


def test_a_rolling_quantile_is_known_once_its_rank_is_and_unknown_for_who_was_not_seen() -> None:
    rolling = RollingQuantiles((2,), (0.9,), STEP_S, DAY_S)
    for k in range(12):
        assert np.isnan(rolling.values_w).all() == (k < 10)
        rolling.see(np.array([1.0, math.nan]))
    assert rolling.values_w[0] == pytest.approx([1.0, math.nan], rel=0.1, nan_ok=True)


def test_a_rolling_quantile_forgets() -> None:
    rolling = RollingQuantiles((1,), (0.5,), 1.0, memory_s=100.0)
    for value_w in [500.0] * 5000 + [10.0] * 200:
        rolling.see(np.array([value_w]))
    assert rolling.values_w[0] == pytest.approx([10.0], rel=0.05)


def test_persistence_adds_the_largest_rise_ever_and_to_the_median_none() -> None:
    forecaster = made(Persistence, 1, horizons_s=(4.0,))
    assert fed(forecaster, np.array([[10.0], [12.0], [17.0], [11.0], [5.0], [5.0]]), 4.0)[:, 0] == pytest.approx(
        [math.nan, math.nan, 24.0, 18.0, 12.0, 12.0], nan_ok=True
    )
    assert forecaster.upper(4.0, 0.5).tolist() == [5.0]


def test_persistence_learns_no_rise_from_estimates() -> None:
    forecaster = made(Persistence, 1, horizons_s=(2.0,))
    for step, (demand_w, steady) in enumerate([(10.0, True), (11.0, True), (90.0, False), (11.0, True), (11.0, True)]):
        forecaster.observe(STEP_S * step, np.array([demand_w]), np.array([steady]))
    assert forecaster.upper(2.0, Q).tolist() == [12.0]


@pytest.mark.parametrize("horizon_s", [1.0, 40.0])
def test_the_rolling_quantile_holds_its_promise_on_stationary_demand(horizon_s: float) -> None:
    demand_w, ahead = noise(2000, 16, lasting=0.9), steps_of(horizon_s, STEP_S)
    bounds_w = fed(made(PersistenceQuantile, 16), demand_w, horizon_s)
    held = (peaks(demand_w, ahead) <= bounds_w[:-ahead])[800:]
    assert held.mean() == pytest.approx(Q, abs=0.004)


def by_day(kind: type[Any], demand_w: Floats) -> Floats:
    """The bounds that it gives on a step of five minutes."""
    return fed(made(kind, 1, DAILY_S, (AHEAD_S,)), demand_w, AHEAD_S, step_s=DAILY_S)


def test_the_seasons_fall_back_to_persistence_while_no_day_is_known() -> None:
    demand_w = days(0.9)
    np.testing.assert_array_equal(by_day(Seasonal, demand_w), by_day(PersistenceQuantile, demand_w))


def test_the_seasons_know_where_the_day_goes() -> None:
    demand_w, ahead = days(9), round(AHEAD_S / DAILY_S)
    late = slice(int(7 * DAY_S / DAILY_S), -ahead)
    own_w, plain_w = (by_day(kind, demand_w)[late] for kind in (Seasonal, PersistenceQuantile))
    assert (own_w - demand_w[late]).mean() < 0.6 * (plain_w - demand_w[late]).mean()
    assert (peaks(demand_w, ahead)[late.start :] <= own_w).mean() > 0.97


def test_the_end_of_a_weekend_is_foreseen_by_the_last_one() -> None:
    demand_w = days(15)
    day = np.arange(len(demand_w)) * DAILY_S // DAY_S
    demand_w[day % 7 >= 5] -= 15_000.0
    sunday = int(14 * DAY_S / DAILY_S) - 2
    assert by_day(Seasonal, demand_w)[sunday] > demand_w[sunday] + 13_000.0


def test_an_autoregression_without_a_lesson_is_persistence() -> None:
    demand_w = noise(400, 2)
    own, plain = (fed(made(kind, 2), demand_w, 40.0) for kind in (Autoregressive, PersistenceQuantile))
    np.testing.assert_array_equal(own, plain)


def test_a_path_is_followed_and_where_it_is_unknown_the_last_value_stays() -> None:
    forecaster = made(Autoregressive, 2, horizons_s=(2.0, 6.0))
    assert isinstance(forecaster, Autoregressive)
    weights = np.zeros((2, len(forecaster._offsets), 30))
    weights[0, :, 0], weights[1] = 0.5, math.nan
    forecaster.learn(Paths(weights, np.tile(np.arange(weights.shape[1]) * 10.0, (2, 1))))
    fed(forecaster, np.full((30, 2), 100.0), 6.0)
    assert forecaster._band._expected_w.tolist() == [[50.0, 100.0], [50.0 + 10.0 * (weights.shape[1] - 1), 100.0]]


@pytest.mark.integration
def test_a_path_goes_on_step_by_step_as_the_fitted_weights_say() -> None:
    values_w = noise(900, 2, lasting=0.8).astype(np.float32)
    steps = tuple(range(1, 41))
    paths = fitted(values_w, 5, steps)
    path_w = list(values_w[:, 1].astype(float))
    for ahead_w in paths.ahead(values_w[:-6:-1].astype(float))[1]:
        expected_w = paths.weights[1, 0] @ path_w[:-6:-1] + paths.level_w[1, 0]
        assert ahead_w == pytest.approx(expected_w)
        path_w.append(expected_w)
    assert paths.weights[1, 0, 0] == pytest.approx(0.8, abs=0.1)
    assert path_w[-1] == pytest.approx(50_000.0, rel=0.01)


@pytest.mark.integration
def test_power_that_never_moves_or_runs_away_or_is_hardly_known_has_no_wild_path() -> None:
    short, steady, away = noise(900, 3).astype(np.float32).T
    short[-20] = math.nan
    steady[:] = 50_000.0
    away[:] = np.exp(np.arange(900) / 50.0)
    paths = fitted(np.stack((short, steady, away), axis=1), 5, (1, 2, 400))
    assert np.isnan(paths.weights[0]).all()
    assert paths.ahead(np.full((5, 3), 50_000.0))[1] == pytest.approx(50_000.0)
    assert (np.abs(paths.weights[1:]).sum(axis=2) < 2.0).all()


@pytest.mark.integration
def test_an_autoregression_knows_where_the_level_returns_to() -> None:
    demand_w = noise(5000, 3, lasting=0.9)
    kinds = (Autoregressive, PersistenceQuantile)
    own_w, plain_w = (fed(made(kind, 3), demand_w, 40.0, taught=True)[2500:-20] for kind in kinds)
    assert (own_w - demand_w[2500:-20]).mean() < 0.92 * (plain_w - demand_w[2500:-20]).mean()
    assert (peaks(demand_w, 20)[2500:] <= own_w).mean() == pytest.approx(Q, abs=0.01)


def test_a_lesson_is_due_every_quarter_of_an_hour_and_can_be_sent() -> None:
    forecaster = made(Autoregressive, 1)
    assert isinstance(forecaster, Autoregressive)
    due = []
    for step, demand_w in enumerate(noise(1300, 1)):
        forecaster.observe(STEP_S * step, demand_w, ONE)
        if lesson := forecaster.lesson(STEP_S * step):
            due.append(STEP_S * step)
            assert len(pickle.dumps(lesson)) > 1800 * 4
    assert due == [596.0, 1496.0, 2396.0]
