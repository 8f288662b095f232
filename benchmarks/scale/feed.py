"""What publishes the telemetry of a row: a process of its own, a plain socket, a steady pace."""

from __future__ import annotations

import multiprocessing
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

from benchmarks.mqtt import hello
from benchmarks.scale.row import FIRST_SEQ, Packet, Row

_SLICE_S = 0.002  # messages that are due are sent this often


@dataclass(slots=True)
class Sent:
    """What a feed has published; times are monotonic seconds."""

    messages: int = 0
    late_s: float = 0.0  # behind its pace, at most
    over: list[tuple[str, float]] = field(default_factory=list)  # racks of probes that went over T1, and when


@contextmanager
def feeding(row: Row, port: int) -> Iterator[Connection]:
    """A feed that publishes from its first word until it is told to stop; then it says what it has `Sent`."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_feed, args=(row, port, there), daemon=True)
    process.start()
    try:
        here.recv()  # its packets are made
        yield here
    finally:
        process.terminate()
        process.join()


def _feed(row: Row, port: int, pipe: Connection) -> None:
    packets, sent = list(row.packets()), Sent()
    with socket.create_connection(("127.0.0.1", port)) as sock:
        hello(sock, row.name.encode())
        pipe.send(None)
        pipe.recv()
        began_s = time.monotonic()
        while not pipe.poll():
            due_s = time.monotonic() - began_s
            due = min(int(due_s * row.rate), sent.messages + row.nodes)
            sock.sendall(b"".join(_said(row, packets, sent, due)))
            sent.late_s = max(sent.late_s, due_s - sent.messages / row.rate)
            time.sleep(_SLICE_S)
    pipe.send(sent)


def _said(row: Row, packets: list[tuple[Packet, Packet | None]], sent: Sent, due: int) -> Iterator[bytes | bytearray]:
    """The messages up to the number that is due; no node speaks twice among them."""
    now_s = time.monotonic()
    while sent.messages < due:
        turn, node = divmod(sent.messages, row.nodes)
        calm, over = packets[node]
        seq = b"%d" % (FIRST_SEQ + turn)
        sent.messages += 1
        if over is not None and turn and (turn + node) % row.cycle == 0:
            sent.over.append((row.rack(node), now_s))
            yield over.numbered(seq)
        else:
            yield calm.numbered(seq)
