"""The control plane of one site of 100 000 GPUs: 25 rows of 500 servers of 8, and the site level above them.

    python benchmarks/scale/control_plane.py [--seconds 1200] [--json]

The real controllers of rows and site, on simulated time, in one process, in two parts:

- *Cost*: every server speaks once a second, each row ticks and tells the site, for some seconds. What is measured is
  processor time of what daemons do with messages and ticks, decoding and encoding included; what a broker and an MQTT
  client cost beside it is in docs/scale.md. Bytes are those of the payloads.
- *A day*, squeezed into `--seconds` (by default 72 times as fast as it would be; bursts are not squeezed). A row is
  four blocks of 125 servers here, that draw by their load and their locks. 15 rows serve people of three parts of the
  world, ten train. Messages take up to 1.5 s between site and rows, and 1 % is lost everywhere. A row's daemon dies,
  the site's daemon dies, and five rows are cut off from the site. The same day is then spent with fixed budgets.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from polcad.controller import Controller
from polcad.model import FREE, Budgets, LeaseState, Obedience, Plan, Priority
from polcad.ports import Granted, Heard, Output, RowSaid, Tick
from polcad.site_controller import SiteController
from polcad.spec import GuardSpec, NodeSpec, RowSpec, SiteRowSpec, SiteSpec
from polcad.testing import LoopRow, telemetry
from polcad.wire import Address, Message, decode, encode
from policies.polca import Polca

ROWS, NODES, GPUS, BOARD_W = 25, 500, 8, 700.0
FULL_W = NODES * GPUS * BOARD_W  # of one row's boards
OWN_W = 0.9 * FULL_W  # a row's breaker
BLOCKS = 4  # that a row is, in the day
LOSS = 0.01
LONGEST_S = 1.5  # of a message's way between site and rows
PEAK_S = 60.0  # for which a peak of demand is remembered: less than by default, since days are short here
REACTION_S = 10  # a breaker must be relieved within about so long
T0 = 1_760_000_000.0
GUARD = GuardSpec()
LET_GO_FRAC = min(Polca().thresholds.values()) - GUARD.gap_frac  # of a budget: below it nothing is held
SITE = "site"


# --- what it costs --------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Spent:
    """Processor time of one kind of work, and how often it was done."""

    cpu_s: float = 0.0
    times: int = 0

    @contextmanager
    def counted(self, times: int = 1) -> Iterator[None]:
        """Count what is done meanwhile."""
        start_s = time.process_time()
        yield
        self.cpu_s += time.process_time() - start_s
        self.times += times


@dataclass(frozen=True, slots=True)
class Costs:
    """What `seconds` of the whole control plane took, and the bytes of one message of each kind."""

    seconds: int
    spent: dict[str, Spent]
    size_bytes: dict[str, int]

    def rows(self) -> Iterator[tuple[str, float, float, float]]:
        """Kind of message, who hears how many a second, bytes a second."""
        rates = {"telemetry": ROWS * NODES, "plan": ROWS, "daemon": ROWS, "budgets": 1 / SiteSpec().tick_s}
        for kind, rate in rates.items():
            yield kind, rate, rate * self.size_bytes[kind], self.size_bytes[kind]


def cost(seconds: int) -> Costs:
    """Run every row at its full size."""
    kinds = ("decode telemetry", "hear telemetry", "row ticks", "site")
    spent, waking = ({name: Spent() for name in kinds} for _ in range(2))
    sizes: dict[str, int] = {}
    specs = [_servers(f"row{index}") for index in range(ROWS)]
    rows = [(spec, Controller(spec, GUARD, Polca(), 1)) for spec in specs]
    site = SiteController(_site([spec.name for spec in specs]), _budget_w(), 1)
    for second in range(seconds + 1):
        t = T0 + second
        for spec, controller in rows:
            into = spent if second else waking  # the first second lays the row out
            said = _row_second(spec, controller, second, into)
            sizes |= {message.topic.rpartition("/")[2]: len(message.payload) for message in said}
            with into["site"].counted():
                site.on(RowSaid(t, decode(said[-1])[1]))
        if second % int(SiteSpec().tick_s) == 0:
            for each in site.on(Tick(t)):
                if isinstance(each, Budgets):
                    sizes["budgets"] = len(encode(Address(SITE, "", "budgets"), each).payload)
    return Costs(seconds, spent, sizes)


def _row_second(spec: RowSpec, controller: Controller, second: int, into: dict[str, Spent]) -> list[Message]:
    """A second of a row's daemon: one message of a node, and what the daemon says, its status last."""
    t, messages = T0 + second, _messages(spec, second)
    with into["decode telemetry"].counted(len(messages)):
        nouns = [decode(each)[1] for each in messages]
    with into["hear telemetry"].counted(len(messages)):
        for noun in nouns:
            controller.on(Heard(t, noun))
    with into["row ticks"].counted():
        [plan] = [each for each in controller.on(Tick(t)) if isinstance(each, Plan)]
        status = controller.status(t)
        said = [
            encode(Address(SITE, spec.name, "plan"), plan),
            encode(Address(SITE, spec.name, "daemon"), status),
        ]
    return [messages[0], *said]


