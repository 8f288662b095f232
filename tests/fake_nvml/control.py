"""Commands a fake node at run time, from any process; mirrors node.h. Power in W, clocks in MHz."""

from __future__ import annotations

import ctypes
import mmap
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MAX_GPUS = 16
NOT_SUPPORTED = 3
NO_PERMISSION = 4
UNKNOWN = 999
SENTINEL_MW = 0x7FFFFFF0


class _Gpu(ctypes.Structure):
    _fields_ = (
        ("uuid", ctypes.c_char * 96),
        ("load", ctypes.c_double),
        ("limit_mw", ctypes.c_uint32),
        ("lock_mhz", ctypes.c_uint32),
        ("energy_mj", ctypes.c_double),
        ("average_mw", ctypes.c_double),
        ("sampled_t", ctypes.c_double),
        ("absent", ctypes.c_uint32),
        ("hang", ctypes.c_uint32),
        ("read_error", ctypes.c_uint32),
        ("write_error", ctypes.c_uint32),
        ("power_field_error", ctypes.c_uint32),
        ("force_power", ctypes.c_uint32),
        ("forced_mw", ctypes.c_uint32),
        ("held_limit_mw", ctypes.c_uint32),
        ("ignore_lock", ctypes.c_uint32),
        ("no_reset", ctypes.c_uint32),
        ("lock_writes", ctypes.c_uint32),
        ("lock_resets", ctypes.c_uint32),
        ("limit_writes", ctypes.c_uint32),
        ("refused_writes", ctypes.c_uint32),
        ("persistence", ctypes.c_uint32),
    )


class _Node(ctypes.Structure):
    _fields_ = (
        ("size", ctypes.c_uint32),
        ("count", ctypes.c_uint32),
        ("driver_missing", ctypes.c_uint32),
        ("driver_epoch", ctypes.c_uint32),
        ("inits", ctypes.c_uint32),
        ("cuda_minor", ctypes.c_uint32),
        ("time_offset_s", ctypes.c_double),
        ("order", ctypes.c_uint32 * MAX_GPUS),
        ("gpus", _Gpu * MAX_GPUS),
    )


class FakeGpu:
    """One board. Every setter takes effect at the next NVML call; `well` ends all faults."""

    def __init__(self, state: _Gpu) -> None:
        self._state = state

    @property
    def uuid(self) -> str:
        """Its UUID; setting it puts another board behind the same handle."""
        return bytes(self._state.uuid).decode()

    @uuid.setter
    def uuid(self, uuid: str) -> None:
        self._state.uuid = uuid.encode()

    @property
    def limit_w(self) -> float:
        """The requested power limit; setting it is what another tool would do."""
        return float(self._state.limit_mw) / 1000

    @limit_w.setter
    def limit_w(self, limit_w: float) -> None:
        self._state.limit_mw = int(limit_w * 1000)

    def persist(self, on: bool) -> None:
        """Set persistence mode, with which a board starts here."""
        self._state.persistence = on

    @property
    def lock_mhz(self) -> int:
        """The upper end of the clock lock, 0 where there is none."""
        return int(self._state.lock_mhz)

    @property
    def writes(self) -> tuple[int, int, int]:
        """How often a lock was set, a lock was reset and a limit was set, all with success."""
        return int(self._state.lock_writes), int(self._state.lock_resets), int(self._state.limit_writes)

    @property
    def refused(self) -> int:
        """How many settings were refused."""
        return int(self._state.refused_writes)

    @property
    def address(self) -> int:
        """Where its state lies in this process, for the library's own `fake_plug_mw`."""
        return ctypes.addressof(self._state)

    def load(self, load: float) -> None:
        """From 0, idle, to 1, all the board can draw."""
        self._state.load = load

    def hang(self) -> None:
        """Every call waits until `well` (or a minute has passed)."""
        self._state.hang = 1

    def vanish(self) -> None:
        """Off the bus: GPU_IS_LOST, and not listed at the next init."""
        self._state.absent = 1

    def fail_reads(self, code: int) -> None:
        """Every getter returns `code`."""
        self._state.read_error = code

    def fail_writes(self, code: int) -> None:
        """Every setter returns `code`."""
        self._state.write_error = code

    def fail_power_fields(self, code: int) -> None:
        """The two power fields of GetFieldValues carry `code`, nothing else fails."""
        self._state.power_field_error = code

    def force_power_mw(self, power_mw: int) -> None:
        """Power reads give this raw number: 0, a spike, a sentinel."""
        self._state.force_power, self._state.forced_mw = 1, power_mw

    def hold_limit(self, limit_w: float) -> None:
        """Somebody outside (a BMC) holds a limit; the lower of both is enforced."""
        self._state.held_limit_mw = int(limit_w * 1000)

    def ignore_lock(self) -> None:
        """Lock calls succeed and change nothing."""
        self._state.ignore_lock = 1

    def unlock(self) -> None:
        """Take the clock lock away, as another tool would."""
        self._state.lock_mhz = 0

    def refuse_reset(self) -> None:
        """ResetGpuLockedClocks is NOT_SUPPORTED."""
        self._state.no_reset = 1

    def well(self) -> None:
        """End every fault."""
        for name, _ in _Gpu._fields_[7:17]:
            setattr(self._state, name, 0)


