"""Sections that name a part: their own settings, and beside them the options of the part.

What may be written is read off the part's constructor: every parameter with a default is an option.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field, fields, make_dataclass
from functools import cache
from inspect import Parameter, signature
from typing import Any, get_type_hints

from polcad.config.fields import comments_of
from polcad.errors import ConfigError


@cache
def section_of(kind: type, spec: type, given: tuple[str, ...] = ()) -> type:
    """The section as a dataclass: `spec` and the options of `kind`, less what it is `given`.

    ConfigError for a part that cannot be made so.
    """
    return make_dataclass("Section", _options(kind, spec, given), bases=(spec,), frozen=True, slots=True)


def _options(kind: type[Any], spec: type, given: tuple[str, ...]) -> Iterator[tuple[str, Any, Any]]:
    """Name, type and default of each option, with its comment."""
    ours = tuple(item.name for item in fields(spec))
    hints, comments = get_type_hints(kind.__init__, include_extras=True), comments_of(kind)
    for name, parameter in signature(kind).parameters.items():
        if name in given or parameter.kind in {Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD}:
            continue
        if parameter.default is Parameter.empty or name in ours:
            raise ConfigError(f"{kind.__qualname__}: its option {name} needs a default, and a name that is not {ours}")
        plain = Any if parameter.default is None else type(parameter.default)
        about = {"comment": comments[name]}
        yield name, hints.get(name, plain), field(default=parameter.default, metadata=about)
