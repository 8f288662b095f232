"""What a simulated row came to: figures, and series small enough to keep and draw."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from polcad.model import Event, Priority, Rule
from polcad.sim.inject import Injection
from polcad.sim.profiles import Floats

Singles = NDArray[np.float32]

QUANTILES = np.concatenate([np.linspace(0.0, 0.99, 100), np.linspace(0.991, 1.0, 10)])  # of slowdowns and powers
MINUTE_S = 60


@dataclass(frozen=True, slots=True)
class Slowdown:
    """Of the requests of one priority: latency over the twin's, less 1; the quantiles are at `QUANTILES`."""

    requests: int
    p50: float
    p99: float
    quantiles: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class PlanChange:
    """The rules of a plan, from `at_s` since the start."""

    at_s: float
    rules: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class FaultEdge:
    """An injected fault begins, or ends."""

    at_s: float
    fault: Injection
    begins: bool


@dataclass(frozen=True, slots=True)
class Duration:
    """Power, fractions of the budget, at `QUANTILES` of time: of the row, and of its twins."""

    row: tuple[float, ...]
    uncapped: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Minutes:
    """Series by the minute, columns of one length. Powers are fractions of the budget."""

    power_min: Singles
    power_mean: Singles
    power_max: Singles
    uncapped_max: Singles  # of the twins: what the row would draw
    clock: dict[Priority, Singles]  # mean lock in force on a priority's servers, as the minute begins


@dataclass(frozen=True, slots=True)
class RowResult:
    """Fractions (`_frac`) are of the budget; slowdowns .05 are 5 %; capped hours are means over a priority's servers.

    `brakes` counts how often the controller braked. `rise_` is the largest rise of the row's power within so many
    seconds, at the step of the model; `ramp_w_per_s` within one step. `throughput_frac` is output tokens made, over
    those of the twins. `uncapped_peak_frac` is the twins' peak.
    """

    servers: int
    weeks: float
    policy: str
    seed: int
    budget_w: float
    peak_frac: float
    mean_frac: float
    uncapped_peak_frac: float
    rise_2s_frac: float
    rise_40s_frac: float
    ramp_w_per_s: float
    brakes: int
    seconds_over_budget: float
    capped_hours: dict[Priority, float]
    slowdown: dict[Priority, Slowdown]
    throughput_frac: float
    energy_kwh: float
    gpu_energy_kwh: float
    requests: int
    finished: int
    duration: Duration
    minutes: Minutes
    plans: tuple[PlanChange, ...]  # at most the first 20 000, as the events
    events: tuple[Event, ...]
    faults: tuple[FaultEdge, ...]
    counters: dict[str, int]  # of the controller


def rise(power: Singles, steps: int) -> float:
    """The largest rise from any earlier value at most `steps` before, in the unit of `power`; 0 where it only falls."""
    lowest, width = power.copy(), 1
    while width <= steps:  # `lowest` covers `width` values; double, and do not overshoot
        shift = min(width, steps + 1 - width)
        lowest[shift:] = np.minimum(lowest[shift:], lowest[:-shift]) if shift < len(lowest) else lowest[shift:]
        width += shift
    return float((power - lowest).max(initial=0.0))


def slowdown_of(values: Floats) -> Slowdown:
    """The summary of slowdowns; zeros where there are none."""
    if not len(values):
        return Slowdown(0, 0.0, 0.0, (0.0,) * len(QUANTILES))
    p50, p99, *quantiles = np.quantile(values, [0.5, 0.99, *QUANTILES]).tolist()
    return Slowdown(len(values), p50, p99, tuple(quantiles))
