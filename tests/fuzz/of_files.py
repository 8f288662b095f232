"""Bytes of files: recordings, logs of others, configurations, and what a node keeps on its disk."""

from __future__ import annotations

import atexit
import gzip
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from zlib import crc32

from polcad.cluster.profiles import Profile
from polcad.codec import Codec
from polcad.config import load
from polcad.config.example import example
from polcad.devices.baseline import Baseline
from polcad.devices.bounded import read_bounds
from polcad.errors import ConfigError, PolcadError, RecordingError
from polcad.follower import Memory
from polcad.frames import MAX_RAW_BYTES, Block, Heading, Lengths, unpack
from polcad.importers import FORMATS, ImportOptions, import_log
from polcad.model import Plan
from polcad.playback import Playback
from polcad.recording import RecordingWriter, read
from polcad.signing import SigningSpec
from polcad.simulate import read_trace
from polcad.simulate_cluster import read_intensity
from polcad.spec import FAIL_SAFE
from polcad.testing import telemetry
from polcad.wire import Address, Message, decode, encode
from tests.test_config import uncommented
from tests.test_importers import SAMPLES

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_MEMORY = Path("/dev/shm")  # noqa: S108  # a disk that costs nothing; the folder made there is private
_NODE = Address("site", "row", "telemetry", "r1", "n1")
_FORMATS = tuple(FORMATS)


@cache
def _folder() -> Path:
    """A folder as long as this process lives."""
    path = Path(tempfile.mkdtemp(prefix="polcad-fuzz-", dir=_MEMORY if _MEMORY.is_dir() else None))
    atexit.register(shutil.rmtree, path)
    return path


def _kept(name: str, data: bytes) -> Path:
    path = _folder() / name
    path.write_bytes(data)
    return path


# --- recordings -----------------------------------------------------------------------------------------------------


def recording(data: bytes) -> None:
    """A file, or one block of it under checksums that hold: as stored, or as unpacked."""
    shape, rest = data[:1], data[1:]
    if shape == b"\1":
        raw_bytes = min(int.from_bytes(rest[:4], "little"), MAX_RAW_BYTES)  # what `read_lengths` lets pass
        _check(unpack(rest[4:], Lengths(len(rest) - 4, raw_bytes, crc32(rest[4:]))) or [])
    elif shape == b"\2":
        block = zstd.compress(rest, 1)
        _check(unpack(block, Lengths(len(block), len(rest), crc32(block))) or [])
    else:
        _play(_kept("any.rec", rest))


def _play(path: Path) -> None:
    with suppress(PolcadError):
        found = read(path)
        _check(list(found))
        assert found.loss.lost_bytes <= path.stat().st_size
        for _ in Playback(found, None, 1.0).events():
            pass
    with suppress(PolcadError), RecordingWriter(path, append=True) as writer:
        writer.add(5.0, encode(_NODE, telemetry()))


def _check(messages: list[tuple[float, Message]]) -> None:
    for t, message in messages:
        assert 0.0 <= t <= 1e11
        with suppress(PolcadError):
            decode(message)


def recording_seeds() -> Iterator[bytes]:
    block = Block()
    for second in range(3):
        block.add(second, encode(_NODE, telemetry(gpus=2, seq=second)))
    packed = block.frame()[20:]
    raw = zstd.decompress(packed)
    yield b"\0" + Heading({"row": "row"}).encode() + 2 * block.frame()
    yield b"\1" + len(raw).to_bytes(4, "little") + packed
    yield b"\2" + raw


# --- logs of others -------------------------------------------------------------------------------------------------


def importer(data: bytes) -> None:
    """A log, plain or packed, said to be of some format; what is imported can be believed."""
    which, rest = data[:1] or b"\0", data[1:]
    log = _kept("log", gzip.compress(rest, 1) if which[0] & 0x40 else rest)
    out = _folder() / "out.rec"
    out.unlink(missing_ok=True)
    try:
        import_log(_FORMATS[which[0] % len(_FORMATS)], log, ImportOptions(out=out))
    except (RecordingError, ConfigError):
        assert not out.exists()
        return
    for _, message in read(out):
        decode(message)


