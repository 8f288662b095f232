"""``polcad simulate row``: its figures, its traces, its recordings."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from polcad.errors import ConfigError
from polcad.recording import read
from polcad.sim.requests import WEEK_S
from polcad.simulate import SimulateOptions, read_trace, timed

pytestmark = pytest.mark.integration  # rows take seconds

DATA = Path(__file__).parent.parent.parent / "shared" / "data"
KEYS = [
    "servers",
    "weeks",
    "policy",
    "seed",
    "peak_frac",
    "mean_frac",
    "rise_2s_frac",
    "rise_40s_frac",
    "brakes",
    "seconds_over_budget",
    "capped_hours_high",
    "capped_hours_low",
    "high_p50_slowdown",
    "high_p99_slowdown",
    "low_p50_slowdown",
    "low_p99_slowdown",
    "throughput_frac",
    "energy_kwh",
    "wall_s",
]
HEADING = "TIMESTAMP,ContextTokens,GeneratedTokens\n"

needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no measurements at {DATA}")


def trace_file(folder: Path, lines: str) -> Path:
    path = folder / "trace.csv"
    path.write_text(HEADING + lines)
    return path


def test_the_figures_have_the_promised_keys() -> None:
    _, figures = timed(SimulateOptions(4, weeks=120 / WEEK_S))
    assert list(figures) == KEYS
    json.dumps(figures)


def test_what_is_recorded_can_be_read_and_stays_small(tmp_path: Path) -> None:
    path = tmp_path / "row.rec"
    timed(SimulateOptions(4, weeks=120 / WEEK_S, record=path, record_period_s=10.0))
    topics = [message.topic.rsplit("/", 1)[-1] for _, message in read(path)]
    assert topics[0] == "placement"
    assert topics.count("telemetry") == 12


def test_a_trace_in_azures_columns_is_read(tmp_path: Path) -> None:
    lines = "2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,396,109\n"
    trace = read_trace(trace_file(tmp_path, lines))
    assert trace.arrive_s.tolist() == pytest.approx([0.0, 4.314579], abs=1e-6)
    assert trace.output_tokens.tolist() == [44.0, 109.0]


def test_a_packed_trace_with_a_time_zone_is_read(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv.gz"
    path.write_bytes(gzip.compress((HEADING + "1970-01-01 19:00:00.016633+0000,27,2\n").encode()))
    assert read_trace(path).prompt_tokens.tolist() == [27.0]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no requests"),
        ("2023-11-16 18:15:46,1,1\n2023-11-16 18:15:45,1,1\n", "go back at request 2"),
        ("2023-11-16 18:15:46,1,\n", "line 2"),
        ("yesterday,1,1\n", "line 2"),
        ("2023-11-16 18:15:46,-1,1\n", "fewer than 0 tokens"),
        ("2023-11-16 18:15:46,nan,1\n", "line 2: nan is no number of tokens"),
        ("2023-11-16 18:15:46,1,1\n2032-11-16 18:15:46,1,1\n", "3288 days, more than a year"),
    ],
)
def test_a_trace_that_cannot_be_played_is_refused(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        read_trace(trace_file(tmp_path, text))


def test_a_trace_without_its_columns_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("time,in,out\n1,2,3\n")
    with pytest.raises(ConfigError, match="lacks the column TIMESTAMP"):
        read_trace(path)


@pytest.mark.parametrize("options", [{"actuation": "pigeon"}, {"hardware": "abacus"}, {"policy": "none-such"}])
def test_names_that_nobody_knows_are_refused(options: dict[str, str]) -> None:
    with pytest.raises(ConfigError):
        SimulateOptions(4, **options).model()  # type: ignore[arg-type]  # all are names


@needs_data
@pytest.mark.integration
def test_held_out_measurements_are_met_within_five_percent() -> None:
    script = Path(__file__).parent.parent / "scripts" / "calibrate_sim.py"
    done = subprocess.run([sys.executable, script, DATA, "--json"], capture_output=True, check=True, timeout=60)
    lines = json.loads(done.stdout)
    judged = [line for line in lines if line["part"] in {"held out", "in use"}]
    assert len(judged) >= 20
    assert [line for line in judged if line["mean"] > 0.05] == []


@needs_data
@pytest.mark.integration
def test_a_row_serves_the_azure_trace() -> None:
    trace = DATA / "azure" / "AzureLLMInferenceTrace_conv.csv.gz"
    result, _ = timed(SimulateOptions(8, weeks=3600 / WEEK_S, trace=trace))
    assert result.finished > 0.95 * result.requests > 1000


@pytest.mark.integration
def test_the_commands_figures_go_to_a_pipe() -> None:
    command = [sys.executable, "-c", "from polcad.cli import main; main()", "simulate", "row"]
    done = subprocess.run(
        [*command, "--servers", "8", "--weeks", "0.001", "--json"], capture_output=True, check=True, timeout=60
    )
    assert list(json.loads(done.stdout)) == KEYS
