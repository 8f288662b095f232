"""Dashboard *hints*: how pools of serving instances should be shaped, and what their engines say."""

from __future__ import annotations

from typing import Any

from dashboards.asking import Asking
from dashboards.events import annotation
from dashboards.grafana import Dashboard, Panel, Query, Section
from dashboards.panels import curves, number
from dashboards.tables import Column, Table
from dashboards.variables import POOL, ROW, SITE

ASK = Asking((SITE, ROW, POOL))
INSTANCE = ("pool", "instance")
EACH_30_S = "30s"  # in which every engine tells of itself, or their sum would saw


def dashboard() -> Dashboard:
    """The whole of it."""
    return Dashboard(
        "hints",
        "hints",
        "Scaling hints: what each pool should be, for which load, and what following them would save.",
        ASK.variables,
        (
            Section("Now", (*_numbers(), _now())),
            Section("Shape", (_instances(), _tensor_parallel(), _clock())),
            Section("Load and power", (_requests(), _tokens(), _power())),
            Section("Engines", (_queues(), _cache(), _first_token(), _between_tokens())),
        ),
        annotation(ASK),
    )


def _numbers() -> tuple[Panel, ...]:
    each = ASK.newest("polcad_hint", 'last("instances") * last("tensor_parallel") AS "gpus"', "pool")
    return (
        number(
            "Power expected",
            "Of the pools together at the peak of the horizon, servers included.",
            "watt",
            ASK.total("sum", ("polcad_hint", "power_w"), "polcad_hint_power_watts", "pool"),
            width=8,
        ),
        number(
            "Saving",
            "Power saved by following the hints, where it is known.",
            "watt",
            ASK.total("sum", ("polcad_hint", "saves_w"), "polcad_hint_saves_watts", "pool"),
            width=8,
        ),
        number(
            "GPUs hinted",
            "Instances times the GPUs of each, over the pools.",
            "none",
            Query(
                "",
                f'SELECT sum("gpus") FROM ({each})',
                "sum("
                f"{ASK.series('max', 'polcad_hint_instances', 'pool')} * "
                f"{ASK.series('max', 'polcad_hint_tensor_parallel', 'pool')})",
                instant=True,
            ),
            width=8,
        ),
    )


def _now() -> Panel:
    def hint(name: str) -> str:
        return ASK.series("max", f"polcad_hint_{name}", "pool")

    return Table(
        "Hints",
        "The hint that each pool had last.",
        ("pool",),
        (
            Column("Instances", "none", ("polcad_hint", "instances"), hint("instances")),
            Column("GPUs of each", "none", ("polcad_hint", "tensor_parallel"), hint("tensor_parallel")),
            Column("Clock", "percentunit", ("polcad_hint", "clock_frac"), hint("clock_ratio")),
            Column("Requests", "reqps", ("polcad_hint", "requests_per_s"), hint("requests_per_second")),
            Column("Power", "watt", ("polcad_hint", "power_w"), hint("power_watts")),
            Column("Saves", "watt", ("polcad_hint", "saves_w"), hint("saves_watts")),
            Column("Ends in", "s", ("polcad_hint", "left_s"), f"{hint('expires_timestamp_seconds')} - time()"),
            Column("Why", "string", ("polcad_hint", "why")),
        ),
        height=6,
    ).panel(ASK)


def _hinted(title: str, text: str, unit: str, fields: tuple[str, str], **more: Any) -> Panel:
    field, name = fields
    query = ASK.curve("{{pool}}", ("polcad_hint", "last", field), ("max", f"polcad_hint_{name}"), "pool")
    return curves(title, text, unit, query, width=8, style="step", min=0, **more)


def _tensor_parallel() -> Panel:
    return _hinted(
        "GPUs of an instance",
        "Over how many GPUs each instance should run.",
        "none",
        ("tensor_parallel", "tensor_parallel"),
        decimals=0,
    )


def _clock() -> Panel:
    return _hinted(
        "Clock",
        "Clock that the pool's GPUs should run at, of the highest.",
        "percentunit",
        ("clock_frac", "clock_ratio"),
        max=1,
    )


def _instances() -> Panel:
    running = ASK.added("count", ("polcad_load", "last", "tensor_parallel"), INSTANCE, "pool", fill="none")
    return curves(
        "Instances",
        "Instances that each pool should have, and (InfluxDB) those whose engines told of themselves.",
        "none",
        ASK.curve("{{pool}} hinted", ("polcad_hint", "last", "instances"), ("max", "polcad_hint_instances"), "pool"),
        Query("{{pool}} running", running, ""),
        interval=EACH_30_S,
        width=8,
        style="step",
        min=0,
        decimals=0,
    )


def _requests() -> Panel:
    return curves(
        "Requests",
        "Expected at the peak of the horizon, and (InfluxDB) come to the engines.",
        "reqps",
        ASK.curve(
            "{{pool}} expected",
            ("polcad_hint", "last", "requests_per_s"),
            ("max", "polcad_hint_requests_per_second"),
            "pool",
        ),
        Query("{{pool}} come", ASK.added("sum", ("polcad_load", "mean", "requests_per_s"), INSTANCE, "pool"), ""),
        interval=EACH_30_S,
        width=8,
        min=0,
    )


def _tokens() -> Panel:
    return curves(
        "Tokens",
        "Tokens of prompts and outputs together, expected at the peak of the horizon, and (InfluxDB) as they are.",
        "suffix: tokens/s",
        ASK.curve(
            "{{pool}} expected",
            ("polcad_hint", "last", "tokens_per_s"),
            ("max", "polcad_hint_tokens_per_second"),
            "pool",
        ),
        Query(
            "{{pool}} prompts", ASK.added("sum", ("polcad_load", "mean", "prompt_tokens_per_s"), INSTANCE, "pool"), ""
        ),
        Query(
            "{{pool}} outputs", ASK.added("sum", ("polcad_load", "mean", "output_tokens_per_s"), INSTANCE, "pool"), ""
        ),
        interval=EACH_30_S,
        width=8,
        min=0,
    )


def _power() -> Panel:
    return curves(
        "Power and saving",
        "Expected of each pool, servers included, and saved by following the hint.",
        "watt",
        ASK.curve("{{pool}} power", ("polcad_hint", "last", "power_w"), ("max", "polcad_hint_power_watts"), "pool"),
        ASK.curve("{{pool}} saves", ("polcad_hint", "last", "saves_w"), ("max", "polcad_hint_saves_watts"), "pool"),
        width=8,
    )


def _engines(title: str, text: str, unit: str, *fields: tuple[str, str]) -> Panel:
    return curves(
        title,
        text,
        unit,
        *(
            ASK.curve(f"{{{{instance}}}} {legend}", ("polcad_load", "max", field), None, "instance")
            for legend, field in fields
        ),
        width=6,
        min=0,
    )


def _queues() -> Panel:
    return _engines(
        "Requests in the engines", "Running and waiting.", "none", ("runs", "running"), ("waits", "waiting")
    )


def _cache() -> Panel:
    return _engines("Key-value cache", "Of each engine, in use.", "percentunit", ("used", "kv_use_frac"))


def _first_token() -> Panel:
    return _engines(
        "Time to the first token", "Median and 99th percentile.", "s", ("p50", "ttft_p50_s"), ("p99", "ttft_p99_s")
    )


def _between_tokens() -> Panel:
    return _engines(
        "Time between tokens", "Median and 99th percentile.", "s", ("p50", "tbt_p50_s"), ("p99", "tbt_p99_s")
    )
