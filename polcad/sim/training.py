"""A training job beside the requests of a row: servers of low priority that are busy at an even pace, day and night.

Every `every_s` each of its servers runs one iteration, compute-bound as a prompt is, one after the other, so that the
row sees a level and no beat. Between two of them it waits for the others and for data. A pruned job (PruneTrain,
1901.09290: 30 to 50 % fewer operations) has less to compute from stage to stage, at the same pace: its power steps
down, and that is a shift of level to whoever forecasts the row. Its iterations count as requests, in slowdowns too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Annotated

import numpy as np

from polcad.errors import ConfigError
from polcad.model import Placement, Priority, Role
from polcad.sim.profiles import Floats, Hardware, Known
from polcad.sim.requests import Batch, Ints, Pool, Source

PRUNED = (1.0, 0.87, 0.73, 0.6)  # of the operations, by quarters of the run: PruneTrain's range, in even steps; assumed
_TOKENS = np.geomspace(16.0, 262_144.0, 800)  # where an iteration's size is sought


@dataclass(frozen=True, slots=True)
class WithTraining:
    """A source, with a share of its servers given to training. ConfigError for a share that leaves none to either."""

    requests: Source
    share: float
    length_s: float  # of the run, over which the stages are spread
    stages: tuple[float, ...] = (1.0,)  # of the operations
    every_s: Annotated[float, Known("s", "assumed: between two iterations of a server")] = 4.0
    busy_frac: Annotated[float, Known("of that time", "assumed: an iteration before pruning, at the highest clock")] = (
        0.75
    )

    def __post_init__(self) -> None:
        """Refuse shares that mean nothing."""
        if not 0.0 < self.share < 1.0:
            raise ConfigError(f"--training {self.share:g}: it must be above 0 and below 1, a share of the servers")

    def pools(self, servers: int) -> tuple[Pool, ...]:
        """Those of the requests, and one for training."""
        training = max(1, round(self.share * servers))
        if training >= servers:
            raise ConfigError(f"--training {self.share:g}: of {servers} servers none is left for requests")
        own = Pool("training", training, Placement(Priority.LOW, Role.TRAINING, "training"))
        return (*self.requests.pools(servers - training), own)

    def between(
        self, start_s: float, end_s: float, pools: Sequence[Pool], hardware: Hardware, random: np.random.Generator
    ) -> Batch:
        """Requests, and among them iterations, evenly spread."""
        asked = self.requests.between(start_s, end_s, pools[:-1], hardware, random)
        each_s = self.every_s / pools[-1].servers
        arrive_s = each_s * np.arange(ceil(start_s / each_s), ceil(end_s / each_s), dtype=np.float64)
        sizes = self._tokens(hardware)[self._stage(arrive_s)]
        order = np.argsort(np.concatenate([asked.arrive_s, arrive_s]), kind="stable")
        ours = (arrive_s, sizes, np.ones(len(sizes)), np.full(len(sizes), len(pools) - 1))
        theirs = (asked.arrive_s, asked.prompt_tokens, asked.output_tokens, asked.pool)
        return Batch(*(np.concatenate(columns)[order] for columns in zip(theirs, ours, strict=True)))

    def _stage(self, at_s: Floats) -> Ints:
        places = (at_s / self.length_s * len(self.stages)).astype(np.int64)
        return np.minimum(places, len(self.stages) - 1)

    def _tokens(self, hardware: Hardware) -> Floats:
        """By stage, the prompt that takes as long as an iteration."""
        work_s = self.every_s * self.busy_frac * np.array(self.stages)
        tokens: Floats = np.interp(work_s, hardware.prompt_time_s(_TOKENS), _TOKENS)
        return tokens
