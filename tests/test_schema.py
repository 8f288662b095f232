import json
import re
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from polcad.model import (
    Budgets,
    ClassStatus,
    DomainStatus,
    Event,
    EventKind,
    Gpus,
    Hint,
    Hold,
    InForce,
    Lengths,
    NodePlacement,
    NodeState,
    Obedience,
    Outcome,
    Placement,
    Plan,
    PoolLoad,
    Priority,
    Reading,
    Role,
    RowBudget,
    RowStatus,
    Rule,
    Setpoint,
    SiteRow,
    SiteStatus,
    Telemetry,
    Why,
)
from polcad.schema import asyncapi, render
from polcad.wire import KINDS, Address, encode

COMMITTED = Path(__file__).parent.parent / "docs" / "asyncapi.json"
RULE = Rule("rack/k1", Setpoint(0.9, 0.8), Why.T1, Priority.LOW, Role.TOKEN)
GPUS = Gpus(uuid=("GPU-1", "GPU-2"), power_w=(300.0, None), max_w=(400.0, 400.0), fault=(None, "lost"))
IN_FORCE = InForce(("GPU-1", "GPU-2"), (0.9, None), (1.0, None), (Outcome.OK, Outcome.FAILED), ("", "lost"))
EXAMPLES: dict[str, Any] = {
    "telemetry": Telemetry("n1", "b1", 7, 1e9, 1.0, Reading(GPUS, host_power_w=900.0), IN_FORCE, Obedience(3, 4)),
    "state": NodeState("n1", online=True, boot_id="b1", version="1"),
    "placement": NodePlacement("n1", Placement(Priority.HIGH), {"GPU-1": Placement(role=Role.TOKEN, pool="chat")}),
    "plan": Plan("r1", 3, 4, 1e9, 5.0, Setpoint(0.787), (RULE,)),
    "daemon": RowStatus(
        "r1",
        online=True,
        epoch=3,
        thresholds={"t1": 0.8},
        domains=(DomainStatus("row", 9000.0, 7000.0, 7100.0, (RULE,), 1e9),),
        classes=(ClassStatus(Priority.LOW, Role.TOKEN, 8, 2000.0, Setpoint(0.9), 8),),
    ),
    "event": Event(1e9, EventKind.TIGHTEN, "row", "t1", 7000.0, 8000.0),
    "hold": Hold("maintenance", "rack/k1", Setpoint(0.5), 1e9, "ada"),
    "load": PoolLoad(
        "p1", "i1", 1e9, 4, 60.0, 2.0, output=Lengths(90.0, (10.0, *[None] * 7)), fault="the first reading"
    ),
    "hint": Hint(
        "p1", "r1", 1e9, 2e9, 3, 4, 0.7, 1800.0, 5.0, 4000.0, 9000.0, weights={"i1": 1.0}, why="the load fell"
    ),
    "budgets": Budgets("s1", 3, 4, 1e9, 15.0, (RowBudget("r1", 9000.0, 8000.0),)),
    "site": SiteStatus("s1", online=True, epoch=3, rows=(SiteRow("r1", 9000.0, 9500.0, 8000.0, note="silent"),)),
    "site_event": Event(1e9, EventKind.STALE, "row/r1", "silent", 7000.0, 8000.0),
}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return asyncapi("1")


def payload_schema(document: dict[str, Any], kind: str) -> Draft202012Validator:
    """The validator of a message, whose references lead into the whole document."""
    return Draft202012Validator({**document, **document["components"]["messages"][kind]["payload"]})


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from ([value["$ref"]] if "$ref" in value else [])
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from references(item)


def at(document: Any, reference: str) -> Any:
    for part in reference.removeprefix("#/").split("/"):
        document = document[part]
    return document


def test_the_committed_document_is_what_the_code_says() -> None:
    assert COMMITTED.read_text(encoding="utf-8") == render(version("polcad")), "run `make generate`"


def test_every_kind_has_an_example_here() -> None:
    assert EXAMPLES.keys() == KINDS.keys()


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_codec_writes_fits_the_schema(document: dict[str, Any], kind: str) -> None:
    address = Address("s1", "r1", kind, "k1", "n1", "maintenance" if kind == "hold" else "", "p1", "i1")
    payload = json.loads(encode(address, EXAMPLES[kind]).payload)

    payload_schema(document, kind).validate(payload)


@pytest.mark.parametrize("kind", KINDS)
def test_a_message_of_another_kind_does_not_fit(document: dict[str, Any], kind: str) -> None:
    assert not payload_schema(document, kind).is_valid({"node": 3, "row": [], "t": "now", "scope": 1, "name": 2})


def test_a_number_out_of_bounds_does_not_fit(document: dict[str, Any]) -> None:
    plan = json.loads(encode(Address("s1", "r1", "plan"), EXAMPLES["plan"]).payload)
    plan["fail_safe"]["clock_frac"] = 1.5

    errors = [error.json_path for error in payload_schema(document, "plan").iter_errors(plan)]
    assert errors == ["$.fail_safe.clock_frac"]


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    for reference in references(document):
        assert at(document, reference)


@pytest.mark.parametrize("kind", KINDS)
def test_addresses_are_the_topics_of_the_wire(document: dict[str, Any], kind: str) -> None:
    channel = document["channels"][kind]
    address = Address("s1", "r1", kind, "k1", "n1", "h1", "p1", "i1")
    names = {"site": "s1", "row": "r1", "rack": "k1", "node": "n1", "hold": "h1", "pool": "p1", "instance": "i1"}

    assert channel["address"].format(**names) == address.topic
    assert set(re.findall(r"{(\w+)}", channel["address"])) == channel["parameters"].keys()


def test_what_one_sends_another_receives(document: dict[str, Any]) -> None:
    told: dict[str, set[str]] = {"send": set(), "receive": set()}
    for operation in document["operations"].values():
        told[operation["action"]].add(operation["channel"]["$ref"].removeprefix("#/channels/"))

    assert told["send"] == told["receive"] == KINDS.keys()


def test_only_the_daemon_says_plans_and_hints(document: dict[str, Any]) -> None:
    for kind in ("plan", "hint"):
        said = [name for name, each in document["operations"].items() if name.endswith(f"_send_{kind}")]
        assert said == [f"daemon_send_{kind}"]


def test_operations_tell_quality_of_service_and_retention(document: dict[str, Any]) -> None:
    bindings = {name: operation["bindings"]["mqtt"] for name, operation in document["operations"].items()}

    assert (bindings["daemon_send_plan"]["qos"], bindings["daemon_send_plan"]["retain"]) == (0, False)
    assert (bindings["agent_send_state"]["qos"], bindings["agent_send_state"]["retain"]) == (1, True)
