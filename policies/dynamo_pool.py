"""DynamoLLM's pool level: the tensor parallelism that serves the load now with least power, where changing pays back.

A pool may leave GPUs unused that the cluster level gave it, which then draw what unused ones do, but has no fewer
instances than it was given. A reshape is planned only if

    saved power x payback_frac x (horizon - transition) > energy of the transition,

or where the shape of now does not keep the objectives. Where none does, the pool uses what it was given.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import replace

from polcad.cluster.nouns import ClusterView, PoolPlan, Running
from polcad.cluster.profiles import Profile
from policies.dynamo_cluster import Sized, gpus_of, planned
from policies.dynamo_options import Options
from policies.dynamo_sizing import Asked, Candidate, Sizing, change_w

_LEAST_FRAC = 0.05  # of a pool's power: estimates from means are no better than that


class Reshaping:
    """Reshapes pools for `horizon_s`, the time until instances are decided anew."""

    def __init__(self, profile: Profile, options: Options, view: ClusterView, horizon_s: float) -> None:
        bounds = options.bounds(profile, view, 1.0)
        self._bounds = replace(bounds, epoch_s=horizon_s, tensor_parallels=profile.tensor_parallels)
        self._sizing = Sizing(profile, self._bounds)
        self._profile = profile
        factor = 1.0 + options.reshape_headroom_frac
        self._now = {kind: each.times(factor) for kind, each in view.demand.items()}
        self._blind = options.blind

    def reshaped(self, sized: Sized, pools: Container[str]) -> Sized:
        """The plans, those of `pools` with another parallelism where that pays; the row's power is kept."""
        left_w = self._bounds.power_w - sum(plan.power_w for plan in sized.plans) - sized.unused_w(self._profile)
        found = []
        for plan in sized.plans:
            now = self._one(plan, sized, left_w + self._cost_w(plan)) if plan.pool in pools else plan
            left_w -= self._cost_w(now) - self._cost_w(plan)
            found.append(now)
        return replace(sized, plans=tuple(found))

    def _one(self, plan: PoolPlan, sized: Sized, most_w: float) -> PoolPlan:
        """The plan as it is to be, of a cost of at most `most_w` where it changes."""
        shape, held = plan.shape, sized.held[plan.pool]
        asked = Asked(self._now, sized.slo, blind=self._blind)
        ways = self._sizing.with_gpus(asked, plan.kinds, gpus_of(held), held.instances)
        stays = next((way for way in ways if _alike(way, plan)), None)
        ways = [way for way in ways if way.shape.tensor_parallel != shape.tensor_parallel]
        ways = [way for way in ways if self._cost_w(way) <= most_w]
        best = min(ways, key=self._cost_w, default=None)
        if best is None:
            return plan if stays or self._cost_w(held) > most_w else held
        said = f"reshaped from {plan.instances} x TP{shape.tensor_parallel}"
        if stays is None:
            return planned(best, f"{said}, which does not keep the objectives under the load now")
        saved_w = self._cost_w(stays) - self._cost_w(best) - self._change_w(plan, best)
        return plan if saved_w <= _LEAST_FRAC * stays.power_w else planned(best, f"{said}: saves {saved_w:.0f} W now")

    def _cost_w(self, way: Candidate | PoolPlan) -> float:
        """Its power, above what its GPUs would draw unused."""
        return way.power_w - self._profile.unused_w * way.instances * way.shape.tensor_parallel

    def _change_w(self, plan: PoolPlan, to: Candidate) -> float:
        return change_w(self._profile, [Running(plan.instances, plan.shape)], to, self._bounds)


def _alike(way: Candidate, plan: PoolPlan) -> bool:
    return (way.instances, way.shape.tensor_parallel) == (plan.instances, plan.shape.tensor_parallel)
