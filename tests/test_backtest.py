"""Backtests: hand-made demands whose coverage, crossings and leads are known, and recordings read as live ones are."""

import asyncio
import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polcad.backtest import BacktestOptions, as_json, backtest, roll
from polcad.backtest_text import put, report
from polcad.cli import main
from polcad.curve import dynamic_frac
from polcad.demand import Demand, recorded, simulated
from polcad.errors import ConfigError, RecordingError
from polcad.judging import Alarms, Bounds, Score, Terms, coming_peaks, judge
from polcad.model import FREE, Role, Setpoint
from polcad.places import Flags, Floats
from polcad.recording import RecordingWriter
from polcad.simulate import SimulateOptions
from polcad.simulate import run as simulate
from polcad.spec import BRAKE, GuardSpec
from polcad.testing import telemetry
from polcad.wire import Address, encode
from tests.browser import browse

T0 = 1_760_000_000.0
STEP_S = 10.0
KEYS = {"recording", "forecaster", "horizon_s", "coverage", "margin_w", "mape", "pinball_w", "update_us"}
NAN = math.nan


def row(*powers_w: float, steady: list[bool] | None = None, parts: tuple[list[float], ...] = ()) -> Demand:
    columns = np.array([powers_w, *parts], dtype=float).T
    calm = np.ones(columns.shape, dtype=bool) if steady is None else np.array([steady] * columns.shape[1]).T
    domains = ("row", *(f"rack/r{place}" for place in range(len(parts))))
    t: Floats = T0 + STEP_S * np.arange(len(powers_w), dtype=np.float64)
    return Demand("row.rec", domains, STEP_S, t, columns, calm, 40.0)


def judged(
    demand: Demand, upper_w: list[float], horizon_s: float, warmup_s: float = 0.0, median_w: float = 10.0
) -> Score:
    """By a bound of the row that is also every part's, a latency of two steps, and one threshold at 30 W."""
    bounds = np.array([upper_w] * len(demand.domains)).T
    said = Bounds({horizon_s: bounds}, {horizon_s: np.full(len(upper_w), median_w)}, 7.0)
    return judge(demand, said, Terms(0.99, 2 * STEP_S, {0.75: 30.0}, warmup_s))[0]


def alarms(demand: Demand, upper_w: list[float], horizon_s: float) -> Alarms:
    return judged(demand, upper_w, horizon_s).alarms[0]


# --- judging --------------------------------------------------------------------------------------------------------

PEAK = row(10, 10, 10, 50, 10, 10, 10, 10, 10, 10)  # within two steps: foretold at 1 and at 2


def test_a_bound_is_judged_by_the_largest_demand_within_its_horizon() -> None:
    score = judged(PEAK, [20.0] * 10, 2 * STEP_S)
    assert score.judged_s == 8 * STEP_S  # the last two horizons do not end
    assert score.coverage == 6 / 8
    assert score.margin_w == pytest.approx((7 * 10 - 30) / 8)
    assert score.mape == pytest.approx(2 * 0.8 / 8)
    assert score.pinball_w == pytest.approx((2 * 0.99 * 30 + 6 * 0.01 * 10) / 8)
    assert score.update_us == 7.0


def test_a_horizon_below_a_step_speaks_of_the_next_step() -> None:
    assert judged(PEAK, [20.0] * 10, 0.5).coverage == 8 / 9
    assert judged(PEAK, [20.0] * 10, STEP_S).coverage == 8 / 9


def test_a_horizon_that_is_no_whole_number_of_steps_is_covered_by_them() -> None:
    assert judged(PEAK, [20.0] * 10, 1.5 * STEP_S).coverage == 6 / 8


def test_a_demand_just_at_the_bound_is_within_it() -> None:
    assert judged(PEAK, [50.0] * 10, STEP_S).coverage == 1.0


