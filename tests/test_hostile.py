"""What a hostile client with a certificate can do: nothing but lie about itself. On a real Mosquitto, a real NATS."""

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import aiomqtt
import paho.mqtt.client as paho
import pytest
from aiomqtt.exceptions import MqttConnectError

from polcad.access import Inventory, rights
from polcad.broker_spec import BrokerSpec, TlsSpec
from polcad.errors import UnavailableError
from polcad.model import FREE, Hold, NodePlacement, NodeState, Plan, Rule, Setpoint, Why
from polcad.mqtt import Link, Presence
from polcad.pki import create, make_plan_key
from polcad.spec import NodeSpec, RowSpec
from polcad.testing import telemetry
from polcad.testing_brokers import Broker, Mosquitto
from polcad.wire import Address, Message, encode
from tests.fake_nvml.control import FakeNvml
from tests.live_row import BRAKE, FREE_MHZ, LiveRow
from tests.secured import AS_ROOT, WITNESS, Secured, secure
from tests.waiting import eventually, until

pytestmark = pytest.mark.integration

ROOT = "polcad/v1/site"
ROWS = (
    Inventory("site", RowSpec("r1", 9000.0, nodes=(NodeSpec("n1", "k1", pool="chat"), NodeSpec("n2", "k1")))),
    Inventory("site", RowSpec("r2", 9000.0, nodes=(NodeSpec("n3", "k1"),)), hints=True),
)
PROBE = b'{"from":"hostile"}'
FOREIGN = (  # for n2, everything but its own telemetry and state
    "r1/plan",
    "r1/daemon",
    "r1/event",
    "r1/hold/h1",
    "r1/k1/n1/telemetry",
    "r1/k1/n1/state",
    "r1/k1/n1/placement",
    "r1/k1/n2/placement",
    "r1/k2/n2/telemetry",
    "r1/k1/n2/other",
    "r1/k1/n2/telemetry/below",
    "r2/plan",
    "r2/k1/n2/telemetry",
    "r2/k1/n3/telemetry",
    "r2/daemon",
    "hint/chat",
    "load/chat/n2",
    "load/n2/i1",
    "elsewhere",
)
WILD = ("#", "+/#", f"{ROOT}/#", f"{ROOT}/+/+/+/telemetry", "$SYS/#", "$MQTT/sub/#", f"$share/g/{ROOT}/#")


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Secured:
    return secure(tmp_path_factory.mktemp("secured"), ROWS, "n9", "stolen")


@pytest.fixture(scope="module", params=["mosquitto", "nats"])
def broker(request: pytest.FixtureRequest, secured: Secured) -> Iterator[Broker]:
    with secured.broker() if request.param == "mosquitto" else secured.nats() as running:
        yield running


def client(broker: Broker, tls: TlsSpec, **more: Any) -> aiomqtt.Client:
    """A client that checks nothing of its own: what a stolen certificate would be used with."""
    more = {"protocol": aiomqtt.ProtocolVersion.V311, **more}
    return aiomqtt.Client("127.0.0.1", broker.port, tls_context=tls.context(), timeout=10.0, **more)


class Ear:
    """A client that hears what it can."""

    def __init__(self, there: aiomqtt.Client) -> None:
        self.heard: list[aiomqtt.Message] = []
        self._there = there

    async def listen(self) -> None:
        """Until cancelled."""
        async for message in self._there.messages:
            self.heard.append(message)

    async def settle(self) -> None:
        """Return once all is here that the broker sent before now: its answers come after that."""
        await self._there.subscribe("settled", 0)
        await eventually(lambda: not len(self._there.messages))

    @property
    def topics(self) -> set[str]:
        """Where the probe was heard; NATS tells who may hear everything of its own storage, too."""
        heard = {str(message.topic) for message in self.heard if message.payload == PROBE}
        return {topic for topic in heard if not topic.startswith("$MQTT/")}


@contextlib.asynccontextmanager
async def hearing(broker: Broker, tls: TlsSpec, *topics: str) -> AsyncIterator[Ear]:
    """What arrives for these subscriptions, as far as they are granted."""
    async with client(broker, tls) as there:
        ear = Ear(there)
        await there.subscribe([(topic, 0) for topic in topics])
        task = asyncio.create_task(ear.listen())
        try:
            yield ear
        finally:
            task.cancel()
            await asyncio.wait({task})


