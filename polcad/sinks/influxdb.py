"""The InfluxDB sink: points go out in compressed batches from a thread of their own, so that no tick waits for them.

* `put` makes lines of the points and leaves them; each `flush_s` the thread makes batches of what is there, and sends.
* A batch that fails because the database is away, slow or busy, or knows not the token or the bucket, waits and is
  tried again, ever more seldom: all of that can be mended meanwhile. The token is read anew before each try.
* A batch that the database calls wrong (400, 413, 422) would fail for ever: what it refuses is dropped and counted.
* At most `queue_points` wait; the oldest make room. All that is lost is counted, and said in the log once a minute.
* A batch may arrive twice when an answer is lost. The same series, time and fields are the same point to InfluxDB.
"""

from __future__ import annotations

import gzip
import logging
import ssl
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Annotated, Protocol
from urllib.parse import urlsplit

from polcad.complaints import Complaints
from polcad.errors import ConfigError
from polcad.model import Range, Text
from polcad.ports import Point, Sink, SinkCounts
from polcad.secret_files import FilePath, read_secret
from polcad.sinks.line import line

_LOG = logging.getLogger(__name__)
_NAME = "influxdb"
_FIRST_RETRY_S = 1.0
_CLOSE_S = 3.0  # the longest that a clean stop waits for what is still to be written
_LEVEL = 1  # of gzip: four fifths of what level 9 saves, in a tenth of its time


@dataclass(frozen=True, slots=True)
class InfluxDb:
    """Where points are written: InfluxDB 2, or what takes its /api/v2/write. Without this table none are."""

    url: Annotated[str, Text(2048)] = "http://127.0.0.1:8086"
    org: Annotated[str, Text(128)] = "polcad"
    bucket: Annotated[str, Text(128)] = "polcad"
    token_file: FilePath = ""  # the file that holds the token, or credential:NAME; left out: no token is sent
    ca: FilePath = ""  # of an https URL: the CA that signed its certificate; left out: the system's
    flush_s: Annotated[float, Range(0.05, 300.0)] = 1.0  # between two writes
    batch_points: Annotated[int, Range(1, 100_000)] = 5000  # of one write
    queue_points: Annotated[int, Range(1, 50_000_000)] = 1_000_000  # that may wait; about 100 bytes each
    timeout_s: Annotated[float, Range(0.1, 300.0)] = 10.0  # for one write
    retry_max_s: Annotated[float, Range(0.1, 3600.0)] = 30.0  # the longest wait between two tries

    def __post_init__(self) -> None:
        """Check what the types do not."""
        try:
            parts = urlsplit(self.url)
            valid = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        except ValueError:
            valid = False
        if not valid or parts.username is not None or parts.query or parts.fragment:
            raise ConfigError(f"url={self.url!r}: write http://HOST:PORT or https://HOST:PORT, without user or token")

    def token(self) -> str | None:
        """The token in force; ConfigError, which never shows it, when its file cannot be read or holds no token."""
        if not self.token_file:
            return None
        key = f"{_NAME}.token_file"
        token = read_secret(self.token_file, key).decode("utf-8", "replace").strip()
        if not token.isascii() or not token.isprintable():  # no HTTP header could carry it
            raise ConfigError(f"{key}={self.token_file!r} is not one line of ASCII: it holds no token")
        return token

    def open(self) -> Sink:
        """The sink, writing; ConfigError when there is no token in its file, or the CA cannot be read."""
        from polcad.sinks.influxdb_wire import Wire  # noqa: PLC0415  # 14 MiB that only a daemon with a database pays

        self.token()
        self._check_ca()
        return InfluxSink(self, Wire(self))

    def _check_ca(self) -> None:
        try:
            ssl.create_default_context(cafile=self.ca or None)
        except OSError as error:  # an ssl.SSLError too
            raise ConfigError(f"{_NAME}.ca={self.ca!r} cannot be read: {error.strerror or error}") from None


class RefusedError(Exception):
    """The database calls points wrong: they would be refused again. `points` of them, or None: the batch."""

    def __init__(self, why: str, points: int | None = None, *, too_large: bool = False) -> None:
        super().__init__(why)
        self.points, self.too_large = points, too_large


class FailedError(Exception):
    """The write failed, and may succeed later; not before `after_s`, if the database said so."""

    def __init__(self, why: str, after_s: float = 0.0) -> None:
        super().__init__(why)
        self.after_s = after_s


class Writer(Protocol):
    """Writes a batch of lines, compressed by gzip: RefusedError, FailedError."""

    def write(self, body: bytes) -> None:
        """Write it; it takes no longer than a time-out."""
        ...


@dataclass(frozen=True, slots=True)
class _Batch:
    points: int
    body: bytes


