import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Annotated

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from polcad import plugins
from polcad.broker_spec import Protocol, TlsSpec
from polcad.config import Config, check_config, load
from polcad.config.example import example as example_text
from polcad.config.fields import keys
from polcad.config.forecast import GIVEN
from polcad.config.parts import section_of
from polcad.errors import ConfigError
from polcad.lease import Fail
from polcad.model import Priority, Range
from polcad.ports import Forecaster
from polcad.sinks.influxdb import InfluxDb
from polcad.spec import ForecastSpec
from polcad.web.spec import AgentWebSpec
from policies.polca import Polca

DOCS = Path(__file__).parent.parent / "docs"
ROW = """
[row]
name = "row1"
budget_w = 20000
[[rack]]
name = "rack1"
[[node]]
name = "node1"
rack = "rack1"
"""

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write the configuration and its drop-ins; the path of the configuration."""

    def write_files(text: str, **drop_ins: str) -> Path:
        (tmp_path / "polcad.d").mkdir(exist_ok=True)
        for name, drop_in in drop_ins.items():
            (tmp_path / "polcad.d" / f"{name}.toml").write_text(drop_in, encoding="utf-8")
        path = tmp_path / "polcad.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write_files


def problems(path: Path, environ: Mapping[str, str] | None = None) -> list[str]:
    return [str(problem).replace(f"{path.parent}/", "") for problem in check_config([path], environ or {})]


def test_an_empty_file_gives_the_defaults(write: Write) -> None:
    assert load([write("")], {}) == Config()


def test_a_row_brings_its_nodes_and_the_default_policy(write: Write) -> None:
    row, policy = load([write(ROW)], {}).the_row()

    assert (row.name, row.budget_w, row.nodes[0].name, row.racks[0].name) == ("row1", 20000.0, "node1", "rack1")
    assert policy == Polca()


def test_policy_options_reach_the_policy(write: Write) -> None:
    config = load([write(ROW + "[policy]\nname = 'polca'\nt1_frac = 0.7\nt2_frac = 0.8")], {})

    assert config.policy == Polca(t1_frac=0.7, t2_frac=0.8)
    assert config.policy_name == "polca"


def test_a_row_is_forecast_by_the_default_until_told_otherwise(write: Write) -> None:
    config = load([write(ROW)], {})
    assert config.forecast == ForecastSpec("quantile", 300.0, 0.99)
    assert type(made(config)).__name__ == "QuantileForecaster"

    config = load([write(ROW + "[forecast]\nname = 'persistence'\nhold_s = 600")], {})
    assert config.forecast == ForecastSpec("persistence", 600.0, 0.99)
    assert type(made(config)).__name__ == "Persistence"


def test_a_forecaster_without_a_name_is_none(write: Write) -> None:
    assert load([write(ROW + "[forecast]\nname = ''")], {}).forecaster is None


def made(config: Config) -> Forecaster:
    assert config.forecaster is not None
    return config.forecaster(domains=3, step_s=2.0, horizons_s=(40.0, 300.0), quantiles=(0.5, 0.99))


class Toy:
    """Remembers for a while."""

    def __init__(
        self,
        *,
        domains: int,
        step_s: float,
        horizons_s: Sequence[float],
        quantiles: Sequence[float],
        memory_s: Annotated[float, Range(60.0, 1e6)] = 3600.0,  # older than this is forgotten
        deep: bool = False,
    ) -> None:
        if deep and memory_s < 600:
            raise ValueError(f"memory_s={memory_s} is too short to be deep")
        self.made_with = (domains, step_s, horizons_s, quantiles, memory_s, deep)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The only forecaster there is, under the default's name."""
    point = EntryPoint("quantile", f"{__name__}:Toy", "polcad.forecasters")
    monkeypatch.setattr(plugins, "entry_points", lambda **_: [point])


