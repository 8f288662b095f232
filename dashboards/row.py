"""Dashboard *row*: how close one row is to its budget, what is done about it, and to whom."""

from __future__ import annotations

from dashboards.asking import Asking
from dashboards.events import annotation, listed, paced
from dashboards.fields import override, painted, thresholds
from dashboards.grafana import Dashboard, Link, Panel, Query, Section
from dashboards.looks import BAD_IF_ANY, PRIORITIES, THRESHOLDS, USE_STEPS, cause_colors, caused, dashed
from dashboards.panels import bars, curves, number, states
from dashboards.tables import COLORED, Column, Table, listing
from dashboards.variables import DAEMONS, MODE, ROW, SCOPE, SITE

ASK = Asking((SITE, ROW, SCOPE, MODE, DAEMONS))
ALL = Asking((SITE, ROW, MODE, DAEMONS))  # domains of the row
CLASS = ("priority", "role")
LEGEND = "{{priority}} {{role}}"


def dashboard() -> Dashboard:
    """The whole of it."""
    return Dashboard(
        "row",
        "row",
        "One row: its power under its budget, the plans in force and their causes, and who pays for them.",
        ASK.variables,
        (
            Section("Now", _numbers()),
            Section("Power", (_power(), _used(), _headroom())),
            Section("What is done, and why", (_causes(), _durations(), _clocks(), _caps(), _rules())),
            Section("Who pays", (_victims(), _by_class(), _disobeying())),
            Section("Forecast", (_quality(), _doubt())),
            Section("Racks and nodes", (_domains(), paced(ASK), _nodes())),
            Section("Events", (listed(ASK),)),
        ),
        annotation(ASK),
    )


def _power_and_budget(span: str = "max_") -> tuple[str, str]:
    power = ASK.series("max", f"polcad_domain_power_{span}watts", "scope")
    return power, ASK.series("max", "polcad_domain_budget_watts", "scope")


def _numbers() -> tuple[Panel, ...]:
    power, budget = _power_and_budget("")
    return (
        number(
            "Used",
            "Power now, of the budget.",
            "percentunit",
            Query("used", ASK.newest("polcad_domain", 'last("used_frac")'), f"{power} / {budget}", instant=True),
            steps=USE_STEPS,
            width=3,
        ),
        number(
            "Headroom",
            "Budget less power now.",
            "watt",
            Query("headroom", ASK.newest("polcad_domain", 'last("headroom_w")'), f"{budget} - {power}", instant=True),
            width=3,
        ),
        number(
            "Budget",
            "The budget in force.",
            "watt",
            ASK.last("budget", ("polcad_domain", "budget_w"), ("max", "polcad_domain_budget_watts")),
            width=3,
        ),
        number(
            "Peak",
            "Highest use of the row's budget since its daemon's start.",
            "percentunit",
            ASK.last("peak", ("polcad_loop", "peak_frac"), ("max", "polcad_peak_ratio")),
            steps=USE_STEPS,
            width=3,
        ),
        number(
            "Over budget",
            "Time that the row was over its budget, in the chosen time.",
            "s",
            ASK.growth("over budget", ("polcad_loop", "over_budget_s"), "polcad_over_budget_seconds_total"),
            steps={0.001: "red"},
            width=3,
        ),
        number(
            "Brakes",
            "Times that the row braked, in the chosen time.",
            "none",
            ASK.growth("brakes", ("polcad_loop", "brakes"), "polcad_brakes_total"),
            steps=BAD_IF_ANY,
            width=3,
            decimals=0,
        ),
        number(
            "Silent nodes",
            "Nodes silent for too long: they count their worst case.",
            "none",
            ASK.last("silent", ("polcad_loop", "nodes_stale"), ("max", "polcad_nodes_stale")),
            steps=BAD_IF_ANY,
            width=3,
        ),
        number(
            "Victims",
            "GPUs that the row's plan holds back now.",
            "none",
            ASK.total("sum", ("polcad_class", "victims"), "polcad_class_victims", *CLASS),
            width=3,
        ),
    )


