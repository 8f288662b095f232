"""The InfluxDB sink against real databases: what is written is what is read back, whatever they do meanwhile."""

from __future__ import annotations

import logging
import socket
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from polcad.model import Gpus, LeaseState, NodePlacement, Obedience, Reading, Telemetry
from polcad.points import Points
from polcad.ports import Heard, Point, Sink, SinkCounts
from polcad.sinks.influxdb import InfluxDb, InfluxSink
from polcad.testing_brokers import free_port
from tests.databases import BUCKET, Influx, VictoriaMetrics
from tests.waiting import until

pytestmark = pytest.mark.integration

NODES, GPUS, SECONDS = 40, 8, 600
Series = dict[tuple[str, str], list[tuple[int, float]]]  # (ms, W) by node and GPU


def watts(node: int, gpu: int, second: int) -> float:
    return round(60.0 + node + 0.1 * gpu + (second * 7919) % 601 / 10, 1)


def message(node: int, second: int, t: float) -> Heard:
    uuids = tuple(f"GPU-{node}-{gpu}" for gpu in range(GPUS))
    power_w = tuple(watts(node, gpu, second) for gpu in range(GPUS))
    gpus = Gpus(
        uuid=uuids,
        power_w=power_w,
        max_w=(400.0,) * GPUS,
        util_frac=(0.9,) * GPUS,
        sm_mhz=(1410.0,) * GPUS,
        temp_c=(60.0,) * GPUS,
        throttle=(4,) * GPUS,
        enforced_w=(400.0,) * GPUS,
    )
    plan = Obedience(1, second, LeaseState.HELD)
    return Heard(t, Telemetry(f"n{node:02}", "b1", second, t, 1.0, Reading(gpus), None, plan), "r1")


def record(sink: Sink, start_t: float) -> Series:
    """Ten minutes of a row, told to a sink as fast as it goes; what must be found."""
    points, told = Points("site", "row"), Series()
    for second in range(SECONDS):
        t = start_t + second
        for node in range(NODES):
            sink.put(points.telemetry(message(node, second, t), NodePlacement(f"n{node:02}")))
            for gpu in range(GPUS):
                told.setdefault((f"n{node:02}", str(gpu)), []).append((round(t * 1000), watts(node, gpu, second)))
    return told


@contextmanager
def writing(spec: InfluxDb) -> Iterator[InfluxSink]:
    sink = spec.open()
    assert isinstance(sink, InfluxSink)
    try:
        yield sink
    finally:
        sink.close()


def settled(sink: Sink, within_s: float = 60.0) -> SinkCounts:
    until(lambda: sink.counts().waiting == 0, within_s)
    return sink.counts()


def stale(number: int, t: float) -> Point:
    return Point("polcad_node", (("node", "n1"),), {"stale": number % 2, "power_w": float(number)}, t + number)


def recently() -> float:
    return float(int(time.time()) - 2 * SECONDS)


