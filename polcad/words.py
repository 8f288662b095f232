"""What a row's status says in plain English; the terminal and the live page use the same words.

Everything here is a function of the nouns alone. Power is shown to three figures, fractions as whole per cents.
Text that came over the network is made `plain` before a terminal sees it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from polcad.model import DomainStatus, NodeColumns, Priority, Role, RowStatus, Rule, Setpoint, Why

LATE_S = 5.0  # a status is repeated each tick, at most a few seconds apart
SILENT_S = 15.0


class Condition(StrEnum):
    """How much the latest status is worth, worst last."""

    LIVE = "live"
    LATE = "late"
    SILENT = "silent"
    OFFLINE = "offline"


@dataclass(frozen=True, slots=True)
class Standing:
    """One rule in force, in words."""

    scope: str
    who: str
    what: str
    why: str
    kind: Why
    since_t: float
    waiting: str


def condition(status: RowStatus, age_s: float) -> Condition:
    """What a status heard `age_s` ago is worth."""
    if not status.online:
        return Condition.OFFLINE
    if age_s > SILENT_S:
        return Condition.SILENT
    return Condition.LATE if age_s > LATE_S else Condition.LIVE


def row_of(status: RowStatus) -> DomainStatus | None:
    """The row itself among its domains; None before the first tick."""
    return next((domain for domain in status.domains if domain.scope == "row"), None)


def plain(text: str) -> str:
    """The text with a mark for each control character: no escape sequence of a stranger reaches a terminal."""
    return "".join(sign if sign.isprintable() else "�" for sign in text)


def watts(power_w: float) -> str:
    """``845 W``, ``43.2 kW``, ``1.25 MW``."""
    for unit, size in (("MW", 1e6), ("kW", 1e3)):
        if abs(power_w) >= size:
            value = power_w / size
            return f"{value:.{max(0, 3 - len(str(int(abs(value)))))}f} {unit}"
    return f"{power_w:.0f} W"


def percent(frac: float) -> str:
    """``93 %``."""
    return f"{100 * frac:.0f} %"


def duration(length_s: float) -> str:
    """``12 s``, ``3 min 05 s``, ``2 h 10 min``, ``3 d 4 h``."""
    seconds = max(0, round(length_s))
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if days:
        return f"{days} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes % 60:02d} min"
    return f"{minutes} min {seconds % 60:02d} s" if minutes else f"{seconds} s"


def setpoint_words(setpoint: Setpoint) -> str:
    """``free``, ``clock ≤ 79 %``, ``clock ≤ 79 %, power limit ≤ 60 %`` (of the board's maxima)."""
    parts = []
    if setpoint.clock_frac < 1.0:
        parts.append(f"clock ≤ {percent(setpoint.clock_frac)}")
    if setpoint.cap_frac < 1.0:
        parts.append(f"power limit ≤ {percent(setpoint.cap_frac)}")
    return ", ".join(parts) or "free"


def class_words(priority: Priority | None, role: Role | None) -> str:
    """``low priority, prompt``; ``all GPUs`` where a rule speaks of any."""
    words = [f"{priority} priority"] if priority else []
    words += [str(role)] if role else []
    return ", ".join(words) or "all GPUs"


def scope_words(scope: str) -> str:
    """``row``, ``rack r1``, ``node n3``, ``GPU GPU-…``."""
    kind, _, name = scope.partition("/")
    return plain(f"{'GPU' if kind == 'gpu' else kind} {name}".strip())


def why_words(why: Why, thresholds: Mapping[str, float]) -> str:
    """Why a rule was made, with the threshold's value where the status names it."""

    def mark(name: str) -> str:
        frac = thresholds.get(name)
        return f"{name.upper() if name != 'brake' else 'the brake'}{f' ({percent(frac)} of budget)' if frac else ''}"

    return {
        Why.T1: f"power passed {mark('t1')}",
        Why.T2: f"power passed {mark('t2')}",
        Why.T2_HIGH: f"still above {mark('t2')} after the low priority had slowed",
        Why.FORECAST: "the forecast of its demand would not fit under the budget",
        Why.BAND: "power passed the capping band",
        Why.BRAKE: f"power passed {mark('brake')}",
        Why.RESUME: "found in force when the daemon started or came back",
        Why.OPERATOR: "an operator's hold",
    }[why]


def standing(status: RowStatus) -> Iterator[Standing]:
    """Every rule in force, the row's first."""
    for domain in sorted(status.domains, key=lambda item: item.scope != "row"):
        for rule in domain.rules:
            yield Standing(
                scope_words(rule.scope),
                class_words(rule.priority, rule.role),
                setpoint_words(rule.setpoint),
                why_words(rule.why, status.thresholds),
                rule.why,
                domain.since_t,
                plain(domain.waiting),
            )


def lane(status: RowStatus, priority: Priority) -> str:
    """The strictest rule that binds a priority anywhere in the row, in two words; "" when it is free."""
    rules = [rule for domain in status.domains for rule in domain.rules if rule.priority in {None, priority}]
    strictest = min(rules, key=_strictness, default=None)
    if strictest is None or strictest.setpoint.free:
        return ""
    return f"{strictest.why.split('_')[0].upper()} {percent(_strictness(strictest))}"


def _strictness(rule: Rule) -> float:
    return min(rule.setpoint.clock_frac, rule.setpoint.cap_frac)


def faults(nodes: NodeColumns) -> Iterator[tuple[str, str]]:
    """Every node with something wrong, and what."""
    for name, stale, fault in zip(nodes.name, nodes.stale, nodes.fault, strict=True):
        words = [word for word in ("not heard of late, counted at its worst" if stale else "", fault) if word]
        if words:
            yield name, plain("; ".join(words))
