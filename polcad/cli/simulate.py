"""Models instead of machines: ``simulate row`` and ``simulate cluster``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from polcad.cli.common import JsonOption, print_json


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    models = typer.Typer(
        help="What a modelled row or cluster would do: power, slowdowns, latencies.", no_args_is_help=True
    )
    models.callback()(_models)
    models.command("row")(row)
    models.command("cluster")(cluster)
    app.add_typer(models, name="simulate")


def _models() -> None:
    """What a modelled row or cluster would do: power, slowdowns, latencies."""


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
    training: Annotated[float, typer.Option(help="Share of the servers that train, all the time.")] = 0.0,
    what_if: Annotated[
        list[str] | None, typer.Option(help="Hypothetical: quicker settings, or pruned training; may be repeated.")
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
        training=training,
        what_if=tuple(what_if or ()),
        record=record,
    )
    model = options.model()
    check_writable(report)
    with bar(f"simulate {servers} servers", model.steps) as advance:
        result, figures = timed(options, advance)
    if report is not None:
        write(report, of_row(model, result, policy))
    _show(figures, as_json)


def cluster(
    system: Annotated[
        str,
        typer.Option(
            help="DynamoLLM's single-pool, multi-pool, scale-instances, scale-shards, scale-clock or dynamo; "
            "Splitwise's splitwise-aa, -hh, -ha or -hhcap, baseline-a100 or -h100."
        ),
    ],
    servers: Annotated[int, typer.Option(help="Servers of eight GPUs that there are at most.")],
    trace: Annotated[Path | None, typer.Option(help="Requests in Azure's columns, .csv or .csv.gz.")] = None,
    week: Annotated[str | None, typer.Option(help="conv or code: a made-up week instead of a trace.")] = None,
    hours: Annotated[float | None, typer.Option(help="End after so long; left out: with the trace or week.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same cluster.")] = 1,
    peak_util: Annotated[float, typer.Option(help="What the busiest ten minutes ask of the servers' time.")] = 0.40,
    margin: Annotated[
        float | None,
        typer.Option(help="Of a fixed size, above the highest load: .3; left out: .3, or what keeps the busiest hour."),
    ] = None,
    past: Annotated[
        str,
        typer.Option(help="What forecasts of a trace have learnt: none, a week of conv or code, or itself (a leak)."),
    ] = "none",
    profile: Annotated[Path | None, typer.Option(help="Your model on your GPU (TOML).")] = None,
    length_accuracy: Annotated[float, typer.Option(help="Share of output lengths that are guessed right.")] = 0.81,
    surprise: Annotated[float, typer.Option(help="The load is so many times what was forecast.")] = 1.0,
    router: Annotated[
        str, typer.Option(help="Within a pool: shortest-queue, round-robin, or weighted (renewed each 5 s).")
    ] = "shortest-queue",
    slo_scale: Annotated[float, typer.Option(help="The objectives, times this.")] = 1.0,
    lose_server: Annotated[str | None, typer.Option(help="AT+SECONDS: the busiest server is gone so long.")] = None,
    stale: Annotated[str | None, typer.Option(help="AT+SECONDS: the load is not measured so long.")] = None,
    slow_server: Annotated[
        str | None, typer.Option(help="CLOCK@AT+SECONDS: the busiest server is slow (.5: half its clock), unannounced.")
    ] = None,
    cap: Annotated[
        str | None, typer.Option(help="CLOCK@AT+SECONDS: the row's power plan locks all clocks at .7, say.")
    ] = None,
    power_budget_w: Annotated[
        float | None, typer.Option("--power-budget-w", help="What may be planned for all pools, servers included, W.")
    ] = None,
    what_if: Annotated[
        list[str] | None,
        typer.Option(help="Hypothetical: compressed memory, or quicker clocks and shapes; may be repeated."),
    ] = None,
    carbon: Annotated[Path | None, typer.Option(help="Hourly intensity: a CSV with a column g_per_kwh.")] = None,
    events: Annotated[bool, typer.Option("--events", help="Tell what was planned and what happened, too.")] = False,
    report: Annotated[Path | None, typer.Option(help="Write a page with plots (HTML).")] = None,
    as_json: JsonOption = False,
) -> None:
    """Simulate a serving cluster, request by request, under one of DynamoLLM's systems or in Splitwise's pools."""
    from polcad.progress import bar
    from polcad.report import check_writable, of_cluster, write
    from polcad.simulate_cluster import ClusterOptions, timed

    options = ClusterOptions(
        system=system,
        servers=servers,
        trace=trace,
        week=week,
        hours=hours,
        seed=seed,
        peak_util=peak_util,
        margin_frac=margin,
        past=past,
        profile=profile,
        length_accuracy=length_accuracy,
        surprise=surprise,
        router=router,
        what_if=tuple(what_if or ()),
        slo_scale=slo_scale,
        lose_server=lose_server,
        stale=stale,
        slow_server=slow_server,
        cap=cap,
        power_budget_w=power_budget_w,
        carbon=carbon,
    )
    model = options.model()
    check_writable(report)
    with bar(f"simulate {servers} servers", model.seconds) as advance:
        result, figures = timed(options, advance, model)
    if report is not None:
        write(report, of_cluster(model, result))
    if not events:
        _show(figures, as_json)
    elif as_json:
        print_json(figures | {"events": [asdict(told) for told in result.told]})
    else:
        _show(figures, as_json)
        for told in result.told:
            typer.echo(f"{told.at_s:8.0f} s  {told.text}")


def _show(figures: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(figures)
        return
    for name, value in figures.items():
        typer.echo(f"{name:20} {value:.4g}" if isinstance(value, float) else f"{name:20} {value}")
