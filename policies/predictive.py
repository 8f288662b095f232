"""A ladder's rungs, taken by what is to come instead of by what is: the mildest that a bound on the demand fits under.

POLCA locks at 80 and 89 % of the budget because a row may rise by 11.8 % before a lock acts (arXiv 2308.12908). Most of
the time it does not. With a bound on the largest demand within the actuation latency, projected through the locks
(`polcad.curve`), a row is locked when that would pass `limit_frac`, and no earlier; and it is let go only as far as the
bound over the outlook's longer time allows, so that what is let go need not be taken back at once.

Without an outlook, or with one in doubt (cold, or its bounds have not held of late), this is the plain ladder itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from polcad.errors import ConfigError
from polcad.model import Share
from polcad.ports import Desire, View
from policies.graded import Graded
from policies.ladder import foresee
from policies.polca import Polca

_LADDERS: Mapping[str, Polca | Graded] = {"polca": Polca(), "graded": Graded()}


@dataclass(frozen=True, slots=True)
class Predictive:
    """`limit_frac`: of the budget, what the bound may come to; `ladder`: whose rungs, at their default clocks."""

    ladder: Literal["polca", "graded"] = "polca"
    limit_frac: Share = 0.95  # the rest is for the hundredth bound: by how much it is broken

    def __post_init__(self) -> None:
        """Refuse a ladder that is none, and a limit that the brake would meet first."""
        if self.ladder not in _LADDERS:
            raise ConfigError(f"ladder={self.ladder!r} is none of {', '.join(_LADDERS)}")
        if not 0.0 < self.limit_frac < 1.0:
            raise ConfigError(f"limit_frac={self.limit_frac} must be above 0 and below 1")

    @property
    def looks_ahead(self) -> bool:
        """That it needs a forecaster to be more than its ladder."""
        return True

    @property
    def thresholds(self) -> Mapping[str, float]:
        """The ladder's, and the limit."""
        return {**_LADDERS[self.ladder].thresholds, "limit": self.limit_frac}

    def desired(self, view: View) -> Desire:
        """The rung that the domain should stand on."""
        plain = _LADDERS[self.ladder]
        if view.outlook is None or view.outlook.doubt:
            return plain.desired(view)
        return foresee(view, view.outlook, plain.rungs(), self.limit_frac)
