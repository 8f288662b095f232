"""What plans aim at, by what the slowest hundredth took."""

from dataclasses import replace

import pytest

from polcad.cluster.nouns import KINDS, ClusterView, PoolPlan, Slo
from polcad.cluster.profiles import LLAMA2_70B_H100
from policies.dynamo import Dynamo
from policies.dynamo_cluster import gpus_of, unused_w
from policies.dynamo_easing import Easing
from policies.dynamo_options import Options
from tests.cluster_views import SLO, view_of

KIND = KINDS[4]
PERIOD_S = 1800.0


def told(view: ClusterView, epoch: int, took_frac: float) -> ClusterView:
    slowest = {kind: Slo(took_frac * slo.ttft_s, took_frac * slo.tbt_s) for kind, slo in view.slo.items()}
    return replace(view, t=view.t + PERIOD_S * epoch, slowest=slowest)


def aims_after(*took_frac: float, most: float = 1.4) -> float:
    """Times the objective, what is aimed at after epochs in which the slowest took so much of it."""
    easing, view = Easing(most, PERIOD_S), view_of(4.0, 8.0)
    for epoch, frac in enumerate(took_frac):
        easing.learn(told(view, epoch, frac))
    aim, slo = easing.aims(view.slo)[KIND], view.slo[KIND]
    assert aim.ttft_s / slo.ttft_s == pytest.approx(aim.tbt_s / slo.tbt_s)
    return aim.tbt_s / slo.tbt_s


def test_plans_aim_at_a_tenth_more_an_epoch_while_the_slowest_stay_well_within() -> None:
    assert aims_after() == 1.0
    assert aims_after(0.5, 0.5) == pytest.approx(1.21)
    assert aims_after(*[0.5] * 20) == pytest.approx(1.4)


def test_aims_go_back_at_once_when_the_slowest_come_near_and_never_below_what_is_asked() -> None:
    assert aims_after(*[0.5] * 9, 1.0) == pytest.approx(0.85 * 1.4)
    assert aims_after(*[0.5] * 9, 5.0) == 1.0


def test_a_period_is_learned_from_once_and_what_nobody_measured_leaves_objectives_alone() -> None:
    easing, view = Easing(1.4, PERIOD_S), view_of(4.0, 8.0)
    for _ in range(9):
        easing.learn(told(view, 0, 0.5))
    assert easing.aims(view.slo)[KIND].ttft_s == pytest.approx(1.1 * view.slo[KIND].ttft_s)
    easing.learn(replace(view, t=view.t + PERIOD_S))
    assert easing.aims(view.slo)[KIND].ttft_s == pytest.approx(1.1 * view.slo[KIND].ttft_s)


def eased(planner: Dynamo, epochs: int = 6) -> tuple[tuple[PoolPlan, ...], ClusterView]:
    """A planner after epochs in which all were well within twice the usual objectives, and what it saw last."""
    view = view_of(12.0, 13.0, slo={kind: Slo(2 * one.ttft_s, 2 * one.tbt_s) for kind, one in SLO.items()})
    for epoch in range(epochs):
        plans = planner.decide(told(view, epoch, 0.5))
    return plans, replace(view, t=view.t + (epochs - 1) * PERIOD_S)


def test_clocks_of_a_fixed_size_learn_it_too() -> None:
    fixed = Options(instances=False, shards=False)
    drawn_w = [
        sum(plan.now_w for plan in eased(Dynamo(LLAMA2_70B_H100, replace(fixed, ease_most=most)), epochs=2)[0])
        for most in (1.0, 1.4)
    ]
    assert drawn_w[1] < drawn_w[0]


def test_what_was_learned_is_forgotten_when_nothing_is_measured() -> None:
    drawn_w = []
    for measured_s in (100.0, 0.0):  # fresh, and a time without news
        planner = Dynamo(LLAMA2_70B_H100)
        _, view = eased(planner, epochs=2)
        planner.decide(replace(view, t=view.t + 100.0, measured_t=view.t + measured_s))
        drawn_w.append(sum(plan.now_w for plan in planner.decide(replace(view, t=view.t + 105.0))))
    assert drawn_w[1] > drawn_w[0]


def test_a_planner_whose_engines_are_quicker_than_estimated_draws_less() -> None:
    drawn_w = []
    for most in (1.0, 1.4):
        plans, _ = eased(Dynamo(LLAMA2_70B_H100, Options(ease_most=most)))
        gpus = sum(map(gpus_of, plans))
        drawn_w.append(sum(plan.power_w for plan in plans) + unused_w(LLAMA2_70B_H100, gpus, gpus))
    assert drawn_w[1] < 0.98 * drawn_w[0]
