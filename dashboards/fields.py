"""How Grafana shows a field: its colours, the words for its values, and what differs for some."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Json = dict[str, Any]


def thresholds(steps: Mapping[float, str]) -> Json:
    """Colours from a value on; below the first, green."""
    first: list[Json] = [{"color": "green", "value": None}] if steps else [{"color": "text", "value": None}]
    return {"mode": "absolute", "steps": first + [{"color": color, "value": value} for value, color in steps.items()]}


def words(meaning: Mapping[object, tuple[str, str]]) -> list[Json]:
    """What to write, and in which colour, instead of a value."""
    options = {
        str(value): {"text": text, "color": color, "index": index}
        for index, (value, (text, color)) in enumerate(meaning.items())
    }
    return [{"type": "value", "options": options}]


def override(name: str, **properties: Any) -> Json:
    """Other properties for series of that name, or, between slashes, of names that match; ``__`` stands for a dot."""
    matcher = "byRegexp" if name.startswith("/") else "byName"
    return {
        "matcher": {"id": matcher, "options": name},
        "properties": [{"id": key.replace("__", "."), "value": value} for key, value in properties.items()],
    }


def painted(name: str, color: str, **properties: Any) -> Json:
    """An override with a fixed colour."""
    return override(name, color={"mode": "fixed", "fixedColor": color}, **properties)