@pytest.mark.parametrize(
    "demand", [row(10, 10, 10, NAN, 10, 10), row(*[10] * 6, steady=[True] * 3 + [False] + [True] * 2)]
)
def test_no_horizon_with_an_unknown_or_unsteady_step_is_judged(demand: Demand) -> None:
    assert judged(demand, [20.0] * 6, STEP_S).judged_s == 3 * STEP_S  # at 0, 1 and 4


def test_the_worst_part_is_told() -> None:
    demand = row(*[10] * 6, parts=([10] * 6, [10, 10, 30, 10, 10, 10]))
    score = judged(demand, [20.0] * 6, STEP_S)
    assert (score.coverage, score.coverage_worst) == (1.0, 4 / 5)


def test_neither_the_warm_up_nor_a_cold_forecaster_is_judged() -> None:
    score = judged(PEAK, [NAN] * 2 + [20.0] * 8, STEP_S, warmup_s=3 * STEP_S)
    assert (score.cold_s, score.judged_s) == (2 * STEP_S, 6 * STEP_S)
    assert score.coverage == 1.0  # the peak was foretold at step 2


def test_what_is_never_judged_has_no_figures() -> None:
    score = judged(PEAK, [20.0] * 10, 100 * STEP_S)
    assert (score.coverage, score.margin_w, score.mape, score.pinball_w, score.lead_s) == (None,) * 5
    assert (score.judged_s, score.missed, score.needless) == (0.0, 0, 0)


def test_a_recording_of_less_than_four_hundred_horizons_is_too_short_to_tell() -> None:
    long = row(*[10] * 800)
    assert judged(long, [20.0] * 800, 2 * STEP_S).long_enough
    assert not judged(long, [20.0] * 800, 3 * STEP_S).long_enough


@given(st.lists(st.floats(0, 1e6) | st.just(NAN), min_size=1, max_size=40), st.integers(1, 45))
def test_coming_peaks_are_the_largest_of_the_next_steps(values: list[float], steps: int) -> None:
    ahead = [values[place + 1 : place + 1 + steps] for place in range(len(values))]
    expected = [float(np.max(each)) if len(each) == steps else NAN for each in ahead]
    assert np.array_equal(coming_peaks(np.array(values), steps), expected, equal_nan=True)


# --- crossings ------------------------------------------------------------------------------------------------------

CROSSING = row(*[10] * 6, *[50] * 4, *[10] * 6)


@pytest.mark.parametrize(
    ("first", "lead", "missed"),
    [(1, 3, 0), (3, 3, 0), (4, 2, 0), (5, 1, 1), (6, 0, 1)],
)
def test_a_crossing_is_announced_a_latency_before_or_missed(first: int, lead: int, missed: int) -> None:
    upper_w = [20.0] * first + [40.0] * (16 - first)
    found = alarms(CROSSING, upper_w, 3 * STEP_S)
    assert (found.crossings, found.missed, found.lead_s) == (1, missed, lead * STEP_S)


def test_a_horizon_shorter_than_the_latency_need_announce_only_what_it_speaks_of() -> None:
    found = alarms(CROSSING, [20.0] * 5 + [40.0] * 11, STEP_S)
    assert (found.crossings, found.missed, found.lead_s) == (1, 0, STEP_S)


def test_coming_back_within_a_latency_is_no_second_crossing() -> None:
    demand = row(*[10] * 6, 50, 10, 50, 10, 10, 50, *[10] * 4)
    assert alarms(demand, [40.0] * 16, 3 * STEP_S).crossings == 2


def test_a_rise_out_of_the_unknown_is_no_crossing() -> None:
    demand = row(*[10] * 6, NAN, 50, 50, *[10] * 7)
    assert alarms(demand, [40.0] * 16, 3 * STEP_S).crossings == 0


def test_an_alarm_before_the_last_crossing_announces_no_later_one() -> None:
    demand = row(*[10] * 6, 50, *[10] * 3, 50, *[10] * 5)
    upper_w = [20.0] * 4 + [40.0] * 2 + [20.0] * 10
    found = alarms(demand, upper_w, 6 * STEP_S)
    assert (found.crossings, found.missed) == (2, 1)


