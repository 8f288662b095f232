from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from polcad.cluster.nouns import KINDS, ClusterView, Demand, PoolPlan, Running, Shape, Slo, name_of
from polcad.cluster.profiles import LLAMA2_70B_H100
from polcad.cluster.waiting import Queue, Rung, Step
from polcad.errors import ConfigError
from policies.dynamo import Dynamo
from policies.dynamo_clocks import InstanceClocks
from policies.dynamo_cluster import Sized
from policies.dynamo_options import Options
from policies.dynamo_pool import Reshaping
from policies.dynamo_rescue import rescue
from tests.cluster_views import SLO, demand_of, view_of

P = LLAMA2_70B_H100
FIXED = Options(instances=False, shards=False, clocks=False)
SYSTEMS = {  # as in the paper
    "single-pool": replace(FIXED, pools="one"),
    "multi-pool": FIXED,
    "scale-instances": replace(FIXED, instances=True),
    "scale-shards": replace(FIXED, shards=True),
    "scale-clock": replace(FIXED, clocks=True),
    "dynamo": Options(),
}


def gpus_of(plans: tuple[PoolPlan, ...]) -> int:
    return sum(plan.instances * plan.shape.tensor_parallel for plan in plans)


def now_w(plans: tuple[PoolPlan, ...]) -> float:
    return sum(plan.now_w for plan in plans)


def said(plans: tuple[PoolPlan, ...]) -> str:
    return " | ".join(plan.why for plan in plans)


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_serves_every_kind_once_within_its_gpus(name: str) -> None:
    plans = Dynamo(P, SYSTEMS[name]).decide(view_of(36.0, 48.0))
    assert sorted(kind for plan in plans for kind in plan.kinds) == sorted(KINDS)
    assert all(plan.instances >= 1 for plan in plans)
    assert gpus_of(plans) <= 4000


def test_each_knob_saves_and_all_together_save_most() -> None:
    """The paper's order: many pools alone cost; instances, shards and clocks each save; all together most."""
    drawn_w = {}
    for name, options in SYSTEMS.items():
        planner = Dynamo(P, options)
        planner.decide(view_of(4.0, 8.0))
        drawn_w[name] = now_w(planner.decide(view_of(4.0, 8.0, t=300.0)))
    assert drawn_w["multi-pool"] > drawn_w["single-pool"]
    for name in ("scale-instances", "scale-shards", "scale-clock"):
        assert drawn_w["dynamo"] < drawn_w[name] < drawn_w["multi-pool"]


def test_under_loaded_pools_merge_upwards_and_loaded_ones_stay_apart() -> None:
    assert len(Dynamo().decide(view_of(1.0, 1.0))) < 5
    assert len(Dynamo().decide(view_of(200.0, 200.0, gpus=4000))) >= 8


def test_an_empty_cluster_keeps_one_warm_instance() -> None:
    plans = Dynamo().decide(view_of(0.0, 0.0))
    assert [(plan.instances, plan.kinds) for plan in plans] == [(1, KINDS)]


def test_pools_are_sized_for_the_peak_and_clocked_for_the_load_now() -> None:
    quiet, busy = (Dynamo().decide(view_of(now, 240.0)) for now in (48.0, 200.0))
    assert gpus_of(quiet) == gpus_of(busy)
    assert now_w(quiet) < now_w(busy)
    assert max(plan.shape.clock_frac for plan in quiet) < max(plan.shape.clock_frac for plan in busy)


def test_instances_are_decided_anew_each_epoch_only() -> None:
    planner = Dynamo()
    before = gpus_of(planner.decide(view_of(60.0, 60.0)))
    assert gpus_of(planner.decide(view_of(60.0, 240.0, t=1795.0))) == before
    plans = planner.decide(view_of(60.0, 240.0, t=1800.0))
    assert gpus_of(plans) > before
    assert "new epoch" in said(plans)


