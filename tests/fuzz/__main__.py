"""Fuzz what takes bytes from strangers, each target for a time; a finding is kept, and told again by its own test.

python -m tests.fuzz [--only TARGET] [--seconds 60] [--out docs/fuzz.md]
"""

from __future__ import annotations

import argparse
import hashlib
import re
import subprocess
import sys
from pathlib import Path

from tests.fuzz.page import HANG_S, LONGEST_BYTES, MEMORY_MIB, Outcome, page
from tests.fuzz.table import TARGETS

WORK = Path("build/fuzz")
_FOUND = re.compile(r"Test unit written to (\S+)")
_STAT = re.compile(r"^stat::(\w+):\s+(\d+)$", re.MULTILINE)


def fuzz(name: str, seconds: int) -> Outcome:
    """Run one target for so long, from its seeds and what earlier runs kept."""
    corpus, findings = WORK / name, WORK / "found"
    for folder in (corpus, findings):
        folder.mkdir(parents=True, exist_ok=True)
    for seed in TARGETS[name].seeds():
        (corpus / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
    limits = [f"-timeout={HANG_S}", f"-rss_limit_mb={MEMORY_MIB}", f"-max_len={LONGEST_BYTES}"]
    command = [sys.executable, "-m", "tests.fuzz.child", name, f"-max_total_time={seconds}", *limits]
    command += ["-print_final_stats=1", f"-artifact_prefix={findings}/{name}-", str(corpus)]
    log = WORK / f"{name}.log"
    with log.open("w") as file:
        code = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False).returncode
    text = log.read_text(errors="replace")
    told = {key: int(value) for key, value in _STAT.findall(text)}
    found = tuple(map(Path, _FOUND.findall(text)))
    if code and not found:
        raise SystemExit(f"{name}: it could not run, see {log}")
    return Outcome(
        name,
        told.get("number_of_executed_units", 0),
        told.get("average_exec_per_sec", 0),
        told.get("peak_rss_mb", 0),
        found,
    )


def main() -> int:
    """0 when nothing was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=sorted(TARGETS), help="this target; may be given again")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--out", type=Path, help="keep the page here")
    options = parser.parse_args()
    outcomes = []
    for name in options.only or TARGETS:
        outcomes.append(fuzz(name, options.seconds))
        sys.stdout.write(f"{outcomes[-1].row()}\n")
        sys.stdout.flush()
    if options.out:
        options.out.write_text(page(outcomes, options.seconds))
    return 1 if any(outcome.found for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
