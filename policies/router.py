"""Which share of a pool's requests each of its instances should be given: a mix of stalling prompts and memory room.

After the Intelligent Router (arXiv 2408.13510). It takes a request to last about `prompt tokens x prompt slope + output
tokens x decode time`, and mixes what prompts stall half and half with what room the memory has; its exact equations
were not readable, and it learns for each request where this weighs instances every few seconds. Ours, of an instance
with so many requests running and waiting, of p prompt and d output tokens (as predicted) each:

    stall  = (running + waiting + 1) x p x prompt slope + d x time of an iteration with all of them
    room   = 1 - use of the key-value memory - what those inside and one more are still to need of it
    cost   = alpha x stall / mean stall + (1 - alpha) x (1 / room) / mean of that, over the last half minute
    weight ~ 1 / cost squared

The first term is what the prompts ahead make a new request wait, and its own those inside; those that run are half way.
Slopes and times are the profile's, longer by as much as tokens are measured to be slower: a clock that nobody told of
shows in that. Costs are smoothed, since a single look at a queue is mostly luck; by their square, a slow instance is
relieved before its queue grows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import exp, inf
from pathlib import Path
from typing import Annotated

import numpy as np

from polcad.cluster.nouns import KINDS, ClusterView, Demand, Member, PoolPlan, Running, Shape
from polcad.cluster.profiles import LLAMA2_70B_H100, Profile
from polcad.cluster.steady import TOGETHER_TOKENS, steady
from polcad.model import Range, Text
from polcad.places import Floats

_SMOOTH_S = 30.0
_LEAST_ROOM_FRAC = 0.02  # of the memory: a full instance is fifty times as tight as an empty one


class Router:
    """Weighs the instances of one pool, whose parallelisms the profile must know; `alpha`: how much stalling counts."""

    def __init__(self, profile: Profile = LLAMA2_70B_H100, alpha: float = 0.5) -> None:
        self._profile, self._alpha = profile, alpha
        self._costs: dict[str, float] = {}  # by name
        self._t = -inf

    def weights(self, t: float, members: Sequence[Member]) -> dict[str, float]:
        """By name, shares of the requests that come from `t` on; together 1."""
        if not members:
            return {}
        kept = exp(-max(0.0, t - self._t) / _SMOOTH_S)
        now = zip((each.name for each in members), self._costs_now(members), strict=True)
        self._costs = {name: kept * self._costs.get(name, cost) + (1.0 - kept) * cost for name, cost in now}
        self._t = t
        total = sum(cost**-2 for cost in self._costs.values())
        return {name: cost**-2 / total for name, cost in self._costs.items()}

    def _costs_now(self, members: Sequence[Member]) -> list[float]:
        stall = np.array([self._stall_s(each) for each in members])
        tight = np.array([1.0 / self._room_frac(each) for each in members])
        costs: Floats = self._alpha * stall / stall.mean() + (1.0 - self._alpha) * tight / tight.mean()
        return list(costs.tolist())

    def _stall_s(self, one: Member) -> float:
        inside = one.running + one.waiting + 1
        prompts_s = inside * one.prompt_tokens * self._profile.prompt_s(one.shape, TOGETHER_TOKENS) / TOGETHER_TOKENS
        return self._slower(one) * (prompts_s + one.output_tokens * self._iteration_s(one, inside))

    def _slower(self, one: Member) -> float:
        """How many times slower its tokens come than they should."""
        return one.tbt_s / self._iteration_s(one, one.running) if one.tbt_s and one.running else 1.0

    def _iteration_s(self, one: Member, requests: int) -> float:
        batch = min(requests, self._profile.batch_max)
        return self._profile.token_s(one.shape, batch, batch * (one.prompt_tokens + 0.5 * one.output_tokens))

    def _room_frac(self, one: Member) -> float:
        whole = one.prompt_tokens + one.output_tokens
        coming = 0.5 * one.running * one.output_tokens + (one.waiting + 1) * whole
        left_frac = 1.0 - one.kv_use_frac - coming / self._profile.kv_tokens(one.shape.tensor_parallel)
        return max(_LEAST_ROOM_FRAC, left_frac)


class Routing:
    """The routers of all pools; what a hint policy adds to its plans."""

    def __init__(self, profile: Profile, alpha: float) -> None:
        self._profile, self._alpha = profile, alpha
        self._routers: dict[str, Router] = {}

    def weighed(self, view: ClusterView, plan: PoolPlan) -> PoolPlan:
        """The plan with its instances' weights; without, where one is of a parallelism that the profile lacks."""
        members, known = view.members.get(plan.pool, ()), self._profile.tensor_parallels
        self._routers = {pool: router for pool, router in self._routers.items() if pool in view.members}
        if any(each.shape.tensor_parallel not in known for each in members):
            return plan
        router = self._routers.setdefault(plan.pool, Router(self._profile, self._alpha))
        return replace(plan, weights=router.weights(view.t, members))


class RouterHints:
    """Leaves pools as they are, but for a clock that the row can power, and weighs their instances."""

    def __init__(
        self,
        *,
        profile: Annotated[str, Text(4096)] = "",  # a TOML file of your model and GPU; "": Llama-2-70B on H100
        alpha: Annotated[float, Range(0.0, 1.0)] = 0.5,  # what stalling prompts count for; memory: the rest
    ) -> None:
        self._profile = Profile.read(Path(profile)) if profile else LLAMA2_70B_H100
        self._routing = Routing(self._profile, alpha)

    def hints(self, view: ClusterView) -> Sequence[PoolPlan]:
        """Pools as they are, at the highest clock that fits; where none does, at the lowest: the desk refuses that."""
        plans: list[PoolPlan] = []
        budget_w = inf if view.power_budget_w is None else view.power_budget_w
        clocks_frac = {min(clock_frac, view.cap_clock_frac) for clock_frac in self._profile.clocks_frac}
        for clock_frac in sorted(clocks_frac, reverse=True):
            plans = [self._as_is(view, pool, clock_frac) for pool in view.members if self._known(view.pools[pool])]
            if sum(plan.power_w for plan in plans) <= budget_w:
                break
        return [self._routing.weighed(view, plan) for plan in plans]

    def draws_w(self, running: Running, demand: Demand) -> float | None:
        """What a pool as it is draws; None for a tensor parallelism that the profile does not know."""
        if not self._known(running):
            return None
        one = steady(self._profile, running.shape, demand.times(1 / max(running.instances, 1)))
        return running.instances * one.power_w

    def _known(self, running: Running) -> bool:
        return running.shape.tensor_parallel in self._profile.tensor_parallels

    def _as_is(self, view: ClusterView, pool: str, clock_frac: float) -> PoolPlan:
        running = view.pools[pool]
        instances = running.instances + running.starting
        shape = Shape(running.shape.tensor_parallel, clock_frac)
        now = _asked(view.members[pool])
        rates = [sum(each.requests_per_s for each in demand.values()) for demand in (view.demand, view.peak)]
        peak = now.times(max(1.0, rates[1] / rates[0]) if rates[0] else 1.0)
        now_w, power_w = (self.draws_w(Running(instances, shape), demand) or 0.0 for demand in (now, peak))
        why = "pools as they are" if clock_frac >= view.cap_clock_frac else "pools as they are, at a clock that fits"
        return PoolPlan(pool, KINDS, instances, shape, peak, power_w, why, now_w=now_w)


def _asked(members: Sequence[Member]) -> Demand:
    total = Demand()
    for each in members:
        total = total.plus(Demand(each.requests_per_s, each.prompt_tokens, each.output_tokens))
    return total