def test_a_change_that_does_not_pay_back_is_not_planned() -> None:
    """Instances that take long to start are not exchanged for somewhat better ones."""
    before = Dynamo().decide(view_of(60.0, 60.0))
    running = {plan.pool: Running(plan.instances, plan.shape) for plan in before}
    slow = replace(P, start_s=1e9, reshape_s=1e9)
    after = Dynamo(slow).decide(view_of(48.0, 48.0, pools=running))
    assert {plan.pool for plan in after} <= set(running)
    assert all(plan.shape.tensor_parallel == running[plan.pool].shape.tensor_parallel for plan in after)
    assert gpus_of(after) <= gpus_of(before)


def test_a_reshape_is_planned_only_where_it_pays_back() -> None:
    for reshape_s, reshapes in ((0.1, True), (1e6, False)):
        planner = Dynamo(replace(P, reshape_s=reshape_s), SYSTEMS["scale-shards"])
        before = gpus_of(planner.decide(view_of(8.0, 8.0)))
        plans = planner.decide(view_of(1.0, 8.0, t=300.0))
        assert (gpus_of(plans) < before) is reshapes
        assert ("reshaped from 1 x TP4: saves" in said(plans)) is reshapes


def test_where_shards_are_chosen_a_fixed_size_is_made_of_the_shapes_that_the_peak_needs() -> None:
    many, shards = (
        gpus_of(Dynamo(P, SYSTEMS[name]).decide(view_of(8.0, 8.0))) for name in ("multi-pool", "scale-shards")
    )
    assert shards < many


def test_a_pool_may_leave_gpus_unused_and_has_them_back_when_load_rises() -> None:
    planner = Dynamo(P, SYSTEMS["scale-shards"])
    before = gpus_of(planner.decide(view_of(8.0, 8.0)))
    assert gpus_of(planner.decide(view_of(1.0, 8.0, t=300.0))) < before
    risen = planner.decide(view_of(1000.0, 8.0, t=305.0))
    assert gpus_of(risen) == before


def test_relief_comes_before_the_load_is_too_much() -> None:
    for rate in range(60, 120):
        planner = Dynamo()
        before = gpus_of(planner.decide(view_of(60.0, 60.0)))
        plans = planner.decide(view_of(float(rate), 60.0, t=5.0))
        if gpus_of(plans) > before:
            break
    assert "more load than foreseen" in said(plans)
    assert "highest clock" not in said(plans)


def test_gpus_left_over_in_servers_are_counted() -> None:
    bare, dear = replace(P, gpu_bare_w=0.0, host_idle_w=0.0), replace(P, gpu_bare_w=2000.0, host_idle_w=0.0)
    left = [
        sum(-gpus_of(Dynamo(profile).decide(view_of(load, load))) % P.server_gpus for load in (2.0, 5.0, 9.0, 14.0))
        for profile in (bare, dear)
    ]
    assert left[1] < left[0]


def test_the_rows_power_is_never_passed_and_what_gives_way_is_said() -> None:
    free = Dynamo().decide(view_of(180.0, 180.0))
    for share in (0.6, 0.05):
        budget_w = share * now_w(free)
        plans = Dynamo().decide(view_of(180.0, 180.0, power_budget_w=budget_w))
        assert sum(plan.power_w for plan in plans) <= budget_w
        assert now_w(plans) <= budget_w
        assert "suffice" in said(plans)


def test_a_load_above_the_forecast_does_not_pass_the_rows_power_either() -> None:
    planner = Dynamo()
    budget_w = 1.05 * sum(plan.power_w for plan in planner.decide(view_of(60.0, 60.0)))
    plans = planner.decide(view_of(180.0, 60.0, t=5.0, power_budget_w=budget_w))
    assert now_w(plans) <= budget_w
    assert "lowered to what the row can power" in said(plans)


