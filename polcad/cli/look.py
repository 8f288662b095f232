"""What tells how things are: ``top``, ``status``, ``explain``, ``hints``, ``budgets``, ``check``, ``doctor``."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator
from random import Random
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from polcad.cli.common import (
    BrokerOption,
    ConfigOption,
    JsonOption,
    RowOption,
    SiteOption,
    asked,
    print_json,
    row_name,
    run_until_stopped,
)
from polcad.errors import UnavailableError, WireError
from polcad.model import Hint, RowStatus, SiteStatus
from polcad.wire import decode, everywhere

if TYPE_CHECKING:
    from polcad.backlog import Received
    from polcad.config import Config
    from polcad.mqtt import Link

S = TypeVar("S", RowStatus, SiteStatus)
_ANSWER_S = 3.0  # a retained status arrives at once, or there is none
_QUIET_S = 0.5  # retained hints arrive together; nobody says how many there are


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (top, status, explain, hints, budgets, check, doctor, schema):
        app.command()(command)


def _link(config: Config, row: str, *kinds: str) -> Link:
    from polcad.mqtt import Link, Presence

    addresses = tuple(everywhere(config.site.name, row, kind) for kind in kinds)
    presence = Presence(client_id=f"polcad-look-{time.time_ns():x}", subscriptions=addresses)
    return Link(config.broker, presence, time.time, Random())  # noqa: S311  # spreads retries


async def _retained_status(config: Config, row: str) -> tuple[RowStatus, float]:
    """What the row's daemon said last, and how old it is, s."""
    return await _retained(config, row, "daemon", RowStatus, f"row {row} of site {config.site.name}")


async def _retained(config: Config, row: str, kind: str, noun_of: type[S], who: str) -> tuple[S, float]:
    """The last word of a kind, and how old it is, s; UnavailableError where there is none."""
    async with _link(config, row, kind).opened() as link:
        try:
            async with asyncio.timeout(_ANSWER_S):
                async for batch in link.batches():
                    for received in batch:
                        try:
                            _, noun = decode(received.message)
                        except WireError:
                            continue
                        if isinstance(noun, noun_of):
                            return noun, max(0.0, time.time() - noun.t)
        except TimeoutError:
            pass
    raise UnavailableError(f"{who}: no daemon has spoken at {config.broker.url}")


def top(
    config: ConfigOption = None, broker: BrokerOption = None, site: SiteOption = None, row: RowOption = None
) -> None:
    """The row, live, in the terminal. Ctrl-C ends it."""
    from rich.console import Console

    from polcad.top import run_top

    read = asked(config, broker, site)

    async def show() -> None:
        async with _link(read, row_name(read, row), "daemon", "event", "telemetry", "placement").opened() as link:
            await run_top(link.batches(), Console(), time.time)

    run_until_stopped(show())


def status(
    config: ConfigOption = None,
    broker: BrokerOption = None,
    site: SiteOption = None,
    row: RowOption = None,
    as_json: JsonOption = False,
) -> None:
    """The row at a glance; exit code 1 when its daemon is silent, it brakes, or it is over its budget."""
    from rich.console import Console

    from polcad.terminal import summary, well

    read = asked(config, broker, site)
    found, age_s = asyncio.run(_retained_status(read, row_name(read, row)))
    if as_json:
        import msgspec

        print_json({**msgspec.to_builtins(found), "age_s": round(age_s, 3)})
    else:
        Console().print(summary(found, age_s=age_s))
    if not well(found, age_s=age_s):
        raise typer.Exit(1)


def explain(
    config: ConfigOption = None, broker: BrokerOption = None, site: SiteOption = None, row: RowOption = None
) -> None:
    """Why the plan is as it is, in sentences."""
    from polcad.explain import explain as sentences

    read = asked(config, broker, site)
    found, age_s = asyncio.run(_retained_status(read, row_name(read, row)))
    for sentence in sentences(found, age_s=age_s):
        typer.echo(sentence)


def hints(
    config: ConfigOption = None, broker: BrokerOption = None, site: SiteOption = None, as_json: JsonOption = False
) -> None:
    """How the site's serving pools should be shaped now, and what that would save."""
    from rich.console import Console

    from polcad.hints_text import as_object, table

    read = asked(config, broker, site)
    found = asyncio.run(_retained_hints(read))
    if as_json:
        print_json({"site": read.site.name, **as_object(found, time.time())})
    else:
        Console().print(table(found, time.time()))


def budgets(
    config: ConfigOption = None, broker: BrokerOption = None, site: SiteOption = None, as_json: JsonOption = False
) -> None:
    """The site at a glance: its budget, and what each row may draw; exit code 1 when something is wrong."""
    from rich.console import Console

    from polcad.site_text import table, well

    read = asked(config, broker, site)
    found, age_s = asyncio.run(_retained(read, "", "site", SiteStatus, f"site {read.site.name}"))
    if as_json:
        import msgspec

        print_json({**msgspec.to_builtins(found), "age_s": round(age_s, 3)})
    else:
        Console().print(table(found, age_s=age_s))
    if not well(found, age_s=age_s):
        raise typer.Exit(1)


async def _retained_hints(config: Config) -> list[Hint]:
    """The hints that the broker keeps, by pool."""
    found: dict[str, Hint | None] = {}
    async with _link(config, "", "hint").opened() as link:
        batches = link.batches()
        while batch := await _soon(batches):
            for received in batch:
                with contextlib.suppress(WireError):
                    address, noun = decode(received.message)
                    found[address.pool] = noun
    return [hint for _, hint in sorted(found.items()) if hint is not None]


async def _soon(batches: AsyncIterator[list[Received]]) -> list[Received]:
    """The next batch, or an empty one when none comes."""
    try:
        async with asyncio.timeout(_QUIET_S):
            return await anext(batches, [])
    except TimeoutError:
        return []


def check(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Check the configuration and name every problem with its place and remedy."""
    from polcad.config import check_config

    problems = check_config(config, os.environ)
    wrong = [problem for problem in problems if not problem.warning]
    if as_json:
        print_json({"ok": not wrong, "problems": [str(problem) for problem in problems]})
    else:
        for problem in problems:
            typer.echo(f"{'warning' if problem.warning else 'error'}: {problem}")
        typer.echo("the configuration cannot be used" if wrong else "the configuration is good")
    if wrong:
        raise typer.Exit(78)


def schema(
    kind: Annotated[
        str | None, typer.Argument(help="One kind of message; left out: the whole AsyncAPI document.")
    ] = None,
) -> None:
    """The wire's contract: AsyncAPI 3, or the JSON Schema of one kind of message."""
    from importlib.metadata import version

    from polcad.schema import render
    from polcad.wire import KINDS, schemas

    if kind is None:
        typer.echo(render(version("polcad")), nl=False)
    elif kind in KINDS:
        print_json(schemas()[kind])
    else:
        raise typer.BadParameter(f"{kind!r} is none of {', '.join(KINDS)}")


def doctor(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Examine this machine: what polcad needs here, what is missing, and what to do about it."""
    from polcad.doctor import examine, exit_code

    checks = asyncio.run(examine(config, os.environ))
    if as_json:
        fields = ("name", "state", "detail", "remedy")
        print_json({"checks": [{name: getattr(each, name) for name in fields} for each in checks]})
    else:
        for each in checks:
            typer.echo(f"{each.state.value:5} {each.name}: {each.detail}{f' -> {each.remedy}' if each.remedy else ''}")
    if code := exit_code(checks):
        raise typer.Exit(code)
