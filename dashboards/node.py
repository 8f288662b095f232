"""Dashboard *node*: what each GPU of one node does, and what holds it back."""

from __future__ import annotations

from dashboards.asking import Asking
from dashboards.events import annotation
from dashboards.fields import override, painted, thresholds, words
from dashboards.grafana import Dashboard, Panel, Query, Section
from dashboards.looks import BAD_IF_ANY, DASHED, YES_IS_BAD, YES_IS_GOOD, dashed
from dashboards.panels import curves, number, states
from dashboards.tables import COLORED, Column, Table
from dashboards.variables import GPU, NODE, RACK, ROW, SITE

ASK = Asking((SITE, ROW, RACK, NODE, GPU))
LEGEND = "GPU {{gpu}}"


def dashboard() -> Dashboard:
    """The whole of it."""
    return Dashboard(
        "node",
        "node",
        "One node: power, clocks and limits of its GPUs, what holds them back, and whether it follows its plan.",
        ASK.variables,
        (
            Section("Now", (*_numbers(), _gpus())),
            Section("Power and clocks", (_power(), _clocks(), _utilisation(), _temperature())),
            Section("What holds the GPUs back", (_throttle_text(), _throttle_reasons(), _locks(), _limits())),
            Section("Does it follow its plan?", (_lease(), _lease_age(), _silence(), _troubles())),
        ),
        annotation(ASK),
    )


def _numbers() -> tuple[Panel, ...]:
    return (
        number(
            "Power of its GPUs",
            "As last heard.",
            "watt",
            ASK.last("power", ("polcad_node", "power_w"), ("max", "polcad_node_power_watts")),
        ),
        number(
            "Power of the server",
            "Of the whole server, where it is measured.",
            "watt",
            ASK.last("server", ("polcad_node", "host_w"), ("max", "polcad_node_server_watts")),
        ),
        number(
            "Silent",
            "Yes: silent for too long, so it counts its worst case. See whether its agent and its network live.",
            "none",
            ASK.last("silent", ("polcad_node", "stale"), ("max", "polcad_node_stale")),
            mappings=YES_IS_BAD,
        ),
        number(
            "Follows a plan",
            "No: its lease has ended, and it holds the fail-safe setpoint.",
            "none",
            Query(
                "follows",
                ASK.newest("polcad_node", 'last("leased")'),
                ASK.series("max", "polcad_agent_lease", where={"state": "held"}),
                instant=True,
            ),
            mappings=YES_IS_GOOD,
        ),
        number(
            "Lease age",
            "Time since the plan that it follows went out (Prometheus: was accepted).",
            "s",
            ASK.last("age", ("polcad_node", "plan_age_s"), ("max", "polcad_agent_plan_age_seconds")),
        ),
        number(
            "Overridden GPUs",
            "GPUs on which something else holds another value than was set: look for another program that sets limits.",
            "none",
            Query(
                "overridden",
                ASK.newest("polcad_node", 'last("overridden")'),
                ASK.among("polcad_gpu_setpoint", where={"outcome": "overridden"}),
                instant=True,
            ),
            steps=BAD_IF_ANY,
        ),
    )


def _gpus() -> Panel:
    def gpu(name: str) -> str:
        return ASK.series("max", name, "gpu", "uuid")

    any_is_bad = {"custom__cellOptions": COLORED, "thresholds": thresholds(BAD_IF_ANY)}
    return Table(
        "GPUs",
        "Each GPU as last read.",
        ("gpu", "uuid"),
        (
            Column("Power", "watt", ("polcad_gpu", "power_w"), gpu("polcad_gpu_power_watts")),
            Column("Used", "percentunit", ("polcad_gpu", "util_frac"), gpu("polcad_gpu_utilization_ratio")),
            Column("Memory", "percentunit", ("polcad_gpu", "memory_frac"), gpu("polcad_gpu_memory_used_ratio")),
            Column("Temperature", "celsius", ("polcad_gpu", "temp_c"), gpu("polcad_gpu_temperature_celsius")),
            Column("Clock lock", "percentunit", ("polcad_gpu", "clock_frac"), gpu("polcad_gpu_clock_ratio")),
            Column("Power limit", "percentunit", ("polcad_gpu", "cap_frac"), gpu("polcad_gpu_cap_ratio")),
            Column("Held back by", "string", ("polcad_gpu", "throttled_by")),
            Column("Setpoint", "string", ("polcad_gpu", "outcome")),
            Column(
                "Overridden",
                "none",
                ("polcad_gpu", "overridden"),
                ASK.among("polcad_gpu_setpoint", "gpu", "uuid", where={"outcome": "overridden"}),
                any_is_bad,
            ),
        ),
    ).panel(ASK)


def _gpu_curves(title: str, text: str, unit: str, influx: tuple[str, str], name: str) -> Panel:
    how, field = influx
    return curves(title, text, unit, ASK.curve(LEGEND, ("polcad_gpu", how, field), ("max", name), "gpu"), min=0)


def _power() -> Panel:
    return _gpu_curves(
        "Power of each GPU", "Mean in each interval.", "watt", ("mean", "power_w"), "polcad_gpu_power_mean_watts"
    )


def _clocks() -> Panel:
    return _gpu_curves(
        "Clock of each GPU",
        "Clock of the multiprocessors, the mean in each interval.",
        "hertz",
        ("mean", "sm_mhz"),
        "polcad_gpu_sm_clock_hertz",
    )


