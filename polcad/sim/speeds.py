"""A profile as the tables that the serving kernel looks things up in: a row for each shape that instances run in."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from polcad.cluster.nouns import Shape
from polcad.cluster.profiles import Profile
from polcad.sim.profiles import Floats

_ROOM = 16  # rows at first; doubled when they are full


class Speeds(NamedTuple):
    """What an instance takes and draws, by row (a shape); the last three tables by the size of the batch too."""

    prompt_tokens: Floats  # (points,): where the next two tables stand
    prompt_s: Floats  # (rows, points)
    prompt_w: Floats
    idle_w: Floats  # (rows,)
    kv_tokens: Floats
    token_s: Floats  # (rows, batch + 1): an iteration without its context
    context_s: Floats  # a token of context adds
    token_w: Floats


class SpeedTable:
    """Makes rows as they are asked for; `speeds` is to be read anew after `row`."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self._rows: dict[Shape, int] = {}
        points = sorted({point for degree in profile.degrees for point in degree.prompt_tokens})
        wide, batches = (_ROOM, len(points)), (_ROOM, profile.batch_max + 1)
        self.speeds = Speeds(
            np.array(points), *(np.zeros(size) for size in (wide, wide, _ROOM, _ROOM, batches, batches, batches))
        )

    def row(self, shape: Shape) -> int:
        """The row of a shape; ConfigError for a degree of parallelism that the profile does not know."""
        if shape not in self._rows:
            self._fill(len(self._rows), shape)
            self._rows[shape] = len(self._rows)
        return self._rows[shape]

    def _fill(self, row: int, shape: Shape) -> None:
        profile = self.profile
        if row == len(self.speeds.idle_w):
            tokens, *tables = self.speeds
            self.speeds = Speeds(tokens, *(np.concatenate([table, np.zeros_like(table)]) for table in tables))
        speeds = self.speeds
        points, batches = speeds.prompt_tokens.tolist(), range(profile.batch_max + 1)
        speeds.prompt_s[row] = [profile.prompt_s(shape, point) for point in points]
        speeds.prompt_w[row] = [profile.prompt_w(shape, point) for point in points]
        speeds.idle_w[row] = profile.idle_w(shape)
        speeds.kv_tokens[row] = profile.kv_tokens(shape.tensor_parallel)
        speeds.token_s[row] = [profile.token_s(shape, batch, 0.0) for batch in batches]
        speeds.context_s[row] = [profile.token_s(shape, batch, 1000.0) for batch in batches]
        speeds.context_s[row] = (speeds.context_s[row] - speeds.token_s[row]) / 1000.0
        speeds.token_w[row] = [profile.token_w(shape, batch) for batch in batches]
