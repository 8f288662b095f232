"""A made-up but lifelike run of a row, second by second, for whoever draws one: load climbs, T1, T2 and the brake act.

One node falls silent, one GPU does not obey, and one event carries markup that must stay text. The row's forecast is in
doubt for the first minute, and then bounds what comes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from polcad.model import (
    FREE,
    ClassStatus,
    DomainStatus,
    Event,
    EventKind,
    NodeColumns,
    Outlook,
    Priority,
    Role,
    RowStatus,
    Rule,
    Setpoint,
    Why,
)

START_T = 1_760_000_000.0
HOSTILE = "<script>document.title='owned'</script><img src=x onerror=alert(1)>"
DISOBEYS = "GPU 2 does not obey: runs at 1410 MHz"
BOARD_W = 700.0
GPUS = 8
LATENCY_S = 40  # of a lock over the out-of-band path
COLD_S = 60
THRESHOLDS = {"t1": 0.80, "t2": 0.89, "brake": 1.0}
STEPS = {  # used fraction above which it stands -> (low, high, why)
    "": (FREE, FREE, None),
    "t1": (Setpoint(0.904), FREE, Why.T1),
    "t2": (Setpoint(0.787), Setpoint(0.926), Why.T2),
    "brake": (Setpoint(0.204), Setpoint(0.204), Why.BRAKE),
}


@dataclass(frozen=True, slots=True)
class Second:
    """What a daemon would say in one second."""

    t: float
    status: RowStatus
    nodes: NodeColumns
    events: tuple[Event, ...]


def run(seconds: int, nodes: int = 12, racks: int = 3) -> Iterator[Second]:
    """A run of so many seconds; the load's climb takes all of it."""
    step, since_t = "", START_T
    for second in range(seconds):
        t = START_T + second
        wanted = _step(step, demand_frac(second, seconds), t - since_t)
        events = _events(t, step, wanted, second)
        if wanted != step:
            step, since_t = wanted, t
        made = _second(t, step, since_t, demand_frac(second, seconds), events, (nodes, racks))
        yield replace(made, status=_foreseen(made.status, second, seconds))


def demand_frac(second: int, seconds: int) -> float:
    """What the row would draw uncapped, of its budget: a climb with waves, one steep burst, and relief."""
    x = second / seconds
    climb = 0.58 + 0.55 * min(1.0, x / 0.7) - 0.25 * max(0.0, x - 0.85) / 0.15
    waves = 0.02 * math.sin(second / 9) + 0.012 * math.sin(second / 2.3) + 0.008 * math.sin(second * 1.7)
    return climb + waves + (0.28 if 0.60 < x < 0.63 else 0.0)


def _step(step: str, demand: float, stood_s: float) -> str:
    used = demand * _factor(step)
    wanted = "brake" if used > 1.0 else "t2" if used > THRESHOLDS["t2"] else "t1" if used > THRESHOLDS["t1"] else ""
    order = list(STEPS)
    if order.index(wanted) >= order.index(step):
        return wanted
    if stood_s < 8 or (step == "t2" and demand * _factor("t1") > 0.86) or (step == "t1" and demand > 0.78):
        return step
    return order[order.index(step) - 1]


def _factor(step: str) -> float:
    return {"": 1.0, "t1": 0.91, "t2": 0.80, "brake": 0.48}[step]


def _events(t: float, step: str, wanted: str, second: int) -> tuple[Event, ...]:
    events = []
    if wanted != step:
        tighter = list(STEPS).index(wanted) > list(STEPS).index(step)
        kind = EventKind.TIGHTEN if tighter else EventKind.LOOSEN
        if "brake" in {wanted, step}:
            kind = EventKind.BRAKE if tighter else EventKind.BRAKE_RELEASE
        events.append(Event(t, kind, "row", f"{step or 'free'} → {wanted or 'free'}"))
    if second == 20:
        events.append(Event(t, EventKind.STALE, "node/n03", "no telemetry for 3.0 s: counted at 5.60 kW"))
        events.append(Event(t, EventKind.NOT_OBEYED, "gpu/GPU-2f1c", "node n05, GPU 2: lock 1275 MHz, runs at 1410"))
    if second == 25:
        events.append(Event(t, EventKind.UNLISTED, "node/ghost", HOSTILE))
    return tuple(events)


