"""The report of one simulated row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from polcad.model import Priority
from polcad.report.page import Figure, Plot, Series, Table, page
from polcad.sim.profiles import parameters
from polcad.sim.requests import HOUR_S, WEEK_S, Ints
from polcad.sim.result import MINUTE_S, QUANTILES, RowResult, Singles
from polcad.sim.row import START_T, RowModel

_MOST_POINTS = 6000  # of a plot: more than a screen has, and a page of half a megabyte
_MOST_EVENTS = 300
_IDLE_MINUTES = 10  # a row begins idle: that is drawn, but does not stretch the axis


def of_row(model: RowModel, result: RowResult, policy: str) -> str:
    """The page; `policy` is the name that the policy goes by."""
    title = f"{result.servers} servers under {policy}"
    provisioned_frac = result.servers * model.hardware.provisioned_w / result.budget_w
    subtitle = (
        f"A simulated row: {_length(result.weeks)}, seed {result.seed}, {model.hardware.name}, settings "
        f"{model.path.name}, budget {result.budget_w / 1000:.0f} kW ({provisioned_frac:.0%} provisioned)"
    )
    if model.hypothetical:
        subtitle += f"; {model.hypothetical}"
    parts: list[Plot | Table] = [
        *_power(model, result),
        _duration(result),
        _slowdown(result),
        _capped(result),
        *_told(result),
    ]
    return page(title, subtitle, _figures(result), [*parts, _parameters(model)])


def _figures(result: RowResult) -> Sequence[Figure]:
    high, low = (result.slowdown[priority] for priority in (Priority.HIGH, Priority.LOW))
    over_s = result.seconds_over_budget
    return (
        Figure(
            "Peak", f"{result.peak_frac:.1%}", f"uncapped {result.uncapped_peak_frac:.1%}", bad=result.peak_frac > 1
        ),
        Figure("Mean", f"{result.mean_frac:.1%}", "of the budget"),
        Figure("Brakes", f"{result.brakes}", f"{over_s:.0f} s above the budget", bad=result.brakes > 0),
        Figure("Rise in 40 s", f"{result.rise_40s_frac:.1%}", f"{result.rise_2s_frac:.1%} in 2 s"),
        Figure("High priority", f"+{high.p50:.1%}", f"median time; P99 +{high.p99:.1%}"),
        Figure("Low priority", f"+{low.p50:.1%}", f"median time; P99 +{low.p99:.1%}"),
        Figure("Output tokens", f"{result.throughput_frac:.2%}", "of the same row uncapped"),
        Figure("Energy", f"{result.energy_kwh:,.0f} kWh", f"ramp {result.ramp_w_per_s / 1000:.1f} kW/s at most"),
    )


def _length(weeks: float) -> str:
    days = 7 * weeks
    if days < 1:
        return f"{24 * days:.3g} hours"
    return f"{days:.3g} days" if weeks < 1 else f"{weeks:g} weeks"


def _power(model: RowModel, result: RowResult) -> Iterator[Plot]:
    """Power and clocks over time; long runs in buckets of several minutes."""
    minutes = result.minutes
    width = -(-len(minutes.power_mean) // _MOST_POINTS)
    starts = np.arange(0, len(minutes.power_mean), width)
    x = (starts * MINUTE_S).tolist()
    lowest, highest = np.minimum.reduceat(minutes.power_min, starts), np.maximum.reduceat(minutes.power_max, starts)
    limits = {**model.policy.thresholds, "budget": 1.0}
    colours = {"budget": "budget", max(limits, key=lambda name: (name != "budget", limits[name])): "upper"}
    yield Plot(
        "Power, of the budget",
        x,
        [
            Series("highest", highest.tolist(), width=0.7, fill_to=1),
            Series("lowest", lowest.tolist(), width=0.7),
            Series("mean", _mean(minutes.power_mean, starts), width=2),
            Series(
                "highest, uncapped",
                np.maximum.reduceat(minutes.uncapped_max, starts).tolist(),
                "demand",
                dash=True,
                width=1,
            ),
            *(
                Series(_limit_name(name, at), [at] * len(x), colours.get(name, "lower"), dash=name != "budget")
                for name, at in limits.items()
            ),
        ],
        time=True,
        sync="time",
        height_px=330,
        y_from=0.98 * min(float(minutes.power_min[_IDLE_MINUTES:].min(initial=2.0)), *limits.values()),
        note=f"Lowest, mean and highest of each {width} min; uncapped: the same requests, never slowed.",
    )
    yield Plot(
        "Mean clock in force, of the maximum",
        x,
        [
            Series(f"{priority.value} priority", _mean(clock, starts), priority.value, width=1.5)
            for priority, clock in minutes.clock.items()
        ],
        time=True,
        sync="time",
        height_px=170,
    )


def _limit_name(name: str, at: float) -> str:
    return f"{name if name == 'budget' else name.upper()} {at:.0%}"


def _mean(values: Singles, starts: Ints) -> list[float]:
    lengths = np.diff(np.append(starts, len(values)))
    return [float(value) for value in np.add.reduceat(values, starts) / lengths]


def _duration(result: RowResult) -> Plot:
    shares = (1 - QUANTILES)[::-1].tolist()
    return Plot(
        "Duration curve: power above y for x of the time",
        [100 * share for share in shares],
        [
            Series("row", result.duration.row[::-1], width=2),
            Series("uncapped", result.duration.uncapped[::-1], "demand", dash=True),
            Series("budget 100%", [1.0] * len(shares), "budget"),
        ],
        x_label="% of the time",
        y_from=0.98 * min(result.duration.row[1], 1.0),
        half=True,
    )


def _slowdown(result: RowResult) -> Plot:
    shares = (100 * QUANTILES[:-1]).tolist()  # without the single slowest request
    return Plot(
        "Slowdown: x of the requests are slowed by less than y",
        shares,
        [
            Series(f"{priority.value} priority", slowdown.quantiles[:-1], priority.value, width=2)
            for priority, slowdown in result.slowdown.items()
        ],
        x_label="% of the requests, up to 99.9",
        note="Against the same request on the same server when nobody slows it.",
        half=True,
    )


def _capped(result: RowResult) -> Table:
    hours = result.weeks * WEEK_S / HOUR_S
    rows = [
        (f"{name.value} priority", f"{capped:.2f} h", f"{capped / hours:.4f}", f"{result.slowdown[name].requests:,}")
        for name, capped in result.capped_hours.items()
    ]
    return Table(
        "Time under a cap or lock, mean of a class's servers", ("class", "hours", "share", "requests"), rows, bar=2
    )


def _told(result: RowResult) -> Iterator[Table]:
    """Injected faults, how often what happened, and the first events one by one."""
    if result.faults:
        rows = [
            (
                _moment(edge.at_s),
                "begins" if edge.begins else "ends",
                edge.fault.fault.value,
                _whom(edge.fault.server, edge.fault.fault.value),
            )
            for edge in result.faults
        ]
        yield Table("Injected faults", ("time", "", "fault", "server"), rows)
    kinds = Counter(event.kind.value for event in result.events)
    counted = [(name, f"{count:,}") for name, count in sorted(kinds.items(), key=lambda item: (-item[1], item[0]))]
    yield Table("What the controller told", ("event", "times"), counted or [("nothing", "")])
    if result.events:
        rows = [
            (_moment(event.t - START_T), event.kind.value, event.scope, event.detail)
            for event in result.events[:_MOST_EVENTS]
        ]
        yield Table("The first events", ("time", "event", "where", "detail"), rows, folded=True)


def _whom(server: int, fault: str) -> str:
    return str(server) if fault == "ignore" else "all"


def _moment(at_s: float) -> str:
    minutes, seconds = divmod(round(at_s), 60)
    hours, minutes = divmod(minutes, 60)
    return f"day {1 + hours // 24} {hours % 24:02}:{minutes:02}:{seconds:02}"


def _parameters(model: RowModel) -> Table:
    rows = [
        (
            type(noun).__name__.lower(),
            row.name,
            _shown(row.value),
            row.unit,
            row.source,
            "assumed" if row.assumed else "",
        )
        for noun in (model.hardware, model.source, model.meter, model.path)
        for row in parameters(noun)
    ]
    return Table("Parameters", ("of", "name", "value", "unit", "source", ""), rows, folded=True)


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(_shown(each) for each in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