@pytest.mark.usefixtures("toy")
def test_options_of_a_forecasters_constructor_reach_it(write: Write) -> None:
    forecaster = made(load([write("[forecast]\nmemory_s = 60")], {}))

    assert isinstance(forecaster, Toy)
    assert forecaster.made_with == (3, 2.0, (40.0, 300.0), (0.5, 0.99), 60.0, False)


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("memory = 60", "forecast.memory: unknown key; did you mean memory_s?"),
        ("memory_s = 6", "forecast.memory_s: 6 here, but it must be a number from 60 to 1000000 (default 3600.0)"),
        ("deep = true\nmemory_s = 60", "forecast.memory_s: memory_s=60.0 is too short to be deep"),
        ("domains = 3", "forecast.domains: unknown key; known here: name, hold_s, q, memory_s, deep"),
    ],
)
def test_options_that_a_forecaster_does_not_take_are_refused(write: Write, option: str, told: str) -> None:
    found = problems(write(f"[forecast]\n{option}"))
    assert len(found) == 1
    assert found[0].endswith(told)


def test_options_of_a_forecaster_are_told_with_their_comments() -> None:
    assert keys(section_of(Toy, ForecastSpec, GIVEN))["memory_s"].comment == "older than this is forgotten"


@pytest.mark.parametrize("name", plugins.own("polcad.forecasters"))
def test_every_forecaster_of_ours_can_be_named(write: Write, name: str) -> None:
    assert made(load([write(f"[forecast]\nname = '{name}'")], {})).upper(40.0, 0.99).shape == (3,)


def test_nothing_is_hinted_until_a_policy_is_named(write: Write) -> None:
    assert load([write(ROW)], {}).hint_policy is None
    config = load([write(ROW + "[hints]\nname = 'dynamo'\nperiod_s = 2\npools = 'one'\n")], {})
    assert config.hint_policy is not None
    assert config.hints.period_s == 2.0
    assert callable(config.hint_policy().hints)


def test_the_page_on_hints_shows_settings_that_load(write: Write) -> None:
    page = (DOCS / "hints.md").read_text(encoding="utf-8")
    shown = re.search(r"```toml\n(.*?)```", page, re.DOTALL)
    assert shown is not None
    without_profile = re.sub(r"(?m)^profile.*$", "", shown[1])
    config = load([write(ROW + without_profile)], {})
    assert config.hint_policy is not None
    assert config.hints.power_budget_w == 120_000.0


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name = 'dinamo'", "hints.name: 'dinamo' is not among the installed hint_policies: dynamo"),
        ("name = 5", "hints.name: must be the name of a hint policy, in quotes"),
        ("pools = 'one'", "hints.pools: unknown key"),
        ("name = 'dynamo'\npools = 'two'", 'hints.pools: "two" here, but it must be one of "one", "nine"'),
        ("name = 'dynamo'\nprofile = '/nowhere.toml'", "hints.profile: profile /nowhere.toml"),
        ("name = 'dynamo'\ntensor_parallel = 3", "hints.tensor_parallel: "),
        ("stale_after_s = 9", "hints.stale_after_s: 9 s is less than two periods"),
        ("gone_after_s = 20", "hints.gone_after_s: 20 s is less than stale_after_s"),
        ("life_s = 50", "hints.life_s: 50 s is less than two times stale_after_s"),
    ],
)
def test_hints_that_cannot_be_given_are_refused(write: Write, text: str, told: str) -> None:
    found = problems(write(f"[hints]\n{text}\n"))
    assert len(found) == 1
    assert told in found[0]


def test_a_daemon_without_a_row_is_told_so(write: Write) -> None:
    with pytest.raises(ConfigError, match=r"no \[row\] table"):
        load([write("")], {}).the_row()


def test_drop_ins_merge_in_the_order_of_their_names_and_add_nodes(write: Write) -> None:
    path = write(
        ROW + "[guard]\ntick_s = 0.5\nlease_s = 4",
        b="[guard]\nlease_s = 6\n[[rack]]\nname = 'rack2'\n[[node]]\nname = 'node2'\nrack = 'rack2'\npriority = 'high'",
        a="[guard]\nlease_s = 5",
    )
    config = load([path], {})
    row, _ = config.the_row()

    assert (config.guard.tick_s, config.guard.lease_s) == (0.5, 6.0)
    assert [node.name for node in row.nodes] == ["node1", "node2"]
    assert row.nodes[1].priority is Priority.HIGH