def test_ten_minutes_of_a_row_are_found_in_influxdb_once_and_whole(tmp_path: Path) -> None:
    with Influx(tmp_path) as influx, writing(InfluxDb(url=influx.write_url)) as sink:
        told = record(sink, recently())
        assert settled(sink) == SinkCounts(written=SECONDS * NODES * (GPUS + 1))
        found = Series()
        for row in influx.ask('SELECT "power_w", "node", "gpu" FROM polcad_gpu'):
            found.setdefault((row["node"], row["gpu"]), []).append((row["time"] // 1000, row["power_w"]))
        assert found == told
        (nodes,) = influx.ask('SELECT count("gpus"), sum("gpus_read") FROM polcad_node')
        assert (nodes["count"], nodes["sum"]) == (SECONDS * NODES, SECONDS * NODES * GPUS)


def test_ten_minutes_of_a_row_are_found_in_victoriametrics_once_and_whole(tmp_path: Path) -> None:
    with VictoriaMetrics(tmp_path) as victoria, writing(InfluxDb(url=victoria.url)) as sink:
        told = record(sink, recently())
        assert settled(sink).written == SECONDS * NODES * (GPUS + 1)
        victoria.flush()
        found = {
            (each["metric"]["node"], each["metric"]["gpu"]): list(zip(each["timestamps"], each["values"], strict=True))
            for each in victoria.series("polcad_gpu_power_w")
        }
        assert found == told


def test_a_database_that_comes_late_and_goes_for_a_while_misses_nothing(tmp_path: Path) -> None:
    port, t = free_port(), recently()
    spec = InfluxDb(url=f"http://127.0.0.1:{port}", flush_s=0.1, retry_max_s=0.3)
    with writing(spec) as sink:
        for down in range(2):
            sink.put([stale(number, t) for number in range(20 * down, 20 * down + 10)])
            before = sink.counts().retries
            until(lambda before=before: sink.counts().retries > before)  # type: ignore[misc]
            with VictoriaMetrics(tmp_path, port) as victoria:
                sink.put([stale(number, t) for number in range(20 * down + 10, 20 * down + 20)])
                settled(sink)
                victoria.flush()
                (found,) = victoria.series("polcad_node_power_w")
        assert sink.counts().written == 40
    assert found["values"] == [float(number) for number in range(40)]


def test_a_token_that_is_refused_keeps_points_until_the_file_holds_the_right_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    token, t = tmp_path / "token", recently()
    token.write_text("yesterday's\n")
    with Influx(tmp_path, token="secret") as influx:  # noqa: S106  # of this test's own
        spec = InfluxDb(url=influx.write_url, token_file=str(token), flush_s=0.1, retry_max_s=0.3)
        with caplog.at_level(logging.WARNING), writing(spec) as sink:
            sink.put([stale(1, t)])
            until(lambda: sink.counts().retries > 1)
            assert "401" in caplog.text
            assert "yesterday" not in caplog.text
            token.write_text("secret\n")
            assert settled(sink).written == 1
        assert [row["power_w"] for row in influx.ask('SELECT "power_w" FROM polcad_node')] == [1.0]


def test_points_that_the_database_will_never_take_cost_themselves_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    t = recently()
    with Influx(tmp_path) as influx:
        somebody = b"polcad_node,node=n1 stale=0.5 " + str(int(t * 1e9)).encode()
        urllib.request.urlopen(f"{influx.url}/write?db={BUCKET}", data=somebody, timeout=10.0).close()  # noqa: S310
        with caplog.at_level(logging.WARNING), writing(InfluxDb(url=influx.write_url, flush_s=0.1)) as sink:
            fine = Point("polcad_node", (("node", "n1"),), {"power_w": 7.0}, t + 1)
            sink.put([stale(2, t), fine, stale(3, t)])
            assert settled(sink) == SinkCounts(written=1, refused=2)
        assert "field type conflict" in caplog.text
        assert [row["power_w"] for row in influx.ask('SELECT "power_w" FROM polcad_node')] == [7.0]


def test_a_database_that_takes_and_never_answers_is_left_after_the_time_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        spec = InfluxDb(url=f"http://127.0.0.1:{deaf.getsockname()[1]}", flush_s=0.05, timeout_s=0.2, retry_max_s=0.1)
        with writing(spec) as sink:
            sink.put([stale(1, recently())])
            until(lambda: sink.counts().retries >= 2)
            assert sink.counts().waiting == 1


def test_a_database_that_is_not_there_stays_wanted(caplog: pytest.LogCaptureFixture) -> None:
    said: Callable[[], bool] = lambda: "1 points wait" in caplog.text  # noqa: E731  # named for the wait
    with (
        caplog.at_level(logging.WARNING),
        writing(InfluxDb(url=f"http://127.0.0.1:{free_port()}", flush_s=0.05)) as sink,
    ):
        sink.put([stale(1, recently())])
        until(said)
