"""Daemons under load, and what they cost: real processes, a real Mosquitto, each daemon on one core.

The daemons are pinned to the upper half of this machine's cores, the broker, the feeds and the listener to the lower.
Costs are processor time (user and system) of a process, from /proc, over the messages it heard, so that what else runs
here matters little; latencies do suffer from it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks.scale.feed import Sent, feeding
from benchmarks.scale.row import GUARD, SITE, Row
from polcad.broker_spec import BrokerSpec
from polcad.model import Plan, RowStatus
from polcad.mqtt import Link, Presence
from polcad.testing_brokers import Mosquitto
from polcad.wire import decode, everywhere

CONF = ("listener {port} 127.0.0.1", "allow_anonymous true", "set_tcp_nodelay true", "max_queued_messages 1000")
WARM_UP_S = 3.0
START_S = 60.0
DRAIN_S = 5.0  # for what is under way when a feed has stopped, at most
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_MIB = os.sysconf("SC_PAGE_SIZE") / 2**20


def cores() -> tuple[list[int], list[int]]:
    """For daemons, and for all else."""
    every = sorted(os.sched_getaffinity(0))
    return every[len(every) // 2 :], every[: max(1, len(every) // 2)]


@dataclass(frozen=True, slots=True)
class Meter:
    """A process, measured."""

    pid: int

    def cpu_s(self) -> float:
        """Processor time since it began, user and system."""
        stat = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(stat[11]) + int(stat[12])) / _TICKS_PER_S

    def memory_mib(self) -> float:
        """Resident now."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * _PAGE_MIB


@dataclass(slots=True)
class Ear:
    """What a row's daemon says; times are monotonic seconds of arrival."""

    row: Row
    port: int
    daemon: Meter
    plans: list[tuple[float, frozenset[str]]] = field(default_factory=list)  # the scopes that have rules
    statuses: list[RowStatus] = field(default_factory=list)
    spent_s: list[float] = field(default_factory=list)  # by the daemon, when each status came

    async def listen(self) -> None:
        """Until cancelled."""
        topics = tuple(everywhere(SITE, self.row.name, kind) for kind in ("plan", "daemon"))
        rng = random.Random(1)  # noqa: S311  # spreads retries
        link = Link(BrokerSpec(port=self.port), Presence(f"ear-{self.row.name}", topics), time.monotonic, rng)
        async with link.opened():
            async for batch in link.batches():
                for received in batch:
                    noun = decode(received.message)[1]
                    if isinstance(noun, Plan):
                        self.plans.append((received.t, frozenset(rule.scope for rule in noun.rules)))
                    elif isinstance(noun, RowStatus) and noun.online:
                        self.statuses.append(noun)
                        self.spent_s.append(self.daemon.cpu_s())

    def heard(self) -> int:
        """Messages that reached the daemon's controller, as it said last."""
        return self.statuses[-1].counters.get("telemetry", 0)

    def begin(self) -> None:
        """Forget all statuses but the last."""
        self.statuses, self.spent_s = self.statuses[-1:], self.spent_s[-1:]

    def each_us(self) -> float:
        """Processor time of the daemon a message, between the first status and the last."""
        first = self.statuses[0].counters.get("telemetry", 0)
        return 1e6 * (self.spent_s[-1] - self.spent_s[0]) / max(1, self.heard() - first)

    def lags_s(self) -> list[float]:
        """How late each tick came, against the one that came earliest."""
        at_s = [each.t - number * GUARD["tick_s"] for number, each in enumerate(self.statuses)]
        return [each - min(at_s) for each in at_s]

    def answers_s(self, sent: Sent, since_s: float) -> tuple[list[float], int]:
        """From each crossing to its plan, and how many crossings no plan answered in time."""
        new: dict[str, list[float]] = {}
        held: frozenset[str] = frozenset()
        for t, scopes in self.plans:
            for scope in scopes - held:
                new.setdefault(scope, []).append(t)
            held = scopes
        longest_s = self.row.cycle / self.row.hz
        crossings = [(f"rack/{rack}", over_s) for rack, over_s in sent.over if over_s >= since_s]
        answers = [
            next((t - over_s for t in new.get(scope, ()) if 0.0 < t - over_s < longest_s), None)
            for scope, over_s in crossings
        ]
        known = [answer for answer in answers if answer is not None]
        return known, len(answers) - len(known)


