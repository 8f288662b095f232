"""A forecaster found by its name, for the policies that look ahead."""

from __future__ import annotations

from typing import Any

from polcad.outlook import Foresight
from polcad.plugins import load
from polcad.ports import Foresighted, Policy
from polcad.school import Classroom

FORECASTER = "quantile"  # the one that is used where none is named


def foresight_for(policy: Policy, forecaster: str = FORECASTER) -> Foresight | None:
    """What a policy that looks ahead is given where time is not real; None for any other. ConfigError as `load`."""
    if not isinstance(policy, Foresighted):
        return None
    make: Any = load("polcad.forecasters", forecaster)
    return Foresight(make, Classroom())
