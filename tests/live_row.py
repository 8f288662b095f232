"""A whole row for tests: agents over fake boards, a daemon, and an ear on the wire; every program is a process."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any, Self, TypeVar

from polcad.backlog import Received
from polcad.broker_spec import BrokerSpec, TlsSpec
from polcad.errors import WireError
from polcad.model import Event, EventKind, RowStatus, Telemetry
from polcad.mqtt import Link, Presence
from polcad.testing_brokers import Broker
from polcad.wire import KINDS, Message, decode, everywhere
from tests.fake_nvml.control import FakeGpu, FakeNode, FakeNvml
from tests.waiting import until

T = TypeVar("T")

POLCAD = str(Path(sys.executable).with_name("polcad"))
TICK_S, LEASE_S, PERIOD_S, DWELL_S = 0.1, 2.0, 0.1, 2.0
SLACK_S = 2.0  # for a machine of two cores that runs other tests too
FREE_MHZ = 1410
LOW_T1, LOW_T2, BRAKE, FAIL_SAFE = 1275, 1110, 285, 1110  # MHz: what the fractions come to on the fake board's grid
GUARD = {
    "tick_s": TICK_S,
    "lease_s": LEASE_S,
    "stale_after_s": 1.2,
    "latency_s": 0.3,
    "dwell_s": DWELL_S,
    "brake_dwell_s": DWELL_S,
}


class Wiretap:
    """Hears all of a row's topics, in a thread of its own; `heard` grows by monotonic arrival time.

    It is copied by `copy` to be looked at: before Python 3.12 `tuple` may collect garbage halfway, let the other thread
    append, and read where the list was.
    """

    def __init__(self, at: int | BrokerSpec, site: str = "site", row: str = "row", tls: TlsSpec | None = None) -> None:
        self.heard: list[Received] = []
        topics = tuple(everywhere(site, row, kind) for kind in KINDS)
        presence = Presence(client_id=f"tap-{time.time_ns():x}", subscriptions=topics)
        spec = replace(BrokerSpec(port=at) if isinstance(at, int) else at, tls=tls, retry_max_s=0.2)
        self._link = Link(spec, presence, time.monotonic, Random())  # noqa: S311  # spreads retries
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._listen(),), name="wiretap")
        self._stop = asyncio.Event()

    def __enter__(self) -> Self:
        self._thread.start()
        until(lambda: self._link.connected)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(5.0)
        self._loop.close()

    async def _listen(self) -> None:
        running = asyncio.create_task(self._link.run())
        hearing = asyncio.create_task(self._hear())
        await self._stop.wait()
        running.cancel()
        await asyncio.wait({running, hearing})

    async def _hear(self) -> None:
        async for batch in self._link.batches():
            self.heard += batch

    def send(self, message: Message) -> None:
        """Publish anything at all; returns when it is written (QoS 0) or the broker has it."""
        asyncio.run_coroutine_threadsafe(self._link.publish(message), self._loop).result(10.0)

    def nouns(self, kind: str, since: float = 0.0) -> list[Any]:
        """What was understood of a kind since a monotonic time, oldest first."""
        mark = f"/{kind}"
        heard = [each.message for each in self.heard.copy() if each.t >= since and mark in each.message.topic]
        return [noun for noun in map(_noun, heard) if isinstance(noun, KINDS[kind].noun)]

    def status(self) -> RowStatus | None:
        """The daemon's last word."""
        return self._last("/daemon", RowStatus)

    def telemetry(self, node: str) -> Telemetry | None:
        """A node's last message."""
        return self._last(f"/{node}/telemetry", Telemetry)

    def _last(self, ending: str, noun: type[T]) -> T | None:
        heard = (each.message for each in reversed(self.heard.copy()) if each.message.topic.endswith(ending))
        return next((found for found in map(_noun, heard) if isinstance(found, noun)), None)

    def events(self, kind: EventKind, scope: str = "", since: float = 0.0) -> list[Event]:
        """The events of a kind, and of one scope if it is given."""
        told: list[Event] = self.nouns("event", since)
        return [event for event in told if event.kind is kind and scope in {"", event.scope}]


