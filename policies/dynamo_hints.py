"""DynamoLLM for a live daemon: `policies.dynamo` with its options as an operator writes them under ``[hints]``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from polcad.cluster.nouns import KINDS, ClusterView, Demand, PoolPlan, Running, name_of
from polcad.cluster.profiles import LLAMA2_70B_H100, Profile
from polcad.cluster.steady import steady
from polcad.errors import ConfigError
from polcad.model import Name, Range, Text
from policies.dynamo import Dynamo
from policies.dynamo_options import Options
from policies.router import Routing

_ALL_KINDS = name_of(KINDS[-1])  # as the planner calls the one pool of all kinds


class DynamoHints:
    """DynamoLLM: instances, tensor parallelism and clocks of the least power that keep the objectives."""

    def __init__(  # noqa: PLR0913  # one an option
        self,
        *,
        profile: Annotated[str, Text(4096)] = "",  # a TOML file of your model and GPU; "": Llama-2-70B on H100
        pools: Literal["one", "nine"] = "nine",  # one for all requests, or by their lengths: ss, sm … ll
        pool: Name = "pool",  # what the one pool is called
        tensor_parallel: Annotated[int, Range(1, 64)] = 8,  # where it is not chosen
        cluster_s: Annotated[float, Range(1.0, 86400.0)] = 1800.0,  # between two decisions on instances
        pool_s: Annotated[float, Range(1.0, 86400.0)] = 300.0,  # between two decisions on tensor parallelism
        slo_margin: Annotated[float, Range(0.01, 1.0)] = 1.0,  # of an objective, what plans may use
        headroom_frac: Annotated[float, Range(0.0, 10.0)] = 0.2,  # above the load now, for the next seconds
        merge_gpus: Annotated[int, Range(0, 1024)] = 16,  # a pool that needs no more may merge upwards
        payback_frac: Annotated[float, Range(0.01, 1.0)] = 0.7,  # of a change's saving that is counted on
        ease_most: Annotated[float, Range(1.0, 100.0)] = 1.4,  # times an objective, to aim at where engines are quicker
        alpha: Annotated[float, Range(0.0, 1.0)] = 0.5,  # in routers' weights, what stalling prompts count for
    ) -> None:
        self._profile = Profile.read(Path(profile)) if profile else LLAMA2_70B_H100
        self._name = pool if pools == "one" else None
        options = Options(
            pools=pools,
            tensor_parallel=tensor_parallel,
            cluster_s=cluster_s,
            pool_s=pool_s,
            slo_margin=slo_margin,
            headroom_frac=headroom_frac,
            merge_gpus=merge_gpus,
            payback_frac=payback_frac,
            ease_most=ease_most,
        )
        self._planner = Dynamo(self._profile, options)
        self._routing = Routing(self._profile, alpha)

    def hints(self, view: ClusterView) -> Sequence[PoolPlan]:
        """What each pool should be now, and how its instances should share its requests."""
        return [self._routing.weighed(view, plan) for plan in self._plans(view)]

    def _plans(self, view: ClusterView) -> Sequence[PoolPlan]:
        if self._name is None:
            return self._planner.decide(view)
        pools = {_ALL_KINDS if name == self._name else name: each for name, each in view.pools.items()}
        return [replace(plan, pool=self._name) for plan in self._planner.decide(replace(view, pools=pools))]

    def draws_w(self, running: Running, demand: Demand) -> float | None:
        """What a pool as it is draws; None for a tensor parallelism that the profile does not know."""
        try:
            one = steady(self._profile, running.shape, demand.times(1 / max(running.instances, 1)))
        except ConfigError:
            return None
        return running.instances * one.power_w
