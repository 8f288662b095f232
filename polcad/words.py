"""What a row's status says in plain English; the terminal and the live page use the same words.

Everything here is a function of the nouns alone. Power is shown to three figures, fractions as whole per cents but
where a tenth matters.
Text that came over the network is made `plain` before a terminal sees it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from polcad.model import (
    Allowance,
    DomainStatus,
    LeaseState,
    NodeColumns,
    Outlook,
    Priority,
    Role,
    RowStatus,
    Rule,
    Setpoint,
    Why,
)

LATE_S = 5.0  # a status is repeated each tick, at most a few seconds apart
SILENT_S = 15.0
_MINUTE_S = 60


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


def fine_percent(frac: float) -> str:
    """``99.2 %``: for probabilities and errors; ``99 %`` where that is all."""
    return f"{round(100 * frac, 1):g} %"


def duration(length_s: float) -> str:
    """``12 s``, ``3 min 05 s``, ``2 h 10 min``, ``3 d 4 h``."""
    seconds = max(0, round(length_s))
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if days:
        return f"{days} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes % 60:02d} min"
    return f"{minutes} min {seconds % 60:02d} s" if minutes else f"{seconds} s"


def horizon(length_s: float) -> str:
    """A time as it was set: ``2.5 s``, ``5 min``, ``1 h 30 min``."""
    return f"{length_s:g} s" if length_s < _MINUTE_S else re.sub(r" 00 \w+$", "", duration(length_s))


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


def allowance_words(allowance: Allowance) -> str:
    """Whose word a row's budget is, and between what it may move."""
    whose = "by the site's word" if allowance.lease is LeaseState.HELD else "the site is not heard"
    return f"{whose}; {watts(allowance.fail_safe_w)} for sure, {watts(allowance.own_w)} at most"


def why_words(why: Why, thresholds: Mapping[str, float], outlook: Outlook | None = None) -> str:
    """Why a rule was made, with the threshold's value where the status names it, and the bounds that are acted on."""

    def mark(name: str) -> str:
        frac = thresholds.get(name)
        share = f" ({percent(frac)} of budget)" if frac else ""
        return f"{name.upper() if name.startswith('t') else f'the {name}'}{share}"

    return {
        Why.T1: f"power passed {mark('t1')}",
        Why.T2: f"power passed {mark('t2')}",
        Why.T2_HIGH: f"still above {mark('t2')} after the low priority had slowed",
        Why.FORECAST: f"at a milder setting its demand could pass {mark('limit')}{_bounds_now(outlook)}",
        Why.BAND: "power passed the capping band",
        Why.BRAKE: f"power passed {mark('brake')}",
        Why.RESUME: "found in force when the daemon started or came back",
        Why.OPERATOR: "an operator's hold",
        Why.UNKNOWN: "a cause of a newer version than this one",
    }[why]


def _bounds_now(outlook: Outlook | None) -> str:
    """The bounds by which a policy tightens and loosens, as they are now."""
    if outlook is None or outlook.doubt:
        return ""
    soon = f"{watts(outlook.upper_w)} within {horizon(outlook.horizon_s)}"
    later = f"{watts(outlook.hold_w)} within {horizon(outlook.hold_s)}"
    return f": the {fine_percent(outlook.q)} bound on it is now {soon}, {later}"


def outlook_words(outlook: Outlook) -> str:
    """What is expected of a domain, and how far that came true, in a sentence: for the page and ``polcad explain``."""
    if outlook.doubt:
        return f"The forecast is not used: {plain(outlook.doubt)}."
    hour = _last_hour(outlook)
    soon = f"Within {horizon(outlook.horizon_s)} the uncapped demand stays below {watts(outlook.upper_w)}"
    later = f"within {horizon(outlook.hold_s)} below {watts(outlook.hold_w)} ({fine_percent(outlook.q)} sure)"
    return f"{soon}, {later}{f'; {hour}' if hour else ''}."


def outlook_line(outlook: Outlook) -> str:
    """The same for one line of a terminal: ``≤ 210 kW within 40 s (99 %); last hour: 99.2 % held, error 1.8 %``."""
    if outlook.doubt:
        return f"not used: {plain(outlook.doubt)}"
    held = f"{fine_percent(outlook.coverage)} held" if outlook.coverage is not None else ""
    error = f"error {fine_percent(outlook.error_frac)}" if outlook.error_frac is not None else ""
    hour = ", ".join(filter(None, (held, error)))
    bound = f"≤ {watts(outlook.upper_w)} within {horizon(outlook.horizon_s)} ({fine_percent(outlook.q)})"
    return f"{bound}{f'; last hour: {hour}' if hour else ''}"


def _last_hour(outlook: Outlook) -> str:
    """How the bounds within the horizon did in the last hour; "" while none has ended."""
    if outlook.coverage is None:
        return ""
    held = f"of such bounds in the last hour {fine_percent(outlook.coverage)} held"
    if outlook.error_frac is None:
        return held
    return f"{held}, and the peak was {fine_percent(outlook.error_frac)} off the forecast on average"


def standing(status: RowStatus) -> Iterator[Standing]:
    """Every rule in force, the row's first."""
    for domain in sorted(status.domains, key=lambda item: item.scope != "row"):
        for rule in domain.rules:
            yield Standing(
                scope_words(rule.scope),
                class_words(rule.priority, rule.role),
                setpoint_words(rule.setpoint),
                why_words(rule.why, status.thresholds, domain.outlook),
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
