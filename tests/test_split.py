"""Splitwise's pools: their machines, their sizes, and the simulated cluster that they make."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from polcad.cluster.classes import Thresholds
from polcad.cluster.machines import H100_W, MODELS, machines
from polcad.cluster.nouns import KINDS, Demand, Slo
from polcad.cluster.split import DESIGNS, Budget, Design, Pools, counts, design, size
from polcad.errors import ConfigError
from polcad.sim.asking import CHUNK_S, Asked
from polcad.sim.engines import Engines, kinds_of
from polcad.sim.split_engines import SplitEngines
from polcad.sim.split_serving import TRANSFER_FRAC

ASKED = Demand(1.0, 1200.0, 200.0)
SLO = Slo(0.5, 0.06)
LOOSE = dict.fromkeys(KINDS, Slo(10.0, 1.0))
REFERENCE = machines("llama2-70b")["a"]


def requests(rate: float, seconds: float = 60.0, prompt: float = 1200.0, output: float = 200.0) -> Asked:
    random = np.random.default_rng(3)
    n = int(rate * seconds)
    at_s = np.sort(random.random(n)) * seconds
    return Asked(at_s, np.rint(random.uniform(0.2, 1.8, n) * prompt), np.rint(random.uniform(0.2, 1.8, n) * output))


def played(name: str, pools: Pools, asked: Asked, until_s: float = CHUNK_S) -> SplitEngines:
    engines = SplitEngines(design(name), pools, LOOSE, REFERENCE)
    engines.take(asked, np.stack([kinds_of(asked, Thresholds())] * 2))
    engines.advance(until_s)
    return engines


def test_every_design_of_every_model_is_sized_within_its_budget_with_both_pools() -> None:
    for model in MODELS:
        for name in DESIGNS:
            kind, budget = design(name, model), Budget(most=232e3)
            found = size(kind, ASKED, Slo(1.0, 0.08), budget)
            assert counts(kind, found.pools, budget) <= 232e3
            assert found.requests_per_s > 0.0
            assert (found.pools.mixed > 0) is (kind.token is None)


def test_no_other_split_of_the_same_machines_serves_more() -> None:
    kind = design("splitwise-hh")
    best = size(kind, ASKED, SLO, Budget(machines=40))
    few = size(kind, ASKED, SLO, Budget(machines=20))
    assert best.pools.machines == 40
    assert best.requests_per_s == pytest.approx(2 * few.requests_per_s, rel=0.1)


def test_longer_outputs_want_more_token_machines() -> None:
    kind = design("splitwise-hh")
    short, long = (size(kind, replace(ASKED, output_tokens=n), SLO, Budget(machines=40)).pools for n in (50.0, 400.0))
    assert short.token < long.token


def test_forty_h100_count_what_seventy_a100_do() -> None:
    assert size(design("baseline-h100"), ASKED, SLO, Budget(most=232e3)).pools == Pools(mixed=40)
    assert size(design("baseline-a100"), ASKED, SLO, Budget(most=232e3)).pools == Pools(mixed=70)


def test_a_budget_without_an_end_or_without_room_is_refused() -> None:
    with pytest.raises(ConfigError, match="is needed"):
        Budget()
    for budget in (Budget(most=H100_W), Budget(machines=1)):
        with pytest.raises(ConfigError, match="too little"):
            size(design("splitwise-hh"), ASKED, SLO, budget)


def test_names_that_there_are_not_are_refused_with_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match="splitwise-hh"):
        design("splitwise-xx")
    with pytest.raises(ConfigError, match="llama2-70b"):
        design("splitwise-hh", "gpt")
    with pytest.raises(ConfigError, match="cap_frac"):
        replace(REFERENCE, cap_frac=0.0)


def test_a_cap_to_half_hardly_slows_iterations_but_prompts_at_once() -> None:
    free, capped = machines("llama2-70b")["h"], machines("llama2-70b")["cap"]
    assert capped.token_s(64, 80_000) < 1.01 * free.token_s(64, 80_000)
    assert capped.prompt_s(2048) > 1.3 * free.prompt_s(2048)
    assert capped.prompt_w(2048) < 0.7 * free.prompt_w(2048)


def test_without_a_split_machines_serve_as_instances_of_one_pool_do() -> None:
    asked = requests(15.0, seconds=20.0)
    kinds = np.stack([kinds_of(asked, Thresholds())] * 2)
    split = played("baseline-h100", Pools(mixed=3), asked)
    machine = machines("llama2-70b")["h"]
    plain = Engines(machine.profile, 3, LOOSE)
    for r in range(3):
        plain.start(r, 0.0, machine.shape, 0.0)
    plain.deal({KINDS: range(3)})
    plain.take(asked, kinds)
    plain.advance(CHUNK_S)
    assert np.array_equal(split.world.ttft, plain.world.ttft)
    assert np.array_equal(split.world.tbt, plain.world.tbt)
    assert split.energy_j() == pytest.approx(plain.energy_j())


def test_every_request_ends_once_and_nothing_stays_promised() -> None:
    asked = requests(15.0, seconds=20.0)
    engines = played("splitwise-hh", Pools(1, 2), asked)
    assert engines.world.tally.finished.sum() == len(asked.arrive_s)
    assert engines.under_way == 0
    assert not engines.split.promised.any()
    assert not engines.world.instances.kv[:-1].any()


def test_one_request_alone_takes_its_prompt_its_iterations_and_the_transfer() -> None:
    machine = machines("llama2-70b")["h"]
    one = Asked(np.array([1.0]), np.array([1024.0]), np.array([101.0]))
    engines = played("splitwise-hh", Pools(1, 1), one)
    prompt_s, context = machine.prompt_s(1024.0), 1024.0 + 101.0 / 2
    transfer_s = TRANSFER_FRAC * (prompt_s + 101 * machine.token_s(1, 0.0))
    alone = machines("llama2-70b")["a"]
    wanted = (prompt_s + transfer_s + 100 * machine.token_s(1, context)) / (
        alone.prompt_s(1024.0) + 100 * alone.token_s(1, context)
    )
    assert engines.slowdown("e2e", 0.5) == pytest.approx(wanted, rel=0.01)
    assert engines.slowdown("ttft", 0.5) == pytest.approx(prompt_s / alone.prompt_s(1024.0), rel=0.01)


def test_a_token_machine_helps_when_too_many_prompts_wait_and_goes_back_when_it_is_empty() -> None:
    burst = requests(80.0, seconds=5.0, output=30.0)
    busy = played("splitwise-hh", Pools(1, 3), burst, until_s=5.0)
    assert busy.moved[1] > 0
    assert busy.now_mixed > 0
    after = played("splitwise-hh", Pools(1, 3), burst)
    assert after.now_mixed == 0
    assert after.world.tally.finished.sum() == len(burst.arrive_s)


def test_a_prompt_machine_helps_when_the_memory_for_tokens_is_promised() -> None:
    asked = requests(6.0, seconds=60.0, prompt=1000.0, output=900.0)
    engines = SplitEngines(design("splitwise-hh", "bloom-176b"), Pools(2, 1), LOOSE, machines("bloom-176b")["a"])
    engines.take(asked, np.stack([kinds_of(asked, Thresholds())] * 2))
    engines.advance(60.0)
    assert engines.moved[0] > 0


@pytest.mark.integration
def test_more_than_can_wait_is_dropped_and_counted() -> None:
    engines = played("splitwise-aa", Pools(1, 1), requests(300.0, seconds=20.0))
    assert engines.dropped > 0
    assert engines.dropped + engines.world.tally.finished.sum() + engines.under_way == 6000


def test_mixed_designs_know_which_machine_does_what() -> None:
    kind = design("splitwise-ha")
    assert isinstance(kind, Design)
    assert [one.profile.gpu_max_w for one in kind.kinds] == [700.0, 400.0]
