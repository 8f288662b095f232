"""Recordings: ``record`` a row, ``import`` the logs that people already have, ``replay`` through the controller."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Annotated

import typer

from polcad.cli.common import (
    BrokerOption,
    ConfigOption,
    JsonOption,
    RowOption,
    SiteOption,
    configured,
    print_json,
    row_name,
    run_until_stopped,
)
from polcad.wire import KINDS, OF_SITE, Message, everywhere


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(record)
    app.command("import")(import_)
    app.command()(replay)


def record(
    out: Annotated[Path, typer.Argument(help="The new recording.")],
    for_s: Annotated[float | None, typer.Option("--for", min=1.0, help="End after so many seconds.")] = None,
    append: Annotated[bool, typer.Option(help="Go on with a recording that exists.")] = False,
    config: ConfigOption = None,
    broker: BrokerOption = None,
    site: SiteOption = None,
    row: RowOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write everything that crosses the broker for a row, and when it arrived, until stopped."""
    from polcad.clock import SteadyClock
    from polcad.mqtt import Link, Presence
    from polcad.recording import RecordingWriter
    from polcad.recording import record as write_all

    read = configured(config, broker, site)
    site_name, name = read.site.name, row_name(read, row)
    topics = tuple(everywhere(site_name, name, kind) for kind in KINDS if kind not in OF_SITE)
    presence = Presence(client_id=f"polcad-record-{time.time_ns():x}", subscriptions=topics)
    link = Link(read.broker, presence, SteadyClock().now, Random())  # noqa: S311  # spreads retries

    async def arriving() -> AsyncIterator[tuple[float, Message]]:
        async for batch in link.batches():
            for received in batch:
                yield received.t, received.message

    async def until_the_end(writer: RecordingWriter) -> None:
        running = asyncio.create_task(link.run(), name="mqtt")
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(for_s):
                    await write_all(arriving(), writer)
        finally:
            running.cancel()
            await asyncio.wait({running})

    with RecordingWriter(out, {"made_by": "polcad record", "site": site_name, "row": name}, append=append) as writer:
        run_until_stopped(until_the_end(writer))
    values = {"out": str(out), "messages": link.counters.received, "bytes": out.stat().st_size}
    if as_json:
        print_json(values)
    else:
        typer.echo(f"{out}: {values['messages']} messages in {values['bytes']} bytes")


def replay(
    file: Annotated[Path, typer.Argument(help="The recording.")],
    budget_w: Annotated[float, typer.Option("--budget-w", help="The row's budget, W.")],
    policy: Annotated[str, typer.Option(help="Policy, with its default options.")] = "polca",
    speed: Annotated[float | None, typer.Option(help="Times recorded time; left out: as fast as it goes.")] = None,
    row: Annotated[str | None, typer.Option(help="Which row, where several are recorded.")] = None,
    plans: Annotated[Path | None, typer.Option(help="Write plans and events as JSON Lines here; - is stdout.")] = None,
    config: ConfigOption = None,
    broker: Annotated[str | None, typer.Option(help="Play the recording there as live agents instead.")] = None,
    site: SiteOption = None,
    as_json: JsonOption = False,
) -> None:
    """What the controller would have said over a recording; nothing obeys it, and two runs say the same."""
    from polcad.replay import ReplayOptions
    from polcad.replay import replay as play

    read = configured(config, broker, site)
    options = ReplayOptions(file, budget_w, policy, row, speed, plans, read.guard, read.row)
    if broker is None:
        play(options, as_json=as_json)
        return
    from polcad.reenact import run

    run_until_stopped(run(options, read.site.name, read.broker))


def import_(
    file: Annotated[Path, typer.Argument(help="The log, plain or .gz.")],
    source: Annotated[str, typer.Option("--from", help="nvidia-smi, dmon, wattameter, gpu-csv or bmc-csv.")],
    out: Annotated[Path, typer.Option("--out", help="The new recording.")],
    row: Annotated[str, typer.Option(help="The row that the nodes are put in.")] = "row",
    node: Annotated[
        str | None, typer.Option(help="The node's name, where the log has none; else after the file.")
    ] = None,
    timezone: Annotated[str, typer.Option(help="Of times that do not say.")] = "UTC",
    gpu_max_w: Annotated[float | None, typer.Option(help="The boards' highest limit, where the log has none.")] = None,
    start: Annotated[
        str | None, typer.Option(help="The day of a log that has only times: 2026-01-31T00:00:00.")
    ] = None,
    period_s: Annotated[float | None, typer.Option(help="Between samples, where the log has no times.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Turn a power log into a recording; what is set aside is told line by line."""
    from polcad.importers import import_log
    from polcad.importers.log import ImportOptions

    given = {"start": start, "period_s": period_s}
    options = ImportOptions(
        out=out,
        row=row,
        node=node,
        timezone=timezone,
        gpu_max_w=gpu_max_w,
        tell=lambda line: typer.echo(line, err=True),
        **{name: value for name, value in given.items() if value is not None},  # type: ignore[arg-type]
    )
    report = asdict(import_log(source, file, options))
    if as_json:
        print_json(report)
    else:
        for name, value in report.items():
            typer.echo(f"{name:12} {value}")
