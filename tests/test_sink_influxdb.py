"""The InfluxDB sink: what it writes, what it does when the database will not, and what it says of it."""

from __future__ import annotations

import gzip
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from polcad.errors import ConfigError
from polcad.ports import Point, SinkCounts
from polcad.sinks.influxdb import FailedError, InfluxDb, InfluxSink, RefusedError, Writer
from polcad.sinks.influxdb_wire import Wire
from polcad.sinks.line import line
from tests.fake_engine import Endpoint
from tests.waiting import until

T = 1.8e9
QUICK = InfluxDb(flush_s=0.05, retry_max_s=0.1)


class Kept:
    """A database in memory: it answers with what `answers` holds, and then takes what comes."""

    def __init__(self, *answers: Exception) -> None:
        self.lines: list[str] = []
        self.writes = 0
        self.answers = list(answers)
        self.asked = threading.Event()
        self.open = threading.Event()
        self.open.set()

    def write(self, body: bytes) -> None:
        self.asked.set()
        self.open.wait(10.0)
        self.writes += 1
        if self.answers:
            raise self.answers.pop(0)
        self.lines += gzip.decompress(body).decode().split("\n")


@contextmanager
def sink_to(database: Writer, spec: InfluxDb = QUICK) -> Iterator[InfluxSink]:
    sink = InfluxSink(spec, database)
    try:
        yield sink
    finally:
        if isinstance(database, Kept):
            database.open.set()
        sink.close()


def power(number: int) -> Point:
    return Point("polcad_node", (("row", "r"), ("node", "n1")), {"power_w": float(number)}, T + number)


def written(*numbers: int) -> list[str]:
    return [line(power(number)) for number in numbers]


def settled(sink: InfluxSink) -> SinkCounts:
    until(lambda: sink.counts().waiting == 0)
    return sink.counts()


def test_a_line_has_sorted_tags_and_the_kinds_of_the_table() -> None:
    fields: dict[str, float | str] = {"power_w": 300, "gpus": 8, "lease": 'so "held"\n\\o/'}
    said = line(Point("polcad_node", (("row", "a b"), ("node", "x=1,\\"), ("rack", "r1\n")), fields, T + 1e-6))
    assert said == (
        r"polcad_node,node=x\=1\,/,rack=r1\ ,row=a\ b "
        r'power_w=300,gpus=8i,lease="so \"held\" \\o/" 1800000000000001'
    )


def test_lines_of_the_same_fields_tell_each_its_own_values_and_those_of_others_in_their_order() -> None:
    tags = (("node", "n1"),)
    points: list[tuple[dict[str, float | str], str]] = [
        ({"power_w": 1.5, "lease": "held", "gpus": 8}, 'power_w=1.5,lease="held",gpus=8i'),
        ({"power_w": 2.5, "lease": "100 %s", "gpus": 7}, 'power_w=2.5,lease="100 %s",gpus=7i'),
        ({"gpus": 6, "power_w": 3.5}, "gpus=6i,power_w=3.5"),
    ]
    for fields, told in points:
        assert line(Point("polcad_node", tags, fields, T)) == f"polcad_node,node=n1 {told} 1800000000000000"


def test_an_empty_tag_is_left_out_for_a_database_refuses_such_a_line() -> None:
    assert line(Point("polcad_gpu", (("gpu", "0"), ("uuid", "")), {"power_w": 1.0}, T)).startswith("polcad_gpu,gpu=0 ")


def test_points_arrive_once_and_in_order() -> None:
    database = Kept()
    with sink_to(database) as sink:
        for number in range(30):
            sink.put([power(number)])
        assert settled(sink) == SinkCounts(written=30)
    assert database.lines == written(*range(30))


def test_what_waits_is_written_before_the_end() -> None:
    database = Kept()
    with sink_to(database, InfluxDb(flush_s=300.0)) as sink:
        sink.put([power(1)])
    assert database.lines == written(1)


def test_a_database_that_is_away_gets_all_once_it_is_back() -> None:
    database = Kept(*[FailedError("away")] * 3)
    with sink_to(database) as sink:
        sink.put([power(1)])
        until(lambda: database.writes > 1)
        sink.put([power(2)])
        assert settled(sink) == SinkCounts(written=2, retries=3)
    assert database.lines == written(1, 2)


def test_one_that_hangs_delays_nobody_and_costs_the_oldest(caplog: pytest.LogCaptureFixture) -> None:
    database = Kept()
    database.open.clear()
    spec = InfluxDb(flush_s=0.05, queue_points=10)
    with caplog.at_level(logging.WARNING), sink_to(database, spec) as sink:
        sink.put([power(0)])
        assert database.asked.wait(10.0)
        for number in range(1, 101):
            sink.put([power(number)])
        counts = sink.counts()
        assert (counts.waiting, counts.dropped, counts.written) == (10, 91, 0)
        database.open.set()
        assert settled(sink) == SinkCounts(written=10, dropped=91)
    assert database.lines == written(0, *range(92, 101))
    assert "91 points were dropped since the start: too many waited" in caplog.text


