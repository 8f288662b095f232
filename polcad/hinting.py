"""A hint desk and the policy behind it, live: the policy thinks in a thread, so that no tick of the row waits for it.

A hint policy may be a stranger's, and the row's safety does not hang on it: what it raises is a line in the log and a
reason why nothing new is hinted.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

from polcad.backlog import Received
from polcad.cluster.ports import HintPolicy
from polcad.complaints import Complaints
from polcad.curve import clock_within
from polcad.errors import WireError
from polcad.hints import HintDesk, Said
from polcad.model import Hint, PoolLoad, Setpoint
from polcad.spec import HintSpec, RowSpec
from polcad.wire import Address

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Hinting:
    """What a daemon needs to give hints, each `period_s`."""

    desk: HintDesk
    policy: HintPolicy
    period_s: float
    complaints: Complaints = field(default_factory=lambda: Complaints(_LOG))

    def take(self, received: Received, address: Address, noun: PoolLoad | Hint | None) -> None:
        """Take what an instance says, or what the broker keeps of hints; WireError when it is not believed."""
        if not isinstance(noun, PoolLoad):
            self.desk.learn(address.pool, noun)
        elif received.message.retain:
            raise WireError(f"{address.topic}: a load is never retained; somebody planted this one")
        else:
            self.desk.hear(received.t, noun)

    async def step(
        self, t: float, power_budget_w: float, cap_clock_frac: float, clocks_frac: Mapping[str, float]
    ) -> list[Said]:
        """What is to be said at `t`; `clocks_frac`: by pool, the clock in force, where it is known."""
        said = self.desk.look(t)
        view = self.desk.question(t, power_budget_w, cap_clock_frac, clocks_frac)
        if view is None:
            if stale := self.desk.stale():
                self.complaints.add("hints", stale, t)
            return said
        try:
            plans = await asyncio.to_thread(self.policy.hints, view)
        except Exception as error:  # noqa: BLE001  # a stranger's: see above
            what = f"the policy failed: {type(error).__name__}: {error}"
            self.complaints.add("hints", what, t)
            return [*said, *self.desk.hold(t, what)]
        return [*said, *self.desk.answer(view, plans)]


def hinting(spec: HintSpec, row: RowSpec, policy: HintPolicy) -> Hinting:
    """What a row's daemon needs by these settings."""
    gpus = sum(node.gpus for node in row.nodes if node.in_service) if spec.gpus is None else spec.gpus
    return Hinting(HintDesk(spec, row.name, policy, gpus), policy, spec.period_s)


def clock_under(setpoint: Setpoint) -> float:
    """The clock that GPUs run at, at most, under a setpoint: a power limit counts as the lock that it comes to."""
    return min(setpoint.clock_frac, clock_within(setpoint.cap_frac))
