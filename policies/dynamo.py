"""DynamoLLM (arXiv 2408.00741; HPCA'25): how a serving cluster should be shaped to spend least energy within its SLO.

Three levels, each at its own period. The cluster level (30 min) says how many instances of what shape each pool has,
sized for the peak of the next epoch (`dynamo_cluster`, `dynamo_sizing`), by objectives that are eased as far as what is
measured allows (`dynamo_easing`). The pool level (5 min) changes tensor parallelism with the GPUs that the pool has,
where that pays back (`dynamo_pool`). The instance level (each call, say every 5 s) takes the lowest-energy clock that
keeps the objectives under the load now (`dynamo_clocks`). Levels can be left out (`dynamo_options`), so the published
systems are options of this one.

What it answers when things go wrong, in each plan's `why`: more load than foreseen is met with the highest clock at
once, as are first tokens that engines tell are late; with another shape of the pool's GPUs; and, once a minute, with
more GPUs for that pool alone, before the load is too much; with a new sizing where the row has no power left for that,
as at once for lost GPUs, or a budget that fell; metrics that have stopped with what was planned last, at the highest
clock and for the objectives themselves, and more where the peak foreseen last needs it. What a sizing concedes,
`dynamo_cluster` tells; what becomes of single requests, `dynamo_rescue`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import inf

from polcad.cluster.nouns import ClusterView, Demand, PoolPlan
from polcad.cluster.profiles import LLAMA2_70B_H100, Profile
from policies.dynamo_clocks import ClockTable, Loaded, within
from policies.dynamo_cluster import Sized, attainable, ready_for, relieved, size
from policies.dynamo_easing import Easing
from policies.dynamo_options import Options
from policies.dynamo_pool import Reshaping
from policies.dynamo_sizing import NO_SLO, Asked

_SAME_FRAC = 1e-6  # caps closer than this are one
_RELIEF_S = 60.0  # between two decisions about pools with too much load
_NOTHING = ([Demand(0.0, 1.0, 1.0)], [NO_SLO])  # asked of a warm pool


class Dynamo:
    """The planner of one cluster, to be asked every few seconds."""

    def __init__(self, profile: Profile = LLAMA2_70B_H100, options: Options | None = None) -> None:
        self._profile, self._options = profile, options or Options()
        profile.degree(self._options.tensor_parallel)  # refused now rather than at the first plan
        self._sized = Sized.anew((), {})
        self._easing = Easing(self._options.ease_most, self._options.cluster_s)
        self._tables: dict[str, ClockTable] = {}
        self._cluster_t = self._pool_t = self._relief_t = -inf
        self._cap_frac = 1.0
        self._blind = False  # the load now is not known

    def decide(self, view: ClusterView) -> tuple[PoolPlan, ...]:
        """What each pool should be now; together the plans serve all kinds."""
        stale = self._stale(view)
        if why := self._cluster_due(view, stale=bool(stale)):
            self._easing.learn(view)
            self._size(view, why)
        elif stale and not self._blind:
            self._brace(view)
        elif not stale and view.t >= self._cluster_t + self._options.cluster_s:
            self._aim(view)
        elif not stale and (late := self._overloaded(view, self._options.headroom_frac)):
            self._relieve(view, late)
        elif view.t >= self._pool_t + self._options.pool_s and not stale:
            self._pool_t = view.t
            self._reshape(view, [plan.pool for plan in self._sized.plans])
        elif abs(view.cap_clock_frac - self._cap_frac) > _SAME_FRAC:
            self._renew_tables(view)
        self._blind = bool(stale)
        return self._clocked(view, stale)

    def table(self, pool: str) -> ClockTable:
        """By load, the clock of one instance of a pool of the last plans: for `InstanceClocks`."""
        return self._tables[pool]

    def _cluster_due(self, view: ClusterView, *, stale: bool) -> str:
        """Why instances are to be decided now; "" when they are not."""
        if why := self._misfit(view):
            return why
        if stale or not self._options.instances:
            return ""
        return "new epoch" if view.t >= self._cluster_t + self._options.cluster_s else ""

    def _size(self, view: ClusterView, why: str) -> None:
        """The cluster level."""
        aimed = replace(view, slo=self._easing.aims(view.slo))
        self._sized = size(self._profile, self._options, aimed, why)
        self._cluster_t = self._pool_t = view.t
        self._renew_tables(view)

    def _aim(self, view: ClusterView) -> None:
        """What an epoch teaches where instances stand."""
        self._easing.learn(view)
        self._set_objectives(view)
        self._cluster_t = view.t

    def _brace(self, view: ClusterView) -> None:
        """The load will not be told: aim at the objectives themselves, with room for the peak that was foreseen."""
        self._easing.forget()
        self._set_objectives(view)
        if not self._options.instances:
            return
        coming = replace(view, demand=ready_for(view, self._options.reshape_headroom_frac))
        if late := self._overloaded(coming, 0.0):
            self._sized = relieved(self._profile, self._options, view, self._sized, late, "room for what nobody tells")
            self._renew_tables(view)

    def _set_objectives(self, view: ClusterView) -> None:
        """Let clocks and shapes aim at what `_easing` says now."""
        aimed = replace(view, slo=self._easing.aims(view.slo))
        self._sized = replace(self._sized, slo=attainable(self._profile, self._options, aimed))
        self._renew_tables(view)

    def _misfit(self, view: ClusterView) -> str:
        """Why the last plans cannot stand; "" when they can."""
        plans, gpus = self._sized.plans, self._sized.gpus
        power_w = sum(plan.power_w for plan in plans) + self._sized.unused_w(self._profile)
        if not plans:
            return "first plan"
        if gpus > view.gpus:
            return f"{gpus} GPUs were planned, {view.gpus} are left"
        if view.power_budget_w is not None and power_w > view.power_budget_w:
            return f"{power_w:.0f} W were planned, the row has {view.power_budget_w:.0f} W"
        return ""

    def _overloaded(self, view: ClusterView, headroom_frac: float) -> list[str]:
        """Pools whose planned instances keep the objectives at no clock under the load now and some headroom."""
        factor = 1.0 + headroom_frac
        return [plan.pool for plan in self._sized.plans if not self._answers(view, plan, plan.instances / factor)]

    def _answers(self, view: ClusterView, plan: PoolPlan, instances: float) -> bool:
        return self._tables[plan.pool].answers(_requests_per_s(view, plan) / (instances or 1.0))

    def _relieve(self, view: ClusterView, late: Sequence[str]) -> None:
        """Pools with too much load: another shape of the GPUs that they hold; once a minute, more GPUs.

        Where the row has too little power left for that, all is sized anew, so that pools with more than they need give
        some.
        """
        options = self._options
        self._reshape(view, late)
        late = self._overloaded(view, options.headroom_frac)
        if not late or not options.instances or view.t < self._relief_t + _RELIEF_S:
            return
        self._sized = relieved(self._profile, options, view, self._sized, late, "more load than foreseen")
        self._relief_t = view.t
        self._renew_tables(view)
        if view.power_budget_w is None or view.t < self._cluster_t + options.pool_s:
            return
        if self._overloaded(view, options.headroom_frac):
            self._size(view, "more load than foreseen, and too little power left for it")

    def _reshape(self, view: ClusterView, pools: Sequence[str]) -> None:
        """The pool level."""
        if self._options.shards:
            ends_t = self._cluster_t + self._options.cluster_s if self._options.instances else inf
            horizon_s = min(max(ends_t - view.t, 1.0), self._options.cluster_s)
            reshaping = Reshaping(self._profile, self._options, view, horizon_s)
            self._sized = reshaping.reshaped(self._sized, pools)
            self._renew_tables(view)

    def _renew_tables(self, view: ClusterView) -> None:
        """For the plans' shapes, the requests of now, and the cap in force."""
        self._cap_frac = view.cap_clock_frac
        self._tables = {plan.pool: self._table(view, plan) for plan in self._sized.plans}

    def _table(self, view: ClusterView, plan: PoolPlan) -> ClockTable:
        options, slo = self._options, self._sized.slo
        now, coming = (Asked(demand, slo, blind=options.blind).mix(plan.kinds) for demand in (view.demand, view.peak))
        served = next((each for each in (now, coming) if each[0]), _NOTHING)
        clocks_frac = options.clocks_frac(self._profile, view.cap_clock_frac)
        shards, margin, easing = plan.shape.tensor_parallel, options.slo_margin, self._sized.easing
        return ClockTable(self._profile, shards, clocks_frac, served, margin, easing)

    def _clocked(self, view: ClusterView, stale: str) -> tuple[PoolPlan, ...]:
        """The instance level: the plans at the clocks that the load now needs, within the row's power."""
        loads, why = [], {}
        for plan in self._sized.plans:
            serving = self._serving(view, plan)
            if stale:
                why[plan.pool] = f"{stale}: as planned last, at the highest clock"
            elif not self._answers(view, plan, serving):
                why[plan.pool] = "the load now is more than its instances answer in time: highest clock"
            elif plan.pool in view.late:
                why[plan.pool] = "first tokens are late: highest clock"
            loads.append(self._hurried(plan) if stale else self._loaded(view, plan, serving))
        budget_w = inf if view.power_budget_w is None else view.power_budget_w
        return within(loads, budget_w - self._sized.unused_w(self._profile), why)

    def _loaded(self, view: ClusterView, plan: PoolPlan, instances: int) -> Loaded:
        """The pool under the load now and some headroom, with so many instances to share it."""
        table = self._tables[plan.pool]
        rate = (1.0 + self._options.headroom_frac) * _requests_per_s(view, plan)
        place = table.place(rate / max(instances, 1))
        clock = len(table.clocks_frac) - 1 if plan.pool in view.late else int(table.best[place])
        return Loaded(plan, table, place, clock)

    def _hurried(self, plan: PoolPlan) -> Loaded:
        """The pool under the load that it was sized for, at the highest clock."""
        table = self._tables[plan.pool]
        place = table.place(plan.demand.requests_per_s / max(plan.instances, 1))
        return Loaded(plan, table, place, len(table.clocks_frac) - 1)

    def _serving(self, view: ClusterView, plan: PoolPlan) -> int:
        """Instances that serve now: those planned may still be starting."""
        running = view.pools.get(plan.pool)
        if running is None or running.instances == 0 or running.shape.tensor_parallel != plan.shape.tensor_parallel:
            return plan.instances
        return min(plan.instances, running.instances)

    def _stale(self, view: ClusterView) -> str:
        """Why the load now is not known; "" when it is."""
        if view.measured_t is None or view.t - view.measured_t <= self._options.stale_after_s:
            return ""
        return f"the load has not been known for over {self._options.stale_after_s:.0f} s"


def _requests_per_s(view: ClusterView, plan: PoolPlan) -> float:
    """What is asked of a pool now."""
    return sum(view.demand[kind].requests_per_s for kind in plan.kinds if kind in view.demand)