def _second(
    t: float, step: str, since_t: float, demand: float, events: tuple[Event, ...], size: tuple[int, int]
) -> Second:
    count, racks = size
    budget_w = 0.72 * count * GPUS * BOARD_W
    low, high, why = STEPS[step]
    power_w = demand * _factor(step) * budget_w
    rules = _rules(why)
    waiting = "projected 84 % of the budget is above T1 (80 %)" if rules else ""
    rack_w = [power_w * share for share in _shares(racks)]
    status = RowStatus(
        row="row-a",
        online=True,
        epoch=3,
        seq=int(t - START_T),
        t=t,
        policy="polca",
        thresholds=THRESHOLDS,
        domains=(
            DomainStatus("row", budget_w, power_w, demand * budget_w, rules, since_t, waiting),
            *(
                DomainStatus(f"rack/r{i + 1}", 1.1 * budget_w / racks, w, w / _factor(step), (), START_T)
                for i, w in enumerate(rack_w)
            ),
        ),
        classes=_classes(power_w, count * GPUS, low, high),
        nodes=count,
        nodes_stale=1 if t >= START_T + 20 else 0,
        gpus=count * GPUS,
        peak_frac=max(1.06 if step == "brake" else 0.0, power_w / budget_w),
        over_budget_s=2.0 if step == "brake" else 0.0,
        counters={"wire_refused": 2, "telemetry_dropped": 0},
    )
    return Second(t, status, _nodes(t, status, (low, high), racks), events)


def _foreseen(status: RowStatus, second: int, seconds: int) -> RowStatus:
    row, *racks = status.domains
    upper_w = 1.02 * row.budget_w * max(demand_frac(second + ahead, seconds) for ahead in range(LATENCY_S))
    known = second >= COLD_S
    outlook = Outlook(
        q=0.99,
        horizon_s=LATENCY_S,
        upper_w=upper_w,
        hold_s=300.0,
        hold_w=1.05 * upper_w,
        coverage=0.992 if known else None,
        error_frac=0.0181 if known else None,
        doubt="" if known else f"it has watched the row for {second} of {COLD_S} s",
    )
    return replace(status, domains=(replace(row, outlook=outlook), *racks))


def _shares(racks: int) -> list[float]:
    weights = [1.0 + 0.12 * math.sin(2.1 * i) for i in range(racks)]
    return [weight / sum(weights) for weight in weights]


def _rules(why: Why | None) -> tuple[Rule, ...]:
    if why is None:
        return ()
    low, high, _ = STEPS[why.value]
    if why is Why.BRAKE:
        return (Rule("row", low, why),)
    rules = [Rule("row", low, why, Priority.LOW)]
    if not high.free:
        rules.append(Rule("row", high, Why.T2_HIGH, Priority.HIGH))
    return tuple(rules)


def _classes(power_w: float, gpus: int, low: Setpoint, high: Setpoint) -> tuple[ClassStatus, ...]:
    half, quarter = gpus // 2, gpus // 4
    return (
        ClassStatus(Priority.HIGH, Role.MIXED, half, 0.54 * power_w, high, half),
        ClassStatus(Priority.LOW, Role.PROMPT, quarter, 0.27 * power_w, low, quarter),
        ClassStatus(Priority.LOW, Role.TOKEN, gpus - half - quarter, 0.19 * power_w, low, gpus - half - quarter - 1),
    )


def _nodes(t: float, status: RowStatus, setpoints: tuple[Setpoint, Setpoint], racks: int) -> NodeColumns:
    count, row_w = status.nodes, status.domains[0].power_w
    max_w = GPUS * BOARD_W
    low = [i % 2 == 1 for i in range(count)]
    spread = [1 + 0.25 * math.sin(i * 1.3 + t / 7) + 0.1 * math.sin(i * 5.1) - 0.1 * low[i] for i in range(count)]
    per_w = row_w / sum(spread)
    stale = [i == 2 and status.nodes_stale > 0 for i in range(count)]
    clocks = [setpoints[0 if is_low else 1].clock_frac for is_low in low]
    return NodeColumns(
        name=tuple(f"n{i + 1:02d}" for i in range(count)),
        rack=tuple(f"r{i * racks // count + 1}" for i in range(count)),
        power_w=tuple(None if i == count - 1 and count > 12 else min(max_w, per_w * s) for i, s in enumerate(spread)),
        max_w=(max_w,) * count,
        priority=tuple(Priority.LOW if is_low else Priority.HIGH for is_low in low),
        stale=tuple(stale),
        clock_frac=tuple(1.0 if i == 4 else clock for i, clock in enumerate(clocks)),
        cap_frac=(1.0,) * count,
        fault=tuple(DISOBEYS if i == 4 and t > START_T + 20 else "" for i in range(count)),
    )
