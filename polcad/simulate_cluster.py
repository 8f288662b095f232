"""``polcad simulate cluster``: a serving cluster under one of DynamoLLM's systems, as figures and as a page.

Systems are found by name among the entry points `polcad.cluster_systems`: a class made with a `Profile`, whose `decide`
takes a `ClusterView` and gives plans; those with a `design` stand as they are (`polcad.sim.split_cluster`). Routers are
found among `polcad.cluster_routers`: one's `weights` takes a time and members and gives shares. Systems that are
`provisioned` have a fixed size, for the highest load of each kind that will come and a margin, with which no more than
1 % is late in the busiest hour, where the servers suffice. The load is scaled so that the busiest ten minutes ask
`peak_util` of the servers' time (`polcad.sim.asking.service_s`): at .4, nine pools of the size for their peaks just
fit, and one pool needs about half.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from polcad.cluster.profiles import LLAMA2_70B_H100, Profile
from polcad.errors import ConfigError
from polcad.plugins import load
from polcad.sim.asking import WEEKS, Excerpt, Itself, Past, Recorded, Source, Typical, Week
from polcad.sim.cluster import simulate
from polcad.sim.cluster_model import ClusterModel, Limit, Span
from polcad.sim.cluster_result import ClusterResult, carbon_kg
from polcad.sim.profiles import Floats
from polcad.sim.requests import HOUR_S, WEEK_S
from polcad.sim.split_cluster import simulate_split
from polcad.simulate import read_trace

PEAK_UTIL = 0.40
MARGINS = (0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)  # above the highest load; 30 % for what nobody foresees
LATE_FRAC = 0.01  # of the requests, at most, where a fixed size is designed
GPU_HOUR, KWH = 2.0, 0.10  # USD; assumed: only ratios of costs mean something
PASTS = ("none", "itself", *WEEKS)
ROUTERS = "polcad.cluster_routers"
WHAT_IF: dict[str, Callable[[Profile], Profile]] = {"compressed": Profile.compressed, "quicker": Profile.quicker}
SHORTEST, IN_TURNS = "shortest-queue", "round-robin"
_COLUMN = "g_per_kwh"


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """What is simulated. `lose_server` and `stale` are ``AT+SECONDS``, `slow_server` and `cap` ``CLOCK@AT+SECONDS``.

    `hours` ends a run before its source does.
    """

    system: str
    servers: int
    trace: Path | None = None
    week: str | None = None
    hours: float | None = None
    seed: int = 1
    peak_util: float = PEAK_UTIL
    profile: Path | None = None
    length_accuracy: float = 0.81
    surprise: float = 1.0
    slo_scale: float = 1.0
    lose_server: str | None = None
    stale: str | None = None
    slow_server: str | None = None
    cap: str | None = None
    power_budget_w: float | None = None
    carbon: Path | None = None
    margin_frac: float | None = None  # above the highest load, of a fixed size; None: what serves the busiest hour well
    router: str = SHORTEST
    what_if: tuple[str, ...] = ()  # of WHAT_IF
    past: str = "none"  # of a trace: nothing, a week of "conv" or "code", or "itself" each day, but for noise

    def model(self) -> ClusterModel:
        """The cluster; ConfigError for options that mean nothing."""
        if self.servers < 1:
            raise ConfigError(f"--servers {self.servers}: at least 1 is needed")
        profile = supposed(LLAMA2_70B_H100 if self.profile is None else Profile.read(self.profile), self.what_if)
        system = load("polcad.cluster_systems", self.system)
        design = getattr(system, "design", None)
        if design is not None and (self.profile is not None or self.what_if):
            raise ConfigError(f"--profile and --what-if: {self.system} brings its own machines")
        return ClusterModel(
            system=self.system,
            planner=system(profile).decide,
            rescue=getattr(system, "rescue", None),
            source=self.source(profile),
            servers=self.servers,
            profile=profile,
            provisioned=system.provisioned,
            design=design,
            seed=self.seed,
            accuracy=self.length_accuracy,
            surprise=self.surprise,
            slo_scale=self.slo_scale,
            lost=None if self.lose_server is None else Span.parse(self.lose_server, "--lose-server"),
            stale=None if self.stale is None else Span.parse(self.stale, "--stale"),
            slow=None if self.slow_server is None else Limit.parse(self.slow_server, "--slow-server"),
            cap=None if self.cap is None else Limit.parse(self.cap, "--cap"),
            power_budget_w=self.power_budget_w,
            margin_frac=self.margin_frac or 0.0,
            in_turns=self.router != SHORTEST,
            weigher=None if self.router in {SHORTEST, IN_TURNS} else load(ROUTERS, self.router)(profile).weights,
        )

    def source(self, profile: Profile) -> Source:
        """What is asked of the cluster."""
        if (self.trace is None) is (self.week is None):
            raise ConfigError("say either --trace FILE or --week conv or code")
        if self.past not in PASTS:
            raise ConfigError(f"--past {self.past}: it is none of {', '.join(PASTS)}")
        if not 0 < self.peak_util < 1:
            raise ConfigError(f"--peak-util {self.peak_util}: it must be above 0 and below 1")
        capacity_s = self.peak_util * self.servers
        if self.trace is not None:
            trace, most_s = read_trace(self.trace), self._length_s()
            past = self._past(trace.start_t)
            return Recorded.loading(trace, capacity_s, profile, self.seed, most_s=most_s, past=past)
        if self.week not in WEEKS:
            raise ConfigError(f"--week {self.week}: it is none of {', '.join(WEEKS)}")
        return Week.loading(WEEKS[self.week], capacity_s, profile, self.seed, min(self._length_s(), WEEK_S))

    def _past(self, start_t: float) -> Past | None:
        if self.past in WEEKS:
            return Typical(WEEKS[self.past], start_t, self.seed)
        return Itself(self.seed) if self.past == "itself" else None

    def _length_s(self) -> float:
        if self.hours is None:
            return float("inf")
        if self.hours <= 0:
            raise ConfigError(f"--hours {self.hours}: it must be above 0")
        return self.hours * HOUR_S


def supposed(profile: Profile, what_if: Sequence[str]) -> Profile:
    """The profile as it would be; ConfigError for what cannot be asked."""
    for name in what_if:
        if name not in WHAT_IF:
            raise ConfigError(f"--what-if {name}: it is none of {', '.join(WHAT_IF)}")
        profile = WHAT_IF[name](profile)
    return profile


def designed(model: ClusterModel) -> ClusterModel:
    """A model of a fixed size with the least margin of those tried that serves the busiest hour well; else the best."""
    if not model.provisioned:
        return model
    calm = replace(model, surprise=1.0, slo_scale=1.0, lost=None, stale=None, slow=None, cap=None)
    hour = replace(calm, source=Excerpt.busiest(model.source))
    late: dict[float, float] = {}
    for margin_frac in MARGINS:
        planner = load("polcad.cluster_systems", model.system)(model.profile).decide
        late[margin_frac] = simulate(replace(hour, planner=planner, margin_frac=margin_frac)).all.late_frac
        if late[margin_frac] <= LATE_FRAC:
            break
    return replace(model, margin_frac=min(late, key=lambda margin_frac: (late[margin_frac], margin_frac)))


def timed(
    options: ClusterOptions, progress: Callable[[int], None] | None = None, model: ClusterModel | None = None
) -> tuple[ClusterResult, dict[str, Any]]:
    """Simulate, and the figures of ``--json`` with the time it took; ConfigError."""
    intensity = None if options.carbon is None else read_intensity(options.carbon)
    start = perf_counter()
    asked = model or options.model()
    if asked.design is None:
        result = simulate(asked if options.margin_frac is not None else designed(asked), progress)
    else:
        result = simulate_split(asked, progress)
    supposed = {"hypothetical": asked.profile.hypothetical} if asked.profile.hypothetical else {}
    return result, supposed | summary(result, perf_counter() - start, intensity)


def summary(result: ClusterResult, wall_s: float, g_per_kwh: Floats | None = None) -> dict[str, Any]:
    """The figures; `carbon_kg` is null where no intensity is known."""
    every = result.all
    return {
        "system": result.system,
        "servers": result.servers,
        "energy_kwh": result.energy_kwh,
        "ttft_p50_s": every.ttft_p50_s,
        "ttft_p99_s": every.ttft_p99_s,
        "tbt_p50_s": every.tbt_p50_s,
        "tbt_p99_s": every.tbt_p99_s,
        "latency_mean_s": result.latency_mean_s,
        "latency_p99_s": result.latency_p99_s,
        "slo_violation_frac": every.late_frac,
        "gpus_mean": result.gpus_mean,
        "power_max_w": max(result.series.power_w, default=0.0),
        "requests": result.requests,
        "dropped": result.dropped,
        "wall_s": wall_s,
        "energy_reconfig_kwh": result.energy_j["reconfiguration"] / 3.6e6,
        "cost_usd": GPU_HOUR * (result.gpu_s + result.unused_s) / HOUR_S + KWH * result.energy_kwh,
        "carbon_kg": None if g_per_kwh is None else carbon_kg(result.hours_j, g_per_kwh),
        "energy_gpus_kwh": result.gpus_alone_j / 3.6e6,
    }


def read_intensity(path: Path) -> Floats:
    """Grams of CO2 a kWh, hour by hour from the start, from the column ``g_per_kwh``; ConfigError with the line."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            if _COLUMN not in (reader.fieldnames or ()):
                raise ConfigError(f"--carbon {path}: it lacks the column {_COLUMN}")
            values = [_intensity(path, reader.line_num, row[_COLUMN]) for row in reader]
    except (OSError, csv.Error, UnicodeDecodeError) as error:
        raise ConfigError(f"--carbon {path}: cannot be read: {error}") from error
    if not values:
        raise ConfigError(f"--carbon {path}: it has no hours")
    return np.array(values)


def _intensity(path: Path, line: int, text: str | None) -> float:
    try:
        value = float(text or "")
    except ValueError as error:
        raise ConfigError(f"--carbon {path}: line {line}: {error}") from error
    if not 0.0 <= value < float("inf"):
        raise ConfigError(f"--carbon {path}: line {line}: {value:g} must be at least 0, and a number that can be used")
    return value