async def say(broker: Broker, tls: TlsSpec, topics: Iterable[str], *, retain: bool = False, user: str = "") -> None:
    """Say the probe, and return once the broker has acknowledged it: both do so also where they pass nothing on.

    NATS does not even let a stranger in.
    """
    with contextlib.suppress(MqttConnectError):
        async with client(broker, tls, username=user or None) as speaker:
            for topic in topics:
                await speaker.publish(topic, PROBE, 1, retain)


def granted(broker: Broker, secured: Secured, name: str, topics: Iterable[str], *, retain: bool = False) -> set[str]:
    """Which of these topics the broker lets a client write."""

    async def scenario() -> set[str]:
        async with hearing(broker, secured.tls(WITNESS), "#") as witness:
            await say(broker, secured.tls(name), topics, retain=retain)
            await witness.settle()
            return witness.topics

    return asyncio.run(scenario())


def every_topic() -> set[str]:
    """At least one topic for each right of anybody, and those that nobody has a right to."""
    rooted = {f"{ROOT}/{topic}" for topic in FOREIGN}
    named = {right.topic for each in rights(ROWS).values() for right in each}
    return rooted | {topic.replace("#", "x/y").replace("+", "x") for topic in named}


def may(name: str, topic: str, *, write: bool) -> bool:
    """What the table says."""
    found = (each for each in rights(ROWS).get(name, ()) if (each.write if write else each.read))
    return any(paho.topic_matches_sub(each.topic, topic) for each in found)


@pytest.mark.parametrize("name", [*rights(ROWS), "n9"])  # n9 is certified, and in no inventory
def test_everyone_says_what_the_table_lets_them_and_nothing_else(secured: Secured, broker: Broker, name: str) -> None:
    assert granted(broker, secured, name, every_topic()) == {
        topic for topic in every_topic() if may(name, topic, write=True)
    }


@pytest.mark.parametrize("name", [*rights(ROWS)])
def test_everyone_hears_what_the_table_lets_them_and_nothing_else(secured: Secured, broker: Broker, name: str) -> None:
    wanted = (*every_topic(), *(right.topic for right in rights(ROWS).get(name, ())), *WILD)

    async def scenario() -> None:
        async with hearing(broker, secured.tls(name), *wanted) as ear:
            await say(broker, secured.tls(WITNESS), every_topic())
            await ear.settle()
            assert ear.topics == {topic for topic in every_topic() if may(name, topic, write=False)}
            assert all(message.payload == PROBE for message in ear.heard)

    asyncio.run(scenario())


def test_a_certified_stranger_hears_nothing(secured: Secured, broker: Broker) -> None:
    async def scenario() -> None:
        with contextlib.suppress(MqttConnectError):
            async with hearing(broker, secured.tls("n9"), *every_topic(), *WILD) as ear:
                await say(broker, secured.tls(WITNESS), every_topic())
                await ear.settle()
                assert ear.heard == []

    asyncio.run(scenario())


@pytest.mark.parametrize("retain", [False, True])
def test_a_node_says_nothing_but_its_own_telemetry_and_state(secured: Secured, broker: Broker, retain: bool) -> None:
    own = {f"{ROOT}/r1/k1/n2/telemetry", f"{ROOT}/r1/k1/n2/state"}
    foreign = (*(f"{ROOT}/{topic}" for topic in FOREIGN), "$SYS/broker/version", "anything")
    assert granted(broker, secured, "n2", (*foreign, *own), retain=retain) == own

    async def scenario() -> None:
        async with hearing(broker, secured.tls(WITNESS), "#") as late:
            await eventually(lambda: not retain or late.topics >= own)
            await late.settle()
            assert late.topics <= own
        async with client(broker, secured.tls(WITNESS)) as cleaner:
            for topic in own:
                await cleaner.publish(topic, b"", 1, retain=True)

    asyncio.run(scenario())


def test_a_user_name_beside_the_certificate_is_worth_nothing(secured: Secured, broker: Broker) -> None:
    async def scenario() -> None:
        async with hearing(broker, secured.tls(WITNESS), f"{ROOT}/#") as witness:
            await say(broker, secured.tls("n2"), (f"{ROOT}/r1/plan", f"{ROOT}/r1/k1/n2/state"), user="daemon.r1")
            await witness.settle()
            assert witness.topics == {f"{ROOT}/r1/k1/n2/state"}

    asyncio.run(scenario())


