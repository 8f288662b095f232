"""What an operator orders: ``hold`` and ``release``. A hold can only tighten, and ends by itself."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import re
import time
from random import Random
from typing import Annotated

import typer

from polcad.cli.common import BrokerOption, ConfigOption, RowOption, SiteOption, asked, row_name
from polcad.config import Config
from polcad.errors import UnavailableError, WireError
from polcad.model import NAME_PATTERN, SCOPE_PATTERN, Hold, Setpoint
from polcad.wire import Address, Message, decode, encode, forget, parse_topic

_ECHO_S = 3.0  # an order that may be given comes back at once


def _named(name: str) -> str:
    if not re.match(NAME_PATTERN, name):
        raise typer.BadParameter(f"{name!r}: write 1 to 64 of a-z, 0-9, - and _")
    return name


def _scoped(scope: str) -> str:
    if not re.match(SCOPE_PATTERN, scope):
        raise typer.BadParameter(f"{scope!r}: write row, rack/NAME, node/NAME or gpu/UUID")
    return scope


NameArgument = Annotated[str, typer.Argument(help="The hold's name: a-z, 0-9, - and _.", callback=_named)]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(hold)
    app.command()(release)


def hold(
    name: NameArgument,
    clock: Annotated[float, typer.Option(min=0.0, max=1.0, help="Highest clock, as a fraction of the maximum.")] = 1.0,
    limit: Annotated[float, typer.Option(min=0.0, max=1.0, help="Highest power limit, as a fraction.")] = 1.0,
    scope: Annotated[str, typer.Option(help="row, rack/NAME, node/NAME or gpu/UUID.", callback=_scoped)] = "row",
    minutes: Annotated[float, typer.Option(min=0.1, max=10080.0, help="Ends by itself after so long.")] = 60.0,
    config: ConfigOption = None,
    broker: BrokerOption = None,
    site: SiteOption = None,
    row: RowOption = None,
) -> None:
    """Keep GPUs at most this fast, whatever the policy: the strictest of all rules wins."""
    if clock == 1.0 and limit == 1.0:
        raise typer.BadParameter("it would hold nothing; give --clock or --limit below 1")
    read = asked(config, broker, site)
    order = Hold(name, scope, Setpoint(clock, limit), time.time() + 60 * minutes, getpass.getuser())
    asyncio.run(_publish(read, _sound(encode(_address(read, row, name), order))))
    typer.echo(f"hold {name}: {scope} at most clock {clock:g}, limit {limit:g} for {minutes:g} minutes")


def release(
    name: NameArgument,
    config: ConfigOption = None,
    broker: BrokerOption = None,
    site: SiteOption = None,
    row: RowOption = None,
) -> None:
    """End a hold now. What it held loosens as the policy and the guard allow."""
    read = asked(config, broker, site)
    if not asyncio.run(_publish(read, _sound(forget(_address(read, row, name))))):
        raise typer.BadParameter(f"row {row_name(read, row)} has no hold {name!r}")
    typer.echo(f"hold {name}: released")


def _address(config: Config, row: str | None, name: str) -> Address:
    return Address(config.site.name, row_name(config, row), "hold", hold=name)


def _sound(message: Message) -> Message:
    """The message; BadParameter where the daemon would refuse it in silence."""
    try:
        decode(message)
    except WireError as error:
        raise typer.BadParameter(str(error)) from None
    return message


async def _publish(config: Config, message: Message) -> bool:
    """Publish, and wait until the broker hands the message back: it drops what may not be said without a word.

    Whether another message was kept in its place. UnavailableError when it does not come back.
    """
    from polcad.mqtt import Link, Presence

    topic, replaced = parse_topic(message.topic), False
    presence = Presence(client_id=f"polcad-operator-{time.time_ns():x}", subscriptions=(topic,))
    async with Link(config.broker, presence, time.time, Random()).opened() as link:  # noqa: S311  # spreads retries
        await link.publish(message)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_ECHO_S):
                async for batch in link.batches():
                    payloads = [received.message.payload for received in batch]
                    replaced |= any(payload and payload != message.payload for payload in payloads)
                    if message.payload in payloads:
                        return replaced
    who = f"user {config.broker.user!r}" if config.broker.user else "a client without a user"
    raise UnavailableError(
        f"broker {config.broker.url}: the order did not come back: does the access list let {who} write and read "
        f"{topic.topic}?"
    )
