"""The programs that run until they are stopped: ``demo``, ``agent``, ``actuator``, ``daemon``, ``site``, ``load``."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated

import typer

from polcad.cli.common import (
    BrokerOption,
    ConfigOption,
    JsonOption,
    SiteOption,
    configured,
    print_json,
    run_until_stopped,
)
from polcad.config import Config
from polcad.errors import ConfigError, DeviceError, PermissionMissingError
from polcad.model import Outcome

_LOG = logging.getLogger(__name__)

ReleaseOption = Annotated[
    bool, typer.Option("--release", help="Give the GPUs back as they were found, and end. Stop the program first.")
]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(demo)
    app.command()(agent)
    app.command()(actuator)
    app.command()(daemon)
    app.command(name="site")(site_daemon)
    app.command()(load)


def demo(
    for_s: Annotated[float | None, typer.Option("--for", min=5.0, help="End after so many seconds.")] = None,
    nodes: Annotated[int, typer.Option(min=2, max=200, help="Nodes of 8 GPUs.")] = 12,
    policy: Annotated[str, typer.Option(help="Policy, with its default options.")] = "polca",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the live page; 0 is any free one.")] = 8642,
    as_json: JsonOption = False,
) -> None:
    """A row of synthetic GPUs under real agents, broker, daemon and live page: no GPU, no server, no configuration."""
    from polcad import plugins
    from polcad.demo import DemoSpec, invitation, run, summary
    from polcad.web.spec import WebSpec

    logging.basicConfig(level=logging.WARNING if as_json else logging.INFO, format="%(message)s")
    for chatty in ("polcad.mqtt", "polcad.agent", "polcad.follower"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    spec = DemoSpec(nodes=nodes, for_s=for_s, web=WebSpec(port=port))
    rules = plugins.load("polcad.policies", policy)()
    status = run_until_stopped(run(spec, rules, lambda *where: typer.echo(invitation(*where), err=True)))
    if status is not None:
        (print_json if as_json else _print_table)(summary(spec, status))


def _print_table(values: dict[str, object]) -> None:
    for name, value in values.items():
        typer.echo(f"{name:20} {value}")


def agent(
    config: ConfigOption = None,
    broker: BrokerOption = None,
    site: SiteOption = None,
    release: ReleaseOption = False,
) -> None:
    """Stream this node's GPUs to the broker and follow the row's plan."""
    from polcad.agent import run, usable

    if release:
        _release(configured(config, broker, site))
        return
    run_until_stopped(_reloading(lambda: usable(configured(config, broker, site)), run))


def actuator(config: ConfigOption = None, release: ReleaseOption = False) -> None:
    """Set this node's GPUs for an agent without privilege, over a Unix socket: to be run as root."""
    from polcad.actuator import run, usable

    if release:
        _release(configured(config))
        return
    run_until_stopped(_reloading(lambda: usable(configured(config)), run))


def _release(config: Config) -> None:
    from polcad.alone import alone
    from polcad.follower import release

    with alone(Path(config.setting.state_dir)):
        found = release(config.setting)
    for uuid, outcome, detail in zip(found.uuid, found.outcome, found.detail, strict=True):
        typer.echo(f"{uuid}: {'as found' if outcome is Outcome.OK else detail or outcome.value}")
    if Outcome.DENIED in found.outcome:
        raise PermissionMissingError("the GPUs are not given back: run this as root, or with CAP_SYS_ADMIN")
    if Outcome.FAILED in found.outcome:
        raise DeviceError("not every GPU is given back")


def daemon(
    config: ConfigOption = None,
    broker: BrokerOption = None,
    site: SiteOption = None,
    shadow: Annotated[
        bool, typer.Option(help="Publish plans that no node applies, to see what they would be.")
    ] = False,
) -> None:
    """Keep a row under its budget: hear its nodes, decide, publish the plan, serve the live page."""
    from polcad.daemon import run, usable

    run_until_stopped(
        _reloading(lambda: usable(configured(config, broker, site)), lambda each: run(each, shadow=shadow))
    )


def site_daemon(config: ConfigOption = None, broker: BrokerOption = None, site: SiteOption = None) -> None:
    """Divide a site's power among its rows: hear their daemons, and broadcast what each may draw."""
    from polcad.site_daemon import run, usable

    run_until_stopped(_reloading(lambda: usable(configured(config, broker, site)), run))


def load(config: ConfigOption = None, broker: BrokerOption = None, site: SiteOption = None) -> None:
    """Beside a serving instance: tell what its engine does, for hints how its pool should be shaped."""
    from polcad.load import run, usable

    run_until_stopped(_reloading(lambda: usable(configured(config, broker, site)), run))


async def _reloading(load: Callable[[], Config], run: Callable[[Config], Awaitable[None]]) -> None:
    """Run a program; on SIGHUP start it anew with the configuration as it is now, unless that is wrong.

    `load` also tries what the configuration names, for a program that ended by it would not be started again.
    """
    hangup = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hangup.set)
    config = load()
    while True:
        running = asyncio.ensure_future(run(config))
        reloading = asyncio.ensure_future(_next_config(hangup, load))
        try:
            await asyncio.wait({running, reloading}, return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                await running
                return
            config = reloading.result()
        finally:
            for task in (reloading, running):
                task.cancel()
            await asyncio.wait({reloading, running})


async def _next_config(hangup: asyncio.Event, load: Callable[[], Config]) -> Config:
    """The configuration at the first hang-up that finds a good one."""
    while True:
        await hangup.wait()
        hangup.clear()
        try:
            config = load()
        except ConfigError as error:
            _LOG.error("the configuration stays as it was, since the new one is wrong:\n%s", error)
        else:
            _LOG.info("taking the new configuration")
            return config