@pytest.mark.parametrize("topic", ["r1/plan", "r1/k1/n1/state", "r1/hold/h1"])
def test_a_last_will_in_anothers_name_is_never_spoken(secured: Secured, broker: Broker, topic: str) -> None:
    will = aiomqtt.Will(f"{ROOT}/{topic}", b"will", 1, retain=True)
    own = aiomqtt.Will(f"{ROOT}/r1/k1/n2/state", b"own", 1)

    async def vanish(will: aiomqtt.Will) -> None:
        with contextlib.suppress(aiomqtt.MqttError):  # refused at once, or cut off here
            async with client(broker, secured.tls("n2"), will=will) as dying:
                dying._client._sock_close()
                await dying.publish("anything", b"", 1)

    async def scenario() -> None:
        async with hearing(broker, secured.tls(WITNESS), f"{ROOT}/#") as ear:
            await vanish(will)
            await vanish(own)
            await eventually(lambda: b"own" in {message.payload for message in ear.heard})
            assert b"will" not in {message.payload for message in ear.heard}

    asyncio.run(scenario())


def reaches(broker: Broker, tls: TlsSpec) -> None:
    spec = BrokerSpec(host="127.0.0.1", port=broker.port, tls=tls, connect_timeout_s=1.0)

    async def scenario() -> None:
        async with Link(spec, Presence("x"), time.monotonic, None).opened() as link:  # type: ignore[arg-type]  # never retries
            await link.publish(Message("anything", b"", 1))

    asyncio.run(scenario())


def test_without_a_certificate_of_this_authority_for_clients_nobody_comes_in(
    secured: Secured, broker: Broker, tmp_path: Path
) -> None:
    reaches(broker, secured.tls("n2"))
    other = create(tmp_path / "other", "test", 2.0)  # the same name, another key
    other.issue("daemon.r1", 1.0)
    ca = secured.tls("n1").ca
    forged = TlsSpec(ca, *(str(tmp_path / "other/issued" / f"daemon.r1.{part}") for part in ("crt", "key")))
    of_server = secured.tls("broker.localhost")
    for tls in (TlsSpec(ca), forged, of_server):
        with pytest.raises(UnavailableError):
            reaches(broker, tls)


