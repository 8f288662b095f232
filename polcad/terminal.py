"""A row in the terminal: `render` for ``polcad top``, `summary` for ``polcad status``; functions of the nouns alone.

Colour only repeats what a sign or a word says.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from polcad import words
from polcad.abridging import LEFT_OUT
from polcad.explain import clock, passed
from polcad.model import DomainStatus, Event, EventKind, NodeColumns, RowStatus, Why
from polcad.words import Condition, percent, watts

GAUGE_TOP_FRAC = 1.1  # of the budget, where the gauge ends
TROUBLES_SHOWN = 4
WIDEST = 110  # a gauge broader than this is harder to read
_LAMPS = {Condition.LIVE: ("●", "green"), Condition.LATE: ("▲", "yellow")}
_BLOCKS = "▁▂▃▄▅▆▇█"
_STYLES = {
    Why.T1: "yellow",
    Why.T2: "dark_orange",
    Why.T2_HIGH: "dark_orange",
    Why.FORECAST: "magenta",
    Why.BRAKE: "bold white on red",
}
_ALARMS = {EventKind.BRAKE, EventKind.NOT_OBEYED, EventKind.SENSOR_FAULT, EventKind.DUPLICATE_NAME}


def render(
    status: RowStatus, nodes: NodeColumns | None = None, events: Iterable[Event] = (), *, age_s: float = 0.0
) -> RenderableType:
    """The live view of a row; `events` newest first; `age_s` since the status was heard."""
    parts: list[RenderableType] = [summary(status, age_s=age_s)]
    if nodes is not None and nodes.name:
        parts += [Text(), _nodes(nodes)]
    if lines := [_event(event) for event in events]:
        parts += [Text(), *lines]
    return Group(*parts)


def summary(status: RowStatus, *, age_s: float = 0.0) -> RenderableType:
    """The row's figures, classes and rules: one look, for ``polcad status``."""
    parts: list[RenderableType] = [_title(status, age_s)]
    if row := words.row_of(status):
        used_frac = row.power_w / row.budget_w if row.budget_w else 0.0
        parts += [Gauge(used_frac, (*status.thresholds.values(), 1.0)), _figures(row, status)]
        if row.outlook:
            parts.append(Text.assemble(("Forecast  ", "dim"), words.outlook_line(row.outlook)))
    if status.allowance and row:
        by = words.allowance_words(status.allowance)
        parts.append(Text.assemble(("Budget    ", "dim"), f"{watts(status.allowance.budget_w)} {by}"))
    if status.classes:
        parts += [Text(), _classes(status)]
    if racks := [domain for domain in status.domains if domain.scope != "row"]:
        parts += [Text(), _racks(racks)]
    if left_out := status.counters.get(LEFT_OUT):
        parts.append(
            Text(f"and {left_out} racks more than a message takes, each less full: see the daemon's page", "dim")
        )
    if status.domains:
        parts += [Text(), *_rules(status)]
    return Group(*parts)


def well(status: RowStatus, *, age_s: float = 0.0) -> bool:
    """Whether ``polcad status`` may end with 0: the daemon speaks, no brake stands, the row is within its budget."""
    row = words.row_of(status)
    live = words.condition(status, age_s) is Condition.LIVE
    return live and row is not None and row.power_w <= row.budget_w and not _braked(status)


class Gauge:
    """Power against the budget, as wide as there is room, with a mark at each threshold."""

    def __init__(self, used_frac: float, marks: Iterable[float]) -> None:
        self._used_frac = used_frac
        self._marks = tuple(marks)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        width = min(WIDEST, options.max_width)
        at = {min(width - 1, round(frac / GAUGE_TOP_FRAC * width)) for frac in self._marks}
        full = round(min(1.0, self._used_frac / GAUGE_TOP_FRAC) * width)
        colour = "red" if self._used_frac > 1.0 else "blue"
        text = Text(no_wrap=True)
        for column in range(width):
            filled = column < full
            sign = "┃" if column in at else "█" if filled else "─"
            text.append(sign, "bold yellow" if column in at else colour if filled else "dim")
        yield text


def _title(status: RowStatus, age_s: float) -> RenderableType:
    condition = words.condition(status, age_s)
    lamp, style = _LAMPS.get(condition, ("■", "bold red"))
    left = Text.assemble((status.row, "bold"), f"  policy {words.plain(status.policy) or 'unknown'}")
    if status.host:
        left.append(f"  led by {words.plain(status.host)}")
    if _braked(status):
        left.append("  ").append(" BRAKE ", _STYLES[Why.BRAKE])
    if status.shadow:
        left.append("  SHADOW: nothing is applied", "bold yellow")
    line = Table.grid(expand=True, padding=(0, 1))
    line.add_column(ratio=1)
    line.add_column(justify="right", no_wrap=True)
    heard = "" if condition is Condition.OFFLINE else f", heard {words.duration(age_s)} ago"
    line.add_row(left, Text(f"{lamp} {condition.value}{heard}", style))
    return line


