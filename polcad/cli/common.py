"""What several commands share: options, the configuration, and running a program until it is told to stop."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from polcad.broker_spec import BrokerSpec
from polcad.config import Config, load

T = TypeVar("T")

ConfigOption = Annotated[
    list[Path] | None,
    typer.Option("--config", "-c", help="Configuration file; its drop-ins are in FILE's folder under polcad.d."),
]
BrokerOption = Annotated[
    str | None,
    typer.Option(
        "--broker",
        help="mqtt://USER@HOST:PORT or mqtts://, instead of the configuration's broker; USER and PORT may be left out, "
        "the password is in the file that POLCAD_BROKER_PASSWORD_FILE names.",
    ),
]
SiteOption = Annotated[str | None, typer.Option("--site", help="Site, instead of the configuration's site.name.")]
RowOption = Annotated[
    str | None, typer.Option("--row", help="Row, instead of the configuration's row.name or agent.row.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def asked(paths: list[Path] | None, broker: str | None = None, site: str | None = None) -> Config:
    """The configuration for a command that answers one question: only what is wrong is logged."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    return configured(paths, broker, site)


def configured(paths: list[Path] | None, broker: str | None = None, site: str | None = None) -> Config:
    """The configuration, with what the command line says instead; logging is set up by it, if it was not."""
    config = load(paths, os.environ)
    logging.basicConfig(level=config.log.level.value.upper(), format="%(levelname)s %(name)s: %(message)s")
    for warning in config.warnings:
        logging.getLogger("polcad.config").warning("%s", warning)
    if broker is not None:
        config = replace(config, broker=_broker_at(broker, config.broker))
    return config if site is None else replace(config, site=replace(config.site, name=site))


def _broker_at(url: str, written: BrokerSpec) -> BrokerSpec:
    """The broker at a URL. Of what is written for another only the certificates serve it: no password goes astray."""
    spec = BrokerSpec.parse(url)
    return replace(spec, tls=written.tls) if spec.tls and written.tls else spec


def row_name(config: Config, row: str | None) -> str:
    """The row that a command speaks of."""
    return row or (config.row.name if config.row is not None else config.agent.row)


def run_until_stopped(program: Coroutine[Any, Any, T]) -> T | None:
    """Run a program; SIGTERM and SIGINT end it in order, and that is no failure."""

    async def guarded() -> T | None:
        task = asyncio.ensure_future(program)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, task.cancel)
        try:
            return await task
        except asyncio.CancelledError:
            return None

    return asyncio.run(guarded())


def print_json(value: Any) -> None:
    """One JSON object, for a pipe."""
    typer.echo(json.dumps(value, indent=None, sort_keys=False))
