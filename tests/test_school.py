"""Both schools: what a lesson gives comes back once, and whatever it does, the row goes on."""

import os
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from polcad.ports import School
from polcad.school import Classroom
from polcad.school_process import ProcessSchool
from tests import lessons
from tests.waiting import until

BIG = np.arange(2_000_000, dtype=float)  # 16 MB each way: far more than a pipe holds


@pytest.fixture
def school() -> Iterator[ProcessSchool]:
    school = ProcessSchool(deadline_s=20.0)
    yield school
    school.close()


def outcome(school: School, lesson: Callable[[], Any]) -> tuple[Any, ...]:
    told: list[tuple[Any, ...]] = []

    def has_ended() -> bool:
        if (ended := school.ended()) is not None:
            told.append(ended)
        return bool(told)

    school.begin(lesson)
    until(has_ended, 20.0)
    assert school.ended() is None
    return told[0]


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_classroom_holds_the_lesson_at_once_and_tells_its_end_once() -> None:
    school = Classroom()
    assert school.ended() is None
    school.begin(lambda: None)
    assert school.ended() == (None,)
    assert school.ended() is None


def test_a_lesson_that_raises_in_a_classroom_is_counted_and_gives_nothing() -> None:
    school = Classroom()
    school.begin(lessons.raising)
    assert school.ended() == ()
    assert school.failed == 1


def test_a_process_school_that_never_taught_closes_at_once() -> None:
    school = ProcessSchool()
    assert school.ended() is None
    school.close()
    assert not school._thread.is_alive()


@pytest.mark.integration
def test_arrays_larger_than_any_pipe_go_to_the_process_and_back(school: ProcessSchool) -> None:
    (doubled,) = outcome(school, partial(lessons.doubled, BIG))
    assert (doubled == 2.0 * BIG).all()
    assert school.failed == 0


@pytest.mark.integration
def test_lessons_are_held_behind_everything_else_on_one_core(school: ProcessSchool) -> None:
    assert outcome(school, lessons.manners) == ((os.nice(0) + 10, "1"),)


@pytest.mark.integration
@pytest.mark.parametrize("lesson", [lessons.raising, lessons.crashing, lambda: None, lessons.unpicklable])
def test_a_lesson_that_cannot_be_held_is_counted_and_the_next_one_is(
    school: ProcessSchool, lesson: Callable[[], Any], caplog: pytest.LogCaptureFixture
) -> None:
    assert outcome(school, lesson) == ()
    assert school.failed == 1
    assert "a forecaster's lesson failed" in caplog.text
    assert outcome(school, partial(lessons.doubled, np.ones(1))) == (np.full(1, 2.0),)


@pytest.mark.integration
def test_a_lesson_that_hangs_is_killed_at_the_deadline(tmp_path: Path) -> None:
    school = ProcessSchool(deadline_s=2.0)
    assert outcome(school, partial(lessons.hanging, tmp_path / "pid")) == ()
    assert school.failed == 1
    assert gone(int((tmp_path / "pid").read_text()))
    school.close()


@pytest.mark.integration
def test_closing_kills_the_lesson_under_way(tmp_path: Path) -> None:
    school, pid_file = ProcessSchool(), tmp_path / "pid"
    school.begin(partial(lessons.hanging, pid_file))
    until(lambda: pid_file.exists() and bool(pid_file.read_text()), 20.0)
    school.close()
    assert gone(int(pid_file.read_text()))
    assert not any(thread.name == "polcad-school" for thread in threading.enumerate())
    assert school.failed == 0
