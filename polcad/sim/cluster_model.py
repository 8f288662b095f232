"""A simulated cluster as one asks for it: what is asked of it, what plans it, and what goes wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from polcad.cluster.classes import Thresholds
from polcad.cluster.nouns import KINDS, ClusterView, Demand, Kind, Length, Member, PoolPlan, Slo
from polcad.cluster.profiles import LLAMA2_70B_H100, Profile, isolated_slo
from polcad.cluster.split import Design
from polcad.cluster.waiting import Rescue
from polcad.errors import ConfigError
from polcad.sim.asking import Source

TICK_S = 5.0

Planner = Callable[[ClusterView], Sequence[PoolPlan]]
Weigher = Callable[[float, Sequence[Member]], Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Span:
    """A fault's time, since the start."""

    at_s: float
    length_s: float

    def covers(self, t: float) -> bool:
        """Whether `t` lies in it."""
        return self.at_s <= t < self.at_s + self.length_s

    @classmethod
    def parse(cls, text: str, option: str) -> Span:
        """``3600+600``: at 3600 s for 600 s; ConfigError."""
        try:
            at_s, length_s = map(float, text.split("+"))
        except ValueError as error:
            raise ConfigError(f"{option} {text!r}: say AT+SECONDS") from error
        if at_s < 0 or length_s <= 0:
            raise ConfigError(f"{option} {text!r}: a time from 0 on, and a length above 0 are needed")
        return cls(at_s, length_s)


@dataclass(frozen=True, slots=True)
class Limit:
    """GPUs run no faster than `clock_frac` while `span` lasts."""

    clock_frac: float
    span: Span

    @classmethod
    def parse(cls, text: str, option: str) -> Limit:
        """``.7@3600+600``: at 3600 s for 600 s no faster than 70 % of the maximum clock; ConfigError."""
        clock, _, span = text.partition("@")
        try:
            clock_frac = float(clock)
        except ValueError as error:
            raise ConfigError(f"{option} {text!r}: say CLOCK@AT+SECONDS, with .7 for 70 %") from error
        if not 0.0 < clock_frac <= 1.0:
            raise ConfigError(f"{option} {text!r}: the clock must be above 0 and at most 1")
        return cls(clock_frac, Span.parse(span, option))


@dataclass(frozen=True, slots=True)
class ClusterModel:
    """One simulated cluster. `provisioned`: its size is fixed, for the highest load of each kind that will come.

    `accuracy`: the share of outputs whose length is guessed right. `surprise`: the load is so many times what was
    foreseen. `lost`, `stale`: while a server is gone, while no load is measured; `slow`, `cap`: while
    GPUs are limited. ConfigError for what cannot be.
    """

    system: str
    planner: Planner
    source: Source
    servers: int
    profile: Profile = LLAMA2_70B_H100
    provisioned: bool = False
    seed: int = 1
    accuracy: float = 0.81
    surprise: float = 1.0
    slo_scale: float = 1.0
    lost: Span | None = None
    stale: Span | None = None
    slow: Limit | None = None  # the busiest server, by itself: nobody is told
    cap: Limit | None = None  # all servers, by the row's plan: the planner is told
    power_budget_w: float | None = None
    margin_frac: float = 0.3  # above the highest load, of a fixed size
    in_turns: bool = False  # requests are dealt in turns, not to the instance that has least work
    rescue: Rescue | None = None  # of requests that would be late
    weigher: Weigher | None = None  # whose shares those turns follow; None: even ones
    design: Design | None = None  # of Splitwise: its machines stand, and nothing is planned

    def __post_init__(self) -> None:
        """Refuse what means nothing."""
        for name in ("servers", "surprise", "slo_scale"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name}={getattr(self, name)} must be above 0")
        if self.power_budget_w is not None and self.power_budget_w <= 0:
            raise ConfigError(f"power_budget_w={self.power_budget_w} must be above 0")
        if self.margin_frac < 0:
            raise ConfigError(f"margin={self.margin_frac} must be at least 0")
        faults = (self.lost, self.stale, self.slow, self.cap, self.power_budget_w)
        if self.design is not None and any(fault is not None for fault in faults):
            raise ConfigError(f"system {self.system}: faults, locks and power budgets are not modelled for it")
        if self.design is not None and self.in_turns:
            raise ConfigError(f"system {self.system}: it deals requests in its own way")
        if not 0 <= self.accuracy <= 1:
            raise ConfigError(f"length_accuracy={self.accuracy} must be between 0 and 1")

    @property
    def seconds(self) -> int:
        """How long it goes on, in whole ticks."""
        return ceil(self.source.length_s / TICK_S) * round(TICK_S)


def objectives(profile: Profile, thresholds: Thresholds, longest: tuple[float, float]) -> dict[Kind, Slo]:
    """Five times what a request alone takes that is as long as its kind may be; `longest`: where long ones end.

    At the tertiles of the conversation trace this gives .26, .41 and 2 s to the first token: DynamoLLM's table has
    .25, .4 and 2 s, as remembered.
    """
    prompts = dict(zip(Length, (*thresholds.prompt_tokens, longest[0]), strict=True))
    outputs = dict(zip(Length, (*thresholds.output_tokens, longest[1]), strict=True))
    return {kind: isolated_slo(profile, Demand(0.0, prompts[kind[0]], outputs[kind[1]])) for kind in KINDS}
