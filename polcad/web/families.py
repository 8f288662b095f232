"""The table of what polcad tells Prometheus: names by its conventions, base units, `_total` for what only grows.

`polcad.web.metrics` fills it in for a daemon, `polcad.web.agent_metrics` for an agent; docs/metrics.md and the
dashboards use it. What is not known is not there, never zero. `_min_`, `_mean_` and `_max_` are over the last
`polcad_window_seconds`: a scrape changes nothing, so any number of scrapers, and a person with curl, find the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from polcad.measurements import COUNTERS


class Type(StrEnum):
    """Of a metric."""

    GAUGE = "gauge"
    COUNTER = "counter"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Family:
    """One metric; `name` as it is scraped."""

    name: str
    type: Type
    labels: tuple[str, ...]
    help: str


ROW, SCOPE, CLASS = ("row",), ("row", "scope"), ("row", "priority", "role")
NODE, GPU, POOL = ("row", "rack", "node"), ("row", "rack", "node", "gpu", "uuid"), ("row", "pool")
OF_SITE = ("site",)
SPANS = ("min", "mean", "max")


def _gauges(prefix: str, labels: tuple[str, ...], helps: dict[str, str]) -> Iterator[Family]:
    for name, text in helps.items():
        yield Family(f"polcad_{prefix}{name}", Type.GAUGE, labels, text)


def _counters(prefix: str, labels: tuple[str, ...], helps: dict[str, str]) -> Iterator[Family]:
    for name, text in helps.items():
        yield Family(f"polcad_{prefix}{name}_total", Type.COUNTER, labels, text)


def _spans(thing: str, labels: tuple[str, ...], text: str) -> Iterator[Family]:
    """Lowest, mean and highest power in the window."""
    for span, word in zip(SPANS, ("Lowest", "Mean", "Highest"), strict=True):
        yield Family(f"polcad_{thing}_power_{span}_watts", Type.GAUGE, labels, f"{word} {text} in the window.")


# What a daemon counts, by its name in `RowStatus.counters`, as Prometheus calls it.
COUNTER_NAMES = {
    **{name: name for name in COUNTERS},
    "telemetry": "telemetry_messages",
    "plans": "plan_changes",
    "not_obeyed": "nodes_not_obeyed",
    "out_of_order": "out_of_order_messages",
    "unlisted": "unlisted_nodes",
    "refused_unlisted": "refused_unlisted_messages",
    "strays": "stray_nodes",
    "dropped_in": "dropped_in_messages",
    "dropped_out": "dropped_out_messages",
    "oversized": "oversized_messages",
    "reconnects": "broker_reconnects",
}

BOTH = (
    Family("polcad_build_info", Type.INFO, ("version",), "The version of polcad; always 1."),
    Family("polcad_broker_up", Type.GAUGE, (), "1: the link to the broker is up."),
    Family("polcad_ready", Type.GAUGE, (), "1: /readyz says that all is well."),
    Family("polcad_window_seconds", Type.GAUGE, (), "How far back min, mean and max look, at least."),
)

DAEMON = (
    *_gauges(
        "domain_",
        SCOPE,
        {
            "budget_watts": "Budget of the row, or of a rack that has one.",
            "power_watts": "Its power: measured, and the worst case of what is stale.",
            "demand_watts": "What it would draw uncapped (estimated).",
        },
    ),
    *_spans("domain", SCOPE, "power of the row or rack"),
    *_gauges("domain_", (*SCOPE, "name"), {"threshold_watts": "Power at which a threshold acts: t1, t2, brake, ..."}),
    *_gauges("domain_", (*SCOPE, "why"), {"cause_active": "1: this cause holds at least one rule now."}),
    *_counters("domain_", (*SCOPE, "why"), {"cause_seconds": "Time that this cause held rules."}),
    *_gauges(
        "domain_forecast_",
        SCOPE,
        {
            "upper_watts": "Bound on the largest uncapped demand within the horizon.",
            "horizon_seconds": "The horizon: the actuation latency.",
            "hold_watts": "Bound on the largest demand for as long as a loosening should last.",
            "coverage_ratio": "Share of the last hour's bounds that held.",
            "error_ratio": "Mean error of the median forecast, of the peak, in the last hour.",
            "doubted": "1: the bounds are not used.",
        },
    ),
    *_gauges(
        "class_",
        CLASS,
        {
            "gpus": "GPUs of this priority and role.",
            "power_watts": "Their power.",
            "clock_ratio": "Clock lock that the row's plan asks of them, of the highest clock; 1: none.",
            "cap_ratio": "Power limit that the row's plan asks of them, of the highest; 1: none.",
            "victims": "GPUs that the row's plan holds back: all of them, or 0.",
            "obeying_gpus": "GPUs that report a setpoint no looser.",
        },
    ),
    *_gauges(
        "",
        ROW,
        {
            "nodes": "Nodes of the row.",
            "nodes_stale": "Nodes silent for too long: they count their worst case.",
            "gpus": "GPUs of the row.",
            "peak_ratio": "Highest use of the row's budget since the start.",
            "site_leased": "1: its budget is by the site's word, 0: the site is not heard; only of a row under a site.",
            "shadow": "1: nobody follows the plans of this daemon.",
            "leads": "1: this daemon leads the row, 0: it waits as a standby; only where there is one.",
            "lock_up": "1: the engine of the row's lock answers; only where there is a standby.",
            "tick_timestamp_seconds": "When the loop last ticked, Unix time.",
            "tick_lag_max_seconds": "How late the latest tick of the window came.",
            "decide_max_seconds": "Longest time that the controller took for a tick of the window.",
            "reaction_p50_seconds": "From the sample that tightened a plan to its read-back: median of the last 1000.",
            "reaction_p99_seconds": "The same: 99th percentile.",
        },
    ),
    *_counters("", ROW, {"over_budget_seconds": "Time over the row's budget.", "sent_plans": "Plans that went out."}),
    *_counters("", ROW, {COUNTER_NAMES[name]: f"{text[0].upper()}{text[1:]}." for name, text in COUNTERS.items()}),
    *_counters("", (*ROW, "kind"), {"events": "Events told, by kind."}),
    *_gauges(
        "node_",
        NODE,
        {
            "power_watts": "Power of the node's GPUs, as last heard.",
            "boards_max_watts": "Sum of its boards' highest power limits.",
            "stale": "1: silent for too long.",
            "clock_ratio": "Strictest clock lock in force on any of its GPUs, as reported.",
            "cap_ratio": "Strictest power limit in force on any of its GPUs, as reported.",
            "fault": "1: something is wrong with it; the page and `polcad status` tell what.",
        },
    ),
    *_spans("node", NODE, "power of the node's GPUs"),
    *_gauges(
        "hint_",
        POOL,
        {
            "instances": "Instances that the pool should have.",
            "tensor_parallel": "GPUs that each instance should run over.",
            "clock_ratio": "Clock that its GPUs should run at, of their maximum.",
            "requests_per_second": "Requests a second expected at the peak of the horizon.",
            "tokens_per_second": "Tokens a second, of prompts and outputs, expected then.",
            "power_watts": "Power of the pool expected then, servers included.",
            "saves_watts": "Power saved by following the hint, where it is known.",
            "timestamp_seconds": "When the hint was said, Unix time.",
            "expires_timestamp_seconds": "When the hint ends, Unix time.",
        },
    ),
    *_gauges(
        "hint_",
        (*POOL, "instance"),
        {"weight_ratio": "Share of the pool's requests that an instance should be given."},
    ),
    *_counters(
        "sink_",
        ("sink",),
        {
            "written_points": "Points that the database took.",
            "dropped_points": "Points dropped because too many waited.",
            "refused_points": "Points that the database refused for good: dropped.",
            "retries": "Writes that failed and were tried again.",
        },
    ),
    *_gauges("sink_", ("sink",), {"waiting_points": "Points that wait now."}),
)

AGENT = (
    *_gauges(
        "gpu_",
        GPU,
        {
            "power_watts": "Power of the GPU, as last read.",
            "utilization_ratio": "Utilisation of its multiprocessors.",
            "memory_used_ratio": "Memory in use, of the board's.",
            "sm_clock_hertz": "Clock of its multiprocessors.",
            "max_clock_hertz": "Highest clock of the board.",
            "temperature_celsius": "Temperature.",
            "limit_max_watts": "Highest power limit that the board takes.",
            "limit_requested_watts": "Power limit requested.",
            "limit_enforced_watts": "Power limit in force, the lowest of all sources.",
            "clock_ratio": "Clock lock in force, of the highest clock; 1: none.",
            "cap_ratio": "Power limit in force, of the one found at the start; 1: none.",
            "fault": "1: a reading of it is missing.",
        },
    ),
    *_spans("gpu", GPU, "power of the GPU"),
    *_counters("gpu_", GPU, {"energy_joules": "Energy since the driver was loaded; its rate is the mean power."}),
    *_gauges("gpu_", (*GPU, "reason"), {"throttled": "1: NVML names this reason why the board runs slower."}),
    *_gauges("gpu_", (*GPU, "outcome"), {"setpoint": "1: how the last setpoint went on it."}),
    *_gauges("node_", NODE, {"server_watts": "Power of the whole server, where it is measured."}),
    *_gauges("agent_", (*NODE, "state"), {"lease": "1: whether a plan is followed: none, held or expired."}),
    *_gauges(
        "agent_",
        NODE,
        {
            "lease_left_seconds": "Time until the lease of its plan ends; negative once it has.",
            "plan_age_seconds": "Lease age: time since the plan that it follows was accepted.",
            "reading_timestamp_seconds": "When the GPUs were last read, Unix time.",
            "cycle_max_seconds": "Longest time that setting, reading back and reading took in the window.",
        },
    ),
    *_counters(
        "agent_",
        NODE,
        {
            "cycles": "Times that the GPUs were set, read back and read.",
            "plans_refused": "Plans not accepted.",
            "complaints": "Messages that could not be believed, and GPUs that could not be read or set.",
            "dropped_messages": "Messages thrown away unsent.",
            "broker_reconnects": "Times that the link to the broker came back.",
        },
    ),
)

SITE = (
    *_gauges(
        "site_",
        OF_SITE,
        {
            "budget_watts": "Budget of the site.",
            "power_watts": "Power of its rows: as told, and of a silent one all that it may draw.",
            "granted_watts": "What its rows may draw together.",
            "over": "1: the site is over its budget, and rows are cut at once.",
            "leads": "1: this daemon leads the site, 0: it waits as a standby; only where there is one.",
            "lock_up": "1: the engine of the site's lock answers; only where there is a standby.",
        },
    ),
    *_gauges(
        "site_row_",
        (*OF_SITE, "row"),
        {
            "granted_watts": "What the row may draw.",
            "reserved_watts": "The most it may draw by any word that may still hold there: given to nobody else.",
            "fail_safe_watts": "What it falls to without the site.",
            "power_watts": "Its power, as last told.",
            "demand_watts": "Its uncapped demand, as last told.",
            "wants_watts": "The budget with which its recent peak of demand would be left alone.",
            "held": "1: its budget is not moved, for it is silent, or does not answer.",
        },
    ),
    *_counters("site_", OF_SITE, {"sent_budgets": "Messages of budgets that went out."}),
    *_counters("site_", (*OF_SITE, "kind"), {"events": "Events told, by kind."}),
)

FAMILIES = {each.name: each for each in (*BOTH, *DAEMON, *AGENT, *SITE)}
