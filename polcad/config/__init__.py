"""The configuration: TOML at ``/etc/polcad``, drop-ins and the environment, checked at the door and typed behind it.

`load` gives a `Config` or raises one ConfigError that names every problem with its place; `check_config` gives the
problems as a list, for people who only ask. Nothing secret is ever part of a configuration.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from polcad import plugins
from polcad.broker_spec import BrokerSpec
from polcad.config.forecast import read_forecast
from polcad.config.hints import Maker as HintPolicyMaker
from polcad.config.hints import read_hints
from polcad.config.layers import LISTS, Layer, Layers, Problem, read_environment, read_files
from polcad.config.rules import (
    check_budgets,
    check_forecast,
    check_guard,
    check_hints,
    check_names,
    check_site,
    check_standby,
)
from polcad.config.sections import Report, build, is_table, unknown_key
from polcad.config.sinks import GROUP as SINKS
from polcad.config.sinks import read_sinks
from polcad.config.spec import ActuatorSpec, AgentSpec, Level, LoadSpec, LogSpec
from polcad.errors import ConfigError
from polcad.ports import ForecasterMaker, Policy, SinkSettings
from polcad.signing import SigningSpec
from polcad.spec import ForecastSpec, GuardSpec, HintSpec, NodeSpec, RackSpec, RowSpec, SiteSpec
from polcad.standby_spec import StandbySpec
from polcad.web.spec import WebSpec

__all__ = [
    "ActuatorSpec",
    "AgentSpec",
    "Config",
    "Level",
    "LoadSpec",
    "LogSpec",
    "Problem",
    "SiteSpec",
    "check_config",
    "load",
]

T = TypeVar("T")
DEFAULT_PATH = Path("/etc/polcad/polcad.toml")
PATH_VARIABLE = "POLCAD_CONFIG"
POLICY = "polca"
SECTIONS: dict[str, type[Any]] = {
    "site": SiteSpec,
    "guard": GuardSpec,
    "broker": BrokerSpec,
    "signing": SigningSpec,
    "standby": StandbySpec,
    "agent": AgentSpec,
    "actuator": ActuatorSpec,
    "load": LoadSpec,
    "web": WebSpec,
    "log": LogSpec,
}
_OTHERS = ("row", "policy", "forecast", "hints", *LISTS)  # tables that are more than one noun


@dataclass(frozen=True, slots=True)
class Config:
    """All that an operator says. `row` and `policy` are None where no ``[row]`` is: an agent needs none.

    `forecaster` makes what `forecast` names, `hint_policy` what `hints` does; each is None where none is named. `sinks`
    are those that have a table.
    """

    site: SiteSpec = field(default_factory=SiteSpec)
    row: RowSpec | None = None
    guard: GuardSpec = field(default_factory=GuardSpec)
    policy_name: str = POLICY
    policy: Policy | None = None
    forecast: ForecastSpec = field(default_factory=ForecastSpec)
    forecaster: ForecasterMaker | None = None
    hints: HintSpec = field(default_factory=HintSpec)
    hint_policy: HintPolicyMaker | None = None
    broker: BrokerSpec = field(default_factory=BrokerSpec)
    signing: SigningSpec = field(default_factory=SigningSpec)
    standby: StandbySpec = field(default_factory=StandbySpec)
    agent: AgentSpec = field(default_factory=AgentSpec)
    actuator: ActuatorSpec = field(default_factory=ActuatorSpec)
    load: LoadSpec = field(default_factory=LoadSpec)
    web: WebSpec = field(default_factory=WebSpec)
    log: LogSpec = field(default_factory=LogSpec)
    sinks: Mapping[str, SinkSettings] = field(default_factory=dict)
    warnings: tuple[Problem, ...] = ()

    @property
    def setting(self) -> AgentSpec:
        """The agent's section as whoever sets the GPUs needs it: an actuator keeps its state apart."""
        return replace(self.agent, state_dir=self.actuator.state_dir) if self.actuator.socket else self.agent

    def the_site(self) -> tuple[SiteSpec, float]:
        """The site and its budget (W), for its daemon; ConfigError where it has none, or no rows."""
        if self.site.budget_w is None or not self.site.rows:
            raise ConfigError(
                "site: it has no budget_w or no [[site.rows]]: `polcad site` divides the one among the others"
            )
        return self.site, self.site.budget_w

    def the_row(self) -> tuple[RowSpec, Policy]:
        """The row and its policy, for a daemon; ConfigError when there is no ``[row]``."""
        if self.row is None or self.policy is None:
            raise ConfigError("row: there is no [row] table: a daemon needs its name and budget_w")
        return self.row, self.policy


