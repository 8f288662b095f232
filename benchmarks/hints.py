"""Scaling hints: one decision of the whole cluster level, one of the clock level, and an hour of a simulated cluster.

    python benchmarks/hints.py [--servers 300] [--rounds 10]

Aims: 500 ms for 300 servers and nine kinds of requests, 20 ms for the clocks of 2400 GPUs, five minutes for a week of
40 servers (168 of the hours measured here).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from time import perf_counter, process_time

import numpy as np

from polcad.cluster.nouns import KINDS, ClusterView, Demand
from polcad.cluster.profiles import LLAMA2_70B_H100, isolated_slo
from polcad.simulate_cluster import ClusterOptions, timed
from policies.dynamo import Dynamo
from policies.dynamo_clocks import InstanceClocks

GPUS_A_SERVER, REQUESTS_A_SERVER = 8, 0.5


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--servers", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    view = view_of(options.servers)
    planner = Dynamo()
    plans = planner.decide(view)  # the solver is imported once
    print(f"{options.servers} servers, {len(KINDS)} kinds of requests, {options.rounds} rounds: median and longest\n")
    show("cluster level: one decision", [spent(lambda: Dynamo().decide(view)) for _ in range(options.rounds)])
    gpus = GPUS_A_SERVER * options.servers
    clocks = InstanceClocks([planner.table(plan.pool) for plan in plans])
    draws = np.random.default_rng(1)
    pool_of, rates = draws.integers(0, len(plans), gpus), draws.uniform(0.0, 5.0, gpus)
    none = np.full(gpus, np.nan)
    took_s = [spent(lambda: clocks.choose(pool_of, rates, none)) for _ in range(options.rounds)]
    show(f"clock level: {gpus} instances", took_s)
    timed(ClusterOptions("dynamo", 9, week="conv", hours=0.05))  # compiles
    start = process_time()
    timed(ClusterOptions("dynamo", 40, week="conv", hours=1.0))
    print(f"{'an hour of 40 simulated servers, CPU':48}{process_time() - start:8.2f} s")


def view_of(servers: int) -> ClusterView:
    """A cluster that is about half loaded, alike with every kind."""
    prompts, outputs = {"s": 200.0, "m": 700.0, "l": 2200.0}, {"s": 40.0, "m": 180.0, "l": 430.0}
    rate = REQUESTS_A_SERVER * servers / len(KINDS)
    demand = {kind: Demand(rate, prompts[kind[0].value], outputs[kind[1].value]) for kind in KINDS}
    slo = {
        kind: isolated_slo(LLAMA2_70B_H100, Demand(0.0, 2 * each.prompt_tokens, 2 * each.output_tokens))
        for kind, each in demand.items()
    }
    peak = {kind: each.times(1.2) for kind, each in demand.items()}
    return ClusterView(0.0, GPUS_A_SERVER * servers, demand, peak, slo)


def spent(work: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    start = perf_counter()
    work()
    return perf_counter() - start


def show(what: str, took_s: list[float]) -> None:
    """One line."""
    ordered = sorted(took_s)
    print(f"{what:48}{1e3 * ordered[len(ordered) // 2]:8.2f} ms{1e3 * ordered[-1]:8.2f} ms")


if __name__ == "__main__":
    main()
