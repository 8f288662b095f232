"""What reading this node's GPUs gives and costs. It reads only: no setting is touched.

    PYTHONPATH=. python3 benchmarks/gpu/nvml_read.py [--load] [--seconds 20] [--hz 10]

With ``--load`` a second process (PyTorch) drives GPU 0 through prompt-like bursts (large matrix products), decode-like
stretches (matrix-vector products, bound by memory) and pauses. Printed as Markdown tables.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import fields
from itertools import pairwise
from typing import Any

import pynvml

from collectors.nvml import ENFORCED, FIELDS, QUICK, REQUESTED, NvmlCollector
from polcad.model import Reading

CALLS, CALL_PERIOD_S = 10, 0.05
LOAD = """
import sys, time, torch
a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
v = torch.randn(8192, 4, device="cuda", dtype=torch.bfloat16)
def busy(seconds, step):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for _ in range(20): step()
        torch.cuda.synchronize()
busy(0.5, lambda: a @ a)
print("ready", flush=True)
while True:
    busy(0.4, lambda: a @ a); busy(1.6, lambda: a @ v); time.sleep(1.0)
"""


def main() -> None:
    """Print the tables."""
    options = _options()
    collector = NvmlCollector({"deadline_s": 2.0})
    try:
        _board_table()
        _reading_table("idle", collector.read(time.monotonic() - 60))
        _call_table()
        _run("idle", collector, options)
        if options.load:
            _under_load(collector, options)
    finally:
        collector.close()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--load", action="store_true", help="load GPU 0 with PyTorch")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long to read")
    parser.add_argument("--hz", type=float, default=10.0, help="readings a second")
    return parser.parse_args()


def _board_table() -> None:
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    memory = max(pynvml.nvmlDeviceGetSupportedMemoryClocks(handle))
    grid = sorted(pynvml.nvmlDeviceGetSupportedGraphicsClocks(handle, memory))
    steps = sorted({b - a for a, b in pairwise(grid)})
    low, high = pynvml.nvmlDeviceGetPowerManagementLimitConstraints(handle)
    rows = {
        "board": pynvml.nvmlDeviceGetName(handle),
        "driver": pynvml.nvmlSystemGetDriverVersion(),
        "GPUs": pynvml.nvmlDeviceGetCount(),
        "graphics clocks": f"{len(grid)}, {grid[0]}-{grid[-1]} MHz, steps {steps} (at {memory} MHz memory)",
        "greatest SM clock": f"{pynvml.nvmlDeviceGetMaxClockInfo(handle, pynvml.NVML_CLOCK_SM)} MHz",
        "limits": f"{low / 1000:.0f}-{high / 1000:.0f} W",
        "requested, enforced": f"{pynvml.nvmlDeviceGetPowerManagementLimit(handle) / 1000:.1f}, "
        f"{pynvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1000:.1f} W",
        "the same by fields": [
            field.value.uiVal / 1000 for field in pynvml.nvmlDeviceGetFieldValues(handle, (REQUESTED, ENFORCED))
        ],
    }
    _table("GPU 0", rows)


def _reading_table(when: str, reading: Reading) -> None:
    columns = {item.name: getattr(reading.gpus, item.name)[0] for item in fields(reading.gpus) if item.name != "uuid"}
    _table(f"GPU 0, one reading, {when}", {"kind": reading.kind} | columns)


def _call_table() -> None:
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    calls: dict[str, Callable[[], Any]] = {
        "GetFieldValues: power, limits": lambda: pynvml.nvmlDeviceGetFieldValues(handle, QUICK),
        "GetFieldValues: energy, too": lambda: pynvml.nvmlDeviceGetFieldValues(handle, FIELDS),
        "GetPowerUsage": lambda: pynvml.nvmlDeviceGetPowerUsage(handle),
        "GetUtilizationRates": lambda: pynvml.nvmlDeviceGetUtilizationRates(handle),
        "GetMemoryInfo": lambda: pynvml.nvmlDeviceGetMemoryInfo(handle),
        "GetClockInfo(SM)": lambda: pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM),
        "GetTemperature": lambda: pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU),
        "GetCurrentClocksEventReasons": lambda: pynvml.nvmlDeviceGetCurrentClocksEventReasons(handle),
        "GetPowerManagementLimit": lambda: pynvml.nvmlDeviceGetPowerManagementLimit(handle),
        "GetEnforcedPowerLimit": lambda: pynvml.nvmlDeviceGetEnforcedPowerLimit(handle),
    }
    rows = {}
    for name, call in calls.items():
        walls, cpu_s = _timed(call, CALLS, CALL_PERIOD_S)
        rows[name] = f"{1e6 * statistics.median(walls):.0f} µs, {1e6 * cpu_s / CALLS:.0f} µs CPU"
    _table(f"one call every {CALL_PERIOD_S} s, median of {CALLS}; CPU with the sleep between", rows)


def _timed(call: Callable[[], Any], times: int, period_s: float) -> tuple[list[float], float]:
    """Wall seconds of each call, and CPU seconds of the process in all."""
    walls = []
    before_s, due = time.process_time(), time.perf_counter()
    for _ in range(times):
        start = time.perf_counter()
        call()
        walls.append(time.perf_counter() - start)
        due += period_s
        time.sleep(max(due - time.perf_counter(), 0.0))
    return walls, time.process_time() - before_s


def _run(when: str, collector: NvmlCollector, options: argparse.Namespace) -> None:
    """Read at the pace given; what it cost, and what the power numbers say against each other."""
    readings: list[tuple[float, Reading]] = []

    def read() -> None:
        t = time.monotonic()
        readings.append((t, collector.read(t)))

    walls, cpu_s = _timed(read, int(options.seconds * options.hz), 1 / options.hz)
    elapsed_s = readings[-1][0] - readings[0][0]
    wall_ms = sorted(1000 * wall for wall in walls)
    cost = {
        "readings": f"{len(readings)} in {elapsed_s:.1f} s",
        "CPU": f"{100 * cpu_s / elapsed_s:.2f} % of a core, {1000 * cpu_s / len(readings):.2f} ms a reading",
        "wall, median / P99": f"{statistics.median(wall_ms):.2f} / {wall_ms[int(len(wall_ms) * 0.99)]:.2f} ms",
        "faults": sum(any(reading.gpus.fault) for _, reading in readings),
    }
    _table(f"{options.hz:g} Hz, {when}", cost | _powers(readings))


def _powers(readings: list[tuple[float, Reading]]) -> dict[str, object]:
    """GPU 0: instant against average, and against the energy counter between its first and last reading."""
    instant = [reading.gpus.power_w[0] or 0.0 for _, reading in readings]
    average = [reading.gpus.average_w[0] or 0.0 for _, reading in readings]
    apart = [abs(a - b) for a, b in zip(instant, average, strict=True)]
    moves = [abs(b - a) for a, b in pairwise(instant)]
    energy = [(n, t, r.gpus.energy_j[0]) for n, (t, r) in enumerate(readings) if r.gpus.energy_j[0] is not None]
    (first, t0, j0), (last, t1, j1) = energy[0], energy[-1]
    return {
        "instant W: least, mean, most": _spread(instant),
        "average W: least, mean, most": _spread(average),
        "instant against average, mean and most": f"{statistics.mean(apart):.0f}, {max(apart):.0f} W",
        "instant from reading to reading, most": f"{max(moves):.0f} W",
        "instant repeated": f"{sum(move == 0 for move in moves)} of {len(moves)}",
        f"mean W of {t1 - t0:.1f} s: by energy, by instant": f"{((j1 or 0) - (j0 or 0)) / max(t1 - t0, 1e-9):.1f}, "
        f"{statistics.mean(instant[first : last + 1]):.1f}",
    }


def _spread(power_w: list[float]) -> str:
    return f"{min(power_w):.1f}, {statistics.mean(power_w):.1f}, {max(power_w):.1f}"


def _under_load(collector: NvmlCollector, options: argparse.Namespace) -> None:
    with subprocess.Popen([sys.executable, "-c", LOAD], stdout=subprocess.PIPE, text=True) as load:
        try:
            if not load.stdout or load.stdout.readline() != "ready\n":
                sys.exit("the load did not start: it needs PyTorch with CUDA")
            _reading_table("under load", collector.read(time.monotonic() - 60))
            _run("under load", collector, options)
        finally:
            load.kill()


def _table(title: str, rows: Mapping[str, object]) -> None:
    print(f"\n| {title} | |\n| --- | --- |")
    for name, value in rows.items():
        print(f"| {name} | {value} |")


if __name__ == "__main__":
    main()
