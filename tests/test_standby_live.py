"""Two daemons of one row as processes, on a real Mosquitto and a real NATS, judged at the boards' registers."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from polcad.doctor.check import Check, State
from polcad.doctor.lock import check_lock
from polcad.errors import UnavailableError
from polcad.model import EventKind, RowStatus
from polcad.standby import Claim
from polcad.standby_nats import NatsStore
from polcad.standby_spec import StandbySpec
from polcad.testing_brokers import StartMosquitto
from polcad.testing_nats import NatsCluster, NatsServer
from polcad.wire import Address, encode
from tests.chaos.proxy import Proxy
from tests.fake_nvml.control import FakeNvml
from tests.live_row import BRAKE, DWELL_S, LEASE_S, SLACK_S, Watch
from tests.standby_row import STOOD_DOWN, StandbyRow
from tests.waiting import until

pytestmark = pytest.mark.integration

TAKEOVER_S = 2 * LEASE_S


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[NatsServer]:
    with NatsServer(tmp_path) as server:
        yield server


@pytest.fixture
def row(
    tmp_path: Path, mosquitto: StartMosquitto, fake_nvml_nodes: Callable[..., FakeNvml], nats: NatsServer
) -> Iterator[StandbyRow]:
    with StandbyRow(tmp_path, mosquitto(), fake_nvml_nodes, servers=[nats.url]) as made:
        yield made


def epoch_of(row: StandbyRow) -> int:
    status = row.tap.status()
    assert status is not None
    return status.epoch


def until_capped(row: StandbyRow) -> None:
    """Full load, and every board braked once and let go to a lock."""
    row.load(1.0)
    until(lambda: bool(row.tap.events(EventKind.BRAKE_RELEASE, "row")), 20.0)
    until(lambda: BRAKE not in set().union(*row.clocks().values()))


def test_the_second_leads_within_two_leases_of_a_kill_in_the_middle_of_a_cap_and_loosens_nothing(
    row: StandbyRow,
) -> None:
    first, _ = row.start_both()
    until_capped(row)
    older = epoch_of(row)
    with Watch(row.all_gpus()) as watch:
        killed_s = time.monotonic()
        first.kill()
        until(lambda: row.first_plan_s(older, killed_s) < float("inf"), TAKEOVER_S + SLACK_S)
        planned_s = row.first_plan_s(older, killed_s)
        row.until_followed()
    assert planned_s - killed_s < TAKEOVER_S
    assert [step for step in watch.loosened() if step.t < planned_s + DWELL_S / 2] == []
    assert row.leader() == "second"
    assert [event.detail for event in row.tap.events(EventKind.TAKEOVER, since=killed_s)] == [
        "second leads from now on"
    ]


def test_with_a_short_ttl_the_second_leads_before_any_lease_of_a_killed_leader_ends(row: StandbyRow) -> None:
    row.ttl_s = 1.5
    row.write_config(lease_s=5.0)
    first, _ = row.start_both()
    older, killed_s = epoch_of(row), time.monotonic()
    first.kill()
    until(lambda: row.first_plan_s(older, killed_s) < float("inf"), 5.0)
    row.until_followed()
    assert {said.plan.lease for said in row.tap.nouns("telemetry", killed_s) if said.plan} == {"held"}


def test_a_leader_that_stood_still_is_followed_by_nobody_when_it_goes_on_and_ends(row: StandbyRow) -> None:
    first, second = row.start_both()
    until_capped(row)
    older = epoch_of(row)
    first.process.send_signal(signal.SIGSTOP)
    until(lambda: row.leader() == "second", TAKEOVER_S + SLACK_S)
    row.until_followed()
    with Watch(row.all_gpus()) as watch:
        thawed_s = time.monotonic()
        first.process.send_signal(signal.SIGCONT)
        assert first.process.wait(20.0) == STOOD_DOWN
        assert "started again, it is the standby" in (row.folder / "first.log").read_text()
        followed = [said.plan.epoch for said in row.tap.nouns("telemetry", thawed_s) if said.plan]
    assert followed
    assert min(followed) > older
    assert watch.loosened() == []
    assert second.process.poll() is None


def test_a_leader_that_alone_is_cut_off_from_the_engine_is_replaced_and_waits_once_it_is_started_again(
    row: StandbyRow, nats: NatsServer
) -> None:
    with Proxy(nats.client_port) as link:
        config = row.folder / "first.toml"
        config.write_text(config.read_text().replace(f":{nats.client_port}", f":{link.port}"))
        first, _ = row.start_both()
        until_capped(row)
        link.cut("up", "down")
        assert first.process.wait(TAKEOVER_S + SLACK_S) == STOOD_DOWN
        until(lambda: row.leader() == "second")
        row.until_followed()
        link.mend()
        again = row.host("first")
        until(lambda: row.told("first", "readyz") == "ok\n", 30.0)
    assert again.stop() == 0
    assert row.leader() == "second"


def test_a_leader_whose_engine_is_gone_leads_on_and_nobody_begins(row: StandbyRow, nats: NatsServer) -> None:
    first, _ = row.start_both()
    nats.stop(signal.SIGKILL)
    until(lambda: "NATS" in row.told("second", "readyz"))
    until(lambda: 'polcad_lock_up{row="row"} 0.0' in row.told("first", "metrics"))
    gone_s, epoch = time.monotonic(), epoch_of(row)
    until(lambda: len(row.plans(gone_s)) > 2 * TAKEOVER_S / 0.1, 4 * TAKEOVER_S)  # at a plan a tick of 0.1 s
    assert row.told("first", "readyz") == "ok\n"
    nats.start()
    until(lambda: row.told("second", "readyz") == "ok\n")
    back_s = time.monotonic()
    until(lambda: len(row.plans(back_s)) > TAKEOVER_S / 0.1, 4 * TAKEOVER_S)
    assert {plan.epoch for plan in row.plans(gone_s)} == {epoch}
    first.kill()
    until(lambda: row.leader() == "second", TAKEOVER_S + SLACK_S)


def test_a_daemon_that_finds_no_engine_at_its_start_waits_for_it(row: StandbyRow, nats: NatsServer) -> None:
    nats.stop()
    for name in row.priorities:
        row.agent(name)
    for host in ("first", "second"):
        row.host(host)
    until(lambda: all("NATS" in row.told(host, "readyz") for host in ("first", "second")), 30.0)
    assert row.plans() == []
    nats.start()
    until(lambda: bool(row.plans()), LEASE_S + TAKEOVER_S + SLACK_S)
    row.until_followed()
    assert len({plan.epoch for plan in row.plans()}) == 1


def test_a_clean_stop_hands_the_row_over_before_any_lease_ends(row: StandbyRow) -> None:
    first, _ = row.start_both()
    until_capped(row)
    row.until_followed()
    older, stopped_s = epoch_of(row), time.monotonic()
    assert first.stop() == 0
    until(lambda: row.first_plan_s(older, stopped_s) < float("inf"), LEASE_S)
    row.until_followed()
    leases = {said.plan.lease for said in row.tap.nouns("telemetry", stopped_s) if said.plan}
    assert leases == {"held"}
    assert row.leader() == "second"


def test_a_second_whose_clock_is_an_hour_behind_outranks_the_first(row: StandbyRow) -> None:
    ahead = int((time.time() + 3600.0) * 1e6)  # as if the first's clock were
    row.tap.send(encode(Address("site", "row", "daemon"), RowStatus("row", online=False, epoch=ahead)))
    first, _ = row.start_both()
    until(lambda: epoch_of(row) > ahead)
    older, killed_s = epoch_of(row), time.monotonic()
    first.kill()
    until(lambda: row.first_plan_s(older, killed_s) - killed_s < TAKEOVER_S, TAKEOVER_S + SLACK_S)
    row.until_followed()
    assert row.leader() == "second"


def test_a_daemon_that_cannot_reach_the_broker_lets_the_other_lead(row: StandbyRow, mosquitto: StartMosquitto) -> None:
    row.start_both()
    other = mosquitto()
    config = row.folder / "first.toml"
    config.write_text(config.read_text().replace(f"port = {row.broker.port}\n", f"port = {other.port}\n"))
    other.stop()
    row.programs["first"].stop()
    until(lambda: row.leader() == "second", LEASE_S + SLACK_S)
    row.host("first")
    until(lambda: "the broker is not reached" in row.told("first", "readyz"), 30.0)
    row.programs["second"].kill()
    until(lambda: row.programs["first"].process.poll() is None and not row.leader(), 30.0)


def test_a_cluster_of_three_that_loses_the_locks_own_node_keeps_the_lock(
    tmp_path: Path, mosquitto: StartMosquitto, fake_nvml_nodes: Callable[..., FakeNvml]
) -> None:
    with NatsCluster(tmp_path) as cluster:
        urls = [node.url for node in cluster.nodes]
        made = StandbyRow(tmp_path, mosquitto(), fake_nvml_nodes, servers=urls, replicas=3)
        with made as row:
            first, _ = row.start_both()
            epoch, lost_s = epoch_of(row), time.monotonic()
            lost = _leader_of_lock(cluster)
            lost.stop(signal.SIGKILL)
            until(lambda: row.told("second", "readyz") != "ok\n")
            until(lambda: row.told("second", "readyz") == "ok\n", 30.0)
            until(lambda: len(row.plans(time.monotonic() - TAKEOVER_S)) > 0)
            assert {plan.epoch for plan in row.plans(lost_s)} == {epoch}
            killed_s = time.monotonic()
            first.kill()
            until(lambda: row.first_plan_s(epoch, killed_s) - killed_s < TAKEOVER_S, TAKEOVER_S + SLACK_S)


def _leader_of_lock(cluster: NatsCluster) -> NatsServer:
    """The node that leads the bucket's stream."""
    for node in cluster.nodes:
        for account in node.ask("jsz?streams=true").get("account_details", []):
            for stream in account.get("stream_detail", []):
                if stream["name"] == "KV_polcad" and stream["cluster"].get("leader") == node.name:
                    return node
    raise AssertionError("nobody leads the lock's stream")


