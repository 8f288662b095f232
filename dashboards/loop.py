"""Dashboard *control loop*: whether the loop from sample to setting is quick, whole and obeyed."""

from __future__ import annotations

from dashboards.asking import Asking
from dashboards.events import annotation
from dashboards.grafana import Dashboard, Panel, Query, Section
from dashboards.looks import BAD_IF_ANY, WATCH_IF_ANY
from dashboards.panels import curves, number
from dashboards.variables import DAEMONS, MODE, ROW, SITE
from polcad.web.families import COUNTER_NAMES

ASK = Asking((SITE, ROW, MODE, DAEMONS))
DISOBEYED = {"not_obeyed": "not obeyed", "strays": "following a planted plan", "duplicate_names": "two of one name"}
BAD_NEWS = {
    "sensor_faults": "power not believed",
    "refused_messages": "message not believed",
    "absurd_epochs": "epoch not believed",
    "unlisted": "node unlisted",
    "out_of_order": "out of order",
}
LOST = {
    "dropped_in": "not taken in time",
    "dropped_out": "not sent in time",
    "oversized": "too large",
    "refused_unlisted": "of unlisted nodes",
}


def dashboard() -> Dashboard:
    """The whole of it."""
    return Dashboard(
        "loop",
        "control loop",
        "From sample to setting: how fresh the samples are, how long each step takes, who does not obey, what is lost.",
        ASK.variables,
        (
            Section("Now", _numbers()),
            Section("How fresh", (_silent(), _gaps())),
            Section("How quick: sample, plan, applied", (_reaction(), _steps(), _delays(), _plan_age())),
            Section("Is it obeyed?", (_loose(), _overridden(), _counted("Disobedience", _DISOBEDIENCE, DISOBEYED))),
            Section(
                "Errors and drops",
                (
                    _counted("Errors", "What the daemon could not believe, a minute.", BAD_NEWS),
                    _counted("Dropped messages", "Messages that the daemon lost, a minute.", LOST),
                    _throughput(),
                    _agents(),
                    _sinks(),
                    _waiting(),
                ),
            ),
        ),
        annotation(ASK),
    )


_DISOBEDIENCE = "Nodes found with a looser setting than the plan's, or following another's plan, a minute."


def _numbers() -> tuple[Panel, ...]:
    return (
        number(
            "Reaction, 99 %",
            "From the sample that tightened a plan to the read-back on its last node: 99 % were quicker.",
            "s",
            ASK.last("p99", ("polcad_loop", "reaction_p99_s"), ("max", "polcad_reaction_p99_seconds")),
        ),
        number(
            "Nodes",
            "Nodes of the row.",
            "none",
            ASK.last("nodes", ("polcad_loop", "nodes"), ("max", "polcad_nodes")),
        ),
        number(
            "Silent nodes",
            "Nodes silent for too long: they count their worst case.",
            "none",
            ASK.last("silent", ("polcad_loop", "nodes_stale"), ("max", "polcad_nodes_stale")),
            steps=BAD_IF_ANY,
        ),
        number(
            "GPUs not obeying",
            "GPUs that do not report the setpoint of the plan, or a stricter one.",
            "none",
            Query("loose", ASK.newest("polcad_loop", 'last("gpus_loose")'), _loose_now(), instant=True),
            steps=WATCH_IF_ANY,
        ),
        number(
            "Plans sent",
            "Plans that went out in the chosen time: one a tick.",
            "none",
            ASK.growth("plans", ("polcad_loop", "seq"), "polcad_sent_plans_total"),
            decimals=0,
        ),
        number(
            "Changes of the plan",
            "Plans that differ from the one before, in the chosen time. Many: it flutters.",
            "none",
            ASK.growth("changes", ("polcad_loop", "plans"), "polcad_plan_changes_total"),
            decimals=0,
        ),
    )


def _loose_now() -> str:
    gpus, obeying = (ASK.series("sum", name) for name in ("polcad_class_gpus", "polcad_class_obeying_gpus"))
    return f"{gpus} - {obeying}"


def _silent() -> Panel:
    return curves(
        "Silent nodes",
        "Nodes silent for too long: they count their worst case, and take headroom from the row.",
        "none",
        ASK.curve("silent", ("polcad_loop", "max", "nodes_stale"), ("max", "polcad_nodes_stale")),
        style="step",
        min=0,
        decimals=0,
    )


def _gaps() -> Panel:
    return curves(
        "Age of the samples",
        "The longest time between two messages of each node; by Prometheus, the age of its agent's last reading.",
        "s",
        ASK.curve("{{node}}", ("polcad_node", "max", "gap_s"), None, "node"),
        Query("{{node}}", "", f"time() - {ASK.series('max', 'polcad_agent_reading_timestamp_seconds', 'node')}"),
        min=0,
    )