def _servers(row: str) -> RowSpec:
    specs = tuple(
        NodeSpec(f"{row}n{index}", f"r{index // 20}", priority=Priority.HIGH if index % 2 else Priority.LOW)
        for index in range(NODES)
    )
    return RowSpec(row, OWN_W, nodes=specs, fail_safe_budget_w=_fail_safe_w())


def _messages(spec: RowSpec, second: int) -> list[Message]:
    """One second of a row's telemetry, as it is on the wire."""
    found = []
    for index, node in enumerate(spec.nodes):
        powers = tuple(round(BOARD_W * (0.55 + 0.002 * ((index + place + second) % 11)), 1) for place in range(GPUS))
        plan = Obedience(1, second, LeaseState.HELD)
        said = telemetry(node.name, powers, seq=second + 1, setpoint=FREE, plan=plan)
        found.append(encode(Address(SITE, spec.name, "telemetry", node.rack, node.name), said))
    return found


# --- a day ----------------------------------------------------------------------------------------------------------


class Load:
    """What a row is asked to do, as a share of its full load; the same each time it is asked."""

    def __init__(self, index: int, day_s: int) -> None:
        rng = random.Random(index)  # noqa: S311  # a load, not a secret
        self._trains, self._day_s = index >= 15, day_s
        self._phase = (index % 3) / 3 + rng.uniform(-0.03, 0.03)
        self._noise = [rng.gauss(0.0, 0.01) for _ in range(257)]
        pause_s = day_s / 8
        self._bursts = [(start, start + rng.uniform(30.0, 60.0)) for start in _times(rng, day_s, 240.0)]
        self._pauses = [(start, start + pause_s) for start in _times(rng, day_s, day_s)]

    def at(self, second: int) -> float:
        """The share at a second of the day."""
        noise = self._noise[second % len(self._noise)]
        if self._trains:  # all out, but for restarts and checks between two runs
            return 0.2 + noise if _within(self._pauses, second) else 0.58 + noise
        swing = 0.40 - 0.22 * math.cos(2 * math.pi * (second / self._day_s - self._phase))
        return min(1.0, max(0.05, swing + noise + 0.06 * _within(self._bursts, second)))


def _times(rng: random.Random, until_s: float, mean_s: float) -> list[float]:
    times = [rng.expovariate(1 / mean_s)]
    while times[-1] < until_s:
        times.append(times[-1] + rng.expovariate(1 / mean_s))
    return times[:-1]


def _within(spans: Sequence[tuple[float, float]], second: int) -> bool:
    return any(start <= second < end for start, end in spans)


