"""What a row is sent by mistake or on purpose, over a real broker: counted, said once, and never a reason to loosen."""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from polcad.model import (
    FREE,
    EventKind,
    NodePlacement,
    Plan,
    RowStatus,
)
from polcad.testing import telemetry
from polcad.testing_brokers import Broker, Mosquitto
from polcad.wire import Address, Message, encode
from tests.fake_nvml.control import FakeNvml
from tests.live_row import FREE_MHZ, LOW_T1, LiveRow, Watch, boards_in
from tests.waiting import until

pytestmark = pytest.mark.integration

ROW = "polcad/v1/site/row"
N2 = f"{ROW}/r1/n2/telemetry"
TIMES = 5  # that each thing is sent


def good(node: str = "n2") -> dict[str, Any]:
    """A message of that node which nobody would refuse."""
    message = encode(Address("site", "row", "telemetry", "r1", node), telemetry(node, 100.0, gpus=2, max_w=400.0))
    content: dict[str, Any] = json.loads(message.payload)
    return content


def with_power(power_w: str) -> bytes:
    """The good message with something else for the first GPU's power."""
    return json.dumps(good()).replace('"power_w": [100.0,', f'"power_w": [{power_w},').encode()


def with_fields(**fields: Any) -> bytes:
    return json.dumps({**good(), **fields}).encode()


REFUSED = {
    "malformed": Message(N2, b'{"node": "n2", '),
    "not UTF-8": Message(N2, b"\xff\xfe\x00"),
    "nothing": Message(N2, b""),
    "null": Message(N2, b"null"),
    "a list": Message(N2, b"[1, 2]"),
    "deep": Message(N2, b"[" * 100_000),
    "a number as text": Message(N2, with_fields(seq="1")),
    "a text as number": Message(N2, with_fields(boot_id=7)),
    "no reading": Message(N2, with_fields(reading=None)),
    "NaN": Message(N2, with_power("NaN")),
    "infinite": Message(N2, with_power("Infinity")),
    "beyond a double": Message(N2, with_power("1e999")),
    "negative watts": Message(N2, with_power("-100.0")),
    "1e308 watts": Message(N2, with_power("1e308")),
    "a period of nothing": Message(N2, with_fields(period_s=0)),
    "a ragged column": Message(N2, with_power("1.0, 2.0, 3.0")),
    "another's name": Message(N2, json.dumps(good("n3")).encode()),
    "a name that is none": Message(f"{ROW}/r1/N2/telemetry", json.dumps(good()).encode()),
    "a placement of garbage": Message(f"{ROW}/r1/n2/placement", b"{}", 1),
    "a placement of another": Message(
        f"{ROW}/r1/n2/placement",
        encode(Address("site", "row", "placement", "r1", "n3"), NodePlacement("n3")).payload,
        1,
    ),
    "a hold of garbage": Message(f"{ROW}/hold/h1", b'{"setpoint": {"clock_frac": -1}}', 1),
    "a hold with a newline": Message(
        f"{ROW}/hold/h1", b'{"name": "h1", "scope": "row\\n", "setpoint": {"clock_frac": 0.5}, "until_t": 1e10}', 1
    ),
    "a status of garbage": Message(f"{ROW}/daemon", b"online", 1),
}


PLAN = Address("site", "row", "plan")
STRANGE_PLANS = {  # obeyed, each would set the row free
    "an older epoch": encode(PLAN, Plan("row", 1, 2**40, 0.0, 60.0, FREE)),
    "another row": encode(PLAN, Plan("row2", 2**52, 1, 0.0, 60.0, FREE)),
    "a lease of years": Message(f"{ROW}/plan", b'{"row": "row", "epoch": 9e15, "seq": 1, "t": 0, "lease_s": 1e9}'),
    "no numbers": Message(f"{ROW}/plan", b'{"row": "row", "epoch": NaN, "seq": 1, "t": 0, "lease_s": 1}'),
    "garbage": Message(f"{ROW}/plan", b"\x00" * 100),
    "10 MB": Message(f"{ROW}/plan", b" " * 10_000_000),
}


@pytest.fixture(scope="module")
def locked(fake_nvml_lib: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveRow]:
    """A row at T1: what were loosened would be seen."""
    folder = tmp_path_factory.mktemp("locked")

    with Mosquitto(folder) as broker, LiveRow(folder, broker, boards_in(folder, fake_nvml_lib)) as row:
        row.start_all()
        row.load(0.8)
        row.until_clocks(FREE_MHZ, LOW_T1)
        yield row


@contextmanager
def nothing_loosened(row: LiveRow) -> Iterator[None]:
    """The daemon goes on, the agents follow it, and no lock was looser for one look."""
    with Watch(row.all_gpus()) as watch:
        yield
        status = row.tap.status()
        assert status is not None
        row.until_status(lambda now: now.seq > status.seq)
        row.until_followed()
    assert watch.loosened() == []
    assert row.clocks() == {"n1": {FREE_MHZ}, "n2": {LOW_T1}, "n3": {LOW_T1}}