def load(paths: Sequence[Path] | None, environ: Mapping[str, str]) -> Config:
    """The configuration of these files, their drop-ins and the environment; ConfigError with a line for each problem.

    `paths` None: the file that POLCAD_CONFIG names, or else /etc/polcad/polcad.toml where that exists.
    """
    config, problems = _read(paths, environ)
    if config is None:
        raise ConfigError("\n".join(str(problem) for problem in problems if not problem.warning))
    return config


def check_config(paths: Sequence[Path] | None, environ: Mapping[str, str]) -> list[Problem]:
    """All problems of the configuration, warnings too; empty when all is well."""
    return _read(paths, environ)[1]


def _read(paths: Sequence[Path] | None, environ: Mapping[str, str]) -> tuple[Config | None, list[Problem]]:
    sources = [*_files(paths, environ), *read_environment(environ)]
    if unread := [source for source in sources if isinstance(source, Problem)]:
        return None, unread
    try:
        report = Report(Layers([source for source in sources if isinstance(source, Layer)]))
        return _build(report.layers.data, report), report.problems
    except RecursionError:
        return None, [Problem("configuration", "", "tables or lists are nested too deeply")]


def _files(paths: Sequence[Path] | None, environ: Mapping[str, str]) -> Iterator[Layer | Problem]:
    if paths is None and PATH_VARIABLE not in environ:
        yield from read_files(DEFAULT_PATH, required=False)
        return
    for path in [Path(environ[PATH_VARIABLE])] if paths is None else paths:
        yield from read_files(path, required=True)


def _build(data: dict[str, Any], report: Report) -> Config | None:
    """The configuration, or None when the report has an error."""
    others = data.keys() - SECTIONS.keys() - {*_OTHERS}
    installed = plugins.names(SINKS) if others else ()
    for name in others.difference(installed):
        report.add((name,), unknown_key(name, [*SECTIONS, *_OTHERS, *installed]))
    sections: dict[str, Any] = {
        name: build(data.get(name, {}), noun, (name,), report) for name, noun in SECTIONS.items()
    }
    row = _row(data, report)
    policy_name, policy = _policy(data, report)
    forecast, forecaster = read_forecast(data, report)
    hints, hint_policy = read_hints(data, report)
    sinks = read_sinks({name: data[name] for name in installed if name in data}, report)
    guard: GuardSpec | None = sections["guard"]
    if guard is not None:
        check_guard(guard, report)
        check_forecast(forecast, guard, report)
        check_standby(sections["standby"], guard, sections["site"], report)
    if sections["site"] is not None:
        check_site(sections["site"], report)
    check_hints(hints, report)
    if row is not None:
        check_names(row, report)
    if row is not None and guard is not None:
        check_budgets(row, guard, report)
    if report.errors:
        return None
    return Config(
        row=row,
        policy_name=policy_name,
        policy=policy,
        forecast=forecast,
        forecaster=forecaster,
        hints=hints,
        hint_policy=hint_policy,
        sinks=sinks,
        warnings=tuple(report.problems),
        **sections,
    )


def _row(data: dict[str, Any], report: Report) -> RowSpec | None:
    """The row with its racks and nodes; None when there is none, or when any of it is wrong."""
    racks, nodes = _entries(data, "rack", RackSpec, report), _entries(data, "node", NodeSpec, report)
    if "row" not in data:
        for name in data.keys() & LISTS:
            report.add((name,), f"[[{name}]] needs a [row] with name and budget_w")
        return None
    head = build(data["row"], RowSpec, ("row",), report)
    if head is None or racks is None or nodes is None:
        return None
    if head.racks or head.nodes:
        report.add(("row",), "racks and nodes are not written here, but as [[rack]] and [[node]] tables")
    return replace(head, racks=racks, nodes=nodes)


def _entries(data: dict[str, Any], name: str, noun: type[T], report: Report) -> tuple[T, ...] | None:
    built = [build(entry, noun, (name, index), report) for index, entry in enumerate(data.get(name, ()))]
    good = tuple(entry for entry in built if entry is not None)
    return good if len(good) == len(built) else None


def _policy(data: dict[str, Any], report: Report) -> tuple[str, Policy | None]:
    """The policy with its options; it is loaded only where a row needs it, or somebody set it."""
    table = data.get("policy", {})
    if data.keys().isdisjoint({"policy", "row"}) or not is_table(table, ("policy",), report):
        return POLICY, None
    options = dict(table)
    name = options.pop("name", POLICY)
    if not isinstance(name, str):
        report.add(("policy", "name"), "must be the name of a policy, in quotes")
        return POLICY, None
    try:
        return name, build(options, plugins.load("polcad.policies", name), ("policy",), report)
    except ConfigError as error:
        report.add(("policy", "name"), str(error))
        return name, None