def test_the_environment_has_the_last_word(write: Write) -> None:
    environ = {
        "POLCAD_GUARD__TICK_S": "0.25",
        "POLCAD_AGENT__NODE": "n7",
        "POLCAD_AGENT__FAIL": "hold",
        "POLCAD_BROKER__PROTOCOL": '"5"',
        "POLCAD_BROKER__TLS__CA": "/etc/ca.pem",
    }
    config = load([write("[guard]\ntick_s = 0.5")], environ)

    assert config.guard.tick_s == 0.25
    assert (config.agent.node_name, config.agent.fail) == ("n7", Fail.HOLD)
    assert config.broker.protocol is Protocol.V5
    assert config.broker.tls is not None
    assert config.broker.tls.ca == "/etc/ca.pem"


def test_variables_without_a_double_underscore_are_no_settings(write: Write) -> None:
    environ = {"POLCAD_WEB_PORT": "tcp://10.0.0.1:80", "POLCAD_BROKER_PASSWORD_FILE": "secret", "HOME": "/"}
    assert load([write("")], environ) == Config()


def test_polcad_config_names_the_file(write: Write) -> None:
    assert load(None, {"POLCAD_CONFIG": str(write("[site]\nname = 'north'"))}).site.name == "north"


def test_a_node_is_named_after_its_host_unless_told(write: Write) -> None:
    name = load([write("")], {}).agent.node_name
    assert name == os.uname().nodename.split(".")[0].lower()


def test_every_problem_is_told_at_once_with_its_line_and_remedy(write: Write) -> None:
    path = write(
        "[guard]\ntick = 1\nlease_s = 'long'\n[gard]\n[row]\nname = 'Row 1'\n[[node]]\ngpus = 9.5\n[broker]\nport = 0\n"
    )
    assert sorted(problems(path)) == [
        "polcad.toml:10: broker.port: 0 here, but it must be a whole number from 1 to 65535 (default 1883)",
        "polcad.toml:2: guard.tick: unknown key; did you mean tick_s?",
        'polcad.toml:3: guard.lease_s: "long" here, but it must be a number from 0.1 to 3600 (default 5.0)',
        "polcad.toml:4: gard: unknown key; did you mean guard?",
        "polcad.toml:5: row.budget_w: is missing; it must be a number from 0 to 10000000000",
        'polcad.toml:6: row.name: "Row 1" here, but it must be a name in quotes: 1 to 64 of a-z, 0-9, "_", "-"',
        'polcad.toml:7: node[0].name: is missing; it must be a name in quotes: 1 to 64 of a-z, 0-9, "_", "-"',
        "polcad.toml:8: node[0].gpus: 9.5 here, but it must be a whole number from 0 to 64 (default 8)",
    ]


