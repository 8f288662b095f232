"""What counters and histograms grew by between two scrapes, and what that tells: rates, quantiles, means.

A counter that fell means that its process was started anew: nothing is known then of the time between. A series that
came since began at zero; one that went, fell or is not finite takes its whole metric along. Quantiles run straight
within a bucket, as PromQL's histogram_quantile does; beyond the last finite bucket they are not known.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

from collectors.scrape import Labels

Series = Mapping[str, Mapping[Labels, float]]  # by name, then by labels
Buckets = Sequence[tuple[float, float]]  # upper bound, and how many are no greater; in order


def restarted(before: Series, now: Series) -> bool:
    """Whether any counter fell."""
    return any(
        value < before.get(name, {}).get(labels, -math.inf)
        for name, series in now.items()
        for labels, value in series.items()
    )


class Increase:
    """The growth of counters between two scrapes of one process."""

    def __init__(self, before: Series, now: Series) -> None:
        self._before, self._now = before, now

    def total(self, name: str) -> float | None:
        """Of a counter, all its series together; None where it is not known."""
        grown = self._grown(name)
        total = math.nan if grown is None else sum(grown.values())
        return total if math.isfinite(total) else None

    def mean(self, name: str) -> float | None:
        """Of what a histogram observed; None where nothing was."""
        count, total = self.total(f"{name}_count"), self.total(f"{name}_sum")
        return total / count if count and total is not None else None

    def quantile(self, name: str, q: float) -> float | None:
        """Of what a histogram observed; None where nothing was, and beyond its last finite bucket."""
        return quantile(self.buckets(name), q)

    def buckets(self, name: str) -> Buckets:
        """What a histogram observed; empty where that is not known, or makes no sense."""
        grown = self._grown(f"{name}_bucket")
        by_bound: dict[float, float] = defaultdict(float)
        for labels, value in (grown or {}).items():
            bound = _bound(dict(labels).get("le", ""))
            if bound is None:
                return ()
            by_bound[bound] += value
        found = sorted(by_bound.items())
        counts = [count for _, count in found]
        sound = math.inf in by_bound and all(map(math.isfinite, counts)) and counts == sorted(counts)
        return found if sound else ()

    def _grown(self, name: str) -> dict[Labels, float] | None:
        before, now = self._before.get(name, {}), self._now.get(name)
        if now is None or not before.keys() <= now.keys():
            return None
        grown = {labels: value - before.get(labels, 0.0) for labels, value in now.items()}
        return None if any(value < 0.0 for value in grown.values()) else grown


def quantile(buckets: Buckets, q: float) -> float | None:
    """The value that a share `q` of the observations does not pass."""
    total = buckets[-1][1] if buckets else 0.0
    lower, below = 0.0, 0.0
    for bound, count in buckets:
        if total > 0.0 and count >= q * total:
            if bound == math.inf:
                return None
            return lower + max(0.0, bound - lower) * (q * total - below) / (count - below)
        lower, below = max(0.0, bound), count
    return None


def _bound(text: str) -> float | None:
    try:
        bound = float(text)
    except ValueError:
        return None
    return None if math.isnan(bound) else bound
