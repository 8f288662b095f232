"""An engine's metrics endpoint: real counters, histograms and gauges under vLLM's names, on a port of 127.0.0.1."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

LABELS = ("model_name", "engine")
SECONDS = (0.001, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
TOKENS = (1, 10, 100, 200, 500, 1000, 2000, 5000)


class Engine:
    """What one engine process counts."""

    def __init__(self, *, old_names: bool = False, engine: str = "0", model: str = "llama") -> None:
        self.registry = CollectorRegistry()
        self._labels = (model, engine)
        tbt, kv = ("time_per_output_token", "gpu") if old_names else ("inter_token_latency", "kv")
        self.running, self.waiting = self._gauge("num_requests_running"), self._gauge("num_requests_waiting")
        self.kv_use = self._gauge(f"{kv}_cache_usage_perc")
        self.prompt_tokens, self.output_tokens = self._counter("prompt_tokens"), self._counter("generation_tokens")
        self._ended = Counter("vllm:request_success", "…", (*LABELS, "finished_reason"), registry=self.registry)
        self.ttft = self._histogram("time_to_first_token_seconds", SECONDS)
        self.tbt = self._histogram(f"{tbt}_seconds", SECONDS)
        self.prompt_length = self._histogram("request_prompt_tokens", TOKENS)
        self.output_length = self._histogram("request_generation_tokens", TOKENS)
        self._ended.labels(*self._labels, "stop")

    def serve(self, prompt: int, output: int, *, ttft_s: float = 0.2, tbt_s: float = 0.03, why: str = "stop") -> None:
        """One whole request."""
        self.prompt_tokens.inc(prompt)
        self.output_tokens.inc(output)
        self.ttft.observe(ttft_s)
        for _ in range(output - 1):
            self.tbt.observe(tbt_s)
        self.prompt_length.observe(prompt)
        self.output_length.observe(output)
        self._ended.labels(*self._labels, why).inc()

    def text(self) -> str:
        """What its endpoint tells."""
        return generate_latest(self.registry).decode()

    def _gauge(self, name: str) -> Gauge:
        return Gauge(f"vllm:{name}", "…", LABELS, registry=self.registry).labels(*self._labels)

    def _counter(self, name: str) -> Counter:
        return Counter(f"vllm:{name}", "…", LABELS, registry=self.registry).labels(*self._labels)

    def _histogram(self, name: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"vllm:{name}", "…", LABELS, registry=self.registry, buckets=buckets).labels(*self._labels)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that leaves in the middle is what some tests are about."""


class Endpoint:
    """Serves what `answer` returns, or fails with the given status."""

    def __init__(self, answer: Callable[[], str | bytes] = lambda: "") -> None:
        self.answer, self.status, self.headers = answer, 200, {"Content-Type": "text/plain"}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = outer.answer()
                self.send_response(outer.status)
                for name, value in outer.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body if isinstance(body, bytes) else body.encode())

            def do_POST(self) -> None:
                self.do_GET()

            def log_message(self, *_: object) -> None:
                pass

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), name="engine")

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self._server.server_port}/metrics"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Answer no more."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()


@contextmanager
def serving(engine: Engine, each_s: float = 0.5) -> Iterator[str]:
    """An engine under a steady load; its URL."""
    ended = threading.Event()

    def serve() -> None:
        while not ended.wait(each_s):
            engine.serve(700, 30)

    with Endpoint(engine.text) as endpoint:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield endpoint.url
        finally:
            ended.set()
            thread.join()
