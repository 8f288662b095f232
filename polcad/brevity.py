"""Rules that fit in one message, however many racks have some: a plan that nodes refuse for its size protects nobody.

Where the rules of a row would be too many, fewer and stricter ones stand for those of its racks: one of each rack and
priority; if that is not short enough, one of each rack; and at last one for the whole row. Nothing gets looser by that
at once, nor afterwards: more words are used again as carefully as the guard loosens, after a dwell, and when every
domain would fit its budget by its own rules. Agents of any version understand both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import reduce

from polcad.model import Event, EventKind, Priority, Role, Rule, Setpoint, Why

RULES_BYTES = 240 * 1024  # of the 256 KiB of a message
_RULE_BYTES = 152  # of a rule as JSON, but for its scope, at most: both fractions may have 23 digits
_CHARACTER_BYTES = 6  # of a scope that is no name, at most: a UUID may hold anything
_STANDS_FOR = ("", "each rack's rules for a priority", "each rack's rules", "all racks' rules")


class Brevity:
    """How few words the plans of one row need; `dwell_s` is the least time between two changes to more."""

    def __init__(self, dwell_s: float) -> None:
        self._dwell_s = dwell_s
        self._level, self._since_t = 0, float("-inf")

    def take(self, t: float, rules: Sequence[Rule], fits: Callable[[], bool]) -> tuple[tuple[Rule, ...], list[Event]]:
        """The rules that a plan says for these, and what is to be told of it; `fits`: whether these would do."""
        least = next(level for level, _ in enumerate(_STANDS_FOR) if _fit(_scopes(rules, level)))
        if least > self._level or (least < self._level and t - self._since_t >= self._dwell_s and fits()):
            told = [_told(t, least, self._level, len(rules))]
            self._level, self._since_t = least, t
        else:
            told = []
        return _merged(rules, self._level), told


def _told(t: float, level: int, before: int, rules: int) -> Event:
    if not level:
        return Event(t, EventKind.LOOSEN, "row", f"a message takes all {rules} rules again: each stands for itself")
    detail = f"{rules} rules are more than a message takes: the strictest of {_STANDS_FOR[level]} stands for them all"
    return Event(t, EventKind.TIGHTEN if level > before else EventKind.LOOSEN, "row", detail)


def _fit(scopes: Sequence[str]) -> bool:
    """Whether a message takes rules of these scopes, at a bound of what they need as JSON."""
    each = (len(scope) * (_CHARACTER_BYTES if scope.startswith("gpu/") else 1) for scope in scopes)
    return _RULE_BYTES * len(scopes) + sum(each) <= RULES_BYTES


def _scopes(rules: Iterable[Rule], level: int) -> list[str]:
    """The scope of each rule that stands for these."""
    return (
        [scope for scope, _, _ in {_about(rule, level) for rule in rules}] if level else [rule.scope for rule in rules]
    )


_About = tuple[str, Priority | None, Role | None]  # whom a rule speaks of


def _merged(rules: Sequence[Rule], level: int) -> tuple[Rule, ...]:
    if not level:
        return tuple(rules)
    groups: dict[_About, list[Rule]] = {}
    for rule in rules:
        groups.setdefault(_about(rule, level), []).append(rule)
    return tuple(_strictest(about, group) for about, group in groups.items())


def _about(rule: Rule, level: int) -> _About:
    if not rule.scope.startswith("rack/"):
        return rule.scope, rule.priority, rule.role
    return ((rule.scope, rule.priority, None), (rule.scope, None, None), ("row", None, None))[level - 1]


def _strictest(about: _About, rules: Sequence[Rule]) -> Rule:
    """One rule that asks of all what any of these asks of some; a brake among them is named before others."""
    scope, priority, role = about
    setpoint = reduce(Setpoint.strictest, (rule.setpoint for rule in rules))
    first = min(rules, key=lambda rule: (rule.why is not Why.BRAKE, rule.setpoint.clock_frac, rule.setpoint.cap_frac))
    return Rule(scope, setpoint, first.why, priority, role)
