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
_KINDS = {name: {each.name: each.value for each in measurement.fields} for name, measurement in SCHEMA.items()}
_IN_TAGS = str.maketrans({",": r"\,", "=": r"\=", " ": r"\ ", "\\": "/", "\n": r"\ ", "\r": r"\ "})
_IN_TEXT = str.maketrans({'"': r"\"", "\\": r"\\", "\n": " ", "\r": " "})


def line(point: Point) -> str:
    """A point as one line, without its end."""
    kinds = _KINDS[point.measurement]
    fields = []
    for name, value in point.fields.items():
        kind = kinds[name]
        if kind is Value.FLOAT:
            fields.append(f"{name}={value}")
        elif kind is Value.INTEGER:
            fields.append(f"{name}={value}i")
        else:
            fields.append(f'{name}="{str(value).translate(_IN_TEXT)}"')
    return f"{_series(point.measurement, point.tags)} {','.join(fields)} {round(point.t * 1e6)}"


@lru_cache(maxsize=_KEPT)
def _series(measurement: str, tags: tuple[tuple[str, str], ...]) -> str:
    """What all lines of a series begin with; tags in order, as InfluxDB likes them, and none of them empty.

    A line with an empty one, as of a node that names a GPU "", is refused, and others of its batch may be with it.
    """
    told = (f"{name}={value.translate(_IN_TAGS)}" for name, value in sorted(tags) if value)
    return ",".join([measurement, *told])
