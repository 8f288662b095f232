"""How high demand went after a moment, told once it is over, at a cost that does not grow with the horizon's steps.

Steps are gathered in blocks of about ten seconds, and only the end of a block is a moment worth asking about. The
largest of a block is kept; the peak of a long horizon is the largest of its blocks, and of the first steps of one more.
An unknown step (NaN) makes every peak whose time includes it unknown.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from polcad.places import Floats

BLOCK_S = 10.0


class Peaks:
    """The peaks of several domains after the ends of blocks, for several horizons given in steps.

    `ago` says for each horizon how many blocks ago the moment was whose peak is known at the end of a block.
    """

    def __init__(self, domains: int, step_s: float, horizons: Sequence[int]) -> None:
        block = max(1, round(BLOCK_S / step_s))
        self._steps_w = np.full((block, domains), np.nan)
        self._at = 0
        self._whole = tuple(np.full((steps // block, domains), np.nan) for steps in horizons)  # blocks of each horizon
        self._rest = tuple(steps % block for steps in horizons)
        self.ago = tuple(-(-steps // block) for steps in horizons)
        self.beat = -1

    def observe(self, demand_w: Floats) -> bool:
        """One step (NaN: nothing is to be learned from it); whether it ended a block."""
        self._steps_w[self._at] = demand_w
        self._at = (self._at + 1) % len(self._steps_w)
        self.beat += self._at == 0
        return self._at == 0

    def ended_w(self) -> Iterator[Floats]:
        """For each horizon the peak after the moment `ago` blocks ago; to be asked once at the end of each block."""
        largest_w = self._steps_w.max(axis=0)
        for whole, rest in zip(self._whole, self._rest, strict=True):
            over = [self._steps_w[:rest].max(axis=0)] if rest else []
            if rest and len(whole):
                over.append(whole.max(axis=0))
            if len(whole):
                whole[self.beat % len(whole)] = largest_w
            yield np.maximum.reduce(over) if rest else whole.max(axis=0)
