"""A Prometheus endpoint read once: its samples, or why there are none.

Neither redirects nor proxies of the environment are followed: what is asked is what answers. An answer is bounded in
size and, after its headers, in time as a whole; until then each wait for the other side is.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from urllib.parse import urlsplit

from prometheus_client.parser import text_string_to_metric_families

from polcad.errors import ConfigError, UnavailableError

MAX_BYTES = 4 * 1024 * 1024  # vLLM tells about 100 KiB
_MAX_LINE_CHARS = 16 * 1024  # vLLM's take 300; the parser's time grows by the square of a line's labels
_PIECE_BYTES = 64 * 1024
_OK = 200

Labels = tuple[tuple[str, str], ...]  # sorted by name


@dataclass(frozen=True, slots=True)
class Sample:
    """One number of a scrape; it may be NaN or infinite."""

    labels: Labels
    value: float
    t: float | None = None  # Unix time, where the endpoint tells it

    def label(self, name: str) -> str:
        """The value of a label; "" where there is none."""
        return dict(self.labels).get(name, "")


Samples = Mapping[str, list[Sample]]  # by name


class Endpoint:
    """One URL that tells metrics as text. ConfigError when it is none."""

    def __init__(self, url: str, deadline_s: float) -> None:
        try:
            parts = urlsplit(url)
            self._host, self._port = parts.hostname or "", parts.port
        except ValueError as error:
            raise ConfigError(f"url={url!r}: {error}") from None
        if parts.scheme not in {"http", "https"} or not self._host or parts.username is not None:
            raise ConfigError(f"url={url!r}: write http://HOST:PORT/metrics, or https://, without a user")
        self._kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        self._path = f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}"
        self._deadline_s = deadline_s
        self.url = url

    def samples(self) -> Samples:
        """Every sample it tells now; UnavailableError says why there are none."""
        try:
            text = self._text()
        except (OSError, HTTPException, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise UnavailableError(f"{self.url}: {reason or type(error).__name__}") from error
        try:
            return _sorted(text)
        except Exception as error:  # whatever the parser makes of a stranger's text
            raise UnavailableError(f"{self.url}: what it tells are no metrics: {error}") from error

    def _text(self) -> str:
        connection = self._kind(self._host, self._port, timeout=self._deadline_s)
        try:
            connection.request("GET", self._path, headers={"Accept": "text/plain;version=0.0.4"})
            response = connection.getresponse()
            if response.status != _OK:
                raise HTTPException(f"it answers {response.status} {response.reason}")
            return b"".join(self._pieces(response)).decode()
        finally:
            connection.close()

    def _pieces(self, response: HTTPResponse) -> Iterator[bytes]:
        end_s, size = time.monotonic() + self._deadline_s, 0
        while piece := response.read1(_PIECE_BYTES):
            yield piece
            size += len(piece)
            if size > MAX_BYTES:
                raise HTTPException(f"more than {MAX_BYTES} bytes")
            if time.monotonic() > end_s:
                raise TimeoutError(f"not all of it came within {self._deadline_s:g} s")


def _sorted(text: str) -> Samples:
    if max(map(len, text.splitlines()), default=0) > _MAX_LINE_CHARS:
        raise ValueError(f"a line of more than {_MAX_LINE_CHARS} characters")
    found: dict[str, list[Sample]] = defaultdict(list)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            t = None if sample.timestamp is None else float(sample.timestamp)
            found[sample.name].append(Sample(tuple(sorted(sample.labels.items())), sample.value, t))
    return dict(found)
