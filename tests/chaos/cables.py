"""Cables between ethernet devices that lose frames and let them come late: what netem does, where a kernel has none.

A cable is two TAP devices and what carries frames from either to the other. A frame that is lost is lost to TCP, which
sends it again when it thinks right; each frame waits for itself, so one may overtake another, as with netem's jitter.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import selectors
import struct
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from random import Random
from typing import Self

_TUNSETIFF = 0x400454CA  # <linux/if_tun.h>
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000  # whole frames, and nothing before them
_MOST_BYTES = 65536
_TAKE = 64  # frames of one device, before the others have their turn

Fate = Callable[[], float | None]  # seconds that the next frame waits; None: it is lost


def at_once() -> float | None:
    """As a good network."""
    return 0.0


def lost() -> float | None:
    """As no network."""
    return None


def late(rng: Random) -> Fate:
    """200 ms, give or take 100."""
    return lambda: rng.uniform(0.1, 0.3)


def lossy(rng: Random, share: float) -> Fate:
    """A share of the frames is lost."""
    return lambda: None if rng.random() < share else 0.0


@contextlib.contextmanager
def tap(name: str) -> Iterator[int]:
    """A TAP device, which is there while its descriptor is open. It takes over nothing of checksums and segments."""
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI))
        yield device
    finally:
        os.close(device)


@dataclass(slots=True)
class Way:
    """One direction of a cable: from a device to another."""

    source: int
    sink: int
    fate: Fate = at_once  # of each frame that comes from now on


@dataclass(slots=True)
class Cable:
    """Both directions; "up" is from the first device."""

    up: Way
    down: Way

    @classmethod
    def between(cls, here: int, there: int) -> Self:
        """A cable between two devices, by their descriptors."""
        return cls(Way(here, there), Way(there, here))

    def meet(self, fate: Fate, ways: Iterable[str] = ("up", "down")) -> None:
        """Let the frames of these ways meet this fate; those on their way keep theirs."""
        for way in ways:
            {"up": self.up, "down": self.down}[way].fate = fate


@dataclass
class Carrier:
    """Carries frames over cables, in a thread of its own."""

    cables: Collection[Cable]
    _on_the_way: list[tuple[float, int, int, bytes]] = field(default_factory=list, init=False)  # due, order, sink

    def __enter__(self) -> Self:
        self._order = count()
        self._stop = os.eventfd(0)
        self._thread = threading.Thread(target=self._carry, name="cables")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        os.eventfd_write(self._stop, 1)
        self._thread.join()
        os.close(self._stop)

    def _carry(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._stop, selectors.EVENT_READ)
            for way in (way for cable in self.cables for way in (cable.up, cable.down)):
                selector.register(way.source, selectors.EVENT_READ, way)
            while True:
                for key, _ in selector.select(self._until_due_s()):
                    if key.fd == self._stop:
                        return
                    self._take(key.data)
                self._deliver()

    def _until_due_s(self) -> float | None:
        return max(0.0, self._on_the_way[0][0] - time.monotonic()) if self._on_the_way else None

    def _take(self, way: Way) -> None:
        with contextlib.suppress(OSError):  # no more frames, or a device that is not up
            for _ in range(_TAKE):
                frame = os.read(way.source, _MOST_BYTES)
                waits_s = way.fate()
                if waits_s is not None:
                    due_s = time.monotonic() + waits_s
                    heappush(self._on_the_way, (due_s, next(self._order), way.sink, frame))

    def _deliver(self) -> None:
        while self._on_the_way and self._on_the_way[0][0] <= time.monotonic():
            _, _, sink, frame = heappop(self._on_the_way)
            with contextlib.suppress(OSError):  # a device that is full or not up: the frame is lost
                os.write(sink, frame)
