"""Small simulated rows that more than one test file uses."""

from collections.abc import Mapping
from typing import Any

from polcad.ports import Policy
from polcad.sim.requests import WEEK_S, Load
from polcad.sim.row import RowModel
from policies.polca import Polca

HOUR_WEEKS = 3600 / WEEK_S


def small_row(policy: Policy | None = None, seconds: float = 600.0, **options: Any) -> RowModel:
    """Eight busy servers on the budget of six, for a few minutes."""
    asked: Mapping[str, Any] = {"servers": 8, "budget_w": 6 * 6500.0, "source": BUSY, **options}
    return RowModel(policy=policy or Polca(), weeks=seconds / WEEK_S, **asked)


BUSY = Load(hours=(1.0,) * 24, weekend_frac=1.0)
