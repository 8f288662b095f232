"""What an operator says of a row: its nodes and budgets, and how careful the guard is.

These are the parts of the configuration that the core reads; `polcad.config` fills them from TOML. Every default has
its reason beside it; figures of the POLCA paper are from arXiv 2308.12908 §5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from polcad.model import (
    MAX_ROWS,
    DomainWatts,
    HostWatts,
    Items,
    Name,
    Placement,
    Priority,
    Range,
    Role,
    Setpoint,
    Text,
    Watts,
)

BRAKE = Setpoint(clock_frac=288 / 1410)  # POLCA's power brake on an A100: 288 of 1410 MHz
FAIL_SAFE = Setpoint(clock_frac=1110 / 1410)  # POLCA's deepest lock of the low priority


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """One GPU server of the inventory."""

    name: Name
    rack: Name = "rack"
    gpus: Annotated[int, Range(0, 64)] = 8
    gpu_max_w: Watts = 700.0  # counted for each GPU that was never heard
    host_w: HostWatts = 0.0  # drawn by the rest of the server; 0: budgets speak of GPU power only
    priority: Priority = Priority.LOW
    role: Role = Role.MIXED
    pool: Annotated[str, Text(64)] = ""
    model: Annotated[str, Text(128)] = ""
    in_service: bool = True  # false: taken down by the operator, counts nothing until it is heard

    @property
    def placement(self) -> Placement:
        """What runs on its GPUs, as far as the inventory knows."""
        return Placement(self.priority, self.role, self.pool, self.model)


@dataclass(frozen=True, slots=True)
class RackSpec:
    """One rack; without a budget it only groups nodes."""

    name: Name
    budget_w: DomainWatts | None = None


@dataclass(frozen=True, slots=True)
class RowSpec:
    """One row: the domain that a daemon keeps under its budget."""

    name: Name
    budget_w: DomainWatts
    racks: Annotated[tuple[RackSpec, ...], Items(1024)] = ()
    nodes: Annotated[tuple[NodeSpec, ...], Items(20000)] = ()
    fail_safe_budget_w: DomainWatts | None = None  # falls to it in the site's silence; left out: it is under no site


@dataclass(frozen=True, slots=True)
class SiteRowSpec:
    """One row under a site's budget."""

    name: Name
    fail_safe_w: DomainWatts  # what it may always draw, and falls to without the site: as its row.fail_safe_budget_w


@dataclass(frozen=True, slots=True)
class SiteSpec:
    """The site, in the topic of every message: one broker may serve several. All but its name is for `polcad site`."""

    name: Name = "site"
    budget_w: DomainWatts | None = None  # of all its rows together; left out: there is no site level
    rows: Annotated[tuple[SiteRowSpec, ...], Items(MAX_ROWS)] = ()
    tick_s: Annotated[float, Range(0.05, 10.0)] = 3.0  # between two messages: three of a row's ticks
    lease_s: Annotated[float, Range(0.2, 3600.0)] = 15.0  # four lost messages are survived, the fifth is not
    stale_after_s: Annotated[float, Range(0.2, 600.0)] = 10.0  # without a word of a row, or its answer to ours
    dwell_s: Annotated[float, Range(0.0, 3600.0)] = 9.0  # between two cuts: a row takes seconds to come down
    peak_s: Annotated[float, Range(1.0, 86400.0)] = 300.0  # in which a remembered peak of demand falls by two thirds
    gap_frac: Annotated[float, Range(0.0, 0.5)] = 0.02  # of a budget: less is not worth moving


@dataclass(frozen=True, slots=True)
class GuardSpec:
    """How careful the guard is, whatever the policy."""

    tick_s: Annotated[float, Range(0.01, 2.0)] = 1.0  # a daemon silent for 5 s counts as late
    lease_s: Annotated[float, Range(0.1, 3600.0)] = 5.0  # four lost ticks are survived, the fifth is not
    stale_after_s: Annotated[float, Range(0.1, 600.0)] = 3.0  # or three of a node's periods; suit it to slow meters
    latency_s: Annotated[float, Range(0.0, 120.0)] = 2.0  # a lock acts in 0.2 s, averaged power shows it 1 s later
    dwell_s: Annotated[float, Range(0.0, 3600.0)] = 30.0  # between two loosenings
    brake_dwell_s: Annotated[float, Range(0.0, 3600.0)] = 10.0  # a breaker must be relieved within about 10 s
    gap_frac: Annotated[float, Range(0.0, 0.5)] = 0.05  # under the brake before it may be let go (POLCA's gap)
    brake_frac: Annotated[float, Range(0.01, 1.0)] = 1.0  # of the budget
    brake: Setpoint = BRAKE
    fail_safe: Setpoint = FAIL_SAFE
    idle_frac: Annotated[float, Range(0.0, 0.9)] = 0.17  # of a board's maximum, drawn at any clock (A100 70 of 400 W)


@dataclass(frozen=True, slots=True)
class ForecastSpec:
    """What bounds the coming demand of the row and its racks, for policies and for people."""

    name: Annotated[str, Text(64)] = "quantile"  # what forecasts; "": nothing does
    hold_s: Annotated[float, Range(1.0, 3600.0)] = 300.0  # for so long the demand should fit after a loosening
    q: Annotated[float, Range(0.5, 0.9999)] = 0.99  # with what probability a bound is to hold


@dataclass(frozen=True, slots=True)
class HintSpec:
    """Hints how the site's serving pools should be shaped; one daemon of a site gives them.

    The objectives (`ttft_`, `tbt_`) are of the slowest hundredth; by default they are about five times what a request
    takes that has a Llama-2-70B over 8 H100 to itself.
    """

    name: Annotated[str, Text(64)] = ""  # what decides; "": nothing is hinted
    period_s: Annotated[float, Range(0.1, 3600.0)] = 5.0  # between two decisions
    life_s: Annotated[float, Range(1.0, 86400.0)] = 900.0  # a hint ends so long after it was said; renewed at half
    stale_after_s: Annotated[float, Range(0.1, 3600.0)] = 30.0  # without news of an instance nothing new is hinted
    gone_after_s: Annotated[float, Range(0.1, 86400.0)] = 120.0  # after so long without it counts as gone
    gpus: Annotated[int, Range(0, 10**6)] | None = None  # for all pools; left out: those of the inventory in service
    power_budget_w: DomainWatts | None = None  # for all pools, servers included; left out: the row's budget_w
    horizon_s: Annotated[float, Range(60.0, 86400.0)] = 2220.0  # sized for: 30 min, and 7 to start an instance
    ttft_s: Annotated[float, Range(0.001, 3600.0)] = 0.25  # to the first token, at least
    ttft_per_kilotoken_s: Annotated[float, Range(0.0, 3600.0)] = (
        0.45  # where that is more: for each 1000 tokens of the prompt
    )
    tbt_s: Annotated[float, Range(0.001, 3600.0)] = 0.15  # between two tokens