@dataclass
class Way:
    """Messages on their way from one sender to one receiver: in order, late, and some are lost."""

    rng: random.Random
    waiting: deque[tuple[float, Any]] = field(default_factory=deque)

    def send(self, t: float, noun: Any) -> None:
        """Let it go."""
        if self.rng.random() >= LOSS:
            last_t = self.waiting[-1][0] if self.waiting else t
            self.waiting.append((max(last_t, t + self.rng.uniform(0.0, LONGEST_S)), noun))

    def arrived(self, t: float) -> Iterator[Any]:
        """What has come by `t`."""
        while self.waiting and self.waiting[0][0] <= t:
            yield self.waiting.popleft()[1]


class DayRow:
    """One row: its blocks, its daemon, and its ways to and from the site."""

    def __init__(self, index: int, day_s: int, spec: RowSpec) -> None:
        self.spec, self.load = spec, Load(index, day_s)
        self.rng = random.Random(1000 + index)  # noqa: S311  # luck, not a secret
        self.plant = LoopRow(spec)
        self.to_site, self.from_site = Way(self.rng), Way(self.rng)
        self.epoch = 0
        self.start()

    def start(self) -> None:
        """Start its daemon anew."""
        self.epoch += 1
        self.controller: Controller | None = Controller(self.spec, GUARD, Polca(), self.epoch)
        self.from_site.waiting.clear()

    def second(self, t: float, second: int, *, cut_off: bool) -> None:
        """A second of its nodes and its daemon."""
        self.plant.load(self.load.at(second))
        self.plant.act(t)
        arrived = list(self.from_site.arrived(t))
        if self.controller is None:
            return
        for heard in self.plant.speak(t):
            if self.rng.random() >= LOSS:
                self._carry_out(self.controller.on(heard), t)
        for budgets in arrived if not cut_off else ():
            self._carry_out(self.controller.on(Granted(t, budgets)), t)
        self._carry_out(self.controller.on(Tick(t)), t)
        if not cut_off:
            self.to_site.send(t, self.controller.status(t))

    def _carry_out(self, said: Sequence[Output], t: float) -> None:
        for each in said:
            if isinstance(each, Plan) and self.rng.random() >= LOSS:
                self.plant.take(each, t)

    @property
    def budget_w(self) -> float:
        """What it believes that it may draw; without a daemon, nobody believes anything."""
        return 0.0 if self.controller is None else self.controller.budget_w

    def wants_w(self, second: int) -> float:
        """The budget with which its demand would be left alone."""
        full_w = sum(node.spec.gpus * node.spec.gpu_max_w for node in self.plant.nodes.values())
        return min(self.spec.budget_w, full_w * (0.2 + 0.8 * self.load.at(second)) / LET_GO_FRAC)

    def held_frac(self) -> float:
        """The share of its GPUs that are locked."""
        setpoints = self.plant.setpoints().values()
        return sum(not each.free for each in setpoints) / len(setpoints)


@dataclass
class Day:
    """What came of a day."""

    budget_w: float
    peak_w: float = 0.0
    held_frac: float = 0.0  # of all GPU time, locked
    braked_s: int = 0  # of all rows together
    over_s: list[int] = field(default_factory=lambda: [0])  # spells in which the site drew more than its budget
    row_over_s: int = 0  # the longest in which a row drew more than it may: with moving budgets, less than its breaker
    most_granted_w: float = 0.0  # that rows believed together they may draw
    moved_w: list[float] = field(default_factory=lambda: [float("inf"), 0.0])  # the least and most budget of any row

    def note(self, rows: Sequence[DayRow], spells: dict[str, int]) -> None:
        """Take a second."""
        power_w = sum(row.plant.power_w() for row in rows)
        self.peak_w = max(self.peak_w, power_w)
        self.most_granted_w = max(self.most_granted_w, sum(row.budget_w for row in rows))
        self.over_s[-1] += power_w > self.budget_w
        if power_w <= self.budget_w and self.over_s[-1]:
            self.over_s.append(0)
        for row in rows:
            over = row.plant.power_w() > (row.budget_w or row.spec.budget_w)
            spells[row.spec.name] = spells[row.spec.name] + 1 if over else 0
            self.row_over_s = max(self.row_over_s, spells[row.spec.name])
            self.held_frac += row.held_frac() / len(rows)
            self.braked_s += any(each.clock_frac < 0.5 for each in row.plant.setpoints().values())


