"""A whole site for tests: row daemons and the site's as processes, over nodes that answer to plans in a thread here."""

from __future__ import annotations

import asyncio
import os
import subprocess
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any, Self, TypeVar

from polcad.backlog import Received
from polcad.broker_spec import BrokerSpec
from polcad.model import Allowance, Event, Plan, RowStatus, SiteRow, SiteStatus
from polcad.mqtt import Link, Presence
from polcad.spec import NodeSpec, RowSpec
from polcad.testing import LoopRow
from polcad.testing_brokers import Mosquitto
from polcad.wire import OF_SITE, Address, Message, decode, encode, everywhere
from tests.live_row import GUARD, POLCAD, Program
from tests.waiting import until

N = TypeVar("N")

BUDGET_W, OWN_W, FAIL_SAFE_W = 8000.0, 5000.0, 3000.0
ROWS = ("row1", "row2")
HOSTS = ("first", "second")
SITE = {"tick_s": 0.2, "lease_s": 3.0, "stale_after_s": 2.0, "dwell_s": 0.5, "peak_s": 1.0}
NODES = tuple(NodeSpec(f"n{i}", gpus=2, gpu_max_w=700.0) for i in range(4))  # 5600 W at full load
_FEED_S = 0.1


class Fed:
    """Speaks for the nodes of all rows and lets them act by the plans; hears what daemons say, in one order."""

    def __init__(self, port: int) -> None:
        self.rows = {name: LoopRow(RowSpec(name, OWN_W, nodes=_nodes(name))) for name in ROWS}
        self.heard: list[Any] = []
        topics = tuple(everywhere("site", name, kind) for name in ROWS for kind in ("plan", "daemon"))
        presence = Presence(f"fed-{time.time_ns():x}", (*topics, *(everywhere("site", "", kind) for kind in OF_SITE)))
        self._link = Link(BrokerSpec(port=port), presence, time.monotonic, Random(1))  # noqa: S311  # spreads retries
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="fed")

    def __enter__(self) -> Self:
        self._thread.start()
        until(lambda: self._link.connected)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(5.0)

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        tasks = [asyncio.create_task(work) for work in (self._link.run(), self._hear(), self._speak())]
        await tasks.pop()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    async def _speak(self) -> None:
        while not self._stop.is_set():
            t = time.monotonic()
            for name, row in self.rows.items():
                row.act(t)
                for said in row.speak(t):
                    address = Address("site", name, "telemetry", said.rack, said.telemetry.node)
                    self._link.send(encode(address, said.telemetry))
            await asyncio.sleep(_FEED_S)

    async def _hear(self) -> None:
        async for batch in self._link.batches():
            for received in batch:
                self._take(received)

    def _take(self, received: Received) -> None:
        noun = decode(received.message)[1]
        if isinstance(noun, Plan):
            self.rows[noun.row].take(noun, received.t)
        else:
            self.heard.append(noun)

    def say(self, message: Message) -> None:
        """Say anything at all."""
        asyncio.run_coroutine_threadsafe(self._link.publish(message), self._loop).result(10.0)

    def all(self, noun_of: type[N]) -> list[N]:
        """All that was heard of a kind."""
        return [noun for noun in self.heard.copy() if isinstance(noun, noun_of)]


def _nodes(row: str) -> tuple[NodeSpec, ...]:
    return tuple(NodeSpec(f"{row}{node.name}", gpus=node.gpus, gpu_max_w=node.gpu_max_w) for node in NODES)


