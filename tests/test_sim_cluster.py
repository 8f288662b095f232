"""The simulated serving cluster: its kernel, its deployment, and what must hold whatever is planned. Plain Python."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polcad.cluster.classes import Thresholds
from polcad.cluster.nouns import KINDS, ClusterView, Demand, PoolPlan, Shape, Slo, name_of
from polcad.cluster.profiles import LLAMA2_70B_H100 as PROFILE
from polcad.cluster.waiting import Rescue, Rung, Step
from polcad.errors import ConfigError
from polcad.sim import serving
from polcad.sim.asking import CODE, CONV, Asked, Excerpt, Kindness, Recorded, Week, service_s
from polcad.sim.cluster import simulate
from polcad.sim.cluster_model import ClusterModel, Span, objectives
from polcad.sim.cluster_result import ClusterResult, carbon_kg, quantile_s
from polcad.sim.deployment import Deployment, slots_of
from polcad.sim.engines import Engines
from polcad.sim.packing import emptied
from polcad.sim.profiles import Floats
from polcad.sim.rescuing import Rescuing
from polcad.simulate_cluster import ClusterOptions, read_intensity, summary
from policies.dynamo_rescue import rescue as ladder

SLO = dict.fromkeys(KINDS, Slo(2.0, 0.15))
ROWS = st.lists(st.tuples(st.floats(0.0, 30.0), st.integers(1, 9000), st.integers(1, 300)), min_size=1, max_size=20)
CLOCKS = st.sampled_from(PROFILE.clocks_frac)
TP = st.sampled_from(PROFILE.tensor_parallels)


def asked(rows: Sequence[tuple[float, int, int]]) -> Asked:
    arrive_s, prompt, output = np.array(sorted(rows), dtype=np.float64).T
    return Asked(arrive_s, prompt, output)


def served(rows: Sequence[tuple[float, int, int]], shape: Shape, ends: Sequence[float] = (3000.0,)) -> Engines:
    """One instance that serves `rows`, brought up to each of `ends`."""
    engines = Engines(PROFILE, 2, SLO)
    engines.start(0, 0.0, shape, 0.0)
    engines.deal({KINDS: (0,)})
    engines.take(asked(rows), np.zeros((2, len(rows)), np.int64))
    for end_s in ends:
        engines.advance(end_s)
    return engines


def mean_latency_s(engines: Engines) -> float:
    counts = engines.world.ttft.sum(axis=0)
    return float((counts * np.exp(np.arange(serving.BINS) / serving.PER_E)).sum() / counts.sum())


@settings(max_examples=15, deadline=None)
@given(ROWS, TP, CLOCKS)
def test_every_request_ends_and_its_power_adds_up(rows: list[tuple[float, int, int]], tp: int, clock: float) -> None:
    world = served(rows, Shape(tp, clock)).world
    least_w = PROFILE.idle_w(Shape(tp, clock))
    assert int(world.tally.finished.sum()) == len(rows)
    assert int(world.ttft.sum()) == len(rows)
    assert int(world.tbt.sum()) == sum(output > 1 for _, _, output in rows)
    assert world.phase_j.sum() >= least_w * 3000.0 * (1 - 1e-9)
    assert world.instances[0].kv == pytest.approx(0.0, abs=1e-6)


@settings(max_examples=10, deadline=None)
@given(ROWS, TP, CLOCKS)
def test_nothing_depends_on_how_finely_time_is_cut(rows: list[tuple[float, int, int]], tp: int, clock: float) -> None:
    whole = served(rows, Shape(tp, clock), (600.0,)).world
    cut = served(rows, Shape(tp, clock), np.linspace(1.7, 600.0, 50).tolist()).world
    assert cut.phase_j == pytest.approx(whole.phase_j)
    assert (cut.ttft == whole.ttft).all()
    assert (cut.tbt == whole.tbt).all()


@settings(max_examples=10, deadline=None)
@given(ROWS, TP, st.tuples(CLOCKS, CLOCKS))
def test_a_lower_clock_never_answers_sooner(
    rows: list[tuple[float, int, int]], tp: int, pair: tuple[float, float]
) -> None:
    slow, fast = (served(rows, Shape(tp, clock)) for clock in sorted(pair))
    assert mean_latency_s(slow) >= mean_latency_s(fast) * (1 - 1e-2)  # a bin is one per cent wide


def test_a_lone_request_takes_and_draws_what_the_profile_says() -> None:
    shape, output = Shape(4, PROFILE.clocks_frac[3]), 101
    world = served([(1.0, 2048, output)], shape, (60.0,)).world
    prompt_s, each_s = PROFILE.prompt_s(shape, 2048), PROFILE.token_s(shape, 1, 2048 + output / 2)
    assert world.requests[world.free[world.free_count[0] - 1]].first_s == pytest.approx(1.0 + prompt_s)
    assert world.phase_j[serving.PROMPT] == pytest.approx(prompt_s * PROFILE.prompt_w(shape, 2048))
    assert world.phase_j[serving.TOKENS] == pytest.approx((output - 1) * each_s * PROFILE.token_w(shape, 1))
    idle_s = 60.0 - prompt_s - (output - 1) * each_s
    assert world.phase_j[serving.IDLE] == pytest.approx(idle_s * PROFILE.idle_w(shape))
    assert quantile_s(world.tbt.sum(axis=0), 0.5) == pytest.approx(each_s, rel=0.01)


def test_a_clock_is_set_at_the_cost_of_a_pause() -> None:
    engines = served([(0.0, 128, 200)], Shape(8), (1.0,))
    engines.retime(0, 1.0, Shape(8, 0.5), 0.08)
    engines.advance(30.0)
    assert engines.world.phase_j[serving.STILL] == pytest.approx(0.08 * PROFILE.idle_w(Shape(8)))
    assert int(engines.world.tally.finished.sum()) == 1


@pytest.mark.parametrize("kept", [True, False])
def test_requests_of_an_instance_that_goes_end_elsewhere(kept: bool) -> None:
    rows = [(0.0, 1000, 100), (0.1, 500, 50), (0.1, 4000, 10)]
    engines = Engines(PROFILE, 3, SLO)
    for slot in (0, 1):
        engines.start(slot, 0.0, Shape(4), 0.0)
    engines.deal({KINDS: (0,)})
    engines.take(asked(rows), np.zeros((2, 3), np.int64))
    engines.advance(1.0)
    engines.deal({KINDS: (1,)})
    engines.empty(0, 1.0, kept)
    engines.advance(60.0)
    world = engines.world
    assert int(world.tally.finished.sum()) == 3
    assert int(world.ttft.sum()) == 3
    assert engines.under_way == 0
    fresh = served(rows, Shape(4), (60.0,)).world
    more = world.phase_j[serving.PROMPT] / fresh.phase_j[serving.PROMPT]
    assert more == pytest.approx(1.0, rel=0.01) if kept else more > 1.1  # what was in memory is read again


def test_what_waits_while_nobody_serves_is_served_later() -> None:
    engines = Engines(PROFILE, 2, SLO)
    engines.take(asked([(0.0, 100, 10)] * 5), np.zeros((2, 5), np.int64))
    engines.advance(10.0)
    assert engines.under_way == 5
    engines.start(0, 10.0, Shape(8), 20.0)
    engines.deal({KINDS: (0,)})
    engines.leave_lobby(10.0)
    engines.advance(60.0)
    assert engines.under_way == 0
    assert quantile_s(engines.world.ttft.sum(axis=0), 0.5) == pytest.approx(20.0, rel=0.02)


def test_slots_of_requests_grow_with_what_is_under_way() -> None:
    engines = several(5)
    engines.take(asked([(0.0001 * place, 10, 400) for place in range(4200)]), np.zeros((2, 4200), np.int64))
    engines.advance(0.5)
    assert engines.under_way == 4200


def test_under_a_lasting_overload_queues_are_bounded_and_what_is_dropped_is_counted() -> None:
    rows = [(0.01 * place, 8000, 500) for place in range(6000)]
    engines = served(rows, Shape(2, 0.5), (60.0,))
    assert engines.world.instances[0].waiting == serving.WAITING_MOST
    assert engines.under_way + engines.dropped + int(engines.world.tally.finished.sum()) == 6000
    assert engines.dropped > 4000
    assert len(engines.world.requests) == 8192  # of those that came, not of those that were dropped
    engines.advance(1e6)
    assert engines.under_way == 0


def several(instances: int, *, by_weight: bool = False) -> Engines:
    engines = Engines(PROFILE, instances, SLO, by_weight=by_weight)
    for slot in range(instances):
        engines.start(slot, 0.0, Shape(8), 0.0)
    engines.deal({KINDS: range(instances)})
    return engines


def test_requests_are_dealt_in_turns_by_weight() -> None:
    engines = several(3, by_weight=True)
    rows = [(0.001 * place, 2000, 900) for place in range(120)]
    engines.weigh({0: 0.1, 1: 0.3})
    engines.weigh({2: 0.6})
    engines.take(asked(rows), np.zeros((2, 120), np.int64))
    engines.advance(0.2)
    held = [int(one.active + one.reading + one.waiting) for one in engines.world.instances[:3]]
    assert held == [12, 36, 72]


def plan(pool: str, instances: int, shape: Shape, kinds: Sequence[int] = range(9)) -> PoolPlan:
    return PoolPlan(pool, tuple(KINDS[place] for place in kinds), instances, shape, Demand(), 0.0, "asked")


def deployed(servers: int = 2, *, packs: bool = True, **plans: tuple[int, int]) -> tuple[Engines, Deployment]:
    engines = Engines(PROFILE, slots_of(PROFILE, servers), SLO)
    deployment = Deployment(engines, PROFILE, servers, packs=packs)
    deployment.apply(0.0, [plan(pool, number, Shape(tp)) for pool, (number, tp) in plans.items()], at_once=True)
    return engines, deployment


def test_a_new_instance_takes_its_time_and_draws_power_meanwhile() -> None:
    engines, deployment = deployed(ll=(1, 8))
    deployment.apply(5.0, [plan("ll", 2, Shape(8))])
    assert deployment.running(5.0)["ll"].starting == 1
    assert deployment.gpus == 16
    engines.advance(5.0 + PROFILE.start_s)
    assert engines.world.phase_j[serving.STILL] == pytest.approx(PROFILE.start_s * PROFILE.idle_w(Shape(8)))
    deployment.apply(5.0 + PROFILE.start_s, [plan("ll", 2, Shape(8))])
    assert deployment.running(5.0 + PROFILE.start_s)["ll"].instances == 2


def test_another_shape_is_made_of_the_gpus_that_are_there() -> None:
    _, deployment = deployed(ll=(1, 8))
    deployment.apply(5.0, [plan("ll", 2, Shape(4))])
    assert deployment.running(5.0)["ll"].instances == 2  # in a tenth of a second
    assert deployment.gpus == 8
    assert deployment.changes["started"] == 1


def test_a_pool_is_reshaped_on_each_of_its_servers_so_that_it_can_be_what_it_was() -> None:
    _, deployment = deployed(servers=2, ll=(2, 8))
    deployment.apply(5.0, [plan("ll", 2, Shape(4))])
    assert deployment.census().unused == 8  # four on each
    deployment.apply(6.0, [plan("ll", 2, Shape(8))])
    assert deployment.running(6.0)["ll"].instances == 2
    assert deployment.changes["started"] == 2


def test_servers_whose_instances_fit_on_others_are_emptied_at_the_cost_of_a_start() -> None:
    engines, deployment = deployed(servers=2, ll=(2, 8))
    halves = [plan("ll", 2, Shape(4))]
    deployment.apply(5.0, halves)
    deployment.apply(30.0, halves)
    assert (deployment.gpus, deployment.census().unused) == (8, 8)  # not before plans have settled
    deployment.apply(65.0, halves)
    assert deployment.gpus == 12
    assert deployment.running(65.0)["ll"].instances == 2  # who moves serves until its successor does
    for t in (65.0 + PROFILE.start_s, 70.0 + PROFILE.start_s):
        engines.advance(t)
        deployment.apply(t, halves)
    assert (deployment.gpus, deployment.census().unused) == (8, 0)
    assert deployment.running(500.0)["ll"].instances == 2
    assert deployment.changes["moved to another server"] == 1
    assert deployment.changes["started"] == 3


def test_a_cluster_of_a_fixed_size_keeps_its_servers() -> None:
    _, deployment = deployed(servers=2, packs=False, ll=(2, 8))
    for t in (5.0, 65.0, 1000.0):
        deployment.apply(t, [plan("ll", 2, Shape(4))])
    assert (deployment.gpus, deployment.census().unused) == (8, 8)


def pools(small: int, large: int, clocks: tuple[float, float]) -> list[PoolPlan]:
    """Of four GPUs an instance."""
    kinds = (range(3), range(3, 9))
    plans = zip(("sl", "ll"), (small, large), clocks, kinds, strict=True)
    return [plan(pool, number, Shape(4, clock), which) for pool, number, clock, which in plans]


def clocks_of(deployment: Deployment) -> list[float]:
    return sorted(shape.clock_frac for shape in deployment.shapes.values())


def test_who_helps_a_pool_that_is_not_complete_runs_at_its_clock_where_that_is_faster() -> None:
    _, deployment = deployed(servers=4, ll=(2, 4))
    deployment.apply(0.0, [plan("ll", 2, Shape(4, 0.5))])
    deployment.apply(5.0, pools(4, 2, (1.0, 0.5)))  # who served short ones before helps until those start
    assert clocks_of(deployment)[:2] == [1.0, 1.0]
    ready_s = 5.0 + PROFILE.start_s
    deployment.apply(ready_s, pools(4, 2, (1.0, 0.5)))
    assert clocks_of(deployment) == [0.5, 0.5, 1.0, 1.0, 1.0, 1.0]


def test_a_pool_that_lost_instances_is_helped_by_the_next_larger_until_it_is_complete() -> None:
    engines, deployment = deployed(servers=3)
    both = pools(2, 2, (1.0, 0.5))
    deployment.apply(0.0, both, at_once=True)
    deployment.apply(0.0, both)
    assert clocks_of(deployment) == [0.5, 0.5, 1.0, 1.0]
    deployment.lose(5.0)  # with both of the smaller pool
    deployment.apply(5.0, both)
    assert clocks_of(deployment)[:2] == [1.0, 1.0]
    engines.advance(5.0 + PROFILE.start_s)
    deployment.apply(5.0 + PROFILE.start_s, both)
    assert clocks_of(deployment) == [0.5, 0.5, 1.0, 1.0]


def test_nothing_is_moved_where_no_server_would_be_emptied() -> None:
    assert emptied({0: [4], 1: [4], 2: [8]}, dict.fromkeys(range(3), 8)) == [0]
    assert emptied({0: [8], 1: [4, 2], 2: [4]}, dict.fromkeys(range(3), 8)) == []
    assert emptied({0: [2], 1: [2], 2: [4], 3: [8]}, dict.fromkeys(range(4), 8)) == [0, 1]


def test_an_instance_in_a_hurry_runs_as_fast_as_it_may_until_the_next_plans() -> None:
    _, deployment = deployed(ll=(1, 8))
    slow = [plan("ll", 1, Shape(8, 0.6))]
    deployment.apply(5.0, slow)
    (slot,) = deployment.shapes
    deployment.limit(5.0, {0: 0.9})
    deployment.hurry(6.0, slot)
    assert deployment.shapes[slot].clock_frac == 0.9
    deployment.apply(10.0, slow)
    assert deployment.shapes[slot].clock_frac == 0.6


def crowded(rescue: Rescue | None) -> tuple[Engines, Counter[Rung]]:
    """Two instances for two kinds; the first has a queue that makes its last ones late."""
    engines, deployment = deployed(servers=2, sl=(1, 8), ll=(1, 8))
    deployment.apply(0.0, [plan("sl", 1, Shape(8), range(3)), plan("ll", 1, Shape(8), range(3, 9))])
    engines.take(asked([(0.0, 4000, 10)] * 9 + [(0.1, 300, 10)]), np.zeros((2, 10), np.int64))
    engines.advance(1.0)
    rescuing = Rescuing(rescue or (lambda *_: []), engines, deployment, PROFILE, clocks=True)
    rescuing.tick(1.0)
    engines.advance(60.0)
    return engines, rescuing.done


def test_a_rescue_makes_fewer_late_and_loses_none() -> None:
    (left, _), (helped, done) = crowded(None), crowded(ladder)
    assert set(done) == {Rung.REORDER, Rung.MOVE}
    late = [int(engines.world.tally.late.sum()) for engines in (left, helped)]
    assert late[1] < late[0]
    assert [int(engines.world.tally.finished.sum()) for engines in (left, helped)] == [10, 10]


def test_what_is_overdue_is_dropped_and_counted() -> None:
    engines, done = crowded(
        lambda queue, *_: [Step(Rung.REORDER, tuple(range(len(queue.work_s))), ""), Step(Rung.DROP, (0,), "overdue")]
    )
    assert done[Rung.DROP] == engines.dropped == 1
    assert engines.under_way == 0


def test_an_instance_too_many_serves_another_pool_before_one_is_started() -> None:
    _, deployment = deployed(sl=(2, 4), ll=(1, 4))
    both = [plan("sl", 1, Shape(4), range(3)), plan("ll", 2, Shape(4), range(3, 9))]
    deployment.apply(5.0, both)
    assert {pool: one.instances for pool, one in deployment.running(5.0).items()} == {"sl": 1, "ll": 2}
    assert deployment.changes["moved to another pool"] == 1


def test_what_is_left_over_ends_its_requests_and_is_switched_off() -> None:
    engines, deployment = deployed(ll=(2, 8))
    engines.take(asked([(0.0, 1000, 100), (0.0, 1000, 100)]), np.zeros((2, 2), np.int64))
    engines.advance(1.0)
    deployment.apply(1.0, [plan("ll", 1, Shape(8))])
    assert deployment.gpus == 16
    engines.advance(20.0)
    deployment.apply(20.0, [plan("ll", 1, Shape(8))])
    assert deployment.gpus == 8
    assert engines.under_way == 0


def test_a_pool_is_not_left_alone_while_its_new_shape_starts() -> None:
    _, deployment = deployed(servers=2, sl=(1, 4), ll=(1, 4))
    deployment.apply(5.0, [plan("sl", 1, Shape(4), range(3)), plan("ll", 1, Shape(8), range(3, 9))])
    assert deployment.running(5.0)["ll"].starting == 1
    assert deployment.gpus == 16


def test_where_no_server_has_room_nothing_is_started_and_that_is_counted() -> None:
    _, deployment = deployed(servers=1, ll=(1, 8))
    deployment.apply(5.0, [plan("ll", 3, Shape(8))])
    assert deployment.gpus == 8
    assert deployment.changes["found no room"] == 2


@dataclass(frozen=True)
class Few:
    """A source of a handful of requests a second, for so long."""

    length_s: float = 120.0
    per_s: float = 2.0
    lengths: tuple[float, float] = (800.0, 60.0)
    seed: int = 1
    thresholds: Thresholds = field(default_factory=Thresholds)

    def chunk(self, index: int) -> Asked:
        random = np.random.default_rng((self.seed, index))
        n = round(self.per_s * self.length_s) if index == 0 else 0
        scale = random.uniform(0.2, 3.0, (2, n)).round(2)
        return Asked(np.sort(random.uniform(0, self.length_s, n)), *(np.array(self.lengths)[:, None] * scale).round())

    def busy(self) -> Sequence[int]:
        return (0,)

    def history(self) -> Floats:
        return np.zeros((0, len(KINDS)))

    def sample(self) -> Asked:
        return self.chunk(0)


def fixed(*plans: PoolPlan) -> ClusterModel:
    return ClusterModel("fixed", lambda _: plans, Few(), servers=2)


TWO = (plan("sl", 1, Shape(4), range(3)), plan("ll", 1, Shape(8, 0.8), range(3, 9)))


@pytest.fixture(scope="module")
def two_pools() -> ClusterResult:
    return simulate(fixed(*TWO))


def test_the_same_model_and_seed_give_the_same_result(two_pools: ClusterResult) -> None:
    assert simulate(fixed(*TWO)) == two_pools


def test_no_request_is_lost(two_pools: ClusterResult) -> None:
    assert two_pools.requests == 240
    assert two_pools.finished + two_pools.under_way == 240
    assert sum(one.requests for one in two_pools.kinds.values()) == two_pools.finished


def test_energy_is_the_integral_of_power(two_pools: ClusterResult) -> None:
    total_j = sum(two_pools.energy_j.values())
    assert sum(two_pools.series.power_w) * 60.0 == pytest.approx(total_j)
    assert sum(two_pools.hours_j) == pytest.approx(total_j)
    assert two_pools.gpus_mean == pytest.approx(12.0)


def test_cost_and_carbon_grow_in_a_straight_line(two_pools: ClusterResult) -> None:
    twice = replace(
        two_pools,
        energy_j={name: 2 * joules for name, joules in two_pools.energy_j.items()},
        hours_j=tuple(2 * joules for joules in two_pools.hours_j),
        gpu_s=2 * two_pools.gpu_s,
        unused_s=2 * two_pools.unused_s,
    )
    clean = np.array([100.0])
    one, two = (summary(result, 0.0, clean) for result in (two_pools, twice))
    assert [two[name] / one[name] for name in ("cost_usd", "carbon_kg", "energy_kwh")] == pytest.approx([2.0] * 3)
    assert one["carbon_kg"] == pytest.approx(0.1 * one["energy_kwh"])
    assert carbon_kg((3.6e6, 3.6e6), np.array([100.0, 300.0])) == pytest.approx(0.4)


def test_a_lost_server_takes_nothing_down_and_it_is_told() -> None:
    views: list[ClusterView] = []

    def planner(view: ClusterView) -> Sequence[PoolPlan]:
        views.append(view)
        return (plan("ll", 2, Shape(8)),)

    result = simulate(ClusterModel("fixed", planner, Few(), servers=2, lost=Span(40.0, 30.0)))
    assert result.finished + result.under_way == result.requests
    assert result.under_way < 15  # of the last seconds
    assert [told.text for told in result.told if "server" in told.text] == [
        "server 0 is lost, with 1 instances",
        "the lost server is back, empty",
    ]
    assert {view.gpus for view in views} == {8, 16}
    assert result.changes["started"] == 3


def test_stale_metrics_show_the_planner_how_old_they_are() -> None:
    ages: dict[float, float] = {}

    def planner(view: ClusterView) -> Sequence[PoolPlan]:
        assert view.measured_t is not None
        ages[view.t] = view.t - view.measured_t
        return TWO

    simulate(replace(fixed(), planner=planner, stale=Span(50.0, 30.0)))
    assert sorted(set(ages.values())) == [0.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0]


def test_a_surprise_is_what_the_forecast_did_not_say() -> None:
    peaks = {}
    for surprise in (1.0, 2.0):
        views: list[ClusterView] = []
        simulate(replace(fixed(), planner=lambda view, v=views: v.append(view) or TWO, surprise=surprise))  # type: ignore[misc]  # mypy cannot infer a lambda's default
        peaks[surprise] = sum(one.requests_per_s for one in views[0].peak.values())
    assert peaks[1.0] == pytest.approx(2 * peaks[2.0])


def test_an_infeasible_objective_makes_requests_late_and_nothing_else() -> None:
    result = simulate(replace(fixed(*TWO), slo_scale=0.1))
    assert result.all.late_frac > 0.9
    assert result.finished + result.under_way == result.requests


def test_objectives_at_the_tertiles_are_those_of_the_paper() -> None:
    slo = objectives(PROFILE, Thresholds(), (4142.0, 601.0))
    ttft_s = {name_of(kind): one.ttft_s for kind, one in slo.items()}
    assert [ttft_s[name] for name in ("ss", "ms", "ls")] == pytest.approx([0.25, 0.4, 2.0], rel=0.06)


@pytest.mark.parametrize(
    ("kind", "prompt", "output"),
    [(CONV, (1020, 4142, 1155), (129, 601, 211)), (CODE, (1469, 7436, 2048), (13, 251, 28))],
)
def test_made_up_lengths_meet_the_public_ones(
    kind: Kindness, prompt: tuple[float, float, float], output: tuple[float, float, float]
) -> None:
    for drawn, public in zip(kind.lengths(np.random.default_rng(1), 60_000), (prompt, output), strict=True):
        shown = (*np.quantile(drawn, (0.5, 0.99)), drawn.mean())
        assert shown == pytest.approx(public, rel=0.15)


def test_a_week_loads_the_servers_as_asked_and_comes_in_clumps() -> None:
    week = Week.loading(CODE, 4.0, PROFILE, 1, 604_800.0)
    busiest = week.chunk(int(week.expected().argmax()))
    asks = len(busiest.arrive_s) / 600.0 * service_s(PROFILE, busiest.prompt, busiest.output)
    assert asks == pytest.approx(4.0, rel=0.25)
    counts = np.bincount((busiest.arrive_s % 600.0).astype(np.int64), minlength=600)
    assert counts.var() / counts.mean() > 5.0
    assert (np.diff(busiest.arrive_s) >= 0.0).all()
    assert week.expected().max() / week.expected().min() > 25.0


def test_a_trace_is_repeated_to_the_load_and_its_past_is_like_it(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    lines = [f"2023-11-16 18:{second // 60:02}:{second % 60:02},900,80" for second in range(0, 1200, 2)]
    path.write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *lines]))
    source = ClusterOptions("dynamo", 4, trace=path, past="itself").source(PROFILE)
    assert isinstance(source, Recorded)
    wanted = 0.4 * 4 / service_s(PROFILE, np.array([900.0]), np.array([80.0]))
    assert source.counts().max() / 600.0 == pytest.approx(wanted, rel=0.1)
    past = source.history().sum(axis=1).reshape(7, -1)
    assert past[:, :19].mean() == pytest.approx(wanted, rel=0.1)
    assert past[:, 30:].sum() == 0.0


def test_a_typical_past_is_at_the_level_of_the_first_minutes_and_foresees_nothing(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    at_s = np.concatenate([np.arange(0, 300, 3), np.arange(300, 600, 0.5)])  # six times the load after five minutes
    stamps = [f"2023-11-16 18:{int(one) // 60:02}:{one % 60:04.1f},900,80" for one in at_s.tolist()]
    path.write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *stamps]))
    source = ClusterOptions("dynamo", 4, trace=path, past="conv").source(PROFILE)
    early = float((source.chunk(0).arrive_s < 300.0).sum()) / 300.0
    past = source.history().sum(axis=1)
    assert len(past) == 7 * 1440
    assert past[:5].mean() == pytest.approx(early)
    assert past[-1440:-1400].mean() == pytest.approx(early, rel=0.2)  # a day before
    assert past.max() < 3 * early


def test_an_excerpt_is_the_busiest_hour_and_no_longer_than_its_source() -> None:
    week = Week.loading(CONV, 1.0, PROFILE, 1, 604_800.0)
    hour = Excerpt.busiest(week)
    assert hour.first % 144 in range(80, 92)  # in the afternoon
    assert hour.chunk(0).arrive_s[-1] < 600.0
    assert (hour.length_s, len(hour.busy())) == (3600.0, 6)
    short = Excerpt.busiest(replace(week, length_s=700.0))
    assert (short.first, short.length_s) == (0, 700.0)


BAD: Mapping[str, dict[str, object]] = {
    "none-such": {"system": "none-such", "week": "conv"},
    "either --trace": {"week": None},
    "--week marathon": {"week": "marathon"},
    "--servers 0": {"servers": 0},
    "--peak-util 1.5": {"peak_util": 1.5},
    "--hours -1": {"hours": -1.0},
    "--past lost": {"past": "lost"},
    "--lose-server 'soon'": {"lose_server": "soon"},
    "--stale '5\\+0'": {"stale": "5+0"},
    "surprise=0": {"surprise": 0.0},
    "length_accuracy=2": {"length_accuracy": 2.0},
}


@pytest.mark.parametrize("told", BAD)
def test_options_that_mean_nothing_are_refused(told: str) -> None:
    options: dict[str, object] = {"system": "single-pool", "servers": 12, "week": "conv"} | BAD[told]
    with pytest.raises(ConfigError, match=told):
        ClusterOptions(**options).model()  # type: ignore[arg-type]  # that is the point


@pytest.mark.parametrize(
    ("text", "told"),
    [("hour,x\n1,2\n", "lacks the column"), ("g_per_kwh\n", "no hours"), ("g_per_kwh\n-1\n", "line 2")],
)
def test_an_intensity_that_cannot_be_used_is_refused(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "carbon.csv"
    path.write_text(text)
    with pytest.raises(ConfigError, match=told):
        read_intensity(path)
