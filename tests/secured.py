"""A broker secured as operators secure one: certificates by `polcad.pki`, and what `polcad broker-config` writes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from polcad.access import Inventory, rights
from polcad.broker_config import ACL, mosquitto_acl, mosquitto_conf
from polcad.broker_spec import TlsSpec
from polcad.nats_config import USERS, nats_files
from polcad.pki import Authority, create
from polcad.testing_brokers import Mosquitto
from polcad.testing_nats import NatsCluster, NatsServer
from tests.brokers import replaced

WITNESS = "witness"  # hears all, also what nobody should have been able to say; and may say all
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
        (etc / ACL).write_text(f"{mosquitto_acl(self.rows)}\nuser {WITNESS}\ntopic readwrite #\ntopic read $SYS/#\n")
        self.install()
        conf = replaced(
            mosquitto_conf(1, str(etc)),
            ("listener 1\n", "listener {port} 127.0.0.1\n"),
            ("/var/lib/mosquitto", str(etc)),
        )
        return Mosquitto(etc, [*conf.splitlines(), *AS_ROOT])

    def nats(self, pins: Iterable[str] = ()) -> NatsServer:
        """nats-server alone with the files that operators get, on ports and in folders of ours."""
        conf = self._nats_conf(("localhost",), pins)
        return NatsServer(self.folder / "etc", conf, tls=self.tls(WITNESS))

    def cluster(self) -> NatsCluster:
        """Three, as a cluster."""
        conf = self._nats_conf(("a.example", "b.example", "c.example"))
        routes = ", ".join(f'"nats://{each}.example:6222"' for each in "abc")
        return NatsCluster(
            self.folder / "etc",
            replaced(conf, (routes, "$routes"), ("0.0.0.0:6222", "127.0.0.1:$route_port")),
            self.tls(WITNESS),
        )

    def _nats_conf(self, hosts: Sequence[str], pins: Iterable[str] = ()) -> str:
        """The configuration of a node, as a template for ports and folders of ours; the access list is written."""
        etc = self.folder / "etc"
        etc.mkdir(exist_ok=True)
        self.install()
        files = nats_files(self.rows, hosts, port=1, etc=str(etc), pins=pins)
        witness = f'\n    {{ user: "{WITNESS}", permissions: {{ publish: ">", subscribe: ">" }} }}\n  ]\n}}'
        (etc / USERS).write_text(replaced(files[USERS], ("\n  ]\n}", witness)))
        return replaced(
            files[f"{hosts[0]}.conf"],
            (f'server_name: "{hosts[0]}"', "server_name: $name"),
            ("0.0.0.0:4222", "127.0.0.1:$port"),
            ("127.0.0.1:8222", "127.0.0.1:$monitor_port"),
            ("/var/lib/nats", "$store"),
            ('0.0.0.0:1"', '127.0.0.1:$mqtt_port"'),
        )

    def install(self) -> None:
        """Copy what the broker needs of the authority."""
        there = self.folder / "etc" / "polcad"
        there.mkdir(parents=True, exist_ok=True)
        pki = self.folder / "pki"
        for source, name in (
            ("ca.crt", "ca.crt"),
            ("ca.crl", "ca.crl"),
            ("issued/broker.localhost.crt", "broker.crt"),
            ("issued/broker.localhost.key", "broker.key"),
        ):
            (there / name).write_bytes((pki / source).read_bytes())


def secure(folder: Path, rows: Sequence[Inventory], *more: str, cluster: bool = False) -> Secured:
    """An authority that has issued what these rows need, and to the identities `more`; its broker may be a cluster."""
    authority = create(folder / "pki", "test", 2.0)
    authority.issue("broker.localhost", 1.0, ["localhost", "127.0.0.1"], cluster=cluster)
    for name in (*rights(rows), WITNESS, *more):
        authority.issue(name, 1.0)
    return Secured(folder, authority, rows)
