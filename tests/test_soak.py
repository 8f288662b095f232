"""The soak judges: what is flat is found flat, and what leaks is found out."""

import os
import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.soak.feed import HOUR_S, load
from tests.soak.gauge import MOST_KIB, Sample, judge, sample


def day(anonymous_kib: Callable[[float], float], descriptors: Callable[[float], int] = lambda _: 9) -> list[Sample]:
    """Samples of a day, of a process with so much memory and so many descriptors at each part of it."""
    parts = [place / 200 for place in range(201)]
    return [Sample(part, 90_000, int(anonymous_kib(part)), descriptors(part), 4) for part in parts]


def test_a_process_that_fills_its_buffers_and_then_goes_up_and_down_is_flat() -> None:
    verdict = judge(day(lambda part: 70_000 + 40_000 * min(part, 0.2) + (500 if int(200 * part) % 2 else 0)))
    assert verdict.broken() == []
    assert abs(verdict.growth_kib) < 100.0


def test_a_process_that_leaks_a_little_all_day_is_found_out() -> None:
    verdict = judge(day(lambda part: 70_000 + 1.1 * MOST_KIB * part))
    assert verdict.growth_kib == pytest.approx(1.1 * MOST_KIB, rel=0.01)
    assert "memory grows" in verdict.broken()[0]


def test_a_descriptor_that_is_left_open_is_found_out_and_one_that_comes_and_goes_is_not() -> None:
    assert judge(day(lambda _: 70_000, lambda part: 9 + (part > 0.6))).broken() == ["descriptors went from 9 to 10"]
    assert judge(day(lambda _: 70_000, lambda part: 9 + (int(200 * part) % 7 == 0))).broken() == []


def test_a_process_is_sampled_as_it_is() -> None:
    before = sample(os.getpid(), 0.5)
    with Path(os.devnull).open("rb"):
        stop = threading.Event()
        thread = threading.Thread(target=stop.wait)
        thread.start()
        after = sample(os.getpid(), 0.5)
        stop.set()
        thread.join()
    assert (after.descriptors - before.descriptors, after.threads - before.threads) == (1, 1)
    assert after.rss_kib > after.anonymous_kib > 0


def test_the_load_of_a_day_drives_a_row_over_its_budget_and_leaves_it_free() -> None:
    rng = random.Random(7)  # noqa: S311  # the same day each time
    loads = [load(second, rng) for second in range(0, 24 * HOUR_S, 60)]
    assert max(loads) > 0.9
    assert min(loads) < 0.3
