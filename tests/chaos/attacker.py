"""A thief with a node's certificate: ``python -m tests.chaos.attacker ATTACK PORT FOLDER NODE``.

It speaks MQTT by its own hand, since no library lets one say what is not MQTT. It says "go" once it is connected, and
goes on until it is killed. Whatever it meets, it goes on: a broker that hangs up is called again.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from polcad.broker_spec import TlsSpec
from polcad.model import FREE, Hold, NodePlacement, NodeState, Plan, Rule, Setpoint, Telemetry, Why
from polcad.testing import telemetry
from polcad.wire import MAX_PAYLOAD_BYTES, Address, Message, encode

FLOOD_PER_S = 10_000
BIG_PER_S = 40  # of a quarter MiB each: 10 MB/s
_STEP_S = 0.01
_AGENTS = 1000  # made-up runs of an agent
_REPLAYED = 2000  # plans heard and kept


@dataclass(frozen=True, slots=True)
class Thief:
    """What was stolen, and where it is used."""

    port: int
    pki: Path
    node: str

    def connect(self, identity: str = "", name: str = "", will: Message | None = None) -> ssl.SSLSocket:
        """An MQTT 3.1.1 connection with the certificate of an identity, the stolen node's if none is named."""
        parts = ("ca.crt", f"issued/{identity or self.node}.crt", f"issued/{identity or self.node}.key")
        tls = TlsSpec(*(str(self.pki / part) for part in parts)).context()
        plain = socket.create_connection(("127.0.0.1", self.port), 5.0)
        link = tls.wrap_socket(plain, server_hostname="localhost")
        who = name or f"thief-{time.time_ns():x}"
        body = _text("MQTT") + bytes([4, 0x2E if will else 0x02]) + b"\x00\x3c" + _text(who)
        if will:
            body += _text(will.topic) + len(will.payload).to_bytes(2, "big") + will.payload
        link.sendall(_packet(0x10, body))
        link.recv(4)
        return link

    def own(self, kind: str) -> Address:
        """Where the stolen node may speak."""
        return self.of(self.node, kind)

    @staticmethod
    def of(node: str, kind: str) -> Address:
        """Where a node speaks."""
        return Address("site", "row", kind, "r1", node)

    def lie(self, run: int, node: str = "") -> Telemetry:
        """A node that draws next to nothing, said by one of many runs of its agent, each with a word newer than all."""
        node = node or self.node
        return telemetry(node, 60.0, gpus=2, max_w=400.0, seq=2**50, boot_id=f"stolen-{run % _AGENTS}", setpoint=FREE)


def _text(text: str) -> bytes:
    return len(text.encode()).to_bytes(2, "big") + text.encode()


def _packet(first: int, body: bytes) -> bytes:
    length, left = b"", len(body)
    while True:
        left, digit = left >> 7, left & 127
        length += bytes([digit | (128 if left else 0)])
        if not left:
            return bytes([first]) + length + body


def _publish(message: Message) -> bytes:
    return _packet(0x30 | message.retain, _text(message.topic) + message.payload)


