"""What must hold between settings: each rule looks at the whole configuration and notes what cannot work, and why.

The floor of a domain is what it draws whatever is set: its servers' own power and the idle part of every GPU. A budget
at or under it cannot be kept by any policy, so it is refused before a daemon tries.
"""

from __future__ import annotations

from collections.abc import Iterable

from polcad.config.sections import Report
from polcad.curve import dynamic_frac
from polcad.spec import ForecastSpec, GuardSpec, HintSpec, NodeSpec, RowSpec, SiteSpec
from polcad.standby_spec import StandbySpec
from polcad.wire import OF_POOLS


def check_guard(guard: GuardSpec, report: Report) -> None:
    """A plan must outlive a lost tick, and a sample must be waited for longer than one."""
    for name in ("lease_s", "stale_after_s"):
        value_s = getattr(guard, name)
        if value_s < 2 * guard.tick_s:
            report.add(
                ("guard", name),
                f"{value_s:g} s is less than two ticks of {guard.tick_s:g} s, so that one lost message is silence: "
                f"make it at least {2 * guard.tick_s:g}, or tick_s shorter",
            )


def check_forecast(forecast: ForecastSpec, guard: GuardSpec, report: Report) -> None:
    """What is to fit after a loosening must last beyond the moment it acts."""
    if forecast.hold_s < guard.latency_s:
        report.add(
            ("forecast", "hold_s"),
            f"{forecast.hold_s:g} s is less than guard.latency_s, {guard.latency_s:g} s, in which a setting acts: "
            "a loosening would be taken back before it is seen",
        )


def check_standby(standby: StandbySpec | None, guard: GuardSpec, site: SiteSpec | None, report: Report) -> None:
    """A standby that waits for longer than a lease leaves nodes, or rows, at their fail-safe for the rest."""
    ttl_s = standby.ttl_s if standby else None
    name, lease_s = ("site", site.lease_s) if site and site.rows else ("guard", guard.lease_s)
    if ttl_s is not None and ttl_s > lease_s:
        report.add(
            ("standby", "ttl_s"),
            f"{ttl_s:g} s is more than {name}.lease_s, {lease_s:g} s: a standby will not lead within two leases",
            warning=True,
        )


def check_hints(hints: HintSpec, report: Report) -> None:
    """An instance goes stale before it is gone, after two periods at least, and a hint outlives what is waited for."""
    for name, least_s, why in (
        ("stale_after_s", 2 * hints.period_s, "two periods: one lost message would hold all hints"),
        ("gone_after_s", hints.stale_after_s, "stale_after_s: an instance would be gone before it is missed"),
        ("life_s", 2 * hints.stale_after_s, "two times stale_after_s: hints would end at every silence"),
    ):
        value_s = getattr(hints, name)
        if value_s < least_s:
            report.add(("hints", name), f"{value_s:g} s is less than {why}; make it at least {least_s:g}")


def check_site(site: SiteSpec, report: Report) -> None:
    """What rows fall to fits the site, and rows and the site can answer each other in the time they have."""
    for index, row in enumerate(site.rows):
        if row.name in {each.name for each in site.rows[:index]}:
            report.add(("site", "rows", index, "name"), f'"{row.name}" is used before: name each row once')
    together_w = sum(row.fail_safe_w for row in site.rows)
    if site.budget_w is not None and together_w > site.budget_w:
        report.add(
            ("site", "budget_w"),
            f"{site.budget_w:g} W is less than the {together_w:g} W that its rows fall to without the site: "
            "lower their fail_safe_w, or take rows out",
        )
    for name, least_s, why in (
        ("lease_s", 2 * site.tick_s, "two ticks: one lost message would be silence"),
        ("stale_after_s", 2 * site.tick_s, "two ticks: rows answer once a tick"),
    ):
        if getattr(site, name) < least_s:
            report.add(("site", name), f"{getattr(site, name):g} s is less than {why}; make it at least {least_s:g}")


def check_names(row: RowSpec, report: Report) -> None:
    """Names are unique, a node's rack is listed wherever racks are, and no row takes the place of the pools' topics."""
    if row.name in OF_POOLS:
        report.add(("row", "name"), f'"{row.name}" stands for pools in topics: give the row another name')
    for kind, names in (("node", [node.name for node in row.nodes]), ("rack", [rack.name for rack in row.racks])):
        seen: set[str] = set()
        for index, name in enumerate(names):
            if name in seen:
                report.add((kind, index, "name"), f'"{name}" is used before: give each {kind} a name of its own')
            seen.add(name)
    racks = {rack.name for rack in row.racks}
    for index, node in enumerate(row.nodes):
        if racks and node.rack not in racks:
            report.add(("node", index, "rack"), f'no [[rack]] has name = "{node.rack}": add it, or mend this name')


def check_budgets(row: RowSpec, guard: GuardSpec, report: Report) -> None:
    """Budgets lie above what cannot be shed, and should hold the fail-safe setpoint of all nodes at full load."""
    above_floor = _check_floor(row.budget_w, row.nodes, guard, ("row", "budget_w"), report)
    least_w, key = row.budget_w, "budget_w"
    if row.fail_safe_budget_w is not None:
        least_w, key = min(row.budget_w, row.fail_safe_budget_w), "fail_safe_budget_w"
        above_floor = above_floor and _check_floor(least_w, row.nodes, guard, ("row", key), report)
    for index, rack in enumerate(row.racks):
        if rack.budget_w is not None:
            nodes = [node for node in row.nodes if node.rack == rack.name]
            _check_floor(rack.budget_w, nodes, guard, ("rack", index, "budget_w"), report)
    fail_safe_w = sum(node.host_w + node.gpus * _fail_safe_w(node, guard) for node in row.nodes)
    if above_floor and fail_safe_w > least_w:
        report.add(
            ("row", key),
            f"{least_w:g} W is less than the {fail_safe_w:.0f} W that all nodes may draw at guard.fail_safe: "
            "without a daemon a full load passes the budget; lower guard.fail_safe.clock_frac, or its cap_frac",
            warning=True,
        )


def _check_floor(
    budget_w: float, nodes: Iterable[NodeSpec], guard: GuardSpec, path: tuple[str | int, ...], report: Report
) -> bool:
    floor_w = sum(node.host_w + node.gpus * node.gpu_max_w * guard.idle_frac for node in nodes)
    if budget_w <= floor_w:
        report.add(
            path,
            f"{budget_w:g} W is not above the {floor_w:.0f} W that its nodes draw at any setting (host_w, and "
            f"guard.idle_frac of each GPU's gpu_max_w), which cannot be shed: raise it, or list fewer nodes",
        )
    return budget_w > floor_w


def _fail_safe_w(node: NodeSpec, guard: GuardSpec) -> float:
    """The most that one GPU may draw at the fail-safe setpoint, as far as its role's curve tells."""
    dynamic = (1 - guard.idle_frac) * dynamic_frac(node.role, guard.fail_safe.clock_frac)
    return node.gpu_max_w * min(guard.fail_safe.cap_frac, guard.idle_frac + dynamic)
