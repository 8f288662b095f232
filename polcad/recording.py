"""Recordings: what the wire carried, with its time of arrival, in a file that survives whoever writes it.

Each frame (`polcad.frames`) is on the disk (fsync) before the next is begun: a killed writer loses at most the
`frame_s` seconds that it had not flushed, and its file ends in a torn frame at worst. A reader gives back every whole
frame, counts what it could not read, and never holds more than one frame. The same messages and metadata make the same
bytes.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterable, Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from polcad.errors import RecordingError, WireError
from polcad.frames import FRAME_OVERHEAD_BYTES, Block, Heading, Lengths, find_frame, read_heading, read_lengths, unpack
from polcad.wire import MAX_PAYLOAD_BYTES, Message

_FRAME_BYTES = 1024 * 1024  # unpacked; one message more stays far below what a reader takes
_MAX_TOPIC_CHARS = 512
_MAX_T = 1e11  # of `model.Seconds`


@dataclass(frozen=True, slots=True)
class Loss:
    """What a reader could not give back."""

    frames: int = 0  # damaged, in the middle of the file
    torn: int = 0  # begun and not finished at the end: 1 after a killed writer
    lost_bytes: int = 0  # of both, as stored
    metadata: bool = False  # the file's own heading is damaged

    def __str__(self) -> str:
        """One line for an operator; "" when nothing was lost."""
        parts = [f"{self.frames} damaged frame(s)"] if self.frames else []
        parts += ["a torn end (its writer was stopped)"] if self.torn else []
        parts += ["its metadata"] if self.metadata else []
        return f"lost {', '.join(parts)}: {self.lost_bytes} bytes" if parts else ""


class RecordingWriter:
    """Writes a recording; a context manager. A frame goes out every `frame_s` seconds of recorded time, or 1 MiB.

    An existing file is refused, unless `append` is set: then it is continued behind its last whole frame, and what is
    torn after that is cut off. Raises RecordingError where the file cannot be written; what was flushed stays readable.
    """

    def __init__(
        self, path: Path, metadata: Mapping[str, str] | None = None, *, frame_s: float = 5.0, append: bool = False
    ) -> None:
        self.messages = 0
        self._path, self._frame_s = path, frame_s
        self._block = Block()
        self._file = _open_to_write(path, Heading(metadata or {}).encode(), append=append)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def add(self, t: float, message: Message) -> None:
        """Record a message that arrived at Unix time `t`; WireError when it is too big or its time is no time."""
        if len(message.payload) > MAX_PAYLOAD_BYTES or len(message.topic) > _MAX_TOPIC_CHARS:
            raise WireError(f"{message.topic[:100]}: {len(message.payload)} bytes are too many to record")
        if not 0.0 <= t <= _MAX_T:
            raise WireError(f"{message.topic}: arrival time {t} is out of range")
        first_t = self._block.first_t
        if first_t is not None and (self._block.raw_bytes >= _FRAME_BYTES or not 0 <= t - first_t < self._frame_s):
            self.flush()
        self._block.add(t, message)
        self.messages += 1

    def flush(self) -> None:
        """Bring everything added so far to the disk."""
        if self._block.first_t is None:
            return
        block, self._block = self._block, Block()
        try:
            _write_all(self._file, block.frame())
        except OSError as error:
            raise RecordingError(f"{self._path}: {error.strerror}; what was flushed before is readable") from error

    def close(self) -> None:
        """Flush and close; again is harmless."""
        if self._file.closed:
            return
        try:
            self.flush()
        finally:
            self._file.close()


class Recording:
    """A recording to read. Each iteration begins at its start; `loss` tells what the latest one lost so far."""

    def __init__(self, path: Path, on_bytes: Callable[[int], None] | None = None) -> None:
        self.path = path
        self.loss = Loss()
        self._on_bytes = on_bytes
        with _open_to_read(path) as file:
            self.metadata = read_heading(path, file).metadata

    def __iter__(self) -> Iterator[tuple[float, Message]]:
        with _open_to_read(self.path) as file:
            self.loss = Loss(metadata=not read_heading(self.path, file).intact)
            for lengths in self._frames(file):
                block = file.read(lengths.stored_bytes)
                if self._on_bytes:
                    self._on_bytes(FRAME_OVERHEAD_BYTES + len(block))
                messages = unpack(block, lengths)
                if messages is None:
                    self._lose(FRAME_OVERHEAD_BYTES + len(block), torn=len(block) < lengths.stored_bytes)
                else:
                    yield from messages

    def end_of_frames(self) -> int:
        """The place behind the last frame that is there in full, in bytes; no block is read."""
        size = self.path.stat().st_size
        with _open_to_read(self.path) as file:
            if not read_heading(self.path, file).intact:
                raise RecordingError(f"{self.path}: its heading is damaged: it can be read, not continued")
            end = file.tell()
            for lengths in self._frames(file):
                if file.seek(lengths.stored_bytes, os.SEEK_CUR) <= size:
                    end = file.tell()
        return end

    def _frames(self, file: BinaryIO) -> Iterator[Lengths]:
        """Every frame whose lengths hold; `file` then stands at its block, and must be moved behind it."""
        while data := file.read(FRAME_OVERHEAD_BYTES):
            if lengths := read_lengths(data):
                yield lengths
                continue
            start = file.tell() - len(data)
            found = find_frame(file, start + 1)
            self._lose(file.tell() - start, torn=found is None)

    def _lose(self, lost_bytes: int, *, torn: bool) -> None:
        loss = self.loss
        self.loss = replace(
            loss, frames=loss.frames + (not torn), torn=loss.torn + torn, lost_bytes=loss.lost_bytes + lost_bytes
        )


def read(path: Path, on_bytes: Callable[[int], None] | None = None) -> Recording:
    """The recording at `path`, to iterate over as (arrival t, message); `on_bytes` is told each frame's size.

    Raises RecordingError for a file that is no recording, at once. Damage further on is stepped over and counted in
    `Recording.loss`.
    """
    return Recording(path, on_bytes)


async def record(messages: AsyncIterable[tuple[float, Message]], writer: RecordingWriter) -> int:
    """Write messages as they come, until they end or the task is cancelled; how many were refused (`add`)."""
    refused = 0
    async for t, message in messages:
        try:
            writer.add(t, message)
        except WireError:
            refused += 1
    return refused


def _open_to_read(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise RecordingError(f"{path}: cannot be read: {error.strerror}") from error


def _open_to_write(path: Path, heading: bytes, *, append: bool) -> FileIO:
    try:
        if append and path.exists() and path.stat().st_size:
            end = Recording(path).end_of_frames()
            file = FileIO(path, "r+")
            file.truncate(end)
            file.seek(end)
        else:
            file = FileIO(path, "a" if append else "x")
            _write_all(file, heading)
    except FileExistsError:
        raise RecordingError(f"{path}: exists already and is not overwritten: name another file") from None
    except OSError as error:
        raise RecordingError(f"{path}: cannot be written: {error.strerror}") from error
    return file


def _write_all(file: FileIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]
    os.fsync(file.fileno())
