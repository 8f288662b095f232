"""Disks that are full, read-only, or hang: each folder that a program keeps is a small file system of its own."""

from __future__ import annotations

import contextlib
import errno
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from random import Random

from tests.chaos.case import Case
from tests.chaos.faults import Fault
from tests.chaos.place import Place, as_root
from tests.chaos.row import FRAME_S, NODES, ChaosRow

_SIZE = {"recorder": "4m"}
_INODES = 64
_IMAGE_BYTES = 4 << 20
_FILLER = "filler"


def _run(*command: str) -> None:
    done = subprocess.run(command, check=False, capture_output=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.decode().strip()}")


class Disks(Place):
    """The folders of state and the recorder's are tmpfs: 256 KiB, and the recorder's 4 MiB."""

    def _build(self) -> None:
        as_root("file systems that can be filled")
        for part in ("recorder", *NODES, *(f"actuator-{node}" for node in NODES)):
            self._mount(self.disk(part), _SIZE.get(part, "256k"))

    def _mount(self, folder: Path, size: str) -> None:
        folder.mkdir()
        options = f"size={size},nr_inodes={_INODES}"
        _run("mount", "-t", "tmpfs", "-o", options, "polcad-chaos", str(folder))
        self._stack.callback(_run, "umount", "--lazy", str(folder))

    def disk(self, part: str) -> Path:
        """What a part writes into."""
        names = {"recorder": "recorded", **{node: f"state-{node}" for node in NODES}}
        return self.folder / names.get(part, part)

    def mend(self, part: str) -> None:
        """Let a part's disk be written, and make room."""
        _run("mount", "-o", "remount,rw", str(self.disk(part)))
        for filler in self.disk(part).glob(f"{_FILLER}*"):
            filler.unlink()


class Freezable(Disks):
    """The same, of ext4 on a loop device, which can be frozen."""

    def _mount(self, folder: Path, size: str) -> None:
        del size
        image = folder.with_suffix(".img")
        with image.open("wb") as file:
            file.truncate(_IMAGE_BYTES)
        _run("mkfs.ext4", "-q", "-O", "^has_journal", str(image))
        folder.mkdir()
        _run("mount", "-o", "loop", str(image), str(folder))
        self._stack.callback(_run, "umount", "--lazy", str(folder))
        self._stack.callback(self._thaw, folder)

    def mend(self, part: str) -> None:
        """Let go on who waits for a part's disk."""
        self._thaw(self.disk(part))

    @staticmethod
    def _thaw(disk: Path) -> None:
        subprocess.run(["fsfreeze", "--unfreeze", str(disk)], check=False, capture_output=True)  # it may be thawed


def fill_bytes(disk: Path) -> None:
    """Leave no byte: writes and fsync of what grows fail."""
    with (disk / _FILLER).open("wb", buffering=0) as file, _until_full():
        while True:
            file.write(bytes(4096))


def fill_names(disk: Path) -> None:
    """Leave no inode: no file can be made, those that are there can grow."""
    with _until_full():
        for number in count():
            (disk / f"{_FILLER}-{number}").touch()


@contextlib.contextmanager
def _until_full() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise


def make_read_only(disk: Path) -> None:
    """As a kernel does when a disk fails; nobody may have a file open for writing there."""
    _run("mount", "-o", "remount,ro", str(disk))


def freeze(disk: Path) -> None:
    """Let every write, and all that makes or removes a file, wait until it is mended: nothing fails, nothing ends."""
    _run("fsfreeze", "--freeze", str(disk))


@dataclass
class BadDisk(Fault):
    """The disks of these parts go bad. `restarted`: the programs die first, and start again over the bad disk."""

    parts: tuple[str, ...]
    spoil: Callable[[Path], None]
    restarted: bool = False

    def __post_init__(self) -> None:
        """Who is away for a moment sets nothing, and hears nothing."""
        if self.restarted:
            self.unset = frozenset(part.removeprefix("actuator-") for part in self.parts)

    def begin(self, row: ChaosRow) -> None:
        """Spoil them; who was killed must come up all the same."""
        if self.restarted:
            for part in self.parts:
                row.kill(part)
        for part in self.parts:
            self.spoil(_disks(row).disk(part))
        if self.restarted:
            for part in self.parts:
                row.start_part(part)

    def end(self, row: ChaosRow) -> None:
        """Make them good; a recorder that ended by it is started again."""
        for part in self.parts:
            _disks(row).mend(part)
        if "recorder" in self.parts and row.programs["recorder"].process.poll() is not None:
            row.start_part("recorder")


def _disks(row: ChaosRow) -> Disks:
    assert isinstance(row.place, Disks)
    return row.place


def _node(rng: Random) -> tuple[str, str]:
    node = rng.choice(NODES)
    return f"actuator-{node}", node


def _full(run: int, rng: Random) -> Fault:
    return BadDisk(_node(rng), (fill_bytes, fill_names)[run % 2])


def _restarted(run: int, rng: Random) -> Fault:
    return BadDisk(_node(rng), (fill_bytes, fill_names, make_read_only)[run % 3], restarted=True)


DISKS = (
    Case("disk-full", "a node's state folders have no byte, or no inode left", _full, place=Disks),
    Case(
        "disk-bad-restart",
        "a node dies and starts again over folders that are full, or read-only",
        _restarted,
        hold_s=(1.0, 2.0),
        place=Disks,
    ),
    Case(
        "disk-full-recorder",
        "the recorder's disk has no byte left; it is started again if it ends",
        lambda _, __: BadDisk(("recorder",), fill_bytes),
        hold_s=(FRAME_S, FRAME_S + 1.0),
        most_runs=4,
        may_lose="the recording lacks that time, and 5 s before it",
        history=True,
        recording_gap_s=FRAME_S,
        place=Disks,
    ),
    Case(
        "disk-hang",
        "a node's state folders hang",
        lambda _, rng: BadDisk(_node(rng), freeze),
        hold_s=(2.0, 4.0),
        place=Freezable,
    ),
    Case(
        "disk-hang-recorder",
        "the recorder's disk hangs",
        lambda _, __: BadDisk(("recorder",), freeze),
        hold_s=(FRAME_S, FRAME_S + 1.0),  # so that a frame is due
        most_runs=4,
        history=True,
        place=Freezable,
    ),
)
