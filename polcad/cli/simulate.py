"""Models instead of machines: ``simulate row``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from polcad.cli.common import JsonOption, print_json


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    models = typer.Typer(help="What a modelled row would do: power, brakes, slowdowns.", no_args_is_help=True)
    models.callback()(_models)
    models.command("row")(row)
    app.add_typer(models, name="simulate")


def _models() -> None:
    """What a modelled row would do: power, brakes, slowdowns."""


def row(
    servers: Annotated[int, typer.Option(help="Servers in the row.")],
    weeks: Annotated[float, typer.Option(help="How long; fractions too.")] = 1.0,
    policy: Annotated[str, typer.Option(help="Policy, with its default options.")] = "polca",
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same row.")] = 1,
    trace: Annotated[
        Path | None, typer.Option(help="Requests in Azure's columns, .csv or .csv.gz, instead of POLCA's mix.")
    ] = None,
    actuation: Annotated[str, typer.Option(help="in-band or out-of-band.")] = "out-of-band",
    hardware: Annotated[str, typer.Option(help="dgx-a100 or dgx-h100.")] = "dgx-a100",
    budget_w: Annotated[
        float | None, typer.Option("--budget-w", help="The row's budget, W; left out: that of 40 servers.")
    ] = None,
    hungrier: Annotated[float, typer.Option(help="Work draws so much more power: .05 is 5 %.")] = 0.0,
    forecaster: Annotated[str, typer.Option(help="For a policy that looks ahead.")] = "quantile",
    fault: Annotated[
        list[str] | None,
        typer.Option(help="brake@AT+SECONDS, meter@…, daemon@… or ignore:SERVER@…, AT in seconds; may be repeated."),
    ] = None,
    record: Annotated[Path | None, typer.Option(help="Write a recording that replay reads.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write a page with plots (HTML).")] = None,
    as_json: JsonOption = False,
) -> None:
    """Simulate a row of servers under its budget, with the controller that would run it."""
    from polcad.progress import bar
    from polcad.report import check_writable, of_row, write
    from polcad.simulate import SimulateOptions, timed

    options = SimulateOptions(
        servers=servers,
        weeks=weeks,
        policy=policy,
        seed=seed,
        trace=trace,
        actuation=actuation,
        hardware=hardware,
        budget_w=budget_w,
        hungrier_frac=hungrier,
        forecaster=forecaster,
        faults=tuple(fault or ()),
        record=record,
    )
    model = options.model()
    check_writable(report)
    with bar(f"simulate {servers} servers", model.steps) as advance:
        result, figures = timed(options, advance)
    if report is not None:
        write(report, of_row(model, result, policy))
    if as_json:
        print_json(figures)
        return
    for name, value in figures.items():
        typer.echo(f"{name:20} {value:.4g}" if isinstance(value, float) else f"{name:20} {value}")