def test_a_reshape_leaves_room_in_the_rows_power_for_gpus_that_nobody_uses() -> None:
    asked = Demand(2.0, 400.0, 200.0)
    plan, held = (PoolPlan("mm", (KINDS[4],), 1, Shape(tp), asked, 1200.0, "") for tp in (2, 4))
    sized = Sized((plan,), {KINDS[4]: Slo(0.5, 0.1)}, 1.0, {"mm": held})
    view = ClusterView(t=0.0, gpus=8, demand={KINDS[4]: asked}, peak={KINDS[4]: asked}, slo=sized.slo)
    free = Reshaping(P, Options(), view, 1800.0).reshaped(sized, ["mm"])
    assert gpus_of(free.plans) == 4
    few = replace(view, power_budget_w=free.plans[0].power_w + 0.5 * free.unused_w(P))
    assert Reshaping(P, Options(), few, 1800.0).reshaped(sized, ["mm"]).plans[0].power_w < free.plans[0].power_w


def test_a_budget_that_falls_is_met_at_once() -> None:
    planner = Dynamo()
    before_w = now_w(planner.decide(view_of(120.0, 120.0)))
    plans = planner.decide(view_of(120.0, 120.0, t=5.0, power_budget_w=0.7 * before_w))
    assert now_w(plans) <= 0.7 * before_w
    assert "the row has" in said(plans)


def test_a_cap_in_force_bounds_clocks_and_lowers_what_instances_are_counted_for() -> None:
    free, capped = (Dynamo().decide(view_of(120.0, 120.0, cap_clock_frac=cap)) for cap in (1.0, 0.75))
    assert max(plan.shape.clock_frac for plan in capped) <= 0.75
    assert gpus_of(capped) > gpus_of(free)


def test_a_cap_that_comes_later_bounds_clocks_at_once() -> None:
    planner = Dynamo()
    planner.decide(view_of(120.0, 120.0))
    plans = planner.decide(view_of(120.0, 120.0, t=5.0, cap_clock_frac=0.6))
    assert max(plan.shape.clock_frac for plan in plans) <= 0.6


def test_twice_the_forecast_runs_at_the_highest_clock_and_is_sized_for_at_once() -> None:
    planner = Dynamo()
    before = planner.decide(view_of(60.0, 60.0))
    running = {plan.pool: Running(plan.instances, plan.shape) for plan in before}
    plans = planner.decide(view_of(120.0, 60.0, t=5.0, pools=running))
    assert gpus_of(plans) > gpus_of(before)
    assert "more load than foreseen" in said(plans)
    assert any(plan.shape.clock_frac == 1.0 and "highest clock" in plan.why for plan in plans)


def test_late_first_tokens_raise_the_clock_of_their_pool_alone() -> None:
    planner = Dynamo()
    planner.decide(view_of(60.0, 120.0))
    plans = planner.decide(replace(view_of(60.0, 120.0, t=5.0), late=frozenset({"ll"})))
    clocks = {plan.pool: plan.shape.clock_frac for plan in plans}
    assert clocks.pop("ll") == 1.0
    assert max(clocks.values()) < 1.0
    assert "first tokens are late: highest clock" in said(plans)


def test_relief_takes_nothing_from_other_pools_and_comes_once_a_minute() -> None:
    planner, asked = Dynamo(), demand_of(60.0)
    before = {plan.pool: plan for plan in planner.decide(view_of(60.0, 60.0))}
    asked[KINDS[8]] = asked[KINDS[8]].times(3.0)
    view = replace(view_of(60.0, 60.0, t=5.0), demand=asked)
    after = {plan.pool: plan for plan in planner.decide(view)}
    assert after["ll"].instances * after["ll"].shape.tensor_parallel > before["ll"].instances
    assert all(after[pool].instances == before[pool].instances for pool in before if pool != "ll")
    asked[KINDS[8]] = asked[KINDS[8]].times(2.0)
    assert planner.decide(replace(view, t=60.0))[-1].instances == after["ll"].instances
    assert planner.decide(replace(view, t=65.0))[-1].instances > after["ll"].instances


