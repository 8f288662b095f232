"""Feed a whole day to real programs as fast as they take it, and see whether memory and descriptors stay flat.

python -m tests.soak [--hours 24] [--nodes 20] [--out docs/soak.md]
"""

from __future__ import annotations

import argparse
import csv
import getpass
import os
import platform
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any, Self

from polcad.testing_brokers import Mosquitto
from tests.databases import Influx, get
from tests.fake_nvml.control import build
from tests.live_row import LiveRow, boards_in
from tests.soak.feed import GPU_MAX_W, GPUS, HOUR_S, names
from tests.soak.gauge import MOST_KIB, Sample, Verdict, judge, sample
from tests.waiting import until

NODE = "n1"  # the one real one: agent and actuator over fake boards
PERIOD_S = 0.01  # of its agent: as fast as one may be
QUEUE_POINTS = 100_000  # that wait for the database: it is slower than this feed, so they fill, and soon
_SAMPLE_S = 2.0
_LOOK_S = 1.0  # a scrape, and every tenth time the page's stream for a while
_URL = re.compile(r"the page is at (http://\S+)")
_DAY_S = 24 * HOUR_S


@dataclass
class SoakRow(LiveRow):
    """One real node with its actuator among many simulated ones, with daemon, recorder and database."""

    influx_url: str = ""
    simulated: int = 20

    def __enter__(self) -> Self:
        """Without an ear on the wire: it would keep all that it hears."""
        self._nodes = {NODE: self.make_node(NODE, self.gpus)}
        self.boards = {NODE: self._nodes[NODE].control}
        self.load(0.5)
        self.write_config()
        return self

    def write_config(self, **guard: Any) -> None:
        """As every row's, with an actuator, a database, and the simulated nodes in the inventory."""
        super().write_config(**guard)
        agent, daemon = self.folder / f"{NODE}.toml", self.folder / "daemon.toml"
        at_speed = re.sub(r"\nperiod_s = \S+\n", f"\nperiod_s = {PERIOD_S}\n", agent.read_text())
        (self.folder / "bounds.toml").write_text("")
        agent.write_text(
            f'{at_speed}[actuator]\nsocket = "{self.folder}/{NODE}.sock"\nuser = "{getpass.getuser()}"\n'
            f'bounds = "{self.folder}/bounds.toml"\nstate_dir = "{self.folder}/actuator"\n'
        )
        listed = "".join(
            f'[[node]]\nname = "{name}"\nrack = "r1"\ngpus = {GPUS}\ngpu_max_w = {GPU_MAX_W}\npriority = "{priority}"\n'
            for name, priority in zip(names(self.simulated), ("low", "high") * self.simulated, strict=False)
        )
        influxdb = f'[influxdb]\nurl = "{self.influx_url}"\nqueue_points = {QUEUE_POINTS}\n'
        daemon.write_text(f"{daemon.read_text()}{listed}{influxdb}")
        for name, like in (("recorder", daemon), ("actuator", agent)):
            (self.folder / f"{name}.toml").write_text(like.read_text())

    @property
    def mosquitto(self) -> Mosquitto:
        """The broker, as the process that it is."""
        assert isinstance(self.broker, Mosquitto)
        return self.broker

    def begin(self) -> None:
        """Start all programs, and wait until the daemon serves its page."""
        self.start("actuator", "actuator", self._nodes[NODE].env)
        self.start("record", "recorder", {}, str(self.folder / "row.rec"))
        self.agent(NODE)
        self.daemon()
        until(lambda: bool(_URL.search(self._log())), 60.0)
        self.url = _URL.findall(self._log())[-1]

    def _log(self) -> str:
        return (self.folder / "daemon.log").read_text()

    def pids(self) -> dict[str, int]:
        """The process of each program."""
        return {name: program.process.pid for name, program in self.programs.items()} | {"broker": self.mosquitto.pid}

    def ended(self) -> list[str]:
        """Programs that are no more, with their last words."""
        gone = [name for name, program in self.programs.items() if program.process.poll() is not None]
        return [f"{name}: {self.programs[name].log.read_text()[-1500:]}" for name in gone]


@contextmanager
def looked_at(url: str) -> Iterator[None]:
    """Somebody looks at the daemon meanwhile: scrapes, and a page that comes and goes."""
    stop = threading.Event()

    def look() -> None:
        turn = 0
        while not stop.wait(_LOOK_S):
            turn += 1
            get(f"{url}metrics")
            if turn % 10 == 0:
                with urllib.request.urlopen(f"{url}api/stream", timeout=10.0) as stream:  # noqa: S310  # ours
                    stream.read(10_000)

    thread = threading.Thread(target=look, name="looks")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def soak(row: SoakRow, hours: float) -> tuple[dict[str, list[Sample]], tuple[int, int, int]]:
    """Feed so many hours; the samples of each program, and recorded seconds, messages sent, and dropped."""
    command = [sys.executable, "-m", "tests.soak.feed", *map(str, (row.mosquitto.port, row.simulated, hours))]
    seen: dict[str, list[Sample]] = {name: [] for name in row.pids()}
    lines: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as feed:
        row.stack.callback(feed.kill)
        assert feed.stdout is not None
        reader = threading.Thread(target=lambda: lines.extend(feed.stdout or ()), name="feed")
        reader.start()
        while feed.poll() is None:
            time.sleep(_SAMPLE_S)
            if ended := row.ended():
                raise RuntimeError("\n".join(ended))
            if lines:
                done_frac = int(lines[-1].split()[0]) / _DAY_S
                for name, pid in row.pids().items():
                    seen[name].append(sample(pid, done_frac))
        reader.join()
    if feed.returncode:
        raise RuntimeError(f"the feed ended with {feed.returncode}")
    second, sent, dropped = map(int, lines[-1].split())
    return seen, (second, sent, dropped)


