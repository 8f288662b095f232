"""DynamoLLM's pool level: the tensor parallelism that serves the load now with least power, where changing pays back.

A pool keeps all the GPUs that the cluster level gave it, and must be able to serve the peak that is foreseen without
another reshape, as far as any shape can. A reshape is planned only if

    saved power x payback_frac x (horizon - transition) > energy of the transition.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from polcad.cluster.nouns import ClusterView, Kind, PoolPlan, Running, Slo
from polcad.cluster.profiles import Profile
from policies.dynamo_cluster import planned, ready_for
from policies.dynamo_options import Options
from policies.dynamo_sizing import Asked, Candidate, Sizing, change_w

_LEAST_FRAC = 0.05  # of a pool's power: estimates from means are no better than that


class Reshaping:
    """Reshapes pools for `horizon_s`, the time until instances are decided anew."""

    def __init__(self, profile: Profile, options: Options, view: ClusterView, easing: float, horizon_s: float) -> None:
        bounds = options.bounds(profile, view, easing)
        self._bounds = replace(bounds, epoch_s=horizon_s, tensor_parallels=profile.tensor_parallels)
        self._sizing = Sizing(profile, self._bounds)
        self._profile = profile
        factor = 1.0 + options.headroom_frac
        self._now = {kind: each.times(factor) for kind, each in view.demand.items()}
        self._peak = ready_for(options, view)
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
        degree, gpus = plan.shape.tensor_parallel, plan.instances * plan.shape.tensor_parallel
        ways, able = (
            self._sizing.with_gpus(Asked(demand, slo, blind=self._blind), plan.kinds, gpus)
            for demand in (self._now, self._peak)
        )
        lasting = {way.shape.tensor_parallel for way in able} or set(self._bounds.tensor_parallels)
        ways = [way for way in ways if way.shape.tensor_parallel in lasting | {degree}]
        stays = next((way for way in ways if way.shape.tensor_parallel == degree), None)
        best = min(ways, key=lambda way: way.power_w, default=None)
        if best is None or best is stays or best.power_w > most_w:
            return plan
        if stays is None:
            return planned(best, f"TP{degree} does not keep the objectives under the load now")
        saved_w = stays.power_w - best.power_w - self._change_w(plan, best)
        if saved_w <= _LEAST_FRAC * stays.power_w:
            return plan
        return planned(best, f"reshaped from TP{degree}: saves {saved_w:.0f} W now")

    def _change_w(self, plan: PoolPlan, to: Candidate) -> float:
        return change_w(self._profile, [Running(plan.instances, plan.shape)], to, self._bounds)