def importer_seeds() -> Iterator[bytes]:
    for index, name in enumerate(_FORMATS):
        yield bytes([index]) + SAMPLES[name].encode()
        yield bytes([index]) + gzip.compress(SAMPLES[name].encode())
    ipmi = "Instantaneous power reading:  212 Watts\nIPMI timestamp: Tue Dec  9 15:26:50 2025 Sampling period: 1 s\n"
    yield bytes([_FORMATS.index("bmc-csv")]) + 2 * ipmi.encode()


# --- what an operator writes ----------------------------------------------------------------------------------------


def configuration(data: bytes) -> None:
    """A file, its drop-in, and lines of an environment, parted by zeros."""
    main, drop_in, *more = data.split(b"\0", 2)[:3] if data.count(b"\0") >= 1 else (data, b"")
    (_folder() / "polcad.d").mkdir(exist_ok=True)
    path = _kept("polcad.toml", main)
    _kept("polcad.d/a.toml", drop_in)
    text = os.fsdecode(more[0]) if more else ""
    pairs = (line.partition("=") for line in text.replace("\0", "").splitlines())
    with suppress(ConfigError):
        load([path], {f"POLCAD_{name}": value for name, _, value in pairs})


def configuration_seeds() -> Iterator[bytes]:
    row = b'[site]\nname = "s"\n[row]\nname = "r"\nbudget_w = 5e4\n[[node]]\nname = "n1"\n[policy]\nname = "polca"\n'
    yield uncommented(example()).encode()
    yield row + b'\0[[node]]\nname = "n2"\n[guard]\nbrake = { clock_frac = 0.2 }\n\0SITE__NAME=x\nGUARD__TICK_S=2.0\n'


# --- other files ----------------------------------------------------------------------------------------------------


def _trace(data: bytes) -> None:
    read_trace(_kept("trace.csv", data))


def _packed_trace(data: bytes) -> None:
    read_trace(_kept("trace.csv.gz", data))


def _intensity(data: bytes) -> None:
    read_intensity(_kept("carbon.csv", data))


def _bounds(data: bytes) -> None:
    read_bounds(_kept("bounds.toml", data), owner=os.getuid())


def _baseline(data: bytes) -> None:
    _kept("nvml.json", data)
    Baseline(_folder()).load()


def _profile(data: bytes) -> None:
    Profile.read(_kept("profile.toml", data))


def _plan(data: bytes) -> None:
    Memory(_kept("plan-row.json", data)).recall()


def _keys(data: bytes) -> None:
    path = str(_kept("plan.pub", data))
    SigningSpec(trusted_file=path).trust({})
    SigningSpec(key_file=path).signer({})


_KEY = b"""-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAA6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=
-----END PUBLIC KEY-----
"""
_PROFILE = b"""name = "mine"
gpu_max_w = 700.0
gpu_idle_w = 60.0
host_idle_w = 100.0
host_load_w = 50.0
[[degrees]]
tensor_parallel = 8
prompt_tokens = [100, 1000]
prompt_s = [0.1, 0.5]
prompt_w = [300, 400]
token_s = 0.03
token_request_s = 0.001
token_context_s = 0.0
token_w = 200
token_rise_w = 0
token_rise_requests = 10
kv_tokens = 50000
"""
_FILES: tuple[tuple[Callable[[bytes], None], bytes], ...] = (
    (
        _trace,
        b"TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9,9,1\n",
    ),
    (_packed_trace, gzip.compress(b"TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n")),
    (_intensity, b"hour,g_per_kwh\n0,412.5\n1,380\n"),
    (_bounds, b"lowest_clock_frac = 0.5\nlowest_cap_frac = 0.5\n"),
    (_baseline, b'{"boot_id": "x", "gpus": {"g": {"limit_mw": 400000, "lock_mhz": null}}}'),
    (_plan, Codec.encode(Plan("row", 1, 2, 3.0, 5.0, FAIL_SAFE))),
    (_keys, _KEY),
    (_profile, _PROFILE),
)


def small_files(data: bytes) -> None:
    """A trace of requests, a day of a grid, a node's bounds, baseline and last plan, keys, a model's profile."""
    which, rest = data[:1] or b"\0", data[1:]
    with suppress(PolcadError):
        _FILES[which[0] % len(_FILES)][0](rest)


def small_files_seeds() -> Iterator[bytes]:
    for index, (_, seed) in enumerate(_FILES):
        yield bytes([index]) + seed
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_bytes().strip()
    yield b"\4" + _FILES[4][1].replace(b"x", boot_id)
