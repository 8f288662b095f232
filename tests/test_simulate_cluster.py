"""``polcad simulate cluster`` and ``polcad reproduce dynamollm``, from end to end."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from polcad.cli import app
from polcad.reproduce_dynamollm import CODE, CONV, HOUR, HOUR_UTIL, SYSTEMS, Results, Wanted, document, run
from polcad.simulate_cluster import ClusterOptions, timed

DATA = Path(__file__).parent.parent.parent / "shared" / "data"
TRACE = DATA / "azure" / "AzureLLMInferenceTrace_conv.csv.gz"
KEYS = [
    "system",
    "servers",
    "energy_kwh",
    "ttft_p50_s",
    "ttft_p99_s",
    "tbt_p50_s",
    "tbt_p99_s",
    "latency_mean_s",
    "latency_p99_s",
    "slo_violation_frac",
    "gpus_mean",
    "power_max_w",
    "requests",
    "dropped",
    "wall_s",
    "energy_reconfig_kwh",
    "cost_usd",
    "carbon_kg",
    "energy_gpus_kwh",
]
GOOD = dict.fromkeys(KEYS, 1.0)

needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no measurements at {DATA}")


def test_the_page_sets_ours_beside_the_paper_and_marks_what_it_says() -> None:
    wanted = Wanted(Path("conv.csv"))
    results: Results = dict.fromkeys(wanted.runs(), GOOD) | {(HOUR, "dynamo"): GOOD | {"energy_kwh": 0.6}}
    text = document(results, wanted)
    assert "| dynamo | -35 [S] | -40.0 |" in text
    assert "| multi-pool | +20 [S] | +0.0 |" in text
    assert "-47 [S]" in text
    assert text.count("servers, 100.00 % late)") == 9  # every load and margin, so that none is chosen for its saving
    assert "-56 [S]" in text
    assert len(re.findall(r"^\| single-pool \| 0 \| \+0.0", text, re.MULTILINE)) == 6
    assert document(results, wanted) == text


def test_every_system_is_run_and_the_weeks_are_those_of_the_paper() -> None:
    runs = Wanted(Path("conv.csv")).runs()
    assert {name for load, name in runs if load == HOUR} >= {"single-pool", "multi-pool", "dynamo"}
    assert {options.week for (load, _), options in runs.items() if load in {CONV, CODE}} == {"conv", "code"}


def test_the_command_line_shows_what_it_offers() -> None:
    for command in (["simulate", "cluster"], ["reproduce", "dynamollm"]):
        shown = CliRunner().invoke(app, [*command, "--help"])
        assert shown.exit_code == 0
        assert "servers" in shown.output


@pytest.mark.integration
def test_the_figures_go_to_a_pipe_with_the_promised_keys_and_a_page_is_written(tmp_path: Path) -> None:
    carbon, page = tmp_path / "carbon.csv", tmp_path / "page.html"
    carbon.write_text("hour,g_per_kwh\n0,300\n")
    command = [sys.executable, "-c", "from polcad.cli import main; main()", "simulate", "cluster", "--system", "dynamo"]
    options = ["--week", "conv", "--hours", "0.2", "--servers", "9", "--json", "--carbon", str(carbon)]
    done = subprocess.run([*command, *options, "--report", str(page)], capture_output=True, check=True, timeout=120)
    figures = json.loads(done.stdout)
    assert list(figures) == KEYS
    assert figures["carbon_kg"] == pytest.approx(0.3 * figures["energy_kwh"])
    assert "Energy by phase" in page.read_text()


@pytest.mark.integration
def test_without_a_compiler_the_figures_are_the_same() -> None:
    told = (
        "from polcad.simulate_cluster import ClusterOptions, timed; "
        "print(timed(ClusterOptions('dynamo', 9, week='code', hours=0.05))[0])"
    )
    runs = [
        subprocess.run([sys.executable, "-c", told], env=env, capture_output=True, check=True, timeout=300).stdout
        for env in (dict(os.environ), dict(os.environ) | {"NUMBA_DISABLE_JIT": "1"})
    ]
    assert runs[0] == runs[1]


@needs_data
@pytest.mark.integration
def test_on_the_public_hour_more_pools_cost_energy_and_each_level_saves() -> None:
    found = {
        name: timed(ClusterOptions(name, 12, trace=TRACE, past="conv", peak_util=HOUR_UTIL))[1] for name in SYSTEMS
    }
    kwh = {name: one["energy_kwh"] for name, one in found.items()}
    assert kwh["multi-pool"] > kwh["single-pool"]
    assert max(kwh[name] for name in SYSTEMS[2:]) < kwh["multi-pool"]
    assert kwh["dynamo"] < min(kwh[name] for name in SYSTEMS if name != "dynamo")
    assert kwh["dynamo"] <= 0.65 * kwh["single-pool"]
    assert found["dynamo"]["slo_violation_frac"] < 0.01


@pytest.mark.integration
def test_runs_in_parallel_give_what_runs_alone_give() -> None:
    wanted = Wanted(servers=9, week_servers=9, week_hours=0.02)
    few = {key: options for key, options in wanted.runs().items() if key[0] in {CONV, CODE}}
    told: list[int] = []
    found = run(few, 2, told.append)
    assert sum(told) == len(few)
    alone = {key: timed(options)[1] for key, options in few.items()}
    assert [one["energy_kwh"] for one in found.values()] == [one["energy_kwh"] for one in alone.values()]