def counter(row: LiveRow, name: str) -> int:
    status = row.tap.status()
    return status.counters.get(name, 0) if status else 0


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_believed_is_counted_and_changes_nothing(locked: LiveRow, name: str) -> None:
    before = counter(locked, "refused_messages")
    with nothing_loosened(locked):
        for _ in range(TIMES):
            locked.tap.send(REFUSED[name])
        locked.until_status(lambda status: status.counters["refused_messages"] == before + TIMES)


@pytest.mark.parametrize("name", STRANGE_PLANS)
def test_a_plan_that_is_not_the_daemons_is_not_followed(locked: LiveRow, name: str) -> None:
    with nothing_loosened(locked):
        for _ in range(TIMES):
            locked.tap.send(STRANGE_PLANS[name])
        locked.until_followed()


def test_a_plan_of_an_older_epoch_is_counted_by_the_node(locked: LiveRow) -> None:
    def refused() -> int:
        said = locked.tap.telemetry("n2")
        return said.plan.refused if said and said.plan else 0

    before = refused()
    locked.tap.send(STRANGE_PLANS["an older epoch"])
    until(lambda: refused() == before + 1)


def test_ten_megabytes_are_counted_and_dropped(locked: LiveRow) -> None:
    before = counter(locked, "oversized")
    with nothing_loosened(locked):
        locked.tap.send(Message(N2, b"9" * 10_000_000))
        locked.until_status(lambda status: status.counters["oversized"] == before + 1)


def test_topics_that_are_none_of_the_rows_reach_nobody(locked: LiveRow) -> None:
    before = counter(locked, "refused_messages"), counter(locked, "telemetry")
    with nothing_loosened(locked):
        for topic in ("polcad/v2/site/row/r1/n2/telemetry", f"{ROW}/wish", f"{ROW}/r1/n2/plan", "other"):
            locked.tap.send(Message(topic, json.dumps(good()).encode()))
    assert counter(locked, "refused_messages") == before[0]
    assert counter(locked, "telemetry") > before[1]


def test_telemetry_that_comes_again_or_late_is_counted_and_not_taken(locked: LiveRow) -> None:
    last = locked.tap.telemetry("n2")
    assert last is not None
    before = counter(locked, "out_of_order")
    numbers = [last.seq - 2, last.seq - 9, last.seq - 2, 1]
    with nothing_loosened(locked):
        for number in numbers:
            late = replace(last, seq=number, in_force=None)
            locked.tap.send(encode(Address("site", "row", "telemetry", "r1", "n2"), late))
        until(lambda: counter(locked, "out_of_order") == before + len(numbers))
    assert not locked.tap.events(EventKind.DUPLICATE_NAME)


def test_telemetry_that_is_planted_to_be_kept_is_refused(locked: LiveRow) -> None:
    """A daemon that starts hears it as retained; while none runs, nobody takes it for live."""
    killed = locked.programs["daemon"].process
    killed.kill()
    killed.wait()
    locked.tap.send(replace_retain(Message(N2, json.dumps(good()).encode())))
    locked.daemon()
    locked.until_status(lambda status: status.online and status.counters.get("refused_messages", 0) >= 1)
    locked.tap.send(Message(N2, b"", 0, retain=True))
    locked.until_clocks(FREE_MHZ, LOW_T1)


def test_of_two_daemons_the_older_yields_and_nothing_is_loosened(locked: LiveRow) -> None:
    older = locked.programs["daemon"]
    with nothing_loosened(locked):
        newer = locked.daemon()
        assert older.process.wait(10.0) == 76
        assert "has it, this daemon is" in older.log.read_text()
        locked.until_followed()
    assert newer.process.poll() is None


def test_a_source_is_complained_of_once_a_minute(locked: LiveRow) -> None:
    lines = locked.programs["daemon"].log.read_text().splitlines()
    said = Counter(line.split(": ")[1] for line in lines if line.startswith("WARNING polcad.daemon:"))
    started = sum("the page is at" in line for line in lines)
    assert said[N2] >= 1
    assert max(said.values()) <= started


# --- a row whose nodes are played here --------------------------------------------------------------------------------


class Played:
    """A daemon, and this test in the place of its three nodes."""

    def __init__(self, row: LiveRow) -> None:
        self.row, self.seq = row, Counter[str]()

    def say(self, node: str, power_w: float | Sequence[float | None] = 100.0, **more: Any) -> None:
        """A message of that node, with the next number."""
        self.seq[node] += 1
        said = telemetry(node, power_w, gpus=2, max_w=400.0, seq=self.seq[node], setpoint=FREE, **more)
        self.row.tap.send(encode(Address("site", "row", "telemetry", "r1", node), said))

    def power_w(self) -> float:
        """What the daemon counts for the row."""
        status = self.row.tap.status()
        return status.domains[0].power_w if status and status.domains else 0.0

    def until_power(self, power_w: float) -> None:
        until(lambda: abs(self.power_w() - power_w) < 0.1)


