"""``polcad plan``: how many servers fit under a row's budget, with which thresholds, and how sure that is.

The thresholds are calibrated on one part of what is known and judged on another: T2 = min(.89, 1 - margin * rise); the
rise is the largest within the time that a setting takes to act, and T1 lies POLCA's nine points below. Rows are tried
upwards from what there is, until one fails.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields

from polcad.errors import ConfigError
from polcad.plan_rows import Rows
from polcad.plugins import load
from polcad.ports import Policy

T2_MOST, T1_BELOW = 0.89, 0.09  # POLCA's
_SURE = 3.0  # a Poisson count of zero excludes a mean above this, with 95 %
_FAILURES = 1  # sizes in a row that fail before the search ends


@dataclass(frozen=True, slots=True)
class Slo:
    """Largest slowdowns (.01 is 1 %), as POLCA's; brakes are none."""

    high_p50: float = 0.01
    high_p99: float = 0.05
    low_p50: float = 0.05
    low_p99: float = 0.50

    @classmethod
    def parse(cls, text: str) -> Slo:
        """``1,5,5,50``: per cent, high P50 and P99, low P50 and P99."""
        parts = text.split(",")
        try:
            values = [float(part) / 100 for part in parts]
        except ValueError:
            values = []
        if len(values) != len(fields(cls)) or not all(0 <= value < float("inf") for value in values):
            raise ConfigError(f"--slo {text}: four numbers are needed, per cent: high P50,P99, low P50,P99 as 1,5,5,50")
        return cls(*values)

    def broken(self, run: Mapping[str, float]) -> str:
        """What one run breaks, in words; "" when it keeps all."""
        if run["brakes"] > 0:
            return f"{run['brakes']:.0f} brakes"
        for item in fields(self):
            value, most = run[f"{item.name}_slowdown"], getattr(self, item.name)
            if value >= most > 0:
                return f"{item.name.replace('_', ' ')} +{value:.1%}, allowed {most:.0%}"
        return ""


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """What is asked. `margin` multiplies the calibrated rise; `step` servers are added at a time, up to `most`."""

    policy: str = "polca"
    latency_s: float = 40.0
    slo: Slo = Slo()
    seeds: int = 3
    margin: float = 1.0
    step: int = 2
    most: int | None = None
    hypothetical: str = ""  # what of the row is not so today

    def __post_init__(self) -> None:
        """Refuse what means nothing."""
        if self.seeds < 1 or self.step < 1:
            raise ConfigError(f"--seeds {self.seeds} and --step {self.step} must be at least 1")
        if not 1.0 <= self.margin < float("inf"):
            raise ConfigError(f"--margin {self.margin:g}: must be at least 1, the rise that was seen")


@dataclass(frozen=True, slots=True)
class Size:
    """One size of row: its policy's thresholds, a run's figures by seed, and what breaks the SLOs ("": nothing)."""

    servers: int
    thresholds: Mapping[str, float]
    runs: tuple[Mapping[str, float], ...]
    broken: str

    def mean(self, name: str) -> float:
        """A figure's mean over seeds."""
        return sum(run[name] for run in self.runs) / len(self.runs)

    def span(self, name: str) -> tuple[float, float]:
        """A figure's lowest and highest over seeds."""
        values = [run[name] for run in self.runs]
        return min(values), max(values)


@dataclass(frozen=True, slots=True)
class Answer:
    """Sizes as they were tried; `fits` is the largest that kept everything, None when not even the first did."""

    servers: int
    budget_w: float
    policy: str
    rise_frac: float
    judged_days: float  # of all seeds together, a size
    sizes: tuple[Size, ...]
    assumptions: tuple[str, ...]

    @property
    def fits(self) -> Size | None:
        """The answer."""
        return next((size for size in reversed(self.sizes) if not size.broken), None)

    @property
    def brakes_a_week(self) -> float:
        """So many brakes a week are excluded with 95 % where none was seen."""
        return 7 * _SURE / self.judged_days


def plan(rows: Rows, options: PlanOptions, done: Callable[[int], None] = lambda _: None) -> Answer:
    """Try sizes upwards; ConfigError for a policy that does not exist. `done` is told of each run."""
    rise_frac = rows.rise_frac(options.latency_s)
    sizes: list[Size] = []
    servers, most = rows.servers, options.most or 2 * rows.servers
    while servers <= most and sum(bool(size.broken) for size in sizes) < _FAILURES:
        policy = calibrated(options, rise_frac * servers / rows.servers)
        sizes.append(_tried(rows, servers, policy, options, done))
        servers += options.step
    return Answer(
        rows.servers,
        rows.budget_w,
        options.policy,
        rise_frac,
        options.seeds * rows.judged_days,
        tuple(sizes),
        (*rows.assumptions(), *([options.hypothetical] if options.hypothetical else [])),
    )


def _tried(rows: Rows, servers: int, policy: Policy, options: PlanOptions, done: Callable[[int], None]) -> Size:
    runs: list[Mapping[str, float]] = []
    broken = ""
    for seed in range(1, options.seeds + 1):
        runs.append(rows.judge(servers, policy, seed))
        done(1)
        broken = options.slo.broken(runs[-1])
        if broken:
            break  # more seeds could not mend it
    return Size(servers, dict(policy.thresholds), tuple(runs), broken)


def calibrated(options: PlanOptions, rise_frac: float) -> Policy:
    """The policy, with calibrated thresholds where it has POLCA's two."""
    kind = load("polcad.policies", options.policy)
    made: Policy = kind()
    if set(made.thresholds) != {"t1", "t2"}:
        return made
    t2_frac = min(T2_MOST, 1 - options.margin * rise_frac)
    if t2_frac <= 2 * T1_BELOW:
        raise ConfigError(
            f"the row rises by {rise_frac:.0%} of its budget before a setting acts: no threshold can wait"
        )
    ladder: Policy = kind(t1_frac=t2_frac - T1_BELOW, t2_frac=t2_frac)
    return ladder


def as_json(answer: Answer) -> dict[str, object]:
    """The answer as one object."""
    fits = answer.fits
    return {
        "servers": answer.servers,
        "budget_w": answer.budget_w,
        "policy": answer.policy,
        "fits": fits.servers if fits else None,
        "added": fits.servers - answer.servers if fits else None,
        "thresholds": dict(fits.thresholds) if fits else {},
        "rise_frac": answer.rise_frac,
        "judged_days": answer.judged_days,
        "brakes_a_week_below": answer.brakes_a_week,
        "limit": answer.sizes[-1].broken,
        "sizes": [_size(size) for size in answer.sizes],
        "assumptions": list(answer.assumptions),
    }


def _size(size: Size) -> dict[str, object]:
    names: Sequence[str] = [
        name for name in size.runs[0] if name.endswith(("_frac", "slowdown", "high", "low", "brakes", "budget"))
    ]
    figures = {name: {"mean": size.mean(name), "low": size.span(name)[0], "high": size.span(name)[1]} for name in names}
    return {"servers": size.servers, "thresholds": dict(size.thresholds), "broken": size.broken, "figures": figures}
