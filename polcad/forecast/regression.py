"""What the features say of the coming peaks: pooled linear quantile regression, on rows kept from the past days.

A row is one domain at the end of one block of steps: its features, and for each horizon the excess of the peak that
came over the level then, in scales. Slopes are fitted no farther out than `DENSE`, where there are rows enough on both
sides; the rest of the way to a 99 % bound is an offset for each domain, the quantile of what the slopes leave over. On
simulated rows that beats fitting at the 99 % quantile itself at every horizon, and it needs a tenth of the rows.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from polcad.places import Floats

Small = NDArray[np.float32]

DENSE = 0.9
ITERATIONS, TOLERANCE = 50, 1e-3
LEAST_ROWS = 500
TRUST_ROWS = 200.0  # of a domain's own, at which its own offset counts as much as all domains' together


@dataclass(frozen=True, slots=True)
class Sample:
    """Rows to learn from; `excess` has a column a horizon, NaN where the peak is not known."""

    features: Small
    excess: Small
    domain: NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Fit:
    """Slopes (horizons, quantiles, features) and offsets (horizons, quantiles, domains); NaN: cannot be told."""

    slopes: Floats
    offsets: Floats


class Rows:
    """The newest rows, at most `slots` times some domains; of many domains each block keeps a few, in turn."""

    def __init__(self, domains: int, features: int, horizons: int, *, slots: int, width: int) -> None:
        self._domains, self._width = domains, min(domains, width)
        self._features = np.full((slots, self._width, features), np.nan, dtype=np.float32)
        self._excess = np.full((slots, self._width, horizons), np.nan, dtype=np.float32)

    def put(self, beat: int, features: Floats) -> None:
        """Keep the rows of a block's end; their peaks are not known yet."""
        slot = beat % len(self._features)
        self._features[slot] = features[:, self._turn(beat)].T
        self._excess[slot] = np.nan

    def complete(self, beat: int, horizon: int, excess: Floats) -> None:
        """Add what came of a block's rows, by domain."""
        self._excess[beat % len(self._excess), :, horizon] = excess[self._turn(beat)]

    def known(self, beat: int, horizon: int) -> Small:
        """The excesses of a horizon up to a beat, of all domains together."""
        excess = self._excess[: beat + 1, :, horizon]
        return excess[~np.isnan(excess)]

    def plenty(self, beat: int) -> bool:
        """Whether a fit of the rows up to a beat can succeed."""
        return (beat + 1) * self._width >= LEAST_ROWS

    def sample(self, beat: int, rows: int) -> Sample:
        """So many rows up to a beat, drawn evenly from all that are kept."""
        filled = min(beat + 1, len(self._features))
        drawn = np.linspace(0, filled * self._width - 1, min(rows, filled * self._width)).astype(np.intp)
        slot, column = np.divmod(drawn, self._width)
        age = (beat - slot) % len(self._features)
        domain = ((beat - age) * self._width + column) % self._domains
        return Sample(self._features[slot, column], self._excess[slot, column], domain)

    def _turn(self, beat: int) -> NDArray[np.intp]:
        return (beat * self._width + np.arange(self._width)) % self._domains


def fit(sample: Sample, windows: Mapping[int, float], quantiles: Sequence[float], domains: int) -> Fit:
    """The lesson: slopes and offsets of some horizons, where there are rows enough. Takes seconds: not for a tick.

    `windows` says for each horizon how many times it went into the past, beside one another: rows of the same peak say
    one thing only.
    """
    shape = (sample.excess.shape[1], len(quantiles))
    slopes = np.full((*shape, sample.features.shape[1]), np.nan)
    offsets = np.full((*shape, domains), np.nan)
    for horizon, apart in windows.items():
        excess = sample.excess[:, horizon]
        whole = ~np.isnan(excess) & ~np.isnan(sample.features).any(axis=1)
        if np.count_nonzero(whole) < LEAST_ROWS:
            continue
        x, y, domain = sample.features[whole].astype(np.float64), excess[whole].astype(np.float64), sample.domain[whole]
        for at, q in enumerate(quantiles):
            slopes[horizon, at] = _slopes(x, y, min(max(q, 1 - DENSE), DENSE))
            offsets[horizon, at] = _offsets(y - x @ slopes[horizon, at], domain, level(q, apart), domains)
    return Fit(slopes, offsets)


def _slopes(x: Floats, y: Floats, q: float) -> Floats:
    # 2.5 s and 127 MB: in lessons alone. It has no stubs.
    from statsmodels.regression.quantile_regression import QuantReg  # type: ignore[import-untyped]  # noqa: PLC0415

    with warnings.catch_warnings():  # that the last digits have not settled is as it is meant
        warnings.simplefilter("ignore")
        fitted = QuantReg(y, np.column_stack([x, np.ones(len(x))])).fit(q=q, max_iter=ITERATIONS, p_tol=TOLERANCE)
    return np.asarray(fitted.params, dtype=np.float64)[:-1]


def _offsets(left: Floats, domain: NDArray[np.intp], share: float, domains: int) -> Floats:
    """The quantile of what is left over, by domain: its own as far as it has rows, and all domains' for the rest."""
    offsets = np.full(domains, np.quantile(left, share))
    for one in np.unique(domain):
        own = left[domain == one]
        trust = len(own) / (len(own) + TRUST_ROWS)
        offsets[one] += trust * (np.quantile(own, share) - offsets[one])
    return offsets


def level(q: float, windows: float) -> float:
    """The quantile of so many past outcomes that covers the next with probability `q`: the fewer, the higher."""
    return min(1.0, q * (1 + 1 / windows))
