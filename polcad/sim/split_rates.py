"""How many requests a second a cluster in Splitwise's pools serves within Splitwise's objectives, by simulation.

Objectives are slowdowns against the same request alone on a DGX-A100, at the median, 90 % and 99 % of the requests
(the authors' scripts): to the first token 2, 3 and 6; between tokens, and end to end, 1.25, 1.5 and 5. Requests come at
random (Poisson), with the lengths of a service; the same random numbers are used at every rate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from polcad.cluster.machines import machines
from polcad.cluster.nouns import KINDS, Demand, Slo
from polcad.cluster.split import Budget, Design, Pools, size, splits
from polcad.sim.asking import WEEKS, Asked
from polcad.sim.profiles import Floats
from polcad.sim.split_engines import SplitEngines

SHARES = (0.5, 0.9, 0.99)
SLOWDOWNS: Mapping[str, tuple[float, float, float]] = {
    "ttft": (2.0, 3.0, 6.0),
    "tbt": (1.25, 1.5, 5.0),
    "e2e": (1.25, 1.5, 5.0),
}
_NO_SLO = dict.fromkeys(KINDS, Slo(float("inf"), float("inf")))
_DRAIN_S = 600.0
_MOST = 60_000  # requests of one run
CLOSE_FRAC = 0.01  # to which a rate is sought
_BETTER_FRAC = 1.01  # times the best rate, at which another split is tried


@dataclass(frozen=True, slots=True)
class Load:
    """Requests of a service, for some time; columns are of more requests than any rate needs."""

    gaps: Floats  # between them, in mean gaps
    prompt: Floats
    output: Floats
    seconds: float

    @classmethod
    def of(cls, service: str, seconds: float, seed: int) -> Load:
        """With the lengths of ``conv`` or ``code``."""
        random = np.random.default_rng(seed)
        return cls(random.exponential(1.0, _MOST), *WEEKS[service].lengths(random, _MOST), seconds)

    def at(self, rate: float) -> Asked:
        """As many a second, from a quiet start."""
        arrive_s = np.cumsum(self.gaps) / rate
        last = int(np.searchsorted(arrive_s, self.seconds))
        return Asked(arrive_s[:last], self.prompt[:last], self.output[:last])

    @property
    def demand(self) -> Demand:
        """Its mean lengths."""
        return Demand(1.0, float(self.prompt.mean()), float(self.output.mean()))


@dataclass(frozen=True, slots=True)
class Rated:
    """Pools, and the highest rate that they serve within the objectives, requests a second; 0: none."""

    pools: Pools
    requests_per_s: float


@dataclass(frozen=True, slots=True)
class Bench:
    """A design under a load, of a model."""

    model: str
    design: Design
    load: Load
    moves: bool = True  # machines help the other pool when it is full

    def run(self, pools: Pools, rate: float) -> SplitEngines:
        """Serve the load at a rate to its end."""
        engines = SplitEngines(self.design, pools, _NO_SLO, machines(self.model)["a"], moves=self.moves)
        asked = self.load.at(rate)
        engines.take(asked, np.zeros((2, len(asked.arrive_s)), np.int64))
        engines.advance(self.load.seconds + _DRAIN_S)
        return engines

    def keeps(self, pools: Pools, rate: float) -> bool:
        """Whether all objectives are kept at a rate."""
        engines = self.run(pools, rate)
        return (
            engines.dropped == 0
            and engines.under_way == 0
            and all(
                engines.slowdown(metric, share) <= most
                for metric, limits in SLOWDOWNS.items()
                for share, most in zip(SHARES, limits, strict=True)
            )
        )

    def rate(self, pools: Pools, guess: float, least: float = 0.0, close_frac: float = CLOSE_FRAC) -> float:
        """The highest rate at which all objectives are kept, to `close_frac`; they are known to be at `least`."""
        low, high = least, max(guess, least)
        while self.keeps(pools, high):
            low, high = high, 1.25 * high
        while high - low > close_frac * high and high > CLOSE_FRAC * guess:
            middle = (low + high) / 2
            low, high = (middle, high) if self.keeps(pools, middle) else (low, middle)
        return low

    def best(self, budget: Budget) -> Rated:
        """The pools within a budget that serve most; from what is estimated, to where no neighbour does better."""
        first = size(self.design, self.load.demand, self._slo(), budget)
        found = Rated(first.pools, self.rate(first.pools, max(first.requests_per_s, 1.0)))
        if self.design.token is None:
            return found
        ways = list(splits(self.design, budget))
        for step in (4, 2, 1):
            found = self._climb(ways, found, step)
        return found

    def _climb(self, ways: list[Pools], found: Rated, step: int) -> Rated:
        """Go `step` splits on while that serves more."""
        for way in (step, -step):
            place = ways.index(found.pools) + way
            while 0 <= place < len(ways):
                better = _BETTER_FRAC * max(found.requests_per_s, 1.0)
                if not self.keeps(ways[place], better):
                    break
                found = Rated(ways[place], self.rate(ways[place], 1.1 * better, better))
                place += way
        return found

    def _slo(self) -> Slo:
        """About what the objectives of the median allow, to begin with."""
        alone, demand = machines(self.model)["a"], self.load.demand
        each_s = alone.token_s(1, demand.prompt_tokens + 0.5 * demand.output_tokens)
        return Slo(SLOWDOWNS["ttft"][-1] * alone.prompt_s(demand.prompt_tokens), SLOWDOWNS["tbt"][0] * each_s)
