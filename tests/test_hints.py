"""The hint desk: what it lets a policy see, what it makes of the answer, and when it keeps silent."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from polcad.cluster.loads import MAX_INSTANCES, Loads
from polcad.cluster.nouns import KINDS, Length, Member, Shape, Slo
from polcad.cluster.sorting import Sorter, demand_of
from polcad.errors import WireError
from polcad.hinting import Hinting, hinting
from polcad.hints import HintDesk, Said, TakenBack
from polcad.hints_text import table
from polcad.model import Event, EventKind, Hint, PoolLoad
from polcad.spec import HintSpec, NodeSpec, RowSpec
from tests.pool_loads import Fixed, lengths, load, plan

SPEC = HintSpec(name="fixed")
T0 = 1.8e9
READY = T0 + SPEC.stale_after_s
SHORT, MEDIUM, LONG = Length


class Desk:
    """A desk whose instances speak each time it is looked at."""

    def __init__(self, policy: Fixed, spec: HintSpec = SPEC, *loads: PoolLoad) -> None:
        self.policy, self.loads = policy, list(loads or [load()])
        self.clocks_frac: dict[str, float] = {}
        self.desk = HintDesk(spec, "row1", policy, 64)
        self.desk.begin(T0)
        self._hinting = Hinting(self.desk, policy, spec.period_s)

    def at(self, t: float, *, speaks: bool = True, power_w: float = 50_000.0, cap: float = 1.0) -> list[Said]:
        """What is said at `t`."""
        for each in self.loads if speaks else ():
            self.desk.hear(t, each)
        return asyncio.run(self._hinting.step(t, power_w, cap, self.clocks_frac))

    def hints(self, t: float, *, speaks: bool = True) -> list[Hint]:
        return [said for said in self.at(t, speaks=speaks) if isinstance(said, Hint)]

    def events(self, t: float, *, speaks: bool = True) -> list[EventKind]:
        return [said.kind for said in self.at(t, speaks=speaks) if isinstance(said, Event)]


def test_a_plan_becomes_a_hint_with_an_end_a_reason_and_what_it_saves() -> None:
    desk = Desk(Fixed(plan()))
    hint, event = desk.at(READY)
    assert hint == Hint(
        pool="sm",
        row="row1",
        t=READY,
        expires_t=READY + 900.0,
        instances=2,
        tensor_parallel=4,
        clock_frac=0.8,
        horizon_s=SPEC.horizon_s,
        requests_per_s=3.0,
        tokens_per_s=3.0 * 350.0,
        power_w=5000.0,
        saves_w=1000.0 * (1 + 2) - 2500.0,  # one instance, two requests a second, against the plan under that load
        why="new epoch",
    )
    assert isinstance(event, Event)
    assert (event.kind, event.scope) == (EventKind.HINT, "pool/sm")
    assert event.detail == "2 x 4 GPUs at 80 % of the clock: new epoch"


def test_a_policy_sees_demand_pools_objectives_and_what_the_row_allows() -> None:
    policy = Fixed(plan())
    desk = Desk(policy, SPEC, load("a", 2.0), load("b", 4.0))
    desk.at(READY, power_w=30_000.0, cap=0.7)
    view = policy.seen[0]
    assert (view.t, view.gpus, view.power_budget_w, view.cap_clock_frac) == (READY, 64, 30_000.0, 0.7)
    assert sum(each.requests_per_s for each in view.demand.values()) == pytest.approx(6.0)
    assert sum(each.requests_per_s for each in view.peak.values()) >= 6.0
    assert (view.pools["sm"].instances, view.pools["sm"].shape) == (2, Shape(4))
    assert view.slo.keys() == set(KINDS)


def test_a_policy_sees_the_clock_in_force_and_which_pools_are_late() -> None:
    policy = Fixed(plan())
    slow = replace(load("a", pool="ll"), ttft_p99_s=5.0)
    desk = Desk(policy, SPEC, replace(load(), ttft_p99_s=0.01), slow)
    desk.clocks_frac = {"sm": 0.8}
    desk.at(READY)
    assert {pool: one.shape.clock_frac for pool, one in policy.seen[0].pools.items()} == {"sm": 0.8, "ll": 1.0}
    assert policy.seen[0].late == {"ll"}


def test_a_policy_sees_what_the_slowest_took_where_all_of_a_pool_tell_it() -> None:
    policy = Fixed(plan())
    told = replace(load("a"), ttft_p99_s=0.2, tbt_p99_s=0.05)
    desk = Desk(policy, SPEC, told, replace(load("b"), ttft_p99_s=0.1, tbt_p99_s=0.06), load("c", pool="ll"))
    desk.at(READY)
    desk.at(READY + 60.0)
    assert set(policy.seen[-1].slowest.values()) == {Slo(0.2, 0.06)}
    assert set(policy.seen[-1].slowest) == set(plan().kinds)


def test_objectives_follow_the_prompts_that_a_site_has() -> None:
    policy = Fixed(plan())
    Desk(policy, SPEC, load(prompt=lengths(0.0, 6000.0))).at(READY)
    slo = policy.seen[0].slo
    assert slo[SHORT, LONG].ttft_s == pytest.approx(0.45, rel=0.1)
    assert slo[SHORT, LONG].tbt_s == SPEC.tbt_s
    assert slo[LONG, SHORT].ttft_s == pytest.approx(0.45 * 5.0, rel=0.1)
    Desk(policy, SPEC, load(prompt=lengths(0.0, 300.0))).at(READY)
    assert {each.ttft_s for each in policy.seen[-1].slo.values()} == {SPEC.ttft_s}


def test_a_hint_is_said_again_only_when_it_changes_or_half_its_life_is_over() -> None:
    policy = Fixed(plan())
    desk = Desk(policy)
    desk.at(READY)
    policy.plans = [plan(power_w=5100.0, why="a little more load")]
    assert desk.at(READY + 5) == []
    assert desk.at(READY + 445) == []
    assert [hint.t for hint in desk.hints(READY + 450)] == [READY + 450]
    policy.plans = [plan(clock_frac=0.7)]
    assert desk.at(READY + 455) == [replace(desk.desk.standing(READY + 455)[0], clock_frac=0.7, t=READY + 455)]
    policy.plans = [plan(3, clock_frac=0.7)]
    assert desk.events(READY + 460) == [EventKind.HINT]


def test_what_changed_is_told_with_what_was_before() -> None:
    policy = Fixed(plan())
    desk = Desk(policy)
    desk.at(READY)
    policy.plans = [plan(3, tensor_parallel=8)]
    event = desk.at(READY + 5)[1]
    assert isinstance(event, Event)
    assert event.detail.startswith("3 x 8 GPUs at 80 % of the clock, before 2 x 4 GPUs at 80 % of the clock")


def test_a_pool_that_is_no_longer_planned_is_taken_back() -> None:
    policy = Fixed(plan(), plan(pool="mm"))
    desk = Desk(policy)
    desk.at(READY)
    policy.plans = [plan()]
    said = desk.at(READY + 5)
    assert TakenBack("mm") in said
    assert [hint.pool for hint in desk.desk.standing(READY + 5)] == ["sm"]


def test_nothing_is_hinted_before_every_instance_may_have_spoken() -> None:
    desk = Desk(Fixed(plan()))
    assert desk.at(T0 + 1) == []
    assert desk.at(READY - 1) == []
    assert len(desk.hints(READY)) == 1


def test_without_a_load_nothing_is_asked() -> None:
    policy = Fixed(plan())
    desk = Desk(policy)
    desk.loads = []
    assert desk.at(READY) == []
    desk.loads = [PoolLoad("sm", "sm-0", T0, fault="Connection refused")]
    assert desk.at(READY + 5) == []
    assert policy.seen == []


def test_stale_loads_leave_hints_to_run_out_and_say_so_once() -> None:
    policy = Fixed(plan())
    desk = Desk(policy, SPEC, load("sm-0"), load("sm-1"))
    desk.at(READY)
    desk.loads.pop()
    policy.plans = [plan(9)]
    assert desk.at(READY + 29) != []  # not stale yet
    said = desk.at(READY + 31)
    assert [event.kind for event in said if isinstance(event, Event)] == [EventKind.HINTS_HELD]
    assert isinstance(said[0], Event)
    assert "no news of sm/sm-1 for 30 s" in said[0].detail
    policy.plans = [plan(3)]
    assert desk.at(READY + 60) == []
    assert desk.desk.standing(READY + 60)[0].instances == 9
    assert desk.events(READY + 151) == [EventKind.HINTS_RESUMED, EventKind.HINT]  # gone: it is planned without
    assert policy.seen[-1].pools["sm"].instances == 1


def test_an_endpoint_that_fails_is_as_stale_as_a_silent_one() -> None:
    desk = Desk(Fixed(plan()))
    desk.at(READY)
    desk.loads = [replace(PoolLoad("sm", "sm-0", T0), fault="timed out")]
    assert desk.at(READY + 20) == []
    assert desk.events(READY + 31) == [EventKind.HINTS_HELD]


def test_a_hint_that_ran_out_is_taken_back() -> None:
    desk = Desk(Fixed(plan()), replace(SPEC, gone_after_s=5000.0))
    desk.at(READY)
    desk.at(READY + 600, speaks=False)
    assert desk.desk.standing(READY + 899)
    said = desk.at(READY + 900, speaks=False)
    assert TakenBack("sm") in said
    assert [event.detail for event in said if isinstance(event, Event)] == ["it ran out"]
    assert desk.at(READY + 905, speaks=False) == []
    assert desk.events(READY + 1000) == [EventKind.HINTS_RESUMED, EventKind.HINT]


def test_missing_news_is_logged_even_where_no_hint_stands(caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk(Fixed())
    desk.at(READY)
    assert desk.at(READY + 31, speaks=False) == []
    assert "hints: no news of sm/sm-0 for 30 s" in caplog.text


def test_an_instance_that_was_taken_out_is_no_gap_in_the_news() -> None:
    desk = Desk(Fixed(plan()), SPEC, load("sm-0"), load("sm-1"))
    desk.at(READY)
    desk.desk.hear(READY + 1, PoolLoad("sm", "sm-1", READY, ended=True))
    desk.loads.pop()
    assert desk.at(READY + 60) == []
    assert desk.policy.seen[-1].pools["sm"].instances == 1


@pytest.mark.parametrize(
    ("plans", "told"),
    [
        ([plan(17)], "68 GPUs of 64"),
        ([plan(power_w=30_000.0), plan(pool="mm", power_w=21_000.0)], "51000 W of 50000"),
        ([plan(pool="Pool One")], "'Pool One', which is no name"),
        ([replace(plan(), weights={"a": -0.1})], "instances of sm by are no shares"),
        ([replace(plan(), weights={"A B": 0.1})], "instances of sm by are no shares"),
    ],
)
def test_more_than_there_is_is_not_hinted_whatever_the_policy_says(plans: list[object], told: str) -> None:
    policy = Fixed(plan())
    desk = Desk(policy)
    desk.at(READY)
    policy.plans = plans  # type: ignore[assignment]  # plans
    (event,) = desk.at(READY + 5)
    assert isinstance(event, Event)
    assert event.kind is EventKind.HINTS_HELD
    assert told in event.detail
    assert desk.at(READY + 10) == []
    policy.plans = [plan()]
    assert desk.events(READY + 15) == [EventKind.HINTS_RESUMED]


def test_a_policy_that_fails_holds_hints_and_hurts_nobody() -> None:
    policy = Fixed(plan())
    desk = Desk(policy)
    desk.at(READY)
    policy.error = ZeroDivisionError("division by zero")
    (event,) = desk.at(READY + 5)
    assert isinstance(event, Event)
    assert "the policy failed: ZeroDivisionError: division by zero" in event.detail
    policy.error = None
    assert desk.events(READY + 10) == [EventKind.HINTS_RESUMED]


def test_people_see_how_instances_should_share_requests_those_with_least_first() -> None:
    weights = {"b": 0.7, **{f"a{place}": 0.3 / 9 for place in range(9)}}
    console = Console(width=200, record=True, file=StringIO())
    console.print(table([replace(kept("row1", T0), weights=weights), replace(kept("row1", T0), pool="ll")], T0))
    shown = console.export_text()
    assert "Shares of sm's requests: a0 3 %, a1 3 %" in shown
    assert "a7 3 % and 2 more." in shown
    assert "Shares of ll" not in shown


def kept(row: str, t: float, life_s: float = 900.0, instances: int = 2) -> Hint:
    return Hint("sm", row, t, t + life_s, instances, 4, 0.8, 1800.0, 3.0, 1050.0, 5000.0)


def test_after_a_restart_what_the_broker_kept_is_not_said_again() -> None:
    desk = Desk(Fixed(plan()))
    desk.desk.learn("sm", kept("row1", T0))
    assert desk.desk.standing(T0) == (kept("row1", T0),)
    assert desk.at(READY) == []


def test_a_broker_that_forgot_is_told_again() -> None:
    desk = Desk(Fixed(plan()))
    desk.at(READY)
    desk.desk.begin(READY + 5)
    assert len(desk.hints(READY + 35)) == 1


def test_what_ran_out_while_nobody_was_there_is_taken_back() -> None:
    desk = Desk(Fixed(plan()))
    desk.desk.learn("sm", kept("row1", T0 - 1000))
    desk.desk.learn("old", replace(kept("row1", T0 - 1000), pool="old"))
    said = desk.at(T0 + 1)
    assert [each.pool for each in said if isinstance(each, TakenBack)] == ["old", "sm"]


def test_a_pool_that_another_rows_daemon_hints_is_left_to_it() -> None:
    desk = Desk(Fixed(plan(9)))
    desk.desk.learn("sm", kept("row2", READY - 10))
    assert desk.at(READY) == []
    assert desk.desk.standing(READY) == ()
    assert len(desk.hints(READY + 890)) == 1  # the other's has ended
    desk.desk.learn("sm", None)
    assert desk.desk.standing(READY + 890) == ()


def test_a_policy_sees_what_each_instance_has_in_hand_where_all_of_its_pool_tell() -> None:
    policy = Fixed(plan())
    idle = replace(load("b", 0.0), prompt=None, output=None, tbt_p50_s=0.04)
    silent = replace(load("c", pool="mm"), kv_use_frac=None)
    Desk(policy, SPEC, load("a"), idle, load("d", pool="mm"), silent).at(READY)
    one, other = policy.seen[0].members["sm"]
    assert one == Member("a", Shape(4), 4, 0, 0.2, 150.0, 200.0, None, 2.0)
    assert (other.prompt_tokens, other.output_tokens) == (150.0, 200.0)  # as the pool's requests are
    assert (other.tbt_s, other.requests_per_s) == (0.04, 0.0)
    assert policy.seen[0].members.keys() == {"sm"}


def test_weights_are_hinted_and_said_again_only_when_they_moved() -> None:
    policy = Fixed(replace(plan(), weights={"a": 0.5, "b": 0.5}))
    desk = Desk(policy)
    assert desk.hints(READY)[0].weights == {"a": 0.5, "b": 0.5}
    policy.plans = [replace(plan(), weights={"a": 0.54, "b": 0.46})]
    assert desk.at(READY + 5) == []
    policy.plans = [replace(plan(), weights={"a": 0.6, "b": 0.4})]
    assert [said.weights for said in desk.at(READY + 10) if isinstance(said, Hint)] == [{"a": 0.6, "b": 0.4}]
    policy.plans = [replace(plan(), weights={"a": 1.0})]
    assert len(desk.at(READY + 15)) == 1  # no event: the pool's shape is what it was
    policy.plans = [replace(plan(), weights={f"i{place}": 0.0 for place in range(2000)})]
    assert desk.hints(READY + 20)[0].weights == {}  # more than a message holds


def test_power_for_pools_can_be_less_than_the_rows() -> None:
    policy = Fixed(plan())
    Desk(policy, replace(SPEC, power_budget_w=8000.0)).at(READY)
    assert policy.seen[0].power_budget_w == 8000.0


# --- what instances said ----------------------------------------------------------------------------------------------


def test_one_that_never_told_a_rate_is_starting() -> None:
    loads = Loads(SPEC)
    loads.hear(T0, load("sm-0"))
    loads.hear(T0, PoolLoad("sm", "sm-1", T0, 4, fault="Connection refused"))
    seen = loads.look(T0 + 1)
    assert (seen.running["sm"].instances, seen.running["sm"].starting) == (1, 1)
    assert (seen.stale, seen.measured_t) == ((), T0)


def test_while_no_request_ends_lengths_are_those_of_the_last() -> None:
    loads = Loads(SPEC)
    loads.hear(T0, load())
    loads.hear(T0 + 5, replace(load(requests_per_s=5.0), prompt=None, output=None))
    (found,) = loads.look(T0 + 5).loads
    assert (found.requests_per_s, found.prompt) == (5.0, lengths(0.0, 300.0))


def test_made_up_instances_are_bounded() -> None:
    loads = Loads(SPEC)
    for place in range(MAX_INSTANCES):
        loads.hear(T0, load(f"i{place}"))
    with pytest.raises(WireError, match="more than 4096 instances"):
        loads.hear(T0, load("one-more"))
    loads.hear(T0, load("i0", 9.0))
    assert len(loads.look(T0).loads) == MAX_INSTANCES
    assert loads.look(T0 + 1000).loads == ()


# --- from loads to kinds ----------------------------------------------------------------------------------------------


def test_a_mixed_pool_is_cut_in_thirds_both_ways() -> None:
    demand = Sorter().demand(T0, [load(requests_per_s=9.0, prompt=lengths(0, 900), output=lengths(0, 300))], {})
    assert demand.keys() == set(KINDS)
    for (prompt, output), each in demand.items():
        assert each.requests_per_s == pytest.approx(1.0, abs=0.1)
        assert each.prompt_tokens == pytest.approx({SHORT: 150, MEDIUM: 450, LONG: 750}[prompt], rel=0.05)
        assert each.output_tokens == pytest.approx({SHORT: 50, MEDIUM: 150, LONG: 250}[output], rel=0.05)


def test_thirds_are_those_of_all_pools_together_by_their_requests() -> None:
    sorter = Sorter()
    busy, calm = load("a", 2.0, prompt=lengths(0, 600)), load("b", 1.0, prompt=lengths(1000, 4000))
    sorter.demand(T0, [busy, calm], {})
    assert sorter.thresholds.prompt_tokens == pytest.approx((300, 600), rel=0.05)


def test_thirds_follow_slowly_and_idle_pools_move_nothing() -> None:
    sorter = Sorter()
    sorter.demand(T0, [load(prompt=lengths(0, 900))], {})
    before = sorter.thresholds
    assert sorter.demand(T0 + 3600, [load(requests_per_s=0.0, prompt=lengths(0, 9000))], {}) == {}
    assert sorter.thresholds == before
    sorter.demand(T0 + 1800, [load(prompt=lengths(0, 1800))], {})
    assert 300 < sorter.thresholds.prompt_tokens[0] < 600


def test_a_pool_of_one_kind_serves_that_kind_whatever_lengths_say() -> None:
    kinds = {"sm": [(SHORT, MEDIUM)]}
    demand = Sorter().demand(T0, [load(requests_per_s=3.0, prompt=lengths(0, 9000))], kinds)
    assert demand.keys() == {(SHORT, MEDIUM)}
    assert demand[SHORT, MEDIUM].requests_per_s == pytest.approx(3.0)
    assert sum(each.requests_per_s for each in demand.values()) == pytest.approx(3.0)


def test_without_lengths_the_means_count() -> None:
    told = replace(load(requests_per_s=2.0), prompt=None, output=None)
    assert demand_of([told]).prompt_tokens == pytest.approx(150.0)
    (kind,) = Sorter().demand(T0, [told], {})
    assert kind in KINDS


def test_several_instances_are_asked_what_each_of_them_is() -> None:
    demand = demand_of([load("a", 1.0, prompt=lengths(0, 200)), load("b", 3.0, prompt=lengths(0, 1000))])
    assert demand.requests_per_s == 4.0
    assert demand.prompt_tokens == pytest.approx(0.25 * 100 + 0.75 * 500)


def test_gpus_are_those_of_the_inventory_in_service_unless_told() -> None:
    nodes = (NodeSpec("n1", gpus=8), NodeSpec("n2", gpus=4), NodeSpec("n3", gpus=8, in_service=False))
    policy = Fixed(plan())
    for spec, gpus in ((SPEC, 12), (replace(SPEC, gpus=6), 6)):
        desk = hinting(spec, RowSpec("row1", 9000.0, nodes=nodes), policy).desk
        desk.begin(T0)
        desk.hear(READY, load())
        desk.look(READY)
        view = desk.question(READY, 9000.0, 1.0)
        assert view is not None
        assert view.gpus == gpus
