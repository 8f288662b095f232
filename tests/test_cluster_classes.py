from __future__ import annotations

import numpy as np
import pytest

from polcad.cluster.classes import NoisyLengths, PastMix, RollingTertiles, Thresholds
from polcad.cluster.nouns import KINDS, Length
from polcad.errors import ConfigError

S, M, L = Length


def test_thresholds_belong_to_the_shorter_side() -> None:
    thresholds = Thresholds((100, 200), (10, 20))
    assert thresholds.kind(100, 10) == (S, S)
    assert thresholds.kind(101, 20) == (M, M)
    assert thresholds.kind(201, 21) == (L, L)


def test_many_requests_are_placed_as_one_by_one() -> None:
    thresholds, draws = Thresholds(), np.random.default_rng(1)
    prompts, outputs = draws.integers(1, 3000, 200).astype(float), draws.integers(1, 700, 200).astype(float)
    placed = thresholds.places(prompts, outputs)
    assert [KINDS[place] for place in placed] == [thresholds.kind(*each) for each in zip(prompts, outputs, strict=True)]


def test_rolling_thirds_cut_the_last_requests_evenly_and_follow_them() -> None:
    rolling, draws = RollingTertiles(requests=300), np.random.default_rng(1)
    for scale in (1.0, 10.0):
        for number in range(400):
            rolling.observe(number + 1000 * scale, scale * draws.uniform(0, 900), scale * draws.uniform(0, 90))
        low, high = rolling.thresholds.prompt_tokens
        assert (low, high) == pytest.approx((300 * scale, 600 * scale), rel=0.15)


def test_before_enough_has_ended_the_first_thresholds_stand() -> None:
    first = Thresholds((1, 2), (3, 4))
    rolling = RollingTertiles(first=first)
    for number in range(29):
        rolling.observe(float(number), 500.0, 50.0)
    assert rolling.thresholds is first


def test_thresholds_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(ConfigError, match="prompt_tokens: 5 and 3"):
        Thresholds((5, 3))


@pytest.mark.parametrize("right_frac", [0.6, 0.81, 1.0])
def test_guesses_are_right_as_often_as_asked_and_know_the_prompt(right_frac: float) -> None:
    true = np.arange(9000) % 9
    guessed = NoisyLengths(right_frac).guess(true)
    assert (guessed == true).mean() == pytest.approx(right_frac, abs=0.02)
    assert (guessed // 3 == true // 3).all()
    assert set(guessed) == set(range(9))


def test_the_past_mix_of_a_prompt_class_is_learned_and_forgotten() -> None:
    past = PastMix(requests=20)
    assert past.shares(S) == pytest.approx({(S, S): 1 / 3, (S, M): 1 / 3, (S, L): 1 / 3})
    for _ in range(200):
        past.learn((S, L))
    assert past.shares(S)[S, L] > 0.99
    for _ in range(200):
        past.learn((S, M))
    assert past.shares(S)[S, M] > 0.99
    assert past.shares(M)[M, M] == pytest.approx(1 / 3)
