"""What is said at the broker: plans, clocks that differ, and nodes that the inventory does not know, or misses."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from polcad.broker_spec import BrokerSpec
from polcad.config import Config
from polcad.doctor.check import Check, State
from polcad.errors import ConfigError, PolcadError, WireError
from polcad.model import NodeState, Plan, Telemetry
from polcad.mqtt import Link, Presence
from polcad.spec import RowSpec
from polcad.wire import Address, Message, decode, everywhere

SKEW_S = 2.0  # two rows of one chart should not be told apart by their clocks
_NAMED = 8  # names shown of a longer list
_CHRONY = "run chrony or systemd-timesyncd on both hosts"


@dataclass(frozen=True, slots=True)
class Said:
    """One message that was understood, and when it came (Unix time, s)."""

    t: float
    message: Message
    address: Address
    noun: Any


async def check_node(config: Config, watch_s: float) -> list[Check]:
    """Whether plans reach this node, are signed as it asks, and their clock is ours; and whether others are heard."""
    site, spec = config.site.name, config.agent
    plan, others = Address(site, spec.row, "plan"), everywhere(site, spec.row, "telemetry")
    heard, overheard = await asyncio.gather(
        _heard(config.broker, [plan], watch_s, lambda said: bool(_plans(said))),
        _heard(config.broker, [others], watch_s, lambda said: bool(_strangers(said, spec.node_name))),
    )
    if isinstance(heard, Check):
        return [heard]
    found = _check_plans(config, plan, _plans(heard), watch_s)
    if not isinstance(overheard, Check) and (names := _strangers(overheard, spec.node_name)):
        detail = f"this node hears what others say: {_some(names)}"
        found.append(
            Check("hearing", State.WARN, detail, "`polcad broker-config` writes an access list: docs/security.md")
        )
    return found


async def check_daemon(broker: BrokerSpec, site: str, row: RowSpec, watch_s: float) -> list[Check]:
    """Whether the nodes that speak are those that are listed, where they are listed, and by our clock."""
    addresses = [everywhere(site, row.name, kind) for kind in ("telemetry", "state")]
    heard = await _heard(broker, addresses, watch_s)
    if isinstance(heard, Check):
        return [heard]
    speaking = {said.noun.node: said for said in heard if isinstance(said.noun, Telemetry)}
    online = {said.noun.node: said.noun.online for said in heard if isinstance(said.noun, NodeState)}
    return [_check_inventory(row, speaking, online, watch_s), _check_clocks(speaking.values())]


def _check_plans(config: Config, plan: Address, heard: Sequence[Said], watch_s: float) -> list[Check]:
    if not heard:
        remedy = f"start the row's daemon, or let {config.agent.node_name!r} read {plan.topic} at the broker"
        return [Check("plan", State.WARN, f"none was heard within {watch_s:g} s", remedy)]
    last = heard[-1]
    found = [Check("plan", State.OK, f"epoch {last.noun.epoch}, sequence {last.noun.seq}"), _check_clocks([last])]
    with contextlib.suppress(ConfigError):  # of keys that cannot be used, which are told beside this
        try:
            if trust := config.signing.trust():
                trust.check(plan.topic, last.message.payload, last.noun.t, last.t)
        except WireError as error:
            remedy = "the daemon's signing.key_file and signing.trusted_file here must be one pair; clocks must agree"
            found[0] = Check("plan", State.FAIL, f"it is refused: {error}", remedy, 78)
    return found


def _check_clocks(said: Iterable[Said]) -> Check:
    """How far other hosts' clocks are from ours; what a message took on its way is within the bound."""
    differ = {_speaker(each): each.t - each.noun.t for each in said if abs(each.t - each.noun.t) > SKEW_S}
    if not differ:
        return Check("clock skew", State.OK, f"within {SKEW_S:g} s of those who speak")
    shown = [
        f"{name} is {abs(by_s):.1f} s {'behind' if by_s > 0 else 'ahead'}" for name, by_s in sorted(differ.items())
    ]
    return Check("clock skew", State.WARN, f"by this host's clock, {_some(shown)}", _CHRONY)


def _check_inventory(row: RowSpec, speaking: dict[str, Said], online: dict[str, bool], watch_s: float) -> Check:
    listed = {node.name: node for node in row.nodes}
    silent = [
        f"{name} ({'online, slow' if online.get(name) else 'offline' if name in online else 'never heard'})"
        for name, node in listed.items()
        if node.in_service and name not in speaking
    ]
    unlisted = [name for name in speaking if name not in listed]
    astray = [
        f"{name} (in {said.address.rack}, listed in {listed[name].rack})"
        for name, said in speaking.items()
        if name in listed and said.address.rack != listed[name].rack
    ]
    parts = [
        (
            f"listed and silent for {watch_s:g} s: {_some(silent)}",
            silent,
            "start their agents, or set in_service = false",
        ),
        (f"speaking and not listed: {_some(unlisted)}", unlisted, "list them under [[node]], or stop their agents"),
        (f"in another rack: {_some(astray)}", astray, "mend agent.rack, or the inventory"),
    ]
    wrong = [(text, remedy) for text, names, remedy in parts if names]
    if not wrong:
        return Check("inventory", State.OK, f"all {len(speaking)} nodes that are listed speak")
    return Check(
        "inventory", State.WARN, "; ".join(text for text, _ in wrong), "; ".join(remedy for _, remedy in wrong)
    )


async def _heard(
    broker: BrokerSpec,
    addresses: Sequence[Address],
    watch_s: float,
    enough: Callable[[list[Said]], bool] = lambda _: False,
) -> list[Said] | Check:
    """What is said within `watch_s`, or until it is enough; the finding where nothing may be heard."""
    found: list[Said] = []
    presence = Presence(f"doctor-{uuid.uuid4().hex[:8]}", tuple(addresses))
    try:
        async with Link(broker, presence, time.time, Random()).opened() as link:  # noqa: S311  # spreads retries
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(watch_s):
                    async for batch in link.batches():
                        for received in batch:
                            with contextlib.suppress(WireError):
                                address, noun = decode(received.message)
                                found.append(Said(received.t, received.message, address, noun))
                        if enough(found):
                            break
    except PolcadError as error:
        return Check("hearing", State.FAIL, str(error), "`polcad broker-config` writes an access list", 77)
    return found


def _plans(said: Iterable[Said]) -> list[Said]:
    return [each for each in said if isinstance(each.noun, Plan) and not each.noun.shadow]


def _strangers(said: Iterable[Said], me: str) -> list[str]:
    return sorted({each.noun.node for each in said if isinstance(each.noun, Telemetry) and each.noun.node != me})


def _speaker(said: Said) -> str:
    return said.address.node or f"the daemon of {said.address.row}"


def _some(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
