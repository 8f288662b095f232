"""What crosses the broker: topics, payloads, and their sizes.

The topic names the noun and who speaks; the payload is that noun as JSON (`polcad.codec`). A message is believed only
if its topic is one of ours, its payload is in bounds, and the name in the payload is the name in the topic: brokers
check who may write to a topic, nobody checks payloads. MQTT 3.1.1 is enough.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from polcad.abridging import Abridged, abridged
from polcad.codec import Codec
from polcad.errors import WireError
from polcad.model import (
    Budgets,
    Event,
    Hint,
    Hold,
    NodePlacement,
    NodeState,
    Plan,
    PoolLoad,
    RowStatus,
    SiteStatus,
    Telemetry,
)

ROOT = "polcad/v1"
MAX_PAYLOAD_BYTES = 256 * 1024  # a node of 64 GPUs needs 12 KiB; plans: see `polcad.brevity`
_NAME = r"[a-z0-9_-]{1,64}"


@dataclass(frozen=True, slots=True)
class Kind:
    """A family of topics: `pattern` has one ``+`` a name; its last name is the payload's `owner` field."""

    noun: type
    pattern: str
    qos: int
    retain: bool
    owner: Callable[[Any], str] | None = None


KINDS = {
    "telemetry": Kind(Telemetry, "+/+/+/+/telemetry", 0, retain=False, owner=lambda noun: noun.node),
    "state": Kind(NodeState, "+/+/+/+/state", 1, retain=True, owner=lambda noun: noun.node),
    "placement": Kind(NodePlacement, "+/+/+/+/placement", 1, retain=True, owner=lambda noun: noun.node),
    "plan": Kind(Plan, "+/+/plan", 0, retain=False, owner=lambda noun: noun.row),
    "daemon": Kind(RowStatus, "+/+/daemon", 1, retain=True, owner=lambda noun: noun.row),
    "event": Kind(Event, "+/+/event", 1, retain=False),
    "hold": Kind(Hold, "+/+/hold/+", 1, retain=True, owner=lambda noun: noun.name),
    "load": Kind(PoolLoad, "+/load/+/+", 0, retain=False, owner=lambda noun: f"{noun.pool}/{noun.instance}"),
    "hint": Kind(Hint, "+/hint/+", 1, retain=True, owner=lambda noun: noun.pool),
    "budgets": Kind(Budgets, "+/budgets", 0, retain=False, owner=lambda noun: noun.site),
    "site": Kind(SiteStatus, "+/site", 1, retain=True, owner=lambda noun: noun.site),
    "site_event": Kind(Event, "+/site_event", 1, retain=False),
}
OF_SITE = ("budgets", "site", "site_event")  # spoken of a whole site
OF_POOLS = ("hint", "load")  # spoken of a site's pools, in the place of a row: no row may be called so
_CODECS: dict[str, Codec[Any]] = {name: Codec(kind.noun) for name, kind in KINDS.items()}
_BY_NOUN = {kind.noun: name for name, kind in KINDS.items()}
_TOPIC = re.compile(
    rf"{ROOT}/(?P<site>{_NAME})/(?:hint/(?P<hinted>{_NAME})|load/(?P<loaded>{_NAME})/(?P<instance>{_NAME})"
    rf"|(?P<of_site>{'|'.join(OF_SITE)})"
    rf"|(?P<row>{_NAME})/"
    rf"(?:(?P<rack>{_NAME})/(?P<node>{_NAME})/(?P<of_node>telemetry|state|placement)"
    rf"|(?P<of_row>plan|daemon|event)|hold/(?P<hold>{_NAME})))"
)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a message belongs: `kind` is a key of KINDS; what its topic does not name is ""."""

    site: str
    row: str
    kind: str
    rack: str = ""
    node: str = ""
    hold: str = ""
    pool: str = ""
    instance: str = ""

    @property
    def topic(self) -> str:
        """The topic; an empty name (or ``+``) in a subscription stays as it is given."""
        head = f"{ROOT}/{self.site}"
        if self.kind in OF_SITE:
            return f"{head}/{self.kind}"
        if self.kind in OF_POOLS:
            return f"{head}/{self.kind}/{self.owner}"
        middle = f"/{self.rack}/{self.node}" if self.kind in {"telemetry", "state", "placement"} else ""
        end = f"/{self.hold}" if self.kind == "hold" else ""
        return f"{head}/{self.row}{middle}/{self.kind}{end}"

    @property
    def owner(self) -> str:
        """The name that the payload must repeat."""
        if self.kind in OF_SITE:
            return self.site
        if self.kind in OF_POOLS:
            return f"{self.pool}/{self.instance}" if self.kind == "load" else self.pool
        return self.hold or self.node or self.row


class Message(NamedTuple):
    """One message as it crosses the broker; after `expiry_s` a broker of MQTT 5 does not deliver it any more."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    expiry_s: float | None = None


