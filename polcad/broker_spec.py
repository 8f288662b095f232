"""How to reach the broker: what an operator writes under ``[broker]``, or as one URL on a command line.

A password stands in a file or is a credential of the service manager, never in the configuration, a URL, the
environment, a log line or an error's text. A server certificate is always checked: there is no option to skip it.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Annotated
from urllib.parse import SplitResult, unquote, urlsplit

from polcad.errors import ConfigError
from polcad.model import Items, Range, Text
from polcad.secret_files import FilePath, path_of, read_secret

PASSWORD_VARIABLE = "POLCAD_BROKER_PASSWORD_FILE"  # noqa: S105  # the name of a variable that names a file
Host = Annotated[str, Text(261)]
_PORTS = {"mqtt": 1883, "mqtts": 8883}


class Protocol(StrEnum):
    """The version of MQTT. 3.1.1 is spoken by all brokers; 5 lets a late plan expire on its way."""

    V311 = "3.1.1"
    V5 = "5"


@dataclass(frozen=True, slots=True)
class TlsSpec:
    """TLS to the broker: the CA that signed its certificate ("": the system's), and our certificate, if asked for."""

    ca: FilePath = ""
    cert: FilePath = ""
    key: FilePath = ""  # credential:NAME, here as for each file, is one that systemd hands over

    def context(self, environ: Mapping[str, str] = os.environ, section: str = "broker") -> ssl.SSLContext:
        """The TLS settings with the files loaded; ConfigError names the file, by its section, that cannot be."""
        ca, cert, key = (
            str(path_of(written, f"{section}.tls.{name}", environ)) if written else None
            for name, written in (("ca", self.ca), ("cert", self.cert), ("key", self.key))
        )
        try:
            context = ssl.create_default_context(cafile=ca)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"{section}.tls.ca={self.ca!r} cannot be read: {error}") from None
        if cert or key:
            try:
                context.load_cert_chain(cert or "", key)
            except (OSError, ssl.SSLError) as error:
                place = f"{section}.tls.cert={self.cert!r}, key={self.key!r}"
                raise ConfigError(f"{place} cannot be read: {error}") from None
        return context


@dataclass(frozen=True, slots=True)
class BrokerSpec:
    """One broker, which may be a cluster of many nodes, and how to speak to it.

    A client of a cluster takes any node that lets it in, in an order of its own, and the next one when that is gone.
    `keepalive_s` bounds how long a dead connection goes unnoticed (a broker speaks the last will after 1.5 times it);
    `connect_timeout_s` is how long any answer may take; `retry_max_s` the longest wait between two tries to connect.
    """

    host: Annotated[str, Text(255)] = "127.0.0.1"
    port: Annotated[int, Range(1, 65535)] = 1883
    more_hosts: Annotated[tuple[Host, ...], Items(31)] = ()  # the other nodes of a cluster, as HOST or HOST:PORT
    user: Annotated[str, Text(128)] = ""
    password_file: FilePath = ""
    protocol: Protocol = Protocol.V311
    tls: TlsSpec | None = None
    client_id_prefix: Annotated[str, Text(64)] = "polcad-"
    keepalive_s: Annotated[int, Range(1, 3600)] = 10
    connect_timeout_s: Annotated[float, Range(0.1, 300.0)] = 5.0
    retry_max_s: Annotated[float, Range(0.1, 3600.0)] = 10.0

    @classmethod
    def parse(cls, url: str) -> BrokerSpec:
        """The spec in ``mqtt[s]://[user@]host[:port]``; ConfigError when it is none, or carries a password."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise ConfigError(f"broker URL: {error}") from None
        _check(parts)
        return cls(
            host=parts.hostname or "",
            port=port or _PORTS[parts.scheme],
            user=unquote(parts.username or ""),
            tls=TlsSpec() if parts.scheme == "mqtts" else None,
        )

    def __post_init__(self) -> None:
        """Refuse what is no address of a node; ConfigError."""
        self.nodes()

    def nodes(self) -> tuple[BrokerSpec, ...]:
        """One spec for each node of a cluster, any of which will do; a broker that is no cluster is one node."""
        if not self.more_hosts:
            return (self,)
        alone = replace(self, more_hosts=())
        others = (_address(written) for written in self.more_hosts)
        return (alone, *(replace(alone, host=host, port=port or self.port) for host, port in others))

    @property
    def url(self) -> str:
        """The spec for people to read: nothing secret in it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        user = f"{self.user}@" if self.user else ""
        return f"{'mqtts' if self.tls else 'mqtt'}://{user}{host}:{self.port}"

    def password(self, environ: Mapping[str, str]) -> str | None:
        """The password in the file that the environment names, else the setting. ConfigError when it cannot be read."""
        key, written = "broker.password_file", self.password_file
        if PASSWORD_VARIABLE in environ:
            key, written = PASSWORD_VARIABLE, environ[PASSWORD_VARIABLE]
        if not written:
            return None
        try:
            return read_secret(written, key, environ).decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError:
            raise ConfigError(f"{key}={written!r} cannot be read: it is not text") from None

    def check(self) -> None:
        """ConfigError when a file that a connection needs cannot be read."""
        self.password(os.environ)
        if self.tls is not None:
            self.tls.context()


def _address(written: str) -> tuple[str, int | None]:
    """The host and port in ``HOST[:PORT]``; ConfigError when it is none."""
    try:
        parts = urlsplit(f"//{written}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or parts.netloc != written or "@" in written or port == 0:
        raise ConfigError(f"more_hosts: {written!r} is no address of a node: write HOST or HOST:PORT")
    return host, port


def _check(parts: SplitResult) -> None:
    """Refuse a URL that is not one of a broker; the text never repeats a password."""
    if parts.password is not None:
        raise ConfigError(f"broker URL: no password in it, please: use password_file or {PASSWORD_VARIABLE}")
    if parts.scheme not in _PORTS or not parts.hostname or parts.path not in {"", "/"} or parts.query or parts.fragment:
        raise ConfigError(f"broker URL {parts.geturl()!r}: write mqtt://[user@]host[:port], or mqtts:// for TLS")
