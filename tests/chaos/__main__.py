"""Break a real row in every way there is a case for, and count what held.

python -m tests.chaos [--only CASE] [--runs 10] [--seed 7] [--jobs 4] [--stretch 1] [--long] [--out docs/reliability.md]
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from tests.chaos.bench import BY_NAME, Options, outcomes, say
from tests.chaos.cases import CASES, LONG
from tests.chaos.table import page


def main() -> int:
    """0 when every promise held in every run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=sorted(BY_NAME), help="this case; may be given again")
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--jobs", type=int, default=4, help="rows at the same time")
    parser.add_argument("--stretch", type=float, default=1.0, help="all stays broken so many times longer")
    parser.add_argument("--out", type=Path, help="keep the table here")
    parser.add_argument("--long", action="store_true", help="the cases that take minutes each, and no others")
    options = parser.parse_args()
    cases = [case for case in (LONG if options.long else CASES) if not options.only]
    cases += [BY_NAME[name] for name in options.only or ()]
    start_s, load, found = time.monotonic(), os.getloadavg()[0], {}
    for outcome in outcomes(cases, Options(options.runs, options.seed, options.jobs, options.stretch)):
        found[outcome.name] = outcome
        say(f"[{time.monotonic() - start_s:.0f} s] {outcome.name}: {'; '.join(outcome.failures) or 'held'}")
    text = page([(case, found[case.name]) for case in cases], options, time.monotonic() - start_s, load)
    sys.stdout.write(text)
    if options.out:
        options.out.write_text(text)
    return 1 if any(outcome.failures for outcome in found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