def _power() -> Panel:
    def domain(legend: str, how: str, field: str, name: str) -> Query:
        return ASK.curve(legend, ("polcad_domain", how, field), ("max", name))

    return curves(
        "Power",
        "Measured power (mean and highest in each interval) under the budget and the thresholds of policy and guard. "
        "Demand is what the row would draw uncapped; the band above it reaches to the forecast's bound on the largest "
        "demand within the actuation latency, and holds with the probability that the forecast was asked for.",
        "watt",
        domain("measured", "mean", "power_w", "polcad_domain_power_mean_watts"),
        domain("measured, highest", "max", "power_w", "polcad_domain_power_max_watts"),
        domain("demand", "mean", "demand_w", "polcad_domain_demand_watts"),
        ASK.curve("forecast", ("polcad_forecast", "max", "upper_w"), ("max", "polcad_domain_forecast_upper_watts")),
        domain("budget", "last", "budget_w", "polcad_domain_budget_watts"),
        ASK.curve(
            "{{name}}", ("polcad_threshold", "last", "limit_w"), ("max", "polcad_domain_threshold_watts"), "name"
        ),
        width=24,
        height=12,
        overrides=[
            painted("measured", "green", custom__lineWidth=2),
            painted("measured, highest", "dark-green"),
            painted("demand", "blue"),
            painted("forecast", "purple", custom__fillBelowTo="demand", custom__fillOpacity=15),
            painted("budget", "dark-red", custom__lineWidth=2),
            *dashed(THRESHOLDS.items()),
        ],
    )


def _used() -> Panel:
    power, budget = _power_and_budget()
    limit = ASK.series("max", "polcad_domain_threshold_watts", "scope", "name")
    return curves(
        "Use of the budget",
        "Power of the budget, the highest in each interval, and the thresholds of policy and guard.",
        "percentunit",
        Query("used", ASK.over_time("polcad_domain", 'max("used_frac")'), f"{power} / {budget}"),
        Query(
            "{{name}}",
            ASK.over_time("polcad_threshold", 'last("limit_frac")', "name"),
            f"{limit} / on (scope) group_left () {budget}",
        ),
        overrides=[painted("used", "green", custom__fillOpacity=10), *dashed(THRESHOLDS.items())],
    )


def _headroom() -> Panel:
    power, budget = _power_and_budget()
    return curves(
        "Headroom",
        "Budget less power, the least in each interval; below zero the row is over its budget.",
        "watt",
        Query("headroom", ASK.over_time("polcad_domain", 'min("headroom_w")'), f"{budget} - {power}"),
        overrides=[
            override(
                "headroom",
                custom__fillOpacity=20,
                custom__gradientMode="scheme",
                color={"mode": "thresholds"},
                thresholds={
                    "mode": "absolute",
                    "steps": [{"color": "red", "value": None}, {"color": "green", "value": 0}],
                },
            )
        ],
    )


def _causes() -> Panel:
    return states(
        "Causes of the plan",
        "A band while a cause holds at least one rule: t1, t2 and t2_high (the high priority too) by power, forecast "
        "by what is expected, brake at once above the budget, resume after a restart, operator by a hold.",
        ASK.curve("{{why}}", ("polcad_cause", "max", "active"), ("max", "polcad_domain_cause_active"), "why"),
        width=16,
        overrides=caused(),
    )


def _durations() -> Panel:
    return bars(
        "Time in each cause",
        "How long each cause held rules in the chosen time.",
        "s",
        ASK.growth("{{why}}", ("polcad_cause", "total_s"), "polcad_domain_cause_seconds_total", "why"),
        overrides=cause_colors(),
    )


def _clocks() -> Panel:
    return curves(
        "Clock locks of the classes",
        "Clock lock that the row's plan asks of each class, of the board's highest clock; 100 % is free.",
        "percentunit",
        ASK.curve(LEGEND, ("polcad_class", "min", "clock_frac"), ("min", "polcad_class_clock_ratio"), *CLASS),
        style="step",
        min=0,
        max=1,
    )


def _caps() -> Panel:
    return curves(
        "Power limits of the classes",
        "Power limit that the row's plan asks of each class, of the board's highest limit; 100 % is free.",
        "percentunit",
        ASK.curve(LEGEND, ("polcad_class", "min", "cap_frac"), ("min", "polcad_class_cap_ratio"), *CLASS),
        style="step",
        min=0,
        max=1,
    )


def _rules() -> Panel:
    columns = ", ".join(f'"{name}"' for name in ("seq", "why", "scope", "priority", "role", "clock_frac", "cap_frac"))
    return listing(
        "Plans and their causes",
        "Every change of the plan, newest first: one line a rule, with what made it. none: all is free.",
        f"SELECT {columns} {ASK.source('polcad_plan')} ORDER BY time DESC LIMIT 200",
        (override("clock_frac", unit="percentunit"), override("cap_frac", unit="percentunit")),
    )


def _victims() -> Panel:
    total = ASK.added("sum", ("polcad_class", "max", "victims"), CLASS, "priority")
    return curves(
        "Victims by priority",
        "GPUs that the row's plan holds back.",
        "none",
        Query("{{priority}}", total, ASK.series("sum", "polcad_class_victims", "priority")),
        width=8,
        style="stacked",
        min=0,
        overrides=[painted(priority, color) for priority, color in PRIORITIES.items()],
    )


