"""What Grafana does to a query before it asks a database: it puts in what was chosen, and the time."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]
_VARIABLE = re.compile(r"\$\{(\w+)(?::(\w+))?\}|\$(\w+)")


@dataclass(frozen=True, slots=True)
class Choice:
    """What is chosen of a variable: its values, and what is shown for a single one."""

    values: tuple[str, ...]
    text: str = ""
    several: bool = False
    raw: bool = False  # a pattern for all of them, which is not escaped


@dataclass(frozen=True, slots=True)
class Range:
    """The time that a person looks at, Unix seconds, and what Grafana makes of it on a screen."""

    start_t: float
    end_t: float
    interval_s: int = 2
    scrape_s: float = 1.0

    @property
    def built_in(self) -> Mapping[str, str]:
        """Grafana's own variables."""
        between = f"time >= {self.start_t * 1000:.0f}ms and time <= {self.end_t * 1000:.0f}ms"
        rate_s = max(self.interval_s + self.scrape_s, 4 * self.scrape_s)
        return {
            "timeFilter": between,
            "__interval": f"{self.interval_s}s",
            "__interval_ms": str(self.interval_s * 1000),
            "__range": f"{self.end_t - self.start_t:.0f}s",
            "__rate_interval": f"{rate_s:.0f}s",
        }


def filled(query: str, choices: Mapping[str, Choice], seen: Range) -> str:
    """The query as it reaches the database; KeyError for a variable that the dashboard does not have."""

    def put(match: re.Match[str]) -> str:
        name, form = match[1] or match[3], match[2] or ""
        return seen.built_in[name] if name in seen.built_in else _put(choices[name], form)

    return _VARIABLE.sub(put, query)


def _put(choice: Choice, form: str) -> str:
    if form == "text":
        return choice.text
    if choice.raw:
        return choice.values[0]
    if form != "regex" and not choice.several:
        (value,) = choice.values
        return value
    escape = r"[\\^$*+?.()|\[\]{}/]"
    values = [re.sub(escape, lambda found: f"\\{found[0]}", value) for value in choice.values]
    if form != "regex":
        values = [value.replace("\\", "\\\\") for value in values]
    return values[0] if len(values) == 1 else f"({'|'.join(values)})"


def panels(dashboard: Json) -> Iterator[Json]:
    """All panels but headings."""
    for panel in dashboard["panels"]:
        if panel["type"] != "row":
            yield panel
