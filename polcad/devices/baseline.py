"""What a node's GPUs were like before anything was set, and the locks set since: kept on disk across agent restarts.

NVML keeps a limit or lock when the agent ends, and has no getter for locks. So an agent that starts again must not take
a board it limited itself for the board as found, and knows a lock only from here. A reboot resets the boards, so the
file counts for one boot of the kernel; for the same reason it need not survive a power cut, and is not synced.
"""

from __future__ import annotations

import errno
import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

from polcad.errors import ConfigError

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_FAILING = frozenset({errno.EROFS, errno.EIO})  # of a disk that served before: a kernel remounts one after errors
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Kept:
    """Of one GPU: the limit found at start (None: it has none), and our lock (0: no lock, None: not known)."""

    limit_mw: int | None
    lock_mhz: int | None = None


class Baseline:
    """The file ``nvml.json`` in `folder`. ConfigError where the folder cannot be written, and never could.

    A disk that is full, or that has failed since the file was made, is a warning: the GPUs want guarding all the same.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "nvml.json"
        self._boot_id = BOOT_ID.read_text().strip()
        self._saved: dict[str, Kept] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._saved = self._read()
            self._write(self._saved)
        except OSError as error:
            if error.errno in FULL or (error.errno in _FAILING and self._path.exists()):
                log.warning("%s cannot be written: %s", self._path, error.strerror)
                return
            raise ConfigError(f"device nvml: state_dir={str(folder)!r} cannot be written: {error}") from error

    def load(self) -> dict[str, Kept]:
        """What was kept, by UUID; nothing where the file is of another boot."""
        return dict(self._saved)

    def save(self, kept: Mapping[str, Kept]) -> None:
        """Keep this and nothing else. A full disk is logged: setting a GPU matters more than restoring it."""
        if kept == self._saved:
            return
        try:
            self._write(kept)
            self._saved = dict(kept)
        except OSError:
            log.exception("what the GPUs were like at the start cannot be kept in %s", self._path)

    def _read(self) -> dict[str, Kept]:
        if not self._path.exists():
            return {}
        try:
            content = json.loads(self._path.read_bytes())
            return {uuid: _kept(entry) for uuid, entry in content["gpus"].items()} if self._of_now(content) else {}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            log.warning("%s is not of this program: set aside; the limits now in force count as found", self._path)
            return {}

    def _of_now(self, content: Any) -> bool:
        return bool(content["boot_id"] == self._boot_id)

    def _write(self, kept: Mapping[str, Kept]) -> None:
        content = {"boot_id": self._boot_id, "gpus": {uuid: asdict(entry) for uuid, entry in kept.items()}}
        fresh = self._path.with_suffix(".new")
        fresh.write_text(json.dumps(content, indent=1))
        fresh.replace(self._path)


def _kept(entry: Any) -> Kept:
    limit_mw, lock_mhz = entry["limit_mw"], entry["lock_mhz"]
    if not all(value is None or (type(value) is int and value >= 0) for value in (limit_mw, lock_mhz)):
        raise ValueError(entry)
    return Kept(limit_mw, lock_mhz)
