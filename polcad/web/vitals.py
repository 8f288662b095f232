"""What a program shows machines: ``/metrics``, ``/healthz`` and ``/readyz``.

``/healthz`` answers 503 when the program's own loop does not turn: somebody should start it anew. ``/readyz`` answers
503, with a line for each reason, when it turns and cannot do its work.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

from aiohttp import web

from polcad.web.book import CONTENT_TYPE, Book
from polcad.web.listening import Place, is_loopback, listening, strangers_refused

_UNAVAILABLE = 503


class Scene(Protocol):
    """All that one scrape tells, taken at one moment."""

    def laid_out(self) -> Book:
        """The metrics; in any thread."""
        ...


class Watched(Protocol):
    """A program that can be asked how it is; from the event loop's thread."""

    def scene(self) -> Scene:
        """What a scrape tells now; at once."""
        ...

    def stalled(self) -> str:
        """Why its loop counts as standing still; "" while it turns."""
        ...

    def unready(self) -> Sequence[str]:
        """Why it cannot do its work; empty while it can."""
        ...


class Vitals:
    """The handlers of one program."""

    def __init__(self, watched: Watched) -> None:
        self._watched = watched
        self._one_at_a_time = asyncio.Lock()  # many scrapers must not take all of a core

    def routes(self) -> list[web.RouteDef]:
        """To be added to an application."""
        return [
            web.get("/metrics", self._metrics),
            web.get("/healthz", self._healthz),
            web.get("/readyz", self._readyz),
        ]

    async def _metrics(self, _: web.Request) -> web.Response:
        async with self._one_at_a_time:
            scene = self._watched.scene()
            body = await asyncio.to_thread(lambda: scene.laid_out().text().encode())
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})

    async def _healthz(self, _: web.Request) -> web.Response:
        return _answer([why] if (why := self._watched.stalled()) else [])

    async def _readyz(self, _: web.Request) -> web.Response:
        return _answer(self._watched.unready())


@asynccontextmanager
async def exposed(watched: Watched, place: Place, section: str) -> AsyncIterator[str]:
    """Serve a program's vitals alone while the context lasts; gives the URL. UnavailableError as `listening` does."""
    app = web.Application(middlewares=[strangers_refused()] if is_loopback(place.host) else [])
    app.add_routes(Vitals(watched).routes())
    async with listening(app, place, section) as url:
        yield url


def _answer(reasons: Sequence[str]) -> web.Response:
    return web.Response(
        text="".join(f"{each}\n" for each in reasons) or "ok\n", status=_UNAVAILABLE if reasons else 200
    )
