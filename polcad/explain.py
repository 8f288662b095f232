"""Why a row's plan is as it is, in plain sentences, for ``polcad explain``."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from polcad import words
from polcad.model import ClassStatus, DomainStatus, NodeColumns, RowStatus
from polcad.words import Condition, percent, watts


def explain(status: RowStatus, nodes: NodeColumns | None = None, *, age_s: float = 0.0) -> Iterator[str]:
    """The sentences, one each, from a status heard `age_s` ago; nodes' own troubles too where they are known."""
    yield heard(status, age_s)
    if status.shadow:
        yield "Shadow mode: plans are published for comparison, and no node applies them."
    if status.allowance:
        allowed = f"{watts(status.allowance.budget_w)}: {words.allowance_words(status.allowance)}"
        yield f"Under the site's budget the row may draw {allowed}."
    for domain in sorted(status.domains, key=lambda item: item.scope != "row"):
        if domain.scope == "row" or domain.rules or domain.power_w > domain.budget_w:
            yield from _of_domain(domain, status)
    for group in status.classes:
        yield from _of_class(group)
    yield from _of_nodes(status, nodes)


def heard(status: RowStatus, age_s: float) -> str:
    """What the status itself is worth."""
    row = f"Row {status.row} under policy {words.plain(status.policy) or 'unknown'}"
    match words.condition(status, age_s):
        case Condition.OFFLINE:  # what the broker says for a daemon that is gone holds nothing else
            return f"Row {status.row} has no daemon: its nodes fall to their fail-safe setpoint when their lease ends."
        case Condition.LIVE:
            return f"{row}: the daemon spoke {words.duration(age_s)} ago."
        case _:
            late = f"{row}: the daemon has not spoken for {words.duration(age_s)}"
            return f"{late}; what follows is its last word, and nodes fall to their fail-safe when their lease ends."


def passed(used_frac: float, status: RowStatus) -> str:
    """``above T2 (89 %)`` or ``below every threshold``."""
    below = [(frac, name) for name, frac in status.thresholds.items() if used_frac > frac]
    if not below:
        return "below every threshold"
    frac, name = max(below)
    return f"above {words.plain(name).upper()} ({percent(frac)})"


def clock(t: float) -> str:
    """The time of day here, ``10:49:32``."""
    return datetime.fromtimestamp(t).astimezone().strftime("%H:%M:%S")


def _of_domain(domain: DomainStatus, status: RowStatus) -> Iterator[str]:
    name = "The row" if domain.scope == "row" else words.scope_words(domain.scope).capitalize()
    used_frac = domain.power_w / domain.budget_w if domain.budget_w else 0.0
    share = f"{watts(domain.power_w)} of its {watts(domain.budget_w)} ({percent(used_frac)})"
    yield f"{name} draws {share}, {passed(used_frac, status)}."
    held_w = domain.demand_w - domain.power_w
    if held_w > 0.005 * domain.budget_w:
        yield f"Uncapped it would draw {watts(domain.demand_w)} by estimate: {watts(held_w)} are held back."
    if domain.outlook:
        yield words.outlook_words(domain.outlook)
    if not domain.rules:
        yield f"No rule stands for {name.lower()}."
        return
    for rule in domain.rules:
        who = words.class_words(rule.priority, rule.role).capitalize().replace("gpus", "GPUs")
        where = "" if rule.scope == domain.scope else f" of {words.scope_words(rule.scope)}"
        why = words.why_words(rule.why, status.thresholds, domain.outlook)
        yield f"{who}{where}: {words.setpoint_words(rule.setpoint)}, because {why}."
    if domain.since_t:  # else only holds stand, and the domain itself never changed
        since = f"since {clock(domain.since_t)} ({words.duration(status.t - domain.since_t)})"
        waits = f", and is not loosened because {words.plain(domain.waiting)}" if domain.waiting else ""
        yield f"This stands {since}{waits}."


def _of_class(group: ClassStatus) -> Iterator[str]:
    missing = group.gpus - group.obeying
    if missing:
        who = words.class_words(group.priority, group.role)
        wanted = words.setpoint_words(group.setpoint)
        yield f"{missing} of {group.gpus} GPUs ({who}) are not seen to follow the plan ({wanted})."


def _of_nodes(status: RowStatus, nodes: NodeColumns | None) -> Iterator[str]:
    if status.nodes_stale:
        yield f"Not heard of late, and counted at their worst: {status.nodes_stale} of {status.nodes} nodes."
    for name, what in words.faults(nodes) if nodes else ():
        yield f"Node {name}: {what}."
