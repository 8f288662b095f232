"""Offsets that keep the bounds' promise as the load drifts.

A regression says how the bound moves with the features; how high it must lie is learned from its own failures. When
the peak after a bound is known, the bound's offset goes up by ``step * q`` if the peak broke it, and else down by
``step * (1 - q)``. In the long run it rests only where a share `q` of the bounds held, whatever the distribution and
however wrong the regression. (Online conformal prediction: Gibbs and Candès 2021; Angelopoulos et al. 2023.)

Bounds of a long horizon share their peaks: one spike breaks every bound of the horizon before it, so there a step is
small enough that one spike counts as one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from polcad.places import Floats

STEP = 0.05  # scales an outcome, at most
SPIKE = 0.8  # scales that one spike may add through all the bounds it broke


class Calibration:
    """The offset of each bound (horizons, quantiles, domains), in scales; NaN until it is anchored.

    `ago` says for each horizon how many bounds are shown before the first one's peak is known.
    """

    def __init__(self, quantiles: Sequence[float], ago: Sequence[int], domains: int) -> None:
        shape = (len(ago), len(quantiles), domains)
        self.offset = np.full(shape, np.nan)
        self._shown = np.full((max(ago) + 1, *shape), np.nan)
        self._rise = np.array(quantiles)[:, None]
        self._step = np.minimum(STEP, SPIKE / np.array(ago, dtype=np.float64))

    def show(self, beat: int, bound: Floats) -> None:
        """Remember what was said at a beat (excess over the level then, in scales) until its peaks are known."""
        self._shown[beat % len(self._shown)] = bound

    def learn(self, horizon: int, beat: int, excess: Floats) -> None:
        """Move by how the bounds said at a beat fared: the peaks' excess by domain, NaN where it is not known."""
        shown = self._shown[beat % len(self._shown), horizon]
        miss = excess - shown  # NaN where either is
        move = self._step[horizon] * (self._rise - (miss <= 0))
        self.offset[horizon] += np.where(np.isnan(miss), 0.0, move)
