"""The node's side of a plan: which plan it follows, for how long, and what it falls to in silence.

A plan holds for `lease_s` from its receipt, counted on the node's own monotonic clock: a wall clock that jumps changes
nothing. When it ends, the node takes the stricter of what it had and the plan's fail-safe setpoint; silence never
loosens. Nor does the first word after silence: a link that was cut, or an agent that stood still, delivers what waited,
the oldest first, so nothing is loosened until plans have been coming for a fifth of a lease. A plan that is not newer
(epoch, then sequence) than the last one accepted is refused: a late, repeated or replayed plan moves nothing. A shadow
plan is let pass: nobody follows it, and it says nothing against the plan that is followed. Who was silent for more than
an hour stands in nobody's way either, or an epoch that somebody planted would lock out every daemon for good.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum

from polcad.model import FREE, LeaseState, NodePlacement, Obedience, Plan, Setpoint
from polcad.rank import forgotten

_SETTLED_LEASES = 0.2  # one tick of the default; what waited arrives in far less


class Fail(StrEnum):
    """What a node does when its lease ends."""

    SAFE = "safe"  # take the fail-safe setpoint where it is stricter
    HOLD = "hold"  # stay
    RELEASE = "release"  # go free: for rows that are not oversubscribed


class Lease:
    """Follows plans for one node. `remembered` is the last plan of an earlier run, whose lease has ended."""

    def __init__(self, row: str, rack: str, node: str, fail: Fail = Fail.SAFE, remembered: Plan | None = None) -> None:
        self._row, self._rack, self._node, self._fail = row, rack, node, fail
        self._plan = None if remembered is None or remembered.shadow else remembered
        self._ends = float("-inf")
        self._heard_first_s = float("inf")  # when any plan was offered first
        self._back_s = float("-inf")  # when plans began to come again after silence
        self._doubted = False  # the plan may be one that comes late
        self._wanted: dict[str, Setpoint] = {}
        self._refused = 0

    @property
    def plan(self) -> Plan | None:
        """The last plan accepted: what an agent keeps on disk."""
        return self._plan

    def offer(self, plan: Plan, t: float) -> str | None:
        """Accept a plan at monotonic time `t`, or return why it is refused."""
        if plan.shadow:
            return None
        self._heard_first_s = min(self._heard_first_s, t)
        reason = self._objection(plan, t)
        if reason is None:
            if self._plan is not None and t >= self._ends:
                self._back_s = t
            self._doubted = t < self._back_s + _SETTLED_LEASES * plan.lease_s
            self._plan, self._ends = plan, t + plan.lease_s
        else:
            self._refused += 1
        return reason

    def _objection(self, plan: Plan, t: float) -> str | None:
        if plan.row != self._row:
            return f"plan is for row {plan.row}, this node is in {self._row}"
        last, silent_s = self._plan, t - max(self._ends, self._heard_first_s)
        if last is None or forgotten(plan.epoch, last.epoch, silent_s):
            return None
        if (plan.epoch, plan.seq) <= (last.epoch, last.seq):
            return f"plan {plan.epoch}/{plan.seq} is not newer than {last.epoch}/{last.seq}"
        return None

    def remaining_s(self, t: float) -> float:
        """Seconds until the lease ends; not positive once it has."""
        return self._ends - t

    def state(self, t: float) -> LeaseState:
        """Whether a plan is followed at monotonic time `t`."""
        if self._plan is None:
            return LeaseState.NONE
        return LeaseState.HELD if t < self._ends else LeaseState.EXPIRED

    def obedience(self, t: float) -> Obedience:
        """What telemetry says of the plan."""
        if self._plan is None:
            return Obedience(refused=self._refused)
        return Obedience(self._plan.epoch, self._plan.seq, self.state(t), self._refused)

    def wanted(
        self, t: float, uuids: Iterable[str], placement: NodePlacement, in_force: Mapping[str, Setpoint | None]
    ) -> dict[str, Setpoint]:
        """What each GPU is to take at monotonic time `t`; a GPU not named is left as it is.

        `in_force` is what was read back: after a restart it is all that is known of what the GPU had. In silence, one
        of which nothing could be read (None) is left until it can: what it has may be stricter than the fail-safe.
        """
        plan = self._plan
        if plan is None:
            return {}
        silent = t >= self._ends or self._doubted
        uuids = [uuid for uuid in uuids if not silent or uuid in self._wanted or in_force.get(uuid, FREE) is not None]
        for uuid in uuids:
            asked = plan.setpoint(self._rack, self._node, uuid, placement.of(uuid))
            if silent:
                asked = asked.strictest(self._wanted.get(uuid) or in_force.get(uuid) or FREE)
            if t >= self._ends:
                asked = self._in_silence(plan, asked)
            self._wanted[uuid] = asked
        return {uuid: self._wanted[uuid] for uuid in uuids}

    def _in_silence(self, plan: Plan, had: Setpoint) -> Setpoint:
        if self._fail is Fail.RELEASE:
            return FREE
        return had if self._fail is Fail.HOLD else had.strictest(plan.fail_safe)
