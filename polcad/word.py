"""What a node says beside its readings: it stays the same for hours, while readings change with each message.

So one word a node is kept, and nearly every message is gone once it was heard. Python's cycle collector looks through
all objects that are young, and at times through all: for the messages of 10 000 nodes a daemon would stand still for
70 ms.
"""

from __future__ import annotations

from dataclasses import dataclass

from polcad.model import InForce, LeaseState, Telemetry


@dataclass(frozen=True, slots=True)
class Word:
    """One node's; columns have one entry a GPU, or none."""

    boot_id: str
    period_s: float
    uuids: tuple[str, ...]
    max_w: tuple[float | None, ...]
    enforced_w: tuple[float | None, ...]
    faults: tuple[str | None, ...]
    in_force: InForce | None
    lease: LeaseState | None  # None: it follows no plans

    @classmethod
    def of(cls, telemetry: Telemetry) -> Word:
        """The word in a message."""
        gpus, plan = telemetry.reading.gpus, telemetry.plan
        lease = None if plan is None else plan.lease
        columns = (gpus.uuid, gpus.max_w, gpus.enforced_w, gpus.fault)
        return cls(telemetry.boot_id, telemetry.period_s, *columns, telemetry.in_force, lease)

    def stands(self, telemetry: Telemetry) -> bool:
        """Whether the message says nothing else."""
        gpus, a, b = telemetry.reading.gpus, self.in_force, telemetry.in_force
        return (
            self.boot_id == telemetry.boot_id
            and self.has_gpus(telemetry)
            and self.reports_orders(telemetry)
            and self.enforced_w == gpus.enforced_w
            and self.faults == gpus.fault
            and (a and a.detail) == (b and b.detail)
        )

    def has_gpus(self, telemetry: Telemetry) -> bool:
        """Whether what is laid out once for a node's GPUs serves the message too."""
        gpus = telemetry.reading.gpus
        return self.uuids == gpus.uuid and self.max_w == gpus.max_w and self.period_s == telemetry.period_s

    def reports_orders(self, telemetry: Telemetry) -> bool:
        """Whether the message reports the same setpoints, set in the same way."""
        a, b, plan = self.in_force, telemetry.in_force, telemetry.plan
        if self.lease is not (plan and plan.lease) or a is None or b is None:
            return a is b and self.lease is (plan and plan.lease)
        return a.clock_frac == b.clock_frac and a.cap_frac == b.cap_frac and a.outcome == b.outcome