def test_what_is_refused_for_good_is_dropped_counted_and_said(caplog: pytest.LogCaptureFixture) -> None:
    database = Kept(RefusedError("422: field type conflict dropped=1", 1))
    with caplog.at_level(logging.WARNING), sink_to(database) as sink:
        sink.put([power(1), power(2), power(3)])
        assert settled(sink) == SinkCounts(written=2, refused=1)
        sink.put([power(4)])
        assert settled(sink) == SinkCounts(written=3, refused=1)
    assert "field type conflict" in caplog.text
    assert "1 points were dropped since the start: it refuses them" in caplog.text


def test_a_batch_that_is_too_large_is_halved_until_it_fits() -> None:
    database = Kept(*[RefusedError("413", too_large=True)] * 2)
    with sink_to(database) as sink:
        sink.put([power(number) for number in range(5)])
        assert settled(sink) == SinkCounts(written=5)
    assert database.lines == written(*range(5))
    database = Kept(*[RefusedError("413", too_large=True)] * 2)
    with sink_to(database) as sink:
        sink.put([power(0), power(1)])
        assert settled(sink) == SinkCounts(written=1, refused=1)


def test_no_batch_is_larger_than_is_set() -> None:
    database = Kept()
    with sink_to(database, InfluxDb(flush_s=0.1, batch_points=4)) as sink:
        for number in range(10):
            sink.put([power(number)])
        settled(sink)
    assert len(database.lines) == 10
    assert database.writes >= 3


def test_a_point_that_is_not_of_the_table_harms_nobody() -> None:
    database = Kept()
    with sink_to(database) as sink:
        sink.put([Point("polcad_gossip", (), {"power_w": 1.0}, T)])
        sink.put([power(1)])
        assert settled(sink) == SinkCounts(written=1, refused=1)


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8086", "ftp://h/", "http://", "http://u:p@h", "http://h?db=x", "http://h:x"]
)
def test_a_url_that_is_none_is_refused_at_the_door(url: str) -> None:
    with pytest.raises(ConfigError, match="url="):
        InfluxDb(url=url)


def test_a_token_comes_from_a_file_and_one_that_cannot_be_read_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret\n")
    assert InfluxDb(token_file=str(tmp_path / "token")).token() == "secret"
    assert InfluxDb().token() is None
    with pytest.raises(ConfigError, match=r"influxdb\.token_file=.*cannot be read"):
        InfluxDb(token_file=str(tmp_path / "none")).open()
    with pytest.raises(ConfigError, match=r"influxdb\.ca=.*cannot be read"):
        InfluxDb(ca=str(tmp_path / "none")).open()


@pytest.mark.parametrize("written", ["secret\nsecret", "secr\u00e9t"], ids=["two lines", "not ASCII"])
def test_a_token_that_no_header_could_carry_is_refused_and_not_shown(tmp_path: Path, written: str) -> None:
    (tmp_path / "token").write_text(written, "utf-8")
    with pytest.raises(ConfigError, match="one line of ASCII") as caught:
        InfluxDb(token_file=str(tmp_path / "token")).open()
    assert "secr" not in str(caught.value)


@pytest.mark.integration
def test_an_answer_that_the_client_cannot_bear_is_a_failure_that_may_end() -> None:
    with Endpoint(lambda: b"\xff") as database:
        database.status = 500
        with sink_to(Wire(replace(QUICK, url=database.url.removesuffix("/metrics")))) as sink:
            sink.put([power(1)])
            until(lambda: sink.counts().retries > 1)
            database.status = 204
            assert settled(sink).written == 1


@pytest.mark.integration
@pytest.mark.parametrize(("said", "refused"), [("dropped=1", 1), ("dropped=0", 3), ("unable to parse", 3)])
def test_what_a_database_refused_without_a_count_is_not_called_written(said: str, refused: int) -> None:
    with Endpoint(lambda: said) as database:
        database.status = 400
        with sink_to(Wire(replace(QUICK, url=database.url.removesuffix("/metrics")))) as sink:
            sink.put([power(1), power(2), power(3)])
            assert settled(sink) == SinkCounts(written=3 - refused, refused=refused)


@pytest.mark.integration
def test_agents_and_daemons_do_without_the_client_where_no_database_is_named() -> None:
    code = "import sys, polcad.agent, polcad.daemon; print([name for name in sys.modules if 'influxdb_client' in name])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
