"""What other programs answer: an engine's metrics, a database; and what a browser may ask of the page."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import cache

from aiohttp import web
from influxdb_client.rest import ApiException
from urllib3 import HTTPHeaderDict, HTTPResponse

from collectors.scrape import Endpoint
from collectors.vllm import VllmCollector
from polcad.ports import Point
from polcad.sinks.influxdb import InfluxDb, InfluxSink
from polcad.sinks.influxdb_wire import meaning
from polcad.web.board import Board
from polcad.web.server import Server
from polcad.wire import Address, decode, encode
from tests.fake_engine import Engine
from tests.row_feed import run
from tests.scrapes import telling_of

T0 = 1.8e9
_LOAD = Address("site", "", "load", pool="sm", instance="sm-0")
_PATIENCE_S = 5.0


# --- an engine ------------------------------------------------------------------------------------------------------


class _Told(Endpoint):
    """An endpoint that answers what it was given."""

    text = ""

    def _text(self) -> str:
        return self.text


def engine(data: bytes) -> None:
    """Answers of an engine, parted by zeros, one after the other: a load that the wire takes comes of each."""
    collector = VllmCollector({"pool": "sm", "instance": "sm-0", "url": "http://engine/metrics"})
    collector._endpoint = told = _Told("http://engine/metrics", 1.0)
    for step, text in enumerate(data.decode("utf-8", "replace").split("\0")[:4]):
        told.text = text
        load = collector.read(T0 + 10 * step)
        assert decode(encode(_LOAD, load)) == (_LOAD, load)


def engine_seeds() -> Iterator[bytes]:
    served = Engine()
    first = served.text()
    served.serve(700, 30)
    yield f"{first}\0{served.text()}".encode()
    yield b'vllm:num_requests_running{a="b"} 1e9 1.8e9\nvllm:prompt_tokens_total 5\0vllm:prompt_tokens_total 9\n'


# --- a database -----------------------------------------------------------------------------------------------------


_POINTS = [Point("polcad_node", (("row", "r"), ("node", "n1")), {"power_w": each}, T0) for each in (1.0, 2.0)]


class _Database:
    """Answers each write alike, then takes all."""

    def __init__(self, answer: HTTPResponse) -> None:
        self._answer: HTTPResponse | None = answer

    def write(self, _: bytes) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            raise meaning(ApiException(http_resp=answer))  # type: ignore[no-untyped-call]  # the client is untyped


def database(data: bytes) -> None:
    """A status, a word when to come again, and a body: a sink goes on after any of them."""
    status = 300 + int.from_bytes(data[:1], "big")
    after, _, body = data[1:].partition(b"\0")
    headers = HTTPHeaderDict({"Retry-After": after.decode("latin-1")})
    answer = HTTPResponse(body, headers, status, preload_content=True)
    sink = InfluxSink(InfluxDb(flush_s=300.0), _Database(answer))  # its own thread sleeps meanwhile
    sink.put(_POINTS)
    assert 0.0 <= sink._round() <= 300.0
    sink.close()
    counts = sink.counts()
    assert (counts.written + counts.refused, counts.waiting) == (len(_POINTS), 0)


def database_seeds() -> Iterator[bytes]:
    message = b'{"code":"unprocessable entity","message":"failure writing points: partial write: dropped=1"}'
    yield bytes([422 - 300]) + b"\0" + message
    yield bytes([413 - 300]) + b"\0too large"
    yield bytes([503 - 300]) + b"30\0"


# --- the page -------------------------------------------------------------------------------------------------------


class _Page:
    """The page's server on a port of its own, in a loop that turns only when asked."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.port = self.loop.run_until_complete(self._start())

    async def _start(self) -> int:
        board = Board("site")
        for second in run(3):
            board.put_status(second.status)
            board.put_nodes(second.t, second.nodes)
        runner = web.AppRunner(Server(board, watched=telling_of()).application(), access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port: int = runner.addresses[0][1]
        return port

    async def ask(self, data: bytes) -> bytes:
        """The beginning of what it answers."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            async with asyncio.timeout(_PATIENCE_S):
                writer.write(data)
                writer.write_eof()
                return await reader.read(4096)
        except ConnectionError:
            return b""
        finally:
            writer.close()


_page = cache(_Page)


def page(data: bytes) -> None:
    """A request, or what is none: never an error of the server's own."""
    page = _page()
    answer = page.loop.run_until_complete(page.ask(data))
    assert not answer.startswith((b"HTTP/1.1 500", b"HTTP/1.0 500")), answer


def page_seeds() -> Iterator[bytes]:
    for path in (b"/", b"/api/snapshot", b"/api/stream", b"/metrics", b"/healthz", b"/vendor/uPlot.min.css"):
        yield b"GET " + path + b" HTTP/1.1\r\nHost: 127.0.0.1\r\nLast-Event-ID: abc-5\r\nConnection: close\r\n\r\n"
