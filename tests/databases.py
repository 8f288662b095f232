"""Real databases on free ports of 127.0.0.1, gone when the block ends: what Debian has for InfluxDB's client.

VictoriaMetrics takes /api/v2/write as it is. InfluxDB 1.6 knows /write alone, and calls microseconds ``u``: an nginx
before it maps the one to the other, refuses a precision that it does not know (InfluxDB would take it for nanoseconds
in silence), and asks for a token if one is given.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self
from urllib.error import URLError
from urllib.parse import urlencode

from polcad.testing_brokers import free_port
from tests.waiting import until

_PATH = "/usr/bin:/usr/sbin:/usr/local/bin:/bin:/sbin"
BUCKET = "polcad"


def get(url: str, **query: str) -> bytes:
    """What a URL of ours answers; OSError."""
    with urllib.request.urlopen(f"{url}?{urlencode(query)}", timeout=30.0) as response:  # noqa: S310  # ours
        body: bytes = response.read()
    return body


def _answers(url: str) -> bool:
    try:
        get(url)
    except URLError:
        return False
    return True


@contextmanager
def running(program: str, *arguments: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A program of Debian's; RuntimeError when it is not installed."""
    path = shutil.which(program, path=_PATH)
    if path is None:
        raise RuntimeError(f"{program} is not installed: make packages")
    with log.open("ab") as out:
        process = subprocess.Popen([path, *arguments], stdout=out, stderr=out)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20.0)


class VictoriaMetrics:
    """A VictoriaMetrics over `folder`; `url` is what a sink or a Grafana is told. A new one finds the old data."""

    def __init__(self, folder: Path, port: int | None = None) -> None:
        self.port = free_port() if port is None else port
        self.url = f"http://127.0.0.1:{self.port}"
        self._folder = folder
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        options = (
            f"-storageDataPath={self._folder / 'victoria'}",
            f"-httpListenAddr=127.0.0.1:{self.port}",
            "-retentionPeriod=100y",
            "-search.latencyOffset=0s",
            "-search.maxUniqueTimeseries=1000000",
            "-memory.allowedBytes=256MB",
        )
        log = self._folder / "victoria.log"
        self._stack.enter_context(running("victoria-metrics", *options, log=log))
        until(lambda: _answers(f"{self.url}/health"), within_s=30.0)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def flush(self) -> None:
        """Make all that was written visible."""
        get(f"{self.url}/internal/force_flush")

    def series(self, match: str) -> list[dict[str, Any]]:
        """Every raw sample of the series found: ``{"metric": {...}, "values": [...], "timestamps": [ms, ...]}``."""
        return [json.loads(each) for each in get(f"{self.url}/api/v1/export", **{"match[]": match}).splitlines()]

    def ask(self, query: str, t: float) -> list[dict[str, Any]]:
        """What PromQL finds at `t`: ``{"metric": {...}, "value": [t, text]}`` a series."""
        answer = json.loads(get(f"{self.url}/api/v1/query", query=query, time=str(t)))
        assert answer["status"] == "success", answer
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found


class Influx:
    """InfluxDB 1.6 over `folder`, with a database named BUCKET; `url` is its own, `write_url` that of the nginx before.

    `token`: what writers must have; "" asks for none.
    """

    def __init__(self, folder: Path, token: str = "", database: str = BUCKET) -> None:
        self._folder, self._token, self._database = folder, token, database
        self._port, self._write_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self.write_url = f"http://127.0.0.1:{self._write_port}"
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        folder = self._folder
        (folder / "influxd.toml").write_text(_INFLUXD.format(folder=folder, port=self._port, rpc=free_port()))
        guard = f'if ($http_authorization != "Token {self._token}") {{ return 401; }}' if self._token else ""
        nginx = _NGINX.format(folder=folder, port=self._port, write_port=self._write_port, guard=guard)
        (folder / "nginx.conf").write_text(nginx)
        self.start()
        self._stack.enter_context(running("nginx", "-c", str(folder / "nginx.conf"), log=folder / "nginx.log"))
        until(lambda: _answers(f"{self.write_url}/ping"), within_s=30.0)
        self.ask(f'CREATE DATABASE "{self._database}"')
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start(self) -> None:
        """Start the engine, or start it again over its old data; returns when it answers."""
        options = ("-config", str(self._folder / "influxd.toml"))
        self.engine = self._stack.enter_context(running("influxd", *options, log=self._folder / "influxd.log"))
        until(lambda: _answers(f"{self.url}/ping"), within_s=30.0)

    def ask(self, query: str) -> list[dict[str, Any]]:
        """What InfluxQL finds: a row a dict, with its tags; times are in microseconds."""
        body = urlencode({"q": query, "db": self._database, "epoch": "u"}).encode()
        request = urllib.request.Request(f"{self.url}/query", data=body)  # noqa: S310  # ours
        with urllib.request.urlopen(request, timeout=60.0) as response:  # noqa: S310  # ours
            results = json.load(response)["results"]
        assert not any("error" in each for each in results), results
        return [row for each in results for series in each.get("series", ()) for row in _rows(series)]


def _rows(series: dict[str, Any]) -> Iterator[dict[str, Any]]:
    columns: Sequence[str] = series["columns"]
    for values in series.get("values", ()):
        yield {**series.get("tags", {}), **dict(zip(columns, values, strict=True))}


_INFLUXD = """\
reporting-disabled = true
bind-address = "127.0.0.1:{rpc}"
[meta]
dir = "{folder}/influx/meta"
[data]
dir = "{folder}/influx/data"
wal-dir = "{folder}/influx/wal"
[http]
bind-address = "127.0.0.1:{port}"
log-enabled = false
[monitor]
store-enabled = false
"""
_NGINX = """\
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_max_body_size 64m;
    client_body_buffer_size 64m; # a worker that is not root could write no file beside ours
    client_body_temp_path {folder}/nginx-body;
    proxy_temp_path {folder}/nginx-proxy;
    fastcgi_temp_path {folder}/nginx-fastcgi;
    uwsgi_temp_path {folder}/nginx-uwsgi;
    scgi_temp_path {folder}/nginx-scgi;
    map $arg_precision $unit {{ ns n; us u; ms ms; s s; }}
    server {{
        listen 127.0.0.1:{write_port};
        location = /ping {{ proxy_pass http://127.0.0.1:{port}; }}
        location = /api/v2/write {{
            {guard}
            if ($unit = "") {{ return 400; }}
            rewrite ^ /write?db=$arg_bucket&precision=$unit? break;
            proxy_pass http://127.0.0.1:{port};
        }}
    }}
}}
"""
