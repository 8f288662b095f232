import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from polcad.cli import app
from polcad.errors import ConfigError
from polcad.model import Role
from polcad.reproduce import FIGURES, Case, Results, cases, run, thresholds
from polcad.reproduction import document, meets_slo, spread
from polcad.sim.phases import with_phases
from polcad.sim.profiles import DGX_A100
from polcad.sim.requests import Load

pytestmark = pytest.mark.integration  # rows take seconds

GOOD = dict.fromkeys(FIGURES, 0.0) | {"peak_frac": 0.79, "throughput_frac": 1.0}


def results(**changed: float) -> Results:
    return {case: [GOOD, GOOD | changed] for case in cases(1.0)}


def test_the_comparison_holds_every_policy_at_every_size_once() -> None:
    every = cases(1.0)
    assert len(set(every)) == len(every)
    assert {case.servers for case in every if case.policy == "polca" and not case.options} == {40, 44, 48, 52, 56, 60}
    assert Case(52, "polca", thresholds(0.75, 0.85)) in every
    assert Case(56, "phase_aware", actuation="in-band") in every


def test_the_page_has_a_line_for_every_row_and_marks_what_the_paper_says() -> None:
    text = document(results(), 0.1, 1.0, 2)
    assert len(re.findall(r"^\| \d\d \| \w+ \| 7", text, re.MULTILINE)) == 30
    assert "79 [S]" in text
    assert "9.0 [M]" in text
    assert "0 in 14 days (fewer than 0.21 a day, 95 %)" in text
    assert document(results(), 0.1, 1.0, 2) == text


def test_one_bad_seed_breaks_the_slos() -> None:
    assert meets_slo([GOOD])
    for name, value in (("brakes", 1.0), ("low_p50_slowdown", 0.06), ("high_p99_slowdown", 0.05)):
        assert not meets_slo([GOOD, GOOD | {name: value}])


def test_a_spread_is_the_mean_and_the_extremes() -> None:
    assert spread([GOOD, GOOD | {"peak_frac": 0.81}], "peak_frac").percent() == "80.0 [79.0, 81.0]"
    assert spread([GOOD], "peak_frac").percent() == "79.0"


@pytest.mark.parametrize(("weeks", "seeds"), [(0.1, 0), (-1.0, 1)])
def test_options_that_mean_nothing_are_refused_before_anything_runs(weeks: float, seeds: int) -> None:
    with pytest.raises(ConfigError):
        run(weeks, range(seeds), 1, lambda _: None, cases(1.0))


def test_token_heavy_workloads_are_marked_for_the_policy_that_looks() -> None:
    roles = {workload.name: workload.role for workload in with_phases(Load(), DGX_A100).mix}
    assert roles == {"summarize": Role.MIXED, "search": Role.TOKEN, "chat-high": Role.TOKEN, "chat-low": Role.TOKEN}


@pytest.mark.integration
def test_runs_in_parallel_give_what_runs_alone_give(tmp_path: Path) -> None:
    wanted = [Case(4, "no_cap"), Case(4, "polca")]
    told: list[int] = []
    together = run(0.0005, [1, 2], 2, told.append, wanted)
    assert together == run(0.0005, [1, 2], 1, told.append, wanted)
    assert sum(told) == 8
    assert not list(tmp_path.iterdir())


def test_the_command_line_shows_what_it_offers() -> None:
    for command in (["reproduce", "polca"], ["plan"]):
        shown = CliRunner().invoke(app, [*command, "--help"])
        assert shown.exit_code == 0
        assert "seeds" in shown.output
