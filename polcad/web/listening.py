"""Where aiohttp applications listen, and to whom they answer."""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from polcad.errors import UnavailableError


class Place(Protocol):
    """An address to listen at."""

    @property
    def host(self) -> str:
        """A name or an address."""
        ...

    @property
    def port(self) -> int:
        """A port; 0 for any that is free."""
        ...


@asynccontextmanager
async def listening(app: web.Application, place: Place, section: str) -> AsyncIterator[str]:
    """Serve the application while the context lasts; gives its URL.

    UnavailableError, with the section of the configuration, when the address cannot be had: at boot it may come later.
    """
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await _bind(runner, place, section)
        host, port = runner.addresses[0][:2]
        yield f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
    finally:
        await runner.cleanup()


async def _bind(runner: web.AppRunner, place: Place, section: str) -> None:
    try:
        await web.TCPSite(runner, place.host, place.port).start()
    except OSError as error:
        where = f"{section}.host={place.host!r}, {section}.port={place.port}"
        raise UnavailableError(f"{where} cannot be had ({error.strerror}): name another, or port 0 for any") from None


def strangers_refused() -> Middleware:
    """For loopback: a foreign Host header is a web page whose name was made to point at 127.0.0.1."""

    @web.middleware
    async def refuse(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not is_loopback(_hostname(request.host)):
            raise web.HTTPForbidden(text=f"This page is not known as {request.host!r}.\n")
        return await handler(request)

    return refuse


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _hostname(host: str) -> str:
    """The name in a Host header, without the port; "" when it makes no sense."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
