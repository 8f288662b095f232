"""Which levels of `policies.dynamo` act, at what periods, and how carefully."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Literal

from polcad.cluster.nouns import ClusterView
from polcad.cluster.profiles import Profile
from polcad.errors import ConfigError
from policies.dynamo_sizing import Bounds


@dataclass(frozen=True, slots=True)
class Options:
    """A level that does not act leaves its knob at the most careful: provisioned once, TP8, the highest clock."""

    pools: Literal["one", "nine"] = "nine"
    instances: bool = True  # scaled; else provisioned once, for the first view's peak
    shards: bool = True  # tensor parallelism is chosen; else it is `tensor_parallel`
    clocks: bool = True  # chosen; else the highest
    tensor_parallel: int = 8
    cluster_s: float = 1800.0
    pool_s: float = 300.0
    slo_margin: float = 1.0  # of an objective, what plans may use: estimates are careful
    headroom_frac: float = 0.2  # above the load now, for what the next seconds bring
    reshape_headroom_frac: float = 0.3  # above the load now, for what comes until shapes are looked at again
    merge_gpus: int = 16  # a pool that needs no more may merge upwards
    payback_frac: float = 0.7  # of a change's saving that is counted on
    stale_after_s: float = 60.0
    ease_most: float = 1.4  # times an objective, what plans aim at where less is measured; 1: the objective

    def __post_init__(self) -> None:
        """Refuse periods that are none, and what is no number of pools."""
        for name in ("cluster_s", "pool_s", "slo_margin", "payback_frac", "stale_after_s"):
            if getattr(self, name) <= 0.0:
                raise ConfigError(f"dynamo: {name}={getattr(self, name):g} must be above 0")
        if self.ease_most < 1.0:
            raise ConfigError(f"dynamo: ease_most={self.ease_most:g} must be at least 1")
        if self.pools not in {"one", "nine"}:
            raise ConfigError(f"dynamo: pools={self.pools!r} is neither 'one' nor 'nine'")

    @property
    def blind(self) -> bool:
        """Whether kinds are not told apart."""
        return self.pools == "one"

    def clocks_frac(self, profile: Profile, cap_frac: float) -> tuple[float, ...]:
        """The clocks to choose among, ascending; a cap in force is the highest."""
        chosen = profile.clocks_frac if self.clocks else profile.clocks_frac[-1:]
        below = tuple(clock for clock in chosen if clock < cap_frac)
        return below if below == chosen else (*below, min(cap_frac, chosen[-1]))

    def bounds(self, profile: Profile, view: ClusterView, easing: float) -> Bounds:
        """What a sizing of the cluster may use; `easing`: times the objectives."""
        return Bounds(
            gpus=view.gpus,
            power_w=inf if view.power_budget_w is None else view.power_budget_w,
            clocks_frac=self.clocks_frac(profile, view.cap_clock_frac),
            tensor_parallels=profile.tensor_parallels if self.shards else (self.tensor_parallel,),
            epoch_s=self.cluster_s,
            payback_frac=self.payback_frac,
            slo_margin=easing * self.slo_margin,
        )
