"""The cables of the fault bench lose what they should, and nothing else; sockets stand for the devices here."""

import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

import pytest

from tests.chaos.cables import Cable, Carrier, Fate, lossy, lost
from tests.waiting import until

WITHIN_S = 10.0


@dataclass(frozen=True)
class Ends:
    """A cable that carries, and the sockets at its ends."""

    here: socket.socket
    there: socket.socket
    cable: Cable


@pytest.fixture
def ends() -> Iterator[Ends]:
    pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(2)]
    (here, inner_here), (there, inner_there) = pairs
    for inner in (inner_here, inner_there):
        inner.setblocking(False)
    for outer in (here, there):
        outer.settimeout(WITHIN_S)
    cable = Cable.between(inner_here.fileno(), inner_there.fileno())
    with Carrier([cable]), here, there, inner_here, inner_there:
        yield Ends(here, there, cable)


def say(end: socket.socket, count: int) -> list[bytes]:
    frames = [f"{number}".encode() for number in range(count)]
    for frame in frames:
        end.send(frame)
    return frames


def test_a_good_cable_carries_all_both_ways_in_order(ends: Ends) -> None:
    up, down = say(ends.here, 50), say(ends.there, 50)
    assert [ends.there.recv(100) for _ in up] == up
    assert [ends.here.recv(100) for _ in down] == down


def test_a_lossy_cable_loses_its_share_at_random_and_the_rest_arrives(ends: Ends) -> None:
    fated, rng = Random(7), Random(7)  # noqa: S311  # the same again
    ends.cable.meet(lossy(fated, 0.1))
    arrive = [frame for frame in say(ends.here, 100) if rng.random() >= 0.1]
    assert 80 < len(arrive) < 100
    assert [ends.there.recv(100) for _ in arrive] == arrive


def test_a_way_that_is_cut_carries_nothing_and_the_other_way_all(ends: Ends) -> None:
    met: list[float | None] = []

    def cut() -> float | None:
        met.append(lost())
        return met[-1]

    ends.cable.meet(cut, ["up"])
    up, down = say(ends.here, 20), say(ends.there, 20)
    assert [ends.here.recv(100) for _ in down] == down
    until(lambda: len(met) == len(up), WITHIN_S)
    ends.there.setblocking(False)
    with pytest.raises(BlockingIOError):
        ends.there.recv(100)


def after(*waits_s: float) -> Fate:
    waits = iter(waits_s)
    return lambda: next(waits)


def test_each_frame_waits_for_itself_and_another_may_overtake_it(ends: Ends) -> None:
    ends.cable.meet(after(3600.0, 0.05, 0.0))
    sent_s = time.monotonic()
    say(ends.here, 3)
    heard = {ends.there.recv(100): time.monotonic() - sent_s for _ in range(2)}
    assert heard.keys() == {b"1", b"2"}
    assert heard[b"1"] >= 0.05