def test_a_claim_stands_for_its_horizon_and_is_needless_if_nothing_follows() -> None:
    calm = row(*[10] * 13)
    assert alarms(calm, [40.0] * 13, 4 * STEP_S).needless == 3  # at 0, 4 and 8; the last ends with the recording
    assert alarms(calm, [20.0] * 13, 4 * STEP_S).needless == 0
    assert alarms(CROSSING, [20.0] * 4 + [40.0] * 6 + [20.0] * 6, 4 * STEP_S).needless == 0


# --- rolling --------------------------------------------------------------------------------------------------------


@dataclass
class Knowing:
    """A forecaster whose bound is the last value and what a lesson taught it: the length of what it has seen."""

    domains: int = 1
    step_s: float = STEP_S
    horizons_s: tuple[float, ...] = (STEP_S,)
    quantiles: tuple[float, ...] = (0.5, 0.99)
    lessons: bool = True
    seen: list[float] = field(default_factory=list)
    taught: float = 0.0

    def observe(self, t: float, demand_w: Floats, steady: Flags) -> None:
        assert t == T0 + STEP_S * len(self.seen)
        assert steady.shape == demand_w.shape == (self.domains,)
        self.seen.append(float(demand_w[0]))

    def upper(self, horizon_s: float, q: float) -> Floats:
        assert horizon_s in self.horizons_s
        return np.full(self.domains, self.seen[-1] + self.taught + (q > 0.5))

    def lesson(self, t: float) -> Callable[[], float] | None:
        assert t == T0 + STEP_S * (len(self.seen) - 1)
        if len(self.seen) == 2:
            return partial(float, "a lesson that fails")
        return partial(float, len(self.seen)) if len(self.seen) == 3 else None

    def learn(self, result: float) -> None:
        self.taught = result


def test_a_bound_knows_the_past_alone_and_lessons_are_held_at_once() -> None:
    said = roll(Knowing(), row(1, 2, 3, 4, 5), BacktestOptions(("any",), (STEP_S,)))
    assert said.upper_w[STEP_S][:, 0].tolist() == [2, 3, 4, 8, 9]  # taught 3 after the third step
    assert said.median_w[STEP_S].tolist() == [1, 2, 3, 7, 8]


def test_the_cost_of_an_update_is_that_of_observing_and_bounding() -> None:
    seconds = iter(range(100))
    said = roll(Knowing(), row(1, 2, 3), BacktestOptions(("any",), (STEP_S,)), stopwatch=lambda: float(next(seconds)))
    assert said.update_us == 1e6


def test_the_largest_rise_is_kept_for_the_page() -> None:
    powers_w = [10.0] * 2000
    powers_w[100] = 90.0  # in the warm-up
    powers_w[1500] = 50.0
    result = backtest(row(*powers_w), BacktestOptions(("persistence",), (STEP_S, 4 * STEP_S)))
    assert result.excerpt.horizon_s == 4 * STEP_S
    assert result.excerpt.demand_w.max() == 50.0
    assert len(result.excerpt.upper_w["persistence"]) == len(result.excerpt.t) == 600


def test_forecasters_stand_side_by_side_and_two_runs_differ_in_cost_alone() -> None:
    rng = np.random.default_rng(1)
    demand = row(*rng.gamma(4.0, 5.0, 1200).tolist())
    options = BacktestOptions(("persistence", "persistence_q"), (STEP_S, 4 * STEP_S))
    runs = [[{**each, "update_us": 0} for each in as_json(backtest(demand, options))] for _ in range(2)]
    assert runs[0] == runs[1]
    plain, quantile = runs[0][1], runs[0][3]
    assert (plain["forecaster"], quantile["forecaster"]) == ("persistence", "persistence_q")
    assert plain["horizon_s"] == quantile["horizon_s"] == 40.0
    assert 0.97 < quantile["coverage"] < plain["coverage"]
    assert 0 < quantile["margin_w"] < plain["margin_w"]