@dataclass
class LiveSite:
    """Two rows of 5000 W at most and 3000 W for sure, under 8000 W."""

    folder: Path
    broker: Mosquitto
    programs: dict[str, Program] = field(default_factory=dict)
    stack: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Self:
        self.fed = self.stack.enter_context(Fed(self.broker.port))
        self.write_config()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stack.close()

    def write_config(self, site: str = "", row: str = "") -> None:
        """One file a row, and the site's, with more TOML for each."""
        link = f"[broker]\nport = {self.broker.port}\nretry_max_s = 0.2\n[web]\nport = 0\n"
        guard = "[guard]\n" + "".join(f"{key} = {value}\n" for key, value in GUARD.items())
        for name in ROWS:
            nodes = "".join(
                f'[[node]]\nname = "{node.name}"\ngpus = {node.gpus}\ngpu_max_w = {node.gpu_max_w}\n'
                for node in _nodes(name)
            )
            head = f'[row]\nname = "{name}"\nbudget_w = {OWN_W}\nfail_safe_budget_w = {FAIL_SAFE_W}\n'
            (self.folder / f"{name}.toml").write_text(f"{link}{guard}{row}{head}{nodes}")
        rows = "".join(f'[[site.rows]]\nname = "{name}"\nfail_safe_w = {FAIL_SAFE_W}\n' for name in ROWS)
        settings = "".join(f"{key} = {value}\n" for key, value in SITE.items())
        (self.folder / "site.toml").write_text(f"{link}{site}[site]\nbudget_w = {BUDGET_W}\n{settings}{rows}")

    def write_standby(self, url: str, ttl_s: float) -> None:
        """A file for each of two site daemons, with the lock in that NATS; a daemon is called after its file."""
        written = (self.folder / "site.toml").read_text()
        for host in HOSTS:
            lock = f'[standby]\nservers = ["{url}"]\nttl_s = {ttl_s}\nhost = "{host}"\n'
            (self.folder / f"{host}.toml").write_text(f"{lock}{written}")

    def start(self, name: str) -> Program:
        """Start a row's daemon, or one of the site's."""
        log = self.folder / f"{name}.log"
        with log.open("ab") as out:
            command = [POLCAD, "daemon" if name in ROWS else "site", "-c", self.folder / f"{name}.toml"]
            process = subprocess.Popen(command, env=dict(os.environ), stdout=out, stderr=out)
        program = self.programs[name] = Program(process, log)
        self.stack.callback(program.kill)
        return program

    def load(self, name: str, load_frac: float) -> None:
        """Load every GPU of a row alike."""
        self.fed.rows[name].load(load_frac)

    def allowance(self, name: str) -> Allowance | None:
        """What a row said last that it may draw; None where its daemon is gone, or has not spoken."""
        said = [status for status in self.fed.all(RowStatus) if status.row == name]
        return said[-1].allowance if said and said[-1].online and said[-1].domains else None

    def status(self) -> SiteStatus | None:
        """The site's last word."""
        return next(reversed(self.fed.all(SiteStatus)), None)

    def row(self, name: str) -> SiteRow:
        """A row, as the site's last word has it."""
        status = self.status()
        assert status is not None
        return next(each for each in status.rows if each.row == name)

    def until_budgets(self, row1_w: float, row2_w: float, within_s: float = 60.0) -> None:
        """Wait until the rows say that they may draw so much, to within a hundredth."""
        wanted = (row1_w, row2_w)

        def reached() -> bool:
            found = [self.allowance(name) for name in ROWS]
            pairs = zip(found, wanted, strict=True)
            return all(each is not None and abs(each.budget_w - want_w) < 0.01 * want_w for each, want_w in pairs)

        until(reached, within_s)

    def refused(self, name: str) -> int:
        """How many messages a row's daemon has not believed."""
        said = [status for status in self.fed.all(RowStatus) if status.row == name]
        return said[-1].counters.get("refused_messages", 0) if said else 0

    def events(self) -> list[tuple[str, str]]:
        """What the site's daemon told, and the rows', by kind and scope."""
        return [(event.kind.value, event.scope) for event in self.fed.all(Event)]

    def most_together_w(self) -> float:
        """The most that the rows said together at any moment that they may draw."""
        last = dict.fromkeys(ROWS, 0.0)
        most_w = 0.0
        for status in self.fed.all(RowStatus):
            if status.allowance is not None and status.domains:
                last[status.row] = status.allowance.budget_w
                most_w = max(most_w, sum(last.values()))
        return most_w
