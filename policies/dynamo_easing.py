"""What estimates are off by: objectives that plans may aim at, by what the slowest hundredth took of late.

Estimates are made for one instance by itself under the highest minute of an epoch; several that share requests, in an
epoch that is mostly quieter, answer sooner. So where engines tell that a kind's slowest hundredth stays well within an
objective, plans aim at a longer one: by a tenth more an epoch, and back at once when the measured time comes near the
objective itself. Plans never aim at less than is asked for: a shorter aim costs energy wherever estimates are right.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf

from polcad.cluster.nouns import ClusterView, Kind, Slo

_NEAR = 0.85  # of an objective: what measured times should come to
_RISE, _FALL = 1.1, 0.7  # times the aim, at most, at once


class Easing:
    """By kind, times its objectives, what plans aim at: between 1 and `most`. It is looked at every `period_s`."""

    def __init__(self, most: float, period_s: float) -> None:
        self._most, self._period_s = most, period_s
        self._factors: dict[Kind, Slo] = {}
        self._t = -inf

    def learn(self, view: ClusterView) -> None:
        """Take what the slowest took, once a period."""
        if view.t < self._t + self._period_s:
            return
        self._t = view.t
        for kind, took in view.slowest.items():
            asked, factor = view.slo[kind], self._factors.get(kind, _NONE)
            self._factors[kind] = Slo(
                self._moved(factor.ttft_s, took.ttft_s, asked.ttft_s),
                self._moved(factor.tbt_s, took.tbt_s, asked.tbt_s),
            )

    def forget(self) -> None:
        """Aim at the objectives themselves: what was measured no longer tells what is."""
        self._factors.clear()

    def aims(self, slo: Mapping[Kind, Slo]) -> dict[Kind, Slo]:
        """What plans are to aim at for these objectives."""
        factors = {kind: self._factors.get(kind, _NONE) for kind in slo}
        return {kind: Slo(f.ttft_s * slo[kind].ttft_s, f.tbt_s * slo[kind].tbt_s) for kind, f in factors.items()}

    def _moved(self, factor: float, took_s: float, asked_s: float) -> float:
        change = _NEAR * asked_s / took_s if took_s > 0.0 else inf
        return min(max(factor * min(max(change, _FALL), _RISE), 1.0), self._most)


_NONE = Slo(1.0, 1.0)
