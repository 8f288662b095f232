"""docs/fuzz.md, from the outcomes of one run."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.table import TARGETS

HANG_S, MEMORY_MIB, LONGEST_BYTES = 10, 1024, 65_536

_PAGE = """\
# Fuzzing

By `make fuzz FUZZ_S={seconds} FUZZ_OUT=docs/fuzz.md`, Python {python}, on {cores} cores with a load of {load:.0f} at
the end. One target alone: `make fuzz FUZZ_S=600 ARGS="--only importer"`.

What a stranger may send, write or answer goes to the product's own code, changed at random and led by the branches
that it takes ([atheris](https://github.com/google/atheris), libFuzzer), from seeds that the code itself makes,
and what earlier runs kept in `build/fuzz/TARGET/`. An
input finds something if the code raises anything but polcad's own errors (`polcad/errors.py`), if what it lets
through breaks what the target asserts, if it takes longer than {hang} s, or if the process needs more than {memory}
MiB. Inputs have up to {longest} bytes. Branches in C (msgspec, zstd) are not followed. A run ends with exit code 1
then, the input lies in `build/fuzz/found/`, and its traceback in `build/fuzz/TARGET.log`.

| target | what is changed | inputs | a second | most memory | found |
|---|---|---|---|---|---|
{rows}

*row*, *pools* and *node* are sequences: hypothesis makes them of the bytes. A controller is told telemetry,
placements, holds, rivals and ticks in any order and at any time. All that it says is a message that the wire takes; a
domain over its budget holds all of its own at the brake or below; while a node is silent nothing of the row is
loosened; epoch and sequence only grow; its power is a finite number. An actuator is handed plans, placements and
nonsense, time passes, and it starts anew: no GPU goes below its bounds, is looser than its plan, or is loosened in
silence, and no older plan is taken. Instances tell any load, the built-in hint policies plan by it: every hint is a
message that the wire takes. The ordinary tests run all targets over their seeds, over what was found so far, and the
sequences a few times (`tests/test_fuzz.py`). The input of a new finding belongs into its `FOUND`, as short as it can
be.

Not fuzzed: the MQTT client itself (paho, behind `intake`), TLS, and NVML, whose answers the fake of `tests/fake_nvml`
gives.

## Found so far, and mended

By this fuzzer, or while its targets were written:

- Holds beyond what a plan carries made a plan that every node refused: more than 128 are refused, and told.
- A server known by its meter alone, whose first reading was missing or low and whose nameplate nobody knows, went on
  counting no more than that.
- A node that makes up GPUs made the row count ever more lost ones; long topics were remembered without a bound; a
  small recording unpacked to half a million messages a block.
- Hangs, each by one line of at most 64 KiB: an IPMI time full of blanks, a heading of underscores, brackets or
  thousands of columns, node names that collide however they are told apart; in a configuration, a line of 3000
  blanks; in a file of keys, beginnings without an end; in an engine's metrics, a line of many labels.
- An answer of a database with a number of 5000 digits ended the thread that writes points.
- A load with a counter that fell between two readings, an infinite gauge or one beyond all counting ended its
  collector, or was refused by the wire as a whole.
- One absurd load made lengths that hints are planned by infinite for ever; a plan for more tokens a second than a
  hint can say was said, and refused by all.
- An actuator's answer about a lease of 3600 s passed its own bound by a rounding error, and the agent refused it.
- A rack's or threshold's name, or the reason of a hint, that is markup ended `polcad top` or `polcad hints`; the
  first two could give the terminal orders.
- Alien exceptions: badly packed or short traces, cells beyond csv's limit, tokens that are no number, times ten years
  apart (for memory), deeply nested bounds, baselines and heads of blocks, profiles of models, settings whose name is
  not UTF-8, a configuration path without a name, throttle reasons of 400 digits.
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one target."""

    name: str
    runs: int
    runs_per_s: int
    peak_mib: int
    found: tuple[Path, ...]

    def row(self) -> str:
        """A line of the table."""
        found = ", ".join(path.name for path in self.found) or "nothing"
        what = TARGETS[self.name].what
        return f"| {self.name} | {what} | {self.runs:,} | {self.runs_per_s:,} | {self.peak_mib} MiB | {found} |"


def page(outcomes: Sequence[Outcome], seconds: int) -> str:
    """The whole page; `seconds` were given to each target."""
    return _PAGE.format(
        seconds=seconds,
        cores=os.cpu_count(),
        load=os.getloadavg()[0],
        python=platform.python_version(),
        hang=HANG_S,
        memory=MEMORY_MIB,
        longest=LONGEST_BYTES,
        rows="\n".join(each.row() for each in outcomes),
    )
