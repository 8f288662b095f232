"""What must hold of a row whatever breaks, judged from the boards and from the plans on the wire.

1. The row is over its budget for no longer than the reaction time.
2. No board is looser than the newest plan, or than the fail-safe once that plan's lease has ended, for longer than it.
3. No board is ever loosened without a plan of the last moments that asks for it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from polcad.model import Setpoint
from tests.chaos.ear import Heard
from tests.chaos.meter import Look
from tests.chaos.row import BUDGET_W, GUARD
from tests.live_row import FREE_MHZ, PERIOD_S

LEASE_S = GUARD["lease_s"]
SLACK_S = 1.0  # for two cores that start programs at the same time
REACTION_S = LEASE_S + PERIOD_S + SLACK_S
_LATE_S = 1.0  # a plan may be followed so long after a newer one went out: the driver and the actuator were busy
_EARLY_S = 0.3  # and so long before the judge hears of it
_MAX_W = 400.0


@dataclass(frozen=True, slots=True)
class Board:
    """A board that is judged: its place among the meter's, its node and that node's priority."""

    place: int
    node: str
    priority: str
    deaf_from_s: float = float("inf")  # from then on no plan may reach its node: the fail-safe is strict enough
    away: tuple[float, float] = (0.0, 0.0)  # from when to when nobody could set it: others make up for it
    meddled: bool = False  # somebody outside sets it, too: it may be loosened, for a moment, by nobody of ours


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one run came to."""

    over_s: float  # the longest spell of the row over its budget
    peak_w: float
    loose_s: float  # the longest spell of a board looser than it may be
    unordered: int  # loosenings that no plan asked for
    blind_s: float  # the longest time between two looks of the judge

    def broken(self) -> list[str]:
        """The promises that did not hold."""
        found = []
        if self.over_s > REACTION_S:
            found.append(f"over budget for {self.over_s:.2f} s")
        if self.loose_s > REACTION_S:
            found.append(f"a board looser than its plan for {self.loose_s:.2f} s")
        if self.unordered:
            found.append(f"{self.unordered} loosenings that no plan asked for")
        if self.blind_s > REACTION_S / 2:
            found.append(f"the judge itself stood still for {self.blind_s:.2f} s: no verdict")
        return found


def judge(looks: Sequence[Look], plans: Sequence[Heard], boards: Collection[Board]) -> Verdict:
    """Judge a run; `plans` begin before `looks`, and `boards` are those whose own setter works."""
    times = [heard.t for heard in plans]

    def loose(board: Board, look: Look) -> bool:
        if board.away[0] <= look.t <= board.away[1]:
            return False
        heard = plans[bisect_right(times, look.t) - 1]
        follows = heard.fallen if look.t > heard.t + LEASE_S else heard.setpoint
        if not exceeds(look, board, follows(board.node, board.priority)):
            return False
        last = plans[bisect_right(times, board.deaf_from_s) - 1]
        return look.t < board.deaf_from_s or exceeds(look, board, last.fallen(board.node, board.priority))

    return Verdict(
        over_s=longest((look.t, look.row_w > BUDGET_W) for look in looks),
        peak_w=max(look.row_w for look in looks),
        loose_s=max((longest((look.t, loose(board, look)) for look in looks) for board in boards), default=0.0),
        unordered=sum(_unordered(board, looks, plans, times) for board in boards if not board.meddled),
        blind_s=max(after.t - before.t for before, after in pairwise(looks)),
    )


def exceeds(look: Look, board: Board, asked: Setpoint) -> bool:
    """Whether a board is set looser than it was asked to be."""
    mhz, limit_w = look.mhz[board.place], look.limit_w[board.place]
    return mhz > asked.clock_frac * FREE_MHZ + 1 or limit_w > asked.cap_frac * _MAX_W + 1


def longest(states: Iterable[tuple[float, bool]]) -> float:
    """The longest time for which something may have held without a break, s: from look to look around it."""
    most, before, since = 0.0, None, None
    for t, holds in states:
        if since is not None:
            most = max(most, t - since)
        if holds and since is None:
            since = t if before is None else before
        since, before = since if holds else None, t
    return most


def _unordered(board: Board, looks: Sequence[Look], plans: Sequence[Heard], times: Sequence[float]) -> int:
    place, count = board.place, 0
    for before, after in pairwise(looks):
        if after.mhz[place] > before.mhz[place] or after.limit_w[place] > before.limit_w[place]:
            first = max(bisect_right(times, after.t - _LATE_S) - 1, 0)
            recent = plans[first : bisect_right(times, after.t + _EARLY_S)]
            asked = [heard.setpoint(board.node, board.priority) for heard in recent]
            count += all(exceeds(after, board, each) for each in asked)
    return count
