"""The words and colours that all dashboards share: one colour a cause, wherever it is shown."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dashboards.fields import Json, override, painted, words
from polcad.model import Why
from policies.polca import Polca

CAUSES = {
    Why.T1: "yellow",
    Why.T2: "orange",
    Why.T2_HIGH: "dark-orange",
    Why.FORECAST: "purple",
    Why.BAND: "light-orange",
    Why.BRAKE: "red",
    Why.RESUME: "light-blue",
    Why.OPERATOR: "blue",
    Why.UNKNOWN: "super-light-blue",
}
THRESHOLDS = {"t1": "yellow", "t2": "orange", "brake": "red"}
PRIORITIES = {"high": "blue", "low": "green"}
DASHED = {"fill": "dash", "dash": [8, 6]}
USE_STEPS = {**dict(zip(Polca().thresholds.values(), ("yellow", "orange"), strict=True)), 1.0: "red"}  # of the budget
BAD_IF_ANY = {1.0: "red"}
WATCH_IF_ANY = {1.0: "orange"}
YES_IS_BAD = words({0: ("no", "green"), 1: ("yes", "red")})
YES_IS_GOOD = words({0: ("no", "red"), 1: ("yes", "green")})


def caused(prefix: str = "") -> list[Json]:
    """Bands called as their causes, after `prefix`, a regular expression: coloured while the cause holds."""
    return [
        override(f"/^{prefix}{why}$/", mappings=words({0: (" ", "transparent"), 1: (str(why), color)}))
        for why, color in CAUSES.items()
    ]


def cause_colors() -> list[Json]:
    """Series called as causes."""
    return [painted(str(why), color) for why, color in CAUSES.items()]


def dashed(colors: Iterable[tuple[str, str]], **properties: Any) -> list[Json]:
    """Series drawn as dashed lines: limits, not measurements."""
    return [painted(name, color, custom__lineStyle=DASHED, **properties) for name, color in colors]
