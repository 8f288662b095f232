"""A case, run over and over on one row: drive it over its budget, break it at some moment, mend it, and judge."""

from __future__ import annotations

import math
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from polcad.model import Event, Telemetry
from polcad.recording import read
from polcad.testing_brokers import Broker, Mosquitto
from polcad.wire import decode
from tests.chaos.case import Case
from tests.chaos.faults import MOMENTS, Fault, Tells
from tests.chaos.hostile import secured
from tests.chaos.judge import LEASE_S, Board, Verdict, judge
from tests.chaos.meter import Meter
from tests.chaos.proxy import Proxy
from tests.chaos.row import NODES, ChaosRow
from tests.databases import Influx
from tests.live_row import BRAKE, PERIOD_S, boards_in
from tests.secured import WITNESS, Secured
from tests.waiting import until

_POLL_S = 0.01
_IN_FLIGHT_S = 1.0  # that an event may be on its way
_SLOW_S = 10.0  # a recovery that takes so long wants its logs read
_ENDED_WITHIN_S = 5.0  # of a row that has recovered, all that was told to have begun is told to have ended
_RECONNECT_S = 3.0  # until all clients of a broker are back: they try again each 0.2 s, and start in a second
_MESSAGES_PER_S = 2 * 3 / PERIOD_S  # of three nodes, which also speak when a plan changes anything
_TOLD = re.compile(r"^INFO polcad\.daemon: (?:row|rack/\S+|node/\S+): [a-z_]+\b", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Broken:
    """When and for how long a row was broken; `start_s` is before it, by the monotonic clock."""

    moment: str
    hold_s: float
    start_s: float


@dataclass(frozen=True, slots=True)
class Run:
    """What came of one run."""

    moment: str
    hold_s: float
    verdict: Verdict
    recovered_s: float  # from mending to a row where every board is where the newest plan wants it
    telemetry_lost: int
    events_lost: int
    broken: tuple[str, ...]  # promises that did not hold


@dataclass(slots=True)
class Outcome:
    """What came of a case."""

    name: str  # of the case
    runs: list[Run] = field(default_factory=list)
    recording_lost: int | None = None  # messages that the judge heard and the recording lacks
    database_lost: int | None = None
    broken: list[str] = field(default_factory=list)

    @property
    def failures(self) -> list[str]:
        """Every promise that did not hold, with its run."""
        each = [f"run {number} ({run.moment}): {what}" for number, run in enumerate(self.runs) for what in run.broken]
        return each + self.broken


def _broker(folder: Path, case: Case, safe: Secured | None, conf: Sequence[str]) -> Broker:
    if safe is None:
        return Mosquitto(folder, conf)
    return safe.cluster() if case.nats else safe.broker()


class Bench:
    """A row that stands, and what it has been through."""

    def __init__(self, folder: Path, lib_dir: Path, case: Case, stack: ExitStack) -> None:
        self._case = case
        influx = stack.enter_context(Influx(folder)) if case.history else None
        safe = secured(folder, nats=case.nats) if case.secured else None
        place = stack.enter_context(case.place(folder))
        broker = stack.enter_context(_broker(folder, case, safe, place.broker_conf))
        parts = (*NODES, "daemon") if case.links else ()
        links = {part: stack.enter_context(Proxy(broker.port)) for part in parts}
        made = ChaosRow(
            folder, broker, boards_in(folder, lib_dir), influx=influx, links=links, secured=safe, place=place
        )
        made.tap_tls = safe.tls(WITNESS) if safe else None
        self.row = stack.enter_context(made)
        self.meter = stack.enter_context(Meter(lib_dir, self.row.all_gpus()))
        self.row.begin()
        self._began_t = time.time()
        self._known = self.row.ear.told.copy()
        self._lost_before = 0  # events

    def run(self, number: int, rng: Random) -> Run:
        """Break the row once."""
        row, case = self.row, self._case
        row.calm()
        time.sleep(rng.uniform(0.0, 2 * PERIOD_S))  # the rise comes at any time between two readings
        fault, hold_s, moment = case.make(number, rng), rng.uniform(*case.hold_s), moment_of(number)
        start_s, lost = time.monotonic(), row.ear.lost.total()
        broken_s = self._drive(moment, fault, rng)
        time.sleep(hold_s)
        broken = [*self._untold(fault, Broken(moment, hold_s, start_s)), *fault.amiss(row)]
        fault.end(row)
        recovered_s, unmended = self._recover(fault)
        broken += [*unmended, *self._unended(fault, start_s)]
        verdict = judge(self.meter.since(start_s), row.ear.listen().plans, self._judged(fault, broken_s))
        telemetry_lost = row.ear.lost.total() - lost
        events_lost = self._events_lost()
        broken += [*verdict.broken(), *row.fallen()]
        silent_s = hold_s + _RECONNECT_S if case.silences else 0.0
        if telemetry_lost > silent_s * _MESSAGES_PER_S + case.telemetry_lost:
            broken.append(f"{telemetry_lost} messages of telemetry lost")
        if events_lost > case.events_lost:
            broken.append(f"{events_lost} events lost")
        return Run(moment, hold_s, verdict, recovered_s, telemetry_lost, events_lost, tuple(broken))

    def _untold(self, fault: Fault, how: Broken) -> list[str]:
        """Events that should have been told by now, and were not."""
        told = self.row.tap.events
        due = [each for each in fault.tells() if how.hold_s >= each.due_s and how.moment in each.moments]
        with suppress(AssertionError):
            until(lambda: all(told(each.kind, each.scope, how.start_s) for each in due), _IN_FLIGHT_S)
        missing = [each for each in due if not told(each.kind, each.scope, how.start_s)]
        return [f"no event {each.kind.value} of {each.scope}" for each in missing]

    def _unended(self, fault: Fault, start_s: float) -> list[str]:
        """Events whose end should have been told by now, and was not."""

        def stands(each: Tells) -> bool:
            told: list[Event] = self.row.tap.nouns("event", start_s)
            kinds = [event.kind for event in told if event.scope == each.scope and event.kind in {each.kind, each.end}]
            return kinds[-1:] == [each.kind]

        with suppress(AssertionError):
            until(lambda: not any(map(stands, fault.tells())), _ENDED_WITHIN_S)
        return [f"no {each.end.value} of {each.scope}" for each in fault.tells() if stands(each)]

    def _recover(self, fault: Fault) -> tuple[float, list[str]]:
        """How long it takes from now until all is as it should be, s; and what did not come to be."""
        mended_s, broken = time.monotonic(), []
        try:
            until(lambda: self.row.well(mended_s) and fault.over(self.row), 20.0)
        except AssertionError:
            broken.append("not recovered within 20 s")
        return time.monotonic() - mended_s, broken

    def _drive(self, moment: str, fault: Fault, rng: Random) -> float:
        """Full load, and the fault at its moment; that moment, in monotonic seconds."""
        row = self.row
        if moment == "calm":
            broken_s = time.monotonic()
            fault.begin(row)
            time.sleep(rng.uniform(0.0, LEASE_S))
            row.load(1.0)
            return broken_s
        row.load(1.0)
        if moment == "plan":  # between a reading and what is set by it
            time.sleep(rng.uniform(0.0, 1.5 * PERIOD_S))
        else:
            until(lambda: BRAKE in set().union(*row.clocks().values()))
            if moment == "settled":
                until(lambda: BRAKE not in set().union(*row.clocks().values()))
            time.sleep(rng.uniform(0.0, 0.5))
        broken_s = time.monotonic()
        fault.begin(row)
        return broken_s

    def _events_lost(self) -> int:
        """How many events more are in the daemons' logs than were heard, since this was last asked."""
        end_s, before, fewest = time.monotonic() + _IN_FLIGHT_S, self._lost_before, math.inf
        while fewest > before and time.monotonic() < end_s:
            logs = [log.read_text() for log in self.row.folder.glob("daemon*.log")]
            told = sum(len(_TOLD.findall(log)) for log in logs)
            fewest = min(fewest, told - len(self.row.ear.listen().events))
            time.sleep(_POLL_S)
        self._lost_before = max(int(fewest), before)
        return self._lost_before - before

    def _judged(self, fault: Fault, broken_s: float) -> Sequence[Board]:
        """The boards, less those that nobody could set."""
        judged = []
        for place, uuid in enumerate(gpu.uuid for gpu in self.meter.gpus):
            node = next(name for name in self.row.priorities if f"-{name}-" in uuid)
            deaf_from_s = broken_s if node in fault.deaf else float("inf")
            if not fault.unset & {node, uuid}:
                away, meddled = fault.away.get(node, (0.0, 0.0)), uuid in fault.meddled
                judged.append(Board(place, node, self.row.priorities[node], deaf_from_s, away, meddled))
        return judged

    def close(self, outcome: Outcome) -> None:
        """End the writers of history in order, and compare what they have with what was said."""
        row = self.row
        if not self._case.history:
            return
        said = row.ear.listen().told - self._known
        row.programs["recorder"].stop()
        outcome.recording_lost = len(said - _recorded(row.recording))
        row.programs["daemon"].stop()
        outcome.database_lost = max(0, len(said) - self._written())
        outages_s = sum(run.hold_s + _RECONNECT_S for run in outcome.runs)
        self._bound(outcome, "recording", outcome.recording_lost, self._case.recording_gap_s, outages_s)
        self._bound(outcome, "database", outcome.database_lost, self._case.database_gap_s, outages_s)

    def _bound(self, outcome: Outcome, what: str, lost: int, gap_s: float | None, outages_s: float) -> None:
        most = len(self.row.priorities) if gap_s is None else (outages_s + gap_s * len(outcome.runs)) * _MESSAGES_PER_S
        if lost > most:
            outcome.broken.append(f"the {what} lacks {lost} messages, more than {most:.0f}")

    def _written(self) -> int:
        """How many messages the database has, since the row began."""
        assert self.row.influx is not None
        query = 'SELECT count("gpus") FROM polcad_node WHERE time > {}u'
        found = self.row.influx.ask(query.format(int(self._began_t * 1e6)))
        return int(found[0]["count"]) if found else 0


def _recorded(path: Path) -> set[tuple[str, int, str]]:
    nouns = (decode(message)[1] for _, message in read(path) if message.topic.endswith("/telemetry"))
    return {(noun.node, noun.seq, noun.boot_id) for noun in nouns if isinstance(noun, Telemetry)}


def moment_of(number: int) -> str:
    """When a run breaks its row: each round in another order after the first, so that no kind of fault has its own."""
    turn, place = divmod(number, len(MOMENTS))
    order = Random(turn).sample(MOMENTS, len(MOMENTS)) if turn else MOMENTS  # noqa: S311  # the same for every case
    return order[place]


def run_case(case: Case, runs: int, seed: int, lib_dir: Path, note: Callable[[str], None] = lambda _: None) -> Outcome:
    """Run a case on a row of its own. A run that never begins or ends is a failure, and gets the next a new row."""
    outcome = Outcome(case.name)
    number, runs = 0, min(max(runs, case.runs), case.most_runs) if runs > 1 else runs
    while number < runs:
        with tempfile.TemporaryDirectory(prefix="polcad-chaos-") as folder, ExitStack() as stack:
            bench = Bench(Path(folder), lib_dir, case, stack)
            while number < runs:
                run = bench.run(number, Random(f"{seed} {case.name} {number}"))  # noqa: S311  # the same again
                note(f"{case.name} {number}: {run}")
                outcome.runs.append(run)
                number += 1
                if run.recovered_s > _SLOW_S or any("ended" in what for what in run.broken):
                    note(_tails(Path(folder)))
                if any("recovered" in what or "ended" in what for what in run.broken):
                    break
            else:
                bench.close(outcome)
    return outcome


def _tails(folder: Path) -> str:
    return "\n".join(f"--- {log.name}\n{log.read_text()[-1500:]}" for log in sorted(folder.glob("*.log")))
