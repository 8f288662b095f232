"""Rounds of blocking calls with a deadline, for things of which one may hang for ever.

A round is begun by one worker, which takes job after job: while they are quick, that is the cheapest. If the round is
not done after `PATIENCE_S`, one worker for each job left joins in. At the deadline the round is over: what was not
begun never is, so nothing old is done late. A job that is still stuck keeps its worker and its name in `Workers.busy`.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from queue import SimpleQueue
from typing import Any

PATIENCE_S = 0.005  # how long one worker goes alone


class Round:
    """Jobs by UUID, their answers, and an end."""

    def __init__(self, jobs: Mapping[str, Callable[[], object]]) -> None:
        self._jobs = deque(jobs.items())
        self._total = len(jobs)
        self._answers: dict[str, Any] = {}
        self._done = threading.Event()

    def work(self, busy: dict[str, float]) -> None:
        """Do jobs until none is left; `busy` holds since when each of those under way runs."""
        while self._jobs:
            try:
                uuid, job = self._jobs.popleft()
            except IndexError:
                return  # another worker was quicker
            busy[uuid] = time.monotonic()
            answer = _answer(job)
            del busy[uuid]
            self._answers[uuid] = answer
            if len(self._answers) == self._total:
                self._done.set()

    def wait(self, timeout_s: float) -> bool:
        """Whether all jobs were done in time."""
        return not self._total or self._done.wait(max(timeout_s, 0.0))

    def left(self) -> int:
        """How many jobs nobody has begun."""
        return len(self._jobs)

    def end(self) -> dict[str, Any]:
        """Let nothing more begin; what was answered."""
        self._jobs.clear()
        return dict(self._answers)


class Workers:
    """Threads that do rounds; `busy` names the GPUs whose job is under way, with its start."""

    def __init__(self) -> None:
        self.busy: dict[str, float] = {}
        self._threads = 0
        self._calls: SimpleQueue[Round | None] = SimpleQueue()

    def grow(self, threads: int) -> None:
        """Have at least so many."""
        for number in range(self._threads, threads):
            threading.Thread(target=self._run, name=f"nvml-{number}", daemon=True).start()
        self._threads = max(self._threads, threads)

    def join(self, current: Round, workers: int) -> None:
        """Call so many to a round."""
        for _ in range(workers):
            self._calls.put(current)

    def do(self, jobs: Mapping[str, Callable[[], object]], deadline_s: float) -> dict[str, Any]:
        """A whole round: the answers that came in time."""
        current = Round(jobs)
        self.join(current, 1)
        if not current.wait(min(PATIENCE_S, deadline_s)):
            self.join(current, current.left())
            current.wait(deadline_s - PATIENCE_S)
        return current.end()

    def dismiss(self) -> None:
        """Let every thread end when it is free."""
        for _ in range(self._threads):
            self._calls.put(None)

    def _run(self) -> None:
        while (current := self._calls.get()) is not None:
            current.work(self.busy)


def _answer(job: Callable[[], object]) -> object:
    """What the job returns, or what it raises."""
    try:
        return job()
    except Exception as error:  # noqa: BLE001 - whatever one GPU's work raises is that GPU's answer
        return error
