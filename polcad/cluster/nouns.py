"""The words of scaling hints: kinds of requests, shapes of instances, what a pool is asked for and what it should be.

A request is short, medium or long in its prompt and in its output: nine kinds. An instance is one copy of a model over
`tensor_parallel` GPUs; a pool is the instances that serve some of the kinds. A planner takes a `ClusterView` and gives
a `PoolPlan` a pool. Frozen, standard library alone; names end in their units, `t` is Unix time in seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import product


class Length(StrEnum):
    """How long a prompt or an output is, against the others of its model."""

    SHORT = "s"
    MEDIUM = "m"
    LONG = "l"


Kind = tuple[Length, Length]  # of the prompt, of the output

KINDS: tuple[Kind, ...] = tuple(product(Length, Length))  # from the shortest to the longest


def name_of(kind: Kind) -> str:
    """A kind as pools and topics name it: "sm" is a short prompt with an output of medium length."""
    return kind[0].value + kind[1].value


@dataclass(frozen=True, slots=True)
class Shape:
    """How an instance runs: over how many GPUs, and at what fraction of their maximum clock."""

    tensor_parallel: int
    clock_frac: float = 1.0


@dataclass(frozen=True, slots=True)
class Slo:
    """What the slowest hundredth of requests may take: to the first token, and between two tokens, s."""

    ttft_s: float
    tbt_s: float


@dataclass(frozen=True, slots=True)
class Demand:
    """Requests a second, their lengths in tokens (means, and the ends that decide who is late), and how they clump."""

    requests_per_s: float = 0.0
    prompt_tokens: float = 0.0
    output_tokens: float = 0.0
    long_prompt_tokens: float = 0.0  # 99 % are no longer; 0: not known
    short_output_tokens: float = 0.0  # 90 % are no shorter; 0: not known
    clump: float = 1.0  # variance over mean of the counts of seconds; 1: they come independently

    def times(self, factor: float) -> Demand:
        """So many times the requests, of the same lengths."""
        return Demand(
            factor * self.requests_per_s,
            self.prompt_tokens,
            self.output_tokens,
            self.long_prompt_tokens,
            self.short_output_tokens,
            self.clump,
        )

    def plus(self, other: Demand) -> Demand:
        """Both together."""
        rate = self.requests_per_s + other.requests_per_s
        if rate <= 0.0:
            return other if self.prompt_tokens <= 0.0 else self
        share = self.requests_per_s / rate
        return Demand(
            rate,
            share * self.prompt_tokens + (1 - share) * other.prompt_tokens,
            share * self.output_tokens + (1 - share) * other.output_tokens,
            max(self.long_prompt_tokens, other.long_prompt_tokens),
            min(filter(None, (self.short_output_tokens, other.short_output_tokens)), default=0.0),
            self.clump + other.clump - 1.0,  # kinds clump together: of a clump, each has its share
        )


@dataclass(frozen=True, slots=True)
class PoolPlan:
    """What one pool should be, what is expected of it, what it will draw then, and why."""

    pool: str
    kinds: tuple[Kind, ...]  # served here
    instances: int
    shape: Shape
    demand: Demand  # of the pool, at the peak it was sized for
    power_w: float  # of all its instances under that demand, hosts included
    why: str  # for people
    now_w: float = 0.0  # of all its instances under the load now
    weights: Mapping[str, float] = field(default_factory=dict)  # shares of the requests, by member; {}: none are said


@dataclass(frozen=True, slots=True)
class Running:
    """What a pool is now: `instances` serve, `starting` more are on the way."""

    instances: int
    shape: Shape
    starting: int = 0


@dataclass(frozen=True, slots=True)
class Member:
    """One instance of a pool, and what it has in hand."""

    name: str
    shape: Shape
    running: int  # requests
    waiting: int
    kv_use_frac: float  # of its key-value memory
    prompt_tokens: float  # of a request, mean
    output_tokens: float  # as predicted, mean
    tbt_s: float | None = None  # between two tokens, as measured; None: not known
    requests_per_s: float = 0.0  # that it is asked for now


@dataclass(frozen=True, slots=True)
class ClusterView:
    """What a planner sees at one moment."""

    t: float
    gpus: int  # that may be used, of all pools together
    demand: Mapping[Kind, Demand]  # now
    peak: Mapping[Kind, Demand]  # forecast for the next epoch
    slo: Mapping[Kind, Slo]
    pools: Mapping[str, Running] = field(default_factory=dict)
    power_budget_w: float | None = None  # for all instances, hosts included; None: none is set
    cap_clock_frac: float = 1.0  # the lock in force on the row: no instance runs faster
    late: frozenset[str] = frozenset()  # pools whose slowest hundredth waits too long for first tokens, as engines tell
    measured_t: float | None = None  # when `demand` was measured; None: at `t`
    slowest: Mapping[Kind, Slo] = field(default_factory=dict)  # what the slowest hundredth took of late; {}: not known
    members: Mapping[str, Sequence[Member]] = field(default_factory=dict)  # by pool, those whose engines tell enough
