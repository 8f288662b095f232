"""The times of a noun in another clock's: as they are told, or as they were heard."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from polcad.model import Budgets, Event, Hint, Plan, RowStatus, SiteStatus

N = TypeVar("N", bound=Plan | Event | Hint | RowStatus | Budgets | SiteStatus)


def retimed(noun: N, clock: Callable[[float], float]) -> N:
    """The same noun, with each of its times as `clock` has it; a time of 0 stands for none, and stays."""

    def at(t: float) -> float:
        return clock(t) if t else 0.0

    if isinstance(noun, Hint):
        return replace(noun, t=at(noun.t), expires_t=at(noun.expires_t))
    if isinstance(noun, RowStatus):
        domains = tuple(replace(domain, since_t=at(domain.since_t)) for domain in noun.domains)
        return replace(noun, t=at(noun.t), domains=domains)
    return replace(noun, t=at(noun.t))
