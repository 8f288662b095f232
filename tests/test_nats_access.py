"""What `polcad broker-config --broker nats` writes, on real nats-servers; `tests/test_hostile.py` tries each right."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from polcad.access import Inventory, locks
from polcad.broker_spec import BrokerSpec
from polcad.errors import ConfigError, UnavailableError
from polcad.mqtt import Link, Presence
from polcad.nats_config import USERS, nats_files
from polcad.spec import NodeSpec, RowSpec
from polcad.standby import Claim, Entry, lock_of
from polcad.standby_nats import NatsStore
from polcad.standby_spec import StandbySpec
from polcad.testing_nats import CLUSTER_SIZE, NatsCluster, NatsServer
from polcad.wire import Address
from tests.secured import Secured, secure
from tests.waiting import until

ROWS = tuple(
    Inventory("site", RowSpec(f"r{n}", 9e3, nodes=(NodeSpec(f"n{n}", "k1"),), fail_safe_budget_w=4e3)) for n in (1, 2)
)
HOSTS = ("a.example", "b.example", "c.example")


def access(text: str, name: str) -> str:
    return next(block for block in text.split("    {\n") if f'user: "{name}"' in block)


def test_the_list_has_the_tables_rights_as_subjects_and_denies_who_has_none() -> None:
    users = nats_files(ROWS, HOSTS)[USERS]
    assert users.count("user: ") == users.count("publish: ") == users.count("subscribe: ")
    assert '"polcad.v1.site.r1.k1.n1.telemetry"' in access(users, "n1")
    assert '"polcad.v1.site.r1.*.*.telemetry"' in access(users, "daemon.r1")
    assert '"polcad.v1.site.r1.>"' in access(users, "reader.site")
    assert 'publish: { deny: ">" }' in access(users, "reader.site")


def test_daemons_alone_may_speak_nats_and_then_hear_nothing_of_other_rows() -> None:
    blocks = {name: access(nats_files(ROWS, HOSTS)[USERS], name) for name in ("n1", "reader.site", "daemon.r1")}
    assert [name for name, block in blocks.items() if "STANDARD" in block] == ["daemon.r1"]
    assert [name for name, block in blocks.items() if "$MQTT.sub.>" in block] == ["n1", "reader.site"]
    assert "r2" not in blocks["daemon.r1"]


@pytest.mark.parametrize(
    ("hosts", "why"),
    [((), "0 hosts"), (HOSTS[:2], "2 hosts"), (("10.0.0.1",), "DNS name"), ((*HOSTS[:2], "n1"), "a client")],
)
def test_hosts_that_make_no_safe_cluster_are_refused(hosts: tuple[str, ...], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        nats_files(ROWS, hosts)


# --- on real servers -------------------------------------------------------------------------------------------------


async def hears_plans(server: NatsServer, secured: Secured, name: str, within_s: float) -> bool:
    """Whether a node is let in and may hear its row's plan."""
    spec = BrokerSpec(port=server.port, tls=secured.tls(name), connect_timeout_s=within_s)
    plan = Address("site", f"r{name[1:]}", "plan")
    link = Link(spec, Presence("x", (plan,)), time.monotonic, Random(1))  # noqa: S311  # spreads retries
    try:
        async with link.opened():
            return True
    except UnavailableError:
        return False


def in_row(server: NatsServer, secured: Secured, name: str, within_s: float = 10.0) -> bool:
    return asyncio.run(hears_plans(server, secured, name, within_s))


@pytest.mark.integration
def test_a_node_that_joins_is_let_in_and_one_that_leaves_is_cut_off_by_a_signal(tmp_path: Path) -> None:
    secured = secure(tmp_path, ROWS)
    with replace(secured, rows=ROWS[:1]).nats() as server:
        assert [in_row(server, secured, name) for name in ("n1", "n2")] == [True, False]

        async def until_cut_off() -> None:
            spec = BrokerSpec(port=server.port, tls=secured.tls("n1"))
            async with Link(spec, Presence("n1"), time.monotonic, Random(1)).opened() as link:  # noqa: S311  # the same
                (tmp_path / "etc" / USERS).write_text(nats_files(ROWS[1:], ["localhost"])[USERS])
                server.reload()
                while link.connected:  # noqa: ASYNC110  # the test is about the broker's end of it
                    await asyncio.sleep(0.01)

        asyncio.run(asyncio.wait_for(until_cut_off(), 20.0))
        assert [in_row(server, secured, name) for name in ("n1", "n2")] == [False, True]


@pytest.mark.integration
def test_where_keys_are_pinned_a_revoked_one_is_refused_and_the_next_let_in(tmp_path: Path) -> None:
    secured = secure(tmp_path, ROWS)
    stolen = tmp_path / "stolen"
    stolen.mkdir()
    for part in ("crt", "key"):
        (stolen / f"n1.{part}").write_bytes((tmp_path / f"pki/issued/n1.{part}").read_bytes())
    with secured.nats(secured.authority.pins()) as server:
        assert in_row(server, secured, "n1")
    secured.authority.revoke("n1")
    secured.authority.issue("n1", 1.0)
    with secured.nats(secured.authority.pins()) as server:
        assert in_row(server, secured, "n1")
        for part in ("crt", "key"):
            (tmp_path / f"pki/issued/n1.{part}").write_bytes((stolen / f"n1.{part}").read_bytes())
        assert not in_row(server, secured, "n1", 1.0)


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Secured:
    return secure(tmp_path_factory.mktemp("secured"), ROWS, cluster=True)


@pytest.fixture(scope="module")
def cluster(secured: Secured) -> Iterator[NatsCluster]:
    with secured.cluster() as running:
        yield running


async def take(cluster: NatsCluster, secured: Secured, name: str, lock: str, within_s: float) -> Entry | None:
    """A lock, taken by an identity; UnavailableError where it may not."""
    url = f"tls://localhost:{cluster.nodes[0].client_port}"
    store = NatsStore(StandbySpec((url,), tls=secured.tls(name), replicas=3), lock, within_s)
    try:
        found = await store.read()
        await store.write(Claim("host", "run", 1), found.revision if found else 0)
        return await store.read()
    finally:
        await store.close()


@pytest.mark.integration
def test_daemons_take_their_own_lock_and_nobody_elses(cluster: NatsCluster, secured: Secured) -> None:
    for name in ("daemon.r1", "site.site"):
        held = asyncio.run(take(cluster, secured, name, locks(ROWS)[name], 10.0))
        assert held is not None
        assert held.claim.host == "host"
    for name in ("daemon.r2", "n1", "reader.site"):
        with pytest.raises(UnavailableError):
            asyncio.run(take(cluster, secured, name, lock_of("site", "r1"), 1.0))


@pytest.mark.integration
def test_a_stolen_certificate_of_a_node_makes_no_server_part_of_the_cluster(
    cluster: NatsCluster, secured: Secured, tmp_path: Path
) -> None:
    tls = secured.tls("n1")
    rogue = NatsServer(
        tmp_path,
        f"""
        server_name: rogue
        listen: 127.0.0.1:$port
        cluster {{
          name: polcad, listen: 127.0.0.1:$route_port, routes: [$routes]
          tls {{ ca_file: "{tls.ca}", cert_file: "{tls.cert}", key_file: "{tls.key}" }}
        }}
        """,
    )
    rogue.write([f"nats://localhost:{cluster.nodes[0].route_port}"])
    rogue.launch()
    try:
        until(lambda: "Authorization Violation" in rogue.log.read_text(), 20.0)
    finally:
        rogue.stop()
    assert cluster.nodes[0].ask("routez")["num_routes"] == CLUSTER_SIZE - 1
