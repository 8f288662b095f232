"""One section of the configuration: from parsed TOML to its dataclass, or to all its problems, not the first alone."""

from __future__ import annotations

import json
from dataclasses import MISSING, dataclass, field
from difflib import get_close_matches
from typing import Any, TypeVar

import msgspec

from polcad.codec import convert, mirror
from polcad.config.fields import Key, keys
from polcad.config.layers import KeyPath, Layers, Problem
from polcad.errors import ConfigError

T = TypeVar("T")
_SHOWN = 60  # characters of a wrong value


@dataclass(slots=True)
class Report:
    """Collects problems, each with its place."""

    layers: Layers
    problems: list[Problem] = field(init=False)

    def __post_init__(self) -> None:
        """Begin with what was wrong with the sources themselves."""
        self.problems = list(self.layers.problems)

    def add(self, path: KeyPath, what: str, *, warning: bool = False) -> None:
        """Note a problem of the key at `path` of the merged data."""
        self.problems.append(Problem(self.layers.place(path), dotted(path), what, warning))

    @property
    def errors(self) -> list[Problem]:
        """The problems that stop the start."""
        return [problem for problem in self.problems if not problem.warning]


def dotted(path: KeyPath) -> str:
    """A key as an operator writes it: ``node[3].gpus``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def build(data: Any, noun: type[T], path: KeyPath, report: Report) -> T | None:
    """The noun of the table at `path`, or None once its problems are noted."""
    try:
        return convert(data, noun)
    except ConfigError as error:  # the noun's own rules, such as thresholds in the wrong order
        named = [name for name in data if name in str(error)]
        report.add((*path, *named[:1]), str(error))
    except msgspec.ValidationError as error:
        known = len(report.problems)
        _inspect(data, noun, path, report)
        if len(report.problems) == known:
            report.add(path, str(error))
    return None


def _inspect(data: Any, noun: type, path: KeyPath, report: Report) -> None:
    """Note every problem: the codec stops at the first."""
    if not is_table(data, path, report):
        return
    known = keys(noun)
    for name, value in data.items():
        if name not in known:
            report.add((*path, name), unknown_key(name, list(known)))
        elif (nested := known[name].noun) is not None:
            _inspect(value, nested, (*path, name), report)
        elif (entry := known[name].entry) is not None and isinstance(value, list):
            for index, each in enumerate(value):
                _inspect(each, entry, (*path, name, index), report)
        elif not _converts(value, noun, name):
            report.add((*path, name), f"{_shown(value)} here, but it must be {_remedy(known[name])}")
    for name, key in known.items():
        if key.default is MISSING and name not in data:
            report.add((*path, name), f"is missing; it must be {key.allowed}")


def is_table(data: Any, path: KeyPath, report: Report) -> bool:
    """Whether this is a table; noted where it is not."""
    if not isinstance(data, dict):
        report.add(path, f"{_shown(data)} here, but this must be a table: [{dotted(path)}]")
    return isinstance(data, dict)


def _converts(value: Any, noun: type, name: str) -> bool:
    try:
        msgspec.convert(value, mirror(noun, forbid_unknown=True).__annotations__[name])
    except msgspec.ValidationError:
        return False
    return True


def unknown_key(name: str, known: list[str]) -> str:
    """What to say of a key that means nothing."""
    if "password" in name or "secret" in name:
        return "unknown key; a password is never written here: name its file in broker.password_file"
    close = [key for key in known if name and key.startswith(name)] or get_close_matches(name, known, 1)
    hint = f"did you mean {close[0]}?" if close else f"known here: {', '.join(known) or 'none'}"
    return f"unknown key; {hint}"


def _remedy(key: Key) -> str:
    default = "" if key.default is MISSING or key.default is None else f" (default {_shown(key.default)})"
    return f"{key.allowed}{default}"


def _shown(value: Any) -> str:
    if isinstance(value, dict | list | tuple):
        return "a table" if isinstance(value, dict) else "a list"
    if isinstance(value, int) and value.bit_length() > _SHOWN:
        return "a number far too large"
    text = json.dumps(value, default=str)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
