"""Who may speak: ``broker-config``, and ``pki`` for those who have no certificate authority."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from polcad.access import BROKER, Inventory, Role, identity, rights
from polcad.cli.common import JsonOption, configured, print_json
from polcad.config import Config, load
from polcad.model import NAME_PATTERN

if TYPE_CHECKING:
    from polcad.pki import Issued

_SOON_DAYS = 30.0

FolderOption = Annotated[Path, typer.Option("--dir", help="The authority's folder: off the nodes, and backed up.")]
RowFiles = Annotated[
    list[Path] | None,
    typer.Argument(metavar="FILE...", help="The daemon's configuration of each row; left out: this host's."),
]
PoolOption = Annotated[
    list[str] | None, typer.Option("--pool", help="A pool that tells its load and is in no [[node]]; repeat for more.")
]
DaysOption = Annotated[float, typer.Option(min=0.01, max=36500.0, help="Days until it expires.")]
WithinOption = Annotated[float, typer.Option("--within", min=0.0, help="What expires within so many days.")]
FOLDER = Path("polcad-pki")


class BrokerKind(StrEnum):
    """Brokers that an access list is written for."""

    MOSQUITTO = "mosquitto"
    NATS = "nats"


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    pki = typer.Typer(no_args_is_help=True)
    pki.callback()(_pki)
    pki.command("init")(init)
    pki.command("issue")(issue)
    pki.command("inventory")(inventory)
    pki.command("list")(listed)
    pki.command("renew")(renew)
    pki.command("revoke")(revoke)
    pki.command("plan-key")(plan_key)
    app.add_typer(pki, name="pki")
    app.command("broker-config")(broker_config)


def _pki() -> None:
    """A small certificate authority, for those who have none."""


def broker_config(
    files: RowFiles = None,
    pool: PoolOption = None,
    broker: Annotated[BrokerKind, typer.Option(help="Whose configuration.")] = BrokerKind.MOSQUITTO,
    host: Annotated[
        list[str] | None, typer.Option("--host", help="NATS: the DNS name of a node; repeat for a cluster of three.")
    ] = None,
    keys: Annotated[
        Path | None,
        typer.Option("--dir", help="NATS: let in the keys alone that this authority has issued and not revoked."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the files here; left out: print them.")] = None,
    etc: Annotated[
        str | None, typer.Option(help="The broker's folder on its host; left out: /etc/mosquitto or /etc/nats.")
    ] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port to listen on.")] = 8883,
) -> None:
    """Write the broker's configuration and access list for the rows of these inventories."""
    if broker is BrokerKind.MOSQUITTO:
        if host or keys:
            raise typer.BadParameter("--host and --dir are for --broker nats")
        from polcad.broker_config import mosquitto_files

        texts = mosquitto_files(_inventories(files, pool), port=port, etc=etc or "/etc/mosquitto")
    else:
        from polcad.nats_config import nats_files
        from polcad.pki import Authority

        pins = Authority(keys).pins() if keys else ()
        texts = nats_files(_inventories(files, pool), host or (), port=port, etc=etc or "/etc/nats", pins=pins)
    for name, text in texts.items():
        if out is None:
            typer.echo(f"# ---- {name}\n{text}")
            continue
        from polcad.secret_files import write_file

        out.mkdir(parents=True, exist_ok=True)
        write_file(out / name, text.encode(), 0o640)  # Mosquitto doubts an access list that everybody may read
        typer.echo(str(out / name))


def _inventories(files: list[Path] | None, pools: list[str] | None) -> list[Inventory]:
    """One of each file, which is a row's: several are not merged as elsewhere."""
    configs = [load([path], os.environ) for path in files] if files else [configured(None)]
    for name in pools or ():
        _named(name)
    return [_inventory(config, tuple(pools or ())) for config in configs]


def _inventory(config: Config, pools: tuple[str, ...]) -> Inventory:
    row, _ = config.the_row()
    return Inventory(config.site.name, row, config.hint_policy is not None, pools)


def _named(name: str) -> None:
    if not re.match(NAME_PATTERN, name):
        raise typer.BadParameter(f"{name!r}: write 1 to 64 of a-z, 0-9, - and _")


