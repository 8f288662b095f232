"""Takes what is published at QoS 0 off the broker's byte stream before the MQTT client sees it.

That is nearly all that a daemon receives, and the client spends more on each message than its payload takes to decode.
Such a message needs no answer and changes no state of the protocol, so it can be read here, thirty to a read of the
socket; every other packet goes on to the client as it came. Within one read, messages at QoS 0 overtake those at QoS 1,
which MQTT leaves open. MQTT 3.1.1 §2.2, §3.3 and §4.6; MQTT 5 §3.3.2.
"""

from __future__ import annotations

import socket
import ssl
from typing import Protocol

from polcad.wire import MAX_PAYLOAD_BYTES, Message

READ_BYTES = 64 * 1024
_PUBLISH, _PUBLISH_RETAINED = 0x30, 0x31  # the first byte of a publish at QoS 0
_MAX_FRAME_BYTES = MAX_PAYLOAD_BYTES + 2 * 65535  # with its topic and, in MQTT 5, its properties
_MAX_LENGTH_BYTES = 4
_MAX_TOPICS = 100_000
_MAX_TOPIC_BYTES = 512  # of one that is remembered: ours have at most 320


class Receiver(Protocol):
    """Where messages go."""

    def put(self, message: Message) -> None:
        """Take a message."""
        ...

    def put_oversized(self) -> None:
        """Hear of a message that was too large to be kept."""
        ...


class Intake:
    """Splits a stream, however it is cut: publishes at QoS 0 go to `receiver`, the rest comes back."""

    def __init__(self, receiver: Receiver, *, mqtt5: bool) -> None:
        self._receiver = receiver
        self._mqtt5 = mqtt5
        self._tail = b""  # the beginning of a packet not yet whole
        self._passing = 0  # bytes still to come of a packet of the client's
        self._skipping = 0  # bytes still to come of a publish that is too large
        self._topics: dict[bytes, str] = {}

    def feed(self, chunk: bytes) -> bytes:
        """Take the next piece of the stream and return what of it is for the client."""
        data = self._tail + chunk if self._tail else chunk
        at = self._skip(data)
        rest = [data[at : at + self._passing]]
        at += len(rest[0])
        self._passing -= len(rest[0])
        while (header := _varint(data, at + 1)) is not None:
            body, length = header
            end = body + length
            if data[at] not in {_PUBLISH, _PUBLISH_RETAINED}:
                rest.append(data[at:end])
                self._passing = max(0, end - len(data))
            elif length > _MAX_FRAME_BYTES:
                self._receiver.put_oversized()
                self._skipping = max(0, end - len(data))
            elif end > len(data):
                break
            else:
                self._publish(data, body, end, retain=data[at] == _PUBLISH_RETAINED)
            at = min(end, len(data))
        self._tail = data[at:]
        return b"".join(rest)

    def _skip(self, data: bytes) -> int:
        step = min(self._skipping, len(data))
        self._skipping -= step
        return step

    def _publish(self, data: bytes, body: int, end: int, *, retain: bool) -> None:
        """Hand on the message between `body` and `end`."""
        at = body + 2 + int.from_bytes(data[body : body + 2], "big")
        raw = data[body + 2 : at]
        topic = self._topics.get(raw) or self._remember(raw)
        if self._mqtt5:
            after, length = _varint(data, at) or (at, 0)
            at = after + length  # the properties: nothing in them is for us
        if at > end:
            raise ConnectionError("the broker sent a message shorter than its topic")
        self._receiver.put(Message(topic, data[at:end], 0, retain))

    def _remember(self, raw: bytes) -> str:
        topic = raw.decode("utf-8", "replace")
        if len(raw) <= _MAX_TOPIC_BYTES:
            if len(self._topics) >= _MAX_TOPICS:  # a flood of made-up names must not grow it for ever
                self._topics.clear()
            self._topics[raw] = topic
        return topic


class IntakeSocket:
    """A connected socket, plain or TLS, as paho and aiomqtt use one, with an `Intake` in it.

    One call of aiomqtt's reader takes one piece from the kernel, so that a flood leaves the event loop time for others:
    a second `recv` of the same call finds nothing. `pending`, which aiomqtt asks for TLS, tells whether to go on.
    """

    def __init__(self, sock: socket.socket | ssl.SSLSocket, intake: Intake) -> None:
        self._sock = sock
        self._intake = intake
        self._rest = b""
        self._at = 0
        self._had_a_turn = False

    def recv(self, size: int) -> bytes:
        """At most `size` bytes for the client; empty at the end, BlockingIOError when there are none now."""
        if self._at == len(self._rest):
            self._refill()
            if not self._rest:
                return b""
        start, self._at = self._at, min(self._at + size, len(self._rest))
        return self._rest[start : self._at]

    def _refill(self) -> None:
        if self._had_a_turn:
            raise BlockingIOError
        chunk = self._sock.recv(READ_BYTES)
        self._rest, self._at = self._intake.feed(chunk), 0
        self._had_a_turn = not self._decrypted()
        if chunk and not self._rest:
            raise BlockingIOError

    def pending(self) -> int:
        """Bytes that can be had without the kernel; at 0 the reader's turn is over."""
        pending = len(self._rest) - self._at + self._decrypted()
        if not pending:
            self._had_a_turn = False
        return pending

    def _decrypted(self) -> int:
        return self._sock.pending() if isinstance(self._sock, ssl.SSLSocket) else 0

    def send(self, data: bytes) -> int:
        """As a socket's."""
        return self._sock.send(data)

    def fileno(self) -> int:
        """As a socket's."""
        return self._sock.fileno()

    def close(self) -> None:
        """As a socket's."""
        self._sock.close()


def _varint(data: bytes, at: int) -> tuple[int, int] | None:
    """Where the length that stands at `at` ends, and the length; None when it is not whole."""
    value = shift = 0
    for index in range(at, min(at + _MAX_LENGTH_BYTES, len(data))):
        byte = data[index]
        value |= (byte & 127) << shift
        if byte < 128:  # noqa: PLR2004  # the highest bit says that more follow
            return index + 1, value
        shift += 7
    if at + _MAX_LENGTH_BYTES <= len(data):
        raise ConnectionError("the broker sent what is no MQTT")
    return None