@pytest.fixture
def played(tmp_path: Path, any_broker: Broker, fake_nvml_nodes: Callable[..., FakeNvml]) -> Iterator[Played]:
    with LiveRow(tmp_path, any_broker, fake_nvml_nodes) as row:
        row.write_config(stale_after_s=8.0, dwell_s=0.2)
        row.daemon()
        row.until_status(lambda status: status.online)
        nodes = Played(row)
        for name in row.boards:
            nodes.say(name)
        nodes.until_power(600.0)
        yield nodes


def test_a_node_that_the_inventory_lacks_is_counted_and_told_once(played: Played) -> None:
    for _ in range(TIMES):
        played.say("n9", 150.0)
    played.until_power(900.0)
    assert len(played.row.tap.events(EventKind.UNLISTED, "node/n9")) == 1
    assert counter(played.row, "unlisted") == 1


def test_two_nodes_under_one_name_are_told_once_and_count_their_worst_case(played: Played) -> None:
    for _ in range(TIMES):
        for boot in ("first", "second"):
            played.say("n2", 100.0, boot_id=boot)
    played.until_power(400.0 + 2 * 400.0)
    assert len(played.row.tap.events(EventKind.DUPLICATE_NAME, "node/n2")) == 1


def test_a_gpu_that_vanishes_counts_on_and_may_return_under_another_index(played: Played) -> None:
    first, second = "GPU-n2-0", "GPU-n2-1"
    played.say("n2", [120.0, 180.0], uuids=(first, second))
    played.until_power(700.0)
    played.say("n2", [150.0], uuids=(second,))
    played.until_power(400.0 + 150.0 + 120.0)
    played.say("n2", [160.0, 130.0], uuids=(second, first))
    played.until_power(400.0 + 290.0)


def test_a_node_whose_clock_is_hours_off_is_as_fresh_as_any(played: Played) -> None:
    for hours in (-7, 7, -100_000, 0):
        played.seq["n2"] += 1
        said = telemetry("n2", 100.0 + hours % 5, gpus=2, max_w=400.0, seq=played.seq["n2"], setpoint=FREE)
        said = replace(said, t=max(0.0, time.time() + 3600.0 * hours))
        played.row.tap.send(encode(Address("site", "row", "telemetry", "r1", "n2"), said))
        played.until_power(600.0 + 2 * (hours % 5))
    played.row.until_status(lambda status: status.nodes_stale == 0)
    assert not played.row.tap.events(EventKind.STALE)


@pytest.mark.parametrize("power_w", [0.0, 99_999.0, None])
def test_a_sensor_that_cannot_be_right_is_no_headroom(played: Played, power_w: float | None) -> None:
    played.say("n2", [power_w, 100.0])
    until(lambda: bool(played.row.tap.events(EventKind.SENSOR_FAULT, "node/n2")))
    assert played.power_w() == pytest.approx(600.0)
    played.say("n2")
    until(lambda: bool(played.row.tap.events(EventKind.SENSOR_OK, "node/n2")))


# --- what was planted before anybody came -----------------------------------------------------------------------------


def test_a_row_starts_over_retained_garbage_and_a_daemon_hours_ahead(
    tmp_path: Path, any_broker: Broker, fake_nvml_nodes: Callable[..., FakeNvml]
) -> None:
    ahead = int((time.time() + 3 * 3600) * 1e6)
    planted = [
        Message(f"{ROW}/r1/n2/placement", b"\xff{", 1, retain=True),
        Message(f"{ROW}/r1/n3/placement", b"[]", 1, retain=True),
        Message(f"{ROW}/r1/n1/state", b"nonsense", 1, retain=True),
        Message(f"{ROW}/hold/h1", b"{}", 1, retain=True),
        Message(f"{ROW}/r1/n2/telemetry", json.dumps(good()).encode(), 1, retain=True),
        replace_retain(encode(PLAN, Plan("row", ahead + 5, 7, 0.0, 60.0, FREE))),
        encode(Address("site", "row", "daemon"), RowStatus("row", online=True, epoch=ahead)),
    ]
    with LiveRow(tmp_path, any_broker, fake_nvml_nodes) as row:
        for message in planted:
            row.tap.send(message)
        row.start_all()
        status, said = row.tap.status(), row.tap.telemetry("n1")
        assert status is not None
        assert status.epoch > ahead
        assert status.counters["refused_messages"] >= 4
        assert said is not None
        assert said.plan is not None
        row.load(0.8)
        row.until_clocks(FREE_MHZ, LOW_T1)
        assert {noun.node for noun in row.tap.nouns("state") if noun.online} == set(row.boards)


def replace_retain(message: Message) -> Message:
    """The same, to be kept by the broker."""
    return Message(message.topic, message.payload, 1, retain=True)
