"""The one table of what polcad writes to time-series databases: measurements with their tags, fields and units.

The points (`polcad.points`), the InfluxDB sink, docs/metrics.md and the dashboards use it. A field whose value is not
known is left out of its point, never zero. Numbers that say yes or no are 1 or 0, so that every database can sum them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Value(StrEnum):
    """What a field holds; a database refuses a field whose kind changes."""

    FLOAT = "float"
    INTEGER = "integer"
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class Field:
    """One field; `unit` is "" for text, counts, and 1 or 0."""

    name: str
    value: Value
    unit: str
    help: str


@dataclass(frozen=True, slots=True)
class Measurement:
    """A family of points: `when` says how often there is one, `tags` what tells its series apart."""

    name: str
    help: str
    when: str
    tags: tuple[str, ...]
    fields: tuple[Field, ...]


_UNITS = {"_w": "W", "_j": "J", "_s": "s", "_mhz": "MHz", "_c": "°C", "_frac": "1", "_per_s": "1/s"}


def _float(name: str, text: str) -> Field:
    return Field(name, Value.FLOAT, _unit(name), text)


def _integer(name: str, text: str) -> Field:
    return Field(name, Value.INTEGER, "", text)


def _text(name: str, text: str) -> Field:
    return Field(name, Value.TEXT, "", text)


def _unit(name: str) -> str:
    """By the longest ending of the name."""
    endings = [ending for ending in _UNITS if name.endswith(ending)]
    return _UNITS[max(endings, key=len)]


# What a daemon counts since its start, by the name in `RowStatus.counters`.
COUNTERS = {
    "telemetry": "telemetry messages heard",
    "ticks": "ticks of the loop",
    "plans": "plans that differ from the one before",
    "t1_entries": "times that the row passed T1",
    "t2_entries": "times that the row passed T2",
    "brakes": "times that the row braked",
    "not_obeyed": "nodes found with a looser setting than the plan's, once each time",
    "sensor_faults": "nodes whose power could not be believed, once each time",
    "out_of_order": "telemetry messages older than one heard before: dropped",
    "unlisted": "nodes heard that the inventory lacks",
    "refused_unlisted": "messages of unlisted nodes beyond the bound: dropped",
    "duplicate_names": "times that two senders spoke under one node's name",
    "strays": "nodes found following a newer epoch, by a planted plan",
    "absurd_epochs": "messages with an epoch that cannot be: not believed",
    "refused_messages": "messages that could not be believed: dropped",
    "dropped_in": "messages not taken in time: dropped",
    "dropped_out": "messages not sent in time: dropped",
    "oversized": "messages too large: dropped",
    "reconnects": "times that the link to the broker came back",
}

# Why a board runs slower than it could: bits of NVML's clocks event reasons (nvml.h, nvmlClocksEventReason*).
THROTTLE = {
    "gpu_idle": 0x1,
    "application_clocks": 0x2,
    "sw_power_cap": 0x4,
    "hw_slowdown": 0x8,
    "sync_boost": 0x10,
    "sw_thermal": 0x20,
    "hw_thermal": 0x40,
    "power_brake": 0x80,
    "display_clocks": 0x100,
}

_DAEMON = ("site", "row", "mode")  # mode: "live", or "shadow" of a daemon whose plans nobody follows
_EACH_MESSAGE, _EACH_TICK = "each telemetry message, by the daemon's clock", "each tick"

_GPU = Measurement(
    "polcad_gpu",
    "One GPU, as its agent reads it.",
    _EACH_MESSAGE,
    ("site", "row", "rack", "node", "gpu", "uuid", "priority", "role", "pool"),
    (
        _float("power_w", "power: of the moment, or the driver's average where the board tells no other"),
        _float("average_w", "the driver's average power"),
        _float("energy_j", "energy since the driver was loaded"),
        _float("util_frac", "utilisation of its multiprocessors"),
        _float("memory_frac", "memory in use, of the board's"),
        _float("sm_mhz", "clock of its multiprocessors"),
        _float("max_mhz", "highest clock of the board"),
        _float("temp_c", "temperature"),
        _float("max_w", "highest power limit that the board takes"),
        _float("limit_w", "power limit requested"),
        _float("enforced_w", "power limit in force, the lowest of all sources"),
        _float("clock_frac", "clock lock in force, of the highest clock; 1: none"),
        _float("cap_frac", "power limit in force, of the one found at the start; 1: none"),
        _integer("throttle", "NVML's clocks event reasons, as bits"),
        _text("throttled_by", "their names, joined by +; empty when nothing holds the board back"),
        _text("outcome", "how the last setpoint went: ok, clamped, overridden, failed, denied or unmanaged"),
        _integer("overridden", "1: something else holds another value than was set"),
        _integer("failed", "1: the driver refused the setpoint or did not answer"),
        _text("fault", "why a reading is missing"),
    ),
)

_NODE = Measurement(
    "polcad_node",
    "One node. While it is silent there are no points but one with stale = 1 each tick.",
    _EACH_MESSAGE,
    ("site", "row", "rack", "node"),
    (
        _float("power_w", "power of its GPUs that were read, together"),
        _float("host_w", "power of the whole server, where it is measured"),
        _integer("gpus", "GPUs that it has"),
        _integer("gpus_read", "GPUs whose power was read"),
        _float("gap_s", "time since its last message"),
        _float("delay_s", "arrival less the node's own time stamp: the way of the message, and the clocks' difference"),
        _text("lease", "whether it follows a plan: none, held or expired"),
        _integer("leased", "1: it follows a plan whose lease has not ended"),
        _float("plan_age_s", "lease age: time since the plan that it follows went out; left out for one long past"),
        _integer("plan_seq", "sequence number of that plan"),
        _integer("refused", "plans that it refused since its start"),
        _integer("dropped", "messages that it threw away unsent since its start"),
        _integer("overridden", "GPUs on which something else holds another value than was set"),
        _integer("stale", "1: silent for too long, so it counts its worst case"),
    ),
)

_DOMAIN = Measurement(
    "polcad_domain",
    "The row, or a rack with a budget. `scope` is row or rack/NAME.",
    _EACH_TICK,
    (*_DAEMON, "scope"),
    (
        _float("budget_w", "its budget"),
        _float("power_w", "its power: measured, and the worst case of what is stale"),
        _float("demand_w", "what it would draw uncapped (estimated)"),
        _float("headroom_w", "budget less power; negative above the budget"),
        _float("used_frac", "power, of the budget"),
        _float("clock_frac", "strictest clock lock that its rules ask of anybody; 1: none"),
        _float("cap_frac", "strictest power limit that its rules ask of anybody; 1: none"),
        _integer("rules", "rules in force"),
        _text("why", "causes of its rules, joined by +; none when all is free"),
        _float("held_s", "time since these rules stand; left out when all is free from the start"),
        _text("waiting", "why it is not loosened now; empty when nothing is to loosen"),
    ),
)

_THRESHOLD = Measurement(
    "polcad_threshold",
    "A threshold of the policy or the guard (t1, t2, brake, ...), for the row and each rack with a budget.",
    _EACH_TICK,
    (*_DAEMON, "scope", "name"),
    (_float("limit_w", "the power at which it acts"), _float("limit_frac", "the same, of the budget")),
)

_CAUSE = Measurement(
    "polcad_cause",
    "Whether a cause (t1, t2, t2_high, forecast, band, brake, resume, operator) holds rules of a domain, and for how "
    "long in sum; a cause is told from its first time on.",
    _EACH_TICK,
    (*_DAEMON, "scope", "why"),
    (
        _integer("active", "1: it holds at least one rule now"),
        _float("total_s", "time that it held since the daemon's start"),
    ),
)

_FORECAST = Measurement(
    "polcad_forecast",
    "Bounds on the coming uncapped demand of a domain.",
    _EACH_TICK,
    (*_DAEMON, "scope"),
    (
        _float("upper_w", "bound on the largest demand within horizon_s"),
        _float("horizon_s", "the actuation latency"),
        _float("hold_w", "bound on the largest demand within hold_s"),
        _float("hold_s", "the time for which a loosening should last"),
        _float("q_frac", "probability with which each bound is to hold"),
        _float("coverage_frac", "share of the last hour's bounds that held"),
        _float("error_frac", "mean error of the median forecast, of the peak, in the last hour"),
        _integer("doubted", "1: the bounds are not used"),
        _text("doubt", "why not; empty when they are"),
    ),
)

_CLASS = Measurement(
    "polcad_class",
    "The GPUs of one priority and role, and what the row's plan asks of them. Those with a lock are its victims.",
    _EACH_TICK,
    (*_DAEMON, "priority", "role"),
    (
        _integer("gpus", "GPUs of this class"),
        _float("power_w", "their power"),
        _float("clock_frac", "clock lock that the row's plan asks; 1: none"),
        _float("cap_frac", "power limit that the row's plan asks; 1: none"),
        _integer("victims", "GPUs that the row's plan holds back: all of them, or 0"),
        _integer("obeying", "GPUs that report a setpoint no looser"),
    ),
)

_PLAN = Measurement(
    "polcad_plan",
    "A rule of a plan: one point a rule, each time the rules change; of a plan without rules, one with why = none.",
    "each change of the plan",
    (*_DAEMON, "scope", "why", "priority", "role"),
    (
        _float("clock_frac", "clock lock that it asks; 1: none"),
        _float("cap_frac", "power limit that it asks; 1: none"),
        _integer("seq", "the plan's sequence number"),
    ),
)

_LOOP = Measurement(
    "polcad_loop",
    "The control loop itself.",
    _EACH_TICK,
    _DAEMON,
    (
        _integer("nodes", "nodes of the row"),
        _integer("nodes_stale", "nodes silent for too long"),
        _integer("gpus", "GPUs of the row"),
        _integer("gpus_loose", "GPUs that do not report the setpoint of the row's plan, or a stricter one"),
        _float("lag_s", "how late this tick came"),
        _float("decide_s", "time that the controller took for this tick"),
        _float("reaction_last_s", "last time from the sample that tightened a plan to the read-back on its last node"),
        _float("reaction_p50_s", "median of the last 1000 of them"),
        _float("reaction_p99_s", "their 99th percentile"),
        _float("peak_frac", "highest use of the row's budget since the daemon's start"),
        _float("over_budget_s", "time over the row's budget since the daemon's start"),
        _integer("seq", "plans that went out"),
        *(_integer(name, f"{text}, since the daemon's start") for name, text in COUNTERS.items()),
    ),
)

_SINK = Measurement(
    "polcad_sink",
    "What became of the points of a sink since the daemon's start.",
    _EACH_TICK,
    (*_DAEMON, "sink"),
    (
        _integer("written", "points that the database took"),
        _integer("dropped", "points dropped because too many waited"),
        _integer("refused", "points that the database refused for good: dropped"),
        _integer("retries", "writes that failed and were tried again"),
        _integer("waiting", "points that wait now"),
    ),
)

_EVENT = Measurement(
    "polcad_event",
    "Something that happened, told once: a transition, a fault, an override, a hold.",
    "each event",
    (*_DAEMON, "kind", "scope"),
    (
        _integer("count", "1"),
        _text("detail", "what, in words"),
        _float("power_w", "power of the domain then, where it has to do with it"),
        _float("budget_w", "budget of the domain then"),
    ),
)

_HINT = Measurement(
    "polcad_hint",
    "How a serving pool should be shaped, while the hint holds.",
    _EACH_TICK,
    ("site", "row", "pool"),
    (
        _integer("instances", "instances that the pool should have"),
        _integer("tensor_parallel", "GPUs that each should run over"),
        _float("clock_frac", "clock that its GPUs should run at, of the highest"),
        _float("requests_per_s", "requests expected at the peak of the horizon"),
        _float("tokens_per_s", "tokens of prompts and outputs expected then"),
        _float("power_w", "power of the pool expected then, servers included"),
        _float("saves_w", "power saved by following the hint, where it is known"),
        _float("left_s", "time until the hint ends"),
        _text("why", "the reason, in words"),
    ),
)

_LOAD = Measurement(
    "polcad_load",
    "What a serving instance does, as its engine tells.",
    "each message of an instance",
    ("site", "row", "pool", "instance"),
    (
        _integer("tensor_parallel", "GPUs that it runs over"),
        _float("requests_per_s", "requests that came"),
        _float("prompt_tokens_per_s", "tokens of prompts"),
        _float("output_tokens_per_s", "tokens of outputs"),
        _integer("running", "requests that run"),
        _integer("waiting", "requests that wait"),
        _float("kv_use_frac", "key-value cache in use"),
        _float("ttft_p50_s", "time to the first token, median"),
        _float("ttft_p99_s", "time to the first token, 99th percentile"),
        _float("tbt_p50_s", "time between two tokens, median"),
        _float("tbt_p99_s", "time between two tokens, 99th percentile"),
        _text("fault", "why something is missing; empty when nothing is"),
    ),
)

SCHEMA = {
    each.name: each
    for each in (
        *(_DOMAIN, _THRESHOLD, _CAUSE, _FORECAST, _CLASS, _PLAN, _GPU, _NODE),
        *(_LOOP, _SINK, _EVENT, _HINT, _LOAD),
    )
}
