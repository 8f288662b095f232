"""Makes recordings for `polcad backtest` out of public measurements, with polcad's own importers.

    python scripts/forecast_data.py DATA OUT [--hours 9]

DATA has the folders nanogpt_training, cisco_h200 and openg2g_mlenergy_v3; OUT is made, and gets

    nanogpt.rec     one node of 8 GPUs in training, 3.3 Hz, 7.5 minutes
    cisco.rec       two nodes of 8 H200, their management controllers' readings, one in 12 s, 15 hours
    row-70b.rec     40 servers that serve Llama-3.1-70B on 4 H100, composed, one reading in 2 s
    row-30b.rec     40 servers that serve Qwen3-30B-A3B on 2 H100, likewise

A composed server plays measured traces of one model end to end, each of a batch limit drawn at random, from a random
place in the first; a trace is 10 Hz node power under full load, of which a reading is the mean of 2 s. The servers know
nothing of each other, so such a row is smoother than one whose load rises as a whole.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from polcad.importers import ImportOptions, import_log
from polcad.places import Floats

SERVERS, READING_S, TRACE_HZ = 40, 2.0, 10
START_T = 1_750_032_000  # any Monday
MODELS = {"row-70b": "Llama-3.1-70B", "row-30b": "Qwen3-30B-A3B"}


def main() -> None:
    """Make them all; a recording that exists is left as it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--hours", type=float, default=9.0, help="of the composed rows")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    nanogpt = options.data / "nanogpt_training" / "gpu_metrics_32fcbd7a.csv.gz"
    make(options.out / "nanogpt.rec", "gpu-csv", lambda _: nanogpt)
    cisco = options.data / "cisco_h200" / "power_log_shared.csv.gz"
    make(options.out / "cisco.rec", "bmc-csv", lambda _: cisco)
    for name, model in MODELS.items():
        traces = [trace(path) for path in sorted((options.data / "openg2g_mlenergy_v3" / "traces").glob(f"{model}_*"))]
        if not traces:
            raise SystemExit(f"{options.data}: there are no traces of {model} in openg2g_mlenergy_v3/traces")
        readings = round(options.hours * 3600 / READING_S)
        powers = composed(traces, readings, np.random.default_rng(len(name)))
        make(options.out / f"{name}.rec", "bmc-csv", lambda folder, powers=powers: log(folder, powers))  # type: ignore[misc]


def make(out: Path, source: str, path: Callable[[Path], Path]) -> None:
    """Import a log; `path` may write it into the folder that it is given."""
    if out.exists():
        print(f"{out}: is there already")
        return
    with tempfile.TemporaryDirectory() as folder:
        report = import_log(source, path(Path(folder)), ImportOptions(out))
    print(f"{out}: {report.messages} messages of {report.nodes} nodes, {report.last_t - report.first_t:.0f} s")


def trace(path: Path) -> Floats:
    """A measured trace, W, by reading."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        powers_w = np.array([float(row["power_total_W"]) for row in csv.DictReader(file)])
    width = round(READING_S * TRACE_HZ)
    whole = len(powers_w) - len(powers_w) % width
    means: Floats = powers_w[:whole].reshape(-1, width).mean(axis=1)
    return means


def composed(traces: list[Floats], readings: int, rng: np.random.Generator) -> Floats:
    """A row of servers, one a column."""
    columns = []
    for _ in range(SERVERS):
        played = [traces[rng.integers(len(traces))]]
        played[0] = played[0][rng.integers(len(played[0])) :]
        while sum(map(len, played)) < readings:
            played.append(traces[rng.integers(len(traces))])
        columns.append(np.concatenate(played)[:readings])
    return np.stack(columns, axis=1)


def log(folder: Path, powers_w: Floats) -> Path:
    """The row as a table of management controllers' readings."""
    path = folder / "row.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["time", *(f"n{server:02}_watts" for server in range(powers_w.shape[1]))])
        for reading, row in enumerate(powers_w.tolist()):
            writer.writerow([START_T + reading * READING_S, *(f"{power_w:.1f}" for power_w in row)])
    return path


if __name__ == "__main__":
    main()
