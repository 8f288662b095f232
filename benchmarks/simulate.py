"""The simulated row: what a day costs, by servers and by days; it must grow with both, and no faster.

One process, one core; compiled where numba is installed (the extra `sim`). POLCA holds the low priority most of the
day on a row this full, so nearly every reading goes through the controller: the dearest case.

    python benchmarks/simulate.py [--days 1]
"""

from __future__ import annotations

import argparse
import resource
from time import perf_counter, process_time

from rich.console import Console
from rich.table import Table

from polcad.plugins import load
from polcad.sim.compiled import COMPILED
from polcad.sim.requests import WEEK_S
from polcad.sim.row import RowModel, simulate

DAY_WEEKS = 86_400 / WEEK_S
SHAPES = ((13, 1.0), (26, 1.0), (52, 1.0), (104, 1.0), (52, 0.5), (52, 2.0))  # servers, days of those asked for


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=float, default=1.0)
    days = parser.parse_args().days
    row(52, "polca", 0.01)  # compiles
    title = f"a row under POLCA, {'compiled' if COMPILED else 'plain Python: install polcad[sim]'}"
    table = Table("servers", "days", "policy", "s", "CPU s", "CPU s a day", "ms a server-day", title=title)
    for policy in ("polca", "no_cap"):
        for servers, part in SHAPES:
            length = days * part
            wall_s, cpu_s = row(servers, policy, length)
            each = cpu_s / length
            cells = (f"{wall_s:.1f}", f"{cpu_s:.1f}", f"{each:.1f}", f"{1000 * each / servers:.0f}")
            table.add_row(str(servers), f"{length:g}", policy, *cells)
    Console().print(table)
    print(f"most memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


def row(servers: int, policy: str, days: float) -> tuple[float, float]:
    """Wall and CPU seconds of one run; the budget grows with the row, 40 servers' for every 52."""
    made = load("polcad.policies", policy)()
    model = RowModel(servers, made, weeks=days * DAY_WEEKS, budget_w=servers * 6500.0 * 40 / 52)
    wall, cpu = perf_counter(), process_time()
    simulate(model)
    return perf_counter() - wall, process_time() - cpu


if __name__ == "__main__":
    main()