def everywhere(site: str, row: str, kind: str) -> Address:
    """The subscription to all messages of a kind in a row; of loads, hints and the site itself, in the whole site."""
    if kind in OF_SITE:
        return Address(site, "", kind)
    if kind in OF_POOLS:
        return Address(site, "", kind, pool="+", instance="+" if kind == "load" else "")
    below = "+" if KINDS[kind].pattern.startswith("+/+/+/+") else ""
    return Address(site, row, kind, below, below, "+" if kind == "hold" else "")


@lru_cache(maxsize=65_536)
def parse_topic(topic: str) -> Address:
    """The address of a topic; WireError when it is not one of ours."""
    match = _TOPIC.fullmatch(topic)
    if match is None:
        raise WireError(f"topic {topic[:200]!r} is not one of {ROOT}")
    part = match.groupdict(default="")
    if part["of_site"]:
        return Address(part["site"], "", part["of_site"])
    if pool := part["hinted"] or part["loaded"]:
        kind = "hint" if part["hinted"] else "load"
        return Address(part["site"], "", kind, pool=pool, instance=part["instance"])
    kind = part["of_node"] or part["of_row"] or "hold"
    return Address(part["site"], part["row"], kind, part["rack"], part["node"], part["hold"])


def encode(address: Address, noun: Any) -> Message:
    """The message that carries `noun` to `address`; a status that is too large is abridged."""
    kind, codec = KINDS[address.kind], _CODECS[address.kind]
    payload = codec.encode(noun)
    while len(payload) > MAX_PAYLOAD_BYTES and isinstance(noun, Abridged) and (shorter := abridged(noun)):
        noun, payload = shorter, codec.encode(shorter)
    return Message(address.topic, payload, kind.qos, kind.retain, _expiry_s(noun))


def _expiry_s(noun: Any) -> float | None:
    """How long a message is worth delivering, s; None: for ever."""
    if isinstance(noun, Plan | Budgets):
        return noun.lease_s
    return max(0.0, noun.expires_t - noun.t) if isinstance(noun, Hint) else None


def forget(address: Address) -> Message:
    """The empty retained message that removes what was retained at `address`."""
    return Message(address.topic, b"", 1, retain=True)


def decode(message: Message) -> tuple[Address, Any]:
    """The address and the noun of a message (None: a retained message was removed); WireError when not believed."""
    address = parse_topic(message.topic)
    if len(message.payload) > MAX_PAYLOAD_BYTES:
        raise WireError(f"{message.topic}: {len(message.payload)} bytes are more than {MAX_PAYLOAD_BYTES}")
    kind = KINDS[address.kind]
    if not message.payload and kind.retain:
        return address, None
    try:
        noun = _CODECS[address.kind].decode(message.payload)
    except WireError as error:
        raise WireError(f"{message.topic}: {error}") from None
    if kind.owner is not None and kind.owner(noun) != address.owner:
        raise WireError(f"{message.topic}: the payload says it is from {kind.owner(noun)!r}")
    if isinstance(noun, Telemetry) and (column := noun.ragged()):
        raise WireError(f"{message.topic}: `{column}` has not one entry a GPU")
    return address, noun


def schemas() -> dict[str, dict[str, Any]]:
    """JSON Schema of every message, by kind."""
    return {name: codec.schema() for name, codec in _CODECS.items()}