@dataclass(frozen=True, slots=True)
class Figures:
    """What one daemon did under a load."""

    row: Row
    lost: int  # messages
    core: float  # share of one, while it was fed
    each_us: float  # processor time of the daemon a message
    broker_us: float  # of the broker a message of any row
    memory_mib: float
    answers_s: list[float]  # from a sample that crosses a threshold to the plan
    missed: int  # crossings that were not answered before the next
    lags_s: list[float]  # of ticks
    feed_late_s: float


@contextlib.contextmanager
def daemon(row: Row, port: int, folder: Path, core: int) -> Iterator[Meter]:
    """A daemon's process, on one core."""
    config = folder / f"{row.name}.toml"
    config.write_text(row.config(port))
    polcad = str(Path(sys.executable).with_name("polcad"))
    process = subprocess.Popen(["taskset", "-c", str(core), polcad, "daemon", "--config", str(config)])
    try:
        yield Meter(process.pid)
    finally:
        process.terminate()
        process.wait()


async def measure(rows: Sequence[Row], folder: Path, seconds: float) -> list[Figures]:
    """A daemon a row, all under load at once."""
    own, others = cores()
    with contextlib.ExitStack() as stack, pinned(others):
        broker = stack.enter_context(Mosquitto(folder, CONF))
        own_cores = itertools.cycle(own)
        meters = [stack.enter_context(daemon(row, broker.port, folder, next(own_cores))) for row in rows]
        feeds = [stack.enter_context(feeding(row, broker.port)) for row in rows]
        async with contextlib.AsyncExitStack() as tasks:
            ears = [
                await tasks.enter_async_context(_listening(Ear(row, broker.port, meter)))
                for row, meter in zip(rows, meters, strict=True)
            ]
            return await _measure(Meter(broker.pid), meters, feeds, ears, seconds)


async def _measure(
    broker: Meter, meters: Sequence[Meter], feeds: Sequence[Connection], ears: Sequence[Ear], seconds: float
) -> list[Figures]:
    await until(lambda: all(ear.statuses for ear in ears), START_S)
    for feed in feeds:
        feed.send(None)
    await until(lambda: all(ear.plans for ear in ears), START_S)
    await asyncio.sleep(WARM_UP_S)
    since_s = time.monotonic()
    for ear in ears:
        ear.begin()
    before_s = [meter.cpu_s() for meter in (broker, *meters)]
    await asyncio.sleep(seconds)
    after_s = [meter.cpu_s() for meter in (broker, *meters)]
    broker_s, *shares = [
        (after - before) / (time.monotonic() - since_s) for before, after in zip(before_s, after_s, strict=True)
    ]
    for feed in feeds:
        feed.send(None)
    sents: list[Sent] = [feed.recv() for feed in feeds]
    with contextlib.suppress(TimeoutError):
        await until(lambda: all(ear.heard() >= sent.messages for ear, sent in zip(ears, sents, strict=True)), DRAIN_S)
    broker_us = 1e6 * broker_s / sum(ear.row.rate for ear in ears)
    return [
        _figures(ear, sent, (since_s, core, broker_us)) for ear, sent, core in zip(ears, sents, shares, strict=True)
    ]


def _figures(ear: Ear, sent: Sent, measured: tuple[float, float, float]) -> Figures:
    since_s, core, broker_us = measured
    answers_s, missed = ear.answers_s(sent, since_s)
    return Figures(
        row=ear.row,
        lost=sent.messages - ear.heard(),
        core=core,
        each_us=ear.each_us(),
        broker_us=broker_us,
        memory_mib=ear.daemon.memory_mib(),
        answers_s=answers_s,
        missed=missed,
        lags_s=ear.lags_s(),
        feed_late_s=sent.late_s,
    )


@contextlib.contextmanager
def pinned(others: Sequence[int]) -> Iterator[None]:
    """Keep what runs in the block, and what it starts, on these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, others)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.asynccontextmanager
async def _listening(ear: Ear) -> AsyncIterator[Ear]:
    task = asyncio.create_task(ear.listen())
    try:
        yield ear
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(holds: Callable[[], bool], within_s: float) -> None:
    """Return once it holds; TimeoutError when it does not in time."""
    async with asyncio.timeout(within_s):
        while not holds():  # noqa: ASYNC110  # processes are looked at from outside: nothing tells
            await asyncio.sleep(0.05)


def quantile_ms(seconds: Sequence[float], q: float) -> float:
    """The q-quantile, milliseconds; NaN of none."""
    ordered = sorted(seconds)
    return 1e3 * ordered[min(len(ordered) - 1, int(q * len(ordered)))] if ordered else float("nan")
