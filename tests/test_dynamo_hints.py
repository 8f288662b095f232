"""DynamoLLM behind the hint desk: live loads in, hints within the row's power out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from polcad.cluster.nouns import Demand, Running, Shape
from polcad.curve import CLOCK_FRAC, power_frac
from polcad.hinting import clock_under
from polcad.hints import HintDesk
from polcad.model import FREE, Hint, PoolLoad, Role, Setpoint
from polcad.spec import HintSpec
from policies.dynamo_hints import DynamoHints
from policies.router import RouterHints
from tests.pool_loads import lengths, load

SPEC = HintSpec(name="dynamo")
T0 = 1.8e9


def hinted(
    policy: DynamoHints | RouterHints, loads: list[PoolLoad], power_w: float = 200_000.0, cap: float = 1.0
) -> list[Hint]:
    """What is hinted once these loads have been heard."""
    desk = HintDesk(SPEC, "row1", policy, 96)
    desk.begin(T0 - SPEC.stale_after_s)
    for each in loads:
        desk.hear(T0, each)
    assert desk.look(T0) == []
    view = desk.question(T0, power_w, cap)
    assert view is not None
    return [said for said in desk.answer(view, policy.hints(view)) if isinstance(said, Hint)]


def serving(instances: int, requests_per_s: float) -> list[PoolLoad]:
    one = load(
        requests_per_s=requests_per_s / instances,
        pool="chat",
        tensor_parallel=8,
        prompt=lengths(50, 2000),
        output=lengths(20, 400),
    )
    return [replace(one, instance=f"chat-{place}") for place in range(instances)]


def test_an_idle_pool_is_hinted_to_shrink_and_to_slow_down_and_what_that_saves() -> None:
    (hint,) = hinted(DynamoHints(pools="one", pool="chat"), serving(6, 3.0))
    assert hint.pool == "chat"
    assert hint.instances * hint.tensor_parallel < 6 * 8
    assert hint.clock_frac < 1.0
    assert hint.saves_w is not None
    assert hint.saves_w > 5000.0


def test_by_lengths_there_are_several_pools_whose_power_the_row_has() -> None:
    hints = hinted(DynamoHints(), serving(6, 12.0))
    assert len(hints) > 1
    assert sum(hint.power_w for hint in hints) <= 200_000.0
    assert sum(hint.requests_per_s for hint in hints) >= 12.0


def test_no_more_is_hinted_than_the_row_can_power_at_the_cap_in_force() -> None:
    policy = DynamoHints(pools="one", pool="chat")
    (free,) = hinted(policy, serving(6, 12.0))
    (hint,) = hinted(DynamoHints(pools="one", pool="chat"), serving(6, 12.0), power_w=0.5 * free.power_w, cap=0.7)
    assert hint.power_w <= 0.5 * free.power_w
    assert hint.clock_frac <= 0.7


def test_what_a_pool_draws_as_it_is_grows_with_its_load_and_is_unknown_for_unknown_shapes() -> None:
    policy, demand = DynamoHints(), Demand(4.0, 1000.0, 200.0)
    calm, busy = (policy.draws_w(Running(2, Shape(8)), demand.times(factor)) for factor in (0.1, 1.0))
    assert calm is not None
    assert busy is not None
    assert calm < busy
    assert policy.draws_w(Running(2, Shape(3)), demand) is None
    assert policy.draws_w(Running(2, Shape(8)), Demand()) == pytest.approx(2 * 8 * (126 + 350), rel=0.5)


def test_instances_are_weighed_by_what_they_have_in_hand_whoever_plans_the_pool() -> None:
    one, two = (replace(each, running=5, waiting=0, kv_use_frac=0.1) for each in serving(2, 3.0))
    busy = replace(two, waiting=12, kv_use_frac=0.7)
    for policy in (DynamoHints(pools="one", pool="chat"), RouterHints()):
        (hint,) = hinted(policy, [one, busy])
        assert hint.weights.keys() == {"chat-0", "chat-1"}
        assert hint.weights["chat-0"] > 0.75
        assert sum(hint.weights.values()) == pytest.approx(1.0)


def test_a_router_hints_pools_as_they_are_and_nothing_the_row_cannot_power() -> None:
    (hint,) = hinted(RouterHints(), serving(3, 3.0), cap=0.7)
    assert (hint.instances, hint.tensor_parallel, hint.clock_frac) == (3, 8, 0.7)
    assert hinted(RouterHints(), serving(3, 3.0), power_w=2000.0) == []  # the desk says why


@pytest.mark.parametrize("role", list(Role))
def test_a_power_limit_counts_as_the_clock_under_which_no_gpu_draws_more(role: Role) -> None:
    for cap_frac in (0.45, 0.6, 0.75, 0.9, 0.99):
        assert power_frac(role, clock_under(Setpoint(1.0, cap_frac))) <= cap_frac + 1e-9
    assert clock_under(Setpoint(0.7, 0.95)) == 0.7
    assert clock_under(FREE) == 1.0
    assert clock_under(Setpoint(1.0, 0.1)) == CLOCK_FRAC[0]
