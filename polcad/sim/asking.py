"""What a serving cluster is asked for: a made-up week of conversations or of code, or somebody's recorded requests.

Both are cut into chunks; those of a week are made from (seed, chunk) alone, so it needs no more memory than one. How
much is asked is a share of what the servers could do: `peak_util` of their time in the busiest chunk, where a request
takes `service_s` of a server. Time 0 of a week is a Monday, 00:00 UTC.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Annotated, Protocol

import numpy as np

from polcad.cluster.classes import Thresholds
from polcad.cluster.nouns import KINDS, Shape
from polcad.cluster.profiles import Profile
from polcad.errors import ConfigError
from polcad.sim.profiles import Floats, Known
from polcad.sim.requests import CONV_2024_HOURS, HOUR_S, WEEK_S, Trace

CHUNK_S = 600.0
TOGETHER = 64  # requests that a server serves when it is full, for `service_s`: token throughput saturates near it
_COPY_S = 30.0  # a repeated request of a trace comes up to so much later
_DAYS, _WORKDAYS, _MINUTE_S, DAY_S = 7, 5, 60, 86_400
_SAMPLES = 100_000
_DAY_FRAC, _PAST_FRAC = 0.05, 0.10  # of a made-up past: deviations of days and of minutes; assumed
_BUSY = 12  # chunks: two hours
_MONDAY_T = 4 * DAY_S  # Unix time of the first Monday
_LEVEL_S, _LEVEL_MINUTES = 300.0, 5  # of a recording, that its past is made to meet

CODE_2024_HOURS = (
    *(0.87, 0.84, 0.79, 0.65, 0.52, 0.43, 0.37, 0.31, 0.29, 0.30, 0.32, 0.47),
    *(0.86, 1.47, 2.09, 2.26, 2.14, 2.46, 2.71, 2.77, 2.56, 1.89, 1.36, 1.02),
)

Points = tuple[tuple[float, float], ...]  # share of the requests below, tokens


@dataclass(frozen=True, slots=True)
class Asked:
    """Requests in the order they arrive, in columns."""

    arrive_s: Floats  # since the start
    prompt: Floats  # tokens
    output: Floats


class Source(Protocol):
    """Something that asks a cluster to work."""

    @property
    def length_s(self) -> float:
        """How long it goes on."""
        ...

    @property
    def thresholds(self) -> Thresholds:
        """Where its lengths are cut in thirds."""
        ...

    def chunk(self, index: int) -> Asked:
        """What arrives between `index` and `index + 1` times `CHUNK_S`."""
        ...

    def busy(self) -> Sequence[int]:
        """The chunks in which most is asked: a cluster of a fixed size is made for them."""
        ...

    def history(self) -> Floats:
        """Requests a second of the week before, a row a minute, a column a kind; no rows where nobody knows it."""
        ...

    def sample(self) -> Asked:
        """Enough requests to know how long they are."""
        ...


@dataclass(frozen=True, slots=True)
class Kindness:
    """How the requests of one service come, and how long they are."""

    name: str
    hours: Annotated[tuple[float, ...], Known("of the week's mean", "Azure 2024, weekdays by hour")]
    weekend_frac: Annotated[float, Known("of a weekday", "Azure 2024")]
    minute_frac: Annotated[float, Known("standard deviation", "Azure 2024, from minute to minute")]
    clump: Annotated[float, Known("requests", "come within a second; from the variance of counts, Azure 2023")]
    prompt: Annotated[Points, Known("tokens", "Azure 2023: tertiles, median, 90 and 99 %; the ends are assumed")]
    output: Annotated[Points, Known("tokens", "as prompt")]

    def lengths(self, random: np.random.Generator, n: int) -> tuple[Floats, Floats]:
        """Prompt and output tokens of `n` requests, independent of each other."""
        return _drawn(self.prompt, random, n), _drawn(self.output, random, n)

    @property
    def thresholds(self) -> Thresholds:
        """The tertiles."""
        return Thresholds((self.prompt[1][1], self.prompt[3][1]), (self.output[1][1], self.output[3][1]))


_THIRD = 1 / 3
CONV = Kindness(
    "conv",
    CONV_2024_HOURS,
    0.57,
    0.10,
    1.2,
    ((0.0, 16.0), (_THIRD, 409.0), (0.5, 1020.0), (2 * _THIRD, 1107.0), (0.9, 2734.0), (0.99, 4142.0), (1.0, 8192.0)),
    ((0.0, 16.0), (_THIRD, 94.0), (0.5, 129.0), (2 * _THIRD, 357.0), (0.9, 424.0), (0.99, 601.0), (1.0, 1000.0)),
)
CODE = Kindness(
    "code",
    CODE_2024_HOURS,
    0.32,
    0.17,
    7.1,
    ((0.0, 16.0), (_THIRD, 880.0), (0.5, 1469.0), (2 * _THIRD, 2284.0), (0.9, 5188.0), (0.99, 7436.0), (1.0, 8192.0)),
    ((0.0, 6.0), (_THIRD, 10.0), (0.5, 13.0), (2 * _THIRD, 19.0), (0.9, 55.0), (0.99, 251.0), (1.0, 1000.0)),
)
WEEKS = {kind.name: kind for kind in (CONV, CODE)}


def service_s(profile: Profile, prompt: Floats, output: Floats) -> float:
    """The mean time of a full eight-GPU server that a request takes, s: its prompt, and its part of the iterations."""
    shape = Shape(profile.tensor_parallels[-1])
    points = np.linspace(1.0, float(prompt.max(initial=1.0)) + 1.0, 200)
    prompt_s = np.interp(prompt, points, [profile.prompt_s(shape, point) for point in points])
    context = TOGETHER * float(prompt.mean() + output.mean() / 2)
    return float(prompt_s.mean() + output.mean() * profile.token_s(shape, TOGETHER, context) / TOGETHER)


@dataclass(frozen=True, slots=True)
class Week:
    """A made-up week, or its first part. `scale` is the mean of requests a second over the whole week."""

    kind: Kindness
    scale: float
    seed: int = 1
    length_s: float = WEEK_S

    @classmethod
    def loading(cls, kind: Kindness, capacity_s: float, profile: Profile, seed: int, length_s: float) -> Week:
        """The week whose busiest chunk takes `capacity_s` of the servers' time a second."""
        prompt, output = kind.lengths(np.random.default_rng(0), _SAMPLES)
        one = cls(kind, 1.0, seed, WEEK_S)
        return cls(kind, capacity_s / service_s(profile, prompt, output) / float(one.expected().max()), seed, length_s)

    @property
    def thresholds(self) -> Thresholds:
        """The tertiles of the lengths."""
        return self.kind.thresholds

    def expected(self, step_s: float = CHUNK_S) -> Floats:
        """Requests a second without noise, in the middle of each step."""
        days = np.where(np.arange(_DAYS) < _WORKDAYS, 1.0, self.kind.weekend_frac)
        week = np.outer(days, self.kind.hours).ravel()
        at_s = np.arange(0.0, WEEK_S, step_s) + step_s / 2
        middles_s = (np.arange(len(week)) + 0.5) * HOUR_S
        result: Floats = self.scale * np.interp(at_s, middles_s, week, period=WEEK_S)
        return result

    def chunk(self, index: int) -> Asked:
        """Minutes that differ, and in each clumps that come within a second."""
        random = np.random.default_rng((self.seed, index))
        minutes = round(CHUNK_S / _MINUTE_S)
        noise = self.kind.minute_frac
        per_s = self.expected()[index] * np.exp(random.normal(-(noise**2) / 2, noise, minutes))
        clumps = random.poisson(per_s * _MINUTE_S / self.kind.clump)
        at_s = (np.repeat(np.arange(minutes), clumps) + random.random(int(clumps.sum()))) * _MINUTE_S
        sizes = random.geometric(1.0 / self.kind.clump, len(at_s))
        arrive_s = np.repeat(at_s, sizes)
        arrive_s += np.where(np.repeat(sizes, sizes) > 1, random.random(len(arrive_s)), 0.0)
        arrive_s = np.minimum(np.sort(arrive_s), CHUNK_S - 1e-3) + index * CHUNK_S
        return Asked(arrive_s, *self.kind.lengths(random, len(arrive_s)))

    def busy(self) -> Sequence[int]:
        """The two hours of the week in which most is expected, in the part of it that is played."""
        expected = self.expected()[: ceil(self.length_s / CHUNK_S)]
        return sorted(np.argsort(-expected, kind="stable")[:_BUSY].tolist())

    def sample(self) -> Asked:
        """Lengths alone; all arrive at 0."""
        return Asked(np.zeros(_SAMPLES), *self.kind.lengths(np.random.default_rng(0), _SAMPLES))

    def history(self) -> Floats:
        """The week before: minutes with noise of their own."""
        sample = self.sample()
        kinds = np.bincount(self.thresholds.places(sample.prompt, sample.output), minlength=len(KINDS))
        past: Floats = np.outer(self.minutes(), kinds / len(sample.prompt))
        return past

    def minutes(self) -> Floats:
        """Requests a second of each minute of another such week."""
        random, noise = np.random.default_rng((self.seed, 1 << 30)), self.kind.minute_frac
        per_s = self.expected(_MINUTE_S)
        per_s *= np.exp(random.normal(-(noise**2) / 2, noise, len(per_s)))
        return per_s


