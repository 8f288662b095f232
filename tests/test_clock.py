import asyncio
import time

import pytest

from polcad.clock import STEP_S, SteadyClock
from polcad.testing import ManualClock


class Clocks:
    """A wall clock that can be set, and a monotonic one that cannot."""

    def __init__(self) -> None:
        self.wall_t, self.monotonic_s = 1_000_000.0, 50.0

    def pass_s(self, seconds: float) -> None:
        self.wall_t += seconds
        self.monotonic_s += seconds

    def steady(self) -> SteadyClock:
        return SteadyClock(lambda: self.wall_t, lambda: self.monotonic_s)


@pytest.mark.parametrize("step_s", [3600.0, -3600.0, -1.0, -900_000.0])
def test_a_wall_clock_that_is_set_moves_no_time_of_ours_and_every_time_that_is_told(step_s: float) -> None:
    clocks = Clocks()
    clock = clocks.steady()
    clocks.pass_s(10.0)
    clocks.wall_t += step_s
    clocks.pass_s(5.0)

    assert clock.now() == pytest.approx(1_000_015.0)
    assert clock.told(clock.now()) == pytest.approx(clocks.wall_t)
    assert clock.own(clocks.wall_t) == pytest.approx(clock.now())
    clocks.wall_t -= step_s
    assert clock.told(clock.now()) == pytest.approx(clocks.wall_t)


def test_told_times_do_not_jitter_with_what_is_slewed() -> None:
    clocks = Clocks()
    clock = clocks.steady()
    clocks.wall_t += STEP_S / 2

    assert clock.told(clock.now()) == clock.now()


def test_a_wall_clock_that_drifts_is_followed() -> None:
    clocks = Clocks()
    clock = clocks.steady()
    for _ in range(1000):
        clocks.pass_s(0.1)
        clocks.wall_t += 0.001
        assert abs(clock.told(clock.now()) - clocks.wall_t) <= STEP_S + 1e-6


def test_a_program_that_stood_still_between_two_clocks_takes_it_for_no_step() -> None:
    clocks = Clocks()

    def wall_t() -> float:
        clocks.pass_s(3.0)
        return clocks.wall_t

    clock = SteadyClock(wall_t, lambda: clocks.monotonic_s)
    assert clock.told(7.0) == 7.0


def test_steady_clock_starts_at_unix_time() -> None:
    assert SteadyClock().now() == pytest.approx(time.time(), abs=1.0)


def test_steady_clock_never_returns_before_its_time() -> None:
    async def overslept_s() -> float:
        clock = SteadyClock()
        t = clock.now() + 0.01
        await clock.sleep_until(t)
        return clock.now() - t

    assert asyncio.run(overslept_s()) >= 0.0


def test_steady_clock_lets_others_run_when_the_time_has_passed() -> None:
    async def ran() -> list[str]:
        order: list[str] = []
        asyncio.get_running_loop().call_soon(order.append, "other")
        await SteadyClock().sleep_until(0.0)
        return [*order, "sleeper"]

    assert asyncio.run(ran()) == ["other", "sleeper"]


def test_manual_clock_wakes_only_those_whose_time_has_come() -> None:
    async def woken() -> list[float]:
        clock, order = ManualClock(100.0), []

        async def sleeper(t: float) -> None:
            await clock.sleep_until(t)
            order.append(t)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(sleeper(t)) for t in (103.0, 101.0, 99.0)]
            await tasks[2]
            clock.advance(1.5)
            await tasks[1]
            assert not tasks[0].done()
            clock.advance(2.0)
        return order

    assert asyncio.run(woken()) == [99.0, 101.0, 103.0]