_HEAD = """# A day at speed

By `make soak SOAK_OUT=docs/soak.md`: {hours:g} recorded hours in {took:.0f} s, {cores} cores, Python {python}.

{nodes} simulated nodes of {gpus} GPUs speak once each recorded second, and follow the plans that they hear: {sent}
messages, {rate:.0f} a second, as fast as the daemon takes them; it dropped {dropped}. Their load has the shape of a
day and drives the row over its thresholds; each recorded hour an agent starts anew, or a node falls silent, or an
operator holds one. Beside them one real agent ({node}) with its actuator, over fake boards, turns each {period:g} s; a
recorder writes all, InfluxDB takes every point, and somebody scrapes `/metrics` and opens the page. Each program is
looked at from outside every {sample:g} s (`/proc/PID/smaps_rollup`, `fd`, `task`), once warm, which is after a quarter
of the time.

Flat is: no more descriptors and threads at the end than at the beginning, and a line through anonymous memory that
rises by less than {most:.0f} KiB a recorded day, under one byte a message.

| program | resident, first / last / peak | anonymous, first / last | rises a day by | descriptors | threads | flat |
|---|---|---|---|---|---|---|
"""


def page(verdicts: dict[str, Verdict], row: SoakRow, fed: tuple[int, int, int], took_s: float) -> str:
    """The page, in Markdown."""
    second, sent, dropped = fed
    head = _HEAD.format(
        hours=second / HOUR_S,
        took=took_s,
        cores=os.cpu_count(),
        python=platform.python_version(),
        nodes=row.simulated,
        gpus=GPUS,
        sent=f"{sent:,}".replace(",", " "),
        dropped=dropped,
        rate=sent / took_s,
        node=NODE,
        period=PERIOD_S,
        sample=_SAMPLE_S,
        most=MOST_KIB,
    )
    return head + "".join(_line(name, verdict) for name, verdict in verdicts.items())


def _line(name: str, verdict: Verdict) -> str:
    first, last = verdict.first, verdict.last
    cells = (
        name,
        f"{first.rss_kib / 1024:.1f} / {last.rss_kib / 1024:.1f} / {verdict.peak_rss_kib / 1024:.1f} MiB",
        f"{first.anonymous_kib / 1024:.1f} / {last.anonymous_kib / 1024:.1f} MiB",
        f"{verdict.growth_kib:+.0f} KiB",
        "{:g} / {:g}".format(*verdict.descriptors),
        "{:g} / {:g}".format(*verdict.threads),
        "; ".join(verdict.broken()) or "yes",
    )
    return f"| {' | '.join(cells)} |\n"


def keep(path: Path, seen: dict[str, list[Sample]]) -> None:
    """Write all samples, a line each."""
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["program", *(item.name for item in fields(Sample))])
        table.writerows([name, *astuple(each)] for name, samples in seen.items() for each in samples)


def main() -> int:
    """0 when all was flat, and nothing was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--nodes", type=int, default=SoakRow.simulated)
    parser.add_argument("--samples", type=Path, help="keep every sample here, as CSV")
    parser.add_argument("--out", type=Path, help="keep the page here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="polcad-soak-") as made, ExitStack() as stack:
        folder = Path(made)
        lib_dir = build(Path(__file__).parents[1] / "fake_nvml" / "nvml.c", folder / "lib")
        influx, broker = stack.enter_context(Influx(folder)), stack.enter_context(Mosquitto(folder))
        budget_w = 0.85 * options.nodes * GPUS * GPU_MAX_W
        row = SoakRow(folder, broker, boards_in(folder, lib_dir), {NODE: "low"}, budget_w=budget_w)
        row.influx_url, row.simulated = influx.write_url, options.nodes
        stack.enter_context(row)
        row.begin()
        start_s = time.monotonic()
        with looked_at(row.url):
            seen, fed = soak(row, options.hours)
        took_s = time.monotonic() - start_s
    if options.samples:
        keep(options.samples, seen)
    verdicts = {name: judge(samples) for name, samples in seen.items()}
    text = page(verdicts, row, fed, took_s)
    sys.stdout.write(text)
    if options.out:
        options.out.write_text(text)
    broken = [f"{name}: {what}" for name, verdict in verdicts.items() for what in verdict.broken()]
    sys.stderr.write("".join(f"{what}\n" for what in broken))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
