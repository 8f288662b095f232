"""Series and integrals of a simulated cluster, taken as it runs."""

from __future__ import annotations

from math import ceil

import numpy as np

from polcad.sim import serving
from polcad.sim.cluster_model import TICK_S
from polcad.sim.cluster_result import Series, quantile_s
from polcad.sim.deployment import Deployment
from polcad.sim.engines import Engines
from polcad.sim.requests import HOUR_S

_SAMPLE_S = 60.0  # of the series, at least
_MOST_SAMPLES = 2016  # every five minutes of a week


class Sampling:
    """Series and integrals of a run."""

    def __init__(self, engines: Engines, deployment: Deployment, seconds: int) -> None:
        self._engines, self._deployment = engines, deployment
        wide = max(_SAMPLE_S, seconds / _MOST_SAMPLES)
        self._ticks = ceil(wide / TICK_S)
        self.series = Series()
        self.gpu_s = self.instance_s = 0.0
        self._sums = np.zeros(3)  # GPUs, instances, clocks
        self._count, self._energy_j = 0, 0.0
        self._ended, self._late = 0, 0
        self._ttft, self._tbt = (np.zeros(serving.BINS, np.int64) for _ in range(2))
        self._hours: list[float] = []

    def tick(self, end_s: float) -> None:
        """A tick has ended."""
        deployment = self._deployment
        gpus, instances = deployment.gpus, deployment.instances
        self.gpu_s += gpus * TICK_S
        self.instance_s += instances * TICK_S
        self._sums += gpus, instances, deployment.clock_frac
        self._count += 1
        if end_s % HOUR_S == 0:
            self._hours.append(self._engines.energy_j())
        if self._count == self._ticks:
            self._sample(end_s)

    def hours_j(self) -> tuple[float, ...]:
        """Energy by the hour; the last may be a part of one."""
        ends = [*self._hours, self._engines.energy_j()]
        return tuple(np.diff(ends, prepend=0.0).tolist())

    def _sample(self, end_s: float) -> None:
        series, world, span_s = self.series, self._engines.world, self._count * TICK_S
        energy_j, ended, late = self._engines.energy_j(), int(world.tally.finished.sum()), int(world.tally.late.sum())
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
