"""Links through the brokers that polcad runs with: Mosquitto, and the one embedded."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import aiomqtt
import pytest
from amqtt.contexts import Action
from amqtt.plugins.base import BaseTopicPlugin

from polcad.backlog import DEFAULT_LIMITS, Counters, Inbox, Limits, Received
from polcad.broker import embedded
from polcad.broker_spec import BrokerSpec, Protocol, TlsSpec
from polcad.connection import Connection
from polcad.errors import ConfigError, UnavailableError
from polcad.mqtt import Backoff, Link, Presence
from polcad.testing_brokers import Broker, StartMosquitto, free_port
from polcad.wire import Address, Message

ROW = "polcad/v1/site/row"
TELEMETRY = Address("site", "row", "telemetry", "+", "+")
STATE = Address("site", "row", "state", "+", "+")
PLACEMENT = Address("site", "row", "placement", "+", "+")
PLAN = Address("site", "row", "plan")
EVENT = Address("site", "row", "event")

integration = pytest.mark.integration


def telemetry(payload: bytes, node: str = "n1") -> Message:
    return Message(f"{ROW}/r1/{node}/telemetry", payload)


def plan(payload: bytes) -> Message:
    return Message(f"{ROW}/plan", payload, expiry_s=2.5)


def state(payload: bytes, node: str = "n1") -> Message:
    return Message(f"{ROW}/r1/{node}/state", payload, 1, retain=True)


class Ear:
    """A link that hears, and remembers what."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.received: list[Received] = []

    async def listen(self) -> None:
        async for batch in self.link.batches():
            self.received += batch

    async def until(self, *payloads: bytes) -> None:
        """Wait for these payloads, as a set."""
        await eventually(lambda: set(payloads) <= set(self.payloads), lambda: self.payloads)

    @property
    def payloads(self) -> list[bytes]:
        return [received.message.payload for received in self.received]


async def eventually(holds: Callable[[], bool], shown: Callable[[], Any] = lambda: "", within_s: float = 5.0) -> None:
    deadline_s = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline_s, shown()
        await asyncio.sleep(0.005)


def seeded(seed: int) -> Random:
    return Random(seed)  # noqa: S311  # spreads retries, keeps no secret


def make_link(spec: BrokerSpec, presence: Presence, limits: Limits = DEFAULT_LIMITS, **more: Any) -> Link:
    return Link(replace(spec, retry_max_s=0.1), presence, time.time, seeded(1), limits=limits, **more)


class Slow(Random):
    """Always the longest wait: who listens to what a link says when it returns can be there before it."""

    def random(self) -> float:
        return 1.0


@asynccontextmanager
async def ear(spec: BrokerSpec, *subscriptions: Address) -> AsyncIterator[Ear]:
    hearing = Ear(make_link(spec, Presence(f"ear{id(subscriptions)}", subscriptions)))
    async with hearing.link.opened():
        task = asyncio.create_task(hearing.listen())
        yield hearing
    await task


@asynccontextmanager
async def running(link: Link) -> AsyncIterator[Link]:
    """The link as a daemon runs it."""
    task = asyncio.create_task(link.run())
    try:
        yield link
    finally:
        task.cancel()
        await asyncio.wait({task})


# --- without a broker -----------------------------------------------------------------------------------------------


def test_the_wait_is_random_doubles_up_to_its_limit_and_starts_anew_after_a_connection_that_lasted() -> None:
    waits = [Backoff(8.0, seeded(seed)) for seed in range(500)]
    spans = [max(backoff.wait_s(0.0) for backoff in waits) for _ in range(6)]
    assert spans == pytest.approx([1.0, 2.0, 4.0, 8.0, 8.0, 8.0], rel=0.05)
    assert min(backoff.wait_s(1.0) for backoff in waits) < 0.1
    assert max(backoff.wait_s(9.0) for backoff in waits) == pytest.approx(1.0, rel=0.05)


def test_without_a_broker_a_command_gives_up_at_once() -> None:
    async def command() -> None:
        async with make_link(BrokerSpec(port=free_port()), Presence("c")).opened():
            raise AssertionError("there is no broker")

    with pytest.raises(UnavailableError, match=r"broker mqtt://127.0.0.1:\d+: .*refused"):
        asyncio.run(command())


