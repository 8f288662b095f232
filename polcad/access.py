"""Who may say and hear what: the one table behind the broker's access list, certificates, and `polcad doctor`.

A client is known by its identity: the common name of its certificate, or its user name. A node's is the node's name.
Everyone else's is ``ROLE.SCOPE``, and no node's name has a dot, so no node can be taken for a daemon. What is not
listed is denied, and a node that is in no inventory is a stranger.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from polcad.errors import ConfigError
from polcad.model import NAME_PATTERN
from polcad.spec import NodeSpec, RowSpec
from polcad.standby import lock_of
from polcad.wire import OF_SITE, ROOT, Address, everywhere

BROKER = "broker"  # a role that has a certificate for servers, and no rights: it is who asks for them


class Role(StrEnum):
    """What an identity is for."""

    NODE = "node"  # an agent
    DAEMON = "daemon"  # of a row
    SITE = "site"  # of a site: divides its power among its rows
    OPERATOR = "operator"  # of a site: hears all, gives holds
    READER = "reader"  # of a site: hears all
    SCHEDULER = "scheduler"  # of a site: says what runs where
    ORCHESTRATOR = "orchestrator"  # of a site: hears hints
    POOL = "pool"  # of serving instances: tells their load


@dataclass(frozen=True, slots=True)
class Right:
    """One thing that an identity may do; `topic` may hold ``+`` and ``#``."""

    topic: str
    read: bool = False
    write: bool = False


@dataclass(frozen=True, slots=True)
class Inventory:
    """A row of a site; `hints`: whether its daemon hints how the site's pools should be shaped.

    `pools` are those that tell their load beside the pools that its nodes are listed in.
    """

    site: str
    row: RowSpec
    hints: bool = False
    pools: tuple[str, ...] = ()

    @property
    def all_pools(self) -> tuple[str, ...]:
        """The names of its pools; one that no topic can name tells no load."""
        listed = (node.pool for node in self.row.nodes)
        return (*(pool for pool in listed if re.match(NAME_PATTERN, pool)), *self.pools)


def identity(role: Role, scope: str) -> str:
    """The identity of the role: `scope` is a node, a row, a site or a pool."""
    return scope if role is Role.NODE else f"{role.value}.{scope}"


def rights(rows: Iterable[Inventory]) -> dict[str, tuple[Right, ...]]:
    """What each identity may do at a broker that serves these rows; ConfigError where two would be one."""
    rows = tuple(rows)
    _check(rows)
    found: dict[str, list[Right]] = {}
    for each in rows:
        found.setdefault(identity(Role.DAEMON, each.row.name), []).extend(_daemon(each))
        for node in each.row.nodes:
            found.setdefault(identity(Role.NODE, node.name), []).extend(_node(each, node))
    for site in dict.fromkeys(each.site for each in rows):
        of_site = [each for each in rows if each.site == site]
        under = [each for each in of_site if each.row.fail_safe_budget_w is not None]
        if under:
            found.setdefault(identity(Role.SITE, site), []).extend(_site(site, under))
        for name, granted in _people(site, of_site):
            found.setdefault(name, []).extend(granted)
        for pool in dict.fromkeys(pool for each in of_site for pool in each.all_pools):
            found.setdefault(identity(Role.POOL, pool), []).append(_write(f"{ROOT}/{site}/load/{pool}/+"))
    return {name: tuple(dict.fromkeys(granted)) for name, granted in found.items()}


def locks(rows: Iterable[Inventory]) -> dict[str, str]:
    """By identity, the lock that it may hold where it has a standby."""
    rows = tuple(rows)
    of_rows = {identity(Role.DAEMON, each.row.name): lock_of(each.site, each.row.name) for each in rows}
    return of_rows | {identity(Role.SITE, each.site): lock_of(each.site) for each in rows}


def _node(of: Inventory, node: NodeSpec) -> Iterable[Right]:
    for kind in ("telemetry", "state"):
        yield _write(Address(of.site, of.row.name, kind, node.rack, node.name).topic)
    yield _read(Address(of.site, of.row.name, "placement", node.rack, node.name).topic)
    yield _read(Address(of.site, of.row.name, "plan").topic)


def _daemon(of: Inventory) -> Iterable[Right]:
    site, row = of.site, of.row.name
    for kind in ("telemetry", "state", "hold"):
        yield _read(everywhere(site, row, kind).topic)
    for kind in ("placement", "daemon"):  # a scheduler's word, and another daemon's, come before its own
        yield Right(everywhere(site, row, kind).topic, read=True, write=True)
    for kind in ("plan", "event"):
        yield _write(Address(site, row, kind).topic)
    if of.row.fail_safe_budget_w is not None:
        yield _read(everywhere(site, row, "budgets").topic)
    if of.hints:
        yield _read(everywhere(site, row, "load").topic)
        yield Right(everywhere(site, row, "hint").topic, read=True, write=True)


def _site(site: str, rows: Iterable[Inventory]) -> Iterable[Right]:
    for each in rows:
        yield _read(everywhere(site, each.row.name, "daemon").topic)
    for kind in ("budgets", "site_event"):
        yield _write(everywhere(site, "", kind).topic)
    yield Right(everywhere(site, "", "site").topic, read=True, write=True)  # another daemon's word comes before its own


def _people(site: str, rows: Iterable[Inventory]) -> Iterable[tuple[str, list[Right]]]:
    rows = tuple(rows)
    all_of_it = [_read(f"{ROOT}/{site}/{part}/#") for part in (*(each.row.name for each in rows), "load", "hint")]
    if any(each.row.fail_safe_budget_w is not None for each in rows):
        all_of_it += [_read(everywhere(site, "", kind).topic) for kind in OF_SITE]
    holds = [_write(everywhere(site, each.row.name, "hold").topic) for each in rows]
    placements = [Right(everywhere(site, each.row.name, "placement").topic, read=True, write=True) for each in rows]
    states = [_read(everywhere(site, each.row.name, "state").topic) for each in rows]
    yield identity(Role.OPERATOR, site), all_of_it + holds
    yield identity(Role.READER, site), all_of_it
    yield identity(Role.SCHEDULER, site), placements + states
    yield identity(Role.ORCHESTRATOR, site), [_read(everywhere(site, "", "hint").topic)]


def _read(topic: str) -> Right:
    return Right(topic, read=True)


def _write(topic: str) -> Right:
    return Right(topic, write=True)


def _check(rows: tuple[Inventory, ...]) -> None:
    """Refuse two of one identity: whoever holds the certificate of the one would speak for the other."""
    where: dict[str, str] = {}
    for each in rows:
        for role, name in ((Role.DAEMON, each.row.name), *((Role.NODE, node.name) for node in each.row.nodes)):
            key, place = identity(role, name), f"row {each.row.name} of site {each.site}"
            if key in where:
                raise ConfigError(f"{role.value} {name!r} is in {where[key]} and in {place}: give it a name of its own")
            where[key] = place
