"""The kinds of panels that polcad's dashboards are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dashboards.fields import Json, thresholds
from dashboards.grafana import Panel, Query


def curves(  # noqa: PLR0913  # a builder: a panel names what it differs in
    title: str,
    text: str,
    unit: str,
    *queries: Query,
    width: int = 12,
    height: int = 8,
    style: str = "line",
    overrides: Sequence[Json] = (),
    repeat: str = "",
    interval: str = "2s",
    **defaults: Any,
) -> Panel:
    """Curves over time; `style` is line, step, stacked or bars."""
    custom = {
        "drawStyle": "bars" if style == "bars" else "line",
        "lineInterpolation": "stepAfter" if style == "step" else "linear",
        "lineWidth": 1,
        "fillOpacity": {"line": 0, "step": 0, "stacked": 30, "bars": 80}[style],
        "showPoints": "auto",
        "spanNulls": 60_000,  # ms: a longer silence is a gap
        "stacking": {"mode": "normal" if style in {"stacked", "bars"} else "none", "group": "A"},
    }
    options = {
        "legend": {"showLegend": True, "displayMode": "list", "placement": "bottom", "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return Panel(
        kind="timeseries",
        title=title,
        help=text,
        queries=queries,
        unit=unit,
        width=width,
        height=height,
        defaults={"color": {"mode": "palette-classic"}, "custom": custom, **defaults},
        overrides=tuple(overrides),
        options=options,
        repeat=repeat,
        interval=interval,
    )


def number(
    title: str,
    text: str,
    unit: str,
    query: Query,
    *,
    width: int = 4,
    steps: Mapping[float, str] | None = None,
    **more: Any,
) -> Panel:
    """One number, coloured by `steps` where they say so."""
    defaults: Json = {"color": {"mode": "thresholds"}, "thresholds": thresholds(steps or {}), **more}
    options = {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "colorMode": "value",
        "graphMode": "none",
        "justifyMode": "auto",
        "orientation": "auto",
        "textMode": "auto",
        "wideLayout": True,
    }
    return Panel(
        kind="stat",
        title=title,
        help=text,
        queries=(query,),
        unit=unit,
        width=width,
        height=4,
        defaults=defaults,
        options=options,
    )


def bars(title: str, text: str, unit: str, *queries: Query, width: int = 8, overrides: Sequence[Json] = ()) -> Panel:
    """One bar a series."""
    options = {
        "displayMode": "basic",
        "orientation": "horizontal",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "showUnfilled": True,
        "valueMode": "color",
    }
    return Panel(
        kind="bargauge",
        title=title,
        help=text,
        queries=queries,
        unit=unit,
        width=width,
        defaults={"color": {"mode": "palette-classic"}, "min": 0},
        overrides=tuple(overrides),
        options=options,
    )


def states(
    title: str,
    text: str,
    *queries: Query,
    width: int = 12,
    height: int = 8,
    overrides: Sequence[Json] = (),
    **defaults: Any,
) -> Panel:
    """What held when: one band a series."""
    options = {
        "mergeValues": True,
        "showValue": "auto",
        "alignValue": "left",
        "rowHeight": 0.9,
        "legend": {"showLegend": False, "displayMode": "list", "placement": "bottom", "calcs": []},
        "tooltip": {"mode": "single", "sort": "none"},
    }
    custom = {"fillOpacity": 70, "lineWidth": 0, "spanNulls": 60_000}
    return Panel(
        kind="state-timeline",
        title=title,
        help=text,
        queries=queries,
        unit="none",
        width=width,
        height=height,
        defaults={"color": {"mode": "thresholds"}, "custom": custom, **defaults},
        overrides=tuple(overrides),
        options=options,
    )