def test_a_problem_of_a_drop_in_or_a_variable_is_placed_there(write: Write) -> None:
    path = write(ROW, more="[[node]]\nname = 'node2'\nrack = 'rack1'\n[[node]]\nname = 'node3'\nrole = 'cook'")

    told = problems(path, {"POLCAD_GUARD__TICK_S": "soon"})
    assert told[0].startswith('POLCAD_GUARD__TICK_S: guard.tick_s: "soon" here')
    assert told[1].startswith(
        'polcad.d/more.toml:6: node[2].role: "cook" here, but it must be one of "prompt", "token"'
    )
    assert len(told) == 2


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[policy]\nt2_frac = 0.7", "polcad.toml:2: policy.t2_frac: t2_frac=0.7 must be above t1_frac=0.8"),
        ("[policy]\nt1 = 0.7", "polcad.toml:2: policy.t1: unknown key; did you mean t1_frac?"),
        (
            "[policy]\nname = 'predictive'\nladder = 'rope'",
            'polcad.toml:3: policy.ladder: "rope" here, but it must be one of "polca", "graded" (default "polca")',
        ),
        ("[policy]\nname = 'polka'", "polcad.toml:2: policy.name: 'polka' is not among the installed policies: graded"),
        ("policy = 'polca'", 'polcad.toml:1: policy: "polca" here, but this must be a table: [policy]'),
        ("[guard]\nlease_s = 1.5", "polcad.toml:2: guard.lease_s: 1.5 s is less than two ticks of 1 s"),
        ("[guard]\ntick_s = 2", "polcad.toml:1: guard.stale_after_s: 3 s is less than two ticks of 2 s"),
        ("[guard]\ntick_s = nan", "polcad.toml:2: guard.tick_s: NaN here"),
        ("guard = 1", "polcad.toml:1: guard: 1 here, but this must be a table: [guard]"),
        ("node = 1", "polcad.toml:1: node: must be an array of tables: write it as [[node]]"),
        ("[[node]]\nname = 'n'", "polcad.toml:1: node: [[node]] needs a [row] with name and budget_w"),
        ("[guard]\nbrake = { clock = 1 }", "polcad.toml:2: guard.brake.clock: unknown key; did you mean clock_frac?"),
        ("[forecast]\nmemory = 1", "polcad.toml:2: forecast.memory: unknown key"),
        ("[forecast]\nhold = 1", "polcad.toml:2: forecast.hold: unknown key; did you mean hold_s?"),
        ("[forecast]\nq = 99", "polcad.toml:2: forecast.q: 99 here, but it must be a number from 0.5 to 0.9999"),
        ("[forecast]\nhold_s = 1", "polcad.toml:2: forecast.hold_s: 1 s is less than guard.latency_s, 2 s"),
        (
            "[forecast]\nname = 'oracle'",
            "polcad.toml:2: forecast.name: 'oracle' is not among the installed forecasters",
        ),
        ("[forecast]\nname = 1", "polcad.toml:2: forecast.name: must be the name of a forecaster, in quotes"),
        ("forecast = ''", 'polcad.toml:1: forecast: "" here, but this must be a table: [forecast]'),
        (
            "a = 1\n[x\n",
            "polcad.toml:2: not TOML: Expected ']' at the end of a table declaration (at line 2, column 3)",
        ),
    ],
)
def test_a_wrong_file_is_refused_with_place_and_remedy(write: Write, text: str, told: str) -> None:
    found = problems(write(text))
    assert len(found) == 1
    assert found[0].startswith(told)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("[[node]]\nname = 'node1'\nrack = 'rack1'", 'polcad.toml:11: node[1].name: "node1" is used before'),
        ("[[node]]\nname = 'node2'\nrack = 'rack7'", 'polcad.toml:12: node[1].rack: no [[rack]] has name = "rack7"'),
        ("[[rack]]\nname = 'rack1'", 'polcad.toml:11: rack[1].name: "rack1" is used before'),
        (
            "[[node]]\nname = 'node2'\nrack = 'rack1'\nhost_w = 19000",
            "polcad.toml:4: row.budget_w: 20000 W is not above the 20904 W that its nodes draw at any setting",
        ),
        (
            "[[rack]]\nname = 'rack2'\nbudget_w = 952\n[[node]]\nname = 'node2'\nrack = 'rack2'",
            "polcad.toml:12: rack[1].budget_w: 952 W is not above the 952 W",
        ),
    ],
)
def test_a_row_that_cannot_work_is_refused(write: Write, change: str, told: str) -> None:
    found = problems(write(ROW + change))
    assert len(found) == 1
    assert found[0].startswith(told)


def test_a_row_that_is_called_as_the_topics_of_pools_is_refused(write: Write) -> None:
    found = problems(write("[row]\nname = 'hint'\nbudget_w = 9000\n"))
    assert len(found) == 1
    assert 'row.name: "hint" stands for pools in topics' in found[0]


def test_a_budget_that_the_fail_safe_may_pass_is_a_warning_and_starts(write: Write) -> None:
    path = write(ROW.replace("20000", "3500"))
    config = load([path], {})

    assert [str(problem) for problem in config.warnings] == [str(problem) for problem in check_config([path], {})]
    assert "row.budget_w: 3500 W is less than the" in str(config.warnings[0])
    assert config.warnings[0].warning


def test_a_password_in_the_configuration_is_refused_and_not_repeated(write: Write) -> None:
    path = write("[broker]\npassword = 'hunter2'")
    told = "\n".join(problems(path, {"POLCAD_BROKER__PASSWORD": "hunter3"}))

    assert "name its file in broker.password_file" in told
    assert "hunter" not in told


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere.toml: cannot be read: No such file"):
        load([tmp_path / "nowhere.toml"], {})


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "polcad.toml").write_bytes(b"[site]\nname = '\xff'")
    with pytest.raises(ConfigError, match=r"polcad.toml: not UTF-8 text"):
        load([tmp_path / "polcad.toml"], {})


