"""The splitter is told from a plain parser of whole streams, and must not mind where the stream is cut."""

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polcad.intake import READ_BYTES, Intake, IntakeSocket
from polcad.wire import MAX_PAYLOAD_BYTES, Message


class Heard:
    """A receiver that remembers."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.oversized = 0

    def put(self, message: Message) -> None:
        self.messages.append(message)

    def put_oversized(self) -> None:
        self.oversized += 1


def varint(value: int) -> bytes:
    out = b""
    while True:
        value, low = divmod(value, 128)
        out += bytes([low | (128 if value else 0)])
        if not value:
            return out


def packet(first: int, body: bytes) -> bytes:
    return bytes([first]) + varint(len(body)) + body


def publish(message: Message, properties: bytes | None = None) -> bytes:
    topic = message.topic.encode()
    extra = b"" if properties is None else varint(len(properties)) + properties
    return packet(0x30 | message.retain, struct.pack("!H", len(topic)) + topic + extra + message.payload)


messages = st.builds(
    Message,
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20),
    st.binary(max_size=300),
    st.just(0),
    st.booleans(),
    st.none(),
)
others = st.builds(packet, st.sampled_from([0x20, 0x32, 0x33, 0x3A, 0x40, 0x90, 0xD0]), st.binary(max_size=300))


@given(st.lists(messages | others, max_size=12), st.lists(st.integers(1, 400), min_size=1, max_size=40), st.booleans())
def test_a_stream_is_split_the_same_wherever_it_is_cut(
    parts: list[Message | bytes], cuts: list[int], mqtt5: bool
) -> None:
    properties = b"\x01\x00" * 70 if mqtt5 else None
    stream = b"".join(publish(part, properties) if isinstance(part, Message) else part for part in parts)
    heard, rest, at, turn = Heard(), b"", 0, 0
    intake = Intake(heard, mqtt5=mqtt5)
    while at < len(stream):
        step = cuts[turn % len(cuts)]
        rest += intake.feed(stream[at : at + step])
        at, turn = at + step, turn + 1
    assert heard.messages == [part for part in parts if isinstance(part, Message)]
    assert rest == b"".join(part for part in parts if isinstance(part, bytes))


@given(st.binary(max_size=2000), st.booleans())
def test_no_garbage_upsets_it(garbage: bytes, mqtt5: bool) -> None:
    intake = Intake(Heard(), mqtt5=mqtt5)
    try:
        intake.feed(garbage[:100])
        intake.feed(garbage[100:])
    except ConnectionError:
        pass  # what paho takes for the end of the connection


def test_a_publish_too_large_is_counted_and_never_held() -> None:
    heard = Heard()
    intake = Intake(heard, mqtt5=False)
    big, small = Message("a", bytes(10_000_000)), Message("a", b"x")
    stream = publish(big) + publish(small)
    for at in range(0, len(stream), READ_BYTES):
        assert intake.feed(stream[at : at + READ_BYTES]) == b""
        assert len(intake._tail) < READ_BYTES
    assert (heard.oversized, heard.messages) == (1, [small])


def test_a_flood_of_long_topics_is_handed_on_and_not_remembered() -> None:
    heard = Heard()
    intake = Intake(heard, mqtt5=False)
    wanted = [Message(f"{number}" + "a" * 5000, b"x") for number in range(50)]
    for message in wanted:
        intake.feed(publish(message))
    assert heard.messages == wanted
    assert not intake._topics


def test_the_largest_payload_that_is_believed_passes() -> None:
    heard = Heard()
    whole = Message("a" * 100, bytes(MAX_PAYLOAD_BYTES))
    Intake(heard, mqtt5=False).feed(publish(whole))
    assert heard.messages == [whole]


@pytest.mark.parametrize("stream", [b"\x30\xff\xff\xff\xff\x01", b"\x40\xff\xff\xff\xff", b"\x30\x03\x00\x09a"])
def test_what_is_no_mqtt_ends_the_connection(stream: bytes) -> None:
    with pytest.raises(ConnectionError):
        Intake(Heard(), mqtt5=False).feed(stream)


def test_the_socket_gives_the_client_its_bytes_and_one_read_a_turn() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        heard = Heard()
        tap = IntakeSocket(ours, Intake(heard, mqtt5=False))
        with pytest.raises(BlockingIOError):
            tap.recv(1)
        theirs.sendall(publish(Message("a", b"1")) + b"\xd0\x00" + publish(Message("a", b"2")))
        assert tap.recv(1) == b"\xd0"
        assert tap.pending() == 1
        assert tap.recv(9) == b"\x00"
        theirs.sendall(b"\xd0\x00")
        with pytest.raises(BlockingIOError):
            tap.recv(1)  # the turn is not over before the reader has asked what is pending
        assert tap.pending() == 0
        assert tap.recv(2) == b"\xd0\x00"
        assert tap.pending() == 0
        theirs.close()
        assert tap.recv(1) == b""
        assert [message.payload for message in heard.messages] == [b"1", b"2"]
