import contextlib
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polcad.errors import WireError
from polcad.model import (
    Budgets,
    ClassStatus,
    DomainStatus,
    Event,
    EventKind,
    Hint,
    Hold,
    LeaseState,
    Lengths,
    NodePlacement,
    NodeState,
    Obedience,
    Outcome,
    Placement,
    Plan,
    PoolLoad,
    PowerKind,
    Priority,
    Role,
    RowBudget,
    RowStatus,
    Rule,
    Setpoint,
    SiteRow,
    SiteStatus,
    Why,
)
from polcad.spec import BRAKE, FAIL_SAFE
from polcad.testing import telemetry
from polcad.wire import KINDS, MAX_PAYLOAD_BYTES, OF_SITE, Address, Message, decode, encode, forget, parse_topic

NODE = Address("site", "row", "telemetry", "r1", "n1")
BASE = json.loads(encode(NODE, telemetry(setpoint=BRAKE)).payload)
Change = Callable[[dict[str, Any]], object]

NOUNS: dict[str, tuple[Address, Any]] = {
    "telemetry": (NODE, telemetry(setpoint=BRAKE, host_power_w=4000.0, plan=Obedience(7, 8))),
    "state": (replace(NODE, kind="state"), NodeState("n1", online=True, boot_id="b", version="1.0")),
    "placement": (
        replace(NODE, kind="placement"),
        NodePlacement("n1", Placement(Priority.HIGH, Role.PROMPT, "p", "m"), {"g": Placement()}, "scheduler"),
    ),
    "plan": (
        Address("site", "row", "plan"),
        Plan("row", 3, 4, 5.5, 6.0, FAIL_SAFE, (Rule("rack/r1", BRAKE, Why.BRAKE, Priority.LOW, Role.TOKEN),), True),
    ),
    "daemon": (
        Address("site", "row", "daemon"),
        RowStatus(
            "row",
            online=True,
            epoch=1,
            thresholds={"t1": 0.8},
            domains=(DomainStatus("row", 10.0, 5.0, 6.0, (Rule("row", BRAKE, Why.T1),), 1.0, "waits"),),
            classes=(ClassStatus(Priority.LOW, Role.MIXED, 8, 5.0, BRAKE, 8),),
            counters={"ticks": 5},
        ),
    ),
    "event": (Address("site", "row", "event"), Event(1.0, EventKind.TIGHTEN, "row", "why", 5.0, 10.0)),
    "hold": (Address("site", "row", "hold", hold="work"), Hold("work", "gpu/GPU-1", Setpoint(0.5), 9.0, "me")),
    "load": (
        Address("site", "", "load", pool="sm", instance="sm-0"),
        PoolLoad("sm", "sm-0", 5.0, 4, 60.0, 2.0, 900.0, prompt=Lengths(450.0, (1.0,) * 7 + (None,)), fault="why"),
    ),
    "hint": (
        Address("site", "", "hint", pool="sm"),
        Hint("sm", "row", 5.0, 905.0, 2, 4, 0.8, 1800.0, 3.0, 900.0, 4000.0, -50.0, {"sm-0": 0.5}, "why"),
    ),
    "budgets": (Address("site", "", "budgets"), Budgets("site", 3, 4, 5.5, 15.0, (RowBudget("row", 9.0, 8.0),))),
    "site": (
        Address("site", "", "site"),
        SiteStatus("site", True, 3, 4, 5.0, 9.0, 8.0, True, (SiteRow("row", 9.0, 9.5, 8.0, 7.0, 7.5, 9.0, "why"),)),
    ),
    "site_event": (Address("site", "", "site_event"), Event(1.0, EventKind.STALE, "row/row", "why", 5.0, 10.0)),
}


def test_every_kind_of_message_is_tried_here() -> None:
    assert set(NOUNS) == set(KINDS)


@pytest.mark.parametrize("kind", sorted(NOUNS))
def test_what_is_sent_is_what_arrives(kind: str) -> None:
    address, noun = NOUNS[kind]
    assert decode(encode(address, noun)) == (address, noun)


@pytest.mark.parametrize("kind", sorted(NOUNS))
def test_fields_of_a_newer_version_are_ignored(kind: str) -> None:
    address, noun = NOUNS[kind]
    payload = json.loads(encode(address, noun).payload) | {"invented_w": 5, "nested": {"deep": [1]}}
    assert decode(Message(address.topic, json.dumps(payload).encode()))[1] == noun


