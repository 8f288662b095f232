"""A live row with two daemons, whose lock is in a real NATS: one leads, the other waits."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from polcad.model import Plan
from tests.live_row import LEASE_S, LiveRow, Program
from tests.waiting import until

HOSTS = ("first", "second")
STOOD_DOWN = 75  # what an outranked daemon ends with that is a standby once it is started again


@dataclass
class StandbyRow(LiveRow):
    """The daemons are called after their hosts; `servers` are URLs of NATS."""

    servers: Sequence[str] = ()
    replicas: int = 1
    ttl_s: float = LEASE_S

    def write_config(self, **guard: Any) -> None:
        """As every row's, and one file for each of the two daemons."""
        super().write_config(**guard)
        written = (self.folder / "daemon.toml").read_text()
        for host in HOSTS:
            standby = f'[standby]\nservers = {json.dumps(list(self.servers))}\nhost = "{host}"\n'
            lock = f"replicas = {self.replicas}\nttl_s = {self.ttl_s}\n"
            (self.folder / f"{host}.toml").write_text(f"{written}{standby}{lock}")

    def daemon(self, *options: str) -> Program:
        """Start the first daemon, which takes the row."""
        return self.host("first", *options)

    def host(self, host: str, *options: str) -> Program:
        """Start the daemon of a host."""
        return self.start("daemon", host, {}, *options)

    def start_both(self) -> tuple[Program, Program]:
        """Start everything, and wait until the first leads, and the second waits and is ready."""
        _, first = self.start_all()
        second = self.host("second")
        until(lambda: self.told("second", "readyz") == "ok\n", 30.0)
        return first, second

    def told(self, host: str, path: str) -> str:
        """What the page of a host's daemon says; "" while there is none."""
        log = (self.folder / f"{host}.log").read_text()
        url = log.rpartition("the page is at ")[2].split("\n")[0].split(" ")[0]
        try:
            with urllib.request.urlopen(f"{url}{path}", timeout=5.0) as answer:  # noqa: S310  # the daemon's own
                return str(answer.read().decode())
        except urllib.error.HTTPError as error:
            return error.read().decode()
        except (OSError, ValueError):
            return ""

    def leader(self) -> str:
        """Who leads, by the row's status."""
        status = self.tap.status()
        return status.host if status and status.online else ""

    def plans(self, since: float = 0.0) -> list[Plan]:
        """What was planned since a monotonic time, oldest first."""
        return self.tap.nouns("plan", since)

    def first_plan_s(self, older: int, since: float) -> float:
        """When the first plan of a greater epoch than `older` came after a monotonic time; inf where none did."""
        for received in self.tap.heard.copy():
            if received.t >= since and received.message.topic.endswith("/plan"):
                epoch = json.loads(received.message.payload)["epoch"]
                if epoch > older:
                    return received.t
        return float("inf")