def test_a_budget_that_nobody_said_is_exceeded_for_a_hundredth_of_the_time() -> None:
    demand = row(*range(1, 1001))
    unsaid = replace(demand, budget_w=None)
    options = BacktestOptions(("persistence",), (STEP_S,))
    assert backtest(unsaid, options).budget_w == pytest.approx(990, abs=1)
    assert backtest(demand, options).budget_w == 40.0
    assert backtest(demand, BacktestOptions(("persistence",), (STEP_S,), budget_w=7.0)).budget_w == 7.0


@pytest.mark.parametrize(
    "options",
    [
        {"forecasters": ()},
        {"forecasters": ("persistence", "persistence")},
        {"horizons_s": ()},
        {"horizons_s": (0.0,)},
        {"horizons_s": (-1.0,)},
        {"horizons_s": (NAN,)},
        {"horizons_s": (math.inf,)},
        {"horizons_s": (2.0, 2.0)},
        {"q": 0.5},
        {"q": 1.0},
        {"q": NAN},
        {"thresholds": (0.0,)},
        {"latency_s": 0.0},
        {"budget_w": 0.0},
        {"budget_w": NAN},
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        BacktestOptions(**({"forecasters": ("persistence",)} | options))


def test_a_row_that_is_never_known_is_refused() -> None:
    with pytest.raises(ConfigError, match="never known"):
        backtest(row(NAN, NAN), BacktestOptions(("persistence",)))


# --- recordings -----------------------------------------------------------------------------------------------------


def recording(
    path: Path, message: Callable[[str, int], Any], seconds: int = 60, racks: tuple[str, ...] = ("a", "b")
) -> Path:
    """Two nodes that speak each second; `message` gives what a node says at a second, or None."""
    with RecordingWriter(path, {"budget_w": "5000"}) as writer:
        for second in range(seconds):
            for node, rack in zip(("n0", "n1"), racks, strict=True):
                said = message(node, second)
                if said is not None:
                    writer.add(T0 + second, encode(Address("site", "row", "telemetry", rack, node), said))
    return path


def test_demand_is_on_the_grid_of_the_nodes_period_by_rack(tmp_path: Path) -> None:
    path = recording(tmp_path / "r", lambda node, second: telemetry(node, 100.0 + second, gpus=2))
    demand = recorded(path)
    assert demand.domains == ("row", "rack/a", "rack/b")
    assert (demand.step_s, demand.budget_w) == (1.0, 5000.0)
    assert np.diff(demand.t) == pytest.approx(1.0)
    assert np.diff(demand.demand_w[:, 0]) == pytest.approx(4.0)  # no reading is seen twice, none is lost
    assert demand.demand_w[:, 1:].sum(axis=1) == pytest.approx(demand.demand_w[:, 0])
    assert demand.steady[1:].all()  # before the first, both nodes were new


def test_nodes_of_one_rack_are_parts_of_their_own(tmp_path: Path) -> None:
    path = recording(tmp_path / "r", lambda node, _: telemetry(node, 200.0, gpus=1), racks=("a", "a"))
    assert recorded(path).domains == ("row", "node/n0", "node/n1")


def test_a_row_of_one_node_has_no_parts(tmp_path: Path) -> None:
    path = recording(tmp_path / "r", lambda node, _: telemetry(node, 200.0) if node == "n0" else None)
    assert recorded(path).domains == ("row",)


def test_a_silent_node_makes_its_sums_unknown(tmp_path: Path) -> None:
    def message(node: str, second: int) -> Any:
        return None if node == "n1" and 20 <= second < 40 else telemetry(node, 200.0, gpus=1)

    demand = recorded(recording(tmp_path / "r", message))
    unknown = np.isnan(demand.demand_w)
    assert not unknown[:, 1].any()
    assert unknown[:, 2].tolist() == unknown[:, 0].tolist()
    assert 16 <= unknown[:, 0].sum() <= 18  # after three periods
    assert np.nanmax(demand.demand_w[:, 0]) == 400.0  # its worst case is no demand


def test_demand_is_what_would_be_drawn_without_the_lock(tmp_path: Path) -> None:
    idle_w, lock = GuardSpec().idle_frac * 700.0, Setpoint(0.787)
    locked_w = idle_w + (500.0 - idle_w) * dynamic_frac(Role.MIXED, lock.clock_frac)

    def message(node: str, second: int) -> Any:
        locked = second >= 30
        return telemetry(node, locked_w if locked else 500.0, gpus=1, setpoint=lock if locked else FREE)

    demand = recorded(recording(tmp_path / "r", message))
    assert demand.demand_w[:, 0] == pytest.approx(1000.0)
    assert np.flatnonzero(~demand.steady[1:, 0]).size == 1


def test_under_a_brake_nothing_is_steady(tmp_path: Path) -> None:
    path = recording(tmp_path / "r", lambda node, _: telemetry(node, 200.0, gpus=1, setpoint=BRAKE))
    assert not recorded(path).steady.any()


def test_a_recording_without_telemetry_or_too_short_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="no telemetry"):
        recorded(recording(tmp_path / "empty", lambda _node, _second: None))
    with pytest.raises(ConfigError, match="nothing to judge"):
        recorded(recording(tmp_path / "short", lambda node, _: telemetry(node, 200.0), seconds=2))


@pytest.mark.integration  # a row takes seconds
def test_a_simulated_row_and_its_recording_have_the_same_demand(tmp_path: Path) -> None:
    options = SimulateOptions(8, weeks=0.003, policy="no_cap", record=tmp_path / "sim.rec")
    direct = simulated(options)
    simulate(options)
    read = recorded(tmp_path / "sim.rec")
    assert direct.domains == read.domains == ("row", *(f"rack/rack-{rack}" for rack in range(4)))
    assert direct.budget_w == read.budget_w
    assert direct.step_s == read.step_s == 2.0
    by_t = dict(zip(direct.t.tolist(), direct.demand_w, strict=True))
    both = [
        (by_t[t - 1.0], power_w) for t, power_w in zip(read.t.tolist(), read.demand_w, strict=True) if t - 1.0 in by_t
    ]
    assert len(both) > 200
    for direct_w, read_w in both:
        assert read_w == pytest.approx(direct_w)


# --- the command ----------------------------------------------------------------------------------------------------


@pytest.fixture
def polcad(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["polcad", "backtest", *map(str, words)])
        try:
            main()
            code: Any = 0
        except SystemExit as end:
            code = end.code
        captured = capsys.readouterr()
        return int(code or 0), captured.out, captured.err

    return run


@pytest.fixture(scope="module")
def bursty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(2)
    powers_w = rng.uniform(200, 600, (2, 450))
    return recording(
        tmp_path_factory.mktemp("backtest") / "bursty.rec",
        lambda node, second: telemetry(node, float(powers_w[int(node == "n1"), second]), gpus=1),
        seconds=450,
    )


def test_the_figures_are_one_json_list_with_an_object_a_forecaster_and_horizon(
    polcad: Callable[..., tuple[int, str, str]], bursty: Path
) -> None:
    code, out, _ = polcad(bursty, "-f", "persistence", "-f", "persistence_q", "--horizons", "0.5,3,1000", "--json")
    assert code == 0
    found = json.loads(out)
    assert [(each["forecaster"], each["horizon_s"]) for each in found] == [
        (name, horizon_s) for name in ("persistence", "persistence_q") for horizon_s in (0.5, 3.0, 1000.0)
    ]
    assert all({*each} > KEYS for each in found)
    assert found[0]["recording"] == str(bursty)
    assert 0.9 < found[0]["coverage"] <= 1.0
    assert [each["long_enough"] for each in found[:3]] == [True, False, False]
    assert found[2]["coverage"] is None


def test_a_table_a_page_and_a_document_tell_the_same(
    polcad: Callable[..., tuple[int, str, str]], bursty: Path, tmp_path: Path
) -> None:
    document, page = tmp_path / "doc.md", tmp_path / "page.html"
    document.write_text("# Mine\n")
    words = (bursty, "-f", "persistence", "--horizons", "1,3", "--out", document, "--report", page)
    code, out, _ = polcad(*words)
    assert code == 0
    assert "persistence" in out
    assert "bursty.rec" in page.read_text()
    assert polcad(*words)[0] == 0
    text = document.read_text()
    assert text.startswith("# Mine\n")
    assert text.count("### bursty.rec") == 1
    assert text.count("| persistence | ") == 2


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        ((), 2, "name a recording, or --servers"),
        (("/no/such/file",), 1, "cannot be read"),
        (("{bursty}", "-f", "oracle"), 78, "'oracle' is not among the installed forecasters"),
        (("{bursty}", "--horizons", "soon"), 78, "--horizons 'soon'"),
        (("{bursty}", "--horizons", ""), 78, "--horizons ''"),
        (("{bursty}", "--horizons", "nan"), 78, "--horizons nan"),
        (("{bursty}", "--horizons", "0"), 78, "--horizons 0"),
        (("{bursty}", "--thresholds", "0.8;0.9"), 78, "--thresholds"),
        (("{bursty}", "--row", "other"), 1, "telemetry"),
        (("{bursty}", "--report", "/no/such/folder/page"), 78, "cannot be written"),
        (("--servers", "0"), 78, "at least 1"),
    ],
)
def test_what_means_nothing_is_told_in_a_line_with_its_exit_code(
    polcad: Callable[..., tuple[int, str, str]], bursty: Path, words: tuple[str, ...], code: int, told: str
) -> None:
    ran = polcad(*(word.format(bursty=bursty) for word in words))
    assert ran[0] == code
    assert told in ran[2]
    assert "Traceback" not in ran[2]


