from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Annotated

import msgspec
import pytest

from polcad.codec import Codec, convert, mirror
from polcad.errors import WireError
from polcad.model import Items, Placement, Priority, Range, Text


class Colour(StrEnum):
    RED = "red"


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the whole."""

    size_w: Annotated[float, Range(0.0, 10.0)] = 1.0


@dataclass(frozen=True, slots=True)
class Whole:
    """Every form that a noun's field may take."""

    name: Annotated[str, Text(4, "^[a-z]+$")]
    colour: Colour = Colour.RED
    part: Part = Part(2.0)
    maybe: Part | None = None
    parts: Annotated[tuple[Part, ...], Items(2)] = ()
    by_name: Annotated[Mapping[str, Part], Items(2)] = field(default_factory=dict)
    column: tuple[Annotated[float, Range(0.0, 1.0)] | None, ...] = ()


WHOLE = Whole("ab", Colour.RED, Part(3.0), Part(4.0), (Part(5.0),), {"x": Part(6.0)}, (None, 0.5))
codec = Codec(Whole)


def test_every_form_of_field_survives() -> None:
    assert codec.decode(codec.encode(WHOLE)) == WHOLE


def test_what_is_left_out_takes_the_default_of_the_noun() -> None:
    assert codec.decode(b'{"name": "ab"}') == Whole("ab")


def test_fields_are_written_in_the_order_of_the_class() -> None:
    assert list(msgspec.json.decode(codec.encode(WHOLE))) == [item.name for item in fields(Whole)]


@pytest.mark.parametrize(
    ("payload", "place"),
    [
        ('{"name": "abcde"}', "$.name"),
        ('{"name": "A"}', "$.name"),
        ('{"name": "a", "colour": "blue"}', "$.colour"),
        ('{"name": "a", "part": {"size_w": 11}}', "$.part.size_w"),
        ('{"name": "a", "part": null}', "$.part"),
        ('{"name": "a", "parts": [{}, {"size_w": -1}]}', "$.parts[1].size_w"),
        ('{"name": "a", "parts": [{}, {}, {}]}', "$.parts"),
        ('{"name": "a", "by_name": {"x": {"size_w": "1"}}}', "$.by_name[...].size_w"),
        ('{"name": "a", "column": [0.1, 2]}', "$.column[1]"),
        ("{}", "name"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(payload: str, place: str) -> None:
    with pytest.raises(WireError, match=r"^not a Whole: ") as caught:
        codec.decode(payload.encode())
    assert place in str(caught.value)


def test_configuration_with_an_unknown_key_is_refused_and_a_message_with_one_is_not() -> None:
    with pytest.raises(msgspec.ValidationError, match="sise"):
        convert({"name": "a", "part": {"sise": 1}}, Whole)
    assert codec.decode(b'{"name": "a", "part": {"sise": 1}}') == Whole("a", part=Part())


def test_configuration_with_an_unknown_word_is_refused_even_where_a_message_with_one_is_not() -> None:
    with pytest.raises(msgspec.ValidationError, match=r"'new' - at `\$.priority`"):
        convert({"priority": "new"}, Placement)
    assert Codec(Placement).decode(b'{"priority": "new"}') == Placement(Priority.LOW)


def test_configuration_becomes_the_same_noun() -> None:
    assert convert({"name": "ab", "colour": "red", "parts": [{"size_w": 5.0}]}, Whole) == Whole(
        "ab", Colour.RED, parts=(Part(5.0),)
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_none_are_refused_in_configuration_too(value: float) -> None:
    with pytest.raises(msgspec.ValidationError, match="size_w"):
        convert({"name": "a", "part": {"size_w": value}}, Whole)


def test_a_noun_has_one_mirror() -> None:
    assert mirror(Whole) is mirror(Whole)
    assert mirror(Whole) is not mirror(Whole, forbid_unknown=True)


def test_the_schema_tells_the_bounds() -> None:
    part = codec.schema()["$defs"]["Part"]["properties"]["size_w"]
    assert (part["minimum"], part["maximum"]) == (0.0, 10.0)
