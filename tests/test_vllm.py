"""What a load tells of an engine: figures that are known beforehand, and silence where nothing is known."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.increase import Increase, quantile
from collectors.scrape import MAX_BYTES
from collectors.vllm import VllmCollector
from polcad.errors import ConfigError
from polcad.model import LENGTH_QUANTILES, PoolLoad
from polcad.testing_brokers import free_port
from polcad.wire import Address, decode, encode
from tests.fake_engine import Endpoint, Engine

T0 = 1.8e9


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with Endpoint() as served:
        yield served


@pytest.fixture
def engine(endpoint: Endpoint) -> Engine:
    made = Engine()
    endpoint.answer = made.text
    return made


def collector_at(url: str, **options: Any) -> VllmCollector:
    return VllmCollector({"pool": "sm", "instance": "sm-0", "tensor_parallel": 4, "url": url, **options})


def rates_of(load: PoolLoad) -> tuple[float | None, ...]:
    return load.requests_per_s, load.prompt_tokens_per_s, load.output_tokens_per_s


NOTHING = (None, None, None)


def test_rates_and_lengths_are_those_of_the_time_between_two_readings(endpoint: Endpoint, engine: Engine) -> None:
    for _ in range(500):
        engine.serve(4000, 3)  # before anybody looked
    collector = collector_at(endpoint.url)
    first = collector.read(T0)
    assert (rates_of(first), first.over_s, first.ttft_p50_s) == (NOTHING, None, None)
    assert first.fault == "the first reading: rates come with the next"
    for _ in range(30):
        engine.serve(150, 11)
    load = collector.read(T0 + 10)
    assert load.fault == ""
    assert rates_of(load) == pytest.approx((3.0, 450.0, 33.0), rel=0.01)
    assert load.over_s == pytest.approx(10.0, abs=0.1)
    assert load.prompt is not None
    assert load.prompt.mean == 150.0
    assert load.prompt.at == pytest.approx([100 + 100 * q for q in LENGTH_QUANTILES])  # straight within 100 to 200
    assert load.output is not None
    assert load.output.mean == 11.0


def test_times_are_quantiles_within_their_buckets(endpoint: Endpoint, engine: Engine) -> None:
    collector = collector_at(endpoint.url)
    collector.read(T0)
    for place in range(100):
        engine.serve(10, 2, ttft_s=0.2 if place < 90 else 0.7, tbt_s=0.02)
    load = collector.read(T0 + 10)
    assert load.ttft_p50_s == pytest.approx(0.1 + 0.15 * 50 / 90)
    assert load.ttft_p99_s == pytest.approx(0.5 + 0.5 * 9 / 10)
    assert load.tbt_p50_s == pytest.approx(0.01 + 0.015 * 0.5)


def test_requests_that_came_are_counted_while_they_wait(endpoint: Endpoint, engine: Engine) -> None:
    collector = collector_at(endpoint.url)
    collector.read(T0)
    engine.serve(10, 2)
    engine.serve(10, 2, why="abort")
    engine.running.set(6)
    engine.waiting.set(12)
    engine.kv_use.set(0.75)
    load = collector.read(T0 + 10)
    assert load.requests_per_s == pytest.approx(2.0, rel=0.01)
    assert (load.running, load.waiting, load.kv_use_frac) == (6, 12, 0.75)
    assert (load.pool, load.instance, load.tensor_parallel, load.t) == ("sm", "sm-0", 4, T0 + 10)


def test_older_names_tell_the_same(endpoint: Endpoint) -> None:
    engine = Engine(old_names=True)
    endpoint.answer = engine.text
    collector = collector_at(endpoint.url)
    collector.read(T0)
    engine.kv_use.set(0.5)
    engine.serve(10, 5, tbt_s=0.02)
    load = collector.read(T0 + 10)
    assert (load.fault, load.kv_use_frac) == ("", 0.5)
    assert load.tbt_p50_s is not None


def test_engines_of_one_server_add_up_and_their_caches_are_averaged(endpoint: Endpoint) -> None:
    both = [Engine(), Engine(engine="1")]
    endpoint.answer = lambda: "".join(each.text() for each in both)
    collector = collector_at(endpoint.url)
    collector.read(T0)
    for each, use_frac in zip(both, (0.2, 0.6), strict=True):
        each.serve(100, 5)
        each.kv_use.set(use_frac)
    load = collector.read(T0 + 10)
    assert load.prompt_tokens_per_s == pytest.approx(20.0, rel=0.01)
    assert load.kv_use_frac == pytest.approx(0.4)


def test_one_of_several_models_can_be_counted(endpoint: Endpoint) -> None:
    ours, theirs = Engine(), Engine(model="other")
    endpoint.answer = lambda: ours.text() + theirs.text()
    collector = collector_at(endpoint.url, model="llama")
    collector.read(T0)
    ours.serve(100, 5)
    theirs.serve(9000, 5)
    assert collector.read(T0 + 10).prompt_tokens_per_s == pytest.approx(10.0, rel=0.01)
    assert "no metric of model 'nobody'" in collector_at(endpoint.url, model="nobody").read(T0).fault


def test_a_window_slides(endpoint: Endpoint, engine: Engine) -> None:
    collector = collector_at(endpoint.url, window_s=20.0)
    for step in range(10):
        engine.serve(1000 if step == 0 else 10, 2)
        load = collector.read(T0 + 10 * step)
    assert load.prompt_tokens_per_s == pytest.approx(1.0, rel=0.01)
    assert load.over_s == pytest.approx(20.0, abs=0.1)


def test_after_a_restart_counting_begins_anew(endpoint: Endpoint) -> None:
    before, after = Engine(), Engine()
    endpoint.answer = before.text
    collector = collector_at(endpoint.url)
    for step in range(3):
        before.serve(1000, 100)
        collector.read(T0 + 10 * step)
    endpoint.answer = after.text
    load = collector.read(T0 + 30)
    assert (rates_of(load), load.fault) == (NOTHING, "its counters begin anew: rates come with the next reading")
    after.serve(10, 2)
    assert rates_of(collector.read(T0 + 40)) == pytest.approx((0.1, 1.0, 0.2), rel=0.01)


def test_a_restart_that_soon_counts_further_than_before_shows_by_its_start(endpoint: Endpoint) -> None:
    engine, started = Engine(), 1.7e9
    endpoint.answer = lambda: f"{engine.text()}process_start_time_seconds {started}\n"
    collector = collector_at(endpoint.url)
    collector.read(T0)
    engine, started = Engine(), 1.8e9
    for _ in range(50):
        engine.serve(100, 10)
    assert rates_of(collector.read(T0 + 10)) == NOTHING


def test_one_engine_of_two_that_restarts_hides_behind_no_sum(endpoint: Endpoint) -> None:
    both = [Engine(), Engine(engine="1")]
    endpoint.answer = lambda: "".join(each.text() for each in both)
    collector = collector_at(endpoint.url)
    both[0].serve(100, 5)
    collector.read(T0)
    both[0] = Engine()
    both[1].serve(5000, 50)
    assert rates_of(collector.read(T0 + 10)) == NOTHING


def test_an_endpoint_that_is_not_there_is_a_fault() -> None:
    url = f"http://127.0.0.1:{free_port()}/metrics"
    load = collector_at(url).read(T0)
    assert load == PoolLoad("sm", "sm-0", T0, 4, fault=f"{url}: Connection refused")


def test_a_silence_between_readings_is_bridged(endpoint: Endpoint, engine: Engine) -> None:
    collector = collector_at(endpoint.url)
    collector.read(T0)
    endpoint.status = 503
    engine.serve(400, 2)
    assert "it answers 503" in collector.read(T0 + 10).fault
    endpoint.status = 200
    assert collector.read(T0 + 20).prompt_tokens_per_s == pytest.approx(20.0, rel=0.01)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ("", "there is no metric of vLLM"),
        ("node_load1 0.5\n", "there is no metric of vLLM"),
        ("<html><body>It works!</body></html>", "what it tells are no metrics"),
        (b"\xff\xfe\x00", "codec can't decode"),
        ("vllm:prompt_tokens_total{le= 3\n", "what it tells are no metrics"),
        (b"#" * (MAX_BYTES + 1), f"more than {MAX_BYTES} bytes"),
    ],
)
def test_what_is_no_engine_is_said(endpoint: Endpoint, answer: str | bytes, told: str) -> None:
    endpoint.answer = lambda: answer
    load = collector_at(endpoint.url).read(T0)
    assert told in load.fault
    assert load.running is None


def test_an_answer_that_does_not_end_is_left(endpoint: Endpoint) -> None:
    going_on = threading.Event()
    endpoint.headers = {"Content-Length": "10"}
    endpoint.answer = lambda: str(going_on.wait(5.0))
    load = collector_at(endpoint.url, deadline_s=0.05).read(T0)
    going_on.set()
    assert "timed out" in load.fault


def test_a_redirect_is_not_followed(endpoint: Endpoint) -> None:
    endpoint.status, endpoint.headers = 302, {"Location": "http://127.0.0.1:1/"}
    assert "it answers 302" in collector_at(endpoint.url).read(T0).fault


def test_a_missing_metric_leaves_a_hole_and_is_named(endpoint: Endpoint, engine: Engine) -> None:
    endpoint.answer = lambda: "\n".join(
        line for line in engine.text().splitlines() if "num_requests_waiting" not in line and "first_token" not in line
    )
    collector = collector_at(endpoint.url)
    collector.read(T0)
    engine.serve(100, 5)
    load = collector.read(T0 + 10)
    assert load.fault == "it does not tell vllm:num_requests_waiting, vllm:time_to_first_token_seconds"
    assert (load.waiting, load.requests_per_s, load.ttft_p50_s) == (None, None, None)
    assert load.prompt_tokens_per_s == pytest.approx(10.0, rel=0.01)


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
def test_a_number_that_is_none_is_unknown_and_is_no_jump_when_it_returns(
    endpoint: Endpoint, engine: Engine, value: float
) -> None:
    collector = collector_at(endpoint.url, window_s=10.0)
    engine.serve(10_000, 5)
    whole = engine.text()
    line = next(line for line in whole.splitlines() if line.startswith("vllm:prompt_tokens_total"))
    broken = whole.replace(line, f"{line.rpartition(' ')[0]} {value}")
    engine.running.set(value)
    engine.kv_use.set(value)
    seen = []
    for step, answer in enumerate((whole, broken, whole, whole)):
        endpoint.answer = lambda answer=answer: answer  # type: ignore[misc]  # bound now
        seen.append(collector.read(T0 + 10 * step))
    assert [load.prompt_tokens_per_s in {None, 0.0} for load in seen] == [True] * 4
    assert seen[1].prompt_tokens_per_s is None
    assert seen[-1].prompt_tokens_per_s == 0.0
    endpoint.answer = engine.text
    last = collector.read(T0 + 50)
    assert (last.running, last.kv_use_frac, last.requests_per_s) == (None, None, None)
    assert "vllm:num_requests_running" in last.fault


def test_a_cache_in_per_cent_is_not_taken_for_a_fraction(endpoint: Endpoint, engine: Engine) -> None:
    engine.kv_use.set(35.0)
    assert collector_at(endpoint.url).read(T0).kv_use_frac is None


def test_what_lies_past_the_last_bucket_is_unknown_and_said(endpoint: Endpoint, engine: Engine) -> None:
    collector = collector_at(endpoint.url)
    collector.read(T0)
    for _ in range(10):
        engine.serve(9000, 2, ttft_s=60.0)
    load = collector.read(T0 + 10)
    assert load.ttft_p99_s is None
    assert "time_to_first_token_seconds lies beyond the last bucket" in load.fault
    assert load.prompt is not None
    assert load.prompt.at[-1] is None


def test_an_engine_that_hangs_tells_nothing(endpoint: Endpoint, engine: Engine) -> None:
    engine.running.set(3)
    collector = collector_at(endpoint.url, window_s=20.0)
    loads = [collector.read(T0 + 10 * step) for step in range(3)]
    assert loads[1].requests_per_s == 0.0  # a long prompt may take so long
    assert (rates_of(loads[2]), loads[2].running) == (NOTHING, None)
    assert loads[2].fault == "no token in 20 s although requests are there: the engine hangs"


@pytest.mark.usefixtures("engine")
def test_an_idle_engine_tells_that_nothing_comes(endpoint: Endpoint) -> None:
    collector = collector_at(endpoint.url, window_s=20.0)
    loads = [collector.read(T0 + 10 * step) for step in range(4)]
    assert (rates_of(loads[-1]), loads[-1].fault, loads[-1].prompt) == ((0.0, 0.0, 0.0), "", None)


def test_samples_that_bear_an_old_time_are_refused(endpoint: Endpoint, engine: Engine) -> None:
    old_ms = int((T0 - 300) * 1000)
    endpoint.answer = lambda: "\n".join(
        line if line.startswith("#") else f"{line} {old_ms}" for line in engine.text().splitlines()
    )
    assert "its samples are 300 s old" in collector_at(endpoint.url).read(T0).fault


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"url": "ftp://x/metrics"}, "write http://HOST:PORT/metrics"),
        ({"url": "http://me:secret@x/metrics"}, "without a user"),
        ({"url": "http://x:99999/"}, "Port out of range"),
        ({"deadline_s": 0}, "deadline_s=0"),
        ({"window_s": "long"}, "window_s='long'"),
        ({"windows": 3}, "unknown option windows"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        collector_at(**{"url": "http://x/metrics", **options})


def test_what_must_be_said_is_asked_for() -> None:
    with pytest.raises(ConfigError, match="url is missing"):
        VllmCollector({"pool": "p", "instance": "i"})


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(0, 50), min_size=1, max_size=6),
    beyond=st.integers(0, 5),
    q=st.floats(0.01, 1.0),
)
def test_a_quantile_lies_in_the_bucket_that_holds_it(counts: list[int], beyond: int, q: float) -> None:
    bounds = [float(2**place) for place in range(len(counts))]
    observed = [bound for bound, count in zip(bounds, counts, strict=True) for _ in range(count)]
    cumulative = [sum(counts[: place + 1]) for place in range(len(counts))]
    buckets = [*zip(bounds, map(float, cumulative), strict=True), (math.inf, float(len(observed) + beyond))]
    found, total = quantile(buckets, q), len(observed) + beyond
    rank = math.ceil(q * total - 1e-9)
    if not total or rank > len(observed):
        assert found is None
    else:
        upper = observed[max(0, rank - 1)]
        assert found is not None
        assert (upper / 2 if upper > 1.0 else 0.0) - 1e-6 <= found <= upper + 1e-6


def test_a_histogram_that_makes_no_sense_is_no_histogram() -> None:
    def grown(*pairs: tuple[str, float]) -> Increase:
        return Increase({}, {"x_bucket": {(("le", le),): count for le, count in pairs}})

    assert grown(("1", 5.0), ("+Inf", 4.0)).buckets("x") == ()
    assert grown(("1", 5.0)).buckets("x") == ()
    assert grown(("wide", 5.0), ("+Inf", 5.0)).buckets("x") == ()
    assert grown(("1", 5.0), ("+Inf", 6.0)).quantile("x", 0.5) == pytest.approx(0.6)


@settings(max_examples=20, deadline=None)
@given(texts=st.lists(st.text(max_size=60), min_size=2, max_size=3), spoil=st.integers(0, 2000))
def test_no_answer_makes_a_reading_raise_or_say_what_the_wire_refuses(texts: list[str], spoil: int) -> None:
    engine = Engine()
    engine.serve(100, 5)
    whole = engine.text()
    with Endpoint() as endpoint:
        collector = collector_at(endpoint.url, deadline_s=1.0)
        for step, text in enumerate(texts):
            endpoint.answer = lambda text=text: whole[:spoil] + text + whole[spoil:]  # type: ignore[misc]  # bound now
            load = collector.read(T0 + step)
            message = encode(Address("site", "", "load", pool="sm", instance="sm-0"), load)
            assert decode(message)[1] == load
