"""What the default forecaster is made of: its calibration, peaks, features, rows and regression."""

import pickle
from functools import partial

import numpy as np
import pytest

from polcad.forecast.calibration import Calibration
from polcad.forecast.features import BINS, COUNT, DAY_S, FAR, Features, Profile
from polcad.forecast.peaks import Peaks
from polcad.forecast.regression import Fit, Rows, Sample, fit, level, offsets
from polcad.places import Flags, Floats
from tests.forecasting import STEP_S, noise, peaks

ONE, NOBODY = np.ones(1, dtype=np.bool_), np.zeros(1, dtype=np.bool_)


def tracked(excess_w: Floats, q: float) -> Flags:
    """Which bounds held, of a calibration that is told each outcome at the next beat."""
    calibration = Calibration([q], [1], 1)
    calibration.offset_w[:] = 0.0
    held = np.zeros(len(excess_w), dtype=np.bool_)
    for beat, now_w in enumerate(excess_w):
        calibration.show(beat, calibration.offset_w)
        held[beat] = now_w <= calibration.offset_w[0, 0, 0]
        calibration.learn(0, beat, np.array([now_w]), np.array([100.0]))
    return held


@pytest.mark.parametrize("q", [0.5, 0.9, 0.99])
def test_offsets_come_to_hold_as_often_as_promised(q: float) -> None:
    excess_w = 100.0 * np.random.default_rng(1).standard_exponential(12_000)
    assert tracked(excess_w, q)[4000:].mean() == pytest.approx(q, abs=0.006)


def test_offsets_follow_a_distribution_that_drifts() -> None:
    random = np.random.default_rng(2)
    excess_w = 100.0 * random.standard_exponential(12_000) * np.linspace(1.0, 4.0, 12_000)
    assert tracked(excess_w, 0.99)[2000:].mean() == pytest.approx(0.99, abs=0.003)


def test_an_absurd_offset_halves_in_hours() -> None:
    calibration = Calibration([0.99], [1], 1)
    calibration.offset_w[:] = 1e6
    for beat in range(1000):  # of ten seconds
        calibration.show(beat, calibration.offset_w)
        calibration.learn(0, beat, np.zeros(1), np.ones(1))
    assert calibration.offset_w[0, 0, 0] < 5e5


def test_outcomes_that_are_not_known_teach_nothing() -> None:
    calibration = Calibration([0.99], [1], 2)
    calibration.offset_w[:] = 5.0
    calibration.show(0, np.array([[[5.0, np.nan]]]))
    calibration.learn(0, 0, np.array([np.nan, 7.0]), np.ones(2))
    assert (calibration.offset_w == 5.0).all()


def test_one_spike_moves_the_offset_of_a_long_horizon_by_about_a_scale() -> None:
    calibration = Calibration([0.99], [180], 1)
    calibration.offset_w[:] = 0.0
    for beat in range(180):
        calibration.show(beat, np.zeros((1, 1, 1)))
        calibration.learn(0, beat, np.array([50.0]), np.ones(1))
    assert 0.5 < calibration.offset_w[0, 0, 0] < 1.5


def told(demand_w: Floats, horizons: list[int], step_s: float = STEP_S) -> list[dict[int, Floats]]:
    """For each horizon, the peaks after each step that was told."""
    asked = Peaks(demand_w.shape[1], step_s, horizons)
    known: list[dict[int, Floats]] = [{} for _ in horizons]
    ends: list[int] = []
    for step, now_w in enumerate(demand_w):
        if asked.observe(now_w):
            ends.append(step)
            for at, peak_w in enumerate(asked.ended_w()):
                if asked.beat >= asked.ago[at]:
                    known[at][ends[asked.beat - asked.ago[at]]] = peak_w
    return known


@pytest.mark.parametrize("steps", [1, 4, 5, 7, 20, 23])
def test_peaks_are_the_largest_of_the_steps_after_a_moment(steps: int) -> None:
    demand_w = noise(200, 3)
    (known,) = told(demand_w, [steps])
    true_w = peaks(demand_w, steps)
    assert len(known) >= (200 - steps) // 5 - 1
    assert all((peak_w == true_w[step]).all() for step, peak_w in known.items())


def test_peaks_of_times_with_an_unknown_step_are_unknown() -> None:
    demand_w = noise(200, 1)
    demand_w[101] = np.nan
    short, long = told(demand_w, [3, 20])
    true_w = peaks(demand_w, 20)  # NaN where any is
    assert {step for step, peak_w in short.items() if np.isnan(peak_w[0])} == {99}
    assert all(np.array_equal(peak_w, true_w[step], equal_nan=True) for step, peak_w in long.items())


def settled(level_w: float, steps: int = 600) -> Features:
    features = Features(1, STEP_S)
    for now_w in level_w * (1 + 0.02 * np.random.default_rng(3).standard_normal(steps)):
        features.observe(np.array([now_w]), ONE, ONE)
    return features


def test_features_grow_with_their_domain() -> None:
    rack, row = settled(50e3), settled(500e3)
    assert 10 * rack.values_w == pytest.approx(row.values_w, abs=1e-3)


