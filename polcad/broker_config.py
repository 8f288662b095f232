"""Mosquitto's configuration and access list, written from the inventory; ``docs/broker`` holds those of the example.

Clients prove who they are by certificates, whose common names are the identities of `polcad.access`.
"""

from __future__ import annotations

from collections.abc import Iterable

from polcad.access import Inventory, Right, rights
from polcad.wire import MAX_PAYLOAD_BYTES

CONF, ACL = "polcad.conf", "polcad.acl"
_CONF = """\
# Mosquitto 2 for polcad, written by `polcad broker-config`: write it again rather than change it.
# On the broker's host it is {etc}/conf.d/{conf}, beside {etc}/{acl} and the certificates of `polcad pki`.

# TLS for everyone, and a certificate of everyone: its common name is the client's name in {acl}.
listener {port}
cafile {etc}/polcad/ca.crt
certfile {etc}/polcad/broker.crt
keyfile {etc}/polcad/broker.key
crlfile {etc}/polcad/ca.crl
require_certificate true
use_identity_as_username true

# Nobody without a name, and each name only what {acl} lets it.
allow_anonymous false
acl_file {etc}/{acl}

# Without it, each small message may wait 40 ms for the one before it to be acknowledged.
set_tcp_nodelay true

# The largest payload that polcad believes. A larger message is not even passed on.
message_size_limit {payload_bytes}

# Placements, holds and states are retained: they must survive a restart.
persistence true
persistence_location /var/lib/mosquitto/
autosave_interval 60

# For a daemon that falls behind: telemetry is for now, so little of it waits (QoS 0 does not wait at all).
max_queued_messages 1000
max_keepalive 120
"""
_ACL_HEAD = """\
# Who may say and hear what, written by `polcad broker-config` from the inventory: write it again when that changes,
# and send Mosquitto a SIGHUP. What is not listed is denied.
"""


def mosquitto_files(rows: Iterable[Inventory], *, port: int = 8883, etc: str = "/etc/mosquitto") -> dict[str, str]:
    """By file name, configuration and access list; ConfigError where two clients would share an identity."""
    return {CONF: mosquitto_conf(port, etc), ACL: mosquitto_acl(rows)}


def mosquitto_conf(port: int = 8883, etc: str = "/etc/mosquitto") -> str:
    """The configuration; `etc` is Mosquitto's folder on the broker's host."""
    return _CONF.format(port=port, etc=etc, conf=CONF, acl=ACL, payload_bytes=MAX_PAYLOAD_BYTES)


def mosquitto_acl(rows: Iterable[Inventory]) -> str:
    """The access list for these rows; ConfigError where two of them would share an identity."""
    blocks = [f"user {name}\n" + "".join(map(_line, granted)) for name, granted in rights(rows).items()]
    return "\n".join([_ACL_HEAD, *blocks])


def _line(right: Right) -> str:
    access = "readwrite" if right.read and right.write else "read" if right.read else "write"
    return f"topic {access} {right.topic}\n"
