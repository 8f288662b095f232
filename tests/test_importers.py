"""Imports: every reading that can be believed arrives as it was, and everything else is told, line by line."""

import gzip
import math
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polcad.errors import ConfigError, PolcadError, RecordingError
from polcad.importers import FORMATS, ImportOptions, ImportReport, import_log
from polcad.model import PowerKind, Telemetry
from polcad.recording import read
from polcad.wire import decode

pytestmark = pytest.mark.integration  # whole recordings and logs

DATA = Path(__file__).parents[2] / "shared" / "data"

SMI = """timestamp, index, uuid, power.draw [W], power.limit [W], utilization.gpu [%], clocks.sm [MHz], \
memory.used [MiB], memory.total [MiB], clocks_event_reasons.active
2026/01/02 03:04:05.000, 0, GPU-aa, 300.5 W, 700.00 W, 98 %, 1980 MHz, 40960 MiB, 81920 MiB, 0x0000000000000004
2026/01/02 03:04:05.004, 1, GPU-bb, [N/A], 700.00 W, [N/A], 1980 MHz, 0 MiB, 81920 MiB, [N/A]
2026/01/02 03:04:06.000, 0, GPU-aa, 0.00 W, 700.00 W, 98 %, 1980 MHz, 40960 MiB, 81920 MiB, 0x0
2026/01/02 03:04:06.004, 1, GPU-bb, 2147483.63 W, 700.00 W, 150 %, oops, 0 MiB, 81920 MiB, 0x0
2026/01/02 03:04:07.000, 0, GPU-aa
not a time, 0, GPU-aa, 301 W, 700.00 W, 98 %, 1980 MHz, 40960 MiB, 81920 MiB, 0x0
2026/01/02 03:04:07.000, 0, GPU-aa, 301 W, 700.00 W, 98 %, 1980 MHz, 40960 MiB, 81920 MiB, 0x0
2026/01/02 03:04:07.000, 1, GPU-bb, 1500 W, 700.00 W, 98 %, 1980 MHz, 40960 MiB, 81920 MiB, 0x0
2026/01/02 03:03:00.000, 0, GPU-aa, 301 W, 700.00 W, 98 %, 1980 MHz, 40960 MiB, 81920 MiB, 0x0
2026/01/02 03:04:17.000, 0, GPU-aa, 302 W, 700.00 W, 98 %, 1980 MHz, 40960 MiB, 81920 MiB, 0x0
"""


@dataclass
class Imported:
    report: ImportReport
    told: list[str]
    telemetry: list[Telemetry]
    topics: list[str]
    arrivals: list[float] = field(default_factory=list)

    def powers(self) -> list[tuple[float | None, ...]]:
        return [one.reading.gpus.power_w for one in self.telemetry]


@pytest.fixture
def bring(tmp_path: Path) -> Any:
    """Imports a text, bytes or file, and gives back what can be read from the recording."""

    def bring(source: str, log: str | bytes | Path, **options: Any) -> Imported:
        if not isinstance(log, Path):
            (tmp_path / "My Log.1.csv").write_bytes(log if isinstance(log, bytes) else log.encode())
            log = tmp_path / "My Log.1.csv"
        out = tmp_path / "out.rec"
        told: list[str] = []
        out.unlink(missing_ok=True)
        report = import_log(source, log, ImportOptions(out=out, tell=told.append, **options))
        entries = list(read(out))
        nouns = [decode(message)[1] for _, message in entries]
        return Imported(report, told, nouns, [message.topic for _, message in entries], [t for t, _ in entries])

    return bring


