"""Parts found by name: collectors, devices and policies, each an entry point that any installed package may add."""

from __future__ import annotations

from importlib.metadata import distribution, entry_points
from typing import Any

from polcad.errors import ConfigError

GROUPS = (
    "polcad.cluster_systems",
    "polcad.collectors",
    "polcad.devices",
    "polcad.forecasters",
    "polcad.hint_policies",
    "polcad.load_collectors",
    "polcad.policies",
    "polcad.sinks",
)


def names(group: str) -> tuple[str, ...]:
    """The names installed in a group, sorted."""
    return tuple(sorted({point.name for point in entry_points(group=group)}))


def load(group: str, name: str) -> type[Any]:
    """The class of that name; ConfigError, with the names that are installed, when there is none that can be used."""
    kind = group.rsplit(".", 1)[-1]
    for point in entry_points(group=group, name=name):
        try:
            return point.load()  # type: ignore[no-any-return]  # an entry point may be anything; these are classes
        except (ImportError, AttributeError) as error:
            raise ConfigError(f"{name!r} of {kind} ({point.value}) cannot be loaded: {error}") from error
    raise ConfigError(f"{name!r} is not among the installed {kind}: {', '.join(names(group)) or 'none'}")


def name_of(group: str, part: object) -> str:
    """The name under which the class of `part` is installed; the class's own where it is under none."""
    kind = type(part)
    value = f"{kind.__module__}:{kind.__qualname__}"
    return next((point.name for point in entry_points(group=group) if point.value == value), kind.__name__)


def own(group: str) -> tuple[str, ...]:
    """The names in a group that come with polcad itself, sorted."""
    return tuple(sorted(point.name for point in distribution("polcad").entry_points.select(group=group)))