def test_a_lost_server_is_planned_around_at_once() -> None:
    planner = Dynamo()
    before = gpus_of(planner.decide(view_of(120.0, 120.0, gpus=800)))
    plans = planner.decide(view_of(120.0, 120.0, gpus=before - 8, t=5.0))
    assert gpus_of(plans) <= before - 8
    assert f"{before} GPUs were planned, {before - 8} are left" in said(plans)
    assert sorted(kind for plan in plans for kind in plan.kinds) == sorted(KINDS)


def test_without_metrics_the_last_plans_stand_at_the_highest_clock() -> None:
    planner = Dynamo()
    before = planner.decide(view_of(30.0, 120.0, measured_t=0.0))
    stale = planner.decide(view_of(0.0, 0.0, t=3600.0, measured_t=5.0))
    assert [plan.instances for plan in stale] == [plan.instances for plan in before]
    assert {plan.shape.clock_frac for plan in stale} == {1.0}
    assert "the load has not been known for over 60 s" in said(stale)
    fresh = planner.decide(view_of(30.0, 30.0, t=3605.0, measured_t=3605.0))
    assert gpus_of(fresh) < gpus_of(before)


def test_without_metrics_there_is_room_for_the_peak_that_was_foreseen_last() -> None:
    planner = Dynamo()
    before = gpus_of(planner.decide(view_of(60.0, 60.0, measured_t=0.0)))
    stale = planner.decide(view_of(60.0, 120.0, t=100.0, measured_t=5.0))
    assert gpus_of(stale) > before
    assert "room for what nobody tells" in said(stale)
    assert gpus_of(planner.decide(view_of(60.0, 240.0, t=105.0, measured_t=5.0))) == gpus_of(stale)  # once


def test_where_power_is_short_pools_with_more_than_they_need_give_some_to_one_with_too_much_load() -> None:
    budget_w = 1.05 * sum(plan.power_w for plan in Dynamo().decide(view_of(60.0, 60.0)))
    planner, asked = Dynamo(), demand_of(20.0)
    asked[KINDS[8]] = asked[KINDS[8]].times(6.0)
    before = planner.decide(view_of(20.0, 60.0, power_budget_w=budget_w))
    for t in (5.0, 300.0):
        plans = planner.decide(replace(view_of(20.0, 60.0, t=t, power_budget_w=budget_w), demand=asked))
    assert gpus_of(plans[-1:]) > gpus_of(before[-1:])
    assert "too little power left for it" in said(plans)
    assert sum(plan.power_w for plan in plans) <= budget_w


def test_an_objective_that_no_shape_keeps_is_eased_for_its_kind_alone() -> None:
    plans = Dynamo().decide(view_of(60.0, 60.0, slo={**SLO, KINDS[4]: Slo(0.001, 0.001)}))
    assert "no shape keeps the objectives of mm" in said(plans)
    assert "x1.5" not in said(plans)
    assert gpus_of(plans) < 3 * gpus_of(Dynamo().decide(view_of(60.0, 60.0)))


def test_too_few_gpus_ease_the_objectives_and_then_leave_out_load() -> None:
    plans = Dynamo().decide(view_of(360.0, 360.0, gpus=48))
    assert 0 < gpus_of(plans) <= 48
    assert "objectives x" in said(plans) or "take what they can" in said(plans)


def test_no_gpus_at_all_give_a_plan_of_none_that_says_so() -> None:
    plans = Dynamo().decide(view_of(60.0, 60.0, gpus=0))
    assert gpus_of(plans) == 0
    assert "suffice" in said(plans)


