"""Splitwise as a hint policy: pools for the peak within the row's power, and servers that move between them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from polcad.cluster.nouns import ClusterView, PoolPlan, Slo
from polcad.errors import ConfigError
from polcad.hints import HintDesk
from polcad.model import Hint
from polcad.spec import HintSpec
from policies.splitwise import SplitwiseHints
from tests.cluster_views import SLO, view_of
from tests.pool_loads import lengths, load

T0 = 1.8e9


def pools(plans: list[PoolPlan] | tuple[PoolPlan, ...]) -> dict[str, int]:
    return {plan.pool: plan.instances for plan in plans}


def asked(policy: SplitwiseHints, view: ClusterView) -> list[PoolPlan]:
    plans = list(policy.hints(view))
    assert sum(plan.instances * plan.shape.tensor_parallel for plan in plans) <= view.gpus
    if view.power_budget_w is not None:
        assert sum(plan.power_w for plan in plans) <= view.power_budget_w
    return plans


def test_both_pools_grow_with_the_peak_and_none_is_mixed() -> None:
    few, many = (pools(asked(SplitwiseHints(), view_of(peak / 2, peak))) for peak in (20.0, 80.0))
    assert few["mixed"] == many["mixed"] == 0
    assert 1 <= few["prompt"] < many["prompt"]
    assert 1 <= few["token"] < many["token"]


def test_while_nothing_is_asked_nothing_is_hinted() -> None:
    assert SplitwiseHints().hints(view_of(0.0, 0.0)) == []


def test_too_little_power_or_too_few_gpus_is_told_and_never_passed() -> None:
    for bound in ({"power_budget_w": 60_000.0}, {"gpus": 48}):
        plans = asked(SplitwiseHints(), view_of(60.0, 80.0, **bound))
        assert all("GPUs and power allow" in plan.why for plan in plans)
        assert min(plan.instances for plan in plans if plan.pool != "mixed") >= 1


def test_a_full_pool_is_helped_by_the_other_and_who_helped_goes_back() -> None:
    policy = SplitwiseHints()
    calm = view_of(40.0, 60.0)
    before = pools(asked(policy, calm))
    longer = replace(calm, t=5.0, demand={kind: replace(each, prompt_tokens=1.0) for kind, each in calm.demand.items()})
    assert pools(asked(policy, longer)) == before
    sized = policy._sized
    assert sized is not None
    policy._sized = replace(sized, rates=(0.6 * sized.rates[0], 2.0 * sized.rates[1]))  # prompts turned out harder
    burst = asked(policy, replace(view_of(55.0, 60.0), t=10.0))
    assert pools(burst)["mixed"] > 0
    assert pools(burst)["token"] == before["token"] - pools(burst)["mixed"]
    assert "the prompt pool is full" in burst[0].why
    after = asked(policy, replace(view_of(10.0, 60.0), t=15.0))
    assert pools(after) == before
    assert "drained" in after[0].why


def test_more_load_than_foreseen_is_sized_for_at_once_but_not_every_second() -> None:
    policy = SplitwiseHints()
    before = pools(asked(policy, view_of(10.0, 20.0)))
    soon, later = (asked(policy, replace(view_of(80.0, 20.0), t=t)) for t in (5.0, 65.0))
    assert pools(soon)["prompt"] + pools(soon)["token"] + pools(soon)["mixed"] == sum(before.values())
    assert pools(later)["prompt"] > before["prompt"]
    assert "more load than foreseen" in later[0].why


def test_what_the_row_loses_is_planned_for_at_once() -> None:
    policy = SplitwiseHints()
    asked(policy, view_of(60.0, 80.0))
    fewer = asked(policy, replace(view_of(60.0, 80.0, gpus=64), t=5.0))
    assert "64 GPUs are left" in fewer[0].why
    poorer = asked(policy, replace(view_of(60.0, 80.0, gpus=64, power_budget_w=40_000.0), t=10.0))
    assert "40000 W left" in poorer[0].why
    locked = asked(policy, replace(view_of(60.0, 80.0, cap_clock_frac=0.8), t=15.0))
    assert all(plan.shape.clock_frac <= 0.8 for plan in locked)
    assert "the row's clock is at 80%" in locked[0].why


def test_objectives_that_no_server_keeps_are_eased_and_told() -> None:
    slo = {kind: Slo(0.001 * each.ttft_s, each.tbt_s / 4) for kind, each in SLO.items()}
    plans = asked(SplitwiseHints(), view_of(20.0, 30.0, slo=slo))
    assert "no server keeps the objectives" in plans[0].why
    assert min(plan.instances for plan in plans[:2]) >= 1


def test_token_servers_at_half_power_leave_room_for_more_servers() -> None:
    row = view_of(200.0, 200.0, power_budget_w=150_000.0)
    free, capped = (sum(pools(asked(SplitwiseHints(token_cap_frac=cap), row)).values()) for cap in (1.0, 0.5))
    assert capped >= free


def test_pools_need_names_of_their_own() -> None:
    with pytest.raises(ConfigError, match="must differ"):
        SplitwiseHints(prompt_pool="chat", token_pool="chat")  # noqa: S106  # a pool's name


def test_prompt_servers_that_tell_their_load_do_not_count_each_request_twice() -> None:
    spec, policy = HintSpec(name="splitwise"), SplitwiseHints()
    desk = HintDesk(spec, "row1", policy, 400)
    desk.begin(T0 - spec.stale_after_s)
    rates = []
    for t in (T0, T0 + 5.0):
        for pool in ("prompt", "token"):
            desk.hear(t, replace(load(requests_per_s=12.0, pool=pool, tensor_parallel=8, output=lengths(20, 400))))
        desk.look(t)
        view = desk.question(t, 400_000.0, 1.0)
        assert view is not None
        rates.append(sum(each.requests_per_s for each in view.demand.values()))
        said = [one for one in desk.answer(view, policy.hints(view)) if isinstance(one, Hint)]
        assert {hint.pool for hint in said} <= {"prompt", "token", "mixed"}
    assert rates == pytest.approx([24.0, 12.0])
