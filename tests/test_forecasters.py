"""What every forecaster must keep to, whoever wrote it: all entry points of `polcad.forecasters`.

Each is tried while no lesson has ended, as it is live for the first minutes or when every lesson fails, and, in the
slower tests, with its lessons held.
"""

import math
import pickle
from typing import Any

import numpy as np
import pytest

from polcad import plugins
from tests.forecasting import HORIZONS_S, QUANTILES, STEP_S, Floats, Q, fed, made, noise, peaks

NAMES = plugins.own("polcad.forecasters")
STEADY = np.ones(3, dtype=np.bool_)

KINDS = [plugins.load("polcad.forecasters", name) for name in NAMES]

every_forecaster = pytest.mark.parametrize("kind", KINDS, ids=NAMES)
with_and_without_lessons = pytest.mark.parametrize("taught", [False, pytest.param(True, marks=pytest.mark.integration)])


def bounds(kind: type[Any], demand_w: Floats, *, taught: bool) -> Floats:
    """All bounds after the last step: one row a horizon and quantile."""
    forecaster = made(kind, demand_w.shape[1])
    fed(forecaster, demand_w, 40.0, taught=taught)
    return np.array([forecaster.upper(horizon_s, q) for horizon_s in HORIZONS_S for q in QUANTILES])


def test_the_forecasters_that_we_ship_are_found_by_name() -> None:
    assert set(NAMES) == {"autoregressive", "persistence", "persistence_q", "quantile", "seasonal"}


@every_forecaster
def test_before_the_first_step_every_bound_is_unknown(kind: type[Any]) -> None:
    forecaster = made(kind, 3)
    for horizon_s in HORIZONS_S:
        for q in QUANTILES:
            assert forecaster.upper(horizon_s, q).shape == (3,)
            assert np.isnan(forecaster.upper(horizon_s, q)).all()


@every_forecaster
def test_one_step_tells_nothing_of_what_is_rare(kind: type[Any]) -> None:
    assert np.isnan(fed(made(kind, 3), noise(1, 3), 40.0)).all()


@every_forecaster
@pytest.mark.parametrize(("horizon_s", "q"), [(41.0, 0.99), (40.0, 0.98)])
def test_what_was_not_announced_is_refused(kind: type[Any], horizon_s: float, q: float) -> None:
    with pytest.raises(ValueError, match="not announced"):
        made(kind, 3).upper(horizon_s, q)


@every_forecaster
@with_and_without_lessons
def test_the_same_steps_give_the_same_bounds(kind: type[Any], *, taught: bool) -> None:
    demand_w = noise(700, 3)
    once, again = (bounds(kind, demand_w, taught=taught) for _ in range(2))
    assert np.isfinite(once).all()
    np.testing.assert_array_equal(once, again)


@every_forecaster
def test_the_array_of_a_step_may_be_used_again(kind: type[Any]) -> None:
    forecaster, array_w = made(kind, 3), np.empty(3)
    for step, now_w in enumerate(noise(300, 3)):
        array_w[:] = now_w
        forecaster.observe(STEP_S * step, array_w, STEADY)
        before_w = forecaster.upper(40.0, Q).copy()
        array_w[:] = 1e9
        np.testing.assert_array_equal(forecaster.upper(40.0, Q), before_w)


@every_forecaster
@with_and_without_lessons
def test_a_rarer_peak_is_no_lower(kind: type[Any], *, taught: bool) -> None:
    median_w, rare_w = bounds(kind, noise(700, 3), taught=taught).reshape(len(HORIZONS_S), 2, 3).swapaxes(0, 1)
    assert (median_w <= rare_w).all()


@every_forecaster
@with_and_without_lessons
def test_bounds_of_stationary_demand_hold_as_often_as_they_say(kind: type[Any], *, taught: bool) -> None:
    demand_w = noise(1500, 8, lasting=0.8)
    bounds_w = fed(made(kind, 8), demand_w, 40.0, taught=taught)
    assert (peaks(demand_w, 20) <= bounds_w[:-20])[500:].mean() > Q - 0.01
    assert (bounds_w - demand_w)[500:].mean() < 20_000.0  # ten times the deviation


@every_forecaster
@with_and_without_lessons
def test_the_unknown_passes_and_leaves_the_other_domains_alone(kind: type[Any], *, taught: bool) -> None:
    demand_w = noise(900, 3)
    demand_w[300:320, 0] = math.nan
    demand_w[:, 1] = math.nan
    bounds_w = fed(made(kind, 3), demand_w, 40.0, taught=taught)
    assert np.isfinite(bounds_w[-1, [0, 2]]).all()
    assert np.isnan(bounds_w[:, 1]).all()
    assert np.isfinite(bounds_w[250:, 2]).all()


@every_forecaster
@pytest.mark.parametrize("jump_s", [600.0, 86400.0], ids=["minutes", "a day"])
def test_nothing_is_learned_across_a_gap(kind: type[Any], jump_s: float) -> None:
    """The level of before and of after differ by twenty deviations: a rise, had it been seen."""
    forecaster, demand_w = made(kind, 3), noise(900, 3)
    demand_w[450:] += 40_000.0
    for step, now_w in enumerate(demand_w):
        forecaster.observe(STEP_S * step + jump_s * (step >= 450), now_w, STEADY)
    margin_w = forecaster.upper(40.0, Q) - demand_w[-1]
    assert ((margin_w > -5_000.0) & (margin_w < 20_000.0)).all()


@every_forecaster
def test_nothing_is_learned_from_estimates(kind: type[Any]) -> None:
    forecaster, demand_w = made(kind, 3), noise(900, 3)
    demand_w[450:470] += 40_000.0
    for step, now_w in enumerate(demand_w):
        forecaster.observe(STEP_S * step, now_w, STEADY & (not 450 <= step < 470))
    assert (forecaster.upper(40.0, Q) - demand_w[-1] < 20_000.0).all()


@every_forecaster
@with_and_without_lessons
def test_power_that_never_moves_is_bounded_by_about_itself(kind: type[Any], *, taught: bool) -> None:
    last_w = bounds(kind, np.full((700, 3), 50_000.0), taught=taught)
    assert last_w == pytest.approx(np.full_like(last_w, 50_000.0), rel=0.01)


@pytest.mark.integration
@every_forecaster
def test_memory_is_bounded(kind: type[Any]) -> None:
    forecaster, sizes, demand_w = made(kind, 3), [], noise(4000, 3)
    for step, now_w in enumerate(demand_w):
        forecaster.observe(STEP_S * step, now_w, STEADY)
        if step in {1999, 3999}:
            sizes.append(len(pickle.dumps(forecaster)))
    assert sizes[1] < 1.05 * sizes[0]