# --- the store alone ------------------------------------------------------------------------------------------------


@asynccontextmanager
async def store_at(nats: NatsServer, answer_s: float = 2.0) -> AsyncIterator[NatsStore]:
    store = NatsStore(StandbySpec((nats.url,)), "site.row", answer_s)
    try:
        yield store
    finally:
        await store.close()


def test_a_claim_is_written_only_over_the_entry_that_was_seen(nats: NatsServer) -> None:
    async def scenario() -> None:
        async with store_at(nats) as one, store_at(nats) as other:
            assert await one.read() is None
            first = await one.write(Claim("a", "x", 1), 0)
            assert first
            assert await other.write(Claim("b", "y", 2), 0) is None
            seen = await other.read()
            assert seen is not None
            assert seen.claim == Claim("a", "x", 1)
            assert await other.write(Claim("b", "y", 2), seen.revision)
            assert await one.write(Claim("a", "x", 3), first) is None

    asyncio.run(scenario())


def test_an_engine_that_stands_still_or_is_gone_is_told_in_time_and_found_again(nats: NatsServer) -> None:
    async def scenario() -> None:
        async with store_at(nats, 0.3) as store:
            assert await store.read() is None
            nats.pause()
            with pytest.raises(UnavailableError, match=r"no answer within 0\.3 s"):
                await store.read()
            nats.resume()
            assert await store.read() is None
            nats.stop(signal.SIGKILL)
            with pytest.raises(UnavailableError, match=nats.url):
                await store.read()
            nats.start()
            assert await store.read() is None

    asyncio.run(scenario())


