"""DynamoLLM's instance level: the lowest-energy clock that keeps the objectives under the load now.

A table a pool, made when its shape or its requests change, says for each load of an instance which clock that is; a
decision is then a look-up, for thousands of instances at once. No clock is sent twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import floor, inf

import numpy as np

from polcad.cluster.nouns import Demand, PoolPlan, Shape, Slo
from polcad.cluster.profiles import Profile
from polcad.cluster.steady import Instance, highest_rate
from polcad.places import Flags, Floats, Indices

_LOADS = 129  # of a table
_SAME_FRAC = 1e-6  # clocks closer than this are one


class ClockTable:
    """One pool's instances, by load, in requests a second of the mix it was made for; finer towards none."""

    def __init__(
        self,
        profile: Profile,
        tensor_parallel: int,
        clocks_frac: Sequence[float],
        served: tuple[Sequence[Demand], Sequence[Slo]],
        margin: float = 1.0,
        easing: float = 1.0,
    ) -> None:
        """`margin`: of the objectives, what clocks may use; `easing`: times them, what still counts as in time.

        An objective that had to be eased for want of GPUs is still kept by the clock where it can be.
        """
        mix, slos = served
        self.highest = highest_rate(profile, tensor_parallel, mix)
        rates = self.highest * np.linspace(0.0, 1.0, _LOADS) ** 2
        outcomes = Instance(profile, tensor_parallel, clocks_frac).under(mix, rates)
        kept = outcomes.keep(slos, margin)
        self.clocks_frac = np.asarray(clocks_frac, dtype=np.float64)
        self.power_w = outcomes.power_w  # a row a clock
        self._in_time: Flags = np.asarray(outcomes.keep(slos, easing).any(axis=0))
        cheapest = np.where(kept, outcomes.power_w, inf).argmin(axis=0)
        self.best = np.where(
            kept.any(axis=0), cheapest, len(clocks_frac) - 1
        )  # what keeps nothing runs as fast as it may

    def place(self, rate: float) -> int:
        """Where a load stands, rounded up: one above the table's end is at its end."""
        return int(_places(np.asarray(rate / self.highest)))

    def answers(self, rate: float) -> bool:
        """Whether an instance is in time under a load, at some clock; to the entry below it."""
        return bool(self._in_time[max(self.place(rate) - 1, 0)])


class InstanceClocks:
    """The clocks of many instances; `tables` are those of their pools."""

    def __init__(self, tables: Sequence[ClockTable]) -> None:
        self._highest = np.array([table.highest for table in tables])
        self._clocks_frac = np.array([table.clocks_frac[table.best] for table in tables])

    def choose(
        self,
        pool_of: Indices,
        rates: Floats,
        in_force_frac: Floats,
        cap_frac: float = 1.0,
        hurried: Flags | None = None,
    ) -> tuple[Floats, Flags]:
        """The clock that each instance should have, and which of them are to be told.

        `pool_of`: an instance's table; `rates`: its requests a second; `in_force_frac`: what it was told or says (NaN:
        not known); `hurried`: those with requests that would be late run as fast as `cap_frac` lets them.
        """
        wanted = self._clocks_frac[pool_of, _places(rates / self._highest[pool_of])]
        if hurried is not None:
            wanted = np.where(hurried, 1.0, wanted)
        wanted = np.minimum(wanted, cap_frac)
        told: Flags = ~(np.abs(wanted - in_force_frac) <= _SAME_FRAC)  # NaN compares false: it is told
        return wanted, told


def _places(loads: Floats) -> Indices:
    """The first entries that are no lower than loads, given as shares of the highest."""
    places: Indices = np.ceil(np.sqrt(np.clip(loads, 0.0, 1.0)) * (_LOADS - 1)).astype(np.intp)
    return places


@dataclass(frozen=True, slots=True)
class Loaded:
    """A pool's plan under the load now: a place in its table, and the clock (as a place too) that this load needs."""

    plan: PoolPlan
    table: ClockTable
    place: int
    clock: int

    def now_w(self, clock: int) -> float:
        """What all its instances draw at a clock, W."""
        return self.plan.instances * float(self.table.power_w[clock, self.place])


def within(loads: Sequence[Loaded], budget_w: float, why: Mapping[str, str]) -> tuple[PoolPlan, ...]:
    """The plans at the clocks that their loads need, or as much lower as the power allows; then with fewer instances.

    All tables have the same clocks. `why`, by pool, is added to what a plan says.
    """
    top = max((load.clock for load in loads), default=0)
    for ceiling in range(top, -1, -1):
        clocks = [min(load.clock, ceiling) for load in loads]
        total_w = sum(load.now_w(clock) for load, clock in zip(loads, clocks, strict=True))
        if total_w <= budget_w:
            break
    fit = min(1.0, max(0.0, budget_w) / total_w) if loads and total_w > 0.0 else 1.0
    return tuple(
        _at_clock(load, clock, fit, why.get(load.plan.pool, "")) for load, clock in zip(loads, clocks, strict=True)
    )


def _at_clock(load: Loaded, clock: int, fit: float, why: str) -> PoolPlan:
    plan = load.plan
    instances = plan.instances if fit >= 1.0 else floor(fit * plan.instances)
    said = [plan.why, why]
    if clock < load.clock:
        said.append("clock lowered to what the row can power")
    if instances < plan.instances:
        said.append(f"{plan.instances - instances} instances left out, which the row cannot power")
    return replace(
        plan,
        instances=instances,
        shape=Shape(plan.shape.tensor_parallel, float(load.table.clocks_frac[clock])),
        now_w=load.now_w(clock) * instances / max(plan.instances, 1),
        why="; ".join(part for part in said if part),
    )
