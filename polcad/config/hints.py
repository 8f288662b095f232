"""``[hints]``: its own settings, and beside them the options of the policy that it names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import partial
from typing import Any

from polcad import plugins
from polcad.cluster.ports import HintPolicy
from polcad.config.parts import section_of
from polcad.config.sections import Report, build, is_table
from polcad.errors import ConfigError
from polcad.spec import HintSpec

GROUP = "polcad.hint_policies"
OURS = tuple(item.name for item in fields(HintSpec))
_PATH = ("hints",)

Maker = Callable[[], HintPolicy]


def read_hints(data: Mapping[str, Any], report: Report) -> tuple[HintSpec, Maker | None]:
    """The settings and the maker of the policy, None where nothing is hinted; problems are noted."""
    table = data.get("hints", {})
    if not is_table(table, _PATH, report):
        return HintSpec(), None
    name = table.get("name", "")
    if not isinstance(name, str):
        report.add((*_PATH, "name"), 'must be the name of a hint policy, in quotes; "" for none')
        return HintSpec(), None
    try:
        kind: type | None = plugins.load(GROUP, name) if name else None
        section: Any = build(table, section_of(kind, HintSpec) if kind else HintSpec, _PATH, report)
    except ConfigError as error:
        report.add((*_PATH, "name"), str(error))
        return HintSpec(), None
    if section is None:
        return HintSpec(), None
    values = {item.name: getattr(section, item.name) for item in fields(section)}
    spec = HintSpec(**{name: values.pop(name) for name in OURS})
    return spec, _tried(partial(kind, **values), report) if kind else None


def _tried(maker: Callable[[], Any], report: Report) -> Maker:
    """The maker, once it has made one: what a policy has against its options is told at the door."""
    try:
        maker()
    except (ConfigError, ValueError) as error:
        named = [name for name in getattr(maker, "keywords", {}) if name in str(error)]
        report.add((*_PATH, *named[:1]), str(error))
    return maker
