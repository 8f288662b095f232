"""The report of one simulated cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from polcad.report.page import Figure, Plot, Series, Table, page
from polcad.sim.cluster_model import ClusterModel
from polcad.sim.cluster_result import ClusterResult
from polcad.sim.requests import HOUR_S

_BAD_FRAC = 0.01  # of the requests outside their objectives


def of_cluster(model: ClusterModel, result: ClusterResult) -> str:
    """The page."""
    title = f"{result.servers} servers under {result.system}"
    subtitle = (
        f"A simulated serving cluster: {result.length_s / HOUR_S:.3g} hours, seed {result.seed}, {model.profile.name}, "
        f"{result.requests:,} requests"
    )
    if model.profile.hypothetical:
        subtitle += f" ({model.profile.hypothetical})"
    return page(title, subtitle, _figures(result), [*_plots(result), *_tables(model, result)])


def _figures(result: ClusterResult) -> Sequence[Figure]:
    every, reconfig_kwh = result.all, result.energy_j["reconfiguration"] / 3.6e6
    return (
        Figure("Energy", f"{result.energy_kwh:,.1f} kWh", f"{reconfig_kwh:,.2f} kWh of it for changes"),
        Figure("GPUs", f"{result.gpus_mean:.1f}", f"mean in use, of {8 * result.servers}"),
        Figure("First token", f"{every.ttft_p99_s:.3g} s", f"P99; median {every.ttft_p50_s:.3g} s"),
        Figure("Between tokens", f"{1000 * every.tbt_p99_s:.0f} ms", f"P99; median {1000 * every.tbt_p50_s:.0f} ms"),
        Figure("Late", f"{every.late_frac:.2%}", "outside an objective", bad=every.late_frac > _BAD_FRAC),
        Figure(
            "Requests", f"{result.finished:,}", f"ended; {result.under_way:,} under way, {result.dropped:,} dropped"
        ),
    )


def _plots(result: ClusterResult) -> Iterator[Plot]:
    series = result.series
    lines: tuple[tuple[str, list[Series]], ...] = (
        ("Power, kW", [Series("mean", [power_w / 1000 for power_w in series.power_w], width=2)]),
        ("Requests a second", [Series("ended", series.requests_per_s, "demand")]),
        ("GPUs in use", [Series("GPUs", series.gpus), Series("instances", series.instances, "lower")]),
        ("Mean clock, of the maximum", [Series("clock", series.clock_frac, "high")]),
        ("Slowest hundredth to the first token, s", [Series("P99", series.ttft_p99_s, "upper")]),
        ("Slowest hundredth between tokens, s", [Series("P99", series.tbt_p99_s, "upper")]),
        ("Requests outside an objective, share", [Series("late", series.late_frac, "budget")]),
    )
    for title, drawn in lines:
        yield Plot(title, series.at_s, drawn, time=True, sync="time", height_px=200)


def _tables(model: ClusterModel, result: ClusterResult) -> Iterator[Table]:
    total_j = max(sum(result.energy_j.values()), 1.0)
    rows = [(name, f"{joules / 3.6e6:,.2f}", f"{joules / total_j:.4f}") for name, joules in result.energy_j.items()]
    yield Table("Energy by phase", ("phase", "kWh", "share"), rows, bar=2)
    yield Table(
        "Kinds of requests (prompt, output: short, medium, long)",
        ("kind", "ended", "TTFT P50 s", "P99", "objective", "TBT P50 s", "P99", "objective", "late"),
        [
            (
                name,
                f"{one.requests:,}",
                f"{one.ttft_p50_s:.3f}",
                f"{one.ttft_p99_s:.3f}",
                f"{result.slo[name].ttft_s:.3f}",
                f"{one.tbt_p50_s:.4f}",
                f"{one.tbt_p99_s:.4f}",
                f"{result.slo[name].tbt_s:.3f}",
                f"{one.late_frac:.2%}",
            )
            for name, one in result.kinds.items()
        ],
    )
    yield Table("Changes", ("change", "times"), [(name, f"{times:,}") for name, times in result.changes.items()])
    yield Table(
        "What was planned, and what happened (the first of it)",
        ("time", "what"),
        [(_moment(told.at_s), told.text) for told in result.told],
        folded=True,
    )
    assumed = [(name,) for name in model.profile.assumed]
    yield Table(f"Not measured on this hardware: {model.profile.name}", ("figure",), assumed, folded=True)


def _moment(at_s: float) -> str:
    minutes, seconds = divmod(round(at_s), 60)
    hours, minutes = divmod(minutes, 60)
    return f"day {1 + hours // 24} {hours % 24:02}:{minutes:02}:{seconds:02}"
