"""A real headless Chromium, driven over its DevTools protocol: opens a page, asks it, keeps what it complained of."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
]
DEADLINE_S = 30.0


@dataclass(slots=True)
class Page:
    """One tab. `errors`: what its console and security policy complained of; `requests`: every URL it asked for."""

    socket: aiohttp.ClientWebSocketResponse
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    answers: dict[int, asyncio.Future[dict[str, Any]]] = field(default_factory=dict)
    last_id: int = 0

    async def send(self, method: str, **params: Any) -> dict[str, Any]:
        """The result of one DevTools command."""
        self.last_id += 1
        answer = self.answers[self.last_id] = asyncio.get_running_loop().create_future()
        await self.socket.send_json({"id": self.last_id, "method": method, "params": params})
        return await asyncio.wait_for(answer, DEADLINE_S)

    async def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        found = await self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    async def until(self, expression: str) -> Any:
        """Ask until the answer is true; the last answer."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                if value := await self.ask(expression):
                    return value
                await asyncio.sleep(0.05)

    async def look(self, width: int, height: int, scheme: str = "light") -> None:
        """Make the window so large and the system so coloured."""
        phone = width < 600
        await self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        await self.send("Emulation.setEmulatedMedia", features=features)

    async def shoot(self, *, whole: bool = False) -> bytes:
        """A picture (PNG) of the window, or of the whole page."""
        shot = await self.send("Page.captureScreenshot", captureBeyondViewport=whole)
        return base64.b64decode(shot["data"])

    async def listen(self) -> None:
        """Take what the browser says until it ends."""
        async for message in self.socket:
            said = json.loads(message.data)
            if "id" in said:
                self.answers.pop(said["id"]).set_result(said.get("result", {"exceptionDetails": said.get("error")}))
            else:
                self._note(said["method"], said["params"])

    def _note(self, method: str, params: dict[str, Any]) -> None:
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Log.entryAdded" and params["entry"]["level"] in {"error", "warning"}:
            self.errors.append(params["entry"]["text"])
        elif method == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(params["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and params["type"] in {"error", "warning", "assert"}:
            self.errors.append(json.dumps(params["args"]))


@asynccontextmanager
async def browse(profile: Path, url: str) -> AsyncIterator[Page]:
    """A page of a fresh browser, open at `url`; the browser ends with the context."""
    process = await asyncio.create_subprocess_exec(
        CHROMIUM,
        *FLAGS,
        f"--user-data-dir={profile}",
        "about:blank",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        port = await _port(profile / "DevToolsActivePort")
        async with aiohttp.ClientSession() as session:
            socket_url = await _tab(session, port)
            async with session.ws_connect(socket_url, max_msg_size=0) as socket:
                page = Page(socket)
                listening = asyncio.create_task(page.listen(), name="devtools")
                for domain in ("Page", "Runtime", "Log", "Network"):
                    await page.send(f"{domain}.enable")
                await page.send("Page.navigate", url=url)
                yield page
                await page.send("Browser.close")
                await asyncio.wait_for(listening, DEADLINE_S)
                await asyncio.wait_for(process.wait(), DEADLINE_S)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _port(path: Path) -> int:
    async with asyncio.timeout(DEADLINE_S):
        while True:
            port, end, _ = _text(path).partition("\n")
            if end:
                return int(port)
            await asyncio.sleep(0.05)


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


async def _tab(session: aiohttp.ClientSession, port: int) -> str:
    async with asyncio.timeout(DEADLINE_S):
        while True:
            async with session.get(f"http://127.0.0.1:{port}/json/list") as response:
                tabs = [tab for tab in await response.json() if tab["type"] == "page"]
            if tabs:
                return str(tabs[0]["webSocketDebuggerUrl"])
            await asyncio.sleep(0.05)
