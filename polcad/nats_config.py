"""nats-server's configuration and access list, written from the inventory; ``docs/broker`` holds those of the example.

Clients prove who they are by certificates, whose DNS names are the identities of `polcad.access`. What MQTT calls
``a/+/b/#`` is ``a.*.b.>`` here. As nats-server 2.9.10 does it:

* It asks for the right to publish with every message, last wills and retained ones too; an empty list is no list.
* It grants a subscription only if all of it is allowed: a right to hear ``a/b`` grants ``a/b``, and refuses ``a/+``.
* A subscription at QoS 1 also needs ``$MQTT.sub.>``, on which its messages come from JetStream. No client of MQTT can
  subscribe to that by itself; a client of NATS could, and hear what is brought to others.
* It knows no revocation lists, but pinned keys.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from textwrap import indent

from polcad.access import Inventory, Right, locks, rights
from polcad.errors import ConfigError
from polcad.standby_spec import StandbySpec
from polcad.wire import MAX_PAYLOAD_BYTES

CONF, USERS = "nats-server.conf", "nats-users.conf"
FEWEST_NODES = 3  # of a cluster: of two, neither may be lost
_CONF = """\
# nats-server 2.9 for polcad, written by `polcad broker-config --broker nats`: write it again rather than change it.
# On the node it is {etc}/{conf}, beside {users} and the certificates of `polcad pki`.
server_name: "{name}"
include "{users}"

# For the locks of daemons with a standby alone; everyone else may speak MQTT only.
listen: "0.0.0.0:4222"
{tls}
http: "127.0.0.1:8222"

# For clients of NATS; 2.9 bounds no message of MQTT. polcad skips those that are larger as they arrive.
max_payload: {payload_bytes}

# Retained messages, sessions, and what waits for an acknowledgement.
jetstream {{ store_dir: "/var/lib/nats", max_file_store: 1GB }}

# TLS for everyone, and a certificate of everyone: its DNS name is the client's name in {users}.
mqtt {{
  listen: "0.0.0.0:{port}"
{mqtt_tls}{replicas}
}}
"""
_TLS = """\
tls {{
  ca_file: "{etc}/polcad/ca.crt"
  cert_file: "{etc}/polcad/broker.crt"
  key_file: "{etc}/polcad/broker.key"
  timeout: 10
  {check}
}}"""
_CLUSTER = """
# The nodes among themselves: each shows a certificate for the host of one of these routes.
cluster {{
  name: polcad
  listen: "0.0.0.0:6222"
{tls}
  routes: [{routes}]
}}
"""
_USERS = """\
# Who may say and hear what, written by `polcad broker-config --broker nats` from the inventory: write it again when
# that changes, and send each nats-server a SIGHUP. What is not listed is denied.
authorization {{
  timeout: 10
  users: [
{users}
  ]
}}
"""
_USER = """\
    {{
      user: "{name}"
      allowed_connection_types: {ways}
      permissions: {{
        publish: {publish}
        subscribe: {subscribe}
      }}
    }}"""
_HEAR_AT_QOS_1 = "$MQTT.sub.>"
_BUCKET = StandbySpec().bucket
_HOST = r"(?=.*[a-z])[a-z0-9.-]{1,253}"  # cluster's certificates are looked through for DNS names alone


def nats_files(
    rows: Iterable[Inventory],
    hosts: Sequence[str],
    *,
    port: int = 8883,
    etc: str = "/etc/nats",
    pins: Iterable[str] = (),
) -> dict[str, str]:
    """By file name, the access list for these rows, and for each node at `hosts` its configuration, ``HOST.conf``.

    `hosts` are one server's or a cluster's, `etc` is the folder of these files on a node. With `pins` (SHA-256 of
    public keys, in hexadecimal) nobody is let in with another key. ConfigError for hosts that make no cluster, or where
    two clients would share an identity.
    """
    rows, pins = tuple(rows), sorted(pins)
    _check(hosts, rights(rows))
    confs = {f"{host}.conf": _conf(host, hosts, port, etc, pins) for host in hosts}
    return {USERS: _access(rows, alone=len(hosts) == 1), **confs}


def _check(hosts: Sequence[str], identities: Iterable[str]) -> None:
    if not hosts or 1 < len(hosts) < FEWEST_NODES:
        raise ConfigError(f"{len(hosts)} hosts are no cluster of nats-server: name three, or one that stands alone")
    for host in hosts:
        if not re.fullmatch(_HOST, host):
            raise ConfigError(f"{host!r} is no host of nats-server: write its DNS name, which its certificate holds")
        if host in set(identities):
            raise ConfigError(f"{host!r} is a host of nats-server and a client: its certificate would be a node's")


def _conf(host: str, hosts: Sequence[str], port: int, etc: str, pins: Sequence[str]) -> str:
    alone = len(hosts) == 1
    keys = f"\n  pinned_certs: {_listed(pins, '  ')}" if pins else ""
    tls = _TLS.format(etc=etc, check=f"verify_and_map: true{keys}")
    conf = _CONF.format(
        name=host,
        etc=etc,
        conf=CONF,
        users=USERS,
        tls=tls,
        mqtt_tls=indent(tls, "  "),
        payload_bytes=MAX_PAYLOAD_BYTES,
        port=port,
        replicas="" if alone else f"\n  stream_replicas: {FEWEST_NODES}",
    )
    if alone:
        return conf
    known = _TLS.format(etc=etc, check="verify_cert_and_check_known_urls: true")
    routes = ", ".join(f'"nats://{each}:6222"' for each in hosts)
    return conf + _CLUSTER.format(tls=indent(known, "  "), routes=routes)


def _access(rows: Sequence[Inventory], *, alone: bool) -> str:
    held = locks(rows)
    users = (_user(name, granted, held.get(name, ""), alone=alone) for name, granted in rights(rows).items())
    return _USERS.format(users="\n".join(users))


def _user(name: str, granted: Iterable[Right], lock: str, *, alone: bool) -> str:
    """One client. In a cluster daemons subscribe at QoS 0, so as clients of NATS they hear nothing of other rows."""
    publish = [_subject(each.topic) for each in granted if each.write]
    subscribe = [subject for each in granted if each.read for subject in _subjects(each.topic)]
    if subscribe and (alone or not lock):
        subscribe.append(_HEAR_AT_QOS_1)
    if lock:
        publish += [f"$KV.{_BUCKET}.{lock}", f"$KV.{_BUCKET}.{lock}.looked"]
        publish += [f"$JS.API.STREAM.{each}.KV_{_BUCKET}" for each in ("INFO", "CREATE", "MSG.GET")]
        subscribe.append("_INBOX.>")
    ways = '["MQTT", "STANDARD"]' if lock else '["MQTT"]'
    return _USER.format(name=name, ways=ways, publish=_allowed(publish), subscribe=_allowed(subscribe))


def _allowed(subjects: Sequence[str]) -> str:
    return _listed(subjects, "        ") if subjects else '{ deny: ">" }'


def _listed(texts: Sequence[str], before: str) -> str:
    """A list, one a line."""
    lines = "".join(f'\n{before}  "{text}"' for text in texts)
    return f"[{lines}\n{before}]"


def _subjects(topic: str) -> tuple[str, ...]:
    """What may be heard: ``a/#`` is also ``a``."""
    subject = _subject(topic)
    return (subject, subject.removesuffix(".>")) if subject.endswith(".>") else (subject,)


def _subject(topic: str) -> str:
    return topic.replace("/", ".").replace("+", "*").replace("#", ">")
