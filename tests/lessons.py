"""Lessons for the schools' tests; a module of its own, since the process that holds one imports where it comes from."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def doubled(values: NDArray[np.float64]) -> NDArray[np.float64]:
    print("a lesson may print")  # noqa: T201  # that is what is tested
    return 2.0 * values


def raising() -> None:
    raise ValueError("nothing to learn from")


def crashing() -> None:
    os._exit(3)


def hanging(started: Path) -> None:
    started.write_text(str(os.getpid()))
    signal.pause()


def manners() -> tuple[int, str]:
    return os.nice(0), os.environ["OPENBLAS_NUM_THREADS"]


def unpicklable() -> Callable[[], None]:
    return lambda: None
