"""A whole row with all that dashboards show, told to a real InfluxDB and a real Prometheus: programs, and a story.

A shadow runs beside its daemon. It idles, brakes, is in T1 and in T2; it has an operator's hold, a silent node, a board
that somebody else limits, and a pool with hints. What a dashboard shows of it is then asked for as Grafana would.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polcad.model import EventKind
from polcad.testing_brokers import Mosquitto, free_port
from tests.databases import Influx
from tests.fake_engine import Engine, serving
from tests.live_row import BRAKE, FREE_MHZ, LOW_T1, LOW_T2, POLCAD, LiveRow, boards_in
from tests.real_prometheus import Prometheus
from tests.waiting import until

SCRAPE_S = 1
_DAEMON = """
[influxdb]
url = "{influx}"
flush_s = 0.2
[forecast]
name = "persistence"
hold_s = 2.0
[hints]
name = "dynamo"
pools = "one"
pool = "chat"
gpus = 32
power_budget_w = 60_000.0
period_s = 0.2
"""
_PROMETHEUS = """
global: {{scrape_interval: {scrape_s}s}}
scrape_configs:
  - job_name: polcad
    static_configs:
      - targets: [{targets}]
        labels: {{site: site}}
"""


@dataclass
class ShownRow(LiveRow):
    """A row whose daemon and agents are scraped and written down."""

    influx: str = ""

    def write_config(self, **guard: Any) -> None:
        """As every row's, with a budget for the rack, ports to scrape and a database."""
        super().write_config(**guard)
        self.ports = {name: free_port() for name in ("daemon", "shadow", *self.priorities)}
        daemon = self.folder / "daemon.toml"
        text = daemon.read_text().replace("[web]\nport = 0", f"[web]\nport = {self.ports['daemon']}")
        text = text.replace('[[rack]]\nname = "r1"\n', f'[[rack]]\nname = "r1"\nbudget_w = {self.budget_w}\n')
        daemon.write_text(text + _DAEMON.format(influx=self.influx))
        for name in self.priorities:
            with (self.folder / f"{name}.toml").open("a") as out:
                out.write(f"[agent.web]\nport = {self.ports[name]}\n")

    def load_agent(self, url: str) -> None:
        """Start what reads the engine at a URL."""
        load = {"POOL": "chat", "INSTANCE": "chat-0", "URL": url, "TENSOR_PARALLEL": "8", "PERIOD_S": "0.5"}
        self.start("load", "daemon", {f"POLCAD_LOAD__{name}": value for name, value in load.items()})

    def play(self, until_scraped: Callable[[str], None]) -> None:
        """Let everything happen, each part for as long as a scraper needs to see it."""
        self.load(0.0)
        agents, _ = self.start_all()
        self.start("daemon", "daemon", {"POLCAD_WEB__PORT": str(self.ports["shadow"])}, "--shadow")
        self.until_clocks(FREE_MHZ, FREE_MHZ)
        until_scraped('polcad_events_total{kind="hint"} > 0')
        self.load(1.0)
        self.until_clocks(BRAKE, BRAKE)
        until_scraped('polcad_domain_cause_seconds_total{scope="row", why="brake"} > 0')
        self.load(0.2)
        self.until_clocks(FREE_MHZ, FREE_MHZ)
        self.load(0.8)
        self.until_clocks(FREE_MHZ, LOW_T1)
        until_scraped('polcad_domain_cause_active{scope="row", why="t1"} == 1')
        self.load(1.0)
        self.until_clocks(FREE_MHZ, LOW_T2)
        hold = [POLCAD, "hold", "works", "-c", str(self.folder / "daemon.toml"), "--scope", "node/n2", "--clock", "0.5"]
        subprocess.run(hold, check=True, capture_output=True, env=os.environ)
        self.boards["n2"].gpus[1].hold_limit(150.0)
        agents["n3"].kill()
        until(lambda: bool(self.tap.events(EventKind.STALE, "node/n3")))
        for kind in ("stale", "hold"):
            until_scraped(f'polcad_events_total{{kind="{kind}"}} offset {3 * SCRAPE_S}s > 0')


@dataclass(frozen=True, slots=True)
class Shown:
    """The row that was played, still running, and the databases that know of it."""

    row: ShownRow
    influx: Influx
    prometheus: Prometheus


@contextmanager
def shown(folder: Path, nvml: Path) -> Iterator[Shown]:
    """Play the story."""
    with ExitStack() as stack:
        influx = stack.enter_context(Influx(folder))
        broker = stack.enter_context(Mosquitto(folder))
        row = stack.enter_context(ShownRow(folder, broker, boards_in(folder, nvml), influx=influx.write_url))
        targets = ", ".join(f'"127.0.0.1:{port}"' for port in row.ports.values())
        (folder / "prometheus.yml").write_text(_PROMETHEUS.format(scrape_s=SCRAPE_S, targets=targets))
        prometheus = stack.enter_context(Prometheus(folder / "prometheus.yml"))
        row.load_agent(stack.enter_context(serving(Engine(), each_s=0.2)))
        row.play(lambda query: until(lambda: bool(prometheus.ask(query)), within_s=60.0))
        yield Shown(row, influx, prometheus)