def test_the_example_is_what_the_code_says_and_loads(write: Write) -> None:
    text = (DOCS / "polcad.example.toml").read_text(encoding="utf-8")

    assert text == example_text(), "run `make generate`"
    assert load([write(text)], {}).the_row()[0].name == "row1"


def uncommented(text: str) -> str:
    """The example with its defaults written out; the options of one policy or forecaster among others stay as are."""
    blocks = [block for block in text.split("\n\n") if not re.search(r"^#\[\w+\]  # name = ", block, re.MULTILINE)]
    blocks = [block for block in blocks if "#[[site.rows]]" not in block]  # whose values nobody can make up
    return re.sub(r"^#(?=\[|\w+ = )", "", "\n\n".join(blocks), flags=re.MULTILINE)


def test_the_example_shows_the_defaults(write: Write) -> None:
    quiet, loud = load([write(example_text())], {}), load([write(uncommented(example_text()))], {})

    assert loud.broker == replace(quiet.broker, tls=TlsSpec())
    assert loud.agent == replace(quiet.agent, web=AgentWebSpec())
    assert (dict(quiet.sinks), dict(loud.sinks)) == ({}, {"influxdb": InfluxDb()})
    assert (loud.row, loud.web, loud.log) == (quiet.row, quiet.web, quiet.log)
    assert (loud.policy_name, loud.forecast) == (quiet.policy_name, quiet.forecast)
    assert (loud.hints, loud.hint_policy, loud.load) == (quiet.hints, None, quiet.load)


def toml_values() -> SearchStrategy[str]:
    odd = ["1", "-1", "0.5", "nan", "inf", "1e308", "0x" + "f" * 9000, "9" * 9000, "true", "2020-01-01", "[]", "{}"]
    texts = st.text(max_size=8).map(lambda text: f"'{text}'") | st.sampled_from(['"polca"', '"row1"'])
    return st.recursive(
        st.sampled_from(odd) | texts,
        lambda inner: (
            st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
            | inner.map(lambda item: f"{{ name = {item}, clock_frac = {item} }}")
        ),
        max_leaves=4,
    )


def toml_files() -> SearchStrategy[str]:
    tables = [
        "[row]",
        "[[node]]",
        "[[rack]]",
        "[guard]",
        "[policy]",
        "[forecast]",
        "[hints]",
        "[broker]",
        "[broker.tls]",
        "[agent]",
        "",
    ]
    names = ["name", "budget_w", "rack", "nodes", "gpus", "tick_s", "brake", "tls", "t2_frac", "node", "x"]
    lines = st.tuples(st.sampled_from(names), toml_values()).map(" = ".join)
    sections = st.tuples(st.sampled_from(tables), st.lists(lines, max_size=3))
    return st.lists(sections.map(lambda section: "\n".join([section[0], *section[1]])), max_size=5).map("\n".join)


def environments() -> SearchStrategy[dict[str, str]]:
    names = ["POLCAD_ROW__NAME", "POLCAD_NODE__X", "POLCAD_NODE", "POLCAD___", "POLCAD_SITE__", "POLCAD_SITE__NAME"]
    return st.dictionaries(st.sampled_from(names), st.text(max_size=20))


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=60) | toml_files(), drop_in=toml_files(), environ=environments())
@example(text="x = " + "[" * 5000, drop_in="", environ={})
@example(text=".".join("x" * 2000) + " = 1", drop_in="", environ={})
@example(text="", drop_in="", environ={"POLCAD_SITE__NAME": "[" * 5000})
@example(text="", drop_in="", environ={"POLCAD_SITE__NAME": "\udcff"})
@example(text="[policy]\nname = 0x" + "f" * 4000, drop_in="", environ={})
def test_no_text_makes_load_raise_anything_but_a_config_error(
    tmp_path_factory: pytest.TempPathFactory, text: str, drop_in: str, environ: dict[str, str]
) -> None:
    folder = tmp_path_factory.getbasetemp() / "any"
    (folder / "polcad.d").mkdir(parents=True, exist_ok=True)
    (folder / "polcad.toml").write_text(text, encoding="utf-8")
    (folder / "polcad.d" / "more.toml").write_text(drop_in, encoding="utf-8")
    with suppress(ConfigError):
        load([folder / "polcad.toml"], environ)
