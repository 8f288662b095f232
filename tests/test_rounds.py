import threading
from collections.abc import Iterator

import pytest

from collectors.rounds import PATIENCE_S, Workers
from tests.waiting import until


@pytest.fixture
def workers() -> Iterator[Workers]:
    workers = Workers()
    workers.grow(3)
    yield workers
    workers.dismiss()


def test_a_round_returns_what_jobs_return_and_raise(workers: Workers) -> None:
    answers = workers.do({"a": lambda: 1, "b": lambda: 1 / 0}, 5.0)
    assert answers["a"] == 1
    assert isinstance(answers["b"], ZeroDivisionError)
    assert workers.do({}, 5.0) == {}


def test_a_stuck_job_costs_the_others_no_more_than_patience(workers: Workers) -> None:
    stuck = threading.Event()
    answers = workers.do({"a": stuck.wait, "b": lambda: 2, "c": lambda: 3}, 10 * PATIENCE_S)
    assert answers == {"b": 2, "c": 3}
    assert set(workers.busy) == {"a"}
    assert workers.do({"b": lambda: 4}, 5.0) == {"b": 4}
    stuck.set()
    until(lambda: not workers.busy)


def test_what_was_not_begun_at_the_deadline_never_is() -> None:
    workers, stuck, ran = Workers(), threading.Event(), threading.Event()
    workers.grow(1)
    assert workers.do({"a": stuck.wait, "b": ran.set}, 2 * PATIENCE_S) == {}
    stuck.set()
    assert workers.do({"c": lambda: 5}, 5.0) == {"c": 5}
    assert not ran.is_set()
    workers.dismiss()


def test_slow_jobs_are_done_side_by_side(workers: Workers) -> None:
    meeting = threading.Barrier(3)
    answers = workers.do(dict.fromkeys("abc", lambda: meeting.wait(5.0)), 5.0)
    assert sorted(answers.values()) == [0, 1, 2]