def _by_class() -> Panel:
    return curves(
        "Power of the classes",
        "Power of the GPUs of each priority and role, one upon the other.",
        "watt",
        ASK.curve(LEGEND, ("polcad_class", "mean", "power_w"), ("max", "polcad_class_power_watts"), *CLASS),
        width=8,
        style="stacked",
        min=0,
    )


def _disobeying() -> Panel:
    gpus, obeying = (ASK.series("max", name, *CLASS) for name in ("polcad_class_gpus", "polcad_class_obeying_gpus"))
    return curves(
        "GPUs not obeying",
        "GPUs that report a looser setpoint than the plan's. For a moment after each change that is as it should be.",
        "none",
        Query(
            LEGEND,
            ASK.over_time("polcad_class", 'max("gpus") - min("obeying")', *CLASS),
            f"{gpus} - {obeying}",
        ),
        width=8,
        min=0,
    )


def _quality() -> Panel:
    return curves(
        "How good the forecast is",
        "Coverage: share of the last hour's bounds that held. Error: mean error of the median forecast, of the peak.",
        "percentunit",
        ASK.curve(
            "coverage", ("polcad_forecast", "mean", "coverage_frac"), ("max", "polcad_domain_forecast_coverage_ratio")
        ),
        ASK.curve("error", ("polcad_forecast", "mean", "error_frac"), ("max", "polcad_domain_forecast_error_ratio")),
        min=0,
        max=1,
    )


def _doubt() -> Panel:
    return curves(
        "Bounds of the forecast",
        "Bounds on the largest demand within the actuation latency, and for as long as a loosening should last. While "
        "they are doubted (1, right axis) they are not used.",
        "watt",
        ASK.curve(
            "within the latency", ("polcad_forecast", "max", "upper_w"), ("max", "polcad_domain_forecast_upper_watts")
        ),
        ASK.curve(
            "for a loosening", ("polcad_forecast", "max", "hold_w"), ("max", "polcad_domain_forecast_hold_watts")
        ),
        ASK.curve("doubted", ("polcad_forecast", "max", "doubted"), ("max", "polcad_domain_forecast_doubted")),
        overrides=[
            painted("doubted", "red", unit="none", custom__axisPlacement="right", min=0, max=1, custom__fillOpacity=20)
        ],
    )


def _domains() -> Panel:
    def domain(name: str) -> str:
        return ALL.series("max", name, "scope")

    power, budget = domain("polcad_domain_power_watts"), domain("polcad_domain_budget_watts")
    look = {"custom__cellOptions": COLORED, "thresholds": thresholds(USE_STEPS)}
    return Table(
        "Domains",
        "The row, and each rack with a budget, as told last.",
        ("scope",),
        (
            Column("Used", "percentunit", ("polcad_domain", "used_frac"), f"{power} / {budget}", look),
            Column("Power", "watt", ("polcad_domain", "power_w"), power),
            Column("Budget", "watt", ("polcad_domain", "budget_w"), budget),
            Column("Demand", "watt", ("polcad_domain", "demand_w"), domain("polcad_domain_demand_watts")),
            Column("Causes", "string", ("polcad_domain", "why")),
            Column("Held for", "s", ("polcad_domain", "held_s")),
            Column("Not loosened because", "string", ("polcad_domain", "waiting")),
        ),
        width=16,
    ).panel(ALL)


def _nodes() -> Panel:
    by = ("rack", "node")

    def node(name: str) -> str:
        return ALL.series("max", f"polcad_node_{name}", *by)

    any_is_bad = {"custom__cellOptions": COLORED, "thresholds": thresholds(BAD_IF_ANY)}
    chosen = ("${site:queryparam}", "${row:queryparam}", "var-rack=${__data.fields.rack}", "var-node=${__value.raw}")
    return Table(
        "Nodes",
        "Each node as last heard. A click on its name opens it.",
        by,
        (
            Column("Power", "watt", ("polcad_node", "power_w"), node("power_watts")),
            Column("Silent", "none", ("polcad_node", "stale"), node("stale"), any_is_bad),
            Column("Clock lock", "percentunit", None, node("clock_ratio")),
            Column("Power limit", "percentunit", None, node("cap_ratio")),
            Column("Trouble", "none", None, node("fault"), any_is_bad),
            Column("Lease", "string", ("polcad_node", "lease")),
            Column("Lease age", "s", ("polcad_node", "plan_age_s")),
            Column("GPUs read", "none", ("polcad_node", "gpus_read")),
            Column("Overridden GPUs", "none", ("polcad_node", "overridden"), look=any_is_bad),
        ),
        links=(Link("node", "Open the node", "node", chosen),),
        height=10,
    ).panel(ALL)
