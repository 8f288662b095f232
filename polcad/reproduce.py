"""``polcad reproduce polca``: POLCA's comparison on the simulated row, over seeds, in parallel.

A `Case` is one row under one policy. Every case is run with the same seeds, so that policies are compared on the same
requests. What the paper says stands in `polcad.reproduction`, which writes the tables.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from dataclasses import dataclass

from polcad.errors import ConfigError
from polcad.plugins import load
from polcad.sim.row import RowModel, simulate
from polcad.simulate import SimulateOptions, summary

POLICIES = ("no_cap", "one_threshold_low", "one_threshold_all", "polca", "three_band")
SERVERS = (40, 44, 48, 52, 56, 60)
CANDIDATES = ((0.75, 0.85), (0.80, 0.89), (0.85, 0.95))
BEYOND = ("phase_aware", "graded")
OUT, IN = "out-of-band", "in-band"
FAST: tuple[tuple[str, tuple[tuple[str, float], ...]], ...] = (  # nearer to the budget, since settings act in a second
    ("polca", (("t1_frac", 0.88), ("t2_frac", 0.93))),
    ("polca", (("t1_frac", 0.91), ("t2_frac", 0.96))),
    ("phase_aware", (("t1_frac", 0.88), ("deep_frac", 0.92), ("t2_frac", 0.96))),
)
_TAKEN = ("peak_frac", "mean_frac", "rise_2s_frac", "rise_40s_frac", "brakes", "seconds_over_budget")
_FELT = ("high_p50_slowdown", "high_p99_slowdown", "low_p50_slowdown", "low_p99_slowdown", "throughput_frac")
FIGURES = (*_TAKEN, *_FELT, "capped_hours_high", "capped_hours_low")


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the comparison; `options` of the policy as pairs, so that a case can be a key.

    `weeks` instead of the comparison's: peaks and brakes are rare, and need a longer look than slowdowns.
    """

    servers: int
    policy: str
    options: tuple[tuple[str, float | str], ...] = ()
    actuation: str = OUT
    hungrier_frac: float = 0.0
    weeks: float | None = None

    def model(self, weeks: float, seed: int) -> RowModel:
        """The row; a policy that looks at phases is told them."""
        options = SimulateOptions(
            self.servers,
            weeks=weeks if self.weeks is None else self.weeks,
            policy=self.policy,
            seed=seed,
            actuation=self.actuation,
            hungrier_frac=self.hungrier_frac,
        )
        return options.model(load("polcad.policies", self.policy)(**dict(self.options)))


def thresholds(t1_frac: float, t2_frac: float) -> tuple[tuple[str, float], ...]:
    """POLCA's options for two thresholds."""
    return (("t1_frac", t1_frac), ("t2_frac", t2_frac))


def acceptance(weeks: float) -> tuple[Case, Case, Case]:
    """The rows that a faithful model must get right: 40 servers, 52 without a cap, 52 under POLCA."""
    return Case(40, "no_cap", weeks=weeks), Case(52, "no_cap", weeks=weeks), Case(52, "polca", weeks=weeks)


def aim(weeks: float) -> tuple[Case, Case]:
    """40 % more servers than the budget was made for, by the policy that asks a little of everybody."""
    return Case(56, "graded", actuation=OUT, weeks=weeks), Case(56, "graded", actuation=IN, weeks=weeks)


def cases(acceptance_weeks: float) -> tuple[Case, ...]:
    """The whole comparison, the longest runs first: two processes then end together."""
    grid = [Case(servers, policy) for servers in SERVERS for policy in POLICIES]
    searched = [Case(52, "polca", thresholds(*pair)) for pair in CANDIDATES if pair != (0.80, 0.89)]
    hungrier = [Case(52, policy, hungrier_frac=0.05) for policy in POLICIES]
    beyond = [Case(servers, "polca", actuation=IN) for servers in (52, 56, 60)]
    beyond += [Case(servers, name, actuation=path) for servers in (52, 56) for name in BEYOND for path in (OUT, IN)]
    beyond += [Case(60, "graded", actuation=IN)]
    beyond += [Case(servers, *way, actuation=IN) for servers in (52, 56) for way in FAST]
    every = dict.fromkeys([*acceptance(acceptance_weeks), *aim(acceptance_weeks), *grid, *searched, *hungrier, *beyond])
    return tuple(sorted(every, key=lambda case: (case.weeks is None, case.policy == "no_cap", -case.servers)))


Figures = Mapping[str, float]
Results = dict[Case, list[Figures]]


def run(
    weeks: float, seeds: Sequence[int], processes: int, done: Callable[[int], None], wanted: Sequence[Case]
) -> Results:
    """Every wanted case with every seed; ConfigError for options that mean nothing. `done` hears of each run."""
    if not seeds or processes < 1:
        raise ConfigError(f"--seeds {len(seeds)} and --processes {processes} must be at least 1")
    for case in wanted:
        case.model(weeks, 1)  # what cannot be is told before an hour is spent
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as executor:
        found = dict(_gathered(executor, wanted, weeks, seeds, done))
    return {case: [found[case, seed] for seed in seeds] for case in wanted}


def _gathered(
    executor: Executor, wanted: Sequence[Case], weeks: float, seeds: Sequence[int], done: Callable[[int], None]
) -> Iterator[tuple[tuple[Case, int], Figures]]:
    started = {executor.submit(one, case, weeks, seed): (case, seed) for case in wanted for seed in seeds}
    for future in as_completed(started):
        yield started[future], future.result()
        done(1)


def one(case: Case, weeks: float, seed: int) -> Figures:
    """The figures of one run."""
    result = simulate(case.model(weeks, seed))
    told = summary(SimulateOptions(case.servers, weeks=weeks, policy=case.policy, seed=seed), result, 0.0)
    return {name: float(told[name]) for name in FIGURES}
