"""Sets NVIDIA GPUs through the driver's library (NVML), and says what came of it.

A success code proves little: another tool, a BMC or the board itself may hold other values. So limits are read back,
requested and enforced, and since NVML cannot tell a clock lock, the SM clock is watched: above the lock, once the lock
has had time to act, it is overridden. Only changes are written: a limit when the board is asked for another one, a
lock when it differs from the last, after a failure, after an override, and after each new driver session, which may
have lost it. What was found at start survives a restart of the agent (`polcad.devices.baseline`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from polcad.devices.baseline import Baseline, Kept
from polcad.devices.nvml_board import Board, Seen, Target, aim, check, differs, limit, lock, read_board, see
from polcad.errors import ConfigError, PermissionMissingError
from polcad.model import FREE, InForce, Outcome, Setpoint
from polcad.ports import Collector, GpuSession

SETTLE_S = 1.0  # how long a lock may take until the SM clock shows it
NOTE = 512  # longest detail


@dataclass(slots=True)
class _Gpu:
    """What is known of one GPU."""

    board: Board
    kept: Kept
    target: Target | None = None  # None: nothing was asked for yet
    failure: tuple[Outcome, str] | None = None  # of the last apply
    locked_in: int | None = None  # session generation of the lock; None: set by the agent before this one
    locked_at: float = float("-inf")  # monotonic
    above_since: float | None = None  # when the first lock was written that the SM clock has been above ever since
    ignored: bool = False  # the lock was seen not to hold, and has not been seen to hold since

    def must_lock(self, target: Target, generation: int) -> bool:
        """Whether the lock has to be written."""
        known = self.kept.lock_mhz == target.lock_mhz and self.locked_in == generation
        return not known or self.failure is not None or self.ignored


class NvmlDevice:
    """The GPUs of one node (a `polcad.ports.Device`), through the session of its NVML collector.

    Option: `state_dir`, a folder that survives the agent. Raises ConfigError for a bad one, for others, and for a
    collector without a session. `monotonic` counts how long a lock has had.
    """

    def __init__(
        self, options: Mapping[str, Any], collector: Collector, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        session = getattr(collector, "session", None)
        if session is None:
            raise ConfigError(f"device nvml: it needs collector nvml, not {type(collector).__name__}")
        self._session: GpuSession = session
        self._monotonic = monotonic
        self._baseline = Baseline(_state_dir(options))
        self._found = self._baseline.load()
        self._gpus: dict[str, _Gpu] = {}
        self._turn = threading.Lock()
        self._unread: dict[str, Exception] = {}

    def apply(self, wanted: Mapping[str, Setpoint]) -> None:
        """Bring every named GPU to its setpoint, all at once; what went wrong is in `in_force`."""
        with self._turn:
            self._apply(wanted)

    def in_force(self) -> InForce:
        """What holds now, and how the last `apply` went, for every GPU of the session."""
        with self._turn:
            uuids = self._session.uuids()
            self._learn(uuids)
            seen = self._session.call(dict.fromkeys(uuids, see))
            rows = [self._judge(uuid, seen[uuid]) for uuid in uuids]
        clock, cap, outcome, detail = zip(*rows, strict=True)
        return InForce(uuids, clock, cap, outcome, tuple(text[:NOTE] for text in detail))

    def release(self) -> None:
        """Restore the limits found at start and end the locks; forget them where that went well."""
        with self._turn:
            self._apply(dict.fromkeys(self._gpus, FREE))
            restored = {uuid for uuid, gpu in self._gpus.items() if gpu.failure is None}
            self._found = {uuid: kept for uuid, kept in self._kept().items() if uuid not in restored}
            self._baseline.save(self._found)

    def _apply(self, wanted: Mapping[str, Setpoint]) -> None:
        self._learn(wanted)
        work = {}
        for uuid, setpoint in wanted.items():
            if gpu := self._gpus.get(uuid):
                gpu.target = aim(uuid, setpoint, gpu.board, gpu.kept.limit_mw)
                work[uuid] = partial(self._set, uuid, gpu, gpu.target)
        for uuid, answer in self._session.call(work).items():
            self._note(self._gpus[uuid], answer)
        self._baseline.save(self._kept())

    def _learn(self, uuids: Any) -> None:
        """Read the boards not yet known, and keep what was found before anything is set."""
        unknown = [uuid for uuid in uuids if uuid not in self._gpus]
        if not unknown:
            return
        self._unread = {}
        for uuid, answer in self._session.call(dict.fromkeys(unknown, read_board)).items():
            if isinstance(answer, Exception):
                self._unread[uuid] = answer
            else:
                self._gpus[uuid] = _Gpu(answer, self._found.get(uuid, Kept(answer.limit_mw)))
        self._baseline.save(self._kept())

    def _kept(self) -> dict[str, Kept]:
        """By UUID; a GPU that could not be read this time keeps what an earlier agent found."""
        return self._found | {uuid: gpu.kept for uuid, gpu in self._gpus.items()}

    def _set(self, uuid: str, gpu: _Gpu, target: Target, handle: object) -> tuple[int, bool]:
        """On the GPU's worker: write what differs; the session's generation, and whether the lock was written."""
        generation = self._session.generation()
        check(handle, uuid)
        relock = gpu.must_lock(target, generation)
        try:
            if relock:
                lock(handle, gpu.board, target.lock_mhz)
        finally:  # where the one is refused, the other still sheds power
            if target.limit_mw is not None:
                limit(handle, target.limit_mw)
        return generation, relock

    def _note(self, gpu: _Gpu, answer: tuple[int, bool] | Exception) -> None:
        if isinstance(answer, Exception):
            gpu.failure = _failure(answer)
            if gpu.failure[0] is not Outcome.DENIED:  # a denied lock changed nothing; of any other, nobody knows
                gpu.kept = replace(gpu.kept, lock_mhz=None)
            return
        target = gpu.target or Target()
        gpu.failure = (Outcome.FAILED, target.problem) if target.problem else None
        gpu.locked_in, relocked = answer
        if relocked:
            gpu.kept = replace(gpu.kept, lock_mhz=target.lock_mhz)
            gpu.locked_at = self._monotonic()
            gpu.ignored = gpu.ignored and target.lock_mhz > 0

    def _judge(self, uuid: str, seen: Seen | Exception) -> tuple[float | None, float | None, Outcome, str]:
        """One GPU's row of InForce."""
        gpu = self._gpus.get(uuid)
        if gpu is None or isinstance(seen, Exception):
            error = seen if isinstance(seen, Exception) else self._unread[uuid]
            return None, None, *_failure(error)
        self._watch_lock(gpu, seen)
        outcome, detail = self._outcome(uuid, gpu, seen)
        return self._clock_frac(gpu), _cap_frac(gpu, seen), outcome, detail

    def _watch_lock(self, gpu: _Gpu, seen: Seen) -> None:
        """Compare the SM clock with the lock. The time that a lock has begins with the first that it did not follow.

        A board that follows none would else go unseen for as long as its lock is written again within that time.
        """
        lock_mhz, grid = gpu.kept.lock_mhz, gpu.board.grid_mhz
        if not lock_mhz:
            gpu.above_since = None
            return
        if seen.sm_mhz is None:
            return
        step_mhz = grid[1] - grid[0] if len(grid) > 1 else 0
        if seen.sm_mhz <= lock_mhz + step_mhz:
            gpu.ignored, gpu.above_since = False, None
            return
        gpu.above_since = gpu.locked_at if gpu.above_since is None else gpu.above_since
        gpu.ignored = gpu.ignored or self._monotonic() - gpu.above_since > SETTLE_S

    def _clock_frac(self, gpu: _Gpu) -> float | None:
        lock_mhz = gpu.kept.lock_mhz
        if lock_mhz is None or gpu.locked_in not in {None, self._session.generation()}:
            return None
        if lock_mhz == 0 or gpu.ignored or gpu.board.max_mhz is None:
            return 1.0
        return min(lock_mhz / gpu.board.max_mhz, 1.0)

    def _outcome(self, uuid: str, gpu: _Gpu, seen: Seen) -> tuple[Outcome, str]:
        if gpu.failure:
            return gpu.failure
        if gpu.ignored:
            return Outcome.OVERRIDDEN, f"gpu {uuid}: sm_mhz={seen.sm_mhz} is above the lock of {gpu.kept.lock_mhz}"
        if override := _override(gpu, seen):
            return Outcome.OVERRIDDEN, f"gpu {uuid}: {override}"
        if gpu.target and gpu.target.clamped:
            return Outcome.CLAMPED, gpu.target.clamped
        return Outcome.OK, ""


