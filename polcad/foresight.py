"""A forecaster found by its name, for the policies that look ahead."""

from __future__ import annotations

from polcad.outlook import Foresight
from polcad.plugins import load
from polcad.ports import ForecasterMaker, Foresighted, Policy
from polcad.school import Classroom

FORECASTER = "quantile"  # the one that is used where none is named


def maker(forecaster: str = FORECASTER) -> ForecasterMaker:
    """What makes the forecaster of that name with its default options; ConfigError as `load`."""
    make: ForecasterMaker = load("polcad.forecasters", forecaster)  # type: ignore[assignment]  # a class is a maker
    return make


def foresight_for(policy: Policy, forecaster: str = FORECASTER) -> Foresight | None:
    """What a policy that looks ahead is given where time is not real; None for any other. ConfigError as `load`."""
    return Foresight(maker(forecaster), Classroom()) if isinstance(policy, Foresighted) else None
