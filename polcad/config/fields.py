"""What the dataclasses of the configuration say of their fields: type, bounds, default, and the comment beside each."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from enum import StrEnum
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from polcad.model import NAME_PATTERN, Range, Text

_UNITS = {
    "_w": "watts",
    "_s": "seconds",
    "_frac": "fraction",
    "_mhz": "megahertz",
    "_bytes": "bytes",
}


@dataclass(frozen=True, slots=True)
class Key:
    """One field of a section, as an operator needs to know it."""

    name: str
    hint: Any
    default: Any  # MISSING: must be given
    comment: str

    @property
    def noun(self) -> type | None:
        """The dataclass of a nested table."""
        plain = _plain(self.hint)
        return plain if isinstance(plain, type) and is_dataclass(plain) else None

    @property
    def entry(self) -> type | None:
        """The dataclass of each table of an array of tables."""
        plain = _plain(self.hint)
        of = get_args(plain)[:1] if get_origin(plain) is tuple else ()
        return of[0] if of and isinstance(of[0], type) and is_dataclass(of[0]) else None

    @property
    def unit(self) -> str:
        """The unit, by the ending of the name; "" where it has none."""
        return next((unit for ending, unit in _UNITS.items() if self.name.endswith(ending)), "")

    @property
    def allowed(self) -> str:
        """What may be written, in words."""
        return _allowed(self.hint)


@cache
def keys(noun: type) -> dict[str, Key]:
    """The keys of a section, by name, in the order of the class."""
    hints = get_type_hints(noun, include_extras=True)
    comments = comments_of(noun)
    return {
        item.name: Key(item.name, hints[item.name], _default(item), item.metadata.get("comment", comments[item.name]))
        for item in fields(noun)
    }


def _default(item: Field[Any]) -> Any:
    return item.default_factory() if item.default_factory is not MISSING else item.default


def comments_of(noun: type) -> dict[str, str]:
    """The comment at the end of each field's line, and of each parameter's of a constructor; "" where there is none.

    Of a field of a base class it is the base's.
    """
    found: dict[str, str] = defaultdict(str)
    for owner in reversed(noun.__mro__):
        found |= _own_comments(owner)
    return found


def _own_comments(noun: Any) -> dict[str, str]:
    try:
        source = textwrap.dedent(inspect.getsource(noun))
    except (OSError, TypeError):  # no source at hand: a class made at run time, or in C
        return {}
    lines = source.splitlines()
    body = next(node.body for node in ast.parse(source).body if isinstance(node, ast.ClassDef))
    return {
        name: _comment(lines[(node.end_lineno or node.lineno) - 1][node.end_col_offset or 0 :])
        for name, node in _named(body)
    }


def _named(body: list[ast.stmt]) -> Iterator[tuple[str, ast.AnnAssign | ast.arg]]:
    for node in body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id, node
        elif isinstance(node, ast.FunctionDef) and node.name == "__init__":
            yield from ((arg.arg, arg) for arg in (*node.args.args, *node.args.kwonlyargs))


def _comment(rest: str) -> str:
    parts = [part.strip() for part in rest.split("#")[1:]]
    return "; ".join(part for part in parts if not re.match(r"(noqa|type:)", part))


def _plain(hint: Any) -> Any:
    """The type without its bounds and without ``None``."""
    if get_origin(hint) is Annotated:
        return _plain(get_args(hint)[0])
    if get_origin(hint) in {Union, UnionType}:
        return _plain(next(arg for arg in get_args(hint) if arg is not NoneType))
    return hint


def _allowed(hint: Any, notes: tuple[Any, ...] = ()) -> str:
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _allowed(args[0], (*notes, *args[1:]))
    if origin in {Union, UnionType}:
        return _allowed(next(arg for arg in args if arg is not NoneType), notes)
    if origin in {tuple, list}:
        return f"a list, each {_allowed(args[0])}"
    if origin is Mapping or (isinstance(hint, type) and is_dataclass(hint)):
        return "a table"
    if origin is Literal or (isinstance(hint, type) and issubclass(hint, StrEnum)):
        return "one of " + ", ".join(f'"{value}"' for value in args or hint)
    return _allowed_plain(hint, notes)


def _allowed_plain(hint: Any, notes: tuple[Any, ...]) -> str:
    if hint is bool:
        return "true or false"
    if hint in {int, float}:
        words = "a whole number" if hint is int else "a number"
        bounds = next((note for note in notes if isinstance(note, Range)), None)
        return words if bounds is None else f"{words} from {bounds.ge:.15g} to {bounds.le:.15g}"
    return _allowed_text(next((note for note in notes if isinstance(note, Text)), None))


def _allowed_text(bounds: Text | None) -> str:
    if bounds is None:
        return "text in quotes"
    if bounds.pattern == NAME_PATTERN:
        return f'a name in quotes: 1 to {bounds.max_length} of a-z, 0-9, "_", "-"'
    pattern = f" that matches {bounds.pattern}" if bounds.pattern else ""
    return f"text in quotes, of at most {bounds.max_length} characters{pattern}"