def test_the_doctor_says_who_holds_the_lock_or_why_it_cannot_be_known(nats: NatsServer) -> None:
    spec = StandbySpec((nats.url,))

    def examined() -> Check:
        return asyncio.run(check_lock(spec, "site.row"))[0]

    async def claim() -> None:
        async with store_at(nats) as store:
            await store.write(Claim("a", "x", 1), 0)

    assert examined().detail == "NATS keeps the lock site.row; it is free"
    asyncio.run(claim())
    assert examined().detail == "NATS keeps the lock site.row; a holds it"
    nats.stop()
    assert (examined().state, examined().code) == (State.FAIL, 69)


def test_an_entry_that_is_none_of_ours_is_told_and_left_alone(nats: NatsServer) -> None:
    async def scenario() -> None:
        async with store_at(nats) as store:
            await store.read()
            assert store._bucket is not None
            await store._bucket.put("site.row", b"something else")
            with pytest.raises(UnavailableError, match="not a Claim"):
                await store.read()

    asyncio.run(scenario())


def test_a_wrong_password_and_a_missing_jetstream_are_told(tmp_path: Path) -> None:
    async def scenario(server: NatsServer) -> None:
        async with store_at(server) as store:
            with pytest.raises(UnavailableError, match=r"(?i)authorization"):
                await store.read()
        (tmp_path / "password").write_text("right\n")
        spec = StandbySpec((server.url,), user="polcad", password_file=str(tmp_path / "password"))
        store = NatsStore(spec, "site.row", 2.0)
        with pytest.raises(UnavailableError, match="JetStream"):
            await store.read()
        await store.close()

    with PlainNats(tmp_path, PLAIN) as server:
        asyncio.run(scenario(server))


def test_what_the_docs_configure_lets_polcad_in_and_no_further(tmp_path: Path) -> None:
    async def scenario(server: NatsServer) -> None:
        (tmp_path / "password").write_text("SECRET")
        spec = StandbySpec((server.url,), user="polcad", password_file=str(tmp_path / "password"))
        ours, stranger = NatsStore(spec, "site.row", 2.0), NatsStore(replace(spec, bucket="other"), "site.row", 0.5)
        try:
            assert await ours.read() is None
            assert await ours.write(Claim("a", "x", 1), 0)
            with pytest.raises(UnavailableError):
                await stranger.read()
        finally:
            await ours.close()
            await stranger.close()

    page = (Path(__file__).parents[1] / "docs" / "standby.md").read_text()
    conf = page.partition("```conf\n")[2].partition("```")[0]
    here = conf.replace("0.0.0.0:4222", "127.0.0.1:$port\nhttp: 127.0.0.1:$monitor_port")
    with PlainNats(tmp_path, here.replace("/var/lib/nats", "$store")) as server:
        asyncio.run(scenario(server))


PLAIN = """
server_name: $name
listen: 127.0.0.1:$port
http: 127.0.0.1:$monitor_port
authorization { user: polcad, password: right }
"""


class PlainNats(NatsServer):
    """A NATS without MQTT."""

    def ready(self) -> bool:
        return self.ask("healthz").get("status") == "ok"
