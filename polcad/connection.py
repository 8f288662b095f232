"""One connection to the broker, from connecting to its end. The one file that knows aiomqtt, and how it uses paho.

What it adds to aiomqtt:

* Messages go straight to the reader's inbox as they arrive: `queue_type` is an adapter that keeps nothing.
* Messages at QoS 0 are read by `polcad.intake`, in less than half the time that aiomqtt takes.
* TCP_NODELAY, without which Nagle's rule and a delayed ACK cost 24 ms a message.
* The codes granted to a subscription are looked at, and an abandoned connection leaves no socket behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import socket
import ssl
from collections.abc import Iterator, Sequence
from typing import Any, Never

import aiomqtt
from aiomqtt.exceptions import MqttConnectError
from paho.mqtt.client import Client as PahoClient
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from polcad.broker_spec import BrokerSpec, Protocol
from polcad.errors import UnavailableError
from polcad.intake import Intake, IntakeSocket, Receiver
from polcad.wire import KINDS, Address, Message

_REFUSED = 128  # codes of a SUBACK from here on
_CLIENT_LOG = logging.getLogger("polcad.mqtt.client")


class Connection:
    """One connection, used once. Methods raise UnavailableError, in words for the operator, when it is no more."""

    def __init__(self, spec: BrokerSpec, client_id: str, will: Message | None, receiver: Receiver) -> None:
        self._spec = spec
        self._client = _Client(spec, client_id, will, receiver)

    async def open(self) -> None:
        """Connect and be accepted."""
        with self._words():
            await self._client.__aenter__()

    async def subscribe(self, addresses: Sequence[Address], most_qos: int = 1) -> None:
        """Ask for the messages of these topics, at `most_qos` at most; a single one refused is an error."""
        wanted = [(address.topic, min(most_qos, KINDS[address.kind].qos)) for address in addresses]
        if not wanted:
            return
        with self._words():
            granted = await self._client.subscribe(wanted)
        refused = [topic for (topic, _), code in zip(wanted, granted, strict=True) if _code(code) >= _REFUSED]
        if refused:
            raise UnavailableError(f"broker {self._spec.url}: the subscription to {refused[0]} was refused")

    async def publish(self, message: Message) -> None:
        """Return when the message was handed to the kernel (QoS 0) or acknowledged by the broker."""
        properties = None
        if message.expiry_s is not None and self._spec.protocol is Protocol.V5:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho's
            properties.MessageExpiryInterval = math.ceil(message.expiry_s)
        with self._words():
            await self._client.publish(message.topic, message.payload, message.qos, message.retain, properties)

    async def ended(self) -> Never:
        """Wait until the connection breaks, and say why."""
        with self._words():
            async for _ in self._client.messages:
                break  # nothing is ever queued there: the adapter hands everything on
            raise aiomqtt.MqttError("disconnected")

    async def disconnect(self) -> None:
        """End cleanly: the broker keeps the last will to itself."""
        with self._words():
            await self._client.__aexit__(None, None, None)

    async def drop(self) -> None:
        """Leave nothing behind, whatever happened."""
        await self._client.drop()

    @contextlib.contextmanager
    def _words(self) -> Iterator[None]:
        """Turn errors of the client into ours, and keep a cancellation that the client lost.

        It waits by `asyncio.wait_for`, which before Python 3.12 forgets one that comes together with the result.
        """
        task = asyncio.current_task()
        before = task.cancelling() if task else 0
        try:
            yield
        except aiomqtt.MqttError as error:
            raise UnavailableError(f"broker {self._spec.url}: {self._reason(error)}") from error
        if task and task.cancelling() > before:
            raise asyncio.CancelledError

    def _reason(self, error: aiomqtt.MqttError) -> str:
        text = str(error.__cause__ or error)
        if isinstance(error, MqttConnectError):
            return f"it refused us: {text} (look at `user` and `password_file`)"
        if "Unspecified error" in text:  # all that the client has to say of an end without a word
            return "the connection was closed"
        if "timed out" not in text:
            return text
        text = f"no answer within {self._spec.connect_timeout_s:g} s"
        if self._spec.tls is None:
            return f"{text} (does this port want TLS?)"
        if not self._spec.tls.cert:  # TLS 1.3 completes the handshake before the broker looks for one
            return f"{text} (does it want a client certificate? None is set in `tls`)"
        return text


class _Client(aiomqtt.Client):
    """aiomqtt's client with our socket, our inbox, and an end to it."""

    def __init__(self, spec: BrokerSpec, client_id: str, will: Message | None, receiver: Receiver) -> None:
        super().__init__(
            spec.host,
            spec.port,
            username=spec.user or None,
            password=spec.password(os.environ),
            identifier=spec.client_id_prefix + client_id,
            protocol=aiomqtt.ProtocolVersion.V5 if spec.protocol is Protocol.V5 else aiomqtt.ProtocolVersion.V311,
            clean_session=None if spec.protocol is Protocol.V5 else True,
            will=aiomqtt.Will(will.topic, will.payload, will.qos, will.retain) if will else None,
            keepalive=spec.keepalive_s,
            timeout=spec.connect_timeout_s,
            tls_context=_tls(spec),
            queue_type=lambda **_: _Through(receiver),  # type: ignore[arg-type]  # any callable serves
            logger=_CLIENT_LOG,
        )
        self._client.connect_timeout = spec.connect_timeout_s
        self._intake = Intake(receiver, mqtt5=spec.protocol is Protocol.V5)
        self._dropped = False

    async def drop(self) -> None:
        """Close the socket if it is still open. aiomqtt leaves it, and its reader, after an error or a cancellation."""
        self._dropped = True
        await asyncio.sleep(0)  # let a connect in its thread that has just finished register what is closed here
        self._client._sock_close()  # noqa: SLF001  # paho's disconnect() would wait for a broker that may be gone

    def _on_socket_open(self, client: PahoClient, userdata: Any, sock: Any) -> None:
        """Called in the thread that connects, before anything is read or written."""
        if self._dropped:
            raise ConnectionAbortedError("given up meanwhile")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        socket_of_paho: Any = IntakeSocket(sock, self._intake)  # all of a socket that paho and aiomqtt use
        client._sock = socket_of_paho  # noqa: SLF001  # paho has no other place for it
        super()._on_socket_open(client, userdata, socket_of_paho)


class _Through(asyncio.Queue[aiomqtt.Message]):
    """aiomqtt's queue of received messages, which keeps none: the inbox does. Its `get` therefore never returns."""

    def __init__(self, receiver: Receiver) -> None:
        super().__init__()
        self._receiver = receiver

    def put_nowait(self, item: aiomqtt.Message) -> None:
        self._receiver.put(Message(item.topic.value, item.payload, item.qos, item.retain))


class _TlsSocket(ssl.SSLSocket):
    """Closes itself when the handshake fails; paho forgets it."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except BaseException:
            self.close()
            raise


def _tls(spec: BrokerSpec) -> ssl.SSLContext | None:
    context = spec.tls.context() if spec.tls else None
    if context:
        context.sslsocket_class = _TlsSocket
    return context


def _code(granted: Any) -> int:
    return int(getattr(granted, "value", granted))  # a number in MQTT 3.1.1, a ReasonCode in 5
