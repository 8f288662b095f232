"""What the features say of the coming peaks: linear quantile regression, pooled and own, on rows kept from past days.

A row is one domain at the end of one block of steps: its features, and for each horizon the excess of the peak that
came over the level then. Divided by the domain's scale, rows of racks and rows are alike, but not the same: a row of
forty servers is smoother than each of them. A domain with rows enough has slopes of its own, drawn towards the pooled
ones by `OWN_TRUST`; on rows composed of recorded servers that takes some of the margin. Slopes are fitted no farther
out than `DENSE`, where there are rows enough on both sides; the rest of the way to a 99 % bound is an offset for each
domain, the quantile of what the slopes leave over. On simulated rows that beats fitting at the 99 % quantile itself at
every horizon, and needs a tenth of the rows.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from polcad.places import Floats

Small = NDArray[np.float32]
Indices = NDArray[np.intp]

DENSE = 0.9
ITERATIONS, TOLERANCE = 50, 1e-3
LEAST_ROWS = 500
OWN_ROWS, OWN_TRUST = 250, 1000.0  # of a domain's own, to fit slopes to; at which they count as much as the pooled
TRUST_ROWS = 50.0  # of a domain's own, at which its own offset counts as much as all domains' together


@dataclass(frozen=True, slots=True)
class Sample:
    """Rows to learn from, W; `excess_w` has a column a horizon, NaN where the peak is not known."""

    features_w: Small
    excess_w: Small
    domain: Indices


@dataclass(frozen=True, slots=True)
class Fit:
    """Slopes (horizons, quantiles, domains, features) and offsets (the same but for features), W.

    NaN: cannot be told.
    """

    slopes: Floats
    offset_w: Floats


class Rows:
    """The newest rows, at most `slots` times some domains; of many domains each block keeps a few, in turn."""

    def __init__(self, domains: int, features: int, horizons: int, *, slots: int, width: int) -> None:
        self._domains, self._width = domains, width
        self._features_w = np.full((slots, width, features), np.nan, dtype=np.float32)
        self._excess_w = np.full((slots, width, horizons), np.nan, dtype=np.float32)

    def put(self, beat: int, features_w: Floats) -> None:
        """Keep the rows of a block's end; their peaks are not known yet."""
        slot = beat % len(self._features_w)
        self._features_w[slot] = features_w[:, self._turn(beat)].T
        self._excess_w[slot] = np.nan

    def complete(self, beat: int, horizon: int, excess_w: Floats) -> None:
        """Add what came of a block's rows, by domain."""
        self._excess_w[beat % len(self._excess_w), :, horizon] = excess_w[self._turn(beat)]

    def plenty(self, beat: int) -> bool:
        """Whether a fit of the rows up to a beat can succeed."""
        return (beat + 1) * self._width >= LEAST_ROWS

    def sample(self, beat: int, rows: int) -> Sample:
        """So many rows up to a beat, drawn evenly from all that are kept."""
        slots = len(self._features_w)
        kept = min(beat + 1, slots) * self._width
        slot, column = np.divmod(np.linspace(0, kept - 1, min(rows, kept)).astype(np.intp), self._width)
        then = beat - (beat - slot) % slots
        domain = (then * self._width + column) % self._domains
        return Sample(self._features_w[slot, column], self._excess_w[slot, column], domain)

    def _turn(self, beat: int) -> Indices:
        return (beat * self._width + np.arange(self._width)) % self._domains


def fit(sample: Sample, windows: Mapping[int, float], quantiles: Sequence[float], scale_w: Floats) -> Fit:
    """The lesson: slopes and offsets of some horizons, where there are rows enough. Takes seconds: not for a tick.

    `windows` says for each horizon how many times it went into the past, beside one another: rows of the same peak say
    one thing only. `scale_w` is each domain's.
    """
    shape = (sample.excess_w.shape[1], len(quantiles))
    slopes = np.full((*shape, len(scale_w), sample.features_w.shape[1]), np.nan)
    offset_w = np.full((*shape, len(scale_w)), np.nan)
    scales = sample.features_w / scale_w[sample.domain, None]
    for horizon, apart in windows.items():
        excess = sample.excess_w[:, horizon] / scale_w[sample.domain]
        whole = np.isfinite(excess) & np.isfinite(scales).all(axis=1)
        if np.count_nonzero(whole) < LEAST_ROWS:
            continue
        x, y, domain = scales[whole], excess[whole], sample.domain[whole]
        for at, q in enumerate(quantiles):
            slopes[horizon, at] = _slopes_by_domain(x, y, domain, len(scale_w), min(max(q, 1 - DENSE), DENSE))
            left = y - (x * slopes[horizon, at, domain]).sum(axis=1)
            offset_w[horizon, at] = scale_w * offsets(left, domain, [level(q, apart)], len(scale_w))[0]
    return Fit(slopes, offset_w)


def offsets(left: Floats, domain: Indices, shares: Sequence[float], domains: int) -> Floats:
    """The quantiles of what is left over, a row each, by domain: its own as far as it has rows, else all domains'."""
    order = np.lexsort((left, domain))  # by domain, then by size: a loop over 500 domains would delay a tick
    count = np.bincount(domain, minlength=domains)
    first, trust = np.cumsum(count) - count, count / (count + TRUST_ROWS)
    quantiles = np.empty((len(shares), domains))
    for row, share in zip(quantiles, shares, strict=True):
        rank = np.minimum(first + (share * count).astype(np.intp), first + np.maximum(count, 1) - 1)
        own = left[order[np.minimum(rank, len(left) - 1)]]  # of a domain without rows another's, which counts nothing
        row[:] = trust * own + (1 - trust) * np.quantile(left, share)
    return quantiles


def level(q: float, windows: float) -> float:
    """The quantile of so many past outcomes that covers the next with probability `q`: the fewer, the higher."""
    return min(1.0, q * (1 + 1 / max(windows, 1.0)))


def _slopes_by_domain(x: Floats, y: Floats, domain: Indices, domains: int, q: float) -> Floats:
    pooled = _slopes(x, y, q)
    slopes = np.tile(pooled, (domains, 1))
    for each in np.flatnonzero(np.bincount(domain) >= OWN_ROWS):
        own = domain == each
        trust = np.count_nonzero(own) / (np.count_nonzero(own) + OWN_TRUST)
        slopes[each] += trust * (_slopes(x[own], y[own], q) - pooled)
    return slopes


def _slopes(x: Floats, y: Floats, q: float) -> Floats:
    # 2.5 s and 127 MB: in lessons alone. It has no stubs.
    from statsmodels.regression.quantile_regression import QuantReg  # type: ignore[import-untyped]  # noqa: PLC0415

    with warnings.catch_warnings():  # that the last digits have not settled is as it is meant
        warnings.simplefilter("ignore")
        return np.asarray(QuantReg(y, x).fit(q=q, max_iter=ITERATIONS, p_tol=TOLERANCE).params, dtype=np.float64)
