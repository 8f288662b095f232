import asyncio
import time

import pytest

from polcad.clock import SteadyClock
from polcad.testing import ManualClock


def test_steady_clock_ignores_a_wall_clock_that_jumps(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SteadyClock()
    before = clock.now()
    monkeypatch.setattr(time, "time", lambda: 0.0)

    assert 0.0 <= clock.now() - before < 5.0


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
