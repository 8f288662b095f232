"""What a simulated cluster came to: figures, and series that are small enough to draw."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from polcad.cluster.nouns import KINDS, Slo
from polcad.sim.profiles import Floats
from polcad.sim.requests import Ints
from polcad.sim.serving import LEAST_S, PER_E

PHASE_NAMES = ("off", "idle", "prompt", "tokens", "reconfiguration")
UNUSED = "unused GPUs"  # in servers where others are used


@dataclass(slots=True)
class Series:
    """One entry a sample: means over it, and the slowest hundredth of the latencies that were told in it."""

    at_s: list[float] = field(default_factory=list)  # its end
    power_w: list[float] = field(default_factory=list)
    requests_per_s: list[float] = field(default_factory=list)  # ended
    gpus: list[float] = field(default_factory=list)
    instances: list[float] = field(default_factory=list)
    clock_frac: list[float] = field(default_factory=list)
    ttft_p99_s: list[float | None] = field(default_factory=list)
    tbt_p99_s: list[float | None] = field(default_factory=list)
    late_frac: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Told:
    """Something that happened, for people."""

    at_s: float
    text: str


@dataclass(frozen=True, slots=True)
class Latencies:
    """Of one kind of request, or of all."""

    requests: int  # ended
    ttft_p50_s: float
    ttft_p99_s: float
    tbt_p50_s: float
    tbt_p99_s: float
    late_frac: float


@dataclass(frozen=True, slots=True)
class ClusterResult:
    """A simulated cluster. Late is also what was dropped, and what waits too long for its first token at the end."""

    system: str
    servers: int
    seed: int
    length_s: float
    requests: int  # arrived
    finished: int
    under_way: int
    dropped: int  # nobody had room for them to wait
    energy_j: Mapping[str, float]  # by phase
    hours_j: tuple[float, ...]  # energy by the hour
    gpu_s: float  # of GPUs in instances
    unused_s: float  # of GPUs in none, in servers that have one
    gpus_alone_j: float  # of the energy, what GPUs drew without the rest of their servers
    instance_s: float
    all: Latencies
    latency_mean_s: float  # from arrival to the last token
    latency_p99_s: float
    kinds: Mapping[str, Latencies]
    slo: Mapping[str, Slo]
    changes: Mapping[str, int]
    series: Series
    told: tuple[Told, ...]

    @property
    def energy_kwh(self) -> float:
        """Of all servers that have an instance, kWh."""
        return sum(self.energy_j.values()) / 3.6e6

    @property
    def gpus_mean(self) -> float:
        """GPUs in instances."""
        return self.gpu_s / self.length_s


def quantile_s(bins: Ints, share: float) -> float | None:
    """The latency that a share of those counted in `bins` stay below, s; None where none was counted."""
    total = int(bins.sum())
    if not total:
        return None
    place = int(np.searchsorted(np.cumsum(bins), share * total))
    return LEAST_S * float(np.exp((place + 0.5) / PER_E))


def mean_s(bins: Ints) -> float:
    """The mean of the latencies that were counted in `bins`, s; 0 where none was."""
    middles_s = LEAST_S * np.exp((np.arange(len(bins)) + 0.5) / PER_E)
    return float(bins @ middles_s) / max(int(bins.sum()), 1)


def latencies(ttft: Ints, tbt: Ints, ended: int, late: int, missed: int) -> Latencies:
    """The summary of one kind: `late` of those that ended, and others that were dropped or can only end late."""
    ttft_p50_s, ttft_p99_s, tbt_p50_s, tbt_p99_s = (
        quantile_s(bins, share) or 0.0 for bins in (ttft, tbt) for share in (0.5, 0.99)
    )
    return Latencies(ended, ttft_p50_s, ttft_p99_s, tbt_p50_s, tbt_p99_s, (late + missed) / max(ended + missed, 1))


def names() -> tuple[str, ...]:
    """The kinds as the result names them."""
    return tuple(first.value + last.value for first, last in KINDS)


def carbon_kg(hours_j: tuple[float, ...], g_per_kwh: Floats) -> float:
    """By an hourly intensity that is played again and again, kg."""
    each = g_per_kwh[np.arange(len(hours_j)) % len(g_per_kwh)]
    return float((np.array(hours_j) * each).sum()) / 3.6e9
