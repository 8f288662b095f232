"""Points as InfluxDB's line protocol, with times in microseconds.

Kinds are those of the table: a database refuses a float where it holds integers. What would break a line is replaced
in tags (a backslash by a slash, a new line by a space), and escaped in text.
"""

from __future__ import annotations

from functools import lru_cache

from polcad.measurements import SCHEMA, Value
from polcad.ports import Point

PRECISION = "us"
_KEPT = 131_072  # series whose beginning of a line is remembered
_FORMS_KEPT = 4096  # sets of fields whose form is remembered; there are as many as ways to lack some
_TEXTS_KEPT = 1024  # outcomes, reasons and the like come again and again
_PLACES = {Value.FLOAT: "%s", Value.INTEGER: "%si", Value.TEXT: '"%s"'}
_KINDS = {name: {each.name: each.value for each in measurement.fields} for name, measurement in SCHEMA.items()}
_IN_TAGS = str.maketrans({",": r"\,", "=": r"\=", " ": r"\ ", "\\": "/", "\n": r"\ ", "\r": r"\ "})
_IN_TEXT = str.maketrans({'"': r"\"", "\\": r"\\", "\n": " ", "\r": " "})


def line(point: Point) -> str:
    """A point as one line, without its end."""
    form, texts = _form(point.measurement, tuple(point.fields))
    values = list(point.fields.values())
    for place in texts:
        values[place] = _text(str(values[place]))
    return f"{_series(point.measurement, point.tags)} {form % tuple(values)} {round(point.t * 1e6)}"


@lru_cache(maxsize=_FORMS_KEPT)
def _form(measurement: str, names: tuple[str, ...]) -> tuple[str, tuple[int, ...]]:
    """How fields of these names are written, with a place for each value, and which of the places take text."""
    kinds = [_KINDS[measurement][name] for name in names]
    form = ",".join(f"{name}={_PLACES[kind]}" for name, kind in zip(names, kinds, strict=True))
    return form, tuple(place for place, kind in enumerate(kinds) if kind not in {Value.FLOAT, Value.INTEGER})


@lru_cache(maxsize=_TEXTS_KEPT)
def _text(value: str) -> str:
    return value.translate(_IN_TEXT)


@lru_cache(maxsize=_KEPT)
def _series(measurement: str, tags: tuple[tuple[str, str], ...]) -> str:
    """What all lines of a series begin with; tags in order, as InfluxDB likes them, and none of them empty.

    A line with an empty one, as of a node that names a GPU "", is refused, and others of its batch may be with it.
    """
    told = (f"{name}={value.translate(_IN_TAGS)}" for name, value in sorted(tags) if value)
    return ",".join([measurement, *told])
