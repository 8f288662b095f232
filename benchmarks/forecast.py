"""Forecasters alone: what bounding many domains costs a core, and how long a lesson beside it holds up a tick.

    python benchmarks/forecast.py [--domains 500] [--steps 1000] [--lessons 2] [--json]

Every 2 s a step: one observation, and the four bounds that a live daemon asks for (40 s and 300 s, median and 99 %).
The first steps are warm-up, with lessons held at once; then each step is timed. A forecaster that learns then goes on
with lessons in a process of their own: timed are the steps while one is under way, one in 50 ms, with what the daemon
does for it (collect it, hand it over, take its result), and how late they begin. Targets: 25 % of a core; a tick
delayed by at most 5 ms.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import dataclass, field

import numpy as np

from polcad.places import Floats
from polcad.plugins import load, names
from polcad.ports import Forecaster, Learner, School
from polcad.school import Classroom
from polcad.school_process import ProcessSchool

STEP_S, HORIZONS_S, QUANTILES = 2.0, (40.0, 300.0), (0.5, 0.99)
PACE_S = 0.05  # between two steps beside lessons
T0 = 1_760_000_000.0
ALONE_STEPS = 100
LONGEST_S = 120.0  # to wait for a lesson

Timed = tuple[float, float]  # seconds that a step began late, and took


@dataclass(slots=True)
class Bench:
    """A forecaster and the racks that it watches: each wanders about its level, and bursts now and then."""

    forecaster: Forecaster
    domains: int
    steps: int = 0
    in_lesson: bool = False
    lessons: int = 0
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(7))
    state: Floats = field(default_factory=lambda: np.zeros(0))

    def step(self, school: School) -> float:
        """Seconds that one step took, with its lesson's begin or end."""
        demand_w = self._demand_w()
        t = T0 + STEP_S * self.steps
        start_s = time.perf_counter()
        self.forecaster.observe(t, demand_w, np.ones(self.domains, dtype=bool))
        for horizon_s in HORIZONS_S:
            for q in QUANTILES:
                self.forecaster.upper(horizon_s, q)
        if isinstance(self.forecaster, Learner):
            self._learn(self.forecaster, school, t)
        return time.perf_counter() - start_s

    def _learn(self, learner: Learner, school: School, t: float) -> None:
        if self.in_lesson:
            ended = school.ended()
            self.in_lesson = ended is None
            if ended:
                learner.learn(*ended)
                self.lessons += 1
        if not self.in_lesson and (lesson := learner.lesson(t)):
            school.begin(lesson)
            self.in_lesson = True

    def _demand_w(self) -> Floats:
        if not self.steps:
            self.state = np.zeros(self.domains)
        self.steps += 1
        burst = self.rng.random(self.domains) < 0.01
        self.state = 0.97 * self.state + self.rng.normal(0.0, 400.0, self.domains) + 4000.0 * burst
        demand_w: Floats = 40_000.0 + self.state
        return demand_w


def cost(bench: Bench, steps: int) -> dict[str, float]:
    """Of one step, after as many for warm-up."""
    school = Classroom()
    for _ in range(steps):
        bench.step(school)
    taken_s: list[float] = []
    while len(taken_s) < steps:
        lessons, in_lesson = bench.lessons, bench.in_lesson
        each_s = bench.step(school)
        if (bench.lessons, bench.in_lesson) == (lessons, in_lesson):  # live, a lesson is held elsewhere
            taken_s.append(each_s)
    return {
        "median_ms": 1e3 * statistics.median(taken_s),
        "p99_ms": 1e3 * float(np.quantile(taken_s, 0.99)),
        "core_frac": statistics.fmean(taken_s) / STEP_S,
    }


def beside_lessons(bench: Bench, lessons: int) -> dict[str, float]:
    """Steps at a steady pace, first while nobody learns, then while lessons are held in a process of their own.

    Between lessons the steps hurry to the next.
    """
    alone: list[Timed] = []
    beside: list[Timed] = []
    school, begun, until_s = ProcessSchool(), bench.lessons, time.perf_counter() + lessons * LONGEST_S
    try:
        while bench.lessons - begun < lessons and time.perf_counter() < until_s:
            learns, paced = bench.in_lesson, bench.in_lesson or len(alone) < ALONE_STEPS
            start_s = time.perf_counter() + PACE_S * paced
            time.sleep(PACE_S * paced)
            late_s = time.perf_counter() - start_s if paced else 0.0
            timed = late_s, bench.step(school)
            if learns or bench.in_lesson:  # the steps that begin a lesson and take its result, too
                beside.append(timed)
            elif paced:
                alone.append(timed)
    finally:
        school.close()
    return {
        "lessons": bench.lessons - begun,
        **{f"{name}_alone_ms": value for name, value in _worst(alone).items()},
        **{f"{name}_beside_ms": value for name, value in _worst(beside).items()},
    }


def _worst(steps: list[Timed]) -> dict[str, float]:
    late_s, taken_s = (np.array([each[place] for each in steps] or [np.nan]) for place in (0, 1))
    return {
        "step_median": 1e3 * float(np.median(taken_s)),
        "step_most": 1e3 * float(taken_s.max()),
        "late_p99": 1e3 * float(np.quantile(late_s, 0.99)),
        "late_most": 1e3 * float(late_s.max()),
    }


def measure(name: str, domains: int, steps: int, lessons: int) -> dict[str, float]:
    """One forecaster's figures."""
    made: Forecaster = load("polcad.forecasters", name)(
        domains=domains, step_s=STEP_S, horizons_s=HORIZONS_S, quantiles=QUANTILES
    )
    bench = Bench(made, domains)
    found = cost(bench, steps)
    return found | beside_lessons(bench, lessons) if isinstance(made, Learner) else found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--domains", type=int, default=500)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--lessons", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = {
        name: measure(name, options.domains, options.steps, options.lessons) for name in names("polcad.forecasters")
    }
    if options.json:
        print(json.dumps({"domains": options.domains, **found}))
        return
    print(f"{options.domains} domains, a step every {STEP_S:g} s:\n")
    print(f"{'':16}{'median':>12}{'P99':>12}{'of a core':>12}")
    for name, row in found.items():
        print(f"{name:16}{row['median_ms']:>9.2f} ms{row['p99_ms']:>9.2f} ms{row['core_frac']:>12.2%}")
    for name, row in found.items():
        if "lessons" in row:
            print(f"\n{name}, {row['lessons']:.0f} lessons in a process beside it:")
            for when in ("alone", "beside"):
                shown = [f"{each.replace('_', ' ')} {row[f'{each}_{when}_ms']:.2f} ms" for each in _worst([])]
                print(f"  {when:8}{', '.join(shown)}")


if __name__ == "__main__":
    main()
