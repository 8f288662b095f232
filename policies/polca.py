"""POLCA's two thresholds (arXiv 2308.12908 §5; ASPLOS'24).

Above T1 the low priority is locked; above T2 deeper, and, if the row is still above T2 once that had time to act, the
high priority too. Each state is left five points below its threshold. The brake above 100 % is the guard's.
Clocks are the paper's 1275, 1110 and 1305 MHz as fractions of the A100's 1410; nodes snap them down to their grid.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from polcad.errors import ConfigError
from polcad.model import FREE, Frac, Setpoint, Share, Why
from polcad.ports import Desire, View
from policies.ladder import Rung, climb


@dataclass(frozen=True, slots=True)
class Polca:
    """POLCA as published; thresholds are fractions of the budget, clocks of the board's maximum."""

    t1_frac: Share = 0.80
    t2_frac: Share = 0.89
    gap_frac: Frac = 0.05
    low_t1_clock_frac: Frac = 1275 / 1410
    low_t2_clock_frac: Frac = 1110 / 1410
    high_t2_clock_frac: Frac = 1305 / 1410

    def __post_init__(self) -> None:
        """Refuse thresholds and clocks in the wrong order."""
        if self.t2_frac <= self.t1_frac:
            raise ConfigError(
                f"t2_frac={self.t2_frac} must be above t1_frac={self.t1_frac}: raise t2_frac or lower t1_frac"
            )
        if self.gap_frac >= self.t1_frac:
            raise ConfigError(
                f"gap_frac={self.gap_frac} must be below t1_frac={self.t1_frac}, or nothing is ever unlocked"
            )
        if self.low_t2_clock_frac > self.low_t1_clock_frac:
            raise ConfigError(
                f"low_t2_clock_frac={self.low_t2_clock_frac:.3f} must not be above "
                f"low_t1_clock_frac={self.low_t1_clock_frac:.3f}: T2 is the deeper lock"
            )

    @property
    def thresholds(self) -> Mapping[str, float]:
        """T1 and T2."""
        return {"t1": self.t1_frac, "t2": self.t2_frac}

    def rungs(self) -> tuple[Rung, ...]:
        """The states of the paper's table, from mildest to strictest."""
        low_t1, low_t2 = Setpoint(self.low_t1_clock_frac), Setpoint(self.low_t2_clock_frac)
        t1, t2 = ((at, at - self.gap_frac) for at in (self.t1_frac, self.t2_frac))
        return (
            Rung(*t1, low_t1, FREE, Why.T1, Why.T1),
            Rung(*t2, low_t2, FREE, Why.T2, Why.T2),
            Rung(*t2, low_t2, Setpoint(self.high_t2_clock_frac), Why.T2, Why.T2_HIGH, settled=True),
        )

    def desired(self, view: View) -> Desire:
        """The state of the paper's table that the domain should be in."""
        return climb(view, self.rungs())
