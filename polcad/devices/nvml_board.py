"""What an NVIDIA board can be set to, what a setpoint comes to on it, and the calls that set and read it.

A clock fraction is of the board's greatest SM clock, snapped down onto its grid and locked as (lowest, target). A cap
fraction is of the board's greatest limit, within its bounds, and never above the limit found at start. Application
clocks are never touched: new drivers have none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import pynvml

from polcad.errors import DeviceError

if TYPE_CHECKING:
    from polcad.model import Setpoint

TOLERANCE_MW = 1000  # boards round what they are given
ROUNDING = 1e-6  # of a float product that should be whole
LIMIT_FIELDS = (pynvml.NVML_FI_DEV_POWER_REQUESTED_LIMIT, pynvml.NVML_FI_DEV_POWER_CURRENT_LIMIT)
CANNOT = frozenset({pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_FUNCTION_NOT_FOUND})


class Board(NamedTuple):
    """What a board takes; an empty grid or None where it takes nothing."""

    grid_mhz: tuple[int, ...] = ()  # ascending
    max_mhz: int | None = None
    min_mw: int | None = None
    max_mw: int | None = None
    limit_mw: int | None = None  # requested, when this was read


class Target(NamedTuple):
    """What a setpoint comes to on one board."""

    lock_mhz: int = 0  # 0 is no lock
    limit_mw: int | None = None  # None: left alone
    capped: bool = False  # whether less than the limit found was asked for
    clamped: str = ""  # what was asked for in vain
    problem: str = ""  # why the board cannot take it at all


class Seen(NamedTuple):
    """What a board says of itself; None where it cannot."""

    requested_mw: int | None
    enforced_mw: int | None
    sm_mhz: int | None


def aim(uuid: str, setpoint: Setpoint, board: Board, found_mw: int | None) -> Target:
    """The setpoint in the board's own numbers."""
    lock_mhz, low_clock = _lock_mhz(setpoint.clock_frac, board)
    limit_mw, low_cap = _limit_mw(setpoint.cap_frac, board, found_mw)
    problems = [
        "lists no clocks to lock" if setpoint.clock_frac < 1 and not board.grid_mhz else "",
        "takes no power limit" if setpoint.cap_frac < 1 and limit_mw is None else "",
    ]
    return Target(
        lock_mhz,
        limit_mw,
        capped=setpoint.cap_frac < 1,
        clamped="; ".join(f"gpu {uuid}: {text}" for text in (low_clock, low_cap) if text),
        problem="; ".join(f"gpu {uuid}: the board {text}" for text in problems if text),
    )


def read_board(handle: object) -> Board:
    """Ask the board; a quantity that it does not know is missing."""
    min_mw, max_mw = ask(pynvml.nvmlDeviceGetPowerManagementLimitConstraints, handle) or (None, None)
    grid_mhz = _grid_mhz(handle)
    return Board(
        grid_mhz,
        ask(pynvml.nvmlDeviceGetMaxClockInfo, handle, pynvml.NVML_CLOCK_SM) or max(grid_mhz, default=None),
        min_mw,
        max_mw,
        ask(pynvml.nvmlDeviceGetPowerManagementLimit, handle),
    )


def see(handle: object) -> Seen:
    """Read back limits and clock: by fields where the driver has them, which on an H100 costs a fifth."""
    sm_mhz = ask(pynvml.nvmlDeviceGetClockInfo, handle, pynvml.NVML_CLOCK_SM)
    fields = ask(pynvml.nvmlDeviceGetFieldValues, handle, LIMIT_FIELDS)
    if fields is not None and all(field.nvmlReturn == pynvml.NVML_SUCCESS for field in fields):
        return Seen(fields[0].value.uiVal, fields[1].value.uiVal, sm_mhz)
    return Seen(
        ask(pynvml.nvmlDeviceGetPowerManagementLimit, handle),
        ask(pynvml.nvmlDeviceGetEnforcedPowerLimit, handle),
        sm_mhz,
    )


def check(handle: object, uuid: str) -> None:
    """DeviceError unless the handle is still this GPU's: indices move, and a wrong board must not be set."""
    answering = pynvml.nvmlDeviceGetUUID(handle)
    if answering != uuid:
        raise DeviceError(f"gpu {uuid}: its handle now names {answering}: nothing was set")


def lock(handle: object, board: Board, lock_mhz: int) -> None:
    """Lock the clock at `lock_mhz` and below; 0 ends the lock. Raises NVMLError."""
    if lock_mhz:
        pynvml.nvmlDeviceSetGpuLockedClocks(handle, board.grid_mhz[0], lock_mhz)
        return
    try:
        pynvml.nvmlDeviceResetGpuLockedClocks(handle)
    except pynvml.NVMLError as error:
        if error.value not in CANNOT:
            raise
        if board.grid_mhz:  # a board without a grid was never locked
            pynvml.nvmlDeviceSetGpuLockedClocks(handle, board.grid_mhz[0], board.grid_mhz[-1])


def limit(handle: object, limit_mw: int) -> None:
    """Ask for this limit where another is asked for now. Raises NVMLError."""
    if differs(pynvml.nvmlDeviceGetPowerManagementLimit(handle), limit_mw):
        pynvml.nvmlDeviceSetPowerManagementLimit(handle, limit_mw)


def differs(one_mw: int, other_mw: int) -> bool:
    """Whether two limits are more than a rounding apart."""
    return abs(one_mw - other_mw) >= TOLERANCE_MW


def ask(function: Callable[..., Any], *args: object) -> Any:
    """What the call returns; None where board or driver have no such thing. Raises other NVMLErrors."""
    try:
        return function(*args)
    except pynvml.NVMLError as error:
        if error.value not in CANNOT:
            raise
        return None


def _grid_mhz(handle: object) -> tuple[int, ...]:
    memory_mhz = ask(pynvml.nvmlDeviceGetSupportedMemoryClocks, handle)
    if not memory_mhz:
        return ()
    return tuple(sorted(ask(pynvml.nvmlDeviceGetSupportedGraphicsClocks, handle, max(memory_mhz)) or ()))


def _lock_mhz(clock_frac: float, board: Board) -> tuple[int, str]:
    """The highest clock of the grid that is not above the fraction, and what was wanted if that is below all."""
    if clock_frac >= 1 or not board.grid_mhz or board.max_mhz is None:
        return 0, ""
    wanted_mhz = clock_frac * board.max_mhz
    fitting = [mhz for mhz in board.grid_mhz if mhz <= wanted_mhz + ROUNDING]
    if fitting:
        return fitting[-1], ""
    return board.grid_mhz[0], f"clock_mhz={wanted_mhz:.1f} is below the board's {board.grid_mhz[0]:.1f}"


def _limit_mw(cap_frac: float, board: Board, found_mw: int | None) -> tuple[int | None, str]:
    """The limit to ask for in whole watts, and what was wanted if that is below the board's least."""
    if found_mw is None or cap_frac >= 1:
        return found_mw, ""
    if board.min_mw is None or board.max_mw is None:
        return None, ""
    wanted_w = cap_frac * board.max_mw / 1000
    limit_mw = min(max(int(wanted_w + ROUNDING) * 1000, board.min_mw), found_mw)
    low = wanted_w + ROUNDING < board.min_mw / 1000
    return limit_mw, f"cap_w={wanted_w:.1f} is below the board's {board.min_mw / 1000:.1f}" if low else ""