def _state_dir(options: Mapping[str, Any]) -> Path:
    unknown = sorted(options.keys() - {"state_dir"})
    if unknown:
        raise ConfigError(f"device nvml: unknown option {unknown[0]}: it takes state_dir")
    folder = options.get("state_dir")
    if not isinstance(folder, (str, Path)) or not str(folder):
        raise ConfigError(f"device nvml: state_dir={folder!r} is not a folder: name one that survives the agent")
    return Path(folder)


def _failure(error: Exception) -> tuple[Outcome, str]:
    return Outcome.DENIED if isinstance(error, PermissionMissingError) else Outcome.FAILED, str(error)


def _wanted_mw(gpu: _Gpu) -> int | None:
    return gpu.kept.limit_mw if gpu.target is None else gpu.target.limit_mw


def _override(gpu: _Gpu, seen: Seen) -> str:
    """Who holds another limit, "" where ours is in force."""
    wanted_mw = _wanted_mw(gpu)
    if wanted_mw is None or seen.requested_mw is None:
        return ""
    if gpu.target and differs(seen.requested_mw, wanted_mw):
        return f"limit_w={seen.requested_mw / 1000:.1f} was set by another tool over our {wanted_mw / 1000:.1f}"
    if seen.enforced_mw is not None and differs(seen.enforced_mw, wanted_mw):
        return f"enforced_w={seen.enforced_mw / 1000:.1f} is held from outside, not our {wanted_mw / 1000:.1f}"
    return ""


def _cap_frac(gpu: _Gpu, seen: Seen) -> float | None:
    """Enforced, of the board's greatest; 1 where nothing was asked for and nothing below the limit found binds."""
    found_mw, max_mw = gpu.kept.limit_mw, gpu.board.max_mw
    if seen.enforced_mw is None or max_mw is None:
        return 1.0 if found_mw is None else None  # a board without limits is not limited
    asked = gpu.target is not None and gpu.target.capped
    if not asked and found_mw is not None and seen.enforced_mw > found_mw - 1000:
        return 1.0
    return min(seen.enforced_mw / max_mw, 1.0)
