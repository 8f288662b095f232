"""Series and integrals of a simulated cluster, taken as it runs."""

from __future__ import annotations

from math import ceil

import numpy as np

from polcad.cluster.nouns import KINDS, Kind, Slo
from polcad.sim import serving
from polcad.sim.cluster_model import TICK_S
from polcad.sim.cluster_result import Series, quantile_s
from polcad.sim.deployment import Deployment
from polcad.sim.engines import Engines
from polcad.sim.requests import HOUR_S, Ints

_SAMPLE_S = 60.0  # of the series, at least
_SLOWEST_S = 1800.0  # over so long the slowest hundredth is taken
_ENOUGH = 500  # requests of a kind, to know their slowest hundredth
_MOST_SAMPLES = 2016  # every five minutes of a week


class Slowest:
    """What the slowest hundredth of each kind took in the last half hour, as engines would tell."""

    def __init__(self, engines: Engines) -> None:
        self.known: dict[Kind, Slo] = {}
        self._engines, self._next_s = engines, _SLOWEST_S
        self._before = self._counts()

    def look(self, t: float) -> None:
        """Renew it, each half hour."""
        if t < self._next_s:
            return
        self._next_s = t + _SLOWEST_S
        counts = self._counts()
        bins, self._before = counts - self._before, counts
        self.known = {}
        for place, kind in enumerate(KINDS):
            ttft_s, tbt_s = (quantile_s(each[place], 0.99) for each in bins)
            if ttft_s is not None and bins[0, place].sum() >= _ENOUGH:
                self.known[kind] = Slo(ttft_s, tbt_s or 0.0)

    def _counts(self) -> Ints:
        return np.stack([self._engines.world.ttft, self._engines.world.tbt])


class Sampling:
    """Series and integrals of a run."""

    def __init__(self, engines: Engines, deployment: Deployment, seconds: int, unused_w: float) -> None:
        self._engines, self._deployment, self._unused_w = engines, deployment, unused_w
        wide = max(_SAMPLE_S, seconds / _MOST_SAMPLES)
        self._ticks = ceil(wide / TICK_S)
        self.series = Series()
        self.gpu_s = self.unused_s = self.instance_s = 0.0  # of GPUs in instances, of those beside them, of instances
        self._sums = np.zeros(3)  # GPUs, instances, clocks
        self._count, self._energy_j = 0, 0.0
        self._ended, self._late = 0, 0
        self._ttft, self._tbt = (np.zeros(serving.BINS, np.int64) for _ in range(2))
        self._hours: list[float] = []

    def tick(self, end_s: float) -> None:
        """A tick has ended."""
        there = self._deployment.census()
        self.gpu_s += there.gpus * TICK_S
        self.unused_s += there.unused * TICK_S
        self.instance_s += there.instances * TICK_S
        self._sums += there.gpus, there.instances, there.clock_frac
        self._count += 1
        if end_s % HOUR_S == 0:
            self._hours.append(self._drawn_j())
        if self._count == self._ticks:
            self._sample(end_s)

    def hours_j(self) -> tuple[float, ...]:
        """Energy by the hour; the last may be a part of one."""
        ends = [*self._hours, self._drawn_j()]
        return tuple(np.diff(ends, prepend=0.0).tolist())

    @property
    def unused_j(self) -> float:
        """What GPUs in no instance drew, in servers that have one."""
        return self.unused_s * self._unused_w

    def _drawn_j(self) -> float:
        return self._engines.energy_j() + self.unused_j

    def _sample(self, end_s: float) -> None:
        series, world, span_s = self.series, self._engines.world, self._count * TICK_S
        energy_j, ended, late = self._drawn_j(), int(world.tally.finished.sum()), int(world.tally.late.sum())
        ttft, tbt = world.ttft.sum(axis=0), world.tbt.sum(axis=0)
        gpus, instances, clock = (self._sums / self._count).tolist()
        series.at_s.append(end_s)
        series.power_w.append((energy_j - self._energy_j) / span_s)
        series.requests_per_s.append((ended - self._ended) / span_s)
        series.gpus.append(gpus)
        series.instances.append(instances)
        series.clock_frac.append(clock)
        series.ttft_p99_s.append(quantile_s(ttft - self._ttft, 0.99))
        series.tbt_p99_s.append(quantile_s(tbt - self._tbt, 0.99))
        series.late_frac.append((late - self._late) / max(1, ended - self._ended))
        self._energy_j, self._ended, self._late, self._ttft, self._tbt = energy_j, ended, late, ttft, tbt
        self._sums, self._count = np.zeros(3), 0