def test_a_stolen_certificate_of_a_node_cannot_pose_as_the_broker(secured: Secured, tmp_path: Path) -> None:
    n2 = secured.tls("n2")
    lines = ["listener {port} 127.0.0.1", f"cafile {n2.ca}", f"certfile {n2.cert}", f"keyfile {n2.key}"]
    with Mosquitto(tmp_path, [*lines, "allow_anonymous true", *AS_ROOT]) as fake:
        with pytest.raises(UnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
            reaches(fake, secured.tls("n1"))
        context = ssl.create_default_context(cafile=n2.ca)
        context.check_hostname = False  # were it even called like the broker
        with (
            socket.create_connection(("127.0.0.1", fake.port), 5.0) as plain,
            pytest.raises(ssl.SSLCertVerificationError, match="purpose"),
        ):
            context.wrap_socket(plain)


def test_a_revoked_certificate_is_refused_once_the_broker_was_told(tmp_path: Path) -> None:
    secured = secure(tmp_path, ROWS)
    with secured.broker() as broker:
        stolen = tmp_path / "stolen"
        stolen.mkdir()
        for part in ("crt", "key"):
            (stolen / f"n2.{part}").write_bytes((tmp_path / f"pki/issued/n2.{part}").read_bytes())
        tls = TlsSpec(secured.tls("n1").ca, str(stolen / "n2.crt"), str(stolen / "n2.key"))
        reaches(broker, tls)
        secured.authority.renew("n2", 1.0)  # the stolen one is no longer the newest
        secured.authority.revoke("n2")
        secured.authority.issue("n2", 1.0)
        secured.install()
        broker.reload()
        until(lambda: refused(broker, tls))
        reaches(broker, secured.tls("n2"))


def refused(broker: Broker, tls: TlsSpec) -> bool:
    try:
        reaches(broker, tls)
    except UnavailableError:
        return True
    return False


# --- a row that lives through it -------------------------------------------------------------------------------------


class SecuredRow(LiveRow):
    """The live row on a broker that asks for certificates; its daemon signs, and its nodes follow what is signed."""

    secured: Secured

    def security(self, name: str) -> str:
        return self.secured.settings("daemon.row" if name == "daemon" else name)


@pytest.fixture(params=["mosquitto", "nats"])
def row(
    request: pytest.FixtureRequest, tmp_path: Path, fake_nvml_nodes: Callable[..., FakeNvml]
) -> Iterator[SecuredRow]:
    nodes = tuple(NodeSpec(name, "r1", gpus=2, gpu_max_w=400.0) for name in ("n1", "n2", "n3"))
    of_row = [Inventory("site", RowSpec("row", 2360.0, nodes=nodes))]
    secured = secure(tmp_path, of_row, cluster=request.param == "nats")
    make_plan_key(tmp_path / "pki", "row")
    with secured.broker() if request.param == "mosquitto" else secured.cluster() as broker:
        made = SecuredRow(tmp_path, broker, fake_nvml_nodes, tap_tls=secured.tls(WITNESS))
        made.secured = secured
        with made:
            yield made


def brake() -> Message:
    """A plan of a daemon newer than any."""
    rules = (Rule("row", Setpoint(0.2), Why.BRAKE),)
    return encode(Address("site", "row", "plan"), Plan("row", 2**52, 1, time.time(), 60.0, FREE, rules))


def test_a_stolen_certificate_of_a_node_moves_no_other_node_and_cuts_nobody_off(row: SecuredRow) -> None:
    row.start_all()
    status = row.tap.status()
    assert status is not None
    n1 = Address("site", "row", "telemetry", "r1", "n1")
    hot = telemetry("n1", 400.0, gpus=2, max_w=400.0, seq=2**50, boot_id="stolen", setpoint=FREE)
    attack = [
        brake(),
        encode(Address("site", "row", "hold", hold="h1"), Hold("h1", "row", Setpoint(0.2), time.time() + 600.0)),
        encode(Address("site", "row", "placement", "r1", "n1"), NodePlacement("n1")),
        encode(n1, hot),
        encode(Address("site", "row", "state", "r1", "n1"), NodeState("n1", online=False)),
    ]
    ids = (f"polcad-polcad-daemon-row-{status.epoch:x}", "polcad-polcad-daemon-row", "polcad-polcad-agent-n1")

    async def scenario() -> None:
        for name in ids:  # of two clients with one name the broker keeps the later
            async with client(row.broker, row.secured.tls("n3"), identifier=name) as hostile:
                for message in attack:
                    for retain in (True, False):
                        await hostile.publish(message.topic, message.payload, 1, retain)

    since = time.monotonic()
    asyncio.run(scenario())
    until(lambda: len(row.tap.nouns("daemon", since)) > 10)
    row.until_followed()
    after = row.tap.status()
    assert after is not None
    assert after.epoch == status.epoch
    assert after.counters["reconnects"] == 0
    assert after.counters["refused_messages"] == status.counters["refused_messages"]
    assert row.clocks() == {"n1": {FREE_MHZ}, "n2": {FREE_MHZ}, "n3": {FREE_MHZ}}
    assert not [each for each in row.tap.heard if each.message.payload in {message.payload for message in attack}]


def test_with_signed_plans_even_a_stolen_certificate_of_the_daemon_moves_no_node(row: SecuredRow) -> None:
    row.start_all()
    signed = next(each.message for each in row.tap.heard if each.message.topic.endswith("/plan"))
    newer = signed.payload.replace(b'"seq":', b'"seq":1000000')
    assert newer != signed.payload

    async def scenario() -> None:
        async with client(row.broker, row.secured.tls("daemon.row")) as hostile:
            for payload in (brake().payload, newer, signed.payload):
                await hostile.publish(signed.topic, payload, 1)

    asyncio.run(scenario())
    for name in row.priorities:  # what is signed and old is refused by its sequence
        until(lambda name=name: refusals(row, name) == 1)  # type: ignore[misc]  # mypy knows no default here
        assert "it is not signed" in (row.folder / f"{name}.log").read_text()
    row.until_followed()
    assert row.clocks() == {"n1": {FREE_MHZ}, "n2": {FREE_MHZ}, "n3": {FREE_MHZ}}
    row.load(1.0)
    row.until_clocks(n1=BRAKE, low=BRAKE)  # the row's own daemon is obeyed


def refusals(row: SecuredRow, name: str) -> int:
    said = row.tap.telemetry(name)
    return said.plan.refused if said and said.plan else 0
