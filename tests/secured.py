"""A broker secured as operators secure one: certificates by `polcad.pki`, Mosquitto by `polcad.broker_config`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from polcad.access import Inventory, rights
from polcad.broker_config import ACL, mosquitto_acl, mosquitto_conf
from polcad.broker_spec import TlsSpec
from polcad.pki import Authority, create
from polcad.testing_brokers import Mosquitto

WITNESS = "witness"  # hears all: what nobody should have been able to say, too
AS_ROOT = ("user root",) if os.geteuid() == 0 else ()  # Mosquitto would else become a user who cannot read our files


@dataclass(frozen=True, slots=True)
class Secured:
    """The authority of a folder, and how its clients reach the broker."""

    folder: Path
    authority: Authority
    rows: Sequence[Inventory]

    def tls(self, name: str) -> TlsSpec:
        """The certificate of an identity."""
        return TlsSpec(
            *(str(self.folder / "pki" / part) for part in ("ca.crt", f"issued/{name}.crt", f"issued/{name}.key"))
        )

    def settings(self, identity: str) -> str:
        """What a program of the row `row` says of certificates and signatures: its daemon signs, others believe it."""
        tls = self.tls(identity)
        key = ("key_file", "key") if identity == "daemon.row" else ("trusted_file", "pub")
        return (
            f'[broker.tls]\nca = "{tls.ca}"\ncert = "{tls.cert}"\nkey = "{tls.key}"\n'
            f'[signing]\n{key[0]} = "{self.folder / "pki"}/plan-row.{key[1]}"\n'
        )

    def broker(self) -> Mosquitto:
        """Mosquitto with the configuration that operators get, on a port and in folders of ours."""
        etc = self.folder / "etc"
        etc.mkdir(exist_ok=True)
        (etc / ACL).write_text(f"{mosquitto_acl(self.rows)}\nuser {WITNESS}\ntopic read #\ntopic read $SYS/#\n")
        self.install()
        conf = mosquitto_conf(1, str(etc))
        for theirs, ours in (("listener 1\n", "listener {port} 127.0.0.1\n"), ("/var/lib/mosquitto", str(etc))):
            assert theirs in conf
            conf = conf.replace(theirs, ours)
        return Mosquitto(etc, [*conf.splitlines(), *AS_ROOT])

    def install(self) -> None:
        """Copy what the broker needs of the authority."""
        there = self.folder / "etc" / "polcad"
        there.mkdir(exist_ok=True)
        pki = self.folder / "pki"
        for source, name in (
            ("ca.crt", "ca.crt"),
            ("ca.crl", "ca.crl"),
            ("issued/broker.localhost.crt", "broker.crt"),
            ("issued/broker.localhost.key", "broker.key"),
        ):
            (there / name).write_bytes((pki / source).read_bytes())


def secure(folder: Path, rows: Sequence[Inventory], *more: str) -> Secured:
    """An authority that has issued what these rows need, and to the identities `more`."""
    authority = create(folder / "pki", "test", 2.0)
    authority.issue("broker.localhost", 1.0, ["localhost", "127.0.0.1"])
    for name in (*rights(rows), WITNESS, *more):
        authority.issue(name, 1.0)
    return Secured(folder, authority, rows)
