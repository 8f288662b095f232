"""Quantiles of what was seen of late, for many series at once, in bounded memory.

A histogram a series, whose weights fade with time. Bins are even in asinh(w / 1 W): even near zero, and 5 % of the
value far from it, whatever the size of a domain; within a bin the quantile is taken on a straight line.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import asinh, ceil, exp

import numpy as np

from polcad.places import Floats

DAY_S = 86400.0

_BIN = 0.05  # of asinh(w)
_HALF = ceil(asinh(1e9) / _BIN)  # bins on either side of the one around zero: up to a gigawatt
_BINS = 2 * _HALF + 1
_EDGES_W = np.sinh((np.arange(_BINS + 1) - _HALF - 0.5) * _BIN)
_HEAVIEST = 1024.0  # weights grow, instead of all the others fading; from here on they are scaled back
_LONGEST_STEPS = 15  # between two looks at the histograms: half a minute of a day


class RollingQuantiles:
    """Quantiles of values (W) in an array of any shape, each entry a series; one seen `memory_s` ago weighs 1/e."""

    def __init__(self, shape: tuple[int, ...], quantiles: Sequence[float], step_s: float, memory_s: float) -> None:
        self._quantiles = tuple(quantiles)
        self._growth = exp(step_s / memory_s)
        self._newest = 1.0  # what a value seen now weighs
        self._weights = np.zeros((*shape, _BINS), dtype=np.float32)
        self._first = np.arange(np.prod(shape)) * _BINS  # of each series, in the weights laid flat
        self._values_w = np.full((len(self._quantiles), *shape), np.nan)
        self._steps = self._next_look = 0

    @property
    def values_w(self) -> Floats:
        """One array of the series' shape a quantile; NaN while too few were seen for it, 99 for the 99 % quantile."""
        return self._values_w

    def see(self, values_w: Floats) -> None:
        """Take one step's values; NaN: none of this series."""
        known = np.isfinite(values_w.ravel())
        bins = np.rint(np.arcsinh(values_w.ravel()[known]) / _BIN).astype(np.intp) + _HALF
        self._weights.reshape(-1)[self._first[known] + np.clip(bins, 0, _BINS - 1)] += self._newest
        self._steps += 1
        if self._steps >= self._next_look:
            self._look()
            self._next_look = self._steps + min(1 + self._steps // 100, _LONGEST_STEPS)
        self._fade()

    def _fade(self) -> None:
        self._newest *= self._growth
        if self._newest > _HEAVIEST:
            self._weights /= self._newest
            self._newest = 1.0

    def _look(self) -> None:
        """The rank of a quantile counts the value to come among those seen: so many of n + 1 must not exceed it."""
        below = self._weights.cumsum(axis=-1)
        total = below[..., -1]
        quantiles_w = []
        for q in self._quantiles:
            rank = q * (total + self._newest)
            at = np.minimum((below < rank[..., None]).sum(axis=-1), _BINS - 1)
            here = np.take_along_axis(self._weights, at[..., None], axis=-1)[..., 0]
            above = np.take_along_axis(below, at[..., None], axis=-1)[..., 0] - rank
            share = 1.0 - above / np.where(here > 0.0, here, 1.0)
            quantile_w = _EDGES_W[at] + np.clip(share, 0.0, 1.0) * (_EDGES_W[at + 1] - _EDGES_W[at])
            quantiles_w.append(np.where(rank <= total, quantile_w, np.nan))
        self._values_w = np.stack(quantiles_w)