def init(
    folder: FolderOption = FOLDER,
    name: Annotated[str, typer.Option(help="What the authority is called in its certificate.")] = "polcad",
    days: DaysOption = 3650.0,
) -> None:
    """Make a certificate authority."""
    from polcad.pki import create

    create(folder, name, days)
    typer.echo(
        f"{folder}: whoever reads ca.key can be any node and any daemon: keep it from the hosts that polcad runs on"
    )


def issue(
    role: Annotated[str, typer.Argument(help=f"One of {', '.join([*Role, BROKER])}.")],
    names: Annotated[
        list[str],
        typer.Argument(help="Nodes, rows (daemon), sites (operator, reader …) or pools; of the broker: its hosts."),
    ],
    folder: FolderOption = FOLDER,
    days: DaysOption = 365.0,
    cluster: Annotated[
        bool, typer.Option("--cluster", help="Of the broker: its hosts are nodes of a cluster.")
    ] = False,
) -> None:
    """Issue a key and a certificate to each name; to the broker, one for all its host names and addresses."""
    from polcad.pki import Authority

    authority = Authority(folder)
    if role == BROKER:
        _tell([authority.issue(f"{BROKER}.{names[0]}", days, names, cluster=cluster)])
        return
    if role not in {*Role}:
        raise typer.BadParameter(f"{role!r} is none of {', '.join([*Role, BROKER])}")
    for name in names:
        _named(name)
    _tell(authority.issue(identity(Role(role), name), days) for name in names)


def inventory(
    files: RowFiles = None, pool: PoolOption = None, folder: FolderOption = FOLDER, days: DaysOption = 365.0
) -> None:
    """Issue what the rows of these inventories need and do not have: nodes, daemons, pools, people."""
    from polcad.pki import Authority

    authority = Authority(folder)
    there = {each.path.stem for each in authority.issued()[1:]}
    _tell(authority.issue(name, days) for name in rights(_inventories(files, pool)) if name not in there)


def listed(folder: FolderOption = FOLDER, within: WithinOption = _SOON_DAYS, as_json: JsonOption = False) -> None:
    """Show all certificates and when they expire; exit code 1 when one does soon."""
    from polcad.pki import Authority

    now = datetime.now(UTC)
    found = sorted(Authority(folder).issued(), key=lambda each: each.ends)
    soon = [each for each in found if each.days_left(now) < within]
    if as_json:
        rows = [{"name": each.name, "file": str(each.path), "expires": each.ends.isoformat()} for each in found]
        print_json({"ok": not soon, "certificates": rows})
    else:
        _tell(found)
    if soon:
        raise typer.Exit(1)


def renew(
    names: Annotated[list[str] | None, typer.Argument(help="Identities; left out: all that expire soon.")] = None,
    folder: FolderOption = FOLDER,
    within: WithinOption = _SOON_DAYS,
    days: DaysOption = 365.0,
) -> None:
    """Renew certificates. Keys stay as they are, so only the .crt files are to be copied."""
    from polcad.pki import Authority

    authority, now = Authority(folder), datetime.now(UTC)
    of_clients = authority.issued()[1:]
    due = names or [each.path.stem for each in of_clients if each.days_left(now) < within]
    _tell(authority.renew(name, days) for name in due)


def revoke(
    names: Annotated[list[str], typer.Argument(help="Identities whose key was lost or stolen.")],
    folder: FolderOption = FOLDER,
) -> None:
    """Revoke certificates: copy ca.crl to the broker, and restart that."""
    from polcad.pki import Authority

    authority = Authority(folder)
    for name in names:
        authority.revoke(name)
    typer.echo(f"{folder / 'ca.crl'}: copy it to the broker, and restart that: a SIGHUP leaves who is in connected")


def plan_key(
    row: Annotated[str, typer.Argument(help="The row whose plans it signs.")], folder: FolderOption = FOLDER
) -> None:
    """Make a key to sign a row's plans with: its private half for the daemon, its public half for the nodes."""
    from polcad.pki import make_plan_key

    _named(row)
    private, public = make_plan_key(folder, row)
    typer.echo(f"{private}: for the daemon, signing.key_file\n{public}: for the nodes, signing.trusted_file")


def _tell(certificates: Iterable[Issued]) -> None:
    now = datetime.now(UTC)
    for each in certificates:
        hosts = f" at {', '.join(each.hosts)}" if each.hosts else ""
        typer.echo(f"{each.ends:%Y-%m-%d}  {each.days_left(now):6.0f} days  {each.name}{hosts}  {each.path}")