def test_without_a_broker_a_daemon_keeps_trying_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    async def daemon() -> None:
        link = make_link(BrokerSpec(port=free_port()), Presence("d"))
        async with running(link):
            for number in range(10):
                link.send(telemetry(b"%d" % number))
            with pytest.raises(UnavailableError, match="not connected"):
                await link.publish(plan(b"p"))
            await asyncio.sleep(0.3)  # some tries
            assert not link.connected
            assert link.counters.dropped_out == 9

    asyncio.run(daemon())
    assert len(caplog.records) == 1
    assert "trying again" in caplog.text


def test_a_command_takes_the_node_of_a_cluster_that_is_there_and_gives_up_when_none_is() -> None:
    async def command(spec: BrokerSpec) -> None:
        async with make_link(spec, Presence("c")).opened() as link:
            await link.publish(plan(b"p"))

    async def scenario() -> None:
        gone = BrokerSpec(port=free_port(), more_hosts=(f"127.0.0.1:{free_port()}",))
        async with embedded() as there:
            await command(replace(gone, more_hosts=(*gone.more_hosts, f"127.0.0.1:{there.port}")))
        with pytest.raises(UnavailableError, match="refused"):
            await command(gone)

    asyncio.run(scenario())


# --- the embedded broker --------------------------------------------------------------------------------------------


def test_the_embedded_broker_carries_messages_and_retains_states() -> None:
    async def talk() -> None:
        async with embedded() as spec:
            presence = Presence("n1", birth=(state(b"on"),), farewell=(state(b"off"),), will=state(b"lost"))
            async with ear(spec, STATE, PLAN) as first:
                async with make_link(spec, presence).opened() as link:
                    link.send(plan(b"p"))
                    await first.until(b"on", b"p")
                    async with ear(spec, STATE) as second:
                        await second.until(b"on")
                        assert all(received.message.retain for received in second.received)
                await first.until(b"off")
                assert first.payloads == [b"on", b"p", b"off"]
                assert not any(received.message.retain for received in first.received)

    asyncio.run(talk())


def test_two_embedded_brokers_do_not_meet() -> None:
    async def talk() -> None:
        async with embedded() as one, embedded() as two, ear(one, PLAN) as hearing:
            async with make_link(two, Presence("x")).opened() as other, make_link(one, Presence("x")).opened() as same:
                await other.publish(plan(b"elsewhere"))
                await same.publish(plan(b"here"))
                await hearing.until(b"here")
            assert hearing.payloads == [b"here"]

    asyncio.run(talk())


class OnlyPlans(BaseTopicPlugin):  # type: ignore[misc]  # amqtt's classes are Any to mypy
    """A broker's rule: nobody may subscribe to anything but plans."""

    async def topic_filtering(self, *, session: Any = None, topic: Any = None, action: Any = None) -> bool:  # noqa: ARG002
        return bool(action != Action.SUBSCRIBE or topic == PLAN.topic)


def test_a_refused_subscription_is_an_error() -> None:
    plugins = {
        "amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True},
        f"{__name__}.OnlyPlans": {},
    }

    async def subscribe() -> None:
        async with embedded(plugins=plugins) as spec:
            async with ear(spec, PLAN):
                pass
            async with ear(spec, PLAN, STATE):
                raise AssertionError("it was granted")

    with pytest.raises(UnavailableError, match=rf"subscription to {ROW}/\+/\+/state was refused"):
        asyncio.run(subscribe())


# --- Mosquitto ------------------------------------------------------------------------------------------------------


@integration
@pytest.mark.unbridged
def test_messages_of_every_kind_cross(any_broker: Broker) -> None:
    _cross(any_broker.spec("x"))


@integration
def test_messages_of_every_kind_cross_mosquitto_by_mqtt_5(mosquitto: StartMosquitto) -> None:
    _cross(BrokerSpec(port=mosquitto().port, protocol=Protocol.V5))


