"""The reproduction as a text: what was measured beside what the paper says, and why the two differ.

Figures of the paper that were read in it are marked [S]; those only remembered are marked [M] and prove nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from polcad.reproduce import (
    BEYOND,
    CANDIDATES,
    FAST,
    FIGURES,
    IN,
    OUT,
    POLICIES,
    SERVERS,
    Case,
    Figures,
    Results,
    acceptance,
    aim,
    thresholds,
)

_DAYS_PER_WEEK = 7
_SURE = 3.0  # events that a Poisson count of zero excludes with 95 %
_HIGH_SLO, _LOW_SLO = (0.01, 0.05), (0.05, 0.50)  # P50, P99

_AIM = """\
Aim: 56 servers without a brake and with POLCA's SLOs. `graded` locks every server a little (the high priority at 1350
MHz, the low at 1275, then 1230) before it locks any deeply. A peak above 100 is a single second: the meter reads the
mean of two, and the guard brakes by what the meter says."""

_LIMIT = """\
What stops a longer row is power that must be shed all day, not the peaks: with 60 servers (below) the deep locks become
the low priority's median, and those of the high priority are felt. Settings in band then buy little, because the row is
held either way; they matter to thresholds that lie near the budget."""

WHY = """\
- **The load is not the paper's.** Its production trace is not public. Ours is POLCA's mix as remembered [M] under the
  hours of the public Azure 2024 conversation trace, with bursts that are assumed. How often a row brakes hangs on those
  bursts, so counts of brakes compare policies with each other; they are not the paper's counts.
- **Our row is flatter.** A busy server that makes tokens draws nearly the same whether it serves few requests or many,
  so the mean lies closer to the peak than a row's in production may. With 52 servers the uncapped mean is then above T1
  itself: the low priority is locked for most of a weekday ("low capped h"), so that its median slowdown is that of the
  lock itself. A row that is above T1 only for moments would hardly be slowed.
- **A row that brakes without relief sinks.** Requests keep coming while it is braked; with 56 servers and no cap the
  queues then grow for the rest of the run, and the slowdowns are those of waiting.
- **Slowdown is per request**, against the same request on the same server that is never slowed, queueing included. The
  paper compares distributions of latencies.
- **One threshold** is taken to mean T2 and its clock (89 %, 1110 MHz); the paper's own setting could not be checked.
- **The guard is ours**: it loosens only when the uncapped demand fits, and a brake is left step by step.
- **The runs are short.** The paper has six weeks. A row without a brake in so many days can still brake: the bound says
  how often, with 95 % certainty.
"""


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure over seeds."""

    mean: float
    low: float
    high: float

    def percent(self, digits: int = 1) -> str:
        """As per cent: mean, and lowest and highest in brackets."""
        mean, low, high = (f"{100 * value:.{digits}f}" for value in (self.mean, self.low, self.high))
        return f"{mean}" if low == high else f"{mean} [{low}, {high}]"


def spread(runs: Sequence[Figures], name: str) -> Spread:
    """One figure over seeds."""
    values = [run[name] for run in runs]
    return Spread(sum(values) / len(values), min(values), max(values))


def meets_slo(runs: Sequence[Figures]) -> bool:
    """Whether every seed kept POLCA's SLOs: no brake, and both priorities' slowdowns."""
    return all(
        run["brakes"] == 0
        and run["high_p50_slowdown"] < _HIGH_SLO[0]
        and run["high_p99_slowdown"] < _HIGH_SLO[1]
        and run["low_p50_slowdown"] < _LOW_SLO[0]
        and run["low_p99_slowdown"] < _LOW_SLO[1]
        for run in runs
    )


def document(results: Results, weeks: float, acceptance_weeks: float, seeds: int) -> str:
    """The page in Markdown."""
    return "\n".join(
        (
            "# POLCA, reproduced on the simulated row",
            "",
            _made_by(len(results), weeks, acceptance_weeks, seeds),
            "",
            *_acceptance(results, acceptance_weeks, seeds),
            *_grid(results),
            *_candidates(results),
            *_hungrier(results),
            *_beyond(results, acceptance_weeks, seeds),
            "## Where ours differ, and why",
            "",
            WHY,
        )
    )


