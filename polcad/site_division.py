"""How a site's power is divided among its rows: from the most urgent claim to the least, and each fairly.

A row's claim has steps: what it draws at any setting, what it is guaranteed, what its high priority needs, what all of
it needs, and the most it may have. Every row is brought to a step before any is brought to the next. Where a step does
not fit, its watts are dealt out level: as a multiple of each row's guarantee, so that who is furthest above its own
gives first (as the upper controllers of Facebook's Dynamo punish the offender first), and nobody gets more than asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np

from polcad.places import Floats

_HALVINGS = 60  # of the range in which the level lies: to a millionth of a watt


@dataclass(frozen=True, slots=True)
class Claim:
    """What one row could do with, W, from the most urgent; a step below the one before it asks for nothing more."""

    floor_w: float
    guaranteed_w: float
    high_w: float
    all_w: float
    most_w: float


def divide(pool_w: float, claims: Sequence[Claim]) -> list[float]:
    """What each row gets: together no more than `pool_w`, unless the floors alone are more."""
    if not claims:
        return []
    steps = np.array([astuple(claim) for claim in claims]).T
    steps = np.maximum.accumulate(np.minimum(steps, steps[-1]), axis=0)
    weights = np.maximum(steps[1], 1.0)
    given_w = steps[0]
    for step_w in steps[1:]:
        if step_w.sum() > pool_w:
            given_w = _levelled(pool_w, given_w, step_w, weights)
            break
        given_w = step_w
    return [float(each_w) for each_w in given_w]


def _levelled(pool_w: float, low_w: Floats, high_w: Floats, weights: Floats) -> Floats:
    """As near to one multiple of the weights as `low_w` and `high_w` allow, together no more than `pool_w`."""
    under, over = 0.0, float((high_w / weights).max())
    for _ in range(_HALVINGS):
        level = (under + over) / 2
        fits = np.clip(level * weights, low_w, high_w).sum() <= pool_w
        under, over = (level, over) if fits else (under, level)
    result: Floats = np.clip(under * weights, low_w, high_w)
    return result
