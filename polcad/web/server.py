"""Serves a `Board` to browsers: a static page, `/api/snapshot` (JSON), `/api/stream` (Server-Sent Events).

Read-only. A message of the stream is what `Board.since` gives, named ``state``; its id is ``RUN-NUMBER``, so a browser
that reconnects says by itself where it was. The page asks this server alone: a strict content security policy holds it
to that, and on loopback a foreign Host header is refused (a web page whose name is made to point at 127.0.0.1). Beside
the page stands what a program shows machines (`polcad.web.vitals`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from polcad.web.board import Board
from polcad.web.listening import is_loopback, listening, strangers_refused
from polcad.web.spec import WebSpec
from polcad.web.vitals import Vitals, Watched

MAX_STREAMS = 32
BEAT_S = 10.0  # a word at least this often, so that proxies keep the line and a dead one is noticed
GAP_S = 0.1  # between two messages to one browser: ten pictures a second are enough
_TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
_FILES = {
    "/": "static/index.html",
    **{f"/{name}": f"static/{name}" for name in ("style.css", "favicon.svg")},
    **{f"/{name}.js": f"static/{name}.js" for name in ("app", "chart", "nodes", "tables", "format")},
    **{f"/vendor/{name}": f"vendor/{name}" for name in ("uPlot.iife.min.js", "uPlot.min.css")},
}
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


@dataclass(slots=True)
class Server:
    """The handlers of one page. A browser that takes nothing for `write_s` is dropped."""

    board: Board
    local: bool = True  # bound to loopback
    write_s: float = 10.0
    watched: Watched | None = None  # whose metrics and health are told beside the page
    streams: set[asyncio.Task[Any]] = field(default_factory=set)

    def application(self) -> web.Application:
        """The routes."""
        app = web.Application(middlewares=[strangers_refused()] if self.local else [])
        app.on_response_prepare.append(_secure)
        app.on_shutdown.append(self._end_streams)
        for path, file in _FILES.items():
            app.router.add_get(path, _file(file))
        app.router.add_get("/api/snapshot", self._snapshot)
        app.router.add_get("/api/stream", self._stream)
        app.router.add_routes(Vitals(self.watched).routes() if self.watched else ())
        return app

    async def _snapshot(self, _: web.Request) -> web.Response:
        return web.Response(body=msgspec.json.encode(self.board.since(0)), content_type="application/json")

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        task = asyncio.current_task()
        if task is None or len(self.streams) >= MAX_STREAMS:
            raise web.HTTPServiceUnavailable(text=f"{MAX_STREAMS} browsers are looking already.\n")
        self.streams.add(task)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        try:
            await response.prepare(request)
            await self._feed(response, self._known(request.headers.get("Last-Event-ID", "")))
        except (TimeoutError, ConnectionResetError):
            if request.transport is not None:
                request.transport.abort()  # what it did not take is thrown away
        finally:
            self.streams.discard(task)
        return response

    async def _feed(self, response: web.StreamResponse, n: int) -> None:
        """Tell one browser all that is news to it, until it goes or takes nothing any more."""
        await response.write(b"retry: 1000\n\n")
        while True:
            chunk = b": still here\n\n"
            try:
                async with asyncio.timeout(BEAT_S):
                    await self.board.newer(n)
            except TimeoutError:
                pass
            else:
                state, n = self.board.since(n), self.board.n
                chunk = b"id: %s-%d\nevent: state\ndata: %s\n\n" % (
                    self.board.run.encode(),
                    n,
                    msgspec.json.encode(state),
                )
            async with asyncio.timeout(self.write_s):
                await response.write(chunk)
            await asyncio.sleep(GAP_S)

    def _known(self, last_event_id: str) -> int:
        """How far a browser that comes back has read; 0 when it knows another run, or nothing."""
        run, _, number = last_event_id.partition("-")
        ours = run == self.board.run and number.isdecimal() and len(number) < len(str(2**63))
        return min(int(number), self.board.n) if ours else 0

    async def _end_streams(self, _: web.Application) -> None:
        for task in self.streams:
            task.cancel()


@asynccontextmanager
async def serve(board: Board, spec: WebSpec, watched: Watched | None = None) -> AsyncIterator[str]:
    """Serve the board while the context lasts; gives the page's URL. UnavailableError as `listening` does."""
    app = Server(board, local=is_loopback(spec.host), watched=watched).application()
    async with listening(app, spec, "web") as url:
        yield url


def _file(path: str) -> Handler:
    """A handler that gives one file of this package, read once."""
    body = resources.files("polcad.web").joinpath(path).read_bytes()
    content_type = _TYPES[path.rpartition(".")[2]]

    async def give(_: web.Request) -> web.Response:
        return web.Response(body=body, content_type=content_type, charset="utf-8")

    return give


async def _secure(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_HEADERS)
