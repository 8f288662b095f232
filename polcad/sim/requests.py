"""What a row is asked to do: requests with lengths and arrival times, by pool of servers.

Two sources: `Load`, a mix of workloads with a day, a week, minutes that differ and bursts that come at once for the
whole row; and `Trace`, somebody's recorded requests, played again and again. Both are cut into chunks that are made
from (seed, chunk) alone, so six weeks need no more memory than one chunk. Utilisation is of a server's time: 1 is all
that it could ever serve (`Hardware.service_s`), so the same load per server means the same whatever the row's size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Protocol

import numpy as np
from numpy.typing import NDArray

from polcad.errors import ConfigError
from polcad.model import Placement, Priority, Role
from polcad.sim.profiles import Floats, Hardware, Known

Ints = NDArray[np.int64]

HOUR_S, WEEK_S = 3600, 604_800
LONGEST_S = 366 * 24 * HOUR_S  # of a trace
_WORKDAYS = 5
_SAMPLES = 4096  # of a workload's lengths, for its mean service time

CONV_2024_HOURS = (
    *(1.02, 1.11, 1.09, 0.91, 0.91, 1.00, 1.15, 1.24, 1.27, 1.24, 1.11, 1.17),
    *(1.31, 1.45, 1.53, 1.42, 1.29, 1.24, 1.23, 1.16, 1.05, 0.88, 0.79, 0.82),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Workload:
    """Requests of one kind, on servers of their own; lengths are uniform between the two bounds, both included."""

    name: str
    prompt_tokens: tuple[int, int]
    output_tokens: tuple[int, int]
    share: float  # of the row's servers
    priority: Priority
    role: Role = Role.MIXED

    def __post_init__(self) -> None:
        """Refuse lengths that mean nothing."""
        for name, (low, high) in (("prompt_tokens", self.prompt_tokens), ("output_tokens", self.output_tokens)):
            if not 1 <= low <= high:
                raise ConfigError(f"workload {self.name}: {name}={low}..{high} must be at least 1, and in order")
        if not 0 < self.share <= 1:
            raise ConfigError(f"workload {self.name}: share={self.share} must be above 0 and at most 1")

    def lengths(self, random: np.random.Generator, n: int) -> tuple[Floats, Floats]:
        """Prompt and output tokens of `n` requests."""
        prompt, output = (
            random.integers(low, high, n, endpoint=True).astype(np.float64)
            for low, high in (self.prompt_tokens, self.output_tokens)
        )
        return prompt, output


POLCA_MIX = (
    Workload("summarize", (2048, 8192), (256, 512), 0.25, Priority.LOW),
    Workload("search", (512, 2048), (1024, 2048), 0.25, Priority.HIGH),
    Workload("chat-high", (2048, 4096), (128, 2048), 0.25, Priority.HIGH),
    Workload("chat-low", (2048, 4096), (128, 2048), 0.25, Priority.LOW),
)  # POLCA's mix, as remembered from the paper; the shares are taken as shares of the servers


@dataclass(frozen=True, slots=True)
class Pool:
    """Servers that one kind of request is spread over in turn."""

    name: str
    servers: int
    placement: Placement


@dataclass(frozen=True, slots=True)
class Batch:
    """Requests in the order they arrive, in columns."""

    arrive_s: Floats  # since the start
    prompt_tokens: Floats
    output_tokens: Floats
    pool: Ints


class Source(Protocol):
    """Something that asks a row to work."""

    def pools(self, servers: int) -> tuple[Pool, ...]:
        """How so many servers are divided."""
        ...

    def between(
        self, start_s: float, end_s: float, pools: Sequence[Pool], hardware: Hardware, random: np.random.Generator
    ) -> Batch:
        """The requests that arrive in a chunk of time, for a row of these pools."""
        ...


@dataclass(frozen=True, slots=True)
class Load:
    """A mix under a daily, weekly and bursty load. Time 0 is a Monday, 00:00 UTC."""

    mix: tuple[Workload, ...] = POLCA_MIX
    peak_util: Annotated[float, Known("of a server's time", "fitted to POLCA's row: mean of the busiest hour")] = 0.35
    hours: Annotated[tuple[float, ...], Known("of the mean", "Azure 2024 conv, weekdays by hour")] = CONV_2024_HOURS
    weekend_frac: Annotated[float, Known("of a weekday", "fitted to POLCA's rises; Azure conv has .57")] = 0.85
    minute_frac: Annotated[float, Known("standard deviation", "Azure 2024 conv: +-10 % from minute to minute")] = 0.10
    bursts_per_h: Annotated[float, Known("1/h", "assumed")] = 6.0
    burst_s: Annotated[float, Known("s", "assumed: how long one lasts")] = 2.0
    burst_frac: Annotated[float, Known("of the load", "fitted to POLCA's largest rises: a mean burst adds this")] = 2.0
    burst_max_frac: Annotated[float, Known("of the load", "fitted with burst_frac: no burst adds more")] = 5.0

    def __post_init__(self) -> None:
        """Refuse loads that mean nothing."""
        if not self.mix or abs(sum(workload.share for workload in self.mix) - 1.0) > 1e-6:  # noqa: PLR2004  # rounding
            raise ConfigError("the shares of the mix's workloads must add up to 1")
        if len(self.hours) != 24 or min(self.hours) < 0 or max(self.hours) <= 0:  # noqa: PLR2004  # a day
            raise ConfigError("hours: 24 multipliers are needed, none negative, one above 0")
        if not 0 <= self.peak_util < 1:
            raise ConfigError(f"peak_util={self.peak_util} must be at least 0 and below 1, or the row never catches up")

    def pools(self, servers: int) -> tuple[Pool, ...]:
        """Servers by workload, by largest remainder; a workload that gets none is left out."""
        counts = _divided(servers, [workload.share for workload in self.mix])
        return tuple(
            Pool(workload.name, count, Placement(workload.priority, workload.role, workload.name))
            for workload, count in zip(self.mix, counts, strict=True)
            if count
        )

    def util(self, start_s: float, end_s: float, random: np.random.Generator) -> Floats:
        """Utilisation asked of every server, second by second."""
        second = np.arange(int(start_s), int(end_s))
        days = np.where(np.arange(7) < _WORKDAYS, 1.0, self.weekend_frac)
        week = np.outer(days, self.hours).ravel() / max(self.hours)
        middles_s = (np.arange(len(week)) + 0.5) * HOUR_S  # a load that jumped on the hour would be the steepest rise
        util = self.peak_util * np.interp(second, middles_s, week, period=WEEK_S)
        minutes = np.exp(random.normal(0.0, self.minute_frac, len(second) // 60 + 2) - self.minute_frac**2 / 2)
        result: Floats = util * minutes[np.arange(len(second)) // 60] * (1.0 + self._bursts(len(second), random))
        return result

    def _bursts(self, seconds: int, random: np.random.Generator) -> Floats:
        """What bursts add, second by second."""
        added = np.zeros(seconds)
        for start in random.integers(0, seconds, random.poisson(self.bursts_per_h * seconds / HOUR_S)):
            size = min(random.exponential(self.burst_frac), self.burst_max_frac)
            added[start : start + int(np.ceil(self.burst_s))] += size
        return np.minimum(added, self.burst_max_frac)

    def between(
        self, start_s: float, end_s: float, pools: Sequence[Pool], hardware: Hardware, random: np.random.Generator
    ) -> Batch:
        """The requests of a chunk; `start_s` and `end_s` are whole seconds."""
        util = self.util(start_s, end_s, random)
        workloads = {workload.name: workload for workload in self.mix}
        parts = []
        for index, pool in enumerate(pools):
            workload = workloads[pool.name]
            per_s = util * pool.servers / mean_service_s(workload, hardware)
            counts = random.poisson(per_s)
            arrive_s = np.repeat(np.arange(int(start_s), int(end_s)), counts) + random.random(int(counts.sum()))
            parts.append((arrive_s, *workload.lengths(random, len(arrive_s)), np.full(len(arrive_s), index)))
        return _in_order(*(np.concatenate(column) for column in zip(*parts, strict=True)))


@dataclass(frozen=True, slots=True)
class Trace:
    """Recorded requests, played again and again, half of them of high priority unless told otherwise.

    The rate is scaled so that the trace's busiest ten minutes ask `peak_util` of the servers. Raises ConfigError for
    a trace without requests, or whose times go back.
    """

    arrive_s: Floats  # since the trace's first request
    prompt_tokens: Floats
    output_tokens: Floats
    peak_util: Annotated[float, Known("of a server's time", "as of Load")] = 0.35
    high_share: Annotated[float, Known("of the servers", "assumed")] = 0.5
    start_t: float = 0.0  # Unix time of its first request

    def __post_init__(self) -> None:
        """Refuse a trace that cannot be played."""
        if len(self.arrive_s) == 0:
            raise ConfigError("the trace has no requests")
        back = np.flatnonzero(np.diff(self.arrive_s) < 0)
        if back.size:
            raise ConfigError(f"the trace's times go back at request {int(back[0]) + 2}: sort it by TIMESTAMP")
        if self.arrive_s[-1] > LONGEST_S:
            days = self.arrive_s[-1] / (24 * HOUR_S)
            raise ConfigError(
                f"the trace spans {days:.0f} days, more than a year: one of its times is wrong, or cut it"
            )
        if min(self.prompt_tokens.min(), self.output_tokens.min()) < 0:
            raise ConfigError("the trace has requests with fewer than 0 tokens")

    def pools(self, servers: int) -> tuple[Pool, ...]:
        """Servers by priority."""
        high, low = _divided(servers, [self.high_share, 1 - self.high_share])
        pools = (Pool("high", high, Placement(Priority.HIGH)), Pool("low", low, Placement(Priority.LOW)))
        return tuple(pool for pool in pools if pool.servers)

    def between(
        self, start_s: float, end_s: float, pools: Sequence[Pool], hardware: Hardware, random: np.random.Generator
    ) -> Batch:
        """The requests of a chunk, each repeated (shifted by up to a second) as often as the rate needs."""
        length_s = float(self.arrive_s[-1]) + 1.0
        servers = sum(pool.servers for pool in pools)
        copies = self.peak_util * servers / self._busiest_util(hardware)
        parts = []
        for turn in range(int(start_s // length_s), int(end_s // length_s) + 1):
            at = self.arrive_s + turn * length_s
            chosen = np.flatnonzero((at >= start_s) & (at < end_s))
            times = int(copies) + (random.random(len(chosen)) < copies % 1.0)
            which = np.repeat(chosen, times)
            shifted = np.minimum(at[which] + random.random(len(which)) * (np.repeat(times, times) > 1), end_s)
            parts.append((shifted, self.prompt_tokens[which], self.output_tokens[which]))
        arrive_s, prompt, output = (np.concatenate(column) for column in zip(*parts, strict=True))
        bounds = np.cumsum([pool.servers / servers for pool in pools])
        pool = np.minimum(np.searchsorted(bounds, random.random(len(arrive_s))), len(pools) - 1)
        return _in_order(arrive_s, np.maximum(prompt, 1.0), np.maximum(output, 1.0), pool)

    def _busiest_util(self, hardware: Hardware) -> float:
        """What the busiest ten minutes would ask of a single server."""
        service_s = hardware.service_s(np.maximum(self.prompt_tokens, 1.0), np.maximum(self.output_tokens, 1.0))
        window_s = min(600.0, float(self.arrive_s[-1]) + 1.0)
        return float(np.bincount((self.arrive_s // window_s).astype(np.int64), service_s).max()) / window_s


def mean_service_s(workload: Workload, hardware: Hardware) -> float:
    """The mean share of a server's time that a request of this kind takes, s."""
    lengths = workload.lengths(np.random.default_rng(0), _SAMPLES)
    return float(hardware.service_s(*lengths).mean())


def _divided(servers: int, shares: Sequence[float]) -> list[int]:
    """Whole servers by share, by largest remainder."""
    exact = [servers * share for share in shares]
    counts = [int(part + 1e-9) for part in exact]
    by_rest = sorted(range(len(shares)), key=lambda index: counts[index] - exact[index])
    for index in by_rest[: servers - sum(counts)]:
        counts[index] += 1
    return counts


def _in_order(arrive_s: Floats, prompt: Floats, output: Floats, pool: Ints) -> Batch:
    order = np.argsort(arrive_s, kind="stable")
    return Batch(arrive_s[order], prompt[order], output[order], pool[order].astype(np.int64))
