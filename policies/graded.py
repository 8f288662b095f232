"""A little of everybody before much of anybody: three rungs that lock every server, none of them deep until the last.

The first steps of the clock are the cheap ones: at 1350 of 1410 MHz a GPU gives 6 to 9 % of its power for 1 % of its
time, at 1110 MHz it gives 30 to 40 % for 7 to 20 % (`polcad.curve`). POLCA takes its watts from half the servers; on a
row that is short of power all day, that half pays for it with its median. Here the high priority gives what it can
without being felt, the low priority a little more, and the deep locks are left for the peaks.

What this buys on a modelled row is in docs/reproduction-polca.md, beyond the paper.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from polcad.errors import ConfigError
from polcad.model import Frac, Setpoint, Share, Why
from polcad.ports import Desire, View
from policies.ladder import Rung, climb


@dataclass(frozen=True, slots=True)
class Graded:
    """Thresholds are fractions of the budget, clocks of the board's maximum."""

    t1_frac: Share = 0.80
    t2_frac: Share = 0.88
    t3_frac: Share = 0.94
    gap_frac: Frac = 0.02
    low_t1_clock_frac: Frac = 1275 / 1410
    low_t2_clock_frac: Frac = 1230 / 1410
    low_t3_clock_frac: Frac = 1050 / 1410
    high_clock_frac: Frac = 1350 / 1410
    high_t3_clock_frac: Frac = 1275 / 1410

    def __post_init__(self) -> None:
        """Refuse thresholds and clocks in the wrong order."""
        if not self.gap_frac < self.t1_frac < self.t2_frac < self.t3_frac:
            raise ConfigError(
                f"gap_frac={self.gap_frac} < t1_frac={self.t1_frac} < t2_frac={self.t2_frac} < t3_frac={self.t3_frac} "
                f"must hold"
            )
        low = self.low_t1_clock_frac, self.low_t2_clock_frac, self.low_t3_clock_frac
        if sorted(low, reverse=True) != list(low) or self.high_t3_clock_frac > self.high_clock_frac:
            raise ConfigError(
                f"clocks {', '.join(f'{clock:.3f}' for clock in low)} (low) and {self.high_clock_frac:.3f}, "
                f"{self.high_t3_clock_frac:.3f} (high) must not rise from one threshold to the next"
            )

    @property
    def thresholds(self) -> Mapping[str, float]:
        """T1, T2 and T3."""
        return {"t1": self.t1_frac, "t2": self.t2_frac, "t3": self.t3_frac}

    def rungs(self) -> tuple[Rung, ...]:
        """From mildest to strictest."""
        high, high_t3 = Setpoint(self.high_clock_frac), Setpoint(self.high_t3_clock_frac)
        t1, t2, t3 = ((at, at - self.gap_frac) for at in (self.t1_frac, self.t2_frac, self.t3_frac))
        return (
            Rung(*t1, Setpoint(self.low_t1_clock_frac), high, Why.T1, Why.T1),
            Rung(*t2, Setpoint(self.low_t2_clock_frac), high, Why.T2, Why.T2),
            Rung(*t3, Setpoint(self.low_t3_clock_frac), high_t3, Why.T2, Why.T2_HIGH),
        )

    def desired(self, view: View) -> Desire:
        """The rung that the domain should stand on."""
        return climb(view, self.rungs())
