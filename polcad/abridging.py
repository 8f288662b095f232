"""Statuses of more racks or rows than a message takes: they tell of what matters most, and how many they leave out.

Whoever needs all of a row's racks asks its daemon's page or metrics.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from polcad.model import DomainStatus, RowStatus, SiteRow, SiteStatus, Why

LEFT_OUT = "left_out"  # the counter that says how many
Abridged = RowStatus | SiteStatus
_Part = TypeVar("_Part", DomainStatus, SiteRow)


def abridged(status: Abridged) -> Abridged | None:
    """The status with half of its racks or rows: the braked, the limited, the fullest. A row's own figures stay.

    None when there are none to leave out.
    """
    if isinstance(status, RowStatus):
        row, racks = status.domains[:1], status.domains[1:]
        return replace(status, domains=row + _half(racks), counters=_counting(status, racks)) if racks else None
    rows = status.rows
    return replace(status, rows=_half(rows), counters=_counting(status, rows)) if rows else None


def _half(parts: Sequence[_Part]) -> tuple[_Part, ...]:
    places = sorted(range(len(parts)), key=lambda place: _weight(parts[place]), reverse=True)
    return tuple(parts[place] for place in sorted(places[: len(parts) // 2]))


def _weight(part: DomainStatus | SiteRow) -> tuple[bool, bool, float]:
    used_frac = part.power_w / max(part.budget_w, 1.0)
    if isinstance(part, SiteRow):
        return False, bool(part.note), used_frac
    return any(rule.why is Why.BRAKE for rule in part.rules), bool(part.rules), used_frac


def _counting(status: Abridged, parts: Sequence[_Part]) -> dict[str, int]:
    left_out = len(parts) - len(parts) // 2
    return {**status.counters, LEFT_OUT: status.counters.get(LEFT_OUT, 0) + left_out}