def test_words_of_a_newer_version_are_taken_for_what_tightens_most_and_is_believed_least() -> None:
    rule = {"scope": "row", "setpoint": {"clock_frac": 0.5}, "why": "new", "priority": "new", "role": "new"}
    plan = {"row": "r1", "epoch": 1, "seq": 1, "t": 1.0, "lease_s": 5.0, "fail_safe": {}, "rules": [rule]}
    read = decode(Message(Address("s1", "r1", "plan").topic, json.dumps(plan).encode()))[1]
    assert read.rules == (Rule("row", Setpoint(0.5), Why.UNKNOWN, Priority.LOW, Role.MIXED),)
    said = json.loads(json.dumps(BASE))
    said["reading"]["kind"] = said["plan"]["lease"] = said["in_force"]["outcome"][0] = "new"
    read = decode(Message(NODE.topic, json.dumps(said).encode()))[1]
    assert (read.reading.kind, read.plan.lease) == (PowerKind.AVERAGE, LeaseState.NONE)
    assert read.in_force.outcome[0] is Outcome.FAILED
    told = decode(Message(Address("s1", "r1", "event").topic, b'{"t": 1.0, "kind": "new", "scope": "row"}'))[1]
    assert told.kind is EventKind.UNKNOWN


@pytest.mark.parametrize("kind", sorted(NOUNS))
def test_a_retained_message_that_is_removed_is_nothing_and_others_are_never_empty(kind: str) -> None:
    address, _ = NOUNS[kind]
    if KINDS[kind].retain:
        assert decode(forget(address)) == (address, None)
    else:
        with pytest.raises(WireError):
            decode(Message(address.topic, b""))


def refused(change: Change) -> str:
    payload = json.loads(json.dumps(BASE))
    change(payload)
    with pytest.raises(WireError) as caught:
        decode(Message(NODE.topic, json.dumps(payload).encode()))
    return str(caught.value)


def at(*path: str | int) -> Callable[[Any], Change]:
    """Puts a value at a place of the payload."""

    def put(value: Any) -> Change:
        def change(payload: Any) -> None:
            for step in path[:-1]:
                payload = payload[step]
            payload[path[-1]] = value

        return change

    return put


power_w = at("reading", "gpus", "power_w", 3)


@pytest.mark.parametrize("value", [-1.0, -0.001, 1e308, 1e6, float("nan"), float("inf"), "300", True, [300.0], {}])
def test_a_power_that_no_gpu_draws_is_refused_with_its_place(value: object) -> None:
    said = refused(power_w(value))
    assert NODE.topic in said
    if not isinstance(value, float) or (value == value and abs(value) != float("inf")):  # noqa: PLR0124  # not NaN
        assert "$.reading.gpus.power_w[3]" in said


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (at("node")("n2"), "'n2'"),
        (at("node")("N1"), "$.node"),
        (at("node")("n1\n"), "n1"),
        (at("node")(5), "$.node"),
        (at("seq")(-1), "$.seq"),
        (at("seq")(1.5), "$.seq"),
        (at("seq")(2**60), "$.seq"),
        (at("period_s")(0), "$.period_s"),
        (at("period_s")(1e9), "$.period_s"),
        (at("reading")([]), "$.reading"),
        (at("reading", "kind")(1), "$.reading.kind"),
        (at("reading", "gpus", "uuid", 0)("x" * 1000), "$.reading.gpus.uuid[0]"),
        (at("reading", "gpus", "power_w")([1.0] * 65), "$.reading.gpus.power_w"),
        (at("plan", "epoch")(2**54), "$.plan.epoch"),
        (at("in_force", "clock_frac", 0)(1.1), "$.in_force.clock_frac[0]"),
        (lambda payload: payload.pop("boot_id"), "boot_id"),
        (at("reading", "gpus", "power_w")([300.0] * 7), "power_w"),
        (at("reading", "gpus", "max_w")([]), "max_w"),
        (at("reading", "gpus", "temp_c")([40.0]), "temp_c"),
        (at("reading", "gpus", "fault")([None] * 9), "fault"),
        (at("in_force", "uuid", 0)("another"), "in_force"),
        (at("in_force", "cap_frac")([1.0]), "in_force"),
        (at("in_force", "outcome")([]), "in_force"),
        (at("in_force", "outcome")(["ok"] * 3), "in_force"),
        (at("in_force", "detail")(["why"]), "in_force"),
    ],
)
def test_what_is_out_of_shape_is_refused_and_named(change: Change, says: str) -> None:
    assert says in refused(change)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"n1"',
        b"12",
        b"NaN",
        b'{"node": "n1"',
        b"\xff\xfe\x00",
        b'{"node": "\xff"}',
        b'{"node": "\\ud800"}',
        b"[" * 200_000,
        b'{"a":' * 40_000,
        b'{"node":"n1","x":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
        b"\x00" * 1000,
        b"9" * 5000,
    ],
)
def test_bytes_that_are_no_message_are_refused(payload: bytes) -> None:
    with pytest.raises(WireError, match=NODE.topic):
        decode(Message(NODE.topic, payload))


