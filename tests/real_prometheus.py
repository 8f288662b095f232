"""A real Prometheus on a free port of 127.0.0.1, gone when the block ends."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode

from polcad.testing_brokers import free_port

_PATH = "/usr/bin:/usr/local/bin:/bin"


class Prometheus:
    """Runs with the given configuration file and asks its HTTP API."""

    def __init__(self, config: Path) -> None:
        self._config = config
        self._url = f"http://127.0.0.1:{free_port()}"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        program = shutil.which("prometheus", path=_PATH)
        if program is None:
            raise RuntimeError("prometheus is not installed: apt-get install prometheus")
        command = [program, f"--config.file={self._config}", f"--storage.tsdb.path={self._config.parent / 'tsdb'}"]
        command += [f"--web.listen-address={self._url.removeprefix('http://')}", "--log.level=error"]
        self._process = subprocess.Popen(command)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(timeout=20.0)

    def ask(self, query: str) -> dict[str, float] | None:
        """The value of each series found, by its pool ("" without one); None while it does not answer."""
        try:
            data = self.get("query", query=query)
        except OSError:
            return None
        return {each["metric"].get("pool", ""): float(each["value"][1]) for each in data["result"]}

    def get(self, path: str, **parameters: object) -> Any:
        """The data that an address of its API answers; OSError, and HTTPError with what was wrong in the query."""
        url = f"{self._url}/api/v1/{path}?{urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=10.0) as response:  # noqa: S310  # ours
            answer: Any = json.load(response)
        assert answer["status"] == "success", answer
        return answer["data"]
