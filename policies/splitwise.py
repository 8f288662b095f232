"""Splitwise (arXiv 2311.18677) for a live daemon: how many servers read prompts, make tokens, and do both.

Every `cluster_s` the two pools are sized for the peak ahead: so many servers as the objectives need, or, where the
row's power or GPUs do not suffice, those that serve most (`polcad.cluster.split`). Between two sizings servers move:
when a pool is full under the load now and the other has some to spare, so many of those are hinted to the mixed pool,
as far as the row's power allows; they go back when their help, with `headroom_frac`, is not missed. When neither has
any to spare, both are sized anew, once a minute.

Requests are counted where tokens are made: an engine that reads prompts alone sees each of them a second time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, inf
from pathlib import Path
from typing import Annotated

from polcad.cluster.machines import Machine
from polcad.cluster.nouns import KINDS, ClusterView, Demand, Kind, PoolPlan, Slo
from polcad.cluster.profiles import LLAMA2_70B_H100, Profile
from polcad.cluster.split import Budget, Design, Pools, prompt_rate, size, token_batch, token_rate
from polcad.errors import ConfigError
from polcad.model import Name, Range, Text
from policies.dynamo_sizing import Asked

_RELIEF_S = 60.0  # between two sizings that more load than foreseen asks for
_EASINGS = (1.0, 2.0, 4.0, 8.0, inf)  # times the objectives, until some load is served
_LEAST_RATE = 1e-6  # requests a second of a server that serves none
_FULL_PROMPTS = 2048.0  # tokens that are read together


@dataclass(frozen=True, slots=True)
class _Sized:
    """Pools, and what one server of each serves and draws at most."""

    pools: Pools
    rates: tuple[float, float]  # requests a second of a prompt and of a token server
    each_w: tuple[float, float]
    demand: Demand
    why: str

    def needs(self, rate: float) -> tuple[int, int]:
        """Prompt and token servers for so many requests a second."""
        prompt, token = (max(1, ceil(rate / max(each, _LEAST_RATE))) for each in self.rates)
        return prompt, token

    def power_w(self, pools: Pools) -> float:
        """What pools draw at most; whoever does both may read prompts all the time."""
        return (pools.prompt + pools.mixed) * self.each_w[0] + pools.token * self.each_w[1]


class SplitwiseHints:
    """Splitwise: servers that read prompts, that make tokens, and that do both while one pool is full."""

    def __init__(  # noqa: PLR0913  # one an option
        self,
        *,
        prompt_profile: Annotated[str, Text(4096)] = "",  # a TOML file of your model and GPU; "": Llama-2-70B on H100
        token_profile: Annotated[str, Text(4096)] = "",  # likewise, of the token servers; "": as the prompt servers
        token_cap_frac: Annotated[float, Range(0.1, 1.0)] = 1.0,  # of the token servers' highest power limit
        prompt_pool: Name = "prompt",  # the prompt servers' pool
        token_pool: Name = "token",  # noqa: S107  # the token servers' pool (no secret)
        mixed_pool: Name = "mixed",  # of those that do both
        cluster_s: Annotated[float, Range(1.0, 86400.0)] = 1800.0,  # between two sizings
        headroom_frac: Annotated[float, Range(0.0, 10.0)] = 0.15,  # above the load now
    ) -> None:
        first = Profile.read(Path(prompt_profile)) if prompt_profile else LLAMA2_70B_H100
        last = Profile.read(Path(token_profile)) if token_profile else first
        self._machines = Machine(first, 0.0, 0.0), Machine(last, 0.0, 0.0, token_cap_frac)
        self._names = prompt_pool, token_pool, mixed_pool
        if len(set(self._names)) < len(self._names):
            raise ConfigError(f"mixed_pool={mixed_pool!r}, token_pool and prompt_pool={prompt_pool!r} must differ")
        self._cluster_s, self._headroom_frac = cluster_s, headroom_frac
        self._sized: _Sized | None = None
        self._pools = Pools()  # as hinted last
        self._t = -inf
        self._clock_frac = 1.0

    def hints(self, view: ClusterView) -> Sequence[PoolPlan]:
        """What each pool should be now; none while nothing is asked."""
        if why := self._due(view):
            self._size(view, why)
        if self._sized is None:
            return []
        pools, why = self._moved(view, self._sized)
        if self._short(view, self._sized, pools) and view.t >= self._t + _RELIEF_S:
            self._size(view, "more load than foreseen")
            pools, why = self._sized.pools, self._sized.why
        self._pools = pools
        return self._plans(view, self._sized, pools, why)

    def _due(self, view: ClusterView) -> str:
        """Why to size anew; "" when there is no need."""
        sized, pools = self._sized, self._pools
        if sized is None:
            return "first plan"
        if pools.prompt * self._gpus[0] + pools.token * self._gpus[1] + pools.mixed * max(self._gpus) > view.gpus:
            return f"{view.gpus} GPUs are left"
        if view.power_budget_w is not None and sized.power_w(pools) > view.power_budget_w:
            return f"the row has {view.power_budget_w:.0f} W left"
        if view.cap_clock_frac != self._clock_frac:
            return f"the row's clock is at {view.cap_clock_frac:.0%}"
        return "new epoch" if view.t >= self._t + self._cluster_s else ""

    @property
    def _gpus(self) -> tuple[int, int]:
        first, last = (machine.tensor_parallel for machine in self._machines)
        return first, last

    def _size(self, view: ClusterView, why: str) -> None:
        demand, slos = Asked(self._ready_for(view), view.slo, blind=True).mix(KINDS)
        if not demand:
            return
        self._t, self._clock_frac = view.t, view.cap_clock_frac
        kind = Design(*(replace(one, clock_frac=view.cap_clock_frac) for one in self._machines))
        self._sized = _fitting(kind, demand[0], slos[0], view, why)

    def _ready_for(self, view: ClusterView) -> dict[Kind, Demand]:
        """Of each kind the peak ahead, or the load now and some headroom where that is higher."""
        now = {kind: each.times(1.0 + self._headroom_frac) for kind, each in view.demand.items()}
        both = ((kind, [each[kind] for each in (now, view.peak) if kind in each]) for kind in KINDS)
        return {kind: max(each, key=lambda one: one.requests_per_s) for kind, each in both if each}

    def _moved(self, view: ClusterView, sized: _Sized) -> tuple[Pools, str]:
        """The pools under the load now, and why they are so."""
        rate, own, before = _rate(view), sized.pools, self._pools.mixed
        prompt, token = sized.needs(rate)
        if before:  # who helps goes back only when its help is missed no more
            prompt, token = sized.needs((1.0 + self._headroom_frac) * rate)
        room_w = inf if view.power_budget_w is None else view.power_budget_w - sized.power_w(own)
        more_w = max(sized.each_w[0] - sized.each_w[1], 1e-9)
        to_prompts = min(prompt - own.prompt, own.token - token, int(min(room_w / more_w, own.token)))
        to_tokens = min(token - own.token, own.prompt - prompt)
        if to_prompts > 0:
            said = f"the prompt pool is full: {to_prompts} of the token servers do both"
            return Pools(own.prompt, own.token - to_prompts, to_prompts), said
        if to_tokens > 0:
            said = f"the token pool is full: {to_tokens} of the prompt servers do both"
            return Pools(own.prompt - to_tokens, own.token, to_tokens), said
        return own, "drained: back to their own pools" if before else sized.why

    def _short(self, view: ClusterView, sized: _Sized, pools: Pools) -> bool:
        """Whether the load now is more than the pools serve, however they help each other."""
        prompt, token = sized.needs(_rate(view))
        return pools.prompt + pools.mixed < prompt or pools.token + pools.mixed < token

    def _plans(self, view: ClusterView, sized: _Sized, pools: Pools, why: str) -> list[PoolPlan]:
        first, last = (replace(one, clock_frac=view.cap_clock_frac).shape for one in self._machines)
        helps = last if pools.token < sized.pools.token else first  # whose servers are in the mixed pool
        now = replace(sized.demand, requests_per_s=_rate(view))
        rows = (
            ((), pools.prompt, first, sized.demand, sized.each_w[0]),  # no kinds: see the top
            (KINDS, pools.token, last, sized.demand, sized.each_w[1]),
            (KINDS, pools.mixed, helps, now.times(float(pools.mixed > 0)), sized.each_w[0]),
        )
        return [
            PoolPlan(name, kinds, count, shape, demand, count * each_w, why)
            for name, (kinds, count, shape, demand, each_w) in zip(self._names, rows, strict=True)
        ]


def _rate(view: ClusterView) -> float:
    """Requests a second now."""
    return sum(each.requests_per_s for each in view.demand.values())


def _fitting(kind: Design, demand: Demand, slo: Slo, view: ClusterView, why: str) -> _Sized:
    """As many servers as the demand needs; where power or GPUs do not suffice, those that serve most."""
    first, last = kind.kinds[0], kind.kinds[-1]
    for easing in _EASINGS:
        eased = Slo(easing * slo.ttft_s, easing * slo.tbt_s)
        rates = prompt_rate(first, demand, eased), token_rate(last, demand, eased)
        if min(rates) > 0.0:
            break
    said = why if easing == 1.0 else f"{why}; no server keeps the objectives, planned with them x{easing:g}"
    each_w = first.prompt_w(_FULL_PROMPTS), last.token_w(max(1, token_batch(last, demand, eased)))
    sized = _Sized(Pools(), rates, each_w, demand, said)
    pools = Pools(*sized.needs(demand.requests_per_s))
    gpus = pools.prompt * first.tensor_parallel + pools.token * last.tensor_parallel
    most_w = inf if view.power_budget_w is None else view.power_budget_w
    if gpus <= view.gpus and sized.power_w(pools) <= most_w:
        return replace(sized, pools=pools)
    servers = view.gpus // max(first.tensor_parallel, last.tensor_parallel)
    most = size(kind, demand, eased, Budget(most_w, servers, each_w))
    said += f"; GPUs and power allow {most.requests_per_s:.1f} requests/s of {demand.requests_per_s:.1f}"
    return replace(sized, pools=most.pools, why=said)
