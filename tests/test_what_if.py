"""What-if knobs: each does what it says, and whatever shows a result of one says that it is hypothetical."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from polcad.cli import app
from polcad.cluster.nouns import Shape
from polcad.cluster.profiles import LLAMA2_70B_H100 as PROFILE
from polcad.errors import ConfigError
from polcad.plan import PlanOptions, as_json, plan
from polcad.plan_text import lines
from polcad.report import of_row
from polcad.sim.actuation import IN_BAND, OUT_OF_BAND, Path
from polcad.sim.profiles import DGX_A100, DGX_H100, Floats, Hardware
from polcad.sim.requests import Load
from polcad.sim.training import PRUNED, WithTraining
from polcad.simulate import SimulateOptions, timed
from polcad.simulate_cluster import ClusterOptions, supposed
from tests.test_plan import FakeRows

ROW = SimulateOptions(servers=4, weeks=0.002, policy="no_cap", budget_w=40_000.0, training=0.5)


def drawn_s(path: Path) -> Floats:
    random = np.random.default_rng(1)
    return np.array([path.drawn_s(random, fast=False) for _ in range(4000)])


@pytest.mark.parametrize("path", [IN_BAND, OUT_OF_BAND])
def test_a_quicker_path_meets_the_published_cuts_and_the_guard_counts_on_them(path: Path) -> None:
    quicker = path.quicker()
    plain_s, quick_s = drawn_s(path), drawn_s(quicker)
    assert np.median(quick_s) <= 0.63 * np.median(plain_s) * 1.01
    assert np.quantile(quick_s, 0.99) == pytest.approx(0.37 * np.quantile(plain_s, 0.99), rel=0.01)
    assert path.latency_s - path.delay_s[1] + quick_s.max() <= quicker.latency_s < path.latency_s


@pytest.mark.parametrize("hardware", [DGX_A100, DGX_H100])
def test_training_keeps_its_pace_and_pruning_steps_its_work_down(hardware: Hardware) -> None:
    source = WithTraining(Load(), 0.25, 8000.0, PRUNED)
    pools = source.pools(8)
    assert [pool.servers for pool in pools][-1] == 2
    batches = [
        source.between(start, start + 400.0, pools, hardware, np.random.default_rng(1)) for start in (0.0, 7600.0)
    ]
    busy_s = []
    for batch in batches:
        ours = batch.pool == len(pools) - 1
        assert ours.sum() == 200  # two servers, an iteration each 4 s
        assert (np.diff(batch.arrive_s) >= 0.0).all()
        busy_s.append(float(hardware.prompt_time_s(batch.prompt_tokens[ours]).mean()))
    assert busy_s[0] == pytest.approx(3.0, rel=0.02)
    assert busy_s[1] / busy_s[0] == pytest.approx(PRUNED[-1], rel=0.02)


def test_a_pruned_job_draws_less_and_every_figure_and_page_says_that_it_is_hypothetical() -> None:
    _, plain = timed(ROW)
    pruned = replace(ROW, what_if=("pruned", "quicker"))
    result, figures = timed(pruned)
    assert figures["mean_frac"] < 0.97 * plain["mean_frac"]
    assert "hypothetical" not in plain
    assert figures["hypothetical"].count("hypothetical: ") == 2
    assert "hypothetical: training is pruned to 60 %" in of_row(pruned.model(), result, "no_cap")


def test_a_plan_says_what_of_it_is_hypothetical() -> None:
    answer = plan(FakeRows(), PlanOptions(seeds=1, hypothetical="hypothetical: quicker"))
    assert "hypothetical: quicker" in json.dumps(as_json(answer))
    assert "Assumed: hypothetical: quicker." in list(lines(answer))


def test_knobs_of_a_cluster_add_up() -> None:
    both = supposed(PROFILE, ("compressed", "quicker"))
    assert both.kv_tokens(8) == 1.5 * PROFILE.kv_tokens(8)
    assert both.prompt_s(Shape(8), 500) == pytest.approx(1.02 * PROFILE.prompt_s(Shape(8), 500))
    assert both.clock_s == pytest.approx(0.63 * PROFILE.clock_s)
    assert both.hypothetical.count("hypothetical: ") == 2


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (replace(ROW, what_if=("magic",)), "--what-if magic: it is none of quicker, pruned"),
        (replace(ROW, training=0.0, what_if=("pruned",)), "say --training"),
        (replace(ROW, training=1.5), "--training 1.5: it must be"),
        (replace(ROW, training=0.9), "of 4 servers none is left"),
        (ClusterOptions("dynamo", 2, week="conv", what_if=("pruned",)), "it is none of compressed, quicker"),
    ],
)
def test_knobs_that_mean_nothing_are_refused(options: SimulateOptions | ClusterOptions, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        options.model()


@pytest.mark.integration
@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("simulate cluster --system dynamo --servers 9 --week conv --hours .05 --what-if compressed", "memory x1.5"),
        ("simulate row --servers 4 --weeks .001 --training .25 --what-if pruned", "pruned"),
        ("plan --servers 38 --weeks .001 --seeds 1 --most 38 --what-if quicker", "37 % less time"),
    ],
)
def test_commands_show_it_to_people_and_to_pipes(command: str, told: str) -> None:
    for option in ([], ["--json"]):
        shown = CliRunner().invoke(app, [*command.split(), *option])
        assert shown.exit_code == 0, shown.output
        assert "hypothetical: " in shown.output
        assert told in shown.output
