"""POLCA's ladder for rows that know who does what: servers that are mostly making tokens are locked first.

Making tokens is bound by memory: at 1110 MHz it takes 7 % longer, where a prompt takes 20 % longer (`polcad.curve`), so
token-heavy servers give their watts for the least time. Above T1 the token-heavy servers of low priority are locked
mildly; above the deep threshold deeply; above T2 all of low priority; and, if the row is still above T2 once that had
time to act, the token-heavy servers of high priority a little. Each state is left `gap_frac` below its threshold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from polcad.errors import ConfigError
from polcad.model import FREE, Frac, Setpoint, Share, Why
from polcad.ports import Desire, View
from policies.ladder import Rung, climb


@dataclass(frozen=True, slots=True)
class PhaseAware:
    """Thresholds are fractions of the budget, clocks of the board's maximum."""

    t1_frac: Share = 0.82
    deep_frac: Share = 0.86
    t2_frac: Share = 0.90
    gap_frac: Frac = 0.05
    mild_clock_frac: Frac = 1275 / 1410
    deep_clock_frac: Frac = 1110 / 1410
    high_clock_frac: Frac = 1305 / 1410

    def __post_init__(self) -> None:
        """Refuse thresholds and clocks in the wrong order."""
        if not self.t1_frac < self.deep_frac < self.t2_frac:
            raise ConfigError(f"t1_frac={self.t1_frac} < deep_frac={self.deep_frac} < t2_frac={self.t2_frac} must hold")
        if self.gap_frac >= self.t1_frac:
            raise ConfigError(f"gap_frac={self.gap_frac} must be below t1_frac={self.t1_frac}")
        if self.deep_clock_frac > self.mild_clock_frac:
            raise ConfigError(
                f"deep_clock_frac={self.deep_clock_frac:.3f} must not be above "
                f"mild_clock_frac={self.mild_clock_frac:.3f}"
            )

    @property
    def thresholds(self) -> Mapping[str, float]:
        """T1, the deep threshold and T2."""
        return {"t1": self.t1_frac, "deep": self.deep_frac, "t2": self.t2_frac}

    def desired(self, view: View) -> Desire:
        """The state that the domain should be in."""
        mild, deep, high = (
            Setpoint(clock) for clock in (self.mild_clock_frac, self.deep_clock_frac, self.high_clock_frac)
        )
        t1, middle, t2 = ((at, at - self.gap_frac) for at in (self.t1_frac, self.deep_frac, self.t2_frac))
        rungs = (
            Rung(*t1, FREE, FREE, Why.T1, Why.T1, low_token=mild),
            Rung(*middle, FREE, FREE, Why.T1, Why.T1, low_token=deep),
            Rung(*t2, deep, FREE, Why.T2, Why.T2),
            Rung(*t2, deep, FREE, Why.T2, Why.T2_HIGH, settled=True, high_token=high),
        )
        return climb(view, rungs)