def test_an_unknown_step_changes_no_feature() -> None:
    features = settled(50e3)
    before_w = features.values_w.copy()
    features.observe(np.array([np.nan]), NOBODY, NOBODY)
    assert np.array_equal(features.values_w, before_w)


def test_an_unsteady_step_moves_the_level_but_not_the_scale() -> None:
    features = settled(50e3)
    scale_w = features.scale_w.copy()
    features.observe(np.array([60e3]), ONE, NOBODY)
    assert features.level_w == 60e3
    assert features.scale_w == scale_w


def test_a_jump_stays_within_a_few_scales_and_is_caught_up_with() -> None:
    features = settled(50e3)
    for _ in range(1500):  # fifty minutes
        features.observe(np.array([80e3]), ONE, ONE)
        assert (np.abs(features.values_w[:-1]) <= FAR * features.scale_w).all()
    assert np.abs(features.values_w[:5]).max() <= 4.1 * features.scale_w[0]
    assert features.scale_w[0] < 5e3


def test_constant_power_has_a_scale() -> None:
    features = Features(1, STEP_S)
    for _ in range(300):
        features.observe(np.array([0.0]), ONE, ONE)
    assert features.scale_w[0] > 0
    assert np.isfinite(features.values_w).all()


def test_a_day_s_rise_is_known_on_the_second_day_and_not_before() -> None:
    profile = Profile(1)
    rises_w = []
    for t in np.arange(0.0, 2 * DAY_S, 60.0):
        profile.observe(t, np.array([1000.0 if t % DAY_S < DAY_S / 2 else 3000.0]))
        rises_w.append(profile.rise_w(t)[0])
    first, second = np.split(np.array(rises_w), 2)
    assert np.abs(first[: -BINS // 2]).max() == 0.0
    assert second.max() == pytest.approx(2000.0)
    assert second.argmax() * 60.0 == pytest.approx(DAY_S / 2 - 1800.0, abs=1000.0)


def test_rows_of_many_domains_are_kept_in_turn_with_what_came_of_them() -> None:
    rows = Rows(5, 1, 1, slots=10, width=2)
    for beat in range(25):
        rows.put(beat, beat * 10.0 + np.arange(5.0)[None, :])
        if beat >= 3:
            rows.complete(beat - 3, 0, (beat - 3) * 10.0 + np.arange(5.0))
    sample = rows.sample(24, 1000)
    assert len(sample.domain) == 20
    assert (sample.features_w[:, 0] % 10 == sample.domain).all()
    known = ~np.isnan(sample.excess_w[:, 0])
    assert known.sum() == 14
    assert (sample.excess_w[known] == sample.features_w[known]).all()
    assert set(sample.domain.tolist()) == set(range(5))


def test_the_fewer_outcomes_there_are_the_higher_the_quantile() -> None:
    assert level(0.99, 10) == 1.0
    assert 0.99 < level(0.99, 1000) < level(0.99, 200) < 1.0


def test_a_domain_s_offset_is_its_own_as_far_as_it_has_rows() -> None:
    random = np.random.default_rng(4)
    left, domain = random.standard_normal(6000), np.repeat([0, 1], [3000, 3000])
    left[domain == 1] *= 5.0
    median, high = offsets(left, domain, [0.5, 0.99], 3)
    quiet, wild, unseen = high
    assert 2.0 < quiet < 3.0 < unseen < wild
    assert np.abs(median).max() < 0.3


def sampled(rows: int = 3000) -> Sample:
    """Excess is twice the first feature, and up to 10 kW more."""
    random = np.random.default_rng(5)
    features_w = random.normal(0.0, 1000.0, (rows, COUNT)).astype(np.float32)
    features_w[:, -1] = 1000.0  # the scale
    excess_w = 2 * features_w[:, :1] + random.uniform(0.0, 10_000.0, (rows, 1)).astype(np.float32)
    return Sample(features_w, excess_w, np.arange(rows) % 2)


@pytest.mark.integration
def test_a_lesson_can_be_sent_and_finds_what_the_rows_were_made_of() -> None:
    lesson = pickle.loads(pickle.dumps(partial(fit, sampled(), {0: 3000.0}, [0.5, 0.99], np.full(2, 1000.0))))  # noqa: S301 - our own
    found: Fit = lesson()
    assert found.slopes[0, :, :, 0] == pytest.approx(2.0, abs=0.3)
    assert np.abs(found.slopes[0, :, :, 1:-1]).max() < 0.3
    assert found.slopes[0, :, :, -1].mean(axis=1) == pytest.approx([5.0, 9.0], abs=0.3)
    assert found.offset_w[0, 1] == pytest.approx(900.0, abs=300.0)


def test_a_lesson_with_too_few_rows_tells_nothing() -> None:
    found = fit(sampled(100), {0: 100.0}, [0.99], np.full(2, 1000.0))
    assert np.isnan(found.slopes).all()
    assert np.isnan(found.offset_w).all()