def test_ten_megabytes_are_refused_unread() -> None:
    with pytest.raises(WireError, match="10485760 bytes are more than"):
        decode(Message(NODE.topic, b" " * (10 * 1024 * 1024)))


def test_the_largest_node_and_a_plan_of_a_thousand_rules_are_small_enough() -> None:
    node = replace(telemetry(gpus=64, setpoint=BRAKE))
    assert len(encode(NODE, node).payload) < MAX_PAYLOAD_BYTES / 10
    rules = (Rule("rack/" + "r" * 40, BRAKE, Why.BRAKE, Priority.LOW, Role.TRAINING),) * 1000
    plan = Plan("row", 1, 1, 1.0, 5.0, FAIL_SAFE, rules)
    assert decode(encode(Address("site", "row", "plan"), plan))[1] == plan


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "polcad",
        "polcad/v1",
        "polcad/v2/site/row/r1/n1/telemetry",
        "polcad/v1/site/row/r1/n1/telemetry/",
        "polcad/v1/site/row/r1/n1/telemetry\n",
        "/polcad/v1/site/row/r1/n1/telemetry",
        "polcad/v1/site/row/r1/n1/secrets",
        "polcad/v1/site/row/r1/N1/telemetry",
        "polcad/v1/site/row/r1/n.1/telemetry",
        "polcad/v1/site/row/r1//telemetry",
        "polcad/v1/site/row/r1/+/telemetry",
        "polcad/v1/site/row/r1/" + "n" * 65 + "/telemetry",
        "polcad/v1/site/row/telemetry",
        "polcad/v1/site/row/hold",
        "polcad/v1/site/row/r1/plan",
        "polcad/v1/site/hint",
        "polcad/v1/site/hint/p1/i1",
        "polcad/v1/site/load/p1",
        "$SYS/broker/version",
        "x" * 65_535,
    ],
)
def test_a_topic_that_is_not_ours_is_refused(topic: str) -> None:
    with pytest.raises(WireError, match="is not one of"):
        parse_topic(topic)


@pytest.mark.parametrize("kind", sorted(NOUNS))
def test_an_address_is_read_from_its_own_topic(kind: str) -> None:
    address, _ = NOUNS[kind]
    assert parse_topic(address.topic) == address


@pytest.mark.parametrize("kind", [kind for kind in sorted(NOUNS) if "event" not in kind])
def test_who_speaks_in_anothers_name_is_refused(kind: str) -> None:
    address, noun = NOUNS[kind]
    elsewhere = replace(
        address, node=address.node and "n9", row="row9", hold=address.hold and "hold9", pool=address.pool and "pool9"
    )
    elsewhere = replace(elsewhere, site="site9") if kind in OF_SITE else elsewhere
    with pytest.raises(WireError, match="the payload says it is from"):
        decode(Message(elsewhere.topic, encode(address, noun).payload))


def test_only_plans_budgets_and_hints_expire_on_their_way_and_with_their_lives() -> None:
    expiries = {kind: encode(*pair).expiry_s for kind, pair in NOUNS.items()}
    assert expiries == dict.fromkeys(NOUNS) | {"plan": 6.0, "budgets": 15.0, "hint": 900.0}


@pytest.mark.parametrize("topic", ["polcad/v1/site/hint/plan", "polcad/v1/site/load/hold/h1"])
def test_what_pools_are_called_makes_no_order_of_a_hint_or_a_load(topic: str) -> None:
    assert parse_topic(topic).kind == topic.split("/")[3]


topics = st.one_of(st.text(max_size=60), st.sampled_from([address.topic for address, _ in NOUNS.values()]))


@settings(max_examples=100, deadline=None)
@given(topic=topics, payload=st.binary(max_size=200))
def test_arbitrary_bytes_raise_nothing_but_wire_errors(topic: str, payload: bytes) -> None:
    with contextlib.suppress(WireError):
        decode(Message(topic, payload))


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=8,
)


@settings(max_examples=70, deadline=None)
@given(kind=st.sampled_from(sorted(NOUNS)), data=st.data(), value=JSON)
def test_any_one_field_replaced_by_anything_is_taken_or_refused_cleanly(
    kind: str, data: st.DataObject, value: object
) -> None:
    address, noun = NOUNS[kind]
    payload = json.loads(encode(address, noun).payload)
    place, key = payload, data.draw(st.sampled_from(sorted(payload)))
    while isinstance(place[key], dict) and place[key] and data.draw(st.booleans()):
        place, key = place[key], data.draw(st.sampled_from(sorted(place[key])))
    place[key] = value
    try:
        again = decode(Message(address.topic, json.dumps(payload).encode()))
    except WireError:
        return
    assert decode(encode(*again)) == again