@pytest.mark.integration  # a row takes seconds
def test_a_simulated_row_is_judged_for_each_seed(polcad: Callable[..., tuple[int, str, str]]) -> None:
    code, out, _ = polcad(
        *("--servers", 4, "--weeks", 0.003, "--seed", 1, "--seed", 2, "-f", "persistence", "--horizons", "2", "--json")
    )
    assert code == 0
    found = json.loads(out)
    assert [each["recording"] for each in found] == [
        f"simulated 4 servers, seed {seed}, 0.003 weeks" for seed in (1, 2)
    ]
    assert {each["parts"] for each in found} == {4}


def test_a_table_replaces_the_older_one_of_its_recording_where_it_stands() -> None:
    options = BacktestOptions(("persistence",), (STEP_S,))
    first, second = (backtest(row(*powers_w), options) for powers_w in ([10.0] * 50, [10.0, 20.0] * 50))
    document = put("before\n", [first]) + "after\n"
    assert document.index("before") < document.index("### row.rec") < document.index("after")
    again = put(document, [second])
    assert again.count("### row.rec") == 1
    assert again.index("### row.rec") < again.index("after")
    assert again != document


def test_the_page_is_the_same_for_the_same_results() -> None:
    result = backtest(row(*[10.0, 20.0] * 100), BacktestOptions(("persistence",), (STEP_S, 2 * STEP_S)))
    assert report([result]) == report([result])


@pytest.mark.integration  # needs Chromium
def test_the_page_is_drawn_without_a_complaint(tmp_path: Path) -> None:
    result = backtest(row(*[10.0, 20.0] * 100), BacktestOptions(("persistence",), (STEP_S, 2 * STEP_S, 1e4)))
    (tmp_path / "page.html").write_text(report([result]), encoding="utf-8")

    async def look() -> None:
        async with browse(tmp_path / "profile", f"file://{tmp_path}/page.html") as page:
            await page.until("document.querySelectorAll('canvas').length === 3")
            assert page.errors == []

    asyncio.run(look())