def _reaction() -> Panel:
    return curves(
        "From sample to setting",
        "From the sample that tightened a plan to the read-back on its last node, as it last was, and the median and "
        "99th percentile of the last 1000.",
        "s",
        ASK.curve("last", ("polcad_loop", "last", "reaction_last_s"), None),
        ASK.curve("median", ("polcad_loop", "last", "reaction_p50_s"), ("max", "polcad_reaction_p50_seconds")),
        ASK.curve("99 %", ("polcad_loop", "last", "reaction_p99_s"), ("max", "polcad_reaction_p99_seconds")),
        min=0,
    )


def _steps() -> Panel:
    return curves(
        "The daemon's own part",
        "How late ticks came, and how long the controller took for one: the longest in each interval.",
        "s",
        ASK.curve("tick late", ("polcad_loop", "max", "lag_s"), ("max", "polcad_tick_lag_max_seconds")),
        ASK.curve("decide", ("polcad_loop", "max", "decide_s"), ("max", "polcad_decide_max_seconds")),
        min=0,
    )


def _delays() -> Panel:
    return curves(
        "The nodes' part",
        "Way of the messages: arrival less the node's time stamp, so the clocks' difference too (below zero: the "
        "node's clock is ahead). By Prometheus: what setting, reading back and reading took.",
        "s",
        ASK.curve("{{node}}", ("polcad_node", "max", "delay_s"), None, "node"),
        Query("{{node}}", "", ASK.series("max", "polcad_agent_cycle_max_seconds", "node")),
    )


def _plan_age() -> Panel:
    return curves(
        "Lease age",
        "Time since the plan that each node follows went out (Prometheus: was accepted).",
        "s",
        ASK.curve("{{node}}", ("polcad_node", "max", "plan_age_s"), ("max", "polcad_agent_plan_age_seconds"), "node"),
        min=0,
    )


def _loose() -> Panel:
    return curves(
        "GPUs not obeying",
        "GPUs that do not report the setpoint of the row's plan, or a stricter one. For a moment after each change "
        "that is as it should be.",
        "none",
        Query("not obeying", ASK.over_time("polcad_loop", 'max("gpus_loose")'), _loose_now()),
        width=8,
        min=0,
        decimals=0,
    )


def _overridden() -> Panel:
    return curves(
        "Overridden GPUs",
        "GPUs on which something else holds another value than was set: look for another program that sets limits.",
        "none",
        Query(
            "overridden",
            ASK.added("sum", ("polcad_node", "max", "overridden"), ("node",)),
            ASK.among("polcad_gpu_setpoint", where={"outcome": "overridden"}),
        ),
        width=8,
        min=0,
        decimals=0,
    )


def _counted(title: str, text: str, counters: dict[str, str]) -> Panel:
    return curves(
        title,
        text,
        "cpm",
        *(
            ASK.pace(legend, ("polcad_loop", name), f"polcad_{COUNTER_NAMES[name]}_total")
            for name, legend in counters.items()
        ),
        width=8,
        min=0,
    )


def _throughput() -> Panel:
    return curves(
        "Messages and ticks",
        "Telemetry heard, ticks of the loop and plans sent, a minute; and how often the link to the broker came back.",
        "cpm",
        ASK.pace("telemetry", ("polcad_loop", "telemetry"), "polcad_telemetry_messages_total"),
        ASK.pace("ticks", ("polcad_loop", "ticks"), "polcad_ticks_total"),
        ASK.pace("plans", ("polcad_loop", "seq"), "polcad_sent_plans_total"),
        ASK.pace("reconnects", ("polcad_loop", "reconnects"), "polcad_broker_reconnects_total"),
        width=8,
        min=0,
    )


def _agents() -> Panel:
    return curves(
        "Troubles of the agents",
        "Plans that agents refused, and messages that they threw away unsent, a minute, by node.",
        "cpm",
        ASK.pace("{{node}} refused", ("polcad_node", "refused"), "polcad_agent_plans_refused_total", "node"),
        ASK.pace("{{node}} dropped", ("polcad_node", "dropped"), "polcad_agent_dropped_messages_total", "node"),
        width=8,
        min=0,
    )


def _sinks() -> Panel:
    return curves(
        "Points to databases",
        "Points written, dropped because too many waited, refused by the database, and writes tried again, a minute.",
        "cpm",
        *(
            ASK.pace(f"{{{{sink}}}} {name}", ("polcad_sink", name), f"polcad_sink_{counter}_total", "sink")
            for name, counter in {
                "written": "written_points",
                "dropped": "dropped_points",
                "refused": "refused_points",
                "retries": "retries",
            }.items()
        ),
        width=8,
        min=0,
    )


def _waiting() -> Panel:
    return curves(
        "Points that wait",
        "Points not yet written. A slope upwards: the database is away or too slow.",
        "none",
        ASK.curve("{{sink}}", ("polcad_sink", "max", "waiting"), ("max", "polcad_sink_waiting_points"), "sink"),
        width=8,
        min=0,
    )
