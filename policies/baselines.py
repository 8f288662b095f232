"""What POLCA is compared with: no cap at all, and a single threshold.

The names are POLCA's baselines; that their one threshold and clock are T2's is our reading (the paper's own figures for
them could not be checked).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from polcad.errors import ConfigError
from polcad.model import FREE, Frac, Setpoint, Share, Why
from polcad.ports import Desire, View
from policies.ladder import Rung, climb


@dataclass(frozen=True, slots=True)
class NoCap:
    """Nothing is ever capped; the guard's brake alone protects the row."""

    @property
    def thresholds(self) -> Mapping[str, float]:
        """None."""
        return {}

    def desired(self, view: View) -> Desire:
        """Free, whatever the power."""
        return climb(view, ())


@dataclass(frozen=True, slots=True)
class OneThresholdLow:
    """Above one threshold the low priority is locked."""

    threshold_frac: Share = 0.89
    gap_frac: Frac = 0.05
    clock_frac: Frac = 1110 / 1410

    def __post_init__(self) -> None:
        """Refuse a gap that swallows the threshold."""
        if self.gap_frac >= self.threshold_frac:
            raise ConfigError(f"gap_frac={self.gap_frac} must be below threshold_frac={self.threshold_frac}")

    @property
    def thresholds(self) -> Mapping[str, float]:
        """The one threshold, named t1."""
        return {"t1": self.threshold_frac}

    def desired(self, view: View) -> Desire:
        """Locked above the threshold, free again below it less the gap."""
        return climb(view, (self._rung(Setpoint(self.clock_frac), FREE),))

    def _rung(self, low: Setpoint, high: Setpoint) -> Rung:
        return Rung(self.threshold_frac, self.threshold_frac - self.gap_frac, low, high, Why.T1, Why.T1)


@dataclass(frozen=True, slots=True)
class OneThresholdAll(OneThresholdLow):
    """Above one threshold everything is locked."""

    def desired(self, view: View) -> Desire:
        """Locked above the threshold, free again below it less the gap."""
        lock = Setpoint(self.clock_frac)
        return climb(view, (self._rung(lock, lock),))
