"""DynamoLLM's cluster level: a plan for all pools, whatever is asked; what had to give way is said.

Where no shape keeps an objective with some load, it is eased for its kind alone. Where GPUs or power do not suffice,
first all objectives give way, step by step, then a part of the load is left out. The row's power is never passed.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, floor, inf

from polcad.cluster.nouns import KINDS, ClusterView, Demand, Kind, PoolPlan, Shape, Slo, name_of
from polcad.cluster.profiles import Profile
from polcad.cluster.steady import highest_rate
from policies.dynamo_options import Options
from policies.dynamo_sizing import Asked, Candidate, Sizing

# times the objectives, and the share of the load: what is tried, in this order, until GPUs and power suffice
_TRIES = ((1.0, 1.0), (2.0, 1.0), *((8.0, share) for share in (1.0, 0.8, 0.6, 0.4, 0.2)))


@dataclass(frozen=True, slots=True)
class Sized:
    """Plans, and the objectives that they keep: `easing` times those asked for, eased further for single kinds.

    `held`: by pool, what the cluster level gave it; the pool level may use less of it.
    """

    plans: tuple[PoolPlan, ...]
    slo: Mapping[Kind, Slo]
    easing: float
    held: Mapping[str, PoolPlan]

    @classmethod
    def anew(cls, plans: tuple[PoolPlan, ...], slo: Mapping[Kind, Slo], easing: float = 1.0) -> Sized:
        """Pools that use all that they hold."""
        return cls(plans, slo, easing, {plan.pool: plan for plan in plans})

    @property
    def gpus(self) -> int:
        """That pools hold."""
        return sum(gpus_of(plan) for plan in self.held.values())

    def unused_w(self, profile: Profile) -> float:
        """What GPUs draw that no instance uses, in the fewest servers that hold what pools hold."""
        return unused_w(profile, self.gpus, sum(map(gpus_of, self.plans)))


def unused_w(profile: Profile, held: int, used: int) -> float:
    """What the GPUs of the fewest servers with `held` of them draw, but for those used."""
    return profile.unused_w * (ceil(held / profile.server_gpus) * profile.server_gpus - used)


def size(profile: Profile, options: Options, view: ClusterView, why: str) -> Sized:
    """Instances and shapes of all pools, for the peak ahead."""
    demand = ready_for(view, options.headroom_frac)
    asked = Asked(demand, view.slo, view.pools if options.instances else {}, blind=options.blind)
    slo, eased = Sizing(profile, options.bounds(profile, view, 1.0)).attainable(asked)
    groups = [KINDS] if options.blind else [(kind,) for kind in KINDS]
    merge_gpus = options.merge_gpus if options.instances and not options.blind else None
    for easing, share in _TRIES:
        sizing = Sizing(profile, options.bounds(profile, view, easing))
        part = replace(asked, slo=slo, demand={kind: each.times(share) for kind, each in demand.items()})
        if chosen := sizing.choose(part, groups, merge_gpus):
            said = "; ".join([why, *_concessions(easing, share, eased)])
            chosen.sort(key=lambda way: KINDS.index(way.kinds[-1]))
            return Sized.anew(tuple(planned(each, said) for each in chosen), slo, easing)
    return Sized.anew((_last_resort(profile, options, view, asked, why),), slo, _TRIES[-1][0])


def attainable(profile: Profile, options: Options, view: ClusterView) -> Mapping[Kind, Slo]:
    """The objectives, eased for kinds that no instance keeps."""
    asked = Asked(ready_for(view, options.headroom_frac), view.slo)
    return Sizing(profile, options.bounds(profile, view, 1.0)).attainable(asked)[0]


def relieved(
    profile: Profile, options: Options, view: ClusterView, sized: Sized, late: Container[str], why: str
) -> Sized:
    """The plans, with more GPUs or another shape for the pools in `late`, as far as GPUs and power are left.

    Nothing else moves: what is shrunk or split while load rises is missing for as long as instances take to start.
    """
    bounds = options.bounds(profile, view, sized.easing)
    if options.shards:
        bounds = replace(bounds, tensor_parallels=profile.tensor_parallels)
    asked = Asked(ready_for(view, options.reshape_headroom_frac), sized.slo, view.pools, blind=options.blind)
    plans, held = {plan.pool: plan for plan in sized.plans}, dict(sized.held)
    for pool, plan in plans.items():
        if pool in late:
            had, others = gpus_of(held[pool]), [other for name, other in plans.items() if name != pool]
            kept = sum(map(gpus_of, held.values())) - had
            most_w, used = bounds.power_w - sum(other.power_w for other in others), sum(map(gpus_of, others))
            found = Sizing(profile, replace(bounds, gpus=bounds.gpus - kept)).candidates(asked, plan.kinds)
            ways = [
                way
                for way in found
                if way.gpus >= had and way.power_w + unused_w(profile, kept + way.gpus, used + way.gpus) <= most_w
            ]
            if best := min(ways, key=lambda way: way.power_w + way.change_w, default=None):
                plans[pool] = held[pool] = planned(best, why)
    return replace(sized, plans=tuple(plans.values()), held=held)


def gpus_of(plan: PoolPlan) -> int:
    """Of all its instances."""
    return plan.instances * plan.shape.tensor_parallel


def planned(way: Candidate, why: str) -> PoolPlan:
    """A chosen way to serve some kinds, as a plan."""
    return PoolPlan(way.pool, way.kinds, way.instances, way.shape, way.demand, way.power_w, why)


def ready_for(view: ClusterView, headroom_frac: float) -> dict[Kind, Demand]:
    """Of each kind that is asked for, the peak ahead, or the load now and some headroom where that is higher."""
    factor = 1.0 + headroom_frac
    both = {kind: (view.peak.get(kind, Demand()), view.demand.get(kind, Demand()).times(factor)) for kind in KINDS}
    largest = {kind: max(pair, key=lambda each: each.requests_per_s) for kind, pair in both.items()}
    return {kind: each for kind, each in largest.items() if each.requests_per_s > 0.0}


def _concessions(easing: float, share: float, eased: Sequence[Kind]) -> Iterator[str]:
    """What was not kept, in words."""
    if eased:
        names = ", ".join(name_of(kind) for kind in eased)
        yield f"no shape keeps the objectives of {names} at a fifth of its load: eased to twice what it gives then"
    if easing > 1.0:
        yield f"GPUs, power or clocks do not suffice: objectives x{easing:g}"
    if share < 1.0:
        yield f"room for {share:.0%} of the load only"


def _last_resort(profile: Profile, options: Options, view: ClusterView, asked: Asked, why: str) -> PoolPlan:
    """One pool for all kinds at the lowest clock, as large as GPUs and power allow."""
    bounds = options.bounds(profile, view, 1.0)
    mix, _ = asked.mix(KINDS)
    most, instances, most_w, shape = 0.0, 0, 0.0, Shape(options.tensor_parallel, bounds.clocks_frac[0])
    for tensor_parallel in bounds.tensor_parallels:
        one = Shape(tensor_parallel, bounds.clocks_frac[0])
        one_w = max(profile.prompt_w(one, inf), profile.token_w(one, profile.batch_max))
        count = floor(min(bounds.power_w / one_w, bounds.gpus // tensor_parallel))
        rate = count * highest_rate(profile, tensor_parallel, mix) if mix else float(count)
        if rate > most:
            most, instances, most_w, shape = rate, count, count * one_w, one
    said = f"{why}; neither GPUs nor power suffice: {instances} instances take what they can"
    return PoolPlan(name_of(KINDS[-1]), KINDS, instances, shape, Demand(), most_w, said)
