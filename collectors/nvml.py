"""NVIDIA GPUs, read through the driver's own library (NVML).

Each GPU is read on a worker of the session (`collectors.nvml_session`) in six calls: one for power and limits (field
values, each with its own return code), and one each for utilisation, memory, clock, temperature and throttle reasons.
Total energy rides along every `energy_s` only and is None in between: on an H100 it alone costs ten times the rest.

What the board or an old driver cannot tell is None, never 0. Zeros and spikes pass as read: the controller judges them.
A GPU that cannot be read stays in the columns with its constants, power None and the reason in `fault`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import pynvml

from collectors.nvml_session import GONE, NvmlSession
from polcad.errors import ConfigError
from polcad.model import Gpus, PowerKind, Reading

INSTANT, AVERAGE, ENERGY, ENFORCED, REQUESTED = FIELDS = (
    pynvml.NVML_FI_DEV_POWER_INSTANT,
    pynvml.NVML_FI_DEV_POWER_AVERAGE,
    pynvml.NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION,
    pynvml.NVML_FI_DEV_POWER_CURRENT_LIMIT,
    pynvml.NVML_FI_DEV_POWER_REQUESTED_LIMIT,
)
VALUES = {
    pynvml.NVML_VALUE_TYPE_DOUBLE: "dVal",
    pynvml.NVML_VALUE_TYPE_UNSIGNED_INT: "uiVal",
    pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG: "ulVal",
    pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG: "ullVal",
    pynvml.NVML_VALUE_TYPE_SIGNED_LONG_LONG: "sllVal",
}
NOT_KNOWN_HERE = frozenset(  # the driver or board has no such field: another call may have it
    {
        pynvml.NVML_ERROR_NOT_SUPPORTED,
        pynvml.NVML_ERROR_INVALID_ARGUMENT,
        pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
    }
)
# What the model takes; beyond lie sentinels only: 0x7FFFFFF0 and up, of 64-bit numbers 0x7FFFFFFFFFFFFFF0 and up.
MOST_MW, MOST_MHZ, MOST_C, MOST_MJ, MOST_PERCENT, MOST_BITS = 100_000_000, 100_000, 300, 10**18, 100, 2**53
LONGEST_S = 3600
GA100 = (8, 0)  # compute capability: the last chip whose GetPowerUsage is the value of the moment


QUICK = tuple(field for field in FIELDS if field != ENERGY)


class Board(NamedTuple):
    """What does not change while the driver is loaded."""

    max_w: float | None = None
    min_w: float | None = None
    max_mhz: float | None = None
    averages: bool = True  # whether GetPowerUsage is a 1 s average


class Sample(NamedTuple):
    """One GPU's numbers; the names are those of `polcad.model.Gpus`."""

    power_w: float | None = None
    average_w: float | None = None
    energy_j: float | None = None
    util_frac: float | None = None
    memory_frac: float | None = None
    sm_mhz: float | None = None
    temp_c: float | None = None
    throttle: int | None = None
    limit_w: float | None = None
    enforced_w: float | None = None
    kind: PowerKind = PowerKind.INSTANT
    fault: str | None = None


class NvmlCollector:
    """The GPUs of this node (a `polcad.ports.Collector`).

    Options, in seconds: `deadline_s` (0.5), how long one reading waits for a GPU, and `energy_s` (5), how often its
    energy is read. Raises ConfigError for others and bad ones, and UnavailableError where there is no driver or no GPU.
    `session` is for the device that sets the same GPUs.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        deadline_s, self._energy_s = _options(options)
        self.session = NvmlSession(deadline_s)
        self._boards: dict[str, tuple[int, Board]] = {}  # by UUID, with the generation they were read in
        self._energy_t: dict[str, float] = {}  # by UUID, when energy was last read

    def read(self, t: float) -> Reading:
        """All GPUs now. Never raises for a GPU; takes `deadline_s` longer at most for one that begins to hang."""
        answers = self.session.call({uuid: partial(self._sample, uuid, t) for uuid in self.session.uuids()})
        samples = [_or_fault(answer) for answer in answers.values()]
        boards = [self._boards.get(uuid, (0, Board()))[1] for uuid in answers]
        averaged = any(sample.kind is PowerKind.AVERAGE for sample in samples)
        return Reading(_columns(tuple(answers), samples, boards), PowerKind.AVERAGE if averaged else PowerKind.INSTANT)

    def close(self) -> None:
        """Leave the driver."""
        self.session.close()

    def _sample(self, uuid: str, t: float, handle: object) -> Sample:
        """On the GPU's worker."""
        generation = self.session.generation()
        known, board = self._boards.get(uuid, (0, Board()))
        if known != generation:
            board = _board(handle)
            self._boards[uuid] = (generation, board)
        if abs(t - self._energy_t.get(uuid, float("-inf"))) < self._energy_s:  # abs: clocks jump back, too
            return _sample(handle, board, QUICK)
        self._energy_t[uuid] = t
        return _sample(handle, board, FIELDS)


def _options(options: Mapping[str, Any]) -> tuple[float, float]:
    unknown = sorted(options.keys() - {"deadline_s", "energy_s"})
    if unknown:
        raise ConfigError(f"collector nvml: unknown option {unknown[0]}: it takes deadline_s and energy_s")
    return _seconds(options, "deadline_s", 0.5, least=0.01), _seconds(options, "energy_s", 5.0, least=0.0)