class InfluxSink:
    """A `Sink` at work until it is closed."""

    def __init__(self, spec: InfluxDb, writer: Writer, rng: Random | None = None) -> None:
        self._spec, self._writer, self._rng = spec, writer, rng or Random()  # noqa: S311  # spreads retries
        self._lock = threading.Lock()  # held for moments, over what follows
        self._counts = SinkCounts()
        self._lines: deque[list[bytes]] = deque()  # one entry a put
        self._batches: deque[_Batch] = deque()
        self._closing = threading.Event()
        self._span_s = _FIRST_RETRY_S
        self._told = SinkCounts()  # what the log knows of
        self._complaints = Complaints(_LOG)
        self._thread = threading.Thread(target=self._serve, name=f"polcad-{_NAME}", daemon=True)
        self._thread.start()

    def put(self, points: Sequence[Point]) -> None:
        """Take points, as `Sink` tells."""
        if not points:
            return
        try:
            lines = [line(point).encode() for point in points]
        except Exception:  # noqa: BLE001  # whatever a stranger's point holds, the row goes on
            _LOG.exception("points that are not of the table are dropped")
            with self._lock:
                self._counts.refused += len(points)
            return
        with self._lock:
            self._lines.append(lines)
            self._counts.waiting += len(lines)
            self._make_room()

    def counts(self) -> SinkCounts:
        """What became of the points so far."""
        with self._lock:
            return replace(self._counts)

    def close(self) -> None:
        """Write what waits, as far as that goes within a few seconds, and end."""
        self._closing.set()
        self._thread.join(_CLOSE_S)
        if waiting := self.counts().waiting:
            _LOG.warning("%s: %d points were not written before the end", self._spec.url, waiting)

    def _make_room(self) -> None:
        """Drop the oldest while too many wait."""
        while self._counts.waiting > self._spec.queue_points and (self._batches or self._lines):
            lost = self._batches.popleft().points if self._batches else len(self._lines.popleft())
            self._counts.waiting -= lost
            self._counts.dropped += lost

    # --- in the thread ----------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        wait_s = self._spec.flush_s
        while not self._closing.wait(wait_s):
            wait_s = self._round()
        self._round()

    def _round(self) -> float:
        """Pack and send all there is; how long to wait until the next round (s)."""
        self._pack()
        wait_s = self._send()
        self._tell_losses()
        return wait_s

    def _pack(self) -> None:
        """Make batches of the lines."""
        for lines in self._taken():
            batch = _Batch(len(lines), _packed(lines))
            with self._lock:
                self._batches.append(batch)
                self._make_room()

    def _taken(self) -> Iterator[list[bytes]]:
        """The lines that wait, a batch at a time."""
        while True:
            lines: list[bytes] = []
            with self._lock:
                while self._lines and len(lines) < self._spec.batch_points:
                    lines += self._lines.popleft()
            if not lines:
                return
            yield lines

    def _send(self) -> float:
        """Send the oldest batch after the other; how long to wait before going on (s)."""
        while batch := self._oldest():
            try:
                self._writer.write(batch.body)
            except FailedError as error:
                self._give_back(batch)
                self._complain(f"{error}; {self.counts().waiting} points wait")
                return self._backoff_s(error.after_s)
            except RefusedError as error:
                if error.too_large and batch.points > 1:
                    self._give_back(*_halves(batch))
                    continue
                self._count(batch, refused=min(batch.points if error.points is None else error.points, batch.points))
                self._complain(f"it refuses points for good: {error}")
            else:
                self._count(batch)
        return self._spec.flush_s

    def _oldest(self) -> _Batch | None:
        with self._lock:
            return self._batches.popleft() if self._batches else None

    def _give_back(self, *batches: _Batch) -> None:
        """Put unsent batches back where they were, at the front."""
        with self._lock:
            self._batches.extendleft(reversed(batches))
            self._counts.retries += len(batches) == 1
            self._make_room()

    def _count(self, batch: _Batch, refused: int = 0) -> None:
        self._span_s = _FIRST_RETRY_S
        with self._lock:
            self._counts.waiting -= batch.points
            self._counts.refused += refused
            self._counts.written += batch.points - refused

    def _backoff_s(self, after_s: float) -> float:
        """A random part of a span that doubles; at least what the database asked for, within bounds."""
        most_s = self._spec.retry_max_s
        wait_s = self._span_s * self._rng.uniform(0.5, 1.0)
        self._span_s = min(2.0 * self._span_s, most_s)
        return min(max(wait_s, after_s), most_s)

    def _tell_losses(self) -> None:
        counts, told, self._told = self.counts(), self._told, self.counts()
        if counts.dropped > told.dropped:
            self._complain(f"{counts.dropped} points were dropped since the start: too many waited", "dropped")
        if counts.refused > told.refused:
            self._complain(f"{counts.refused} points were dropped since the start: it refuses them", "refused")

    def _complain(self, what: str, kind: str = "points") -> None:
        self._complaints.add(f"{self._spec.url}: {kind}", what, time.monotonic())


def _halves(batch: _Batch) -> tuple[_Batch, _Batch]:
    lines = gzip.decompress(batch.body).split(b"\n")
    middle = len(lines) // 2
    first, second = (_Batch(len(half), _packed(half)) for half in (lines[:middle], lines[middle:]))
    return first, second


def _packed(lines: Sequence[bytes]) -> bytes:
    return gzip.compress(b"\n".join(lines), _LEVEL)