def _paced(packets: Iterator[bytes], per_s: int) -> Callable[[ssl.SSLSocket], None]:
    """Sends packets at a rate, for ever."""

    def send(link: ssl.SSLSocket) -> None:
        start_s, sent = time.monotonic(), 0
        while True:
            due = int((time.monotonic() - start_s) * per_s)
            link.sendall(b"".join(itertools.islice(packets, min(due - sent, per_s // 10))))
            sent = due
            time.sleep(_STEP_S)

    return send


def forged(node: str) -> list[Message]:
    """All that no node may say: plans and holds, and words of another node."""
    other = "n1" if node != "n1" else "n2"
    brake, t = (Rule("row", Setpoint(0.2), Why.BRAKE),), time.time()
    free = Plan("row", 2**52, 1, t, 60.0, FREE)
    return [
        encode(Address("site", "row", "plan"), Plan("row", 2**52, 2, t, 60.0, FREE, brake)),
        encode(Address("site", "row", "plan"), free),
        encode(Address("site", "row", "hold", hold="h1"), Hold("h1", "row", Setpoint(0.2), t + 600.0)),
        encode(Thief.of(other, "placement"), NodePlacement(other)),
        encode(Thief.of(other, "state"), NodeState(other, online=False)),
        encode(Thief.of(other, "telemetry"), Thief(0, Path(), node).lie(0, other)),
    ]


def flood(thief: Thief) -> None:
    """Its own telemetry, ten thousand a second, low and of ever other runs."""
    frames = [_publish(encode(thief.own("telemetry"), thief.lie(run))) for run in range(_AGENTS)]
    _paced(itertools.cycle(frames), FLOOD_PER_S)(thief.connect())


def big(thief: Thief) -> None:
    """Messages as large as the broker lets pass."""
    payload = b'{"node":"%s","x":"%s"}' % (thief.node.encode(), b"x" * (MAX_PAYLOAD_BYTES - 100))
    _paced(itertools.repeat(_publish(Message(thief.own("telemetry").topic, payload))), BIG_PER_S)(thief.connect())


def foreign(thief: Thief) -> None:
    """What it may not say, retained and not, ten thousand a second."""
    frames = [_publish(each._replace(retain=retain)) for each in forged(thief.node) for retain in (False, True)]
    _paced(itertools.cycle(frames), FLOOD_PER_S)(thief.connect(name="polcad-polcad-daemon-row"))


def planted(thief: Thief) -> None:
    """Its own words, retained: a reading, that it is gone, and what is no noun at all."""
    words = [
        encode(thief.own("telemetry"), thief.lie(0)),
        encode(thief.own("state"), NodeState(thief.node, online=False)),
        Message(thief.own("state").topic, b"\xff\x00{"),
        Message(thief.own("telemetry").topic, b'{"node":' * 1000),
    ]
    _paced(itertools.cycle(_publish(each._replace(retain=True)) for each in words), 1000)(thief.connect())


def wills(thief: Thief) -> None:
    """Last wills in the name of others, spoken by hanging up without a word."""
    for will in itertools.cycle(forged(thief.node)):
        with contextlib.suppress(OSError):
            thief.connect(name="polcad-polcad-agent-n1", will=will).close()
        time.sleep(_STEP_S)


def garbage(thief: Thief) -> None:
    """What is not MQTT: lengths without end, packets cut short, bytes at random, links that never say a word."""
    rng = random.Random(7)  # noqa: S311  # no secret
    idle: list[ssl.SSLSocket] = []
    for turn in itertools.count():
        with contextlib.suppress(OSError):
            link = thief.connect()
            frames = (b"\x30\xff\xff\xff\xff\xff", b"\x30\xff\xff\x7f\x00\x04poly", rng.randbytes(4096), b"\x00" * 64)
            link.sendall(frames[turn % len(frames)])
            idle = [*idle[-50:], link]
        time.sleep(_STEP_S)


def replays(thief: Thief) -> None:
    """With the daemon's certificate, not its signing key: every plan heard before, again and again; and forged ones."""
    ear = thief.connect()
    ear.sendall(_packet(0x82, b"\x00\x01" + _text("polcad/v1/site/row/plan") + b"\x00"))
    ear.settimeout(0.0)
    heard: list[bytes] = []
    tail, frames = b"", [_publish(each) for each in forged(thief.node)[:2]]
    mouth = thief.connect("daemon.row")
    while True:
        with contextlib.suppress(BlockingIOError, ssl.SSLWantReadError):
            tail += ear.recv(65536)
        whole, tail = _split(tail)
        heard = [*heard, *(each for each in whole if each[0] >> 4 == 3)][-_REPLAYED:]  # a publish
        mouth.sendall(b"".join(random.sample(heard, min(10, len(heard))) + frames))
        time.sleep(_STEP_S)


def _split(data: bytes) -> tuple[list[bytes], bytes]:
    """Whole packets, and the rest."""
    whole: list[bytes] = []
    while True:
        length, shift, at = 0, 0, 1
        while at < len(data):
            length |= (data[at] & 127) << shift
            shift, at = shift + 7, at + 1
            if data[at - 1] < 128:  # the highest bit says that more follow
                break
        else:
            return whole, data
        if at + length > len(data):
            return whole, data
        whole.append(data[: at + length])
        data = data[at + length :]


ATTACKS = {each.__name__: each for each in (flood, big, foreign, planted, wills, garbage, replays)}


def main() -> None:
    """Attack until killed."""
    name, port, folder, node = sys.argv[1:]
    thief = Thief(int(port), Path(folder), node)
    thief.connect().close()
    sys.stdout.write("go\n")
    sys.stdout.flush()
    while True:
        with contextlib.suppress(OSError):
            ATTACKS[name](thief)
        time.sleep(_STEP_S)


if __name__ == "__main__":
    main()
