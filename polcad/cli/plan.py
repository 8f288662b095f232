"""Answers from the model: ``reproduce`` and ``plan``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from polcad.cli.common import JsonOption, print_json


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    papers = typer.Typer(help="What a paper says, beside what the model here says.", no_args_is_help=True)
    papers.callback()(_papers)
    papers.command()(polca)
    papers.command()(dynamollm)
    papers.command()(splitwise)
    app.add_typer(papers, name="reproduce")
    app.command()(plan)


def _papers() -> None:
    """What a paper says, beside what the model here says."""


def polca(
    weeks: Annotated[float, typer.Option(help="Of each run; the weekday peak is in the first 0.1.")] = 0.1,
    acceptance_weeks: Annotated[float, typer.Option(help="Of the rows that the paper gives figures of.")] = 1.0,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each row.")] = 2,
    processes: Annotated[int, typer.Option(min=1, help="Runs at a time.")] = 2,
    out: Annotated[Path | None, typer.Option(help="Write the page (Markdown) here too.")] = None,
) -> None:
    """Run POLCA's whole comparison on the simulated row: about 20 minutes on two cores, with the extra `sim`."""
    from polcad.progress import bar
    from polcad.report import check_writable, write
    from polcad.reproduce import cases, run
    from polcad.reproduction import document

    check_writable(out)
    wanted = cases(acceptance_weeks)
    with bar("reproduce polca", len(wanted) * seeds) as advance:
        text = document(run(weeks, range(1, seeds + 1), processes, advance, wanted), weeks, acceptance_weeks, seeds)
    typer.echo(text)
    if out is not None:
        write(out, text)


def dynamollm(
    trace: Annotated[
        Path | None, typer.Option(help="The hour, in Azure's columns (.csv or .csv.gz); left out: a made-up one.")
    ] = None,
    servers: Annotated[int, typer.Option(min=9, help="Of the hour; nine pools need one each at least.")] = 12,
    week_servers: Annotated[int, typer.Option(min=9, help="Of the weeks.")] = 40,
    week_hours: Annotated[float, typer.Option(help="How much of each week, from Monday, 00:00 UTC.")] = 168.0,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same page.")] = 1,
    carbon: Annotated[Path | None, typer.Option(help="Hourly intensity: a CSV with a column g_per_kwh.")] = None,
    processes: Annotated[int, typer.Option(min=1, help="Runs at a time.")] = 2,
    out: Annotated[Path | None, typer.Option(help="Write the page (Markdown) here too.")] = None,
) -> None:
    """Run DynamoLLM's comparison on the simulated cluster: about 10 minutes on two cores, with the extra `sim`."""
    from polcad.progress import bar
    from polcad.report import check_writable, write
    from polcad.reproduce_dynamollm import Wanted, document, run

    check_writable(out)
    wanted = Wanted(trace, servers, week_servers, week_hours, seed, carbon)
    runs = wanted.runs()
    with bar("reproduce dynamollm", len(runs)) as advance:
        text = document(run(runs, processes, advance), wanted)
    typer.echo(text)
    if out is not None:
        write(out, text)


def splitwise(
    seconds: Annotated[float, typer.Option(min=10.0, help="Of each load.")] = 120.0,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same page.")] = 1,
    processes: Annotated[int, typer.Option(min=1, help="Runs at a time.")] = 2,
    out: Annotated[Path | None, typer.Option(help="Write the page (Markdown) here too.")] = None,
) -> None:
    """Run Splitwise's comparison of clusters at equal power and cost: minutes, with the extra `sim`."""
    from polcad.progress import bar
    from polcad.report import check_writable, write
    from polcad.reproduce_splitwise import Wanted, document, run

    check_writable(out)
    wanted = Wanted(seconds, seed)
    with bar("reproduce splitwise", wanted.steps) as advance:
        text = document(run(wanted, processes, advance), wanted)
    typer.echo(text)
    if out is not None:
        write(out, text)


def plan(
    recording: Annotated[Path | None, typer.Argument(help="Of a row that is not capped; left out: simulated.")] = None,
    budget_w: Annotated[
        float | None, typer.Option("--budget-w", help="The row's budget, W; left out: the recording's, or 40 servers'.")
    ] = None,
    policy: Annotated[str, typer.Option(help="Policy; POLCA's thresholds are calibrated.")] = "polca",
    actuation: Annotated[str, typer.Option(help="in-band or out-of-band.")] = "out-of-band",
    hardware: Annotated[str, typer.Option(help="dgx-a100 or dgx-h100.")] = "dgx-a100",
    slo: Annotated[str, typer.Option(help="Largest slowdowns, %: high P50,P99, low P50,P99.")] = "1,5,5,50",
    margin: Annotated[float, typer.Option(help="T2 leaves so many times the largest rise.")] = 1.0,
    servers: Annotated[int, typer.Option(min=1, help="Servers now, where the row is simulated.")] = 40,
    step: Annotated[int, typer.Option(help="Servers added at a time.")] = 2,
    most: Annotated[int | None, typer.Option(help="Try no more servers; left out: twice as many as now.")] = None,
    weeks: Annotated[float, typer.Option(help="Of each run, where the row is simulated.")] = 0.1,
    seeds: Annotated[int, typer.Option(help="Runs of each size.")] = 3,
    training: Annotated[float, typer.Option(help="Share of the servers that train, where the row is simulated.")] = 0.0,
    what_if: Annotated[
        list[str] | None, typer.Option(help="Hypothetical: quicker settings, or pruned training; may be repeated.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Write a page with plots (HTML).")] = None,
    as_json: JsonOption = False,
) -> None:
    """How many servers fit under a row's budget, with which thresholds, and how sure that is."""
    from polcad.errors import ConfigError
    from polcad.plan import PlanOptions, Slo
    from polcad.plan import as_json as object_of
    from polcad.plan import plan as answer_of
    from polcad.plan_rows import Rows, SimulatedRows, recorded_rows
    from polcad.plan_text import lines
    from polcad.plan_text import report as page_of
    from polcad.progress import bar
    from polcad.report import check_writable, write
    from polcad.simulate import SimulateOptions

    check_writable(report)
    asked = SimulateOptions(
        servers,
        weeks=weeks,
        policy=policy,
        actuation=actuation,
        hardware=hardware,
        budget_w=budget_w,
        training=training,
        what_if=tuple(what_if or ()),
    )
    if recording is not None and training:
        raise ConfigError(f"--training {training:g}: {recording} says what its servers did; leave it out")
    model = asked.model()
    found: Rows = SimulatedRows(asked, servers)
    if recording is not None:
        found = recorded_rows(recording, budget_w, model.hardware, model.path)
    options = PlanOptions(policy, model.path.latency_s, Slo.parse(slo), seeds, margin, step, most, model.hypothetical)
    with bar("plan", seeds * (1 + found.servers // step)) as advance:
        answer = answer_of(found, options, advance)
    if report is not None:
        write(report, page_of(answer))
    if as_json:
        print_json(object_of(answer))
        return
    for line in lines(answer):
        typer.echo(line)
