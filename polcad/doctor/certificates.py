"""Certificates and keys: whose they are, who may read them, and how long they last."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from polcad.broker_spec import BrokerSpec, TlsSpec
from polcad.doctor.check import Check, State
from polcad.errors import ConfigError
from polcad.secret_files import open_to_others, path_of
from polcad.signing import SigningSpec

SOON_DAYS = 30.0
_RENEW = "`polcad pki renew`, and copy the new certificate here; it is taken at the next connection"


def check_files(tls: TlsSpec | None, me: str) -> Iterator[Check]:
    """The authority's certificate and ours, which should be called `me`."""
    if tls is None:
        yield Check("tls", State.WARN, "the broker is spoken to in the clear", "set [broker.tls]: docs/security.md")
        return
    for name, written in (("ca", tls.ca), ("cert", tls.cert)):
        if written:
            yield _file(f"broker.tls.{name}", written, me if name == "cert" else "")
    if tls.key:
        yield _secret("broker.tls.key", tls.key)


def check_signing(spec: SigningSpec) -> Iterator[Check]:
    """The keys that plans are signed and checked with."""
    if spec.key_file:
        yield _secret("signing.key_file", spec.key_file)
    try:
        spec.signer(), spec.trust()
    except ConfigError as error:
        yield Check("signing", State.FAIL, str(error), "`polcad pki plan-key` makes a pair of keys", 78)


def check_server(spec: BrokerSpec) -> Iterator[Check]:
    """How long the broker's own certificate lasts, as it shows it."""
    if spec.tls is None:
        return
    address, wait_s = (spec.host, spec.port), spec.connect_timeout_s
    try:
        context = spec.tls.context()
        with (
            socket.create_connection(address, wait_s) as plain,
            context.wrap_socket(plain, server_hostname=spec.host) as shown,
        ):
            ends = ssl.cert_time_to_seconds(str((shown.getpeercert() or {}).get("notAfter")))
    except (OSError, ConfigError, ValueError) as error:
        yield Check("broker's certificate", State.WARN, str(error), "renew the broker's certificate")
        return
    yield _lasting("broker's certificate", spec.url, (ends - time.time()) / 86400, "renew it on the broker's host")


def _file(key: str, written: str, me: str) -> Check:
    from polcad.pki import read_certificate  # noqa: PLC0415  # cryptography, only where there is a certificate

    try:
        found = read_certificate(path_of(written, key))
    except (OSError, ConfigError) as error:
        return Check(key, State.FAIL, str(error), "`polcad pki` makes certificates", 78)
    days = found.days_left(datetime.now(UTC))
    if days > 0 and me and found.name != me:
        detail = f"{written} is of {found.name!r}, and this is {me!r}"
        return Check(
            key, State.WARN, detail, f"`polcad pki issue` one to {me}, unless your broker knows it by another name"
        )
    return _lasting(key, f"{written}, of {found.name!r}", days, _RENEW)


def _lasting(key: str, what: str, days: float, remedy: str) -> Check:
    if days <= 0:
        return Check(key, State.FAIL, f"{what}: expired {-days:.0f} days ago", remedy, 78)
    if days < SOON_DAYS:
        return Check(key, State.WARN, f"{what}: expires in {days:.0f} days", remedy)
    return Check(key, State.OK, f"{what}: {days:.0f} days left")


def _secret(key: str, written: str) -> Check:
    try:
        path: Path = path_of(written, key)
        exposed = open_to_others(path)
    except (OSError, ConfigError) as error:
        return Check(key, State.FAIL, str(error), "put the key there, readable for this service", 78)
    if exposed:
        return Check(key, State.WARN, f"{path}: others may read or write it", f"chmod 600 {path}")
    return Check(key, State.OK, f"{path} is kept from others")
