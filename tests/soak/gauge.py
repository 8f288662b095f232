"""What a process holds, sampled from outside, and whether that is flat."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

WARM_FRAC = 0.25  # of the samples: buffers, caches and windows fill
MOST_KIB = 2048.0  # that anonymous memory may grow in a recorded day: less than a byte a message
_SMAPS = re.compile(r"^(Anonymous|Rss):\s+(\d+) kB", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Sample:
    """A process at one moment: resident and anonymous memory (KiB), descriptors, threads; `done_frac` of the day."""

    done_frac: float
    rss_kib: int
    anonymous_kib: int
    descriptors: int
    threads: int


def sample(pid: int, done_frac: float) -> Sample:
    """The process now; OSError when it is gone."""
    folder = Path(f"/proc/{pid}")
    memory = {name: int(kib) for name, kib in _SMAPS.findall((folder / "smaps_rollup").read_text())}
    descriptors, threads = (len(list((folder / part).iterdir())) for part in ("fd", "task"))
    return Sample(done_frac, memory["Rss"], memory["Anonymous"], descriptors, threads)


@dataclass(frozen=True, slots=True)
class Verdict:
    """One process over the day, once warm."""

    first: Sample
    last: Sample
    peak_rss_kib: int
    growth_kib: float  # of anonymous memory in a recorded day, by the line through all samples
    descriptors: tuple[float, float]  # in the first third and in the last, as they mostly were
    threads: tuple[float, float]

    def broken(self) -> list[str]:
        """What is not flat."""
        found = []
        if self.growth_kib > MOST_KIB:
            found.append(f"memory grows by {self.growth_kib:.0f} KiB a day")
        if self.descriptors[1] > self.descriptors[0]:
            found.append(f"descriptors went from {self.descriptors[0]:g} to {self.descriptors[1]:g}")
        if self.threads[1] > self.threads[0]:
            found.append(f"threads went from {self.threads[0]:g} to {self.threads[1]:g}")
        return found


def judge(samples: Sequence[Sample]) -> Verdict:
    """Judge a process by its samples, oldest first."""
    warm = samples[int(WARM_FRAC * len(samples)) :]
    third = max(1, len(warm) // 3)
    growth_kib = np.polyfit([each.done_frac for each in warm], [each.anonymous_kib for each in warm], 1)[0]

    def at_both_ends(of: str) -> tuple[float, float]:
        first, last = ([getattr(each, of) for each in part] for part in (warm[:third], warm[-third:]))
        return median(first), median(last)

    return Verdict(
        warm[0],
        warm[-1],
        max(each.rss_kib for each in warm),
        float(growth_kib),
        at_both_ends("descriptors"),
        at_both_ends("threads"),
    )
