"""From what pools serve to how much of each kind is asked: by the lengths that their engines tell.

An engine tells how long its prompts and outputs are, but not which prompt had which output. So within one pool the two
are taken as independent. A pool that a plan gave some kinds serves those alone. Where short ends and long begins are by
default the tertiles of all pools together, of about the last hour.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp
from typing import NamedTuple

import numpy as np

from polcad.cluster.classes import Bounds, Thresholds
from polcad.cluster.nouns import KINDS, Demand, Kind, Length
from polcad.model import LENGTH_QUANTILES, Lengths, PoolLoad
from polcad.places import Floats

_WINDOW_S = 3600.0
_POINTS = 120  # at which a distribution is looked at
_RANKS = (np.arange(_POINTS) + 0.5) / _POINTS
_MOST_TOKENS = 1e9  # of one request, as `model.Tokens`; beyond all, what is learned of lengths would stay there
_KNOTS = (0.0, *LENGTH_QUANTILES, 1.0)


class _Part(NamedTuple):
    share: float
    mean: float  # tokens
    low: float  # of a tenth no more
    high: float  # of a hundredth no fewer


@dataclass(frozen=True, slots=True)
class _Spread:
    """Lengths as so many equally likely values."""

    tokens: Floats
    mean: float

    def parts(self, bounds: Bounds) -> list[_Part]:
        """The short, the medium and the long among them."""
        places = np.searchsorted(bounds, self.tokens, side="left")
        counts = np.bincount(places, minlength=len(Length))
        sums = np.bincount(places, self.tokens, minlength=len(Length))
        scale = self.mean / max(float(self.tokens.mean()), 1e-9)  # the mean is exact, what buckets tell is not
        means = scale * sums / np.maximum(counts, 1)
        parts = (self.tokens[places == place] for place in range(len(Length)))
        ends = [np.quantile(part, (0.1, 0.99)).tolist() if len(part) else (0.0, 0.0) for part in parts]
        return [
            _Part(count / len(self.tokens), mean, *end)
            for count, mean, end in zip(counts.tolist(), means.tolist(), ends, strict=True)
        ]


class Sorter:
    """Sorts loads into kinds. With fixed `thresholds` it learns none."""

    def __init__(self, thresholds: Thresholds | None = None) -> None:
        self._fixed = thresholds is not None
        self.thresholds = thresholds or Thresholds()
        self._t: float | None = None

    def demand(self, t: float, loads: Sequence[PoolLoad], kinds_of: Mapping[str, Sequence[Kind]]) -> dict[Kind, Demand]:
        """What all loads together ask of each kind; `kinds_of` says which ones a pool is known to serve, if any."""
        counted = (load for load in loads if load.requests_per_s and kinds_of.get(load.pool, KINDS))
        busy = [(load, *_spreads(load)) for load in counted]
        if busy and not self._fixed:
            self._learn(t, busy)
        total: dict[Kind, Demand] = {}
        for load, prompt, output in busy:
            for kind, demand in self._sorted(load, prompt, output, kinds_of.get(load.pool, KINDS)).items():
                total[kind] = total.get(kind, Demand()).plus(demand)
        return total

    def _sorted(self, load: PoolLoad, prompt: _Spread, output: _Spread, served: Sequence[Kind]) -> dict[Kind, Demand]:
        rate = load.requests_per_s or 0.0
        prompts = dict(zip(Length, prompt.parts(self.thresholds.prompt_tokens), strict=True))
        outputs = dict(zip(Length, output.parts(self.thresholds.output_tokens), strict=True))
        found = {
            (first, last): Demand(
                prompts[first].share * outputs[last].share,
                prompts[first].mean,
                outputs[last].mean,
                prompts[first].high,
                outputs[last].low,
            )
            for first, last in served
            if prompts[first].share * outputs[last].share > 0.0
        }
        if not found:  # nothing that the pool is there for: its largest kind is asked
            return {served[-1]: Demand(rate, prompt.mean, output.mean)}
        total = sum(each.requests_per_s for each in found.values())
        return {kind: each.times(rate / total) for kind, each in found.items()}

    def _learn(self, t: float, busy: Sequence[tuple[PoolLoad, _Spread, _Spread]]) -> None:
        weights = [load.requests_per_s or 0.0 for load, _, _ in busy]
        thirds = [
            _tertiles([spread.tokens for spread in spreads], weights) for spreads in list(zip(*busy, strict=True))[1:]
        ]
        kept = 0.0 if self._t is None else exp(-max(0.0, t - self._t) / _WINDOW_S)
        self._t = t
        before = (self.thresholds.prompt_tokens, self.thresholds.output_tokens)
        self.thresholds = Thresholds(*(_mixed(old, new, kept) for old, new in zip(before, thirds, strict=True)))


def demand_of(loads: Sequence[PoolLoad]) -> Demand:
    """What some instances together are asked, as one kind."""
    total = Demand()
    for load in loads:
        if load.requests_per_s:
            total = total.plus(Demand(load.requests_per_s, *(spread.mean for spread in _spreads(load))))
    return total


def _spreads(load: PoolLoad) -> tuple[_Spread, _Spread]:
    rate = load.requests_per_s or 1.0
    return (
        _spread(load.prompt, min((load.prompt_tokens_per_s or 0.0) / rate, _MOST_TOKENS)),
        _spread(load.output, min((load.output_tokens_per_s or 0.0) / rate, _MOST_TOKENS)),
    )


def _spread(lengths: Lengths | None, mean: float) -> _Spread:
    """As told; else, all of the mean length."""
    known = [] if lengths is None else [tokens for tokens in lengths.at if tokens is not None]
    if lengths is None or len(lengths.at) != len(LENGTH_QUANTILES) or not known:
        return _Spread(np.full(_POINTS, mean), mean)
    at = [*known, *[known[-1]] * (len(LENGTH_QUANTILES) - len(known))]
    least = max(0.0, 2 * at[0] - at[1])
    return _Spread(np.interp(_RANKS, _KNOTS, np.maximum.accumulate([least, *at, at[-1]])), lengths.mean)


def _tertiles(values: Sequence[Floats], weights: Sequence[float]) -> Bounds:
    all_values, all_weights = np.concatenate(values), np.repeat(weights, _POINTS)
    order = np.argsort(all_values, kind="stable")
    ranks = np.cumsum(all_weights[order])
    low, high = all_values[order][np.searchsorted(ranks, ranks[-1] * np.array([1 / 3, 2 / 3]))].tolist()
    return low, high


def _mixed(old: Bounds, new: Bounds, kept: float) -> Bounds:
    low, high = (kept * before + (1 - kept) * after for before, after in zip(old, new, strict=True))
    return low, high
