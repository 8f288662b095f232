"""Recordings: every whole frame is given back, whatever happened to the file, and nothing else ever is."""

import asyncio
import os
import subprocess
import sys
import tempfile
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polcad.errors import RecordingError, WireError
from polcad.frames import MAGIC, MAX_RAW_BYTES, Block, Heading, Lengths, unpack
from polcad.recording import Loss, RecordingWriter, read, record
from polcad.wire import MAX_PAYLOAD_BYTES, Message

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

Entry = tuple[float, Message]

messages = st.builds(
    Message,
    st.text(max_size=20),
    st.binary(max_size=50),
    st.integers(min_value=0, max_value=2),
    st.booleans(),
    st.none(),  # a recording keeps what was, not how long it was wanted
)
entries = st.lists(st.tuples(st.floats(min_value=0, max_value=1e11), messages), max_size=12)


def entry(number: int) -> Entry:
    return 1000.0 + number, Message(f"polcad/v1/s/r/k/n{number % 3}/telemetry", b'{"seq":%d}' % number, number % 2)


def write(path: Path, wanted: list[Entry], frame_s: float = 5.0, **metadata: str) -> bytes:
    with RecordingWriter(path, metadata, frame_s=frame_s) as writer:
        for t, message in wanted:
            writer.add(t, message)
    return path.read_bytes()


@pytest.fixture(scope="module")
def five_frames(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, list[list[Entry]]]:
    """A recording of five frames of four messages, and those frames' messages."""
    wanted = [entry(number) for number in range(20)]
    data = write(tmp_path_factory.mktemp("five") / "a.rec", wanted, frame_s=4.0, site="s")
    return data, [wanted[start : start + 4] for start in range(0, 20, 4)]


