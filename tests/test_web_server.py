"""The page's server over a real port: what it tells, to whom, and what it costs the daemon."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout, web

from polcad.codec import convert
from polcad.errors import UnavailableError
from polcad.model import Event, EventKind
from polcad.web import listening
from polcad.web.board import Board
from polcad.web.server import Server, serve
from polcad.web.spec import WebSpec
from tests.row_feed import HOSTILE, START_T, run
from tests.scrapes import telling_of
from tests.waiting import eventually

FREE_PORT = WebSpec(port=0)


@asynccontextmanager
async def client_of(board: Board) -> AsyncIterator[ClientSession]:
    timeout = ClientTimeout(total=10.0)
    async with serve(board, FREE_PORT, telling_of()) as url, ClientSession(url, timeout=timeout) as client:
        yield client


def with_client(body: Callable[[Board, ClientSession], Awaitable[None]]) -> None:
    async def main() -> None:
        board = Board(site="here")
        async with client_of(board) as client:
            await body(board, client)

    asyncio.run(main())


def fill(board: Board, seconds: int) -> None:
    for second in run(seconds):
        board.put_status(second.status)
        board.put_nodes(second.t, second.nodes)
        for event in second.events:
            board.put_event(event)


def event(detail: str) -> Event:
    return Event(START_T, EventKind.TIGHTEN, "row", detail)


async def next_state(response: ClientResponse) -> tuple[str, dict[str, Any]]:
    """The id and the data of the next message of a stream; comments are passed over."""
    last_id = ""
    async for line in response.content:
        name, _, value = line.decode().rstrip("\n").partition(": ")
        if name == "id":
            last_id = value
        if name == "data":
            return last_id, json.loads(value)
    raise AssertionError("the stream ended")


def test_every_file_of_the_page_is_served_with_its_type_and_a_strict_policy() -> None:
    async def body(_: Board, client: ClientSession) -> None:
        page = await (await client.get("/")).text()
        files = [part.split('"')[0] for name in ("src=", "href=") for part in page.split(f'{name}"')[1:]]
        assert "/vendor/uPlot.iife.min.js" in files
        for path in ("/", *files, "/chart.js", "/nodes.js", "/tables.js", "/format.js"):
            response = await client.get(path)
            assert response.status == 200, path
            assert response.headers["Content-Security-Policy"].startswith("default-src 'self';")
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            assert response.content_type in {
                "text/html",
                "text/javascript",
                "text/css",
                "image/svg+xml",
                "application/json",
            }

    with_client(body)


def test_the_snapshot_holds_history_status_nodes_and_events() -> None:
    async def body(board: Board, client: ClientSession) -> None:
        fill(board, 60)
        state = await (await client.get("/api/snapshot")).json()
        assert state["site"] == "here"
        assert len(state["points"]) == 60
        assert state["status"]["row"] == "row-a"
        assert state["nodes"]["columns"]["name"][0] == "n01"
        assert HOSTILE in {item["event"]["detail"] for item in state["events"]}

    with_client(body)


def test_the_stream_tells_all_first_and_then_what_is_new() -> None:
    async def body(board: Board, client: ClientSession) -> None:
        fill(board, 30)
        async with client.get("/api/stream") as response:
            assert response.content_type == "text/event-stream"
            _, whole = await next_state(response)
            assert whole["whole"]
            assert len(whole["points"]) == 30
            board.put_event(event("new"))
            _, news = await next_state(response)
            assert [item["event"]["detail"] for item in news["events"]] == ["new"]
            assert news["points"] == []

    with_client(body)


def test_a_browser_that_comes_back_is_told_nothing_twice() -> None:
    async def body(board: Board, client: ClientSession) -> None:
        fill(board, 30)
        async with client.get("/api/stream") as response:
            last_id, _ = await next_state(response)
        board.put_event(event("missed"))
        async with client.get("/api/stream", headers={"Last-Event-ID": last_id}) as response:
            _, news = await next_state(response)
        assert [item["event"]["detail"] for item in news["events"]] == ["missed"]
        assert not news["whole"]

    with_client(body)


@pytest.mark.parametrize("stranger", ["otherrun-17", "garbage", "-", "x-" + "9" * 5000])
def test_a_browser_of_another_run_is_told_everything(stranger: str) -> None:
    async def body(board: Board, client: ClientSession) -> None:
        fill(board, 3)
        async with client.get("/api/stream", headers={"Last-Event-ID": stranger}) as response:
            _, state = await next_state(response)
        assert state["whole"]

    with_client(body)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8642", 200),
        ("localhost:9000", 200),
        ("[::1]:8642", 200),
        ("evil.example", 403),
        ("127.0.0.1.evil.example:8642", 403),
        ("[::1", 403),
    ],
)
def test_on_loopback_only_a_loopback_name_is_answered(host: str, status: int) -> None:
    async def body(_: Board, client: ClientSession) -> None:
        for path in ("/", "/api/snapshot", "/api/stream", "/healthz"):
            if (path, status) != ("/api/stream", 200):  # that one has no end
                assert (await client.get(path, headers={"Host": host})).status == status

    with_client(body)


def test_nothing_can_be_changed_or_fetched_beside_the_page() -> None:
    async def body(_: Board, client: ClientSession) -> None:
        assert (await client.post("/api/snapshot", data="{}")).status == 405
        assert (await client.delete("/")).status == 405
        assert (await client.get("/vendor/../server.py")).status == 404
        assert (await client.get("/static/index.html")).status == 404
        assert (await client.get("/healthz")).status == 200

    with_client(body)


@pytest.mark.integration  # fills a socket's buffers
def test_a_browser_that_reads_nothing_is_dropped() -> None:
    async def main() -> None:
        board = Board()
        server = Server(board, write_s=0.2)
        runner = web.AppRunner(server.application(), handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        deaf = socket.socket()
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(runner.addresses[0][:2])
        deaf.sendall(b"GET /api/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
        (second,) = run(1, nodes=5000, racks=100)
        heard = False
        async with asyncio.timeout(60.0):
            while not heard or server.streams:
                heard = heard or bool(server.streams)
                board.put_nodes(second.t, second.nodes)
                await asyncio.sleep(0.01)
        deaf.close()
        await runner.cleanup()

    asyncio.run(main())


def test_the_server_ends_without_waiting_for_browsers_that_look() -> None:
    async def main() -> None:
        board = Board()
        fill(board, 3)
        runner = web.AppRunner(Server(board).application(), shutdown_timeout=600.0)  # how long it would wait for them
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        async with ClientSession() as client, client.get(f"http://{host}:{port}/api/stream") as response:
            await next_state(response)
            async with asyncio.timeout(60.0):
                await runner.cleanup()

    asyncio.run(main())


def test_a_port_in_use_is_named_and_may_be_free_at_the_next_start() -> None:
    async def main() -> None:
        async with serve(Board(), FREE_PORT) as url:
            port = int(url.rstrip("/").rpartition(":")[2])
            with pytest.raises(UnavailableError, match=f"web.port={port}"):
                async with serve(Board(), WebSpec(port=port)):
                    pass

    asyncio.run(main())


def test_the_address_is_read_from_configuration() -> None:
    assert convert({}, WebSpec) == WebSpec("127.0.0.1", 8642)
    assert convert({"host": "::1", "port": 0}, WebSpec) == WebSpec("::1", 0)
    with pytest.raises(msgspec.ValidationError):
        convert({"port": 70000}, WebSpec)


async def crowd(url: str, size: int) -> tuple[list[asyncio.StreamWriter], list[asyncio.Task[bytes]]]:
    """So many connections that say nothing, and what each hears: done once the server has hung up."""
    port = int(url.rstrip("/").rpartition(":")[2])
    pairs = [await asyncio.open_connection("127.0.0.1", port) for _ in range(size)]
    return [writer for _, writer in pairs], [asyncio.ensure_future(reader.read()) for reader, _ in pairs]


async def leave(writers: list[asyncio.StreamWriter], heard: list[asyncio.Task[bytes]]) -> None:
    for writer in writers:
        writer.close()
    await asyncio.gather(*heard, return_exceptions=True)


async def answers(client: ClientSession) -> bool:
    try:
        async with client.get("/api/snapshot") as response:
            return response.status == 200
    except ClientError:
        return False


def test_no_more_connections_are_held_than_a_bound_and_the_page_is_back_when_they_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listening, "MAX_CONNECTIONS", 8)

    async def main() -> None:
        async with serve(Board("here"), FREE_PORT) as url, ClientSession(url) as client:
            writers, heard = await crowd(url, 24)
            await eventually(lambda: sum(task.done() for task in heard) == 16)
            assert not await answers(client)
            await leave(writers, heard)
            while not await answers(client):  # noqa: ASYNC110  # the server tells nobody that it has room again
                await asyncio.sleep(0.005)

    asyncio.run(main())


def test_a_connection_that_says_nothing_is_hung_up_on_and_one_that_looks_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listening, "FIRST_WORD_S", 0.05)

    async def main() -> None:
        board = Board("here")
        async with serve(board, FREE_PORT) as url, ClientSession(url) as client:
            async with client.get("/api/stream") as stream:
                writers, heard = await crowd(url, 3)
                await eventually(lambda: all(task.done() for task in heard))
                board.put_event(event("still told"))
                _, news = await next_state(stream)
                assert [item["event"]["detail"] for item in news["events"]] == ["still told"]
            await leave(writers, heard)

    asyncio.run(main())
