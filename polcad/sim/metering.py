"""What a planner is told of the load: requests a second and mean lengths of each kind, over the time just passed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from polcad.cluster.nouns import KINDS, Demand, Kind
from polcad.sim.asking import CHUNK_S, Asked
from polcad.sim.profiles import Floats
from polcad.sim.requests import Ints

RATE_S, LENGTHS_S = 60.0, 1800.0  # windows over which rates and lengths are taken
_ENOUGH = 100  # requests, before it is said how they clump


class LoadMeter:
    """Rates of the last minute and lengths of the last half hour, by the kind that requests are taken for.

    Lengths of outputs are known as soon as a request arrives: the mean of half an hour hardly shows that it is early.
    """

    def __init__(self, tick_s: float, ends: Floats) -> None:
        """`ends`: as `ends_of` gives them."""
        self._tick_s, self._ends = tick_s, ends
        self._rate_ticks, self._ticks = round(RATE_S / tick_s), round(LENGTHS_S / tick_s)
        self._seen = np.zeros((self._ticks, len(KINDS), 4))  # requests, tokens of prompts and outputs, and `_jumps`
        self._coming = np.zeros((0, len(KINDS), 4))
        self._long: Floats = np.zeros((len(KINDS), 4))
        self._short: Floats = np.zeros((len(KINDS), 4))
        self._tick = 0

    def take(self, asked: Asked, guesses: Ints) -> None:
        """The arrivals of a chunk, of which `tick` will tell one step after the other."""
        ticks = round(CHUNK_S / self._tick_s)
        place = np.minimum((asked.arrive_s % CHUNK_S) // self._tick_s, ticks - 1).astype(np.int64)
        place = place * len(KINDS) + guesses
        size = ticks * len(KINDS)
        columns = [np.bincount(place, weights, size) for weights in (None, asked.prompt, asked.output)]
        coming = np.stack(columns, axis=-1).reshape(ticks, len(KINDS), 3).astype(np.float64)
        self._coming = np.concatenate([coming, _jumps(coming[:, :, :1])], axis=-1)

    def tick(self) -> None:
        """One step has passed."""
        now, ring = self._coming[self._tick % len(self._coming)], self._seen
        self._long += now - ring[self._tick % self._ticks]
        self._short += now - ring[(self._tick - self._rate_ticks) % self._ticks]
        ring[self._tick % self._ticks] = now
        self._tick += 1

    def demand(self) -> dict[Kind, Demand]:
        """The load now."""
        window_s = self._tick_s * min(max(self._tick, 1), self._rate_ticks)
        return _demand(np.maximum(self._short[:, 0], 0.0) / window_s, self._long, self._ends, self._clumps())

    def _clumps(self) -> Floats:
        """Variance over mean of the counts of ticks; 1 while few have come."""
        counts, squares = self._long[:, 0], self._long[:, 3]
        result: Floats = np.where(counts >= _ENOUGH, np.maximum(squares / np.maximum(counts, 1.0), 1.0), 1.0)
        return result


def _jumps(counts: Floats) -> Floats:
    """Half the squared differences between ticks: their variance, whatever the trend."""
    return 0.5 * np.diff(counts, axis=0, prepend=counts[:1]) ** 2


def mean_demand(asked: Asked, guesses: Ints, over_s: float, ends: Floats) -> dict[Kind, Demand]:
    """The requests of `over_s`, as load."""
    columns = [np.bincount(guesses, weights, len(KINDS)) for weights in (None, asked.prompt, asked.output)]
    totals = np.stack(columns, axis=-1).astype(np.float64)
    return _demand(totals[:, 0] / over_s, totals, ends, np.ones(len(KINDS)))


def ends_of(sample: Asked, guesses: Ints) -> Floats:
    """Long prompts and short outputs of each kind (rows), by what a sample's requests are taken for; 0: not known."""
    parts = [guesses == place for place in range(len(KINDS))]
    return np.array(
        [
            (np.quantile(sample.prompt[part], 0.99), np.quantile(sample.output[part], 0.1))
            if part.any()
            else (0.0, 0.0)
            for part in parts
        ]
    )


def peak_demand(asked: Asked, guesses: Ints, over_s: float, ends: Floats) -> dict[Kind, Demand]:
    """Each kind at its highest in any stretch of `over_s`, with its mean lengths."""
    place = (asked.arrive_s // over_s).astype(np.int64)
    counts = np.zeros((int(place.max(initial=0)) + 1, len(KINDS)))
    np.add.at(counts, (place, guesses), 1.0)
    mean = mean_demand(asked, guesses, over_s, ends)
    highest = dict(zip(KINDS, (counts.max(axis=0) / over_s).tolist(), strict=True))
    return {kind: replace(one, requests_per_s=highest[kind]) for kind, one in mean.items()}


def _demand(rates: Floats, totals: Floats, ends: Floats, clumps: Floats) -> dict[Kind, Demand]:
    lengths = totals[:, 1:3] / np.maximum(totals[:, :1], 1.0)
    rows = np.column_stack([rates, lengths, ends, clumps]).tolist()
    return {kind: Demand(*row) for kind, row in zip(KINDS, rows, strict=True) if row[0]}
