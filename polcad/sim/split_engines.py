"""Machines in Splitwise's pools behind the methods of `Engines`: they are there from the start, and stay."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from polcad.cluster.machines import Machine
from polcad.cluster.nouns import Kind, Slo
from polcad.cluster.split import Design, Pools
from polcad.sim import serving, split_serving
from polcad.sim.asking import Asked
from polcad.sim.cluster_result import quantile_s
from polcad.sim.engines import Engines
from polcad.sim.profiles import Floats
from polcad.sim.requests import Ints
from polcad.sim.speeds import Speeds
from polcad.sim.split_serving import DECODING, MIXED, NOBODY, PROMPTS, Split

METRICS = ("ttft", "tbt", "e2e")  # whose slowdowns are counted


class SplitEngines(Engines):
    """The machines of a design. `reference`: a request alone there is what slowdowns are measured against.

    `moves`: machines help the other pool when it is full.
    """

    def __init__(
        self, design: Design, pools: Pools, slo: Mapping[Kind, Slo], reference: Machine, *, moves: bool = True
    ) -> None:
        super().__init__(design.prompt.profile, pools.machines, slo)
        first, last = design.kinds[0].tensor_parallel, design.kinds[-1].tensor_parallel
        self.gpus = (pools.prompt + pools.mixed) * first + pools.token * last
        rows = (*design.kinds, reference)
        home = np.repeat(np.array([PROMPTS, DECODING, MIXED]), [pools.prompt, pools.token, pools.mixed])
        self.world = self.world._replace(speeds=_speeds(rows))
        self.split = _split(home, len(self.world.free), len(rows) - 1)._replace(moves=moves)
        for r, pool in enumerate(home.tolist()):
            self._put(r, len(design.kinds) - 1 if pool == DECODING else 0)

    def take(self, asked: Asked, kinds: Ints) -> None:
        """The arrivals that the next calls of `advance` will serve."""
        super().take(asked, kinds)
        more = len(self.world.free) - len(self.split.heir)
        if more:
            columns = (self.split.heir, self.split.moving, self.split.lands_s)
            heir, moving, lands_s = (np.concatenate([column, np.zeros(more, column.dtype)]) for column in columns)
            self.split = self.split._replace(heir=heir, moving=moving, lands_s=lands_s)

    @property
    def moved(self) -> tuple[int, int]:
        """How often a prompt machine, and a token machine, moved to the mixed pool."""
        prompt, token = self.split.moved.tolist()
        return prompt, token

    @property
    def now_mixed(self) -> int:
        """Machines that are in the mixed pool, and not there to stay."""
        return int(((self.split.pool == MIXED) & (self.split.home != MIXED)).sum())

    def slowdown(self, metric: str, share: float) -> float:
        """What a share of the requests that have ended stay below, against the same request alone; 0: none ended."""
        counts = self.split.slowdown[METRICS.index(metric)]
        return quantile_s(counts, share) or 0.0  # slowdowns are counted in the bins of latencies

    def _serve(self, end_s: float, first: int, last: int, columns: tuple[Floats, Floats, Ints]) -> None:
        split_serving.advance(end_s, first, last, *columns, self.world, self.split)

    def _put(self, r: int, row: int) -> None:
        one = self.world.instances[r]
        one.since_s = one.paid_s = one.until_s = 0.0
        one.phase = serving.IDLE
        serving.retime(r, 0.0, row, 0.0, self.world)


def _split(home: Ints, requests: int, reference: int) -> Split:
    return Split(
        whole=bool((home == MIXED).all()),
        moves=True,
        home=home,
        pool=home.copy(),
        promised=np.zeros(len(home)),
        heir=np.full(requests, NOBODY, np.int64),
        moving=np.zeros(requests, np.int64),
        lands_s=np.zeros(requests),
        travelling=np.zeros(1, np.int64),
        moved=np.zeros(2, np.int64),
        reference=reference,
        slowdown=np.zeros((len(METRICS), serving.BINS), np.int64),
    )


@lru_cache(maxsize=16)
def _speeds(machines: tuple[Machine, ...]) -> Speeds:
    """A row a machine."""
    points = sorted({point for one in machines for point in one.profile.degrees[-1].prompt_tokens})
    batches = range(machines[0].profile.batch_max + 1)
    free_s, loaded_s = (
        np.array([[one.token_s(batch, context) for batch in batches] for one in machines]) for context in (0.0, 1000.0)
    )
    return Speeds(
        prompt_tokens=np.array(points),
        prompt_s=np.array([[one.prompt_s(point) for point in points] for one in machines]),
        prompt_w=np.array([[one.prompt_w(point) for point in points] for one in machines]),
        idle_w=np.array([one.idle_w for one in machines]),
        kv_tokens=np.array([one.kv_tokens for one in machines]),
        token_s=free_s,
        context_s=(loaded_s - free_s) / 1000.0,
        token_w=np.array([[one.token_w(batch) for batch in batches] for one in machines]),
    )
