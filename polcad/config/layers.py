"""Where each setting was made: files, their drop-ins and the environment, merged in that order, and the way back.

Tables merge key by key and the later source wins; the arrays of tables ``[[rack]]`` and ``[[node]]`` grow instead, so
that a drop-in can bring a rack of its own. A key's place is the last source that has it.
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, time
from functools import cached_property
from pathlib import Path
from typing import Any

LISTS = ("rack", "node")
PREFIX = "POLCAD_"
MAX_BYTES = 16 * 1024 * 1024  # of one file: 20 000 nodes need about 2 MiB

KeyPath = tuple[str | int, ...]
_HEADER = re.compile(r"\s*\[(?P<array>\[)?(?P<name>[^\[\]]+)\]")
_LINE = re.compile(r"at line (\d+)")
_KEY = re.compile(r"""\s*+(?P<name>[\w"'.\-]++(?:[ ]++[\w"'.\-]++)*+)\s*+=""")


@dataclass(frozen=True, slots=True)
class Problem:
    """Something the operator must mend, or (`warning`) should look at. Never holds a secret."""

    place: str  # FILE:LINE, FILE, or an environment variable
    key: str  # as written in TOML: guard.tick_s; "" where the whole file is meant
    what: str  # what was there, what is allowed, the remedy
    warning: bool = False

    def __str__(self) -> str:
        return ": ".join(filter(None, (self.place, self.key, self.what)))


@dataclass(frozen=True)
class Layer:
    """One source: a file and its text, or one environment variable (no text)."""

    name: str
    data: dict[str, Any]
    text: str = ""

    @cached_property
    def lines(self) -> dict[KeyPath, int]:
        """The line that sets each key or opens each table, as far as a look at each line tells."""
        found: dict[KeyPath, int] = {}
        entries: Counter[KeyPath] = Counter()
        table: KeyPath = ()
        for number, line in enumerate(self.text.splitlines(), 1):
            if header := _HEADER.match(line):
                table = _names(header["name"])
                if header["array"]:
                    found.setdefault(table, number)
                    entries[table] += 1
                    table = (*table, entries[table] - 1)
                found.setdefault(table, number)
            elif key := _KEY.match(line):
                found.setdefault((*table, *_names(key["name"])), number)
        return found

    def has(self, path: KeyPath) -> bool:
        """Whether this source sets the key."""
        value: Any = self.data
        for part in path:
            try:
                value = value[part]
            except (LookupError, TypeError):
                return False
        return True

    def place(self, path: KeyPath) -> str:
        """``FILE:LINE`` of the key, or of the nearest table around it; the bare name where no line is known."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.lines:
                return f"{self.name}:{self.lines[path[:length]]}"
        return self.name


class Layers:
    """All sources together."""

    def __init__(self, layers: list[Layer]) -> None:
        self._layers = layers
        self.data: dict[str, Any] = {}
        self.problems = [problem for layer in layers for problem in _drop_misshapen(layer)]
        for layer in layers:
            _merge(self.data, layer.data, top=True)

    def place(self, path: KeyPath) -> str:
        """Where a key of the merged data was set; for a key that is missing, where its table is."""
        layer, local = self.source(path)
        return layer.place(local)

    def source(self, path: KeyPath) -> tuple[Layer, KeyPath]:
        """The source of a key, and the key's path in it."""
        if len(path) > 1 and path[0] in LISTS and isinstance(path[1], int):
            return self._entry(path[0], path[1], path[2:])
        for length in range(len(path), 0, -1):
            for layer in reversed(self._layers):
                if layer.has(path[:length]):
                    return layer, path
        return (self._layers[0] if self._layers else Layer("configuration", {})), path

    def _entry(self, name: str, index: int, rest: KeyPath) -> tuple[Layer, KeyPath]:
        for layer in self._layers:
            size = len(layer.data.get(name, ()))
            if index < size:
                return layer, (name, index, *rest)
            index -= size
        raise IndexError(index)


def read_files(path: Path, *, required: bool) -> Iterator[Layer | Problem]:
    """A file and the drop-ins of the folder beside it (``polcad.toml``: ``polcad.d/*.toml``), sorted by name."""
    if required or _present(path):
        yield read_file(path)
    drop_ins = path.with_suffix(".d").glob("*.toml") if path.name else ()  # a path such as / has none
    for drop_in in sorted(drop_ins):
        yield read_file(drop_in)


def read_file(path: Path) -> Layer | Problem:
    """One TOML file, or why it cannot be read and where."""
    try:
        if path.stat().st_size > MAX_BYTES:
            return Problem(str(path), "", f"larger than {MAX_BYTES} bytes: split it into drop-ins")
        text = path.read_text("utf-8")
        return Layer(str(path), tomllib.loads(text), text)
    except OSError as error:
        return Problem(str(path), "", f"cannot be read: {error.strerror}")
    except UnicodeDecodeError as error:
        return Problem(str(path), "", f"not UTF-8 text: {error.reason} at byte {error.start}")
    except RecursionError:
        return Problem(str(path), "", "not TOML: nested too deeply")
    except ValueError as error:  # of tomllib, or a number of too many digits
        line = _LINE.search(str(error))
        return Problem(f"{path}:{line[1]}" if line else str(path), "", f"not TOML: {error}")


def read_environment(environ: Mapping[str, str]) -> Iterator[Layer]:
    """``POLCAD_SECTION__KEY=value``, one source each; the value is TOML, or else text as it stands.

    Variables without the double underscore are no settings: POLCAD_BROKER_PASSWORD_FILE is read where it is needed, and
    Kubernetes makes others, such as POLCAD_WEB_PORT, for a service of that name.
    """
    for name in sorted(environ):
        path = tuple(_as_text(name).removeprefix(PREFIX).lower().split("__"))
        if not name.startswith(PREFIX) or len(path) == 1:
            continue
        value: Any = _parsed(_as_text(environ[name]))
        for part in reversed(path):
            value = {part: value}
        yield Layer(_as_text(name), value)


def _as_text(found: str) -> str:
    """What the environment held, with a question mark for what is not UTF-8."""
    return found.encode("utf-8", "replace").decode()


def _present(path: Path) -> bool:
    try:
        path.stat()
    except FileNotFoundError:
        return False
    except OSError:
        return True  # it is there and cannot be read: `read_file` says so
    return True


def _drop_misshapen(layer: Layer) -> Iterator[Problem]:
    """Take out what is not an array of tables where one is needed, so that entries can be counted."""
    for name in LISTS:
        if not isinstance(layer.data.get(name, []), list):
            place = layer.place((name,))
            del layer.data[name]
            yield Problem(place, name, f"must be an array of tables: write it as [[{name}]]")


def _parsed(text: str) -> Any:
    try:
        table = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    value = table.pop("value")
    return text if table or isinstance(value, date | time) else value


def _merge(base: dict[str, Any], over: Mapping[str, Any], *, top: bool) -> None:
    for key, value in over.items():
        have = base.get(key)
        if top and key in LISTS and isinstance(value, list):
            base[key] = [*(have if isinstance(have, list) else ()), *value]
        elif isinstance(value, dict):
            base[key] = dict(have) if isinstance(have, dict) else {}
            _merge(base[key], value, top=False)
        else:
            base[key] = value


def _names(dotted: str) -> KeyPath:
    return tuple(part.strip().strip("\"'") for part in dotted.split("."))
