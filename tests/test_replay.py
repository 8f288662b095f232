"""Replays: the same recording makes the same words, time is the recording's, and silence is played as silence."""

import asyncio
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from collectors.replay import ReplayCollector
from polcad.errors import ConfigError, RecordingError
from polcad.importers import ImportOptions, import_log
from polcad.model import Gpus, NodePlacement, Obedience, Placement, Priority, Reading, Telemetry
from polcad.playback import Playback, node_readings
from polcad.ports import Collector, Heard, Placed, Tick
from polcad.recording import RecordingWriter, read
from polcad.replay import ReplayOptions, ReplaySummary, replay, run
from polcad.wire import Address, Message, encode

pytestmark = pytest.mark.integration  # whole recordings and logs

DATA = Path(__file__).parents[2] / "shared" / "data"
START_T = 1_700_000_000.0


def reading(*power_w: float | None, max_w: float = 400.0) -> Reading:
    n = len(power_w)
    return Reading(Gpus(tuple(f"GPU-{index}" for index in range(n)), power_w, (max_w,) * n))


def telemetry(seq: int, power_w: float | None, node: str = "n1", row: str = "r") -> Message:
    noun = Telemetry(node, "boot", seq, START_T + seq, 1.0, reading(power_w, power_w), plan=Obedience(7, 7))
    return encode(Address("s", row, "telemetry", "k1", node), noun)


@pytest.fixture
def recorded(tmp_path: Path) -> Any:
    def recorded(entries: Iterable[tuple[float, Message]]) -> Path:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.rec"
        with RecordingWriter(path) as writer:
            for after_s, message in entries:
                writer.add(START_T + after_s, message)
        return path

    return recorded


@pytest.fixture
def climb(recorded: Any) -> Path:
    """Two GPUs that climb from 60 to 110 % of a budget of 700 W over fifty seconds, then fall silent for ten."""
    powers = [350.0 * (0.6 + 0.01 * second) for second in range(51)]
    entries = [(float(second), telemetry(second, power_w)) for second, power_w in enumerate(powers)]
    return recorded([*entries, (61.0, telemetry(61, 200.0))])  # type: ignore[no-any-return]  # a fixture's function


def playback(path: Path, tick_s: float = 1.0) -> Playback:
    return Playback(read(path), None, tick_s)


def test_a_climb_goes_through_t1_and_t2_to_the_brake_and_a_gap_grows_stale(climb: Path, tmp_path: Path) -> None:
    summary = asyncio.run(run(ReplayOptions(climb, 700.0, plans=tmp_path / "lines")))
    assert (summary.t1_entries, summary.t2_entries, summary.brakes) == (1, 1, 1)
    assert (summary.samples, summary.telemetry, summary.gaps) == (104, 52, 1)
    assert (summary.nodes, summary.gpus, summary.seconds) == (1, 2, 61.0)
    assert summary.peak_measured_frac == pytest.approx(1.1)
    assert summary.peak_frac == pytest.approx(800 / 700)
    lines = [json.loads(line) for line in (tmp_path / "lines").read_text().splitlines()]
    plans = [line["plan"] for line in lines if "plan" in line]
    assert len({json.dumps(plan["rules"]) for plan in plans[:4]}) == 4
    assert summary.plans == len(plans) - 1  # the first one, empty, changes nothing
    stale = [line["event"] for line in lines if line.get("event", {}).get("kind") == "stale"]
    assert [(event["scope"], event["t"] - START_T) for event in stale] == [("node/n1", 54.0)]


