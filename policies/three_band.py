"""The three bands of Facebook's power controller ("Dynamo: Facebook's Data Center-Wide Power Management System", 2016).

At the capping threshold, power is cut down to the target by power limits; below the uncapping threshold all limits go;
between them everything stays. The low priority is cut first, down to a floor, then the high one. The bands (99, 95 and
90 %) are as remembered, not checked against the paper.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from polcad.errors import ConfigError
from polcad.model import FREE, Frac, Priority, Role, Setpoint, Share, Why
from polcad.ports import ClassView, Desire, View


@dataclass(frozen=True, slots=True)
class ThreeBand:
    """Fractions of the budget; `floor_frac` is the deepest limit, of the board's maximum."""

    cap_frac: Share = 0.99
    target_frac: Share = 0.95
    uncap_frac: Share = 0.90
    floor_frac: Frac = 0.5

    def __post_init__(self) -> None:
        """Refuse bands in the wrong order."""
        if not self.uncap_frac < self.target_frac < self.cap_frac:
            raise ConfigError(
                f"uncap_frac={self.uncap_frac} < target_frac={self.target_frac} < cap_frac={self.cap_frac} must hold"
            )

    @property
    def thresholds(self) -> Mapping[str, float]:
        """The capping threshold."""
        return {"cap": self.cap_frac}

    def desired(self, view: View) -> Desire:
        """Cut at the top band, free at the bottom one, as it is between."""
        if view.used_frac >= self.cap_frac:
            return self._cut(view)
        if view.used_frac < self.uncap_frac:
            return Desire(dict.fromkeys(view.classes, FREE), {}, self.cap_frac)
        return Desire(dict(view.held), dict.fromkeys(view.held, Why.BAND), self.cap_frac)

    def _cut(self, view: View) -> Desire:
        excess_w = view.power_w - self.target_frac * view.budget_w
        setpoints: dict[tuple[Priority, Role], Setpoint] = {}
        for priority in (Priority.LOW, Priority.HIGH):
            names = [name for name in view.classes if name[0] is priority]
            sheddable_w = sum(self._sheddable_w(view.classes[name]) for name in names)
            share = min(1.0, excess_w / sheddable_w) if sheddable_w > 0 and excess_w > 0 else 0.0
            for name in names:
                setpoints[name] = self._capped(view.classes[name], share) if share else FREE
            excess_w -= share * sheddable_w
        return Desire(setpoints, dict.fromkeys(setpoints, Why.BAND), self.cap_frac)

    def _sheddable_w(self, group: ClassView) -> float:
        return max(0.0, group.power_w - self.floor_frac * group.max_w)

    def _capped(self, group: ClassView, share: float) -> Setpoint:
        """Every GPU of the class at the class's mean power less its share of the cut."""
        cap_w = group.power_w - share * self._sheddable_w(group)
        return Setpoint(cap_frac=min(1.0, max(self.floor_frac, cap_w / group.max_w)))
