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

STEP = 0.1  # scales (or offsets, if larger) an outcome, at most
SPIKE = 0.8  # scales (or offsets) that one spike may add through all the bounds it broke


class Calibration:
    """The offset of each bound (horizons, quantiles, domains), W; NaN until it is set.

    `ago` says for each horizon how many bounds are shown before the first one's peak is known.
    """

    def __init__(self, quantiles: Sequence[float], ago: Sequence[int], domains: int) -> None:
        shape = (len(ago), len(quantiles), domains)
        self.offset_w = np.full(shape, np.nan)
        self._shown_w = np.full((max(ago) + 1, *shape), np.nan)
        self._rise = np.array(quantiles)[:, None]
        self._step = np.minimum(STEP, SPIKE / np.array(ago, dtype=np.float64))

    def show(self, beat: int, bound_w: Floats) -> None:
        """Remember what was said at a beat, as excess over the level then, until its peaks are known."""
        self._shown_w[beat % len(self._shown_w)] = bound_w

    def learn(self, horizon: int, beat: int, excess_w: Floats, scale_w: Floats) -> None:
        """Move by how the bounds said at a beat fared: the peaks' excess by domain, NaN where it is not known."""
        offset_w = self.offset_w[horizon]
        miss_w = excess_w - self._shown_w[beat % len(self._shown_w), horizon]  # NaN where either is
        step_w = self._step[horizon] * np.maximum(scale_w, np.abs(offset_w))
        offset_w += np.where(np.isnan(miss_w), 0.0, step_w * (self._rise - (miss_w <= 0)))
