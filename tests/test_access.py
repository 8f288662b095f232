"""Who may say what: the table, and the access list that is written from it."""

from dataclasses import replace
from pathlib import Path

import pytest

from polcad.access import Inventory, Right, Role, identity, rights
from polcad.broker_config import ACL, CONF, mosquitto_acl, mosquitto_conf
from polcad.config import load
from polcad.errors import ConfigError
from polcad.nats_config import CONF as NATS_CONF
from polcad.nats_config import USERS, nats_files
from polcad.spec import NodeSpec, RowSpec
from polcad.wire import KINDS, OF_SITE, everywhere

DOCS = Path(__file__).parents[1] / "docs"
NODES = (NodeSpec("n1", "k1", pool="chat"), NodeSpec("daemon", "k1", pool="#"))
ONE, TWO = Inventory("s1", RowSpec("r1", 9e3, nodes=NODES), hints=True), Inventory("s1", RowSpec("r2", 9e3))


def test_a_node_has_four_rights_all_in_its_own_name_or_its_rows_plan() -> None:
    assert rights([ONE])["n1"] == (
        Right("polcad/v1/s1/r1/k1/n1/telemetry", write=True),
        Right("polcad/v1/s1/r1/k1/n1/state", write=True),
        Right("polcad/v1/s1/r1/k1/n1/placement", read=True),
        Right("polcad/v1/s1/r1/plan", read=True),
    )


def test_no_node_can_be_called_like_a_daemon_or_a_person() -> None:
    found = rights([ONE, TWO])
    assert len(found["daemon"]) == len(found["n1"])  # a node of that name is a node
    others = {name for name in found if "." in name}
    assert set(found) - others == {node.name for node in NODES}
    assert others == {
        *(identity(Role.DAEMON, row) for row in ("r1", "r2")),
        *(identity(role, "s1") for role in (Role.OPERATOR, Role.READER, Role.SCHEDULER, Role.ORCHESTRATOR)),
        identity(Role.POOL, "chat"),
    }


def test_only_daemons_may_plan_each_for_its_row_and_only_one_that_hints_may_hint() -> None:
    found = rights([ONE, TWO])
    for kind, topic, who in (
        ("plan", "polcad/v1/s1/r1/plan", {"daemon.r1"}),
        ("plan", "polcad/v1/s1/r2/plan", {"daemon.r2"}),
        ("hint", "polcad/v1/s1/hint/+", {"daemon.r1"}),
        ("hold", "polcad/v1/s1/r1/hold/+", {"operator.s1"}),
        ("load", "polcad/v1/s1/load/chat/+", {"pool.chat"}),
    ):
        assert {name for name, granted in found.items() if Right(topic, write=True) in granted} | {
            name for name, granted in found.items() if Right(topic, read=True, write=True) in granted
        } == who, kind


def test_a_daemon_may_hear_all_that_it_subscribes_to() -> None:
    readable = {right.topic for right in rights([ONE])["daemon.r1"] if right.read}
    wanted = {everywhere("s1", "r1", kind).topic for kind in KINDS} - {
        everywhere("s1", "r1", kind).topic for kind in ("plan", "event", *OF_SITE)
    }
    assert readable == wanted


def test_only_a_sites_own_daemon_says_budgets_and_only_rows_under_it_hear_them() -> None:
    assert "site.s1" not in rights([ONE, TWO])
    under = replace(ONE, row=replace(ONE.row, fail_safe_budget_w=4e3))
    found = rights([under, TWO])
    assert {right.topic for right in found["site.s1"] if right.write} == {
        everywhere("s1", "", kind).topic for kind in OF_SITE
    }
    budgets = everywhere("s1", "", "budgets").topic
    hearing = {name for name, granted in found.items() for right in granted if right.read and right.topic == budgets}
    assert hearing == {"daemon.r1", "operator.s1", "reader.s1"}
    assert Right(budgets, write=True) in found["site.s1"]
    assert not any(right.write and right.topic == budgets for right in (*found["daemon.r1"], *found["operator.s1"]))


@pytest.mark.parametrize(
    ("rows", "named"),
    [
        ([ONE, ONE], "daemon 'r1'"),
        ([ONE, Inventory("s2", RowSpec("r3", 9e3, nodes=NODES[:1]))], "node 'n1'"),
        ([Inventory("s1", RowSpec("r1", 9e3)), Inventory("s2", RowSpec("r1", 9e3))], "daemon 'r1'"),
    ],
)
def test_two_of_one_identity_are_refused(rows: list[Inventory], named: str) -> None:
    with pytest.raises(ConfigError, match=rf"{named} is in row .* and in row"):
        rights(rows)


def test_what_docs_show_is_written_from_the_example() -> None:
    config = load([DOCS / "polcad.example.toml"], {})
    row, _ = config.the_row()
    assert (DOCS / "broker" / ACL).read_text() == mosquitto_acl([Inventory(config.site.name, row)])
    assert (DOCS / "broker" / CONF).read_text() == mosquitto_conf()
    of_nats = nats_files([Inventory(config.site.name, row)], [f"nats{number}.example" for number in (1, 2, 3)])
    assert (DOCS / "broker" / USERS).read_text() == of_nats[USERS]
    assert (DOCS / "broker" / NATS_CONF).read_text() == of_nats["nats1.example.conf"]