def test_mispredicted_lengths_move_load_between_pools_and_are_planned_for() -> None:
    """What is taken for short and is long shows as load of the long kinds: the next sizing follows it."""
    planner = Dynamo()
    before = {plan.pool: plan.instances for plan in planner.decide(view_of(120.0, 120.0))}
    moved = demand_of(120.0)
    moved[KINDS[8]] = moved[KINDS[8]].plus(moved[KINDS[8]]).plus(moved[KINDS[8]])
    plans = planner.decide(replace(view_of(120.0, 120.0, t=300.0), demand=moved))
    assert {plan.pool: plan.instances for plan in plans}["ll"] > before["ll"]


def test_options_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="pool_s=0 must be above 0"):
        Options(pool_s=0.0)
    with pytest.raises(ConfigError, match="tensor_parallel=5"):
        Dynamo(P, Options(tensor_parallel=5))


def test_clocks_are_decided_for_all_instances_and_never_sent_twice() -> None:
    planner = Dynamo()
    plans = planner.decide(view_of(150.0, 180.0, gpus=2400))
    clocks = InstanceClocks([planner.table(plan.pool) for plan in plans])
    draws = np.random.default_rng(1)
    pool_of, rates = draws.integers(0, len(plans), 2400), draws.uniform(0.0, 5.0, 2400)
    wanted, told = clocks.choose(pool_of, rates, np.full(2400, np.nan))
    assert told.all()
    again, told = clocks.choose(pool_of, rates, wanted)
    assert not told.any()
    assert (again == wanted).all()


def test_an_instance_in_a_hurry_runs_as_fast_as_the_cap_lets_it() -> None:
    planner = Dynamo()
    planner.decide(view_of(60.0, 240.0))
    clocks = InstanceClocks([planner.table(name_of(KINDS[8]))])
    of_one, idle, free = np.zeros(2, dtype=np.intp), np.zeros(2), np.ones(2)
    wanted, _ = clocks.choose(of_one, idle, free, 0.9, np.array([True, False]))
    assert wanted[0] == 0.9
    assert wanted[1] < 0.9


def queue(deadlines: list[float], works: list[float], busy_s: float = 0.0) -> Queue:
    return Queue(np.array(deadlines), np.array(works), busy_s)


def rungs(steps: list[Step]) -> list[Rung]:
    return [step.rung for step in steps]


def test_nothing_is_done_while_nobody_would_be_late() -> None:
    assert rescue(queue([1.0, 2.0], [0.5, 0.5]), 1.2, []) == []


def test_the_order_is_changed_first() -> None:
    steps = rescue(queue([2.0, 0.5], [0.5, 0.5]), 1.2, [])
    assert rungs(steps) == [Rung.REORDER]
    assert steps[0].requests == (1, 0)


def test_the_clock_is_raised_when_the_order_does_not_suffice() -> None:
    assert rungs(rescue(queue([0.5, 0.9], [0.5, 0.5]), 1.2, [])) == [Rung.REORDER, Rung.FASTEST]


def test_what_stays_late_moves_to_who_is_free() -> None:
    steps = rescue(queue([0.5, 0.6], [0.5, 0.5]), 1.2, [queue([9.0], [5.0]), queue([], [])])
    assert rungs(steps) == [Rung.REORDER, Rung.FASTEST, Rung.MOVE]
    assert (steps[2].requests, steps[2].to) == ((1,), (1,))


def test_only_the_overdue_are_dropped_and_each_step_says_why() -> None:
    steps = rescue(queue([-1.0, 0.6], [0.5, 0.5]), 1.0, [queue([9.0], [5.0])])
    assert rungs(steps) == [Rung.REORDER, Rung.DROP]
    assert steps[0].requests == (1, 0)
    assert steps[1].requests == (0,)
    assert all(step.why for step in steps)


def test_shapes_are_whole_and_known_to_the_profile() -> None:
    for plan in Dynamo().decide(view_of(72.0, 120.0)):
        assert isinstance(plan.instances, int)
        assert plan.shape.tensor_parallel in P.tensor_parallels
        assert plan.shape in {Shape(plan.shape.tensor_parallel, clock) for clock in P.clocks_frac}