def spend(day_s: int, budget_w: float, *, moving: bool) -> Day:
    """Spend the day with moving budgets, or each row with its fixed share."""
    share_w = budget_w / ROWS
    rows = [DayRow(index, day_s, _blocks(f"row{index}", share_w, moving=moving)) for index in range(ROWS)]
    spec = _site([row.spec.name for row in rows])
    site: SiteController | None = SiteController(spec, budget_w, 1) if moving else None
    day, spells = Day(budget_w), {row.spec.name: 0 for row in rows}
    for second in range(day_s):
        t, at = T0 + second, second / day_s
        if _begins(day_s, second, 0.3):
            rows[3].controller = None
        if _begins(day_s, second, 0.4):
            rows[3].start()
        if moving and _begins(day_s, second, 0.5):
            site = None
        if moving and _begins(day_s, second, 0.55):
            site = SiteController(spec, budget_w, second)
        for index, row in enumerate(rows):
            row.second(t, second, cut_off=10 <= index < 15 and 0.7 <= at < 0.78)
        _site_second(site, rows, t, second)
        if second >= 60:  # once all are awake
            day.note(rows, spells)
            day.moved_w = [
                min(day.moved_w[0], *(row.budget_w or math.inf for row in rows)),
                max(day.moved_w[1], *(row.budget_w for row in rows)),
            ]
    day.held_frac /= max(1, day_s - 60)
    return day


def _site_second(site: SiteController | None, rows: Sequence[DayRow], t: float, second: int) -> None:
    statuses = [status for row in rows for status in row.to_site.arrived(t)]
    if site is None:
        return
    said = [each for status in statuses for each in site.on(RowSaid(t, status))]
    if second % int(SiteSpec().tick_s) == 0:
        said += site.on(Tick(t))
    for budgets in said:
        for row in rows if isinstance(budgets, Budgets) else ():
            row.from_site.send(t, budgets)


def _begins(day_s: int, second: int, part: float) -> bool:
    return second == int(part * day_s)


def _blocks(row: str, share_w: float, *, moving: bool) -> RowSpec:
    block_w = FULL_W / BLOCKS
    nodes = tuple(
        NodeSpec(f"{row}b{index}", gpus=2, gpu_max_w=block_w / 2, priority=(Priority.HIGH, Priority.LOW)[index % 2])
        for index in range(BLOCKS)
    )
    return RowSpec(
        row, OWN_W if moving else share_w, nodes=nodes, fail_safe_budget_w=_fail_safe_w() if moving else None
    )


def _fail_safe_w() -> float:
    return 0.65 * FULL_W


def _budget_w() -> float:
    return 0.8 * ROWS * FULL_W


def _site(names: Sequence[str]) -> SiteSpec:
    return SiteSpec(SITE, _budget_w(), tuple(SiteRowSpec(name, _fail_safe_w()) for name in names), peak_s=PEAK_S)


def needs(day_s: int) -> tuple[float, float]:
    """The site's budget under which no row would be held back, W: with moving budgets, and with the best fixed ones."""
    rows = [DayRow(index, day_s, _blocks(f"row{index}", OWN_W, moving=True)) for index in range(ROWS)]
    wants_w = [[max(_fail_safe_w(), row.wants_w(second)) for row in rows] for second in range(day_s)]
    return max(map(sum, wants_w)), sum(map(max, zip(*wants_w, strict=True)))