def test_two_replays_of_one_recording_are_byte_equal(climb: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        asyncio.run(run(ReplayOptions(climb, 700.0, plans=tmp_path / name)))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes() != b""


def test_ticks_fall_on_recorded_time_and_go_on_through_gaps(recorded: Any) -> None:
    events = list(playback(recorded([(0.0, telemetry(0, 1.0)), (3.2, telemetry(1, 1.0))])).events())
    told = [(type(event), event.t - START_T) for event in events]
    assert told == [(Heard, 0.0), (Tick, 1.0), (Tick, 2.0), (Tick, 3.0), (Heard, pytest.approx(3.2)), (Tick, 4.0)]


def test_what_nodes_followed_then_is_not_asked_of_them_now(recorded: Any) -> None:
    heard = next(iter(playback(recorded([(0.0, telemetry(0, 1.0))])).events()))
    assert isinstance(heard, Heard)
    assert (heard.telemetry.plan, heard.rack) == (None, "k1")


def test_a_placement_recorded_before_its_node_counts_from_its_first_word(recorded: Any) -> None:
    placement = NodePlacement("n1", Placement(Priority.HIGH))
    message = encode(Address("s", "r", "placement", "k1", "n1"), placement)
    path = recorded([(0.0, message), (1.0, telemetry(0, 1.0)), (2.0, message)])
    events = [event for event in playback(path).events() if not isinstance(event, Tick)]
    assert [type(event) for event in events] == [Heard, Placed, Placed]


@pytest.mark.parametrize(("jump_s", "jumps"), [(-3600.0, 1), (10 * 86_400.0, 1), (-0.5, 0)])
def test_a_recorder_whose_clock_jumped_neither_stops_nor_floods_the_replay(
    recorded: Any, jump_s: float, jumps: int
) -> None:
    times = [1e6, 1e6 + 1, 1e6 + 2, *(1e6 + jump_s + after_s for after_s in (3, 4, 5))]
    played = playback(recorded((t, telemetry(seq, 1.0)) for seq, t in enumerate(times)))
    events = list(played.events())
    assert [event.t for event in events] == sorted(event.t for event in events)
    assert played.jumps == jumps
    assert 4 <= sum(isinstance(event, Tick) for event in events) <= 6


def test_what_cannot_be_believed_is_counted_and_left_out(recorded: Any) -> None:
    bad = Message("polcad/v1/s/r/k1/n1/telemetry", b'{"node":"n2"}')
    other = Message("somebody/else", b"")
    summary = asyncio.run(run(ReplayOptions(recorded([(0, telemetry(0, 100.0)), (1, bad), (2, other)]), 700.0)))
    assert (summary.refused, summary.telemetry) == (2, 1)


def test_a_recording_of_two_rows_asks_which(recorded: Any) -> None:
    path = recorded([(0.0, telemetry(0, 100.0)), (1.0, telemetry(0, 100.0, "n2", "r2"))])
    with pytest.raises(RecordingError, match="holds the rows r and r2: name one with --row"):
        asyncio.run(run(ReplayOptions(path, 700.0)))
    assert asyncio.run(run(ReplayOptions(path, 700.0, row="r2"))).nodes == 1
    assert list(node_readings(path, "r2")) == ["n2"]


def test_unknown_power_is_no_sample_and_no_fall(recorded: Any) -> None:
    path = recorded([(0.0, telemetry(0, 300.0)), (1.0, telemetry(1, None)), (2.0, telemetry(2, 100.0))])
    summary = asyncio.run(run(ReplayOptions(path, 600.0)))
    assert summary.samples == 4
    assert summary.peak_measured_frac == 1.0


def test_a_torn_recording_is_replayed_and_said_to_be_torn(climb: Path) -> None:
    climb.write_bytes(climb.read_bytes()[:-10])
    summary = asyncio.run(run(ReplayOptions(climb, 700.0)))
    assert "torn end" in summary.lost
    assert summary.telemetry > 40


@pytest.mark.parametrize(("wrong", "expected"), [({"budget_w": 0.0}, "budget-w 0"), ({"speed": -1.0}, "speed -1")])
def test_options_that_mean_nothing_are_refused(wrong: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        ReplayOptions(**{"path": Path("a"), "budget_w": 1.0, **wrong})


def test_an_empty_recording_and_an_unknown_policy_are_told(recorded: Any, climb: Path) -> None:
    with pytest.raises(RecordingError, match="holds no telemetry"):
        asyncio.run(run(ReplayOptions(recorded([]), 700.0)))
    with pytest.raises(ConfigError, match="'best' is not among the installed policies"):
        asyncio.run(run(ReplayOptions(climb, 700.0, policy="best")))
    with pytest.raises(ConfigError, match=r"--plans .* cannot be written"):
        asyncio.run(run(ReplayOptions(climb, 700.0, plans=Path("/nowhere/plans"))))


def test_a_speed_paces_the_replay_by_its_clock(climb: Path) -> None:
    class Waits:
        def __init__(self) -> None:
            self.until: list[float] = []

        def now(self) -> float:
            return 50.0

        async def sleep_until(self, t: float) -> None:
            self.until.append(t)

    waits = Waits()
    paced = asyncio.run(run(ReplayOptions(climb, 700.0, speed=10.0), clock=waits))
    assert waits.until[0] == 50.0
    assert waits.until[-1] == pytest.approx(50.0 + 6.2)
    assert paced == asyncio.run(run(ReplayOptions(climb, 700.0)))


def test_json_is_one_object_and_the_table_is_for_people(climb: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = replay(ReplayOptions(climb, 700.0), as_json=True)
    printed = json.loads(capsys.readouterr().out)
    assert ReplaySummary(**printed) == summary
    assert list(printed)[:7] == ["samples", "gaps", "plans", "t1_entries", "t2_entries", "brakes", "peak_frac"]
    replay(ReplayOptions(climb, 700.0, plans=Path("-")))
    out, err = capsys.readouterr()
    assert all(json.loads(line) for line in out.splitlines())
    assert "T1 1, T2 1, brakes 1" in err


def test_a_played_node_says_what_was_recorded_and_is_silent_where_it_was() -> None:
    played = [(100.0, reading(1.0)), (101.0, reading(2.0)), (102.0, reading(3.0)), (110.0, reading(4.0))]
    collector: Collector = ReplayCollector({"readings": played, "start_t": 99.0, "speed": 2.0, "deadline_s": 0.5})

    def at(recorded_t: float) -> tuple[float | None, str | None]:
        gpus = collector.read(5000.0 + (recorded_t - 99.0) / 2).gpus
        return gpus.power_w[0], gpus.fault[0] if gpus.fault else None

    assert at(99.0) == (None, "the recording has not begun for this node")
    assert [at(t)[0] for t in (100.0, 100.5, 101.0, 104.9)] == [1.0, 1.0, 2.0, 3.0]
    assert at(106.0) == (None, "a gap in the recording")
    assert at(110.9) == (4.0, None)
    assert at(111.5) == (None, "recording ended")
    assert collector.read(9999.0).gpus.max_w == (400.0,)


@pytest.mark.parametrize(
    "options", [{}, {"readings": []}, {"readings": [(1.0, reading(1.0))], "speed": 0}, {"file": 1}]
)
def test_a_played_node_refuses_options_that_mean_nothing(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="collector replay"):
        ReplayCollector(options)


def test_node_readings_feed_the_collector(climb: Path) -> None:
    readings = node_readings(climb)["n1"]
    collector = ReplayCollector({"readings": readings})
    assert collector.read(7.0) == readings[0][1]
    assert collector.read(57.2) == readings[50][1]


@pytest.mark.skipif(not DATA.exists(), reason="the public sample logs are not here")
def test_the_public_training_log_brakes_a_budget_it_passes_and_its_gap_counts_the_worst(tmp_path: Path) -> None:
    log = DATA / "nanogpt_training" / "gpu_metrics_32fcbd7a.csv.gz"
    import_log("gpu-csv", log, ImportOptions(out=tmp_path / "a.rec", gpu_max_w=700.0))
    summary = asyncio.run(run(ReplayOptions(tmp_path / "a.rec", 2900.0)))
    assert summary.samples == 12576
    assert summary.brakes > 0
    assert summary.peak_measured_frac == pytest.approx(1.095, abs=0.001)
    assert summary.peak_frac == pytest.approx(5600 / 2900)


@pytest.mark.integration
@pytest.mark.skipif(not DATA.exists(), reason="the public sample logs are not here")
def test_fifteen_hours_of_two_nodes_by_their_bmcs_are_replayed_alike_twice(tmp_path: Path) -> None:
    import_log("bmc-csv", DATA / "cisco_h200" / "power_log_shared.csv.gz", ImportOptions(out=tmp_path / "a.rec"))
    summaries = [asyncio.run(run(ReplayOptions(tmp_path / "a.rec", 11_000.0, plans=tmp_path / p))) for p in "ab"]
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert summaries[0] == summaries[1]
    assert (summaries[0].nodes, summaries[0].samples, summaries[0].gaps) == (2, 9354, 2)
    assert summaries[0].peak_measured_frac == pytest.approx(0.891, abs=0.001)
