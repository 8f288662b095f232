"""Runs cases, each on a row of its own in a process of its own, some at the same time."""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path

from tests.chaos.case import Case
from tests.chaos.cases import CASES, LONG
from tests.chaos.run import Outcome, run_case
from tests.fake_nvml.control import build

BY_NAME = {case.name: case for case in (*CASES, *LONG)}


@dataclass(frozen=True, slots=True)
class Options:
    """How often, with which random numbers, how many rows at the same time, how many times longer all stays broken."""

    runs: int = 10
    seed: int = 7
    jobs: int = 4
    stretch: float = 1.0


def say(text: str) -> None:
    """A line for whoever waits."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def one(name: str, options: Options, lib_dir: Path) -> Outcome:
    """A case, in a process of its own; one whose row cannot even be built is a failure, and not the bench's end."""
    case = BY_NAME[name]
    shortest_s, longest_s = case.hold_s
    stretched = replace(case, hold_s=(options.stretch * shortest_s, options.stretch * longest_s))
    try:
        return run_case(stretched, options.runs, options.seed, lib_dir, say)
    except (AssertionError, OSError, RuntimeError) as error:
        return Outcome(name, broken=[f"the row did not come up, or calm down: {error}"])


def outcomes(cases: Sequence[Case], options: Options) -> Iterator[Outcome]:
    """Every case as soon as it is through."""
    spawn = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory(prefix="polcad-chaos-nvml-") as folder,
        ProcessPoolExecutor(options.jobs, mp_context=spawn) as pool,
    ):
        lib_dir = build(Path(__file__).parents[1] / "fake_nvml" / "nvml.c", Path(folder) / "lib")
        running = [pool.submit(one, case.name, options, lib_dir) for case in cases]
        for done in as_completed(running):
            yield done.result()
