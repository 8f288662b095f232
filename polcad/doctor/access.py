"""What the broker's access list lets this client write: what it needs, and nothing that would harm others.

It is found by trying, with messages that nobody believes: a plan that is a shadow, and for the rest an object that is
no noun, which receivers drop and count. Where another node's name is needed, it is that of a node nobody has.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Sequence

from polcad.broker_spec import BrokerSpec
from polcad.config import AgentSpec
from polcad.doctor.check import Check, State
from polcad.errors import PolcadError
from polcad.model import FREE, Plan
from polcad.probe import writable
from polcad.spec import RowSpec
from polcad.wire import Address, encode

NOBODY = "polcad-doctor"
_NOTHING = b'{"from":"polcad doctor"}'
_REMEDY = "`polcad broker-config` writes an access list from the inventory: docs/security.md"


async def check_node(broker: BrokerSpec, site: str, spec: AgentSpec, me: str) -> Check:
    """Whether a node may say how it is, and cannot speak for others."""
    needed = [Address(site, spec.row, kind, spec.rack, spec.node_name) for kind in ("telemetry", "state")]
    foreign = [Address(site, spec.row, kind) for kind in ("plan", "daemon", "event")]
    foreign += [Address(site, spec.row, kind, spec.rack, NOBODY) for kind in ("telemetry", "state", "placement")]
    foreign += [Address(site, spec.row, "hold", hold=NOBODY), Address(site, "", "hint", pool=NOBODY)]
    return await _check(broker, me, needed, foreign)


async def check_daemon(broker: BrokerSpec, site: str, row: RowSpec, me: str) -> Check:
    """Whether a daemon may plan and tell, and cannot speak for nodes and operators."""
    needed = [Address(site, row.name, kind) for kind in ("plan", "daemon", "event")]
    needed.append(Address(site, row.name, "placement", NOBODY, NOBODY))
    foreign = [Address(site, row.name, "telemetry", NOBODY, NOBODY), Address(site, row.name, "hold", hold=NOBODY)]
    foreign.append(Address(site, NOBODY, "plan"))
    return await _check(broker, me, needed, foreign)


async def _check(broker: BrokerSpec, me: str, needed: Sequence[Address], foreign: Sequence[Address]) -> Check:
    probes = [_probe(address) for address in (*needed, *foreign)]
    name = f"{broker.client_id_prefix}doctor-{uuid.uuid4().hex[:8]}"
    try:
        may = await asyncio.to_thread(writable, broker, name, probes)
    except PolcadError as error:
        return Check("access", State.WARN, str(error), "look at the broker's access list yourself: docs/security.md")
    lacking = [address.topic for address in needed if not may[address.topic]]
    if lacking:
        detail = f"{me!r} may not write {', '.join(lacking)}"
        return Check("access", State.FAIL, detail, f"is it known as {me!r}, and listed? {_REMEDY}", 77)
    too_much = [address.topic for address in foreign if may[address.topic]]
    if too_much:
        return Check("access", State.WARN, f"{me!r} may also write {', '.join(too_much)}", _REMEDY)
    return Check("access", State.OK, f"{me!r} may write what it needs, and nothing else that was tried")


def _probe(address: Address) -> tuple[str, bytes]:
    if address.kind != "plan":
        return address.topic, _NOTHING
    return address.topic, encode(address, Plan(address.row, 0, 0, time.time(), 1.0, FREE, shadow=True)).payload
