"""``polcad reproduce splitwise`` and the systems that it compares."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from polcad.cli import app
from polcad.cluster.split import DESIGNS, Pools, design
from polcad.errors import ConfigError
from polcad.plugins import load, names
from polcad.reproduce_splitwise import BASE, COST, POWER, Found, Halves, Wanted, document
from polcad.sim.split_rates import Bench, Load, Rated
from polcad.simulate_cluster import ClusterOptions, timed


def found(**rates: float) -> Found:
    """Every case at 10 requests/s but for those at equal power that are named."""
    results = {case: Rated(Pools(30, 10), 10.0) for case in Wanted().cases()}
    for case in results:
        if case.budget == POWER and case.design in rates:
            results[case] = Rated(Pools(30, 10), rates[case.design])
    halves = {(case.model, case.service): Halves(Pools(30, 10), 10.0, 9.9, 7.0, 9.0, 9.0) for case in results}
    return Found(results, halves, {30: (9.0, 10.0)})


def test_every_design_is_compared_at_equal_power_and_at_equal_cost() -> None:
    cases = Wanted().cases()
    assert {case.design for case in cases if case.budget == POWER} == set(DESIGNS)
    assert {case.design for case in cases if case.budget == COST} == set(DESIGNS) - {BASE, "splitwise-hh"}


def test_the_page_sets_ours_beside_the_paper_and_marks_what_it_says() -> None:
    text = document(found(**{"splitwise-aa": 14.0, "baseline-a100": 7.0}), Wanted())
    assert "1.4, for 20 % less [S]" in text
    assert "| bloom-176b, code | 1.40 | 2.00 |" in text
    assert "9.9 (-1.0 %)" in text
    assert "7.0 (-30.0 %)" in text
    assert text == document(found(**{"splitwise-aa": 14.0, "baseline-a100": 7.0}), Wanted())


def test_clusters_are_listed_from_the_fastest() -> None:
    text = document(found(**{"splitwise-hhcap": 20.0}), Wanted())
    table = text.split("### llama2-70b, code")[1]
    assert table.index("| splitwise-hhcap") < table.index("| splitwise-aa")


def test_every_design_is_a_system_that_can_be_simulated() -> None:
    assert set(DESIGNS) <= set(names("polcad.cluster_systems"))
    assert load("polcad.cluster_systems", "splitwise-ha").design == design("splitwise-ha")


def test_faults_and_profiles_that_are_not_modelled_for_standing_machines_are_refused() -> None:
    with pytest.raises(ConfigError, match="not modelled"):
        ClusterOptions("splitwise-hh", 4, week="conv", stale="10+10").model()
    with pytest.raises(ConfigError, match="too little"):
        timed(ClusterOptions("splitwise-hh", 1, week="conv", hours=0.01))


def test_the_command_line_shows_what_it_offers() -> None:
    shown = CliRunner().invoke(app, ["reproduce", "splitwise", "--help"])
    assert shown.exit_code == 0
    assert "equal power" in shown.output


@pytest.mark.integration
def test_a_cap_on_token_machines_costs_less_than_2_percent_where_they_only_make_tokens() -> None:
    load_, pools = Load.of("conv", 30.0, 1), Pools(5, 10)
    free, capped = (
        Bench("llama2-70b", design(name), load_, moves=False).rate(pools, 50.0, close_frac=0.002)
        for name in ("splitwise-hh", "splitwise-hhcap")
    )
    assert free > 0.0
    assert capped > 0.98 * free


@pytest.mark.integration
def test_splitting_serves_more_than_mixing_on_the_same_machines() -> None:
    load_ = Load.of("code", 30.0, 1)
    split = Bench("bloom-176b", design("splitwise-aa"), load_).rate(Pools(14, 4), 15.0)
    mixed = Bench("bloom-176b", design("baseline-a100"), load_).rate(Pools(mixed=18), 15.0)
    assert split > 1.3 * mixed


@pytest.mark.integration
def test_without_a_compiler_split_pools_serve_the_same() -> None:
    told = (
        "from polcad.simulate_cluster import ClusterOptions, timed; "
        "print(timed(ClusterOptions('splitwise-ha', 4, week='code', hours=0.05))[0])"
    )
    runs = [
        subprocess.run([sys.executable, "-c", told], env=env, capture_output=True, check=True, timeout=300).stdout
        for env in (dict(os.environ) | {"NUMBA_DISABLE_JIT": "0"}, dict(os.environ) | {"NUMBA_DISABLE_JIT": "1"})
    ]
    assert runs[0] == runs[1]