def _made_by(rows: int, weeks: float, acceptance_weeks: float, seeds: int) -> str:
    command = f"polcad reproduce polca --weeks {weeks:g} --acceptance-weeks {acceptance_weeks:g} --seeds {seeds}"
    return (
        f"Made by `{command}`: {rows} rows, each with {seeds} seed{'s' * (seeds > 1)} of "
        f"{weeks * _DAYS_PER_WEEK:.3g} days from Monday, 00:00 UTC (the first table: "
        f"{acceptance_weeks * _DAYS_PER_WEEK:.3g} days). Per cent unless "
        "said otherwise; in brackets the lowest and highest over the seeds. The paper is arXiv 2308.12908. **[S]** was "
        "read in it, **[M]** is from memory and unverified."
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table in Markdown, by lines."""
    return [" | ".join(("", *row, "")).strip() for row in (head, ["---"] * len(head), *rows)] + [""]


def _acceptance(results: Results, weeks: float, seeds: int) -> Iterator[str]:
    days = weeks * seeds * _DAYS_PER_WEEK
    row40, none52, polca52 = (results[case] for case in acceptance(weeks))
    slo = "POLCA's SLOs are kept" if meets_slo(polca52) else "POLCA's SLOs are **not** all kept"
    high, low = spread(polca52, "high_p50_slowdown"), spread(polca52, "low_p50_slowdown")
    rows = [
        ("40 servers: peak, % of the budget", "79 [S]", spread(row40, "peak_frac").percent()),
        ("40 servers: largest rise in 40 s", "11.8 [S]", spread(row40, "rise_40s_frac").percent()),
        ("40 servers: largest rise in 2 s", "9.0 [M]", spread(row40, "rise_2s_frac").percent()),
        ("52 servers, no cap: brakes", "10 to 10 000 in six weeks [S]", _count(none52, days)),
        ("52 servers, POLCA: brakes", "0 in six weeks [S]", _count(polca52, days)),
        ("52, POLCA: median slowdown, high priority", "< 1 [S]", high.percent(2)),
        ("52, POLCA: median slowdown, low priority", "< 5 [M]", low.percent(2)),
        ("52, POLCA: throughput", "> 98 (low), > 99 (high) [S]", spread(polca52, "throughput_frac").percent(2)),
    ]
    yield from (
        "## What a faithful row must show",
        "",
        *table(("", "paper", "ours"), rows),
        f"{slo} at 52 servers.",
        "",
    )


def _count(runs: Sequence[Figures], days: float) -> str:
    brakes = sum(run["brakes"] for run in runs)
    bound = f" (fewer than {_SURE / days:.2g} a day, 95 %)" if not brakes else f" ({brakes / days:.2g} a day)"
    return f"{brakes:.0f} in {days:.3g} days{bound}"


HEAD = ("peak", "brakes a run", "s over budget", "high P50", "high P99", "low P50", "low P99", "low capped h", "SLOs")


def line(runs: Sequence[Figures]) -> tuple[str, ...]:
    """A row's figures, as `HEAD` names them."""
    plain = [spread(runs, name) for name in ("brakes", "seconds_over_budget", "capped_hours_low")]
    brakes, over_s, capped_h = (f"{each.mean:.3g}" for each in plain)
    slow = [spread(runs, name).percent() for name in FIGURES if name.endswith("slowdown")]
    kept = "kept" if meets_slo(runs) else "no"
    return (spread(runs, "peak_frac").percent(), brakes, over_s, *slow, capped_h, kept)


def _lines(results: Results, named: Sequence[tuple[tuple[str, ...], Case]]) -> list[tuple[str, ...]]:
    return [(*name, *line(results[case])) for name, case in named if case in results]


def _grid(results: Results) -> Iterator[str]:
    named = [((str(n), policy), Case(n, policy)) for n in SERVERS for policy in POLICIES]
    yield from ("## Policies by row size", "", "The budget stays that of 40 servers; settings go out of band.", "")
    yield from table(("servers", "policy", *HEAD), _lines(results, named))


def _candidates(results: Results) -> Iterator[str]:
    named = [
        ((f"{t1:.0%}, {t2:.0%}",), Case(52, "polca", () if (t1, t2) == (0.80, 0.89) else thresholds(t1, t2)))
        for t1, t2 in CANDIDATES
    ]
    yield from (
        "## Thresholds, 52 servers under POLCA",
        "",
        "The candidates are as remembered [M]; the paper takes 80 and 89 % [S].",
        "",
    )
    yield from table(("T1, T2", *HEAD), _lines(results, named))


def _hungrier(results: Results) -> Iterator[str]:
    named = [((policy,), Case(52, policy, hungrier_frac=0.05)) for policy in POLICIES]
    yield from ("## Workloads that draw 5 % more, 52 servers", "")
    yield from table(("policy", *HEAD), _lines(results, named))


def _beyond(results: Results, weeks: float, seeds: int) -> Iterator[str]:
    days = weeks * seeds * _DAYS_PER_WEEK
    long = [((case.actuation, _count(results[case], days)), case) for case in aim(weeks)]
    yield from (
        "## Beyond the paper: 40 % more servers",
        "",
        _AIM,
        "",
        *table(("`graded`, 56 servers", "", *HEAD), _lines(results, long)),
        _LIMIT,
        "",
    )
    named = [
        ((str(n), policy, path), Case(n, policy, actuation=path))
        for n in (52, 56, 60)
        for policy in ("polca", *BEYOND)
        for path in (OUT, IN)
    ]
    named += [
        ((str(n), f"{policy} at {', '.join(f'{at:.0%}' for _, at in way)}", IN), Case(n, policy, way, IN))
        for n in (52, 56)
        for policy, way in FAST
    ]
    yield from (
        "### Settings in band, token-heavy servers first, and a little of everybody, in short runs",
        "",
        *table(("servers", "policy", "settings", *HEAD), _lines(results, named)),
        _reached(results, [case for _, case in named if case in results]),
        "",
    )


def _reached(results: Results, tried: Sequence[Case]) -> str:
    kept = [case for case in tried if meets_slo(results[case])]
    unbraked = [case for case in tried if spread(results[case], "brakes").high == 0]
    without = f"Most servers without a brake in these runs: {_most(unbraked)}."
    return f"Most servers with every SLO kept: {_most(kept)}. {without}"


def _most(cases: Sequence[Case]) -> str:
    if not cases:
        return "none of these"
    servers = max(case.servers for case in cases)
    ways = [_way(case) for case in cases if case.servers == servers]
    return f"{servers} ({', '.join(ways)})"


def _way(case: Case) -> str:
    return " ".join((case.policy, *(f"{at:.0%}" for _, at in case.options), case.actuation))