def _cross(spec: BrokerSpec) -> None:
    async def talk() -> None:
        async with ear(spec, TELEMETRY, STATE, PLAN, EVENT) as hearing, make_link(spec, Presence("x")).opened() as link:
            wanted = [telemetry(b"t"), plan(b"p"), state(b"s"), Message(EVENT.topic, b"e", 1)]
            for message in wanted:
                link.send(message)
            await hearing.until(b"t", b"p", b"s", b"e")
            heard = {received.message[:2] for received in hearing.received}
            assert heard == {message[:2] for message in wanted}
            assert not any(received.message.retain for received in hearing.received)
            assert all(abs(received.t - time.time()) < 5.0 for received in hearing.received)
            await eventually(lambda: link.counters.sent == 4)

    asyncio.run(talk())


@integration
def test_a_plan_carries_its_lease_as_expiry_in_mqtt_5(mosquitto: StartMosquitto) -> None:
    spec = BrokerSpec(port=mosquitto().port, protocol=Protocol.V5)

    async def talk() -> Any:
        version = aiomqtt.ProtocolVersion.V5
        async with aiomqtt.Client(spec.host, spec.port, protocol=version) as plain:
            await plain.subscribe(PLAN.topic)
            async with make_link(spec, Presence("x")).opened() as link:
                await link.publish(plan(b"p"))
                return await asyncio.wait_for(anext(plain.messages), 5.0)

    assert asyncio.run(talk()).properties.MessageExpiryInterval == 3  # 2.5 s, in whole seconds


@integration
def test_small_messages_do_not_wait_for_each_other(mosquitto: StartMosquitto) -> None:
    spec = BrokerSpec(port=mosquitto().port)

    async def talk() -> list[float]:
        waits = []
        async with ear(spec, PLAN, EVENT) as hearing, make_link(spec, Presence("x")).opened() as link:
            for number in range(40):
                began_s, name = time.perf_counter(), b"%d" % number
                link.send(Message(EVENT.topic, b"e" + name, 1))
                link.send(plan(b"p" + name))
                await hearing.until(b"p" + name, b"e" + name)
                waits.append(time.perf_counter() - began_s)
        return sorted(waits)

    assert asyncio.run(talk())[20] < 0.02  # 0.04 with Nagle's rule


@integration
def test_a_wrong_password_is_refused_and_the_right_one_found_later(mosquitto: StartMosquitto, tmp_path: Path) -> None:
    passwords, secret = password_file(tmp_path, {"daemon": "right"}), tmp_path / "secret"
    spec = BrokerSpec(
        port=mosquitto("listener {port} 127.0.0.1", f"password_file {passwords}", *AS_ROOT).port,
        user="daemon",
        password_file=str(secret),
    )
    secret.write_text("wrong")

    async def command() -> None:
        async with make_link(spec, Presence("command")).opened():
            raise AssertionError("the broker let us in")

    async def daemon() -> None:
        link = make_link(spec, Presence("daemon"))
        async with running(link):
            await asyncio.sleep(0.2)
            assert not link.connected
            secret.write_text("right\n")
            await asyncio.wait_for(link.wait_connected(), 5.0)

    with pytest.raises(UnavailableError, match=r"refused us.*password_file") as caught:
        asyncio.run(command())
    assert "wrong" not in str(caught.value)
    asyncio.run(daemon())


