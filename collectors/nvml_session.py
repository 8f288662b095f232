"""One process's calls into the NVIDIA driver: rounds over the GPUs with a deadline, and a new start when needed.

A call into the driver can hang for ever, so none is made on the caller's thread, and a GPU whose call is stuck is
skipped until that call returns. There are as many workers as GPUs, so one is left for each that is not stuck. Rounds
follow one another.

A reload of the driver, or a GPU that fell off the bus, needs shutdown, init and new handles. That is tried at the start
of a round, with back-off. GPUs are known by UUID, since indices move; one that is not found keeps its place in
`uuids()` and is an error in every round until it returns.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import pynvml

from collectors.rounds import Round, Workers
from polcad.errors import DeviceError, PermissionMissingError, UnavailableError

T = TypeVar("T")

DRIVER = "driver"  # the one job of a start
FIRST_START_S = 30.0  # without persistence mode, opening eight GPUs takes seconds
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 30.0  # between two tries to start anew
SILENT = "the NVIDIA driver does not answer: see dmesg, then reset the GPU or reboot"
GONE = frozenset(
    {
        pynvml.NVML_ERROR_UNINITIALIZED,
        pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
        pynvml.NVML_ERROR_GPU_IS_LOST,
        pynvml.NVML_ERROR_UNKNOWN,
    }
)
REMEDIES = {
    pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: "libnvidia-ml.so.1 is not here: install the NVIDIA driver",
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: "the NVIDIA driver is not loaded: load its kernel module",
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: "NVIDIA's library and kernel module differ: reload the module or reboot",
    pynvml.NVML_ERROR_NO_PERMISSION: "the NVIDIA device files may not be opened: give this user access to /dev/nvidia*",
}

log = logging.getLogger(__name__)


class NvmlSession:
    """The driver, initialised, with a handle for each GPU (a `polcad.ports.GpuSession`).

    Raises UnavailableError when there is no driver or no GPU at the start; after that, whatever goes is an answer.
    """

    def __init__(self, deadline_s: float) -> None:
        self._deadline_s = deadline_s
        self._workers, self._starter = Workers(), Workers()
        self._starter.grow(1)
        self._starting: Round | None = None  # a new start under way
        self._handles: dict[str, object] = {}
        self._uuids: tuple[str, ...] = ()
        self._generation = 0
        self._sick: set[str] = set()  # GPUs that a new start may bring back
        self._wait_s, self._next_start = 0.0, 0.0
        self._why = ""
        self._turn = threading.Lock()
        self._first_start()

    def uuids(self) -> tuple[str, ...]:
        """Every GPU ever seen, in the order first seen; it never shrinks."""
        return self._uuids

    def generation(self) -> int:
        """Grows by one with each initialisation."""
        return self._generation

    def call(self, work: Mapping[str, Callable[[object], T]]) -> Mapping[str, T | Exception]:
        """Run ``work[uuid](handle)`` for each; a GPU that fails or is late gets a DeviceError."""
        with self._turn:
            self._start_anew_if_due()
            can = [uuid for uuid in work if uuid in self._handles and uuid not in self._workers.busy]
            answers = self._workers.do(
                {uuid: partial(work[uuid], self._handles[uuid]) for uuid in can}, self._deadline_s
            )
            self._look_for_loss(work, answers)
            return {uuid: self._answer(uuid, answers) for uuid in work}

    def close(self) -> None:
        """End the threads and leave the driver; a call that hangs is left behind."""
        with self._turn:
            if self._starting is None:
                self._starter.do({DRIVER: _shut_down}, self._deadline_s)
            self._workers.dismiss()
            self._starter.dismiss()
            self._handles, self._sick, self._why = {}, set(), "the session is closed"

    def _answer(self, uuid: str, answers: Mapping[str, Any]) -> Any:
        if uuid in answers:
            return _translated(uuid, answers[uuid])
        if uuid not in self._handles:
            return DeviceError(f"gpu {uuid}: {self._why or 'not found by the driver'}")
        waited_s = time.monotonic() - self._workers.busy.get(uuid, time.monotonic() - self._deadline_s)
        return DeviceError(f"gpu {uuid}: a driver call has not returned for {waited_s:.1f} s")

    def _look_for_loss(self, work: Mapping[str, object], answers: Mapping[str, Any]) -> None:
        for uuid, answer in answers.items():
            lost = isinstance(answer, pynvml.NVMLError) and answer.value in GONE
            (self._sick.add if lost else self._sick.discard)(uuid)
        self._sick.update(uuid for uuid in work if uuid in self._uuids and uuid not in self._handles)
        if not self._sick:
            self._wait_s = self._next_start = 0.0

    def _start_anew_if_due(self) -> None:
        if self._starting is None:
            if not self._due(time.monotonic()):
                return
            log.warning("starting the NVIDIA driver session anew for %s", ", ".join(sorted(self._sick)))
            self._handles, self._why = {}, "the NVIDIA driver is being initialised"
            self._starting = Round({DRIVER: _restart})
            self._starter.join(self._starting, 1)
        if self._starting.wait(self._deadline_s):
            answers = self._starting.end()
            self._starting = None
            self._take(answers[DRIVER])

    def _due(self, now: float) -> bool:
        """Whether to start anew; if so, sets when to do so again should this one not help."""
        stuck = set(self._workers.busy)
        if not self._sick or now < self._next_start:
            return False
        if stuck and self._sick | stuck != set(self._uuids):
            return False  # a shutdown might wait for the stuck call, and the healthy GPUs with it
        self._wait_s = min(max(self._wait_s * 2, FIRST_WAIT_S), LONGEST_WAIT_S)
        self._next_start = now + self._wait_s
        return True

    def _first_start(self) -> None:
        answer = self._starter.do({DRIVER: _start}, FIRST_START_S).get(DRIVER, SILENT)
        if isinstance(answer, dict) and answer:
            return self._take(answer)
        self._starter.dismiss()
        if isinstance(answer, pynvml.NVMLError):
            raise UnavailableError(f"nvml: {REMEDIES.get(answer.value, answer)}") from answer
        raise UnavailableError(f"nvml: {answer or 'no GPU on this node: choose another collector'}")

    def _take(self, answer: Any) -> None:
        """Adopt the handles of a start, or the reason why there are none."""
        if not isinstance(answer, dict):
            self._handles, self._why = {}, REMEDIES.get(getattr(answer, "value", None), str(answer))
            return
        self._handles, self._why = answer, ""
        self._generation += 1
        self._uuids = tuple(dict.fromkeys((*self._uuids, *answer)))
        self._workers.grow(len(self._uuids))


def _start() -> dict[str, object]:
    """Initialise and return the handles by UUID, in order of their indices."""
    pynvml.nvmlInit()
    handles: dict[str, object] = {}
    for index in range(pynvml.nvmlDeviceGetCount()):
        try:
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            handles[pynvml.nvmlDeviceGetUUID(handle)] = handle
        except pynvml.NVMLError as error:
            log.warning("gpu at index %d cannot be opened: %s", index, error)
    return handles


def _shut_down() -> None:
    with suppress(pynvml.NVMLError):  # after a reload there is nothing to leave
        pynvml.nvmlShutdown()


def _restart() -> dict[str, object]:
    _shut_down()
    return _start()


def _translated(uuid: str, answer: Any) -> Any:
    """NVML's errors as polcad's; anything else as it is."""
    if not isinstance(answer, pynvml.NVMLError):
        return answer
    if answer.value == pynvml.NVML_ERROR_NO_PERMISSION:
        return PermissionMissingError(f"gpu {uuid}: the driver denies it: run the agent as root or with CAP_SYS_ADMIN")
    return DeviceError(f"gpu {uuid}: {answer}")
