"""DynamoLLM's pool level: the tensor parallelism that serves the load now with least power, where changing pays back.

A pool keeps the GPUs that the cluster level gave it. A reshape is planned only if

    saved power x payback_frac x (horizon - transition) > energy of the transition.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from polcad.cluster.nouns import ClusterView, Kind, PoolPlan, Running, Slo
from polcad.cluster.profiles import Profile
from policies.dynamo_cluster import planned
from policies.dynamo_options import Options
from policies.dynamo_sizing import Asked, Candidate, Sizing, change_w


class Reshaping:
    """Reshapes pools for `horizon_s`, the time until instances are decided anew."""

    def __init__(self, profile: Profile, options: Options, view: ClusterView, easing: float, horizon_s: float) -> None:
        bounds = options.bounds(profile, view, easing)
        self._bounds = replace(bounds, epoch_s=horizon_s, tensor_parallels=profile.tensor_parallels)
        self._sizing = Sizing(profile, self._bounds)
        self._profile = profile
        factor = 1.0 + options.headroom_frac
        self._demand = {kind: each.times(factor) for kind, each in view.demand.items()}
        self._blind = options.blind

    def reshaped(self, plans: Sequence[PoolPlan], slo: Mapping[Kind, Slo]) -> tuple[PoolPlan, ...]:
        """The plans, each with another parallelism where that pays; the row's power is kept."""
        total_w, found = sum(plan.power_w for plan in plans), []
        for plan in plans:
            now = self._one(plan, slo, self._bounds.power_w - (total_w - plan.power_w))
            total_w += now.power_w - plan.power_w
            found.append(now)
        return tuple(found)

    def _one(self, plan: PoolPlan, slo: Mapping[Kind, Slo], most_w: float) -> PoolPlan:
        asked = Asked(self._demand, slo, blind=self._blind)
        if not asked.mix(plan.kinds)[0]:
            return plan
        degree, gpus = plan.shape.tensor_parallel, plan.instances * plan.shape.tensor_parallel
        ways = self._sizing.with_gpus(asked, plan.kinds, gpus)
        stays = next((way for way in ways if way.shape.tensor_parallel == degree), None)
        best = min(ways, key=lambda way: way.power_w, default=None)
        if best is None or best is stays or best.power_w > most_w:
            return plan
        if stays is None:
            return planned(best, f"TP{degree} does not keep the objectives under the load now")
        saved_w = stays.power_w - best.power_w - self._change_w(plan, best)
        return planned(best, f"reshaped from TP{degree}: saves {saved_w:.0f} W now") if saved_w > 0.0 else plan

    def _change_w(self, plan: PoolPlan, to: Candidate) -> float:
        return change_w(self._profile, [Running(plan.instances, plan.shape)], to, self._bounds)
