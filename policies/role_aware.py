"""POLCA's two thresholds for rows whose servers have roles: who loses least is locked first (Splitwise).

A server that makes tokens is bound by its memory, one that reads prompts by its clock: at 1110 of 1410 MHz the first
takes 7 % longer, the second 20 % (`polcad.curve`). So within low priority the token servers are locked at T1, the mixed
ones, those that train, and last the prompt servers by steps up to T2. Above T2, each time the last lock had time to
act, the high priority follows in the same order, mildly. Each lock is left `gap_frac` below its threshold.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from polcad.curve import time_ratio
from polcad.errors import ConfigError
from polcad.model import FREE, Frac, Priority, Role, Setpoint, Share, Why
from polcad.ports import Desire, View
from policies.ladder import Rung, climb

Class = tuple[Priority, Role]


@dataclass(frozen=True, slots=True)
class Locked(Rung):
    """A rung on which some classes are locked, and the others free."""

    locks: Mapping[Class, Setpoint] = field(default_factory=dict)

    def setpoint(self, priority: Priority, role: Role) -> Setpoint:
        """What GPUs of a priority and role take on this rung."""
        return self.locks.get((priority, role), FREE)


@dataclass(frozen=True, slots=True)
class RoleAware:
    """Thresholds are fractions of the budget, clocks of the board's maximum."""

    t1_frac: Share = 0.80
    t2_frac: Share = 0.89
    gap_frac: Frac = 0.05
    low_clock_frac: Frac = 1110 / 1410
    high_clock_frac: Frac = 1305 / 1410

    def __post_init__(self) -> None:
        """Refuse thresholds and clocks in the wrong order."""
        if not self.gap_frac < self.t1_frac < self.t2_frac:
            raise ConfigError(f"gap_frac={self.gap_frac} < t1_frac={self.t1_frac} < t2_frac={self.t2_frac} must hold")
        if not 0.0 < self.low_clock_frac <= self.high_clock_frac:
            raise ConfigError(
                f"low_clock_frac={self.low_clock_frac:.3f} must be above 0, and not above "
                f"high_clock_frac={self.high_clock_frac:.3f}"
            )

    @property
    def thresholds(self) -> Mapping[str, float]:
        """T1 and T2."""
        return {"t1": self.t1_frac, "t2": self.t2_frac}

    @property
    def order(self) -> tuple[Role, ...]:
        """The roles, from the one that loses least at the deeper clock."""
        return tuple(sorted(Role, key=lambda role: time_ratio(role, self.low_clock_frac)))

    def desired(self, view: View) -> Desire:
        """The rung that the domain should stand on."""
        return climb(view, tuple(self._rungs(view)))

    def _rungs(self, view: View) -> Iterator[Rung]:
        """One a class that the domain has: on each, one class more is locked."""
        step_frac = (self.t2_frac - self.t1_frac) / (len(self.order) - 1)
        locks: dict[Class, Setpoint] = {}
        for priority, clock_frac in ((Priority.LOW, self.low_clock_frac), (Priority.HIGH, self.high_clock_frac)):
            for place, role in enumerate(self.order):
                if (priority, role) in view.classes:
                    low = priority is Priority.LOW
                    enter_frac = self.t1_frac + place * step_frac if low else self.t2_frac
                    locks = {**locks, (priority, role): Setpoint(clock_frac)}
                    why = Why.T1 if enter_frac < self.t2_frac else Why.T2
                    leave_frac = enter_frac - self.gap_frac
                    yield Locked(enter_frac, leave_frac, FREE, FREE, why, Why.T2_HIGH, settled=not low, locks=locks)
