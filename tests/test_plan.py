"""Planning: from the simulated row, and from recordings."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from polcad.errors import ConfigError
from polcad.model import Placement, Priority
from polcad.plan import Answer, PlanOptions, Slo, as_json, plan
from polcad.plan_rows import SimulatedRows, recorded_rows
from polcad.plan_text import lines, report
from polcad.ports import Policy
from polcad.recording import RecordingWriter
from polcad.sim.actuation import OUT_OF_BAND
from polcad.sim.composed import Composed, Recorded
from polcad.sim.profiles import DGX_A100
from polcad.sim.requests import Pool
from polcad.simulate import SimulateOptions
from polcad.simulate import run as simulate
from polcad.spec import GuardSpec
from policies.baselines import NoCap
from policies.polca import Polca
from policies.three_band import ThreeBand

pytestmark = pytest.mark.integration  # rows take seconds

KEPT = {f"{name}_slowdown": 0.0 for name in ("high_p50", "high_p99", "low_p50", "low_p99")}


@dataclass(slots=True)
class FakeRows:
    """Rows that draw a fortieth of the budget a server, and brake above it."""

    servers: int = 38
    budget_w: float = 1000.0
    judged_days: float = 7.0
    judged: list[int] = field(default_factory=list)

    def rise_frac(self, latency_s: float) -> float:
        assert latency_s == 40.0
        return 0.15

    def judge(self, servers: int, policy: Policy, seed: int) -> Mapping[str, float]:
        assert policy.thresholds
        self.judged.append(seed)
        peak_frac = servers / 40
        return {**KEPT, "peak_frac": peak_frac, "brakes": float(peak_frac > 1), "capped_hours_low": 1.0}

    def assumptions(self) -> tuple[str, ...]:
        return ("<b>nothing</b>",)


@pytest.fixture(scope="module")
def answer() -> Answer:
    return plan(FakeRows(), PlanOptions(seeds=3))


def recorded(gpu_frac: float = 0.8, steps: int = 400, servers: int = 4) -> Recorded:
    """Servers, half of each priority, at one level but for an idle first tenth."""
    gpu_w = np.full((servers, steps), gpu_frac * 3200.0)
    pools = tuple(Pool(name.value, servers // 2, Placement(name)) for name in Priority)
    return Recorded(gpu_w, np.full((servers, steps), 1500.0), pools, 2.0, DGX_A100)


def judged(row: Recorded, servers: int, budget_w: float, policy: Policy) -> Mapping[str, float]:
    return Composed(row, servers, budget_w, OUT_OF_BAND, 1).run(policy, GuardSpec(tick_s=2.0, latency_s=40.0))


def test_sizes_are_tried_upwards_until_one_fails(answer: Answer) -> None:
    assert [(size.servers, size.broken) for size in answer.sizes] == [(38, ""), (40, ""), (42, "1 brakes")]
    assert answer.fits is answer.sizes[1]
    assert answer.brakes_a_week == pytest.approx(3.0 / 3)


def test_thresholds_leave_room_for_the_rise_that_was_seen(answer: Answer) -> None:
    assert answer.sizes[0].thresholds == pytest.approx({"t1": 0.76, "t2": 0.85})
    assert answer.sizes[1].thresholds["t2"] == pytest.approx(1 - 0.15 * 40 / 38)


def test_a_size_that_failed_once_is_not_tried_with_more_seeds() -> None:
    rows = FakeRows(servers=42)
    assert plan(rows, PlanOptions(seeds=3)).fits is None
    assert rows.judged == [1]


def test_the_answer_is_said_in_words_in_json_and_on_a_page(answer: Answer) -> None:
    text = "\n".join(lines(answer))
    assert "40 servers fit, 2 more than now" in text
    assert "42 do not: 1 brakes" in text
    assert as_json(answer)["added"] == 2
    shown = report(answer)
    assert "40 servers fit" in shown
    assert "<b>nothing" not in shown
    assert report(answer) == shown


@pytest.mark.parametrize("text", ["1,5,5", "a,b,c,d", "1,5,5,-1", "nan,1,1,1"])
def test_slos_that_mean_nothing_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--slo"):
        Slo.parse(text)


def test_slos_are_per_cent() -> None:
    assert Slo.parse("1,5,5,50") == Slo()


@pytest.mark.parametrize("options", [{"seeds": 0}, {"step": 0}, {"margin": 0.5}, {"margin": float("nan")}])
def test_options_that_mean_nothing_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        PlanOptions(**options)  # type: ignore[arg-type]  # one of them


def test_a_composed_row_draws_what_its_servers_drew() -> None:
    figures = judged(recorded(), 6, 1e6, NoCap())
    assert figures["peak_frac"] == pytest.approx(6 * (0.8 * 3200 + 1500) / 1e6)
    assert figures["brakes"] == 0
    assert figures["low_p99_slowdown"] == 0


def test_a_composed_row_is_locked_and_slowed_like_its_clocks() -> None:
    full_w = 4 * (0.8 * 3200 + 1500)
    figures = judged(recorded(), 4, full_w / 0.85, Polca())
    assert figures["low_p50_slowdown"] == pytest.approx(0.040, abs=0.005)  # 1275 MHz, mixed phases
    assert figures["high_p50_slowdown"] == 0
    assert figures["capped_hours_low"] > 0.15
    assert figures["mean_frac"] < 0.85


def test_a_composed_row_brakes_where_nothing_else_holds_it() -> None:
    assert judged(recorded(), 6, 4.2 * (0.8 * 3200 + 1500), NoCap())["brakes"] >= 1


def test_policies_that_limit_power_are_refused_for_recordings() -> None:
    with pytest.raises(ConfigError, match="power limit"):
        judged(recorded(), 4, 4 * (0.8 * 3200 + 1500) / 0.995, ThreeBand())


def test_a_recording_of_a_capped_row_says_so(tmp_path: Path) -> None:
    path = tmp_path / "capped.rec"
    options = SimulateOptions(6, weeks=200 / 604_800, policy="polca", record=path, budget_w=20_000.0)
    simulate(options)
    rows = recorded_rows(path, None, DGX_A100, OUT_OF_BAND)
    assert rows.capped_share > 0.3


def test_a_recording_without_a_budget_or_too_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "short.rec"
    simulate(SimulateOptions(2, weeks=60 / 604_800, policy="no_cap", record=path, budget_w=20_000.0))
    with pytest.raises(ConfigError, match="too few"):
        recorded_rows(path, None, DGX_A100, OUT_OF_BAND)
    bare = tmp_path / "bare.rec"
    with RecordingWriter(bare, {"made_by": "polcad record"}):
        pass
    with pytest.raises(ConfigError, match="--budget-w"):
        recorded_rows(bare, None, DGX_A100, OUT_OF_BAND)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plan") / "row.rec"
    simulate(SimulateOptions(6, weeks=600 / 604_800, policy="no_cap", record=path, budget_w=39_000.0))
    return path


def test_a_recording_gives_its_servers_priorities_and_budget(recording: Path) -> None:
    rows = recorded_rows(recording, None, DGX_A100, OUT_OF_BAND)
    assert (rows.servers, rows.budget_w) == (6, 39_000.0)
    assert {pool.placement.priority for pool in rows.recorded.pools} == set(Priority)
    assert rows.judge(7, Polca(), 1) == rows.judge(7, Polca(), 1)
    assert 0 < rows.rise_frac(40.0) < 1
    assert "was capped in 0.0% of its messages" in rows.assumptions()[2]


def test_a_stretch_of_a_recording_is_that_stretch() -> None:
    whole = recorded(steps=300)
    assert whole.part(1 / 3, 1.0).steps == 200
    assert replace(whole, period_s=1.0).servers == 4


@pytest.mark.integration
def test_a_simulated_row_is_planned_from_end_to_end() -> None:
    rows = SimulatedRows(SimulateOptions(8, weeks=0.01, policy="polca", budget_w=8 * 6500.0), 8)
    found = plan(rows, PlanOptions(seeds=1, most=9, step=1))
    assert found.fits is not None
    assert 0 < found.rise_frac < 0.5