class Past(Protocol):
    """What is taken to have been asked in the week before a recording."""

    def of(self, recorded: Recorded) -> Floats:
        """Requests a second, a row a minute, a column a kind."""
        ...


@dataclass(frozen=True, slots=True)
class Itself:
    """The same time of each day was as the recording, but for noise, by the day and by the minute: it is foreseen."""

    seed: int

    def of(self, recorded: Recorded) -> Floats:
        """Seven such days."""
        random, minutes = np.random.default_rng((self.seed, 1)), DAY_S // _MINUTE_S
        day = recorded.rates(_MINUTE_S, DAY_S)
        noise = random.normal(1.0, _DAY_FRAC, (_DAYS, 1)) * random.normal(1.0, _PAST_FRAC, (_DAYS, minutes))
        past: Floats = np.maximum(noise, 0.0).reshape(-1, 1) * np.concatenate([day] * _DAYS)
        return past


@dataclass(frozen=True, slots=True)
class Typical:
    """A typical week of a service went before, at the level of the recording's first minutes: no more is foreseen."""

    kind: Kindness
    start_t: float  # Unix time of the recording
    seed: int

    def of(self, recorded: Recorded) -> Floats:
        """The week up to the recording."""
        start = round((self.start_t - _MONDAY_T) % WEEK_S) // _MINUTE_S
        week = np.roll(Week(self.kind, 1.0, self.seed).minutes(), -start)
        past: Floats = np.outer(week, recorded.rates(_LEVEL_S, _LEVEL_S)[0] / week[:_LEVEL_MINUTES].mean())
        return past


