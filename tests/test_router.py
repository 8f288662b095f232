"""Which share of the requests an instance is to be given."""

from __future__ import annotations

from dataclasses import replace

import pytest

from polcad.cluster.nouns import KINDS, ClusterView, Demand, Member, PoolPlan, Running, Shape, Slo
from polcad.cluster.profiles import LLAMA2_70B_H100 as PROFILE
from policies.router import Router, RouterHints, Routing

CALM = Member("a", Shape(8), 10, 0, 0.1, 1000.0, 200.0, requests_per_s=1.0)


def share(*changed: Member, alpha: float = 0.5) -> float:
    """What the second of two instances is given, where the first is calm."""
    members = [CALM, *changed]
    weights = Router(PROFILE, alpha).weights(0.0, members)
    assert sum(weights.values()) == pytest.approx(1.0)
    return weights[members[1].name]


def test_instances_alike_are_given_alike() -> None:
    assert share(replace(CALM, name="b")) == pytest.approx(0.5)
    assert Router(PROFILE).weights(0.0, []) == {}


@pytest.mark.parametrize(
    "busier",
    [
        {"running": 20},
        {"waiting": 3},
        {"kv_use_frac": 0.8},
        {"output_tokens": 900.0},  # as predicted
        {"prompt_tokens": 3000.0},
        {"tbt_s": 0.2},
        {"shape": Shape(4)},
        {"shape": Shape(8, 0.5)},
    ],
)
def test_who_has_more_to_do_or_is_slower_is_given_less(busier: dict[str, float]) -> None:
    assert share(replace(CALM, name="b", **busier)) < 0.499  # type: ignore[arg-type]  # a field each


def test_alpha_says_what_counts() -> None:
    full, slow = replace(CALM, name="b", kv_use_frac=0.9), replace(CALM, name="b", tbt_s=0.3)
    assert share(full, alpha=1.0) == share(slow, alpha=0.0) == pytest.approx(0.5)
    assert share(full, alpha=0.0) < 0.05
    assert share(slow, alpha=1.0) < 0.05


def test_a_full_memory_still_leaves_a_share_above_none() -> None:
    assert 0.0 < share(replace(CALM, name="b", kv_use_frac=1.0, waiting=500)) < 0.01


def test_a_short_queue_moves_little_and_a_lasting_one_all_of_its_share() -> None:
    router, pair = Router(PROFILE), [CALM, replace(CALM, name="b")]
    router.weights(0.0, pair)
    busy = [CALM, replace(CALM, name="b", waiting=20)]
    early, late = (router.weights(t, busy)["b"] for t in (5.0, 600.0))
    assert 0.5 > early > late == pytest.approx(share(busy[1]), rel=1e-3)


def test_who_comes_is_weighed_at_once_and_who_went_is_forgotten() -> None:
    router = Router(PROFILE)
    router.weights(0.0, [CALM])
    assert router.weights(5.0, [CALM, replace(CALM, name="new")])["new"] == pytest.approx(0.5)
    assert router.weights(10.0, [replace(CALM, name="new")]) == {"new": 1.0}


def view(*members: Member, power_w: float | None = None, cap: float = 1.0) -> ClusterView:
    demand = {KINDS[4]: Demand(2.0, 1000.0, 200.0)}
    return ClusterView(
        0.0,
        64,
        demand,
        {KINDS[4]: demand[KINDS[4]].times(1.5)},
        dict.fromkeys(KINDS, Slo(1.0, 0.1)),
        {"chat": Running(len(members), members[0].shape)},
        power_w,
        cap,
        members={"chat": members},
    )


def test_pools_are_left_as_they_are_and_weighed() -> None:
    (plan,) = RouterHints().hints(view(CALM, replace(CALM, name="b", waiting=9)))
    assert (plan.pool, plan.instances, plan.shape, plan.kinds) == ("chat", 2, Shape(8), KINDS)
    assert plan.demand.requests_per_s == pytest.approx(3.0)  # at the peak ahead
    assert plan.weights["b"] < plan.weights["a"]
    assert 0.0 < plan.now_w <= plan.power_w


def test_where_the_row_lacks_power_or_locks_clocks_the_clock_hinted_is_lower() -> None:
    (free,) = RouterHints().hints(view(CALM))
    (locked,) = RouterHints().hints(view(CALM, cap=0.7))
    assert locked.shape.clock_frac == 0.7
    (lean,) = RouterHints().hints(view(CALM, power_w=0.9 * free.power_w))
    assert lean.power_w <= 0.9 * free.power_w
    assert "at a clock that fits" in lean.why


def test_an_instance_that_the_profile_does_not_know_leaves_its_pool_unweighed() -> None:
    strange = replace(CALM, name="b", shape=Shape(3))
    plan = PoolPlan("chat", KINDS, 2, Shape(8), Demand(), 0.0, "")
    assert Routing(PROFILE, 0.5).weighed(view(CALM, strange), plan).weights == {}
    assert RouterHints().hints(view(strange)) == []
    assert RouterHints().draws_w(Running(1, Shape(3)), Demand()) is None


def test_pools_that_went_are_forgotten() -> None:
    routing, plan = Routing(PROFILE, 0.5), PoolPlan("chat", KINDS, 1, Shape(8), Demand(), 0.0, "")
    pair = (replace(CALM, waiting=20), replace(CALM, name="b"))
    first = routing.weighed(view(*pair), plan).weights
    assert routing.weighed(replace(view(*pair), members={}), plan).weights == {}
    alike = (CALM, replace(CALM, name="b"))
    assert routing.weighed(view(*alike), plan).weights["b"] == pytest.approx(0.5) != pytest.approx(first["b"])
