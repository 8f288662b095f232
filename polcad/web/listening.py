"""Where aiohttp applications listen, to whom they answer, and how many may come.

Whoever reaches an exposed address can open connections without end, and a daemon out of descriptors reaches no broker.
So connections are bounded, and one becomes aiohttp's, which would wait for ever, with its first word alone.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol, cast
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from polcad.errors import UnavailableError

MAX_CONNECTIONS = 96  # of one address: 32 browsers that look, as many that begin to, and scrapers
FIRST_WORD_S = 10.0  # until a connection must have said something
_KEEP_S = 15.0  # an idle connection is kept, after an answer


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
    runner = web.AppRunner(
        app, access_log=None, handler_cancellation=True, shutdown_timeout=1.0, keepalive_timeout=_KEEP_S
    )
    await runner.setup()
    porter = _Porter(cast("web.Server", runner.server))  # there is none before it is set up alone
    try:
        server = await _bind(porter, place, section)
        host, port = server.sockets[0].getsockname()[:2]
        yield f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
        server.close()
    finally:
        porter.send_away()
        await runner.cleanup()


async def _bind(porter: _Porter, place: Place, section: str) -> asyncio.Server:
    try:
        return await asyncio.get_running_loop().create_server(lambda: _Visitor(porter), place.host, place.port)
    except OSError as error:
        where = f"{section}.host={place.host!r}, {section}.port={place.port}"
        raise UnavailableError(f"{where} cannot be had ({error.strerror}): name another, or port 0 for any") from None


@dataclass(slots=True)
class _Porter:
    """Counts who is in, and knows those that have said nothing yet."""

    server: web.Server
    silent: set[asyncio.Transport] = field(default_factory=set)

    def full(self) -> bool:
        return len(self.silent) + len(self.server.connections) >= MAX_CONNECTIONS

    def send_away(self) -> None:
        for transport in self.silent:
            transport.abort()


class _Visitor(asyncio.Protocol):
    """A connection that has said nothing yet."""

    def __init__(self, porter: _Porter) -> None:
        self._porter = porter

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let it in, for a while, or hang up."""
        self._transport = cast("asyncio.Transport", transport)  # of a stream, as all of a TCP server's are
        self._patience = asyncio.get_running_loop().call_later(FIRST_WORD_S, self._transport.abort)
        if self._porter.full():
            self._transport.abort()
        else:
            self._porter.silent.add(self._transport)

    def data_received(self, data: bytes) -> None:
        """Its first word: hand it over."""
        self._leave()
        handler = self._porter.server()
        self._transport.set_protocol(handler)
        handler.connection_made(self._transport)
        handler.data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone without a word."""
        del exc
        self._leave()

    def _leave(self) -> None:
        self._patience.cancel()
        self._porter.silent.discard(self._transport)


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