def test_nvidia_smi_gives_what_it_says_and_tells_what_it_sets_aside(bring: Any) -> None:
    got = bring("nvidia-smi", SMI)
    assert got.topics == ["polcad/v1/import/row/rack/my-log/telemetry"] * 4
    assert got.arrivals[0] == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp() == got.telemetry[0].t
    assert got.powers() == [(300.5, None), (None, None), (301.0, None), (302.0, None)]
    gpus = got.telemetry[0].reading.gpus
    assert gpus.uuid == ("GPU-aa", "GPU-bb")
    assert (gpus.max_w, gpus.limit_w, gpus.sm_mhz) == ((700.0, 700.0), (700.0, 700.0), (1980.0, 1980.0))
    assert (gpus.util_frac, gpus.memory_frac, gpus.throttle) == ((0.98, None), (0.5, 0.0), (4, None))
    assert gpus.fault == (None, "no power in the log that can be used")
    assert got.telemetry[0].reading.kind is PowerKind.AVERAGE
    assert got.telemetry[0].plan is got.telemetry[0].in_force is None
    assert [one.seq for one in got.telemetry] == [0, 1, 2, 3]
    assert got.report == ImportReport("nvidia-smi", 3, 4, 1, 9, 1, 2, got.arrivals[0], got.arrivals[-1], 1.0)
    reasons = [line.split("csv:", 1)[1] for line in got.told]
    assert reasons == [
        "3: '[N/A]', no power is known",
        "4: 'GPU-aa power_w=0', a sensor's zero",
        "5: 'oops', not a number",
        "5: 'GPU-bb power_w=2.14748e+06', out of range",
        "5: 'GPU-bb util_frac=1.5', out of range",
        "6: '2026/01/02 03:04:07.000, 0, GPU-aa', 3 columns, not 10",
        "7: 'not a time', not a time",
        "9: 'GPU-bb power_w=1500', above twice the limit of 700 W",
        "10: 'GPU-aa', time runs backwards here",
        "11: my-log: a gap of 10.0 s (10.0 periods) ends here",
        "11: my-log: GPU-bb is missing from here on",
    ]


def test_two_imports_of_one_log_are_byte_equal(tmp_path: Path) -> None:
    (tmp_path / "log").write_text(SMI)
    reports = [import_log("nvidia-smi", tmp_path / "log", ImportOptions(out=tmp_path / name)) for name in "ab"]
    assert reports[0] == reports[1]
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_one_gpu_without_index_units_in_the_heading_and_joined_logs(bring: Any) -> None:
    heading = "timestamp, power.draw.instant [mW], power.draw.average [W]\n"
    got = bring(
        "nvidia-smi",
        f"{heading}2026/01/02 03:04:05.0, 90500, 80\n{heading}2026/01/02 03:04:05.5, 91500, 81\n",
        gpu_max_w=100.0,
        node="Node 7",
        row="r7",
    )
    assert got.powers() == [(90.5,), (91.5,)]
    assert got.telemetry[0].reading.kind is PowerKind.INSTANT
    gpus = got.telemetry[0].reading.gpus
    assert (gpus.uuid, gpus.average_w, gpus.max_w) == (("gpu-0",), (80.0,), (100.0,))
    assert got.topics[0] == "polcad/v1/import/r7/rack/node-7/telemetry"
    assert got.report.set_aside == 0


def test_nodes_whose_names_become_alike_stay_apart_and_keep_names_that_the_wire_takes(bring: Any) -> None:
    long = "a" * 64
    names = [long, long.upper(), f"{long[:59]}-1", f"{long[:59]}-2", long.title()]
    got = bring("bmc-csv", f"time,{','.join(f'{name}_watts' for name in names)}\n1767323045,1,2,3,4,5\n")
    assert len(set(got.topics)) == len(names)
    assert [one.reading.host_power_w for one in got.telemetry] == [1.0, 2.0, 3.0, 4.0, 5.0]


def test_a_dmon_log_of_many_midnights_counts_each(bring: Any) -> None:
    lines = "00:00:01 0 35\n08:00:00 0 36\n16:00:00 0 37\n" * 2000
    got = bring("dmon", f"#Time gpu pwr\n{lines}")
    assert got.arrivals[-1] - got.arrivals[0] == pytest.approx(1999 * 86_400 + 57_599)


def test_a_glitch_is_set_aside_by_its_neighbours_and_a_real_fall_is_not(bring: Any) -> None:
    rows = [(9.25, 1005), (1.2, 2130), (9.25, 1005), (300, 1980), (100, 1980), (300, 1980), (20, 1980), (300, 1980)]
    body = "".join(
        f"2026-01-02 03:04:{5 + index:02d}, {power}, {mhz}\n" for index, (power, mhz) in enumerate([*rows, (5, 210)])
    )
    got = bring("nvidia-smi", "timestamp, power.draw [W], clocks.sm [MHz]\n" + body)
    expected = [9.25, None, 9.25, 300.0, 100.0, 300.0, None, 300.0, 5.0]
    assert [power for (power,) in got.powers()] == expected
    assert got.report.set_aside == 2


