"""What goes wrong with a simulated cluster takes none of it down, is told, and never passes what the row allows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from polcad.cluster.nouns import ClusterView, PoolPlan, Shape
from polcad.cluster.profiles import LLAMA2_70B_H100 as PROFILE
from polcad.errors import ConfigError
from polcad.sim.cluster import simulate
from polcad.sim.cluster_model import ClusterModel, Limit, Span
from polcad.simulate_cluster import ClusterOptions, timed
from policies.dynamo import Dynamo
from policies.dynamo_rescue import rescue
from policies.router import Router
from tests.test_sim_cluster import Few, plan

BOTH = (plan("ll", 2, Shape(8)),)


def test_the_rows_lock_is_told_to_the_planner_and_holds_whatever_it_plans() -> None:
    caps: list[float] = []

    def planner(view: ClusterView) -> Sequence[PoolPlan]:
        caps.append(view.cap_clock_frac)
        return BOTH

    result = simulate(ClusterModel("fixed", planner, Few(), servers=2, cap=Limit(0.5, Span(60.0, 30.0))))
    assert (caps.count(1.0), caps.count(0.5)) == (18, 6)
    assert result.series.clock_frac == pytest.approx([1.0, 0.75])  # minute by minute
    assert "the row's plan locks clocks at 50%" in [told.text for told in result.told]


@pytest.mark.parametrize("budget_w", [6000.0, 200_000.0])
def test_dynamo_never_plans_more_than_the_row_can_power_nor_faster_than_its_lock(budget_w: float) -> None:
    dynamo, most_w = Dynamo(PROFILE), list[float]()

    def planner(view: ClusterView) -> Sequence[PoolPlan]:
        plans = dynamo.decide(view)
        most_w.append(max(sum(each.power_w for each in plans), sum(each.now_w for each in plans)))
        assert all(each.shape.clock_frac <= view.cap_clock_frac for each in plans)
        return plans

    cap = Limit(0.6, Span(60.0, 30.0))
    simulate(ClusterModel("dynamo", planner, Few(per_s=8.0), servers=2, power_budget_w=budget_w, cap=cap))
    assert max(most_w) <= budget_w
    assert (max(most_w) > 6000.0) is (budget_w > 6000.0)  # it would like more than the little that there is


def test_a_rescue_under_an_overload_draws_no_more_than_the_row_has() -> None:
    free = ClusterModel("dynamo", Dynamo(PROFILE).decide, Few(per_s=25.0), servers=2, rescue=rescue)
    held = simulate(replace(free, planner=Dynamo(PROFILE).decide, power_budget_w=8000.0))
    assert max(held.series.power_w) <= 1.02 * 8000.0  # what is planned is an estimate
    assert max(simulate(free).series.power_w) > 1.2 * 8000.0


def test_a_slow_server_is_told_to_nobody_and_drowns_where_turns_are_even() -> None:
    slow = Limit(0.2, Span(0.0, 120.0))
    even = ClusterModel("fixed", lambda _: BOTH, Few(per_s=6.0), servers=2, slow=slow, in_turns=True)
    weighted, queues = replace(even, weigher=Router(PROFILE).weights), replace(even, in_turns=False)
    left = {model: simulate(model).under_way for model in (even, weighted, queues)}
    assert max(left[weighted], left[queues]) < 0.9 * left[even]


@pytest.mark.integration
@pytest.mark.parametrize(
    ("fault", "told", "late_frac"),
    [
        ({"length_accuracy": 0.6}, "more load than foreseen", 0.2),
        ({"surprise": 2.0}, "more load than foreseen", 0.2),
        ({"lose_server": "600+600"}, "server 0 is lost, with", 0.2),
        ({"stale": "600+600"}, "as planned last, at the highest clock", 0.1),
        ({"slo_scale": 0.1}, "no shape keeps the objectives", 1.0),
        ({"slow_server": ".5@600+600"}, "runs at 50% of its clock at most", 0.3),
        ({"cap": ".6@600+600"}, "the row's plan locks clocks at 60%", 0.3),
        ({"power_budget_w": 9_000.0}, "GPUs, power or clocks do not suffice", 0.7),
        ({"power_budget_w": 5_000.0, "peak_util": 0.9}, "requests are dropped, overdue", 1.0),
    ],
)
def test_no_fault_takes_the_cluster_down_and_each_says_what_it_did(
    fault: dict[str, object], told: str, late_frac: float
) -> None:
    result, figures = timed(ClusterOptions("dynamo", 9, week="conv", hours=0.7, **fault))  # type: ignore[arg-type]  # as below
    assert result.finished + result.under_way + result.dropped == result.requests
    assert any(told in each.text for each in result.told)
    assert figures["slo_violation_frac"] <= late_frac
    assert result.series.requests_per_s[-1] > 0.0
    if budget_w := fault.get("power_budget_w"):
        assert isinstance(budget_w, float)
        assert figures["power_max_w"] <= budget_w * 1.02  # means of minutes, where plans are of means of longer


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"slow_server": "half@0+5"}, "--slow-server 'half@0\\+5': say CLOCK@AT"),
        ({"cap": "1.5@0+5"}, "--cap '1.5@0\\+5': the clock must be"),
        ({"cap": ".5@5"}, "--cap '5': say AT"),
        ({"power_budget_w": 0.0}, "power_budget_w=0.0 must be above 0"),
        ({"router": "none-such"}, "none-such"),
    ],
)
def test_faults_that_mean_nothing_are_refused(options: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        ClusterOptions("dynamo", 2, week="conv", **options).model()  # type: ignore[arg-type]  # that is the point
