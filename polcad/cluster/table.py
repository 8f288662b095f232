"""A dataclass from a table that a person wrote: every key known, every number of its type and in its range."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from math import isfinite
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

from polcad.errors import ConfigError
from polcad.model import Range

Noun = TypeVar("Noun")


def noun_of(noun: type[Noun], table: Any, where: str) -> Noun:
    """The dataclass `noun` filled from `table`; ConfigError that names `where` and the key for what does not fit."""
    if not isinstance(table, Mapping):
        raise ConfigError(f"{where}: a table is needed, not {table!r}")
    hints, known = get_type_hints(noun, include_extras=True), {item.name: item for item in fields(noun)}  # type: ignore[arg-type]  # a dataclass, which TypeVar cannot say
    if unknown := sorted(set(table) - set(known)):
        raise ConfigError(f"{where}: unknown key {unknown[0]!r}; known are {', '.join(known)}")
    for name, item in known.items():
        if name not in table and item.default is MISSING and item.default_factory is MISSING:
            raise ConfigError(f"{where}: {name} is missing")
    return noun(**{name: _value(hints[name], value, f"{where}: {name}") for name, value in table.items()})


def _value(hint: Any, value: Any, where: str) -> Any:
    if get_origin(hint) is Annotated:
        plain, *notes = get_args(hint)
        return _in_range(_value(plain, value, where), notes, where)
    if get_origin(hint) is tuple:
        if not isinstance(value, list) or not value:
            raise ConfigError(f"{where}: a list with at least one entry is needed, not {value!r}")
        return tuple(_value(get_args(hint)[0], item, f"{where}[{place}]") for place, item in enumerate(value))
    if is_dataclass(hint):
        return noun_of(hint, value, where)  # type: ignore[arg-type]  # a class: hints hold no instances
    return _plain(hint, value, where)


def _plain(hint: Any, value: Any, where: str) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not hint:
        raise ConfigError(f"{where}: {value!r} is not of type {hint.__name__}")
    if hint is float and not isfinite(value):
        raise ConfigError(f"{where}: {value!r} is not a number that can be used")
    return value


def _in_range(value: Any, notes: list[Any], where: str) -> Any:
    for note in notes:
        if isinstance(note, Range) and not note.ge <= value <= note.le:
            raise ConfigError(f"{where}: {value!r} is not between {note.ge:g} and {note.le:g}")
    return value