def test_dmon_with_dates_dashes_and_headings_again(bring: Any) -> None:
    heading = "#Date       Time        gpu    pwr  gtemp     sm   pclk\n#YYYYMMDD   HH:MM:SS  Idx  W  C  %  MHz\n"
    body = " 20251209   15:26:56      0     35     32      7    180\n 20251209   15:26:56      1  -  35  -  180\n"
    got = bring("dmon", heading + body + heading + body.replace(":56", ":58"), timezone="Asia/Tokyo")
    assert got.powers() == [(35.0, None)] * 2
    assert got.arrivals[0] == datetime(2025, 12, 9, 6, 26, 56, tzinfo=UTC).timestamp()
    gpus = got.telemetry[0].reading.gpus
    assert (gpus.util_frac, gpus.temp_c, gpus.sm_mhz) == ((0.07, None), (32.0, 35.0), (180.0, 180.0))
    assert (got.report.period_s, got.report.set_aside) == (2.0, 2)


def test_dmon_without_dates_or_times_counts_from_the_start_given(bring: Any) -> None:
    body = "    0     35\n    1     36\n" * 3
    got = bring("dmon", f"# gpu   pwr\n# Idx     W\n{body}", start="2026-01-02T00:00:00", period_s=5.0)
    start_t = datetime(2026, 1, 2, tzinfo=UTC).timestamp()
    assert got.arrivals == [start_t, start_t + 5, start_t + 10]
    assert got.powers() == [(35.0, 36.0)] * 3
    assert "no time in the log: counted from 2026-01-02T00:00:00" in got.told[0]
    night = bring("dmon", "#Time,gpu,pwr\n23:59:59,0,35\n00:00:01,0,36\n", start="2026-01-02T00:00:00")
    assert [t - start_t for t in night.arrivals] == [86_399, 86_401]


def test_wattameter_in_milliwatts(bring: Any) -> None:
    got = bring(
        "wattameter",
        "# 2025-10-07_09:38:40.6 - Tracking started\n"
        "# timestamp reading-time[ns] gpu-0[mW] gpu-1[mW] gpu-0[C] gpu-1[C]\n"
        "  2025-10-07_09:38:40.600000 45560 75832 nan 41 42\n"
        "  2025-10-07_09:38:40.700000 45560 75832 80000\n",
    )
    assert got.powers() == [(75.832, None)]
    assert got.telemetry[0].reading.gpus.temp_c == (41.0, 42.0)
    assert got.report.set_aside == 2


def test_a_long_csv_with_nodes_and_epoch_milliseconds(bring: Any) -> None:
    got = bring(
        "gpu-csv",
        'time,hostname,gpu_id,"power (kW)",gpu_util\n'
        "1767323045000,Host.A,GPU 0,0.3,50\n1767323045100,Host_B,0,0.2,50%\n1767323046000,Host.A,0,0.31,x\n",
    )
    assert got.arrivals == [1767323045.0, 1767323045.1, 1767323046.0]
    assert [one.node for one in got.telemetry] == ["host-a", "host_b", "host-a"]
    assert got.powers() == [(300.0,), (200.0,), (310.0,)]
    assert got.telemetry[1].reading.gpus.util_frac == (0.5,)


def test_a_table_of_nodes_and_a_node_without_a_value_is_silent(bring: Any) -> None:
    got = bring(
        "bmc-csv",
        "timestamp,n1_watts,Node 2 [kW],total_watts\n2026-05-05T19:14:51,2492,2.5,4992\n2026-05-05T19:15:02,,0,\n",
    )
    assert [(one.node, one.reading.host_power_w) for one in got.telemetry] == [("n1", 2492.0), ("node-2", 2500.0)]
    assert got.telemetry[0].reading.gpus.uuid == ()
    assert (got.report.nodes, got.report.gpus, got.report.set_aside) == (2, 0, 2)


