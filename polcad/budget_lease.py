"""The row's side of the site's budgets: what a row may draw, for how long, and what it falls to in silence.

As a node follows plans (`polcad.lease`), a row follows the site's `Budgets`: for `lease_s` from their receipt, only
newer ones than the last, and never above the budget of its own configuration, which is that of its breaker. After half
a lease of silence its budget begins to glide down, so that locks have the time to act before a brake would, and when
the lease ends it is at the fail-safe budget; silence never raises a budget. Nor does the first word after silence,
which may have waited somewhere: nothing rises above the fail-safe until messages have been coming for a fifth of a
lease. So a daemon that starts anew begins at its fail-safe, which the site keeps for it always, and needs no memory.

Another site daemon raises nothing for a lease: it renews what rows told it, and the one before may have cut them since.
"""

from __future__ import annotations

from polcad.model import Allowance, Budgets, LeaseState, RowBudget
from polcad.rank import forgotten

_SETTLED_LEASES = 0.2  # one tick of the default
_GLIDING_LEASES = 0.5  # the end of each lease; two messages of the default may be lost before


class BudgetLease:
    """Follows the site's budgets for one row; powers in W, times in s of one clock that never jumps."""

    def __init__(self, row: str, own_w: float, fail_safe_w: float) -> None:
        self._row, self._own_w = row, own_w
        self._configured_w = min(own_w, fail_safe_w)
        self._followed = (0, 0)
        self._granted: RowBudget | None = None
        self._lease_s = 0.0
        self._ends_t = self._settled_t = float("-inf")
        self._had_w, self._free_t = 0.0, float("-inf")  # another site daemon leads: no more than this, until then

    def offer(self, budgets: Budgets, t: float) -> str | None:
        """Accept budgets heard at `t`, or return why they are refused."""
        if (budgets.epoch, budgets.seq) <= self._followed and not forgotten(
            budgets.epoch, self._followed[0], t - self._ends_t
        ):
            last = "/".join(map(str, self._followed))
            return f"budgets {budgets.epoch}/{budgets.seq} are not newer than {last}"
        said = next((each for each in budgets.rows if each.row == self._row), None)
        if said is None:
            return None
        if t >= self._ends_t:
            self._settled_t = t + _SETTLED_LEASES * budgets.lease_s
        if self._granted is not None and budgets.epoch != self._followed[0]:
            self._had_w, self._free_t = self.budget_w(t), t + budgets.lease_s
        self._followed = (budgets.epoch, budgets.seq)
        self._granted, self._lease_s, self._ends_t = said, budgets.lease_s, t + budgets.lease_s
        return None

    @property
    def fail_safe_w(self) -> float:
        """What the row falls to: its own word and the site's, whichever is less."""
        return self._configured_w if self._granted is None else min(self._configured_w, self._granted.fail_safe_w)

    def budget_w(self, t: float) -> float:
        """What the row may draw at `t`."""
        if self._granted is None:
            return self.fail_safe_w
        granted_w = min(self._own_w, self._granted.budget_w, self._had_w if t < self._free_t else float("inf"))
        least_w = min(granted_w, self.fail_safe_w)
        if t < self._settled_t:
            return least_w
        left = min(1.0, max(0.0, self._ends_t - t) / (_GLIDING_LEASES * self._lease_s))
        return least_w + left * (granted_w - least_w)

    def silent(self, t: float) -> bool:
        """Whether the site has not been heard for so long that the budget falls, or has fallen."""
        return self._ends_t - t < _GLIDING_LEASES * self._lease_s

    def allowance(self, t: float) -> Allowance:
        """What the row's status says of it."""
        lease = LeaseState.HELD if t < self._ends_t else LeaseState.EXPIRED
        if self._granted is None:
            lease = LeaseState.NONE
        return Allowance(self.budget_w(t), self._own_w, self.fail_safe_w, *self._followed, lease)
