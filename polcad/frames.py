"""The bytes of a recording: one heading, then frames that each stand alone.

Little-endian::

    file    = heading, frame*
    heading = MAGIC, u16 version, u32 size, u32 crc(version, size, metadata), metadata (JSON object of strings)
    frame   = MARKER, u32 stored, u32 raw, u32 crc(block), u32 crc(stored, raw, crc(block)), block (zstd)
    block   = u32 head size, head (JSON columns of `Head`, one entry a message), payloads one after another

The lengths have a CRC of their own: a damaged block is stepped over by its length, damaged lengths by a search for the
next marker. Whatever a file claims, at most MAX_RAW_BYTES of it are unpacked at once. Nothing here opens a file.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, BinaryIO, NamedTuple
from zlib import crc32

import msgspec

from polcad.errors import RecordingError
from polcad.wire import Message

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MAGIC = b"\x89POLREC\n"
VERSION = 1
MAX_RAW_BYTES = 4 * 1024 * 1024  # of a block, unpacked: what a reader is ready to hold
_MAX_STORED_BYTES = MAX_RAW_BYTES + 64 * 1024  # zstd adds little to what it cannot pack
_MAX_METADATA_BYTES = 64 * 1024
_MARKER = b"\xf5PF\n"
_START = struct.Struct("<HII")
_LENGTHS = struct.Struct("<4sIIII")
_SIZE = struct.Struct("<I")
_LEVEL = 6  # 8 % smaller than level 3 on telemetry, and 1 ms a second of 40 nodes
_WINDOW = {int(zstd.DecompressionParameter.window_log_max): MAX_RAW_BYTES.bit_length()}
_SEARCH_BYTES = 64 * 1024
FRAME_OVERHEAD_BYTES = _LENGTHS.size

_MESSAGE_BYTES = 48  # that a message takes at least, as a `Block` counts it
_Column = msgspec.Meta(max_length=MAX_RAW_BYTES // _MESSAGE_BYTES)  # a block of nothing but entries is a bomb
_Times = Annotated[list[Annotated[float, msgspec.Meta(ge=0.0, le=1e11)]], _Column]
_Counts = Annotated[list[Annotated[int, msgspec.Meta(ge=0, le=MAX_RAW_BYTES)]], _Column]
_Flags = Annotated[list[Annotated[int, msgspec.Meta(ge=0, le=6)]], _Column]


class Head(msgspec.Struct):
    """The columns of a block: `topic` is an index into `topics`, `flags` is qos + 4 * retain, `size` in bytes."""

    topics: Annotated[list[str], _Column]
    t: _Times
    topic: _Counts
    flags: _Flags
    size: _Counts


class Lengths(NamedTuple):
    """What stands before a block."""

    stored_bytes: int
    raw_bytes: int
    crc: int


@dataclass(frozen=True, slots=True)
class Heading:
    """What stands at the start of a file; `intact` is False when its metadata could not be believed."""

    metadata: Mapping[str, str]
    intact: bool = True

    def encode(self) -> bytes:
        """The bytes; RecordingError when the metadata is too big."""
        text = msgspec.json.encode(dict(sorted(self.metadata.items())))
        if len(text) > _MAX_METADATA_BYTES:
            raise RecordingError(f"metadata of {len(text)} bytes is more than {_MAX_METADATA_BYTES}")
        return MAGIC + _START.pack(VERSION, len(text), _heading_crc(VERSION, text)) + text


_decode_head = msgspec.json.Decoder(Head).decode
_decode_metadata = msgspec.json.Decoder(dict[str, str]).decode


class Block:
    """Messages that wait for their frame."""

    def __init__(self) -> None:
        self._head = Head([], [], [], [], [])
        self._payloads: list[bytes] = []
        self._index: dict[str, int] = {}
        self.raw_bytes = 0  # about

    @property
    def first_t(self) -> float | None:
        """When its first message arrived; None while it is empty."""
        return self._head.t[0] if self._head.t else None

    def add(self, t: float, message: Message) -> None:
        """Take one message in."""
        index = self._index.get(message.topic)
        if index is None:
            index = self._index[message.topic] = len(self._index)
            self._head.topics.append(message.topic)
            self.raw_bytes += 6 * len(message.topic)  # at most, in JSON
        self._head.t.append(t)
        self._head.topic.append(index)
        self._head.flags.append(message.qos + 4 * message.retain)
        self._head.size.append(len(message.payload))
        self._payloads.append(message.payload)
        self.raw_bytes += len(message.payload) + _MESSAGE_BYTES  # at most, with its entries in the head

    def frame(self) -> bytes:
        """The frame that holds all of them."""
        head = msgspec.json.encode(self._head)
        raw = b"".join([_SIZE.pack(len(head)), head, *self._payloads])
        block = zstd.compress(raw, _LEVEL)
        crc = crc32(block)
        return _LENGTHS.pack(_MARKER, len(block), len(raw), crc, _lengths_crc(len(block), len(raw), crc)) + block


def unpack(block: bytes, lengths: Lengths) -> list[tuple[float, Message]] | None:
    """The messages of a block, with their arrival times; None when it is not what its frame says."""
    if crc32(block) != lengths.crc:
        return None
    try:
        raw = zstd.ZstdDecompressor(options=_WINDOW).decompress(block, max_length=lengths.raw_bytes + 1)
        head_bytes = _SIZE.unpack_from(raw)[0] + _SIZE.size
        head = _decode_head(raw[_SIZE.size : head_bytes])
    except (zstd.ZstdError, struct.error, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    same_length = len({len(head.t), len(head.topic), len(head.flags), len(head.size)}) == 1
    if not same_length or not len(raw) == lengths.raw_bytes == head_bytes + sum(head.size):
        return None
    if max(head.topic, default=-1) >= len(head.topics):
        return None
    return _messages(raw, head_bytes, head)


def _messages(raw: bytes, offset: int, head: Head) -> list[tuple[float, Message]]:
    messages, topics = [], head.topics
    for t, topic, flags, size in zip(head.t, head.topic, head.flags, head.size, strict=True):
        messages.append((t, Message(topics[topic], raw[offset : offset + size], flags & 3, bool(flags & 4))))
        offset += size
    return messages


def read_lengths(data: bytes) -> Lengths | None:
    """What stands before a block, if `data` is the start of a frame."""
    if len(data) < _LENGTHS.size:
        return None
    marker, stored, raw, crc, check = _LENGTHS.unpack(data)
    if (
        marker != _MARKER
        or check != _lengths_crc(stored, raw, crc)
        or stored > _MAX_STORED_BYTES
        or raw > MAX_RAW_BYTES
    ):
        return None
    return Lengths(stored, raw, crc)


def find_frame(file: BinaryIO, offset: int) -> int | None:
    """The place of the next frame at or after `offset`, where `file` then stands; at the end of the file, None."""
    file.seek(offset)
    data = b""
    while more := file.read(_SEARCH_BYTES):
        data += more
        at = data.find(_MARKER)
        while at >= 0:
            if read_lengths(data[at : at + _LENGTHS.size]):
                return file.seek(offset + at)
            at = data.find(_MARKER, at + 1)
        keep = min(len(data), _LENGTHS.size - 1)
        offset += len(data) - keep
        data = data[len(data) - keep :]
    return None


def read_heading(path: object, file: BinaryIO) -> Heading:
    """The heading; `file` then stands at the first frame. RecordingError when this is no recording, or a newer one."""
    if (magic := file.read(len(MAGIC))) != MAGIC:
        raise RecordingError(
            f"{path}: byte 0: {magic!r} is not how a recording begins; "
            "`polcad record` makes recordings, `polcad import` makes them of other logs"
        )
    version, size, crc = _START.unpack(file.read(_START.size).ljust(_START.size, b"\0"))
    text = file.read(min(size, _MAX_METADATA_BYTES))
    metadata = _metadata(text) if crc == _heading_crc(version, text) else None
    if metadata is None:
        find_frame(file, len(MAGIC))
        return Heading({}, intact=False)
    if version != VERSION:
        raise RecordingError(
            f"{path}: byte {len(MAGIC)}: a recording of version {version}, not {VERSION}; read it with a newer polcad"
        )
    return Heading(metadata)


def _metadata(text: bytes) -> Mapping[str, str] | None:
    try:
        return _decode_metadata(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _heading_crc(version: int, text: bytes) -> int:
    return crc32(struct.pack("<HI", version, len(text)) + text)


def _lengths_crc(stored: int, raw: int, crc: int) -> int:
    return crc32(struct.pack("<III", stored, raw, crc))
