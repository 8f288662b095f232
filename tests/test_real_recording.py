"""Ten minutes of an H100 under an LLM load (tests/recordings/README.md): what is in it, and what polcad says of it."""

import asyncio
import json
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import mean, median
from typing import Any, NamedTuple

import pytest

from polcad.model import PowerKind, Telemetry
from polcad.recording import read
from polcad.replay import ReplayOptions, run
from polcad.wire import decode

pytestmark = pytest.mark.integration  # whole recordings and logs

RECORDINGS = Path(__file__).parent / "recordings"
RECORDING = RECORDINGS / "h100_llm_10min.rec"
GOLDEN = RECORDINGS / "h100_llm_10min.900w.jsonl"
BUDGET_W, T1, T2, GAP, DWELL_S, BRAKE_DWELL_S = 900.0, 0.80, 0.89, 0.05, 30.0, 10.0
LIMIT_W = 700.0
BURSTS = ((171, 182), (411, 422), (531, 542))  # s: prompts of 6 500 tokens, one after the other
DECODES = ((231, 238), (351, 357), (487, 495))  # s: forty requests, decode alone
IDLE = ((1, 13), (150, 163), (298, 323), (475, 480), (591, 599))  # s: nothing to do


class Sample(NamedTuple):
    t: float
    power_w: float
    average_w: float
    energy_j: float | None
    sm_mhz: float


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    nouns = ((t, decode(message)[1]) for t, message in read(RECORDING))
    told = [(t, noun) for t, noun in nouns if isinstance(noun, Telemetry)]
    assert {noun.reading.kind for _, noun in told} == {PowerKind.INSTANT}
    return [
        Sample(
            t - told[0][0],
            known(noun.reading.gpus.power_w),
            known(noun.reading.gpus.average_w),
            noun.reading.gpus.energy_j[0],
            known(noun.reading.gpus.sm_mhz),
        )
        for t, noun in told
    ]


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return replayed(tmp_path_factory.mktemp("replay") / "one")


def known(column: Sequence[float | None]) -> float:
    (value,) = column
    assert value is not None
    return value


def replayed(plans: Path) -> bytes:
    asyncio.run(run(ReplayOptions(RECORDING, BUDGET_W, plans=plans)))
    return plans.read_bytes()


def during(samples: list[Sample], span_s: tuple[float, float]) -> list[Sample]:
    return [sample for sample in samples if span_s[0] <= sample.t < span_s[1]]


def joules(samples: list[Sample], power_w: Callable[[Sample], float]) -> float:
    return sum((b.t - a.t) * (power_w(a) + power_w(b)) / 2 for a, b in pairwise(samples))


def test_the_recording_is_whole_small_and_without_a_gap(samples: list[Sample]) -> None:
    recording = read(RECORDING)
    assert sum(1 for _ in recording) == 6001
    assert str(recording.loss) == ""
    assert RECORDING.stat().st_size < 2_000_000
    assert samples[-1].t == pytest.approx(599.9, abs=0.1)
    assert max(b.t - a.t for a, b in pairwise(samples)) < 0.12


def test_no_name_of_a_machine_or_board_is_in_it() -> None:
    payloads = [message.payload for _, message in read(RECORDING)]
    assert all(b'"node":"h100"' in payload for payload in payloads)
    assert all(b'"uuid":["GPU-h100"]' in payload for payload in payloads[1:])


def test_prompt_bursts_sit_at_the_limit_and_the_board_slows_itself_down_to_hold_it(samples: list[Sample]) -> None:
    for burst in BURSTS:
        under_way = during(samples, burst)
        assert mean(sample.power_w for sample in under_way) == pytest.approx(LIMIT_W, rel=0.02)
        assert median(sample.sm_mhz for sample in under_way) == pytest.approx(1575, abs=30)


def test_decode_is_a_plateau_at_two_thirds_of_the_limit_and_full_clock(samples: list[Sample]) -> None:
    for stretch in DECODES:
        under_way = during(samples, stretch)
        assert median(sample.power_w for sample in under_way) == pytest.approx(480, rel=0.02)
        assert {sample.sm_mhz for sample in under_way} == {1980}


def test_idle_gaps_keep_full_clock_and_draw_a_sixth(samples: list[Sample]) -> None:
    for gap in IDLE:
        under_way = during(samples, gap)
        assert all(119 < sample.power_w < 129 for sample in under_way)
        assert {sample.sm_mhz for sample in under_way} == {1980}


def test_the_average_hides_the_peaks_that_the_instant_value_shows(samples: list[Sample]) -> None:
    apart = [abs(sample.power_w - sample.average_w) for sample in samples]
    assert max(sample.power_w for sample in samples) == pytest.approx(937, abs=1)
    assert max(sample.average_w for sample in samples) == pytest.approx(710, abs=1)
    assert mean(sample.power_w > LIMIT_W for sample in samples) == pytest.approx(0.131, abs=0.001)
    assert mean(sample.average_w > LIMIT_W for sample in samples) < 0.001
    assert mean(apart) == pytest.approx(70, abs=1)
    assert max(apart) == pytest.approx(640, abs=1)


@pytest.mark.parametrize(("name", "within"), [("power_w", 0.003), ("average_w", 0.0005)])
def test_the_energy_counter_agrees_with_integrated_power(samples: list[Sample], name: str, within: float) -> None:
    counted = [place for place, sample in enumerate(samples) if sample.energy_j is not None]
    between = samples[counted[0] : counted[-1] + 1]
    energy_j = (between[-1].energy_j or 0.0) - (between[0].energy_j or 0.0)
    assert joules(between, lambda sample: float(getattr(sample, name))) == pytest.approx(energy_j, rel=within)


def test_a_replay_says_the_golden_lines_byte_for_byte_and_twice(lines: bytes, tmp_path: Path) -> None:
    assert replayed(tmp_path / "two") == lines
    assert lines == GOLDEN.read_bytes(), f"if the change is meant: see {RECORDINGS.name}/README.md"


def test_t1_t2_and_the_brake_act_on_a_reading_above_them_and_let_go_only_below(
    lines: bytes, samples: list[Sample]
) -> None:
    first, *events = (line["event"] for line in map(json.loads, lines.splitlines()) if "event" in line)
    shares: dict[str, list[float]] = {}
    for event in events:
        place = bisect_right(samples, event["t"] - first["t"], key=lambda sample: sample.t) - 1
        assert event["power_w"] == samples[place].power_w
        rung = event["detail"].rpartition("(")[2].rstrip(")")
        shares.setdefault(f"{event['kind']} {rung}", []).append(event["power_w"] / BUDGET_W)
    assert set(shares) == {"tighten t1", "tighten t2", "brake brake", "brake_release t2", "loosen t1"}
    assert min(shares["tighten t1"]) > T1
    assert min(shares["tighten t2"]) > T2
    assert min(shares["brake brake"]) > 1.0
    assert max(shares["brake_release t2"]) < 1.0 - GAP
    assert max(shares["loosen t1"]) < T2 - GAP


def test_nothing_is_loosened_before_its_dwell(lines: bytes) -> None:
    plans: list[dict[str, Any]] = [line["plan"] for line in map(json.loads, lines.splitlines()) if "plan" in line]
    clocks = [min((rule["setpoint"]["clock_frac"] for rule in plan["rules"]), default=1.0) for plan in plans]
    held = [
        (b["t"] - a["t"], BRAKE_DWELL_S if before < 0.5 else DWELL_S)
        for (a, before), (b, after) in pairwise(zip(plans, clocks, strict=True))
        if after > before
    ]
    assert held
    assert all(held_s >= dwell_s for held_s, dwell_s in held)
