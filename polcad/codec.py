"""Nouns to bytes and back, by msgspec.

`polcad.model` and the configuration are plain dataclasses whose annotations carry `Range`, `Text` and `Items`; msgspec
checks those bounds in C, with exact errors that carry a path. Messages, where unknown fields of newer versions must
pass, are decoded straight into the dataclasses. In configuration unknown keys are refused, which msgspec does for
Structs only: for each class one of the same fields is built and filled, and its values handed to the dataclass. So are
unknown words of an enumeration: in a message they are a newer version's, in configuration they are a slip.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import StrEnum
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Generic, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from polcad.errors import WireError
from polcad.model import Items, Range, Text

T = TypeVar("T")


class Codec(Generic[T]):
    """Reads and writes one noun as JSON."""

    def __init__(self, noun: type[T]) -> None:
        self._noun = noun
        self._decode = _decoder(noun).decode

    def decode(self, payload: bytes) -> T:
        """The noun in `payload`; WireError with the path of what is wrong."""
        try:
            return self._decode(payload)
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


def _decoder(noun: type[T]) -> msgspec.json.Decoder[T]:
    """A decoder that fills the noun itself: a third faster than a Struct whose values are copied.

    msgspec reads bounds from annotations when it first meets a class, and remembers them: so our annotations are
    replaced by its own while it looks.
    """
    ours = {each: each.__annotations__ for each in _dataclasses_in(noun)}
    theirs = {
        each: {name: _translate(hint, _same) for name, hint in get_type_hints(each, include_extras=True).items()}
        for each in ours
    }
    try:
        for each, annotations in theirs.items():
            each.__annotations__ = annotations
        return msgspec.json.Decoder(noun)
    finally:
        for each, annotations in ours.items():
            each.__annotations__ = annotations


def _dataclasses_in(hint: Any) -> set[type]:
    """The dataclasses that a value of this type is made of."""
    if isinstance(hint, type) and is_dataclass(hint):
        parts = get_type_hints(hint).values()
        return {hint}.union(*map(_dataclasses_in, parts))
    return set[type]().union(*map(_dataclasses_in, get_args(hint)))


def mirror(noun: type, *, forbid_unknown: bool = False) -> type[msgspec.Struct]:
    """The Struct that has the fields, bounds and defaults of a dataclass; the same one each time."""
    return _mirror(noun, forbid_unknown)


@cache
def _mirror(noun: Any, forbid_unknown: bool) -> type[msgspec.Struct]:
    hints = get_type_hints(noun, include_extras=True)

    def nested(inner: type) -> Any:
        if issubclass(inner, StrEnum):
            return Literal[tuple(each.value for each in inner)] if forbid_unknown else inner
        return mirror(inner, forbid_unknown=forbid_unknown)

    columns: list[tuple[str, Any, Any]] = []
    for item in fields(noun):
        if item.default_factory is not MISSING:
            default: Any = msgspec.field(default_factory=item.default_factory)
        elif item.default is not MISSING:
            default = msgspec.field(default=item.default)
        else:
            default = msgspec.field()
        columns.append((item.name, _translate(hints[item.name], nested), default))
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


def _translate(hint: Any, nested: Callable[[type], Any]) -> Any:
    """A type of the model as msgspec reads it; `nested` says what stands for a dataclass or an enumeration in it."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        inner = _translate(args[0], nested)
        return Annotated[(inner, *(_meta(note) for note in args[1:]))]
    if origin in {Union, UnionType}:
        return Union[tuple(_translate(arg, nested) for arg in args)]  # noqa: UP007  # from a list
    if origin is Mapping:
        return dict[tuple(_translate(arg, nested) for arg in args)]  # type: ignore[misc]
    if origin is tuple:
        return tuple[tuple(_translate(arg, nested) for arg in args)]  # type: ignore[misc]
    if isinstance(hint, type) and (is_dataclass(hint) or issubclass(hint, StrEnum)):
        return nested(hint)
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
    return hint if isinstance(hint, type) and issubclass(hint, StrEnum) else _same


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