def _noun(message: Message) -> Any:
    with suppress(WireError):
        return decode(message)[1]
    return None


@dataclass(slots=True)
class Program:
    """A running `polcad`."""

    process: subprocess.Popen[bytes]
    log: Path

    def kill(self) -> None:
        """End it as a crash does."""
        self.process.kill()
        self.process.wait(5.0)

    def stop(self) -> int:
        """End it in order; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(10.0)


@dataclass(frozen=True, slots=True)
class Step:
    """A change of one GPU's lock, MHz; no lock is the highest clock."""

    t: float
    uuid: str
    before: int
    after: int


class Watch:
    """Looks at every board's lock, some hundred times a second, in a thread of its own."""

    def __init__(self, gpus: Iterable[FakeGpu]) -> None:
        self.steps: list[Step] = []
        self.samples = 0
        self.longest_gap_s = 0.0
        self._gpus = {gpu.uuid: gpu for gpu in gpus}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, name="watch")

    def __enter__(self) -> Self:
        self._thread.start()
        until(lambda: self.samples > 0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(5.0)

    def _look(self) -> None:
        last = {uuid: clock_mhz(gpu) for uuid, gpu in self._gpus.items()}
        before_s = time.monotonic()
        ends = False
        while not ends:
            ends = self._stop.wait(0.002)  # and looks once more: what the test has seen was seen
            now_s = time.monotonic()
            for uuid, gpu in self._gpus.items():
                if (mhz := clock_mhz(gpu)) != last[uuid]:
                    self.steps.append(Step(now_s, uuid, last[uuid], mhz))
                    last[uuid] = mhz
            self.longest_gap_s = max(self.longest_gap_s, now_s - before_s)
            before_s = now_s
            self.samples += 1

    def loosened(self) -> list[Step]:
        """Every step up."""
        return [step for step in self.steps if step.after > step.before]


def clock_mhz(gpu: FakeGpu) -> int:
    """The highest clock that a board's lock allows."""
    return gpu.lock_mhz or FREE_MHZ


@dataclass
class LiveRow:
    """Three nodes of two GPUs, 2360 W for 2400: full load is over the budget. n1 is of high priority."""

    folder: Path
    broker: Broker
    make_node: Callable[..., FakeNvml]
    priorities: Mapping[str, str] = field(default_factory=lambda: {"n1": "high", "n2": "low", "n3": "low"})
    gpus: int = 2
    budget_w: float = 2360.0
    tap_tls: TlsSpec | None = None
    programs: dict[str, Program] = field(default_factory=dict)  # the last started of each name
    stack: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Self:
        self._nodes = {name: self.make_node(name, self.gpus) for name in self.priorities}
        self.boards: dict[str, FakeNode] = {name: node.control for name, node in self._nodes.items()}
        self.load(0.2)
        self.write_config()
        self.tap = self.stack.enter_context(Wiretap(self.broker.spec("tap"), tls=self.tap_tls))
        return self

    def link(self, name: str) -> str:
        """What a program's configuration says of the broker, as TOML."""
        spec = self.broker.spec(name)
        return (
            f'[site]\nname = "site"\n[web]\nport = 0\n[broker]\nport = {spec.port}\n'
            f"more_hosts = {list(spec.more_hosts)}\nretry_max_s = 0.2\n{self.security(name)}"
        )

    def security(self, name: str) -> str:
        """What a program's configuration says of certificates and signatures, as TOML."""
        del name
        return ""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stack.close()

    def write_config(self, **guard: Any) -> None:
        """One file for the daemon, one a node, `guard` over this file's."""
        guarding = "".join(f"{key} = {value}\n" for key, value in {**GUARD, **guard}.items())
        nodes = "".join(
            f'[[node]]\nname = "{name}"\nrack = "r1"\ngpus = {self.gpus}\ngpu_max_w = 400.0\npriority = "{priority}"\n'
            for name, priority in self.priorities.items()
        )
        row = f'[row]\nname = "row"\nbudget_w = {self.budget_w}\n[[rack]]\nname = "r1"\n'
        (self.folder / "daemon.toml").write_text(f"{self.link('daemon')}[guard]\n{guarding}{row}{nodes}")
        for name in self.priorities:
            state = self.folder / f"state-{name}"
            (self.folder / f"{name}.toml").write_text(
                f"{self.link(name)}"
                f'[agent]\nrow = "row"\nrack = "r1"\nnode = "{name}"\nperiod_s = {PERIOD_S}\n'
                f'gpu_deadline_s = 0.1\nstate_dir = "{state}"\n'
            )

    def agent(self, name: str) -> Program:
        """Start a node's agent over its fake boards."""
        return self.start("agent", name, self._nodes[name].env)

    def daemon(self, *options: str) -> Program:
        """Start the row's daemon."""
        return self.start("daemon", "daemon", {}, *options)

    def start(self, command: str, name: str, env: Mapping[str, str], *options: str) -> Program:
        """Start a program with the configuration of that name."""
        log = self.folder / f"{name}.log"
        with log.open("ab") as out:
            process = subprocess.Popen(
                [*self.program(name), command, "-c", self.folder / f"{name}.toml", *options],
                env={**os.environ, **env},
                stdout=out,
                stderr=out,
            )
        program = self.programs[name] = Program(process, log)
        self.stack.callback(_end, process)
        return program

    def program(self, name: str) -> Sequence[str]:
        """What is run as `polcad` for a program."""
        del name
        return (POLCAD,)

    def start_all(self) -> tuple[dict[str, Program], Program]:
        """Start everything, and wait until every node follows the daemon's plan and knows what it runs."""
        agents = {name: self.agent(name) for name in self.priorities}
        daemon = self.daemon()
        until(lambda: {noun.node for noun in self.tap.nouns("placement")} == set(self.priorities), 60.0)
        self.until_followed()
        return agents, daemon

    def until_followed(self, within_s: float = 60.0) -> None:
        """Wait until every node holds a lease of the daemon that speaks now."""
        until(lambda: all(self.follows(name) for name in self.priorities), within_s)

    def follows(self, name: str) -> bool:
        """Whether a node's last word is that it holds a lease of the daemon that speaks now."""
        said, status = self.tap.telemetry(name), self.tap.status()
        held = said is not None and said.plan is not None and said.plan.lease == "held"
        return bool(held and said and said.plan and status and status.online and said.plan.epoch == status.epoch)

    def until_status(self, holds: Callable[[RowStatus], bool], within_s: float = 20.0) -> None:
        """Wait until the daemon's last word is so."""
        until(lambda: (status := self.tap.status()) is not None and holds(status), within_s)

    def load(self, load: float) -> None:
        """Load every GPU of the row alike."""
        for board in self.boards.values():
            board.load(load)

    def all_gpus(self) -> list[FakeGpu]:
        """The GPUs of all nodes."""
        return [gpu for board in self.boards.values() for gpu in board.gpus]

    def clocks(self) -> dict[str, set[int]]:
        """By node, the highest clocks that the locks of its GPUs allow, MHz."""
        return {name: {clock_mhz(gpu) for gpu in board.gpus} for name, board in self.boards.items()}

    def until_clocks(self, n1: int, low: int, within_s: float = 20.0) -> None:
        """Wait until the boards of the high and the low priority are locked so."""
        until(lambda: self.clocks() == {"n1": {n1}, "n2": {low}, "n3": {low}}, within_s)


def boards_in(folder: Path, lib_dir: Path) -> Callable[[str, int], FakeNvml]:
    """Makes nodes by name and number of GPUs, for a row that serves a whole module."""

    def make(name: str, gpus: int) -> FakeNvml:
        node = FakeNode(lib_dir, folder / f"{name}.nvml", gpus, prefix=f"GPU-{name}")
        return FakeNvml(lib_dir, node, node.env)

    return make


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.kill()
    process.wait(5.0)
