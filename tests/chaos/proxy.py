"""A link that can be cut: a TCP proxy before the broker, which stops either direction.

A network that drops packets is, to TCP, one that delivers them late: what is held here is delivered once it is mended,
unless the connection was given up meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Self

_CHUNK_BYTES = 65536


class Proxy:
    """One program's way to the broker on `upstream`, in a thread of its own; `port` is where the program connects."""

    def __init__(self, upstream: int) -> None:
        self._upstream = upstream
        self._loop = asyncio.new_event_loop()
        self._open = {"up": asyncio.Event(), "down": asyncio.Event()}
        self._links: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy")

    def __enter__(self) -> Self:
        self._thread.start()
        self.port = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(5.0)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(5.0)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5.0)
        self._loop.close()

    def cut(self, *ways: str) -> None:
        """Let nothing pass any more, "up" to the broker or "down" from it."""
        for way in ways:
            self._loop.call_soon_threadsafe(self._open[way].clear)

    def mend(self) -> None:
        """All passes again."""
        for gate in self._open.values():
            self._loop.call_soon_threadsafe(gate.set)

    async def _listen(self) -> int:
        for gate in self._open.values():
            gate.set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def _end(self) -> None:
        self._server.close()
        for task in self._links:
            task.cancel()
        if self._links:
            await asyncio.wait(self._links)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._links.add(task)
        with contextlib.suppress(OSError, asyncio.CancelledError):
            there, back = await asyncio.open_connection("127.0.0.1", self._upstream)
            pumps = {
                asyncio.create_task(self._pump(reader, back, "up")),
                asyncio.create_task(self._pump(there, writer, "down")),
            }
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.wait(pumps)
                back.close()
        writer.close()
        self._links.discard(task)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, way: str) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(_CHUNK_BYTES):
                await self._open[way].wait()
                sink.write(data)
                await sink.drain()
