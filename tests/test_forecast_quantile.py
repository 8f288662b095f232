"""The default forecaster as a whole: what it promises, and what it does when something is missing or changes."""

import math
import pickle
from functools import partial

import numpy as np
import pytest

from polcad.forecast.features import COUNT
from polcad.forecast.persistence import PersistenceQuantile
from polcad.forecast.quantile import QuantileForecaster
from polcad.forecast.regression import Fit, Sample, fit
from tests.forecasting import HORIZONS_S, QUANTILES, STEP_S, Floats, Q, fed, made, noise, peaks, teach

ONE = np.ones(1, dtype=np.bool_)
HOUR = 1800  # steps
FORTY_S = 20


def new(domains: int = 1) -> QuantileForecaster:
    forecaster = made(QuantileForecaster, domains)
    assert isinstance(forecaster, QuantileForecaster)
    return forecaster


def covered(bounds_w: Floats, demand_w: Floats, steps: int) -> Floats:
    """The share of the known bounds that held, by domain."""
    ahead_w = peaks(demand_w, steps)
    given_w = bounds_w[: len(ahead_w)]
    held = np.where(np.isnan(given_w) | np.isnan(ahead_w), np.nan, given_w >= ahead_w)
    return np.asarray(np.nanmean(held, axis=0))


def warmed(domains: int = 1, steps: int = HOUR, seed: int = 0) -> tuple[QuantileForecaster, float]:
    """One that has seen an hour, and what time it is."""
    forecaster = new(domains)
    fed(forecaster, noise(steps, domains, seed), 40.0)
    return forecaster, steps * STEP_S


def slopes_of(value: float) -> Fit:
    shape = len(HORIZONS_S), len(QUANTILES)
    return Fit(np.full((*shape, 1, COUNT), value), np.full((*shape, 1), 500.0))


def test_there_is_a_bound_within_minutes_and_none_before() -> None:
    bounds_w = fed(new(), noise(600, 1), 40.0)[:, 0]
    first = int(np.flatnonzero(~np.isnan(bounds_w))[0])
    assert 150 < first < 330
    assert not np.isnan(bounds_w[first:]).any()


def test_before_any_lesson_the_bounds_hold_nearly_as_often_as_promised() -> None:
    demand_w = noise(3 * HOUR, 2, seed=6, lasting=0.9)
    assert covered(fed(new(2), demand_w, 40.0), demand_w, FORTY_S).min() > 0.98


def test_a_longer_horizon_and_a_higher_quantile_are_never_bounded_lower() -> None:
    forecaster, t = warmed()
    for step, now_w in enumerate(noise(200, 1, seed=7)):
        forecaster.observe(t + step * STEP_S, now_w, ONE)
        upper_w = np.array([[forecaster.upper(at, q)[0] for q in QUANTILES] for at in HORIZONS_S])
        assert (np.diff(upper_w, axis=0) >= 0).all()
        assert (np.diff(upper_w, axis=1) >= 0).all()


def test_what_was_not_announced_is_refused() -> None:
    with pytest.raises(ValueError, match="41"):
        new().upper(41.0, 0.99)
    with pytest.raises(ValueError, match=r"0\.9"):
        new().upper(40.0, 0.9)


def test_horizons_and_quantiles_may_come_in_any_order() -> None:
    demand_w = noise(400, 1)
    usual = made(QuantileForecaster, 1)
    turned = QuantileForecaster(domains=1, step_s=STEP_S, horizons_s=HORIZONS_S[::-1], quantiles=QUANTILES[::-1])
    assert np.array_equal(fed(usual, demand_w, 40.0), fed(turned, demand_w, 40.0), equal_nan=True)


def test_a_bound_outlives_a_lost_step_and_not_a_silence() -> None:
    forecaster, t = warmed()
    unknown = np.array([math.nan])
    forecaster.observe(t, unknown, ONE)
    assert not np.isnan(forecaster.upper(40.0, Q)[0])
    for step in range(1, 6):
        forecaster.observe(t + step * STEP_S, unknown, ONE)
    assert np.isnan(forecaster.upper(40.0, Q)[0])


def test_a_domain_comes_back_after_a_long_silence_at_its_new_level() -> None:
    forecaster, t = warmed(2)
    both = np.ones(2, dtype=np.bool_)
    for step, now_w in enumerate(noise(HOUR, 2, seed=8)):
        forecaster.observe(t + step * STEP_S, np.array([math.nan, now_w[1]]), both)
    assert np.isnan(forecaster.upper(40.0, Q)).tolist() == [True, False]
    for step, now_w in enumerate(noise(60, 2, seed=9)):
        forecaster.observe(t + (HOUR + step) * STEP_S, now_w * [0.5, 1.0], both)
    assert 25_000.0 < forecaster.upper(40.0, Q)[0] < 45_000.0