@integration
def test_a_password_file_that_is_away_stops_a_start_and_never_a_program_that_runs(
    mosquitto: StartMosquitto, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    broker = mosquitto()
    spec = BrokerSpec(port=broker.port, user="daemon", password_file=str(secret))

    async def daemon() -> None:
        link = make_link(spec, Presence("daemon"))
        with pytest.raises(ConfigError, match="password_file"):
            await link.run()
        secret.write_text("x")
        async with running(link):
            await asyncio.wait_for(link.wait_connected(), 5.0)
            secret.unlink()
            broker.stop()
            broker.start()
            await eventually(lambda: any("password_file" in text for text in link._lanes[0]._warned))
            secret.write_text("x")
            await asyncio.wait_for(link.wait_connected(), 5.0)

    asyncio.run(daemon())


@integration
def test_tls_checks_both_ends(mosquitto: StartMosquitto, tmp_path: Path) -> None:
    make_certificates(tmp_path)
    broker = mosquitto("listener {port} 127.0.0.1", "allow_anonymous true", *tls_lines(tmp_path), *AS_ROOT)
    good = TlsSpec(*(str(tmp_path / name) for name in ("ca.crt", "client.crt", "client.key")))
    spec = BrokerSpec(port=broker.port, tls=good, connect_timeout_s=1.0)

    async def talk(spec: BrokerSpec) -> None:
        async with ear(spec, PLAN, TELEMETRY, STATE) as hearing, make_link(spec, Presence("x")).opened() as link:
            big = b"t" * 100_000  # more than one TLS record, and more than one read
            for message in (plan(b"p"), telemetry(big), state(b"s")):
                link.send(message)
            await hearing.until(b"p", big, b"s")

    asyncio.run(talk(spec))
    asyncio.run(talk(replace(spec, protocol=Protocol.V5)))
    with pytest.raises(UnavailableError, match="client certificate"):
        asyncio.run(talk(replace(spec, tls=replace(good, cert="", key=""))))
    with pytest.raises(UnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
        asyncio.run(talk(replace(spec, tls=replace(good, ca=""))))
    with pytest.raises(UnavailableError, match="does this port want TLS"):
        asyncio.run(talk(replace(spec, tls=None)))


CLIENT = """
import asyncio, random, signal, sys, time
from polcad.broker_spec import BrokerSpec
from polcad.mqtt import Link, Presence
from polcad.wire import Message

def state(payload):
    return Message("polcad/v1/site/row/r1/n1/state", payload, 1, retain=True)

async def main():
    presence = Presence("n1", birth=(state(b"on"),), farewell=(state(b"off"),), will=state(b"lost"))
    link = Link(BrokerSpec(port=int(sys.argv[1])), presence, time.time, random.Random(1))
    task = asyncio.create_task(link.run())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    await asyncio.wait({task})

asyncio.run(main())
"""


@integration
@pytest.mark.unbridged
@pytest.mark.parametrize(("how", "last"), [(signal.SIGKILL, b"lost"), (signal.SIGTERM, b"off")])
def test_a_killed_client_leaves_its_will_and_a_stopped_one_its_farewell(
    any_broker: Broker, how: signal.Signals, last: bytes
) -> None:
    spec = any_broker.spec("n1")

    async def watch() -> None:
        async with ear(spec, STATE) as hearing:
            process = await asyncio.create_subprocess_exec(sys.executable, "-c", CLIENT, str(spec.port))
            try:
                await hearing.until(b"on")
            finally:
                process.send_signal(how)
                await process.wait()
            await hearing.until(last)
            await make_link_and_publish(spec, state(b"later"))
            await hearing.until(b"later")
            assert hearing.payloads == [b"on", last, b"later"]

    asyncio.run(watch())


@integration
def test_a_link_returns_after_the_broker_did_and_is_born_again(
    mosquitto: StartMosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    broker = mosquitto()
    spec, changes = BrokerSpec(port=broker.port), list[bool]()

    async def live() -> None:
        presence = Presence("n1", (PLAN,), birth=(state(b"on"),))
        link = Link(replace(spec, retry_max_s=2.0), presence, time.time, Slow(), on_change=changes.append)
        hearing = Ear(link)
        async with running(link):
            task = asyncio.create_task(hearing.listen())
            await link.wait_connected()
            broker.stop(signal.SIGKILL)
            await eventually(lambda: not link.connected)
            link.send(telemetry(b"old"))
            link.send(telemetry(b"new"))
            broker.start()
            async with ear(spec, STATE, TELEMETRY) as other:
                await other.until(b"on", b"new")
                assert b"old" not in other.payloads
            await make_link_and_publish(spec, plan(b"p"))
            await hearing.until(b"p")
        await task
        assert (link.counters.reconnects, link.counters.dropped_out) == (1, 1)

    asyncio.run(live())
    assert changes == [True, False, True, False]
    assert "Unspecified" not in caplog.text  # which is what the client calls a broker that is gone


@integration
def test_a_link_whose_node_dies_goes_on_at_another(mosquitto: StartMosquitto) -> None:
    brokers = {broker.port: broker for broker in (mosquitto(), mosquitto())}
    first, second = brokers
    spec = BrokerSpec(port=first, more_hosts=(f"127.0.0.1:{second}",))

    async def live() -> None:
        link = make_link(spec, Presence("x"))
        async with running(link):
            for port in [node.port for node in link._lanes[0]._nodes]:
                await asyncio.wait_for(link.wait_connected(), 5.0)
                async with ear(BrokerSpec(port=port), PLAN) as hearing:
                    await link.publish(plan(b"%d" % port))
                    await hearing.until(b"%d" % port)
                brokers[port].stop(signal.SIGKILL)
                await eventually(lambda: not link.connected)
                brokers[port].start()

    asyncio.run(live())


@integration
def test_who_listens_to_events_does_so_at_several_nodes_however_many_were_lost_and_takes_each_once(
    mosquitto: StartMosquitto,
) -> None:
    brokers = [mosquitto() for _ in range(3)]
    spec = BrokerSpec(port=brokers[0].port, more_hosts=tuple(f"127.0.0.1:{broker.port}" for broker in brokers[1:]))

    async def live() -> None:
        async with ear(spec, EVENT) as hearing:

            def at() -> list[int]:
                connections = [lane.connection for lane in hearing.link._lanes]
                return [connection._spec.port for connection in connections if connection]

            assert sorted(at()) == sorted(broker.port for broker in brokers)
            for lost in brokers * 2:
                lost.stop(signal.SIGKILL)
                await eventually(lambda lost=lost: len(at()) == 3 and lost.port not in at(), at, 15.0)  # type: ignore[misc]  # mypy knows no default here
                lost.start()
                assert len(set(at())) > 1
            for port in {*at()}:
                async with make_link(BrokerSpec(port=port), Presence("speaker")).opened() as speaker:
                    await speaker.publish(Message(EVENT.topic, b"told", 1))
            await hearing.until(b"told")
            assert hearing.payloads == [b"told"]

    asyncio.run(live())


@integration
def test_what_waits_for_a_broker_that_hangs_is_the_newest(mosquitto: StartMosquitto) -> None:
    broker = mosquitto()
    spec = BrokerSpec(port=broker.port)

    async def live() -> None:
        async with ear(spec, TELEMETRY, PLAN, EVENT) as hearing, make_link(spec, Presence("x")).opened() as link:
            broker.pause()
            filler = bytes(200_000)
            for number in range(300):  # more than the kernel's buffers hold
                link.send(telemetry(b"%d " % number + filler))
                link.send(plan(b"%d" % number))
                link.send(Message(EVENT.topic, b"e%d" % number, 1))
                await asyncio.sleep(0)
            assert link.counters.dropped_out > 100
            broker.resume()
            await hearing.until(b"299 " + filler, b"299", *(b"e%d" % number for number in range(300)))
            events = [payload for payload in hearing.payloads if payload.startswith(b"e")]
            assert events == sorted(events, key=lambda payload: int(payload[1:]))

    asyncio.run(live())


@integration
def test_an_event_waits_for_no_placements(mosquitto: StartMosquitto) -> None:
    spec = BrokerSpec(port=mosquitto().port)

    async def live() -> None:
        async with ear(spec, PLACEMENT, EVENT) as hearing, make_link(spec, Presence("x")).opened() as link:
            for number in range(2000):
                node = f"n{number}"
                link.send(
                    Message(Address("site", "row", "placement", "r1", node).topic, b"%d" % number, 1, retain=True)
                )
            link.send(Message(EVENT.topic, b"e", 1))
            await hearing.until(b"e")
            assert len(hearing.payloads) < 1000
            await hearing.until(*(b"%d" % number for number in range(2000)))

    asyncio.run(live())


@integration
def test_a_flood_of_telemetry_costs_the_oldest_of_it_and_no_plan(mosquitto: StartMosquitto) -> None:
    spec = BrokerSpec(port=mosquitto("listener {port} 127.0.0.1", "allow_anonymous true", "max_queued_messages 0").port)

    async def flood() -> None:
        presence = Presence("busy", (TELEMETRY, PLAN))
        busy = make_link(spec, presence, Limits(telemetry=100, a_topic=10_000))
        async with busy.opened(), make_link(spec, Presence("x")).opened() as link:
            for number in range(2000):
                await link.publish(telemetry(b"t%d" % number))
                if number % 200 == 0:
                    await link.publish(plan(b"p%d" % number))
            await eventually(lambda: busy.counters.received == 2010, lambda: busy.counters)
            batch = await anext(busy.batches())
            payloads = [received.message.payload for received in batch]
            assert [payload for payload in payloads if payload[:1] == b"p"] == [b"p%d" % n for n in range(0, 2000, 200)]
            assert [payload for payload in payloads if payload[:1] == b"t"] == [b"t%d" % n for n in range(1900, 2000)]
            assert busy.counters.dropped_in == 1900

    asyncio.run(flood())


@integration
@pytest.mark.parametrize("qos", [0, 1])
def test_a_payload_of_ten_megabytes_is_counted_and_dropped(mosquitto: StartMosquitto, qos: int) -> None:
    spec = BrokerSpec(port=mosquitto().port)

    async def talk() -> None:
        async with ear(spec, TELEMETRY, PLAN, EVENT) as hearing:
            big = Message(EVENT.topic if qos else PLAN.topic, bytes(10_000_000), qos)
            await make_link_and_publish(spec, big, telemetry(b"after"))
            await hearing.until(b"after")
            await eventually(lambda: hearing.link.counters.oversized == 1)
            assert hearing.payloads == [b"after"]
            assert hearing.link.connected

    asyncio.run(talk())


@integration
@pytest.mark.unbridged
def test_retained_garbage_is_handed_over_as_what_it_is(any_broker: Broker) -> None:
    spec = any_broker.spec("x")

    async def talk() -> None:
        await make_link_and_publish(spec, state(b"\xff{"), telemetry(b"old")._replace(retain=True))
        async with ear(spec, STATE, TELEMETRY) as hearing:
            await make_link_and_publish(spec, telemetry(b"new"))
            await hearing.until(b"\xff{", b"old", b"new")
            assert {r.message.payload: r.message.retain for r in hearing.received} == {
                b"\xff{": True,
                b"old": True,
                b"new": False,
            }

    asyncio.run(talk())


class _Forgetful:
    """A client whose wait loses a cancellation, as asyncio.wait_for may before Python 3.12."""

    async def publish(self, *_: object) -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60.0)


def test_a_cancellation_that_the_client_loses_is_kept() -> None:
    async def scenario() -> None:
        connection = Connection(BrokerSpec(), "n1", None, Inbox(Counters(), Limits(), time.monotonic))
        connection._client = _Forgetful()  # type: ignore[assignment]  # all of a client that is asked here
        task = asyncio.create_task(connection.publish(plan(b"1")))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()

    asyncio.run(scenario())


# --- what the tests above stand on ----------------------------------------------------------------------------------

AS_ROOT = ("user root",) if os.geteuid() == 0 else ()  # Mosquitto would else become a user who cannot read our files


async def make_link_and_publish(spec: BrokerSpec, *messages: Message) -> None:
    async with make_link(spec, Presence("once")).opened() as link:
        for message in messages:
            await link.publish(message)


def password_file(folder: Path, users: dict[str, str]) -> Path:
    path = folder / "passwd"
    path.touch(mode=0o600)
    for name, password in users.items():
        subprocess.run(["mosquitto_passwd", "-b", path, name, password], check=True, capture_output=True)
    return path


def tls_lines(folder: Path) -> Iterable[str]:
    yield f"cafile {folder / 'ca.crt'}"
    yield f"certfile {folder / 'server.crt'}"
    yield f"keyfile {folder / 'server.key'}"
    yield "require_certificate true"


def make_certificates(folder: Path) -> None:
    """A CA of our own, and a certificate of a server on 127.0.0.1 and of a client signed by it."""
    new = ["openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj"]

    def run(*command: str) -> None:
        subprocess.run(command, check=True, capture_output=True, cwd=folder)

    run(*new, "/CN=test CA", "-x509", "-days", "2", "-keyout", "ca.key", "-out", "ca.crt")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    for name in ("server", "client"):
        run(*new, f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        sign = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "names")
        run("openssl", "x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.crt", *sign)
