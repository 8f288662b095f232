"""Fuzz what takes bytes from strangers, each target for a time; a finding is kept, and told again by its own test.

python -m tests.fuzz [--only TARGET] [--seconds 60]
"""

from __future__ import annotations

import argparse
import hashlib
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.table import TARGETS

WORK = Path("build/fuzz")
HANG_S, MEMORY_MIB, LONGEST_BYTES = 10, 1024, 65_536
_STAT = re.compile(r"^stat::(\w+):\s+(\d+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one target."""

    name: str
    runs: int
    runs_per_s: int
    peak_mib: int
    found: tuple[Path, ...]


def fuzz(name: str, seconds: int) -> Outcome:
    """Run one target for so long, from its seeds and what earlier runs kept."""
    corpus, findings = WORK / name, WORK / "found"
    for folder in (corpus, findings):
        folder.mkdir(parents=True, exist_ok=True)
    for seed in TARGETS[name].seeds():
        (corpus / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
    before = set(findings.iterdir())
    limits = [f"-timeout={HANG_S}", f"-rss_limit_mb={MEMORY_MIB}", f"-max_len={LONGEST_BYTES}"]
    command = [sys.executable, "-m", "tests.fuzz.child", name, f"-max_total_time={seconds}", *limits]
    command += ["-print_final_stats=1", f"-artifact_prefix={findings}/{name}-", str(corpus)]
    log = WORK / f"{name}.log"
    with log.open("w") as file:
        code = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False).returncode
    told = {key: int(value) for key, value in _STAT.findall(log.read_text(errors="replace"))}
    found = tuple(sorted(set(findings.iterdir()) - before))
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
    options = parser.parse_args()
    found = False
    sys.stdout.write("| target | runs | a second | most memory | found |\n|---|---|---|---|---|\n")
    for name in options.only or TARGETS:
        outcome = fuzz(name, options.seconds)
        found |= bool(outcome.found)
        what = ", ".join(map(str, outcome.found)) or "nothing"
        sys.stdout.write(
            f"| {name} | {outcome.runs} | {outcome.runs_per_s} | {outcome.peak_mib} MiB | {what} |\n",
        )
        sys.stdout.flush()
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