def test_one_domain_that_was_never_known_spoils_no_other() -> None:
    demand_w = noise(600, 2)
    alone = fed(new(1), demand_w[:, 1:], 40.0)
    demand_w[:, 0] = np.nan
    bounds_w = fed(new(2), demand_w, 40.0)
    assert np.isnan(bounds_w[:, 0]).all()
    assert bounds_w[-1, 1] == pytest.approx(alone[-1, 0])


def test_nothing_is_learned_across_a_gap_or_from_an_unsteady_step() -> None:
    """A jump of 50 kW that comes with a gap, or while settings change, is no rise that demand has shown."""
    demand_w = noise(2 * HOUR, 1)
    usual_w = fed(new(), demand_w, 40.0)[-1, 0]
    jump_w = demand_w + np.where(np.arange(len(demand_w)) < HOUR, 0.0, 50_000.0)[:, None]
    gap, unsteady = new(), new()
    for step, now_w in enumerate(jump_w):
        late_s = 3600.0 if step >= HOUR else 0.0
        gap.observe(step * STEP_S + late_s, now_w, ONE)
        unsteady.observe(step * STEP_S, now_w, np.array([not HOUR - FORTY_S <= step < HOUR + 2 * FORTY_S]))
    assert gap.upper(40.0, Q)[0] - 50_000.0 == pytest.approx(usual_w, abs=3000.0)
    assert unsteady.upper(40.0, Q)[0] - 50_000.0 < usual_w + 8000.0


def test_a_shrunken_job_halves_the_bound_within_an_hour() -> None:
    demand_w = noise(2 * HOUR, 1, seed=10)
    demand_w[HOUR:] *= 0.4
    bounds_w = fed(new(), demand_w, 40.0)
    assert bounds_w[HOUR - 1, 0] > 50_000.0
    assert 22_000.0 < bounds_w[-1, 0] < 32_000.0