NAMES = st.from_regex(r"[a-z0-9_-]{1,16}", fullmatch=True)
FRACS = st.floats(0.0, 1.0)
SETPOINTS = st.builds(Setpoint, FRACS, FRACS)
NOTES = st.text(st.characters(codec="utf-8"), max_size=64)
SCOPES = st.one_of(st.just("row"), NAMES.map("rack/{}".format), NAMES.map("node/{}".format))
COUNTS = st.integers(0, 2**53)
RULES = st.builds(
    Rule, SCOPES, SETPOINTS, st.sampled_from(Why), st.sampled_from([None, *Priority]), st.sampled_from([None, *Role])
)
PLANS = st.builds(
    Plan,
    st.just("row"),
    COUNTS,
    COUNTS,
    st.floats(0, 1e11),
    st.floats(0.1, 3600.0),
    SETPOINTS,
    st.lists(RULES, max_size=5).map(tuple),
    st.booleans(),
)
EVENTS = st.builds(
    Event, st.floats(0, 1e11), st.sampled_from(EventKind), SCOPES, NOTES, st.none() | st.floats(0, 1e10), st.none()
)
PLACEMENTS = st.builds(Placement, st.sampled_from(Priority), st.sampled_from(Role), NAMES, NAMES)
SAID: dict[str, st.SearchStrategy[Any]] = {
    "plan": PLANS,
    "event": EVENTS,
    "hold": st.builds(Hold, st.just("work"), SCOPES, SETPOINTS, st.floats(0, 1e11), NAMES),
    "placement": st.builds(
        NodePlacement, st.just("n1"), PLACEMENTS, st.dictionaries(NAMES, PLACEMENTS, max_size=3), NAMES
    ),
    "state": st.builds(NodeState, st.just("n1"), st.booleans(), NAMES, NAMES),
    "telemetry": st.builds(
        telemetry,
        power_w=st.lists(st.none() | st.floats(0.0, 1e5), max_size=64),
        seq=COUNTS,
        boot_id=NAMES,
        max_w=st.none() | st.floats(0.0, 1e5),
        period_s=st.floats(0.001, 3600.0),
        host_power_w=st.none() | st.floats(0.0, 1e6),
        setpoint=st.none() | SETPOINTS,
    ),
    "daemon": st.builds(
        RowStatus,
        st.just("row"),
        st.booleans(),
        COUNTS,
        thresholds=st.dictionaries(NAMES, st.floats(0.0, 1e6), max_size=3),
        counters=st.dictionaries(NAMES, COUNTS, max_size=3),
    ),
    "load": st.builds(
        PoolLoad,
        st.just("sm"),
        st.just("sm-0"),
        st.floats(0, 1e11),
        requests_per_s=st.none() | st.floats(0, 1e9),
        waiting=st.none() | COUNTS,
        kv_use_frac=st.none() | FRACS,
        prompt=st.none() | st.builds(Lengths, st.floats(0, 1e9), st.lists(st.none(), max_size=8).map(tuple)),
        fault=NOTES,
        ended=st.booleans(),
    ),
    "hint": st.builds(
        Hint,
        st.just("sm"),
        NAMES,
        st.floats(0, 1e11),
        st.floats(0, 1e11),
        COUNTS,
        st.integers(1, 1024),
        FRACS,
        st.floats(0, 1e11),
        st.floats(0, 1e9),
        st.floats(0, 1e9),
        st.floats(0, 1e10),
        st.none() | st.floats(-1e10, 1e10),
        st.dictionaries(NAMES, FRACS, max_size=3),
        NOTES,
    ),
}


SAID["site_event"] = EVENTS
SAID["budgets"] = st.builds(
    Budgets,
    st.just("site"),
    COUNTS,
    COUNTS,
    st.floats(0.0, 1e11),
    st.floats(0.1, 3600.0),
    st.lists(st.builds(RowBudget, st.just("row"), st.floats(0, 1e10), st.floats(0, 1e10)), max_size=3).map(tuple),
)
SAID["site"] = st.builds(
    SiteStatus,
    st.just("site"),
    st.booleans(),
    COUNTS,
    rows=st.lists(st.builds(SiteRow, st.just("row"), *[st.floats(0, 1e10)] * 6, NOTES), max_size=3).map(tuple),
)


@settings(max_examples=70, deadline=None)
@given(data=st.data(), kind=st.sampled_from(sorted(SAID)))
def test_every_noun_survives_the_wire(data: st.DataObject, kind: str) -> None:
    noun, address = data.draw(SAID[kind]), NOUNS[kind][0]
    assert decode(encode(address, noun)) == (address, noun)


def test_properties_cover_every_kind() -> None:
    assert set(SAID) == set(KINDS)
