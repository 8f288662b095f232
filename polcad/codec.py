"""Nouns to bytes and back, by msgspec.

`polcad.model` and the configuration are plain dataclasses whose annotations carry `Range`, `Text` and `Items`. For each
class a msgspec Struct of the same fields is built once, with those bounds as msgspec constraints; decoding fills the
Struct (exact errors with a path, bounds checked in C) and hands its values to the dataclass. Unknown fields are ignored
where messages from newer versions must pass, and refused in configuration.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Generic, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from polcad.errors import WireError
from polcad.model import Items, Range, Text

T = TypeVar("T")


class Codec(Generic[T]):
    """Reads and writes one noun as JSON."""

    def __init__(self, noun: type[T]) -> None:
        self._noun = noun
        self._decode = msgspec.json.Decoder(mirror(noun)).decode
        self._build = _builder_of(noun)

    def decode(self, payload: bytes) -> T:
        """The noun in `payload`; WireError with the path of what is wrong."""
        try:
            return self._build(self._decode(payload))  # type: ignore[no-any-return]  # built for this noun
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise WireError(f"not a {self._noun.__name__}: {error}") from None

    @staticmethod
    def encode(noun: T) -> bytes:
        """The noun as JSON; fields in the order of the class."""
        return msgspec.json.encode(noun)

    def schema(self) -> dict[str, Any]:
        """The JSON Schema of the noun."""
        return msgspec.json.schema(mirror(self._noun))


def convert(data: Any, noun: type[T]) -> T:
    """The noun in parsed TOML; unknown keys are refused. Raises msgspec.ValidationError with the path."""
    return _builder_of(noun)(msgspec.convert(data, mirror(noun, forbid_unknown=True)))  # type: ignore[no-any-return]


def mirror(noun: type, *, forbid_unknown: bool = False) -> type[msgspec.Struct]:
    """The Struct that has the fields, bounds and defaults of a dataclass; the same one each time."""
    return _mirror(noun, forbid_unknown)


@cache
def _mirror(noun: Any, forbid_unknown: bool) -> type[msgspec.Struct]:
    hints = get_type_hints(noun, include_extras=True)
    columns: list[tuple[str, Any, Any]] = []
    for item in fields(noun):
        if item.default_factory is not MISSING:
            default: Any = msgspec.field(default_factory=item.default_factory)
        elif item.default is not MISSING:
            default = msgspec.field(default=item.default)
        else:
            default = msgspec.field()
        columns.append((item.name, _translate(hints[item.name], forbid_unknown=forbid_unknown), default))
    doc = (noun.__doc__ or "").split("\n", 1)[0]
    return msgspec.defstruct(
        noun.__name__,
        columns,
        frozen=True,
        forbid_unknown_fields=forbid_unknown,
        namespace={"__doc__": doc},
        module=noun.__module__,
        kw_only=True,
        gc=False,
    )


def _translate(hint: Any, *, forbid_unknown: bool) -> Any:
    """A type of the model as msgspec reads it."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        inner = _translate(args[0], forbid_unknown=forbid_unknown)
        return Annotated[(inner, *(_meta(note) for note in args[1:]))]
    if origin in {Union, UnionType}:
        return Union[tuple(_translate(arg, forbid_unknown=forbid_unknown) for arg in args)]  # noqa: UP007  # from a list
    if origin is Mapping:
        return dict[tuple(_translate(arg, forbid_unknown=forbid_unknown) for arg in args)]  # type: ignore[misc]
    if origin is tuple:
        return tuple[tuple(_translate(arg, forbid_unknown=forbid_unknown) for arg in args)]  # type: ignore[misc]
    if isinstance(hint, type) and is_dataclass(hint):
        return mirror(hint, forbid_unknown=forbid_unknown)
    return hint


def _meta(note: Range | Text | Items) -> msgspec.Meta:
    if isinstance(note, Range):
        return msgspec.Meta(ge=note.ge, le=note.le)
    if isinstance(note, Text):
        return msgspec.Meta(max_length=note.max_length, pattern=note.pattern)
    return msgspec.Meta(max_length=note.max_items)


def _builder_of(noun: type) -> Callable[[Any], Any]:
    return _builder(noun)


@cache
def _builder(hint: Any) -> Callable[[Any], Any]:
    """A function from a mirror's value to the model's; `_same` where both are the same."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _builder(args[0])
    if origin in {Union, UnionType}:
        inner = [_builder(arg) for arg in args if arg is not NoneType]
        build = inner[0]
        return _same if build is _same else lambda value: None if value is None else build(value)
    if origin is Mapping:
        build = _builder(args[1])
        return _same if build is _same else lambda value: {key: build(item) for key, item in value.items()}
    if origin is tuple:
        build = _builder(args[0])
        return _same if build is _same else lambda value: tuple(map(build, value))
    if isinstance(hint, type) and is_dataclass(hint):
        return _dataclass_builder(hint)
    return _same


def _dataclass_builder(noun: type) -> Callable[[Any], Any]:
    hints = get_type_hints(noun, include_extras=True)
    nested = [
        (index, item.name, build)
        for index, item in enumerate(fields(noun))
        if (build := _builder(hints[item.name])) is not _same
    ]
    astuple = msgspec.structs.astuple
    if not nested:
        return lambda value: value if isinstance(value, noun) else noun(*astuple(value))

    def build_noun(value: Any) -> Any:
        if isinstance(value, noun):  # a default of the dataclass
            return value
        values = list(astuple(value))
        for index, _, build in nested:
            values[index] = build(values[index])
        return noun(*values)

    return build_noun


def _same(value: Any) -> Any:
    return value
