"""The example configuration, written from the dataclasses: every key with its unit, bounds, default and reason.

A setting that may be left out stands as ``#key = default`` (no space after the sign); what must be said has a made-up
value. ``docs/polcad.example.toml`` is this text, compared in a test.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

from polcad import plugins
from polcad.config import POLICY, SECTIONS, forecast, hints, sinks
from polcad.config.fields import Key, keys
from polcad.config.parts import section_of
from polcad.spec import ForecastSpec, HintSpec, NodeSpec, RackSpec, RowSpec

_HEAD = """\
# polcad: every setting there is. One that may be left out is commented out and shows its default.
#
# This file is /etc/polcad/polcad.toml. Files in /etc/polcad/polcad.d/*.toml are read after it, in the order of their
# names: a later value wins, [[rack]] and [[node]] tables add up. Last comes the environment:
# POLCAD_GUARD__TICK_S=0.5 sets tick_s of [guard]. Secrets stand in files that are named here, never here; a file that
# is named credential:NAME is one that systemd hands over. `polcad check` tells what is wrong, and where.
"""
_ROW_LISTS = ("racks", "nodes")  # written as [[rack]] and [[node]]
_MADE_UP: dict[tuple[str, str], Any] = {
    ("row", "name"): "row1",
    ("row", "budget_w"): 9000.0,
    ("rack", "name"): "rack1",
    ("node", "name"): "node1",
    ("node", "rack"): "rack1",
}
_WIDTH = 118


def example() -> str:
    """The text of the example."""
    parts = [_HEAD, _table("site", SECTIONS["site"])]
    parts += [_table("row", RowSpec), _table("rack", RackSpec, array=True), _table("node", NodeSpec, array=True)]
    parts += [_table("guard", SECTIONS["guard"]), _policies(), _forecasters(), _hint_policies()]
    parts += [_table(name, noun) for name, noun in SECTIONS.items() if name not in {"site", "guard"}]
    return "\n".join([*parts, *_sinks()])


def _sinks() -> Iterator[str]:
    """The tables of the sinks that come with polcad: each writes as soon as it has one."""
    for name in plugins.own(sinks.GROUP):
        settings = plugins.load(sinks.GROUP, name)
        yield "\n".join([*_prose(settings), f"#[{name}]", *_settings(name, settings), ""])


def _table(name: str, noun: type, *, array: bool = False) -> str:
    header = f"[[{name}]]" if array else f"[{name}]"
    lines = [*_prose(noun), header]
    nested: list[str] = []
    for key in keys(noun).values():
        if name == "row" and key.name in _ROW_LISTS:
            continue
        if key.entry is not None:
            nested += ["", *_prose(key.entry), f"#[[{name}.{key.name}]]", *_settings(f"{name}.{key.name}", key.entry)]
            continue
        if key.noun is not None and key.default is None:
            nested += ["", *_prose(key.noun), f"#[{name}.{key.name}]", *_settings(f"{name}.{key.name}", key.noun)]
        else:
            lines += _setting(name, key)
    return "\n".join([*lines, *nested, ""])


def _settings(table: str, noun: type) -> Iterator[str]:
    for key in keys(noun).values():
        yield from _setting(table, key)


def _setting(table: str, key: Key) -> Iterator[str]:
    bounds = f"{key.unit}, {key.allowed}" if key.unit else key.allowed
    yield from _wrapped(f"{key.comment} ({bounds})" if key.comment else bounds)
    if (table, key.name) in _MADE_UP:
        yield f"{key.name} = {_toml(_MADE_UP[table, key.name])}"
    elif key.default is None or key.default is MISSING:
        yield f"#{key.name} ="
    else:
        yield f"#{key.name} = {_toml(key.default)}"


def _policies() -> str:
    """``[policy]`` with the options of the default policy, and those of the others that come with polcad."""
    others = [name for name in plugins.own("polcad.policies") if name != POLICY]
    lines = _table("policy", plugins.load("polcad.policies", POLICY)).splitlines()
    at = lines.index("[policy]") + 1
    lines[at:at] = [*_wrapped(f"what decides; the others are {', '.join(others)}"), f'#name = "{POLICY}"']
    for name in others:
        policy = plugins.load("polcad.policies", name)
        lines += ["", *_prose(policy), f'#[policy]  # name = "{name}"', *_settings("policy", policy)]
    return "\n".join([*lines, ""])


def _forecasters() -> str:
    """``[forecast]``, and the options of each forecaster that comes with polcad, the default's first."""
    return _with_parts("forecast", ForecastSpec, forecast.GROUP, forecast.GIVEN)


def _hint_policies() -> str:
    """``[hints]``, and the options of each policy for them that comes with polcad."""
    return _with_parts("hints", HintSpec, hints.GROUP, ())


def _with_parts(table: str, spec: type, group: str, given: tuple[str, ...]) -> str:
    default, names, ours = spec().name, plugins.own(group), keys(spec)
    lines = _table(table, spec).splitlines()
    at = lines.index(f"[{table}]") + 1
    lines[at:at] = _wrapped(f"with polcad come {', '.join(names)}")
    for name in sorted(names, key=lambda each: each != default):
        kind: type = plugins.load(group, name)
        lines += ["", *_prose(kind), f'#[{table}]  # name = "{name}"']
        for option, key in keys(section_of(kind, spec, given)).items():
            lines += _setting(table, key) if option not in ours else ()
    return "\n".join([*lines, ""])


def _prose(noun: type) -> list[str]:
    return list(_wrapped(" ".join((noun.__doc__ or "").split())))


def _wrapped(text: str) -> Iterator[str]:
    for line in textwrap.wrap(text, _WIDTH, break_long_words=False):
        yield f"# {line}"


def _toml(value: Any) -> str:
    if is_dataclass(value):
        inner = ", ".join(f"{item.name} = {_toml(getattr(value, item.name))}" for item in fields(value))
        return f"{{ {inner} }}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, float):
        return f"{value:.4g}" if value != int(value) else f"{value:.1f}"
    return json.dumps(value)
