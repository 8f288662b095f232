"""Bytes off a socket: messages, the MQTT stream that carries them, frames of the Unix socket, signed plans."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

from polcad.actuator_wire import ANSWERS, REQUESTS, Answer, Request, framed, receive
from polcad.errors import WireError
from polcad.intake import Intake
from polcad.model import NodePlacement, Obedience, Placement, Plan, Priority, Rule, Setpoint, Why
from polcad.signing import Trust, sign
from polcad.spec import BRAKE, FAIL_SAFE
from polcad.testing import telemetry
from polcad.wire import ROOT, Message, decode, encode, parse_topic
from tests.test_wire import NOUNS

_TOPICS = {name: address.topic for name, (address, _) in NOUNS.items()}
_KINDS = tuple(NOUNS)
_PLAN = Plan("row", 3, 4, 5.5, 6.0, FAIL_SAFE, (Rule("rack/r1", BRAKE, Why.BRAKE, Priority.LOW),))
_PRIVATE = bytes(range(32))
_PUBLIC = bytes.fromhex("03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8")  # of _PRIVATE
_TOPIC = _TOPICS["plan"]


# --- messages -------------------------------------------------------------------------------------------------------


def wire(data: bytes) -> None:
    """A payload under the topic of any kind, or a topic and a payload; what is believed can be said again."""
    which, rest = data[:1], data[1:]
    if which and which[0] < len(_KINDS):
        message = Message(_TOPICS[_KINDS[which[0]]], rest)
    else:
        topic, _, payload = rest.partition(b"\0")
        message = Message(topic.decode("utf-8", "replace"), payload)
    with suppress(WireError):
        address, noun = decode(message)
        assert parse_topic(address.topic) == address
        if noun is not None:
            assert decode(encode(address, noun)) == (address, noun)


def believed(message: Message) -> Any:
    """The noun of a message; None where there is none to be believed."""
    try:
        return decode(message)[1]
    except WireError:
        return None


def wire_seeds() -> Iterator[bytes]:
    for index, kind in enumerate(_KINDS):
        address, noun = NOUNS[kind]
        yield bytes([index]) + encode(address, noun).payload
        yield b"\xff" + address.topic.encode() + b"\0" + encode(address, noun).payload
    yield b"\xff" + f"{ROOT}/site/load/pool/x".encode() + b"\0{}"


# --- the MQTT stream ------------------------------------------------------------------------------------------------


class _Heard:
    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.oversized = 0

    def put(self, message: Message) -> None:
        self.messages.append(message)

    def put_oversized(self) -> None:
        self.oversized += 1


def intake(data: bytes) -> None:
    """A stream, of which any cut gives the same; what is no MQTT is the end of the connection."""
    mqtt5, cut, stream = bool(data[:1] > b"\x7f"), max(1, data[1] if len(data) > 1 else 1), data[2:]
    with suppress(ConnectionError):
        whole = _read(stream, len(stream) or 1, mqtt5=mqtt5)
        assert _read(stream, cut, mqtt5=mqtt5) == whole


def _read(stream: bytes, cut: int, *, mqtt5: bool) -> tuple[list[Message], int, bytes]:
    heard, rest = _Heard(), b""
    reader = Intake(heard, mqtt5=mqtt5)
    for at in range(0, len(stream), cut):
        rest += reader.feed(stream[at : at + cut])
    return heard.messages, heard.oversized, rest


def intake_seeds() -> Iterator[bytes]:
    topic = b"\x00\x02ab"
    for head in (b"\x00\x01", b"\x00\x05", b"\xff\x03"):
        properties = b"\x00" if head[0] else b""
        body = topic + properties + b"payload"
        publish = b"\x30" + bytes([len(body)]) + body
        yield head + publish + b"\xd0\x00" + publish + b"\x32\x09" + topic + b"\x00\x01abc"
        yield head + b"\x31\xff\xff\xff\x00" + bytes(300) + publish


# --- agent and actuator ---------------------------------------------------------------------------------------------


def frames(data: bytes) -> None:
    """A stream of frames, as requests or as answers; each that is believed can be framed again."""
    codec = REQUESTS if data[:1] < b"\x80" else ANSWERS

    async def read() -> None:
        reader = asyncio.StreamReader()
        reader.feed_data(data[1:])
        reader.feed_eof()
        with suppress(EOFError, WireError):
            while True:
                noun: Request | Answer = await receive(reader, codec)  # type: ignore[arg-type]  # either of the two
                assert codec.decode(framed(noun)[4:]) == noun

    asyncio.run(read())


def frames_seeds() -> Iterator[bytes]:
    placement = NodePlacement("n1", Placement(), {"g": Placement(Priority.HIGH)})
    yield b"\0" + framed(Request(_PLAN, "", 5.0, placement, settle=True)) + framed(Request(heard="{}"))
    force = telemetry(setpoint=Setpoint(0.5)).in_force
    yield b"\xff" + framed(Answer("why", True, 2.0, force, Obedience(3, 4))) + framed(Answer())


# --- signed plans ---------------------------------------------------------------------------------------------------


def signed(data: bytes) -> None:
    """A payload that says it is a signed plan: only what was signed is believed."""
    with suppress(WireError):
        assert Trust((_PUBLIC,), 60.0).plan(_TOPIC, data, _PLAN.t) in _SIGNED.values()


_SIGNED = {
    sign(_TOPIC, encode(NOUNS["plan"][0], plan).payload, _PRIVATE): plan for plan in (_PLAN, replace(_PLAN, seq=5))
}


def signed_seeds() -> Iterator[bytes]:
    yield from _SIGNED