def _figures(row: DomainStatus, status: RowStatus) -> RenderableType:
    used_frac = row.power_w / row.budget_w if row.budget_w else 0.0
    left_w = row.budget_w - row.power_w
    stale = f"{status.nodes_stale} stale" if status.nodes_stale else f"{status.gpus} GPUs"
    columns = [
        ("Power", watts(row.power_w), f"of {watts(row.budget_w)}"),
        ("Used", percent(used_frac), passed(used_frac, status)),
        ("Over budget" if left_w < 0 else "Headroom", watts(abs(left_w)), f"peak {percent(status.peak_frac)}"),
        ("Demand", watts(row.demand_w), f"{watts(max(0.0, row.demand_w - row.power_w))} held back"),
        ("Nodes heard", f"{status.nodes - status.nodes_stale}/{status.nodes}", stale),
    ]
    table = _table(*(name for name, _, _ in columns))
    table.add_row(*(value for _, value, _ in columns), style="bold")
    table.add_row(*(Text(note) for _, _, note in columns))  # a text that came from afar must not be markup
    return table


def _classes(status: RowStatus) -> RenderableType:
    table = _table("Class", "Power", "May take", "GPUs obeying")
    for group in status.classes:
        table.add_row(
            words.class_words(group.priority, group.role),
            watts(group.power_w),
            words.setpoint_words(group.setpoint),
            f"{'! ' if group.obeying < group.gpus else ''}{group.obeying}/{group.gpus}",
        )
    return table


def _racks(racks: Sequence[DomainStatus]) -> RenderableType:
    table = _table("Rack", "Power", "Budget", "Used", "")
    for rack in racks:
        used_frac = rack.power_w / rack.budget_w if rack.budget_w else 0.0
        note = "over" if used_frac > 1.0 else "limited" if rack.rules else ""
        name = Text(words.plain(rack.scope.removeprefix("rack/")))
        table.add_row(name, watts(rack.power_w), watts(rack.budget_w), percent(used_frac), note)
    return table


def _rules(status: RowStatus) -> Iterator[RenderableType]:
    standing = list(words.standing(status))
    if not standing:
        yield Text("No rule stands: every GPU is free.", "green")
    for index, rule in enumerate(standing):
        head = Text.assemble("▌", (f"{rule.scope.capitalize()}, {rule.who}: {rule.what}", "bold"), f"  {rule.why}")
        head.stylize(_STYLES.get(rule.kind, "cyan"), 0, 1)
        yield head
        if rule.since_t and (index + 1 == len(standing) or standing[index + 1].scope != rule.scope):
            waits = f"; stays because {rule.waiting}" if rule.waiting else ""
            since = f"since {clock(rule.since_t)} ({words.duration(status.t - rule.since_t)}){waits}"
            yield Padding(Text(since, "dim"), (0, 0, 0, 2))


def _nodes(nodes: NodeColumns) -> RenderableType:
    """One sign a node, a line a rack: its share of its boards' maximum power, or what is wrong with it."""
    lines: dict[str, Text] = {}
    for index, rack in enumerate(nodes.rack):
        lines.setdefault(rack, Text()).append(*_sign(nodes, index))
    table = Table.grid(padding=(0, 1))
    for rack, line in lines.items():
        table.add_row(Text(rack, "dim"), line)
    key = Text("share of maximum power ▁ to █, ? stale, ! fault, underlined: locked", "dim")
    troubles = [Text(f"{name}: {what}") for name, what in words.faults(nodes)]
    return Group(table, key, *troubles[:TROUBLES_SHOWN])


def _sign(nodes: NodeColumns, index: int) -> tuple[str, str]:
    power_w, max_w = nodes.power_w[index], nodes.max_w[index]
    if nodes.stale[index] or power_w is None or not max_w:
        return "?", "bold yellow"
    if nodes.fault[index]:
        return "!", "bold red"
    step = min(len(_BLOCKS) - 1, int(power_w / max_w * len(_BLOCKS)))
    locked = min(nodes.clock_frac[index] or 1.0, nodes.cap_frac[index] or 1.0) < 1.0
    return _BLOCKS[step], "blue underline" if locked else "blue"


def _event(event: Event) -> RenderableType:
    text = Text.assemble((f"{clock(event.t)}  ", "dim"), (event.kind.value.replace("_", " "), "bold"), "  ")
    if event.kind in _ALARMS:
        text.stylize("red", 8)
    text.append(f"{words.scope_words(event.scope)}  {words.plain(event.detail)}")
    text.truncate(400)
    return text


def _braked(status: RowStatus) -> bool:
    return any(rule.why is Why.BRAKE for domain in status.domains for rule in domain.rules)


def _table(*names: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in names:
        table.add_column(name, overflow="fold")
    return table