def test_a_server_added_is_covered_again_within_half_an_hour() -> None:
    demand_w = noise(2 * HOUR, 1, seed=11)
    demand_w[HOUR:] += 15_000.0
    bounds_w, late = fed(new(), demand_w, 40.0), slice(HOUR + HOUR // 2, None)
    assert covered(bounds_w[late], demand_w[late], FORTY_S)[0] > 0.97


@pytest.mark.parametrize("level_w", [0.0, 1e-6, 50e3])
def test_constant_power_is_bounded_by_itself(level_w: float) -> None:
    bounds_w = fed(new(), np.full((600, 1), level_w), 40.0)
    assert bounds_w[-1, 0] == pytest.approx(level_w, abs=0.01 * level_w + 1e-2)


def test_the_size_of_a_domain_does_not_matter() -> None:
    demand_w = noise(900, 1)
    rack_w, milliwatts_w = fed(new(), demand_w, 40.0), fed(new(), demand_w * 1e-2, 40.0)
    assert rack_w[-1] == pytest.approx(100 * milliwatts_w[-1], rel=1e-3)


def test_the_caller_s_array_may_be_used_again() -> None:
    forecaster, buffer_w = new(), np.zeros(1)
    for step, now_w in enumerate(noise(400, 1)):
        buffer_w[:] = now_w
        forecaster.observe(step * STEP_S, buffer_w, ONE)
        buffer_w[:] = 0.0
    assert np.array_equal(forecaster.upper(40.0, Q), fed(new(), noise(400, 1), 40.0)[-1])


def test_a_lesson_is_due_after_enough_past_and_then_seldom() -> None:
    forecaster = new(5)
    due = []
    for step, now_w in enumerate(noise(4 * HOUR, 5)):
        forecaster.observe(step * STEP_S, now_w, np.ones(5, dtype=np.bool_))
        if forecaster.lesson(step * STEP_S):
            due.append(step)
    assert HOUR / 2 <= due[0] <= HOUR
    assert np.diff(due).min() >= HOUR / 2
    assert len(due) >= 4


@pytest.mark.parametrize(
    "garbage",
    [
        None,
        "slopes",
        Fit(np.zeros((1, 1, 1, COUNT)), np.zeros((1, 1, 1))),
        Fit(np.full((3, 2, 1, COUNT), np.nan), np.zeros((3, 2, 1))),
        Fit(np.zeros((3, 2, 1, COUNT)), np.full((3, 2, 1), np.inf)),
        Fit(np.zeros((3, 2, 1, COUNT)), np.zeros((3, 2, 7))),
        Fit(np.zeros((3, 2, COUNT)), np.zeros((3, 2, 1))),
    ],
)
def test_a_failed_lesson_changes_nothing(garbage: object) -> None:
    forecaster, t = warmed()
    forecaster.observe(t - STEP_S, np.array([50e3]), ONE)
    untaught_w = forecaster.upper(40.0, Q)
    forecaster.learn(slopes_of(0.1))
    forecaster.observe(t, np.array([50e3]), ONE)
    before_w = forecaster.upper(40.0, Q)
    assert before_w != untaught_w
    forecaster.learn(garbage)
    forecaster.observe(t + STEP_S, np.array([50e3]), ONE)
    assert forecaster.upper(40.0, Q) == pytest.approx(before_w, rel=0.02)


def test_a_second_lesson_makes_the_bounds_jump_no_farther_than_it_must() -> None:
    forecaster, t = warmed()
    forecaster.learn(slopes_of(0.1))
    forecaster.observe(t, np.array([50e3]), ONE)
    before_w = forecaster.upper(40.0, Q)[0]
    forecaster.learn(slopes_of(0.12))
    forecaster.observe(t + STEP_S, np.array([50e3]), ONE)
    assert forecaster.upper(40.0, Q)[0] == pytest.approx(before_w, abs=1000.0)


def test_the_same_demand_gives_the_same_bounds() -> None:
    demand_w = noise(600, 3)
    assert np.array_equal(fed(new(3), demand_w, 40.0), fed(new(3), demand_w, 40.0), equal_nan=True)


def test_a_domain_with_rows_enough_of_its_own_is_drawn_from_the_pooled_slopes_towards_its_own() -> None:
    random, rows = np.random.default_rng(5), 3000
    domain = np.arange(rows) % 2
    feature_w = random.uniform(0.0, 1000.0, rows)
    excess_w = np.where(domain == 0, 2.0, 0.5) * feature_w + random.uniform(0.0, 10.0, rows)
    sample = Sample(feature_w[:, None].astype(np.float32), excess_w[:, None].astype(np.float32), domain)
    steep, flat = fit(sample, {0: 1e3}, [0.9], np.full(2, 1000.0)).slopes[0, 0, :, 0]
    sparse = Sample(sample.features_w[:600], sample.excess_w[:600], np.arange(600) % 3)
    assert steep > 1.2 * flat
    assert np.ptp(fit(sparse, {0: 1e3}, [0.9], np.full(3, 1000.0)).slopes) == 0.0


@pytest.mark.integration
def test_on_bursty_racks_it_covers_as_promised_at_less_margin_than_persistence_with_its_quantile() -> None:
    demand_w = bursty(8 * HOUR, 4)
    ours_w = fed(new(4), demand_w, 40.0, taught=True)
    plain_w = fed(made(PersistenceQuantile, 4), demand_w, 40.0)
    late = slice(3 * HOUR, None)
    assert covered(ours_w[late], demand_w[late], FORTY_S).min() > 0.982
    assert covered(ours_w[late], demand_w[late], FORTY_S).max() < 0.998
    assert (ours_w - demand_w)[late].mean() < 0.95 * (plain_w - demand_w)[late].mean()


@pytest.mark.integration
def test_it_covers_a_load_that_grows_by_a_third() -> None:
    demand_w = bursty(8 * HOUR, 4)
    demand_w *= np.linspace(1.0, 1.33, len(demand_w))[:, None]
    bounds_w = fed(new(4), demand_w, 40.0, taught=True)
    late = slice(3 * HOUR, None)
    assert covered(bounds_w[late], demand_w[late], FORTY_S).min() > 0.98


@pytest.mark.integration
def test_lessons_are_small_enough_to_send() -> None:
    forecaster = new(500)
    for step, now_w in enumerate(noise(1000, 500)):
        forecaster.observe(step * STEP_S, now_w, np.ones(500, dtype=np.bool_))
    lesson = forecaster.lesson(2000.0)
    assert isinstance(lesson, partial)
    assert len(pickle.dumps(lesson)) < 2e6
    teach(forecaster, 2e9)
    forecaster.observe(2000.0, noise(1, 500)[0], np.ones(500, dtype=np.bool_))
    assert np.isfinite(forecaster.upper(40.0, Q)).all()


def bursty(steps: int, racks: int) -> Floats:
    """Requests come in waves: a mean that wanders, prompts above it, and a meter's noise."""
    random = np.random.default_rng(12)
    waves = noise(steps, racks, seed=13, lasting=0.998) - 50_000.0
    prompts = random.poisson(3.0, (steps, racks)) * 700.0
    return 50_000.0 + 2 * waves + prompts + 300.0 * random.standard_normal((steps, racks))