def _seconds(options: Mapping[str, Any], name: str, default: float, least: float) -> float:
    value = options.get(name, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= LONGEST_S:
        raise ConfigError(f"collector nvml: {name}={value!r} is not a number of seconds from {least:g} to {LONGEST_S}")
    return float(value)


def _or_fault(answer: Sample | Exception) -> Sample:
    return Sample(fault=str(answer)[:512]) if isinstance(answer, Exception) else answer


def _columns(uuids: tuple[str, ...], samples: list[Sample], boards: list[Board]) -> Gpus:
    power, average, energy, util, memory, sm, temp, throttle, limit, enforced, _, fault = zip(*samples, strict=True)
    max_w, min_w, max_mhz, _ = zip(*boards, strict=True)
    return Gpus(
        uuids,
        power,
        max_w,
        min_w=min_w,
        average_w=average,
        energy_j=energy,
        util_frac=util,
        memory_frac=memory,
        sm_mhz=sm,
        max_mhz=max_mhz,
        temp_c=temp,
        throttle=throttle,
        limit_w=limit,
        enforced_w=enforced,
        fault=fault,
    )


def _board(handle: object) -> Board:
    limits = _ask(pynvml.nvmlDeviceGetPowerManagementLimitConstraints, handle) or (None, None)
    chip = _ask(pynvml.nvmlDeviceGetCudaComputeCapability, handle)
    return Board(
        max_w=_watts(limits[1]),
        min_w=_watts(limits[0]),
        max_mhz=_at_most(MOST_MHZ, _ask(pynvml.nvmlDeviceGetMaxClockInfo, handle, pynvml.NVML_CLOCK_SM)),
        averages=chip is None or tuple(chip) > GA100,
    )


def _sample(handle: object, board: Board, wanted: tuple[int, ...]) -> Sample:
    fields, unknown = _fields(handle, wanted)
    power_mw, kind = fields.get(INSTANT), PowerKind.INSTANT
    if INSTANT in unknown:
        power_mw = _ask(pynvml.nvmlDeviceGetPowerUsage, handle)
        kind = PowerKind.AVERAGE if board.averages else PowerKind.INSTANT
    if REQUESTED in unknown:
        fields[REQUESTED] = _ask(pynvml.nvmlDeviceGetPowerManagementLimit, handle)
    if ENFORCED in unknown:
        fields[ENFORCED] = _ask(pynvml.nvmlDeviceGetEnforcedPowerLimit, handle)
    power_w = _watts(power_mw)
    return Sample(
        power_w=power_w,
        average_w=_watts(fields.get(AVERAGE)),
        energy_j=_joules(fields.get(ENERGY)),
        util_frac=_util_frac(_ask(pynvml.nvmlDeviceGetUtilizationRates, handle)),
        memory_frac=_memory_frac(_ask(pynvml.nvmlDeviceGetMemoryInfo, handle)),
        sm_mhz=_at_most(MOST_MHZ, _ask(pynvml.nvmlDeviceGetClockInfo, handle, pynvml.NVML_CLOCK_SM)),
        temp_c=_at_most(MOST_C, _ask(pynvml.nvmlDeviceGetTemperature, handle, pynvml.NVML_TEMPERATURE_GPU)),
        throttle=_at_most(MOST_BITS, _ask(_throttle_reasons, handle)),
        limit_w=_watts(fields.get(REQUESTED)),
        enforced_w=_watts(fields.get(ENFORCED)),
        kind=kind,
        fault=None if power_w is not None else "the driver gives no power",
    )


def _ask(function: Callable[..., Any], *args: object) -> Any:
    """What the call returns; None where the board or driver cannot tell. Raises when the GPU or driver is gone."""
    try:
        return function(*args)
    except pynvml.NVMLError as error:
        if error.value in GONE:
            raise
        return None


def _fields(handle: object, wanted: tuple[int, ...]) -> tuple[dict[int, Any], set[int]]:
    """The fields that were read, and those that this driver or board does not know."""
    try:
        entries = pynvml.nvmlDeviceGetFieldValues(handle, wanted)
    except pynvml.NVMLError as error:
        if error.value in GONE:
            raise
        return {}, set(wanted) if error.value in NOT_KNOWN_HERE else set()
    values, unknown = {}, set()
    for entry in entries:
        if entry.nvmlReturn == pynvml.NVML_SUCCESS:
            values[entry.fieldId] = getattr(entry.value, VALUES.get(entry.valueType, "uiVal"))
        elif entry.nvmlReturn in NOT_KNOWN_HERE:
            unknown.add(entry.fieldId)
    return values, unknown


def _throttle_reasons(handle: object) -> Any:
    try:
        return pynvml.nvmlDeviceGetCurrentClocksEventReasons(handle)
    except pynvml.NVMLError_FunctionNotFound:  # its name before driver 535
        return pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)


def _at_most(most: float, value: Any) -> Any:
    return value if value is not None and value <= most else None


def _watts(power_mw: Any) -> float | None:
    return power_mw / 1000 if _at_most(MOST_MW, power_mw) is not None else None


def _joules(energy_mj: Any) -> float | None:
    return energy_mj / 1000 if _at_most(MOST_MJ, energy_mj) is not None else None


def _util_frac(rates: Any) -> float | None:
    return rates.gpu / 100 if rates is not None and rates.gpu <= MOST_PERCENT else None


def _memory_frac(memory: Any) -> float | None:
    return memory.used / memory.total if memory is not None and memory.used <= memory.total > 0 else None
