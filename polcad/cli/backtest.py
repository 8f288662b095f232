"""``backtest``: how forecasts of a row's power would have done."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from polcad.cli.common import print_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from polcad.demand import Demand

_LEAST_WIDTH = 150  # of a table; a narrower terminal breaks its lines, and nothing is left out
_DEFAULT_HORIZONS, _DEFAULT_THRESHOLDS = "2,40,300,1800", "0.89,1"


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(backtest)


def backtest(
    recordings: Annotated[list[Path] | None, typer.Argument(help="Recordings of rows.")] = None,
    forecaster: Annotated[
        list[str] | None, typer.Option("--forecaster", "-f", help="May be repeated; left out: all that are installed.")
    ] = None,
    horizons: Annotated[str, typer.Option(help="Seconds ahead.")] = _DEFAULT_HORIZONS,
    quantile: Annotated[float, typer.Option(help="What a bound is to hold with.")] = 0.99,
    thresholds: Annotated[str, typer.Option(help="Whose crossings are to be announced, of the budget.")] = (
        _DEFAULT_THRESHOLDS
    ),
    latency: Annotated[float, typer.Option(help="How early a crossing must be announced, s.")] = 40.0,
    budget_w: Annotated[
        float | None,
        typer.Option("--budget-w", help="The row's budget, W; left out: the recording's, or what it exceeds for 1 %."),
    ] = None,
    row: Annotated[str | None, typer.Option(help="Which row, where several are recorded.")] = None,
    step: Annotated[
        float | None, typer.Option(min=0.01, help="Between two forecasts, s; left out: the recording's period.")
    ] = None,
    servers: Annotated[int | None, typer.Option(help="Judge a simulated row of so many servers, uncapped.")] = None,
    weeks: Annotated[float, typer.Option(help="Of the simulated row.")] = 1.0,
    seed: Annotated[list[int] | None, typer.Option(min=0, help="Of the simulated row; may be repeated.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write a page with plots (HTML).")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Put the tables (Markdown) here, in place of those of the same recordings.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON list.")] = False,
) -> None:
    """How forecasters would have bounded a row's power: whether their bounds held, and at what margin."""
    from rich.console import Console

    from polcad.backtest import BacktestOptions, Result
    from polcad.backtest import as_json as objects_of
    from polcad.backtest import backtest as judged
    from polcad.backtest_text import NOTE, put, table
    from polcad.backtest_text import report as page_of
    from polcad.foresight import maker
    from polcad.plugins import names
    from polcad.progress import bar
    from polcad.report import check_writable, write

    options = BacktestOptions(
        tuple(forecaster or names("polcad.forecasters")),
        _numbers("--horizons", horizons),
        quantile,
        _numbers("--thresholds", thresholds),
        latency,
        budget_w,
    )
    for name in options.forecasters:
        maker(name)  # a name that is wrong is told before the long work
    for path in (report, out):
        check_writable(path)
    results: list[Result] = []
    for demand in _demands(recordings or [], row, step, servers, weeks, seed or [1]):
        with bar(f"backtest {demand.name}", len(options.forecasters) * len(demand.t)) as advance:
            results.append(judged(demand, options, advance))
    if report is not None:
        write(report, page_of(results))
    if out is not None:
        write(out, put(out.read_text(encoding="utf-8"), results))
    if as_json:
        print_json([each for result in results for each in objects_of(result)])
        return
    console = Console(width=max(_LEAST_WIDTH, Console().width))
    for result in results:
        console.print(table(result))
    console.print(NOTE)


def _demands(
    recordings: list[Path], row: str | None, step_s: float | None, servers: int | None, weeks: float, seeds: list[int]
) -> Iterator[Demand]:
    from polcad.demand import recorded, simulated
    from polcad.progress import bar
    from polcad.simulate import SimulateOptions

    if not recordings and servers is None:
        raise typer.BadParameter("name a recording, or --servers for a simulated row")
    for path in recordings:
        with bar(f"read {path.name}", path.stat().st_size if path.exists() else 0) as advance:
            demand = recorded(path, row, step_s, advance)
        yield demand
    if servers is None:
        return
    for seed in seeds:
        options = SimulateOptions(servers, weeks=weeks, seed=seed, policy="no_cap")
        with bar(f"simulate {servers} servers", options.model().steps) as advance:
            demand = simulated(options, advance)
        yield demand


def _numbers(option: str, text: str) -> tuple[float, ...]:
    from polcad.errors import ConfigError

    try:
        return tuple(float(each) for each in text.split(","))
    except ValueError:
        raise ConfigError(f"{option} {text!r}: numbers with commas between them are needed") from None
