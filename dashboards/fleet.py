"""Dashboard *fleet*: all rows at a glance, and where to look closer."""

from __future__ import annotations

from dashboards.asking import Asking
from dashboards.events import annotation, listed, paced
from dashboards.fields import painted, thresholds
from dashboards.grafana import Dashboard, Link, Panel, Query, Section
from dashboards.looks import BAD_IF_ANY, USE_STEPS, WATCH_IF_ANY, caused
from dashboards.panels import curves, number, states
from dashboards.tables import COLORED, Column, Table
from dashboards.variables import DAEMONS, MODE, ROWS, SITE

ASK = Asking((SITE, ROWS, MODE, DAEMONS))
EACH, ROW = ("site", "row"), {"scope": "row"}


def dashboard() -> Dashboard:
    """The whole of it."""
    return Dashboard(
        "fleet",
        "fleet",
        "All rows: how close each is to its budget, what holds it back, and what is wrong.",
        ASK.variables,
        (
            Section("Now", (*_numbers(), _rows())),
            Section("Power", (_use(), _power(), _headroom(), _causes())),
            Section("What happened", (paced(ASK, 12), _missing(), listed(ASK))),
        ),
        annotation(ASK),
    )


def _numbers() -> tuple[Panel, ...]:
    power, budget = ("polcad_domain", "power_w"), ("polcad_domain", "budget_w")
    return (
        number(
            "Rows",
            "Rows that a daemon told of in the chosen time.",
            "none",
            ASK.total("count", power, "polcad_domain_power_watts", *EACH, where=ROW),
        ),
        number(
            "Power",
            "Power of all rows together: measured, and the worst case of what is stale.",
            "watt",
            ASK.total("sum", power, "polcad_domain_power_watts", *EACH, where=ROW),
        ),
        number(
            "Budget",
            "Budgets of all rows together.",
            "watt",
            ASK.total("sum", budget, "polcad_domain_budget_watts", *EACH, where=ROW),
        ),
        number(
            "GPUs",
            "GPUs of all rows.",
            "none",
            ASK.total("sum", ("polcad_loop", "gpus"), "polcad_gpus", *EACH),
        ),
        number(
            "Silent nodes",
            "Nodes silent for too long: they count their worst case, and take headroom from their row.",
            "none",
            ASK.total("sum", ("polcad_loop", "nodes_stale"), "polcad_nodes_stale", *EACH),
            steps=BAD_IF_ANY,
        ),
        number(
            "GPUs held back",
            "GPUs that a plan holds back now, in all rows.",
            "none",
            ASK.total("sum", ("polcad_class", "victims"), "polcad_class_victims", *EACH, "priority", "role"),
            steps=WATCH_IF_ANY,
        ),
    )


def _rows() -> Panel:
    def domain(name: str) -> str:
        return ASK.series("max", name, *EACH, where=ROW)

    power, budget = domain("polcad_domain_power_watts"), domain("polcad_domain_budget_watts")
    used = {"custom__cellOptions": COLORED, "thresholds": thresholds(USE_STEPS)}
    any_is_bad = {"custom__cellOptions": COLORED, "thresholds": thresholds(BAD_IF_ANY)}
    return Table(
        "Rows",
        "Each row as it was told last. A click on its name opens it.",
        EACH,
        (
            Column("Used", "percentunit", ("polcad_domain", "used_frac"), f"{power} / {budget}", used),
            Column("Power", "watt", ("polcad_domain", "power_w"), power),
            Column("Budget", "watt", ("polcad_domain", "budget_w"), budget),
            Column("Headroom", "watt", ("polcad_domain", "headroom_w"), f"{budget} - {power}"),
            Column("Causes", "string", ("polcad_domain", "why")),
            Column("Clock lock", "percentunit", ("polcad_domain", "clock_frac")),
            Column(
                "Peak", "percentunit", ("polcad_loop", "peak_frac"), ASK.series("max", "polcad_peak_ratio", *EACH), used
            ),
            Column("Nodes", "none", ("polcad_loop", "nodes"), ASK.series("max", "polcad_nodes", *EACH)),
            Column(
                "Silent",
                "none",
                ("polcad_loop", "nodes_stale"),
                ASK.series("max", "polcad_nodes_stale", *EACH),
                any_is_bad,
            ),
            Column("GPUs not obeying", "none", ("polcad_loop", "gpus_loose"), _loose(), any_is_bad),
        ),
        where={"polcad_domain": ROW},
        links=(Link("row", "Open the row", "row", ("var-site=${__data.fields.site}", "var-row=${__value.raw}")),),
    ).panel(ASK)


def _loose() -> str:
    gpus, obeying = (ASK.series("sum", name, *EACH) for name in ("polcad_class_gpus", "polcad_class_obeying_gpus"))
    return f"{gpus} - {obeying}"


def _use() -> Panel:
    power = ASK.series("max", "polcad_domain_power_max_watts", *EACH, where=ROW)
    budget = ASK.series("max", "polcad_domain_budget_watts", *EACH, where=ROW)
    influxql = ASK.over_time("polcad_domain", 'max("used_frac")', *EACH, where=ROW)
    return curves(
        "Use of each row's budget",
        "The highest power in each interval, of the row's budget. At 100 % the brake comes.",
        "percentunit",
        Query("{{row}}", influxql, f"{power} / {budget}"),
        min=0,
        thresholds=thresholds(USE_STEPS),
    )


def _power() -> Panel:
    return curves(
        "Power of the rows",
        "The mean in each interval, one row upon the other; the line is the sum of the budgets.",
        "watt",
        ASK.curve(
            "{{row}}", ("polcad_domain", "mean", "power_w"), ("max", "polcad_domain_power_mean_watts"), *EACH, where=ROW
        ),
        Query(
            "budgets",
            ASK.added("sum", ("polcad_domain", "last", "budget_w"), EACH, where=ROW),
            f"sum({ASK.series('max', 'polcad_domain_budget_watts', *EACH, where=ROW)})",
        ),
        style="stacked",
        min=0,
        overrides=[painted("budgets", "red", custom__stacking={"mode": "none"}, custom__fillOpacity=0)],
    )


def _headroom() -> Panel:
    power = ASK.series("max", "polcad_domain_power_max_watts", *EACH, where=ROW)
    budget = ASK.series("max", "polcad_domain_budget_watts", *EACH, where=ROW)
    influxql = ASK.over_time("polcad_domain", 'min("headroom_w")', *EACH, where=ROW)
    return curves(
        "Headroom of each row",
        "Budget less power, the least in each interval; below zero the row is over its budget.",
        "watt",
        Query("{{row}}", influxql, f"{budget} - {power}"),
    )


def _causes() -> Panel:
    return states(
        "What holds the rows back",
        "A band while a cause holds rules of a row: t1, t2 and t2_high by power, forecast by what is expected, brake "
        "at once above the budget, operator by a hold.",
        ASK.curve(
            "{{row}} {{why}}",
            ("polcad_cause", "max", "active"),
            ("max", "polcad_domain_cause_active"),
            "row",
            "why",
            where=ROW,
        ),
        overrides=caused(".* "),
    )


def _missing() -> Panel:
    return curves(
        "Silent nodes",
        "Nodes silent for too long, by row.",
        "none",
        ASK.curve("{{row}}", ("polcad_loop", "max", "nodes_stale"), ("max", "polcad_nodes_stale"), *EACH),
        min=0,
        decimals=0,
    )