@dataclass(frozen=True, slots=True)
class Recorded:
    """Somebody's requests, each repeated (up to half a minute later) or left out, as often as the load needs."""

    asked: Asked
    most_s: float = float("inf")  # the rest of it is left out
    past: Past | None = None

    @classmethod
    def of(cls, trace: Trace, copies: float, seed: int) -> Recorded:
        """The trace with so many times its requests."""
        random = np.random.default_rng((seed, 0))
        times = int(copies) + (random.random(len(trace.arrive_s)) < copies % 1.0)
        which = np.repeat(np.arange(len(times)), times)
        first = np.diff(which, prepend=-1) != 0
        at_s = trace.arrive_s[which] + np.where(first, 0.0, _COPY_S * random.random(len(which)))
        if not len(which):
            raise ConfigError("nothing is left of the trace at this load")
        at_s = np.minimum(at_s, trace.arrive_s[-1])
        order = np.argsort(at_s, kind="stable")
        prompt, output = (
            np.maximum(column[which][order], 1.0) for column in (trace.prompt_tokens, trace.output_tokens)
        )
        return cls(Asked(at_s[order], prompt, output))

    @classmethod
    def loading(
        cls, trace: Trace, capacity_s: float, profile: Profile, seed: int, *, most_s: float, past: Past | None
    ) -> Recorded:
        """The trace, with as many requests as take `capacity_s` of the servers' time a second in its busiest chunk."""
        plain = cls.of(trace, 1.0, seed)
        busy = plain.counts().max() / min(CHUNK_S, plain.length_s)
        copies = capacity_s / service_s(profile, plain.asked.prompt, plain.asked.output) / busy
        return cls(cls.of(trace, copies, seed).asked, most_s, past)

    @property
    def length_s(self) -> float:
        """To the whole second behind the last request."""
        return min(float(np.floor(self.asked.arrive_s[-1])) + 1.0, self.most_s)

    @property
    def thresholds(self) -> Thresholds:
        """The tertiles of its own lengths."""
        thirds = [np.quantile(column, (_THIRD, 2 * _THIRD)) for column in (self.asked.prompt, self.asked.output)]
        return Thresholds(*((float(low), float(high)) for low, high in thirds))

    def chunk(self, index: int) -> Asked:
        """A slice."""
        asked = self.asked
        first, last = np.searchsorted(asked.arrive_s, (index * CHUNK_S, (index + 1) * CHUNK_S))
        return Asked(asked.arrive_s[first:last], asked.prompt[first:last], asked.output[first:last])

    def counts(self) -> Floats:
        """Requests by chunk."""
        result: Floats = np.bincount((self.asked.arrive_s // CHUNK_S).astype(np.int64)).astype(np.float64)
        return result

    def busy(self) -> Sequence[int]:
        """The two hours with most requests."""
        return sorted(np.argsort(-self.counts(), kind="stable")[:_BUSY].tolist())

    def sample(self) -> Asked:
        """All of it."""
        return self.asked

    def history(self) -> Floats:
        """As `past` has it."""
        return np.zeros((0, len(KINDS))) if self.past is None else self.past.of(self)

    def rates(self, span_s: float, until_s: float) -> Floats:
        """Requests a second of each kind (columns) in each span (rows) of the first `until_s`."""
        first, spans = self.asked.arrive_s < until_s, ceil(until_s / span_s)
        kinds = self.thresholds.places(self.asked.prompt[first], self.asked.output[first])
        places = (self.asked.arrive_s[first] // span_s).astype(np.int64) * len(KINDS) + kinds
        counts = np.bincount(places, minlength=spans * len(KINDS)).astype(np.float64)
        result: Floats = counts.reshape(spans, len(KINDS)) / span_s
        return result


@dataclass(frozen=True, slots=True)
class Excerpt:
    """The busiest hour of another source, by itself."""

    of: Source
    first: int  # its first chunk
    length_s: float = HOUR_S

    @classmethod
    def busiest(cls, source: Source) -> Excerpt:
        """Around the busiest chunk, within the source; the whole source where that is shorter."""
        counts = {index: len(source.chunk(index).arrive_s) for index in source.busy()}
        top, half = max(counts, key=lambda index: (counts[index], -index)), round(HOUR_S / CHUNK_S) // 2
        last = ceil(source.length_s / CHUNK_S) - 2 * half
        first = max(0, min(top - half, last))
        return cls(source, first, min(HOUR_S, source.length_s - first * CHUNK_S))

    @property
    def thresholds(self) -> Thresholds:
        """Those of the whole."""
        return self.of.thresholds

    def chunk(self, index: int) -> Asked:
        """A chunk of the whole, at a time of its own."""
        asked = self.of.chunk(self.first + index)
        return Asked(asked.arrive_s - self.first * CHUNK_S, asked.prompt, asked.output)

    def busy(self) -> Sequence[int]:
        """All of it."""
        return range(ceil(self.length_s / CHUNK_S))

    def history(self) -> Floats:
        """None: nothing is forecast here."""
        return np.zeros((0, len(KINDS)))

    def sample(self) -> Asked:
        """That of the whole."""
        return self.of.sample()


def _drawn(points: Points, random: np.random.Generator, n: int) -> Floats:
    """Whole tokens, at least 1: straight between the points in the logarithm."""
    shares, tokens = zip(*points, strict=True)
    result: Floats = np.rint(np.exp(np.interp(random.random(n), shares, np.log(np.array(tokens)))))
    return result