def _utilisation() -> Panel:
    return _gpu_curves(
        "Utilisation",
        "Of the multiprocessors, the mean in each interval.",
        "percentunit",
        ("mean", "util_frac"),
        "polcad_gpu_utilization_ratio",
    )


def _temperature() -> Panel:
    return _gpu_curves(
        "Temperature", "The highest in each interval.", "celsius", ("max", "temp_c"), "polcad_gpu_temperature_celsius"
    )


def _throttle_text() -> Panel:
    return states(
        "Throttle reasons",
        "Why the driver runs each GPU slower than it could. sw_power_cap: a power limit binds; application_clocks: a "
        "clock setting binds; hw_slowdown, hw_thermal and power_brake are the board's own, and of concern.",
        ASK.curve(LEGEND, ("polcad_gpu", "last", "throttled_by"), None, "gpu"),
        width=24,
        color={"mode": "palette-classic"},
        mappings=words({"": ("none", "transparent"), "gpu_idle": ("idle", "dark-blue")}),
    )


def _throttle_reasons() -> Panel:
    now = ASK.series("max", "polcad_gpu_throttled", "gpu", "reason")
    ever = ASK.series("max", "polcad_gpu_throttled", "gpu", "reason", over="max_over_time", window="$__range")
    return states(
        "Throttle reasons",
        "Why the driver runs each GPU slower than it could. sw_power_cap: a power limit binds; application_clocks: a "
        "clock setting binds; hw_slowdown, hw_thermal and power_brake are the board's own, and of concern.",
        Query("GPU {{gpu}} {{reason}}", "", f"{now} and {ever} == 1"),
        width=24,
        mappings=words({0: (" ", "transparent"), 1: ("held back", "orange")}),
    )


def _locks() -> Panel:
    return curves(
        "Setpoints in force",
        "As read back from the driver: clock locks, of the highest clock, and power limits, of the one found at the "
        "start; 100 % is free.",
        "percentunit",
        ASK.curve("GPU {{gpu}} clock", ("polcad_gpu", "min", "clock_frac"), ("min", "polcad_gpu_clock_ratio"), "gpu"),
        ASK.curve("GPU {{gpu}} limit", ("polcad_gpu", "min", "cap_frac"), ("min", "polcad_gpu_cap_ratio"), "gpu"),
        width=24,
        style="step",
        min=0,
        max=1,
        overrides=[override("/limit$/", custom__lineStyle=DASHED)],
    )


def _limits() -> Panel:
    def limit(legend: str, field: str, name: str) -> Query:
        return ASK.curve(legend, ("polcad_gpu", "max", field), ("max", name))

    return curves(
        "Limits of GPU $gpu",
        "From the board's highest limit down: the limit requested, the limit in force (the lowest of all sources), and "
        "the highest power in each interval. In force below requested: something else than the request limits it.",
        "watt",
        limit("board", "max_w", "polcad_gpu_limit_max_watts"),
        limit("requested", "limit_w", "polcad_gpu_limit_requested_watts"),
        limit("in force", "enforced_w", "polcad_gpu_limit_enforced_watts"),
        limit("power", "power_w", "polcad_gpu_power_max_watts"),
        width=6,
        height=7,
        repeat="gpu",
        min=0,
        overrides=[
            *dashed({"board": "dark-red", "requested": "orange"}.items()),
            painted("in force", "red", custom__lineInterpolation="stepAfter"),
            painted("power", "green", custom__fillOpacity=15),
        ],
    )


def _lease() -> Panel:
    colors = {"held": "green", "expired": "red", "none": "orange"}
    return states(
        "Lease",
        "Whether it follows a plan (held), never had one (none), or holds the fail-safe setpoint (expired).",
        ASK.curve("lease", ("polcad_node", "last", "lease"), None),
        Query("{{state}}", "", ASK.series("max", "polcad_agent_lease", "state")),
        height=6,
        mappings=words({state: (state, color) for state, color in colors.items()}),
        overrides=[
            override(state, mappings=words({0: (" ", "transparent"), 1: (state, color)}))
            for state, color in colors.items()
        ],
    )


def _lease_age() -> Panel:
    return curves(
        "Lease age",
        "Time since the plan that it follows went out (Prometheus: was accepted). It saws up to a tick; what climbs "
        "beyond the lease makes the node fall to the fail-safe setpoint.",
        "s",
        ASK.curve("age", ("polcad_node", "max", "plan_age_s"), ("max", "polcad_agent_plan_age_seconds")),
        height=6,
        min=0,
    )


def _silence() -> Panel:
    return curves(
        "Silence and delay",
        "gap: time between its messages. delay: arrival less its own time stamp, so the clocks' difference too. cycle "
        "(Prometheus): what setting, reading back and reading took.",
        "s",
        ASK.curve("gap", ("polcad_node", "max", "gap_s"), None),
        ASK.curve("delay", ("polcad_node", "max", "delay_s"), None),
        Query("cycle", "", ASK.series("max", "polcad_agent_cycle_max_seconds")),
        height=6,
    )


def _troubles() -> Panel:
    return curves(
        "Refused and dropped",
        "Plans that it refused, and messages that it threw away unsent, a minute.",
        "cpm",
        ASK.pace("plans refused", ("polcad_node", "refused"), "polcad_agent_plans_refused_total"),
        ASK.pace("messages dropped", ("polcad_node", "dropped"), "polcad_agent_dropped_messages_total"),
        height=6,
        min=0,
    )
