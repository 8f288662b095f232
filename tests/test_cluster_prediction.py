from __future__ import annotations

from math import pi, sin

import numpy as np
import pytest

from polcad.cluster.nouns import KINDS, Demand, Kind
from polcad.cluster.prediction import Prediction

BUSY, QUIET = KINDS[0], KINDS[8]
DAY_S = 86_400.0


def load(t: float) -> dict[Kind, Demand]:
    """A day's wave of one kind, lowest at midnight and highest at noon; the other is steady."""
    return {
        BUSY: Demand(5.0 - 4.0 * sin(pi / 2 + 2 * pi * t / DAY_S), 300.0, 40.0),
        QUIET: Demand(0.5, 2000.0, 400.0),
    }


def after(days: float) -> Prediction:
    prediction = Prediction(step_s=300.0, ahead_s=3600.0)
    for step in range(int(days * DAY_S / 300.0)):
        prediction.observe(300.0 * step, load(300.0 * step))
    return prediction


def test_a_rise_that_came_at_this_time_of_past_days_is_foreseen() -> None:
    """At nine the load is 5; it climbs to 6 within the hour, as it did on the days before."""
    peak = after(3.25).peak()
    now, ahead = load(3.25 * DAY_S)[BUSY].requests_per_s, load(3.25 * DAY_S + 3600.0)[BUSY].requests_per_s
    assert ahead > now + 0.9
    assert peak[BUSY].requests_per_s == pytest.approx(ahead, rel=0.1)


def test_a_steady_kind_is_foreseen_as_it_is_with_its_lengths() -> None:
    peak = after(2.0).peak()
    assert peak[QUIET].requests_per_s == pytest.approx(0.5, rel=0.1)
    assert (peak[QUIET].prompt_tokens, peak[QUIET].output_tokens) == pytest.approx((2000.0, 400.0))


def test_what_surprises_is_a_share_of_the_load_so_that_nights_are_not_bounded_by_days() -> None:
    """A day of ten times the night, each minute off by a fifth at most: the night's bound stays near the night."""
    prediction, random = Prediction(step_s=300.0, ahead_s=1800.0), np.random.default_rng(1)
    for step in range(3 * 288 + 36):
        mean = 1.0 if step % 288 < 144 else 10.0
        demand = {BUSY: Demand(mean * random.uniform(0.8, 1.2), 300.0, 40.0)}
        prediction.observe(300.0 * step, demand)
    assert 1.0 < prediction.peak()[BUSY].requests_per_s < 1.5


def test_before_anything_is_known_the_peak_is_the_load_and_a_margin() -> None:
    prediction = Prediction(margin_frac=0.3)
    prediction.observe(0.0, {BUSY: Demand(2.0, 300.0, 40.0)})
    assert prediction.peak() == {BUSY: Demand(1.3 * 2.0, 300.0, 40.0)}


def test_the_peak_is_never_below_the_load_now() -> None:
    prediction = after(2.0)
    prediction.observe(2.0 * DAY_S, {BUSY: Demand(50.0, 300.0, 40.0)})
    assert prediction.peak()[BUSY].requests_per_s >= 50.0
