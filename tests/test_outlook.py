from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from polcad.model import Event, EventKind
from polcad.outlook import Foresight, Outlooks
from polcad.places import Flags, Floats
from polcad.school import Classroom
from polcad.spec import GuardSpec

GUARD = GuardSpec(tick_s=1.0, latency_s=2.0)
MINUTES_10 = 600


class Margin:
    """Bounds by a fixed margin over the last value; `lesson` sets it anew, once, at second 5."""

    def __init__(
        self, domains: int, step_s: float, horizons_s: tuple[float, ...], quantiles: tuple[float, ...]
    ) -> None:
        self.asked = (domains, step_s, horizons_s, quantiles)
        self.margin_w, self.last_w = 10.0, np.full(domains, np.nan)
        self.learned: list[float] = []

    def observe(self, t: float, demand_w: Floats, steady: Flags) -> None:  # noqa: ARG002  # the port's
        self.last_w = demand_w

    def upper(self, horizon_s: float, q: float) -> Floats:  # noqa: ARG002  # the port's
        return self.last_w + (self.margin_w if q > 0.5 else 0.0)

    def lesson(self, t: float) -> Callable[[], Any] | None:
        return (lambda: 30.0) if t == 5.0 else None

    def learn(self, result: float) -> None:
        self.learned.append(result)
        self.margin_w = result


def outlooks(domains: int = 1) -> tuple[Outlooks, Margin]:
    made: list[Margin] = []

    def make(**asked: Any) -> Margin:
        made.append(Margin(**asked))
        return made[0]

    scopes = ["row", *(f"rack/r{n}" for n in range(1, domains))]
    return Outlooks(scopes, GUARD, Foresight(make, Classroom())), made[0]


def feed(looking: Outlooks, demands_w: list[float], start_t: float = 0.0, *, steady: bool = True) -> list[Event]:
    return [
        event
        for step, demand_w in enumerate(demands_w)
        for event in looking.observe(start_t + step, np.array([demand_w]), np.array([steady]))
    ]


def test_the_forecaster_is_asked_for_the_latency_the_hold_and_the_median() -> None:
    _, forecaster = outlooks(3)
    assert forecaster.asked == (3, 1.0, (2.0, 300.0), (0.5, 0.99))


def test_a_bound_is_doubted_until_ten_minutes_of_it_were_judged() -> None:
    looking, _ = outlooks()
    told = feed(looking, [100.0] * (MINUTES_10 + 1))
    outlook = looking.of(0)
    assert told == []
    assert outlook is not None
    assert "are needed" in outlook.doubt
    told = feed(looking, [100.0] * 5, MINUTES_10 + 1)
    assert [event.kind for event in told] == [EventKind.FORECAST_OK]
    outlook = looking.of(0)
    assert outlook is not None
    assert (outlook.doubt, outlook.coverage, outlook.error_frac) == ("", 1.0, 0.0)


def test_bounds_that_do_not_hold_are_doubted_and_it_is_told_once() -> None:
    looking, _ = outlooks()
    feed(looking, [100.0] * 1000)
    jumps = [100.0 if step % 10 else 200.0 for step in range(500)]
    told = feed(looking, jumps, 1000.0)
    assert [event.kind for event in told] == [EventKind.FORECAST_DOUBTED]
    assert "of the last hour's bounds held" in told[0].detail
    outlook = looking.of(0)
    assert outlook is not None
    assert outlook.coverage is not None
    assert outlook.coverage < 0.95


def test_coverage_is_the_share_of_the_bounds_over_the_peak_of_their_time() -> None:
    looking, forecaster = outlooks()
    forecaster.margin_w = 10.0
    feed(looking, [100.0] * 4 + [150.0] + [100.0] * 6)  # two seconds ahead: the bounds of seconds 2 and 3 break
    outlook = looking.of(0)
    assert outlook is not None
    assert outlook.coverage == pytest.approx(7 / 9)


def test_unsteady_steps_and_gaps_are_not_judged() -> None:
    for unsteady in (True, False):
        looking, _ = outlooks()
        feed(looking, [100.0] * 5)
        if unsteady:
            feed(looking, [500.0] * 3, 5.0, steady=False)
            feed(looking, [100.0] * 5, 8.0)
        else:
            feed(looking, [500.0] * 5, 100.0)
        outlook = looking.of(0)
        assert outlook is not None
        assert outlook.coverage == 1.0


def test_what_is_not_known_has_no_outlook() -> None:
    looking, _ = outlooks()
    feed(looking, [100.0, float("nan")])
    assert looking.of(0) is None


def test_ticks_that_come_faster_than_a_step_are_left_out() -> None:
    looking, forecaster = outlooks()
    feed(looking, [100.0])
    looking.observe(0.5, np.array([300.0]), np.array([True]))
    assert forecaster.last_w.tolist() == [100.0]


def test_a_lesson_is_held_elsewhere_and_its_result_is_taken() -> None:
    looking, forecaster = outlooks()
    feed(looking, [100.0] * 10)
    assert forecaster.learned == [30.0]
    outlook = looking.of(0)
    assert outlook is not None
    assert outlook.upper_w == 130.0


def test_a_forecaster_that_raises_is_told_of_once_and_the_row_goes_on_without_it() -> None:
    looking, forecaster = outlooks()
    feed(looking, [100.0] * 5)
    assert looking.of(0) is not None
    forecaster.observe = None  # type: ignore[assignment,method-assign]  # calling it raises
    told = feed(looking, [100.0] * 5, 5.0)
    assert [event.kind for event in told] == [EventKind.FORECAST_DOUBTED]
    assert "the forecaster failed" in told[0].detail
    assert looking.of(0) is None