# --- telling --------------------------------------------------------------------------------------------------------


def report(costs: Costs, days: dict[str, Day], moving_w: float, fixed_w: float) -> dict[str, Any]:
    """All figures, by name."""
    spent = {
        name: {"cores": each.cpu_s / costs.seconds, "us_each": 1e6 * each.cpu_s / max(1, each.times)}
        for name, each in costs.spent.items()
    }
    return {
        "gpus": ROWS * NODES * GPUS,
        "cost": spent,
        "messages": {
            kind: {"a_second": rate, "bytes_a_second": volume, "bytes_each": size}
            for kind, rate, volume, size in costs.rows()
        },
        "days": {name: _of_day(day) for name, day in days.items()},
        "needs": {"moving_w": moving_w, "fixed_w": fixed_w, "more_frac": fixed_w / moving_w - 1},
    }


def _of_day(day: Day) -> dict[str, float]:
    return {
        "budget_w": day.budget_w,
        "peak_frac": day.peak_w / day.budget_w,
        "granted_frac": day.most_granted_w / day.budget_w,
        "longest_over_s": max(day.over_s),
        "longest_row_over_s": day.row_over_s,
        "least_budget_w": day.moved_w[0],
        "most_budget_w": day.moved_w[1],
        "locked_frac": day.held_frac,
        "braked_row_s": day.braked_s,
    }


def show(found: dict[str, Any]) -> None:
    """The figures as a person reads them."""
    print(f"{found['gpus']} GPUs: {ROWS} rows of {NODES} servers of {GPUS}, one message a server a second\n")
    print(f"{'processor time':20} {'cores':>8} {'us each':>10}")
    for name, each in found["cost"].items():
        print(f"{name:20} {each['cores']:>8.3f} {each['us_each']:>10.1f}")
    print(f"{'all':20} {sum(each['cores'] for each in found['cost'].values()):>8.3f}")
    print(f"\n{'payloads':20} {'a second':>9} {'bytes each':>11} {'kB a second':>12}")
    for kind, each in found["messages"].items():
        print(f"{kind:20} {each['a_second']:>9.1f} {each['bytes_each']:>11} {each['bytes_a_second'] / 1e3:>12.1f}")
    print()
    for name, day in found["days"].items():
        print(f"a day with {name} budgets, {day['budget_w'] / 1e6:.1f} MW for the site")
        print(f"  most power {day['peak_frac']:.1%} of the budget, most that rows may draw {day['granted_frac']:.1%}")
        print(f"  longest over the budget: the site {day['longest_over_s']} s, a row {day['longest_row_over_s']} s")
        print(f"  a row's budget {day['least_budget_w'] / 1e6:.2f} to {day['most_budget_w'] / 1e6:.2f} MW")
        print(f"  GPU time locked {day['locked_frac']:.1%}, braked {day['braked_row_s']} row-seconds")
    needed = found["needs"]
    print(
        f"\nto hold nobody back: {needed['moving_w'] / 1e6:.1f} MW that move, {needed['fixed_w'] / 1e6:.1f} MW that do "
        f"not: {needed['more_frac']:.1%} more load under one feed"
    )


def main() -> None:
    """Measure, and print; ends with 1 where the site or a row was over for longer than a breaker bears."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=int, default=1200, help="of the day")
    parser.add_argument("--cost-seconds", type=int, default=10)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    costs = cost(options.cost_seconds)
    moving_w, fixed_w = needs(options.seconds)
    days = {
        name: spend(options.seconds, _budget_w(), moving=moving)
        for name, moving in (("moving", True), ("fixed", False))
    }
    found = report(costs, days, moving_w, fixed_w)
    if options.json:
        print(json.dumps(found))
    else:
        show(found)
    day = days["moving"]
    if max(day.over_s) > REACTION_S or day.row_over_s > REACTION_S or day.most_granted_w > day.budget_w * 1.001:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
