"""The fault bench judges: a row that holds is found to hold, and one that does not is found out."""

from dataclasses import replace
from pathlib import Path

import pytest

from polcad.model import FREE, Plan, Rule, Setpoint, Why
from tests.chaos.bench import BY_NAME
from tests.chaos.ear import Heard
from tests.chaos.faults import Board, blind
from tests.chaos.judge import LEASE_S, REACTION_S, Verdict, judge, longest
from tests.chaos.judge import Board as Judged
from tests.chaos.meter import Look
from tests.chaos.row import BUDGET_W
from tests.chaos.run import run_case
from tests.fake_nvml.control import FakeGpu
from tests.live_row import FREE_MHZ

BOARD = Judged(0, "n2", "low")
LOCK = Setpoint(1110 / 1410)


def plan(t: float, setpoint: Setpoint) -> Heard:
    rules = () if setpoint.free else (Rule("row", setpoint, Why.T2),)
    return Heard(t, Plan("row", 1, int(t * 1000) + 1, t, LEASE_S, LOCK, rules))


def looks(*mhz: int, step_s: float = 0.1) -> list[Look]:
    return [Look(step_s * place, 1000.0, (each,), (400.0,)) for place, each in enumerate(mhz)]


def plans(setpoint: Setpoint, until_s: float) -> list[Heard]:
    return [plan(t / 10, setpoint) for t in range(-1, int(until_s * 10))]


def judged(seen: list[Look], said: list[Heard], board: Judged = BOARD) -> Verdict:
    return judge(seen, said, [board])


def test_the_longest_spell_is_counted_from_look_to_look() -> None:
    assert longest([(0.0, False), (1.0, True), (2.0, True), (3.0, False), (4.0, True)]) == 3.0
    assert longest([(0.0, False), (1.0, False)]) == 0.0


def test_a_board_that_does_as_the_plan_says_is_well() -> None:
    verdict = judged(looks(*[1110] * 40), plans(LOCK, 4.0))
    assert (verdict.loose_s, verdict.unordered, verdict.broken()) == (0.0, 0, [])


def test_a_board_that_stays_free_under_a_lock_is_found_out() -> None:
    verdict = judged(looks(*[FREE_MHZ] * 40), plans(LOCK, 4.0))
    assert verdict.loose_s > REACTION_S
    assert "looser than its plan" in verdict.broken()[0]


def test_a_board_that_stays_free_in_silence_is_found_out_and_one_at_the_fail_safe_is_not() -> None:
    silence = plans(FREE, 0.2)
    assert judged(looks(*[FREE_MHZ] * 50), silence).broken()
    assert not judged(looks(*[FREE_MHZ] * 10, *[1110] * 40), silence).broken()


def test_a_board_whose_node_hears_nothing_may_stay_at_the_fail_safe_of_what_it_heard_last() -> None:
    said = [*plans(FREE, 1.0), *(plan(t / 10, Setpoint(0.2)) for t in range(10, 50))]
    seen = looks(*[FREE_MHZ] * 10, *[1110] * 40)
    assert judged(seen, said).broken()
    assert not judged(seen, said, Judged(0, "n2", "low", deaf_from_s=0.95)).broken()


def test_a_board_that_nobody_could_set_for_a_while_is_judged_before_and_after() -> None:
    seen, said = looks(*[FREE_MHZ] * 30, *[1110] * 30), plans(LOCK, 6.0)
    assert judged(seen, said).broken()
    assert not judged(seen, said, Judged(0, "n2", "low", away=(1.0, 2.9))).broken()
    assert judged(looks(*[FREE_MHZ] * 60), said, Judged(0, "n2", "low", away=(1.0, 2.9))).broken()


def test_a_loosening_that_no_plan_asks_for_is_found_out_at_once() -> None:
    verdict = judged(looks(1110, 1110, FREE_MHZ, 1110), plans(LOCK, 0.4))
    assert verdict.unordered == 1
    assert judged(looks(1110, 1110, FREE_MHZ), plans(FREE, 0.4)).unordered == 0


def test_a_row_over_its_budget_is_found_out() -> None:
    seen = [each._replace(row_w=2100.0) for each in looks(*[1110] * 40)]
    assert "over budget" in judged(seen, plans(LOCK, 4.0)).broken()[0]


@pytest.mark.integration
@pytest.mark.parametrize("case", ["kill-daemon", "mixed-versions", "hostile-flood", "clock-all", "clock-start"])
def test_a_row_that_is_broken_holds(fake_nvml_lib: Path, case: str) -> None:
    outcome = run_case(BY_NAME[case], 2, 7, fake_nvml_lib)
    assert outcome.failures == []
    # The first run breaks it before the rise, so it may be locked by then; the second begins with the rise.
    assert outcome.runs[1].verdict.peak_w > BUDGET_W


@pytest.mark.integration
def test_a_row_whose_nodes_go_free_in_silence_is_found_out(
    fake_nvml_lib: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POLCAD_AGENT__FAIL", "release")
    outcome = run_case(replace(BY_NAME["kill-broker"], hold_s=(4.0, 4.0)), 1, 7, fake_nvml_lib)
    assert any("over budget" in each for each in outcome.failures)


@pytest.mark.integration
def test_a_fault_of_which_nothing_is_told_is_found_out(fake_nvml_lib: Path) -> None:
    harmless = replace(
        BY_NAME["sensor-zero"], make=lambda _, __: Board("n1", FakeGpu.well, says=blind), hold_s=(1.0, 1.0)
    )
    outcome = run_case(harmless, 1, 7, fake_nvml_lib)
    assert outcome.failures == ["run 0 (calm): no event sensor_fault of node/n1"]