class FakeNode:
    """A node of A100-like GPUs behind a control file, and the environment in which a process sees it."""

    def __init__(self, lib_dir: Path, path: Path, gpus: int = 8, prefix: str = "GPU-fake") -> None:
        self.lib_dir = lib_dir
        path.write_bytes(bytes(ctypes.sizeof(_Node)))
        self.env = {"LD_LIBRARY_PATH": str(lib_dir), "POLCAD_FAKE_NVML": str(path)}
        with path.open("r+b") as file:
            self._state = _Node.from_buffer(mmap.mmap(file.fileno(), 0))
        self._state.size, self._state.count, self._state.cuda_minor = ctypes.sizeof(_Node), gpus, 0
        self.gpus = [FakeGpu(self._state.gpus[slot]) for slot in range(gpus)]
        self.reorder(range(gpus))
        for index, gpu in enumerate(self.gpus):
            gpu.uuid, gpu.limit_w = f"{prefix}-{index}", 400
            gpu.persist(True)

    @property
    def uuids(self) -> tuple[str, ...]:
        """In order of the slots, which never move; the order of the indices is `reorder`'s."""
        return tuple(gpu.uuid for gpu in self.gpus)

    @property
    def inits(self) -> int:
        """Successful initialisations so far, of all processes."""
        return int(self._state.inits)

    def reorder(self, slots: Sequence[int]) -> None:
        """Which slot each index names from the next init on."""
        self._state.order[: len(slots)] = list(slots)

    def load(self, load: float) -> None:
        """Load every GPU alike."""
        for gpu in self.gpus:
            gpu.load(load)

    def advance(self, seconds: float) -> None:
        """Let the boards believe that time has passed: energy and averages."""
        self._state.time_offset_s += seconds

    def averaging(self) -> None:
        """Be a board after GA100: GetPowerUsage is an average."""
        self._state.cuda_minor = 6

    def unload_driver(self) -> None:
        """The driver goes: calls are UNINITIALIZED, init is DRIVER_NOT_LOADED, locks, limits and energy are lost."""
        self._state.driver_missing = 1
        self._state.driver_epoch += 1
        for slot in range(self._state.count):
            state = self._state.gpus[slot]
            state.lock_mhz, state.limit_mw, state.energy_mj = 0, 400_000, 0

    def load_driver(self) -> None:
        """The driver is back."""
        self._state.driver_missing = 0

    def reload_driver(self) -> None:
        """Both in one moment."""
        self.unload_driver()
        self.load_driver()


@dataclass(frozen=True, slots=True)
class FakeNvml:
    """One node in a process's eyes: where the library lies, how to command it, and the environment that finds it."""

    lib_dir: Path
    control: FakeNode
    env: dict[str, str]


def build(source: Path, out: Path, *flags: str) -> Path:
    """Compile the library into folder `out`; returns the folder. gcc must be there: the tests do not skip."""
    gcc = shutil.which("gcc")
    if gcc is None:
        raise FileNotFoundError("gcc compiles the fake NVML library: install the package gcc")
    out.mkdir(parents=True)
    target = out / "libnvidia-ml.so.1"
    command = [gcc, *flags, "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread"]
    subprocess.run([*command, "-Wl,-soname,libnvidia-ml.so.1", "-o", target, source], check=True)
    return out