def test_ipmitool_with_and_without_a_date_line(bring: Any) -> None:
    block = (
        "    Instantaneous power reading:                   810 Watts\n"
        "    IPMI timestamp:                           12/09/2025 03:26:54 PM JST    Sampling period:   3559 Seconds.\n"
    )
    assert bring("bmc-csv", block).arrivals == [datetime(2025, 12, 9, 15, 26, 54, tzinfo=UTC).timestamp()]
    old = block.replace("12/09/2025 03:26:54 PM JST", "Tue Dec  9 15:26:54 2025")
    dated = bring("bmc-csv", f"2025-12-09 15:26:50\n{block}----\n{old}\n")
    start_t = datetime(2025, 12, 9, 15, 26, 50, tzinfo=UTC).timestamp()
    assert dated.arrivals == [start_t, start_t + 4]
    assert [one.reading.host_power_w for one in dated.telemetry] == [810.0, 810.0]


def test_a_packed_log_cut_short_gives_what_it_has(bring: Any) -> None:
    lines = "".join(f"2026-01-02T03:04:{second:02d},0,{300 + second * 1.37}\n" for second in range(60))
    packed = gzip.compress(f"timestamp,gpu_index,power_W\n{lines}".encode())
    assert bring("gpu-csv", packed).report.samples == 60
    cut = bring("gpu-csv", packed[: len(packed) * 2 // 3])
    assert 0 < cut.report.samples < 60
    assert "damaged or cut short" in cut.told[-1]


def test_an_overlong_line_is_set_aside_without_being_held(bring: Any) -> None:
    got = bring("gpu-csv", "timestamp,gpu_index,power_W\n" + "x" * 3_000_000 + "\n2026-01-02T03:04:05,0,300\n")
    assert got.powers() == [(300.0,)]
    assert got.report.set_aside == 1


@pytest.mark.parametrize(
    ("source", "log", "expected"),
    [
        ("nvidia-smi", "index, power.limit [W]\n0, 600 W\n", "no `timestamp` column"),
        ("nvidia-smi", "timestamp, index\n", "no `power.draw` column"),
        ("nvidia-smi", "2026/01/02 03:04:05.000, 0, 300 W\n", "no heading of nvidia-smi; log without `noheader`"),
        ("dmon", SMI, "looks like --from nvidia-smi$"),
        ("gpu-csv", "# gpu pwr\n# Idx W\n0 35\n", "looks like --from dmon$"),
        ("nvidia-smi", "timestamp,gpu_index,power_W\n", "looks like --from gpu-csv$"),
        ("wattameter", "time,n1_watts\n1767323045,1\n", "looks like --from bmc-csv$"),
        (
            "gpu-csv",
            "timestamp,gpu_index,power_W\nnever,0,300\n",
            "nothing in it can be used; .*:2: 'never', not a time",
        ),
        ("bmc-csv", "", "nothing in it can be used; it holds no readings"),
        ("bmc-csv", "\0\0\xff\n", "nothing in it can be used"),
    ],
)
def test_a_log_of_no_use_says_why_and_what_fits_better(
    bring: Any, tmp_path: Path, source: str, log: str, expected: str
) -> None:
    with pytest.raises(RecordingError, match=expected):
        bring(source, log)
    assert not (tmp_path / "out.rec").exists()


def test_options_that_cannot_be_are_refused_and_outputs_are_not_overwritten(bring: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a time zone"):
        bring("nvidia-smi", SMI, timezone="Mars/Olympus")
    with pytest.raises(ConfigError, match="--from sar: not one of nvidia-smi"):
        bring("sar", SMI)
    with pytest.raises(ConfigError, match="--start 'noon': not a time"):
        bring("dmon", "# gpu pwr\n0 35\n", start="noon")
    with pytest.raises(ConfigError, match=r"--row R\.1"):
        bring("nvidia-smi", SMI, row="R.1")
    (tmp_path / "kept.rec").write_text("precious")
    (tmp_path / "log.csv").write_text(SMI)
    with pytest.raises(RecordingError, match="exists already"):
        import_log("nvidia-smi", tmp_path / "log.csv", ImportOptions(out=tmp_path / "kept.rec"))
    assert (tmp_path / "kept.rec").read_text() == "precious"
    with pytest.raises(RecordingError, match="cannot be read: No such file"):
        import_log("nvidia-smi", tmp_path / "absent.csv", ImportOptions(out=tmp_path / "x.rec"))


@given(st.sampled_from(sorted(FORMATS)), st.data())
@settings(max_examples=80, deadline=None)
def test_no_damage_to_a_log_gives_an_alien_exception_or_an_unbelievable_message(
    tmp_path_factory: pytest.TempPathFactory, source: str, data: st.DataObject
) -> None:
    text = bytearray(SAMPLES[source].encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text)))
        text[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    folder = tmp_path_factory.mktemp("damaged")
    (folder / "log").write_bytes(text)
    try:
        import_log(source, folder / "log", ImportOptions(out=folder / "out.rec"))
    except PolcadError:
        return
    for t, message in read(folder / "out.rec"):
        noun = decode(message)[1]
        assert math.isfinite(t)
        assert noun.t == t


SAMPLES = {
    "nvidia-smi": SMI,
    "dmon": "#Date Time gpu pwr sm\n 20251209 15:26:56 0 35 1\n 20251209 15:26:57 0 36 -\n",
    "wattameter": "# timestamp x[ns] gpu-0[mW] gpu-0[C]\n"
    " 2025-10-07_09:38:40.6 1 7583 41\n 2025-10-07_09:38:40.7 1 7583 4\n",
    "gpu-csv": "timestamp,gpu_index,power_W\n2026-01-02T03:04:05,0,300\n1767323045,0,310\n",
    "bmc-csv": "time,n1_watts\n1767323045,100\n1767323046,101\n"
    "2025-12-09 15:26:50\nInstantaneous power reading: 8 Watts\n",
}


@pytest.mark.skipif(not DATA.exists(), reason="the public sample logs are not here")
@pytest.mark.parametrize(
    ("source", "name", "expected"),
    [
        (
            "nvidia-smi",
            "format_samples/rtx_laptop_sgemm_clk1005_power.csv",
            {"samples": 932, "set_aside": 2, "gaps": 2},
        ),
        ("nvidia-smi", "format_samples/rtx_laptop_membound_clk1005_power.csv", {"samples": 68, "set_aside": 2}),
        ("dmon", "format_samples/rtxpro6000_idle_nvidia-dmon.csv", {"samples": 56, "gpus": 8, "set_aside": 0}),
        ("wattameter", "format_samples/wattameter_nvml.log", {"samples": 560, "gpus": 4, "period_s": 0.1001}),
        ("gpu-csv", "nanogpt_training/gpu_metrics_32fcbd7a.csv.gz", {"samples": 12576, "messages": 1572, "gaps": 6}),
        ("bmc-csv", "cisco_h200/power_log_shared.csv.gz", {"samples": 9354, "nodes": 2, "gaps": 2, "period_s": 11.0}),
        ("bmc-csv", "format_samples/rtxpro6000_idle_ipmi_5s.log", {"samples": 2, "period_s": 6.0}),
        ("bmc-csv", "format_samples/rtxpro6000_idle_dcmi_power.txt", {"samples": 1, "messages": 1}),
    ],
)
def test_public_logs_are_imported_whole(bring: Any, source: str, name: str, expected: dict[str, float]) -> None:
    got = bring(source, DATA / name)
    assert {key: getattr(got.report, key) for key in expected} == expected
    assert got.report.messages == len(got.telemetry)
    assert got.arrivals == sorted(got.arrivals)


@pytest.mark.skipif(not DATA.exists(), reason="the public sample logs are not here")
@pytest.mark.parametrize("source", ["nvidia-smi", "gpu-csv"])
def test_a_listing_of_one_moment_is_refused(bring: Any, source: str) -> None:
    with pytest.raises(RecordingError, match=r"no `timestamp` column|names no time"):
        bring(source, DATA / "format_samples/rtxpro6000_idle_gpu_power_pcie.csv")
