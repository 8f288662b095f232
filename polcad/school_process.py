"""Where a live daemon's lessons are held: in a Python of its own for each, so that its memory goes back.

A thread waits until the tick is over, starts the process, hands it the lesson and waits for what it gives; pickling
straight into the pipe and out of it lets the daemon's thread run meanwhile. Whatever happens to the process, its pipe
ends, and that is the end of the lesson.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from math import ceil
from queue import Empty, SimpleQueue
from typing import Any

_LOG = logging.getLogger(__name__)

_NICE = 10  # below the daemon and the broker
_AFTER_TICK_S = 0.1
_CLOSE_S = 5.0  # for the thread of a killed process to end
_ONE_CORE = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class ProcessSchool:
    """A `School` whose lessons are killed after `deadline_s`; `failed` counts those that crashed, raised or hung."""

    def __init__(self, deadline_s: float = 120.0) -> None:
        self.failed = 0
        self._deadline_s = deadline_s
        self._lessons: SimpleQueue[Callable[[], Any]] = SimpleQueue()
        self._results: SimpleQueue[tuple[Any, ...]] = SimpleQueue()
        self._closing = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._serve, name="polcad-school", daemon=True)
        self._thread.start()

    def begin(self, lesson: Callable[[], Any]) -> None:
        """Have the lesson held, as `School` tells."""
        self._lessons.put(lesson)

    def ended(self) -> tuple[Any, ...] | None:
        """What the lesson gave, once, as `School` tells."""
        try:
            return self._results.get_nowait()
        except Empty:
            return None

    def close(self) -> None:
        """Kill what is under way; no lesson is held from here on."""
        self._closing.set()
        self._lessons.put(_nothing)
        self._kill()
        self._thread.join(_CLOSE_S)

    def _serve(self) -> None:
        while not self._closing.is_set():
            lesson = self._lessons.get()
            if not self._closing.wait(_AFTER_TICK_S):
                self._results.put(self._held(lesson))

    def _held(self, lesson: Callable[[], Any]) -> tuple[Any, ...]:
        deadline = threading.Timer(self._deadline_s, self._kill)
        deadline.start()
        try:
            return (self._result(lesson),)
        except Exception as error:  # noqa: BLE001  # a lesson may not pickle, and a dead process breaks its pipe anyhow
            if not self._closing.is_set():
                self.failed += 1
                code = self._process.returncode if self._process else None
                _LOG.warning("a forecaster's lesson failed: exit code %s, %s: %s", code, type(error).__name__, error)
            return ()
        finally:
            deadline.cancel()

    def _result(self, lesson: Callable[[], Any]) -> Any:
        with subprocess.Popen(  # noqa: S603  # our own interpreter and module
            (sys.executable, "-m", __name__, str(ceil(self._deadline_s))),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | _ONE_CORE | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            start_new_session=True,  # an interrupt at the terminal is the daemon's affair
        ) as self._process:
            if self._closing.is_set():
                self._kill()
            return _exchanged(self._process, lesson)

    def _kill(self) -> None:
        if self._process:
            self._process.kill()


def _nothing() -> None:
    """The lesson that wakes the thread to its end."""


def _exchanged(process: subprocess.Popen[bytes], lesson: Callable[[], Any]) -> Any:
    stdin, stdout = process.stdin, process.stdout
    if not (stdin and stdout):
        raise ValueError("the process was started without pipes")
    pickle.dump(lesson, stdin, pickle.HIGHEST_PROTOCOL)
    stdin.close()
    return pickle.load(stdout)  # noqa: S301  # from our own process


def attend(deadline_s: int) -> None:
    """Hold the lesson that comes in on standard input: what the process does; it ends at the deadline by itself too."""
    signal.alarm(deadline_s)
    os.nice(_NICE)
    with os.fdopen(os.dup(1), "wb") as answer:
        os.dup2(2, 1)  # a lesson may print
        lesson = pickle.load(sys.stdin.buffer)  # noqa: S301  # from the daemon that started us
        pickle.dump(lesson(), answer, pickle.HIGHEST_PROTOCOL)


if __name__ == "__main__":
    attend(int(sys.argv[1]))