@given(entries, st.floats(min_value=0.1, max_value=1e12))
@settings(max_examples=25, deadline=None)
def test_what_was_added_is_read_back_in_order(wanted: list[Entry], frame_s: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.rec"
        write(path, wanted, frame_s, node="n1")
        recording = read(path)
        assert list(recording) == wanted
        assert recording.metadata == {"node": "n1"}
        assert recording.loss == Loss()
        assert str(recording.loss) == ""


def test_the_same_messages_make_the_same_bytes(tmp_path: Path) -> None:
    wanted = [entry(number) for number in range(50)]
    assert write(tmp_path / "a.rec", wanted, b="2", a="1") == write(tmp_path / "b.rec", wanted, a="1", b="2")


@pytest.mark.integration  # some 700 files
def test_any_prefix_is_read_up_to_its_last_whole_frame(
    five_frames: tuple[bytes, list[list[Entry]]], tmp_path: Path
) -> None:
    data, frames = five_frames
    path = tmp_path / "prefix.rec"
    ends = _ends_of_frames(data)
    for length in range(len(MAGIC), len(data) + 1):
        path.write_bytes(data[:length])
        recording = read(path)
        whole = sum(end <= length for end in ends)
        assert list(recording) == [one for frame in frames[:whole] for one in frame]
        at_a_boundary = length in {len(Heading({"site": "s"}).encode()), *ends}
        assert (recording.loss.torn == 0) == (at_a_boundary or recording.loss.metadata)


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_a_flipped_byte_never_gives_a_wrong_message(
    five_frames: tuple[bytes, list[list[Entry]]], data: st.DataObject
) -> None:
    whole, frames = five_frames
    at = data.draw(st.integers(0, len(whole) - 1))
    flipped = bytearray(whole)
    flipped[at] ^= data.draw(st.integers(1, 255))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "flipped.rec"
        path.write_bytes(flipped)
        if at < len(MAGIC):
            with pytest.raises(RecordingError, match="not how a recording begins"):
                read(path)
            return
        recording = read(path)
        got = list(recording)
    in_heading = at < len(Heading({"site": "s"}).encode())
    lost = [] if in_heading else [sum(end <= at for end in _ends_of_frames(whole))]
    assert got == [one for index, frame in enumerate(frames) if index not in lost for one in frame]
    assert recording.loss.metadata == in_heading
    assert recording.loss.frames + recording.loss.torn == len(lost)


@given(st.binary(max_size=300))
@settings(max_examples=50, deadline=None)
def test_noise_behind_the_heading_is_counted_and_never_believed(noise: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "noise.rec"
        path.write_bytes(Heading({}).encode() + noise)
        recording = read(path)
        assert list(recording) == []
        assert recording.loss.lost_bytes == len(noise)


def test_a_frame_is_found_behind_any_amount_of_noise(tmp_path: Path) -> None:
    block = Block()
    block.add(*entry(1))
    for amount in (1, 65_530, 65_536, 200_000):
        path = tmp_path / f"{amount}.rec"
        path.write_bytes(Heading({}).encode() + b"\xf5" * amount + block.frame())
        recording = read(path)
        assert list(recording) == [entry(1)]
        assert recording.loss == Loss(frames=1, lost_bytes=amount)


def test_a_bomb_is_refused_without_being_unpacked() -> None:
    bomb = zstd.compress(bytes(20 * MAX_RAW_BYTES))
    assert unpack(bomb, Lengths(len(bomb), MAX_RAW_BYTES, _crc(bomb))) is None


@pytest.mark.parametrize(
    "head",
    [
        b'{"topics":["a"],"t":[1.0],"topic":[1],"flags":[0],"size":[3]}',
        b'{"topics":["a"],"t":[1.0],"topic":[0],"flags":[0],"size":[4]}',
        b'{"topics":["a"],"t":[1.0],"topic":[0],"flags":[0,0],"size":[3]}',
        b'{"topics":["a"],"t":[1e300],"topic":[0],"flags":[0],"size":[3]}',
        b'{"topics":["a"],"t":[1.0],"topic":[-1],"flags":[0],"size":[3]}',
        b'{"topics":["\xff"],"t":[1.0],"topic":[0],"flags":[0],"size":[3]}',
        b"[" * 10_000,
        b"",
    ],
)
def test_a_block_that_contradicts_itself_is_refused(head: bytes) -> None:
    raw = len(head).to_bytes(4, "little") + head + b"abc"
    block = zstd.compress(raw)
    assert unpack(block, Lengths(len(block), len(raw), _crc(block))) is None


def test_a_block_of_nothing_but_empty_messages_is_refused() -> None:
    """A small file would otherwise unpack to half a million objects a block."""
    zeros = b",".join([b"0"] * 500_000)
    head = b'{"topics":["a"],"t":[%s],"topic":[%s],"flags":[%s],"size":[%s]}' % (zeros, zeros, zeros, zeros)
    raw = len(head).to_bytes(4, "little") + head
    block = zstd.compress(raw)
    assert len(block) < 10_000
    assert unpack(block, Lengths(len(block), len(raw), _crc(block))) is None


def test_an_existing_file_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "a.rec"
    path.write_text("precious")
    with pytest.raises(RecordingError, match=r"a\.rec: exists already"):
        RecordingWriter(path)
    assert path.read_text() == "precious"


def test_appending_cuts_off_the_torn_end_and_goes_on(
    five_frames: tuple[bytes, list[list[Entry]]], tmp_path: Path
) -> None:
    data, frames = five_frames
    path = tmp_path / "a.rec"
    path.write_bytes(data[:-3])
    with RecordingWriter(path, append=True) as writer:
        writer.add(*entry(77))
    recording = read(path)
    assert list(recording) == [one for frame in frames[:4] for one in frame] + [entry(77)]
    assert recording.loss == Loss()


def test_appending_to_nothing_or_to_an_empty_file_begins_a_recording(tmp_path: Path) -> None:
    (tmp_path / "empty.rec").touch()
    for name in ("empty.rec", "absent.rec"):
        with RecordingWriter(tmp_path / name, append=True) as writer:
            writer.add(*entry(1))
        assert list(read(tmp_path / name)) == [entry(1)]


def test_appending_to_another_kind_of_file_leaves_it_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("precious")
    with pytest.raises(RecordingError, match="not how a recording begins"):
        RecordingWriter(path, append=True)
    assert path.read_text() == "precious"


def test_what_is_no_recording_is_refused_with_a_remedy(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("timestamp, power.draw [W]\n")
    with pytest.raises(RecordingError, match=r"log\.csv: byte 0: .*polcad import"):
        read(path)
    with pytest.raises(RecordingError, match="cannot be read: No such file"):
        read(tmp_path / "absent.rec")
    with pytest.raises(RecordingError, match="cannot be written"):
        RecordingWriter(tmp_path / "no" / "such" / "folder.rec")


def test_a_message_too_big_or_out_of_time_is_refused_and_the_rest_is_kept(tmp_path: Path) -> None:
    async def arrivals() -> AsyncIterator[Entry]:
        yield entry(1)
        yield 2.0, Message("a", bytes(MAX_PAYLOAD_BYTES + 1))
        yield float("nan"), Message("a", b"")
        yield entry(2)

    with RecordingWriter(tmp_path / "a.rec") as writer:
        with pytest.raises(WireError, match="out of range"):
            writer.add(-1.0, Message("a", b""))
        assert asyncio.run(record(arrivals(), writer)) == 2
    assert list(read(tmp_path / "a.rec")) == [entry(1), entry(2)]


def test_the_largest_messages_still_fit_a_frame(tmp_path: Path) -> None:
    wanted = [(1.0, Message("\x01" * 512, os.urandom(MAX_PAYLOAD_BYTES))) for _ in range(10)]
    write(tmp_path / "a.rec", wanted)
    assert list(read(tmp_path / "a.rec")) == wanted


KILLED = """
import os, signal, sys
from pathlib import Path
from polcad.recording import RecordingWriter
from polcad.wire import Message

writer = RecordingWriter(Path(sys.argv[1]), frame_s=10.0)
for number in range(25):
    writer.add(1000.0 + number, Message("a", b"%d" % number))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_writer_leaves_what_it_flushed(tmp_path: Path) -> None:
    path = tmp_path / "a.rec"
    killed = subprocess.run([sys.executable, "-c", KILLED, path], timeout=30, check=False)
    assert killed.returncode == -9
    assert [message.payload for _, message in read(path)] == [b"%d" % number for number in range(20)]


def _crc(block: bytes) -> int:
    return zlib.crc32(block)


def _ends_of_frames(data: bytes) -> list[int]:
    starts, at = [], data.find(b"\xf5PF\n")
    while at >= 0:
        starts.append(at)
        at = data.find(b"\xf5PF\n", at + 1)
    return [*starts[1:], len(data)]
