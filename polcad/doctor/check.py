"""What a check finds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """How a check went."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """One finding; `remedy` is "" where nothing is to be done, `code` the exit code that a failure asks for."""

    name: str
    state: State
    detail: str
    remedy: str = ""
    code: int = 1
