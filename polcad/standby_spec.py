"""What an operator writes under ``[standby]``. Secrets stand in files, and never in a URL."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlsplit

from polcad.broker_spec import TlsSpec
from polcad.errors import ConfigError
from polcad.model import Items, Name, Range, Text
from polcad.secret_files import FilePath, read_secret


@dataclass(frozen=True, slots=True)
class StandbySpec:
    """Two or more daemons for one row, or one site: one leads, the others wait; a lock in NATS JetStream says who may.

    Each has the same section; without servers, a daemon has its row or site to itself. See docs/standby.md.
    """

    servers: Annotated[tuple[Annotated[str, Text(512)], ...], Items(16)] = ()  # nats://host:4222, or tls://host:4222
    user: Annotated[str, Text(128)] = ""
    password_file: FilePath = ""
    tls: TlsSpec | None = None
    bucket: Name = "polcad"  # of the key-value store; made where it is missing, and may serve all rows of all sites
    replicas: Annotated[int, Range(1, 5)] = 1  # of the bucket where it is made: 3 in a cluster of three
    host: Name | None = None  # who leads, for people; left out: this host's name up to the first dot, in lower case
    ttl_s: Annotated[float, Range(0.5, 600.0)] | None = None  # of silence, then another may lead; left out: the lease

    def __post_init__(self) -> None:
        """ConfigError for a server that is no URL of NATS, or holds a password."""
        for server in self.servers:
            _check_url(server)

    def password(self, environ: Mapping[str, str] = os.environ) -> str | None:
        """The password; ConfigError when it cannot be read."""
        if not self.password_file:
            return None
        key = "standby.password_file"
        try:
            return read_secret(self.password_file, key, environ).decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError:
            raise ConfigError(f"{key}={self.password_file!r} cannot be read: it is not text") from None

    def check(self) -> None:
        """ConfigError when a file that a connection needs cannot be read."""
        self.password()
        if self.tls is not None:
            self.tls.context(section="standby")


def _check_url(server: str) -> None:
    try:
        parts = urlsplit(server)
        known = parts.scheme in {"nats", "tls"} and bool(parts.hostname) and (parts.port or 0) >= 0
    except ValueError as error:
        raise ConfigError(f"one of servers is no URL: {error}") from None
    if "@" in parts.netloc:
        raise ConfigError("no user or password in the URLs of servers, please: use user and password_file")
    if not known or parts.path not in {"", "/"} or parts.query or parts.fragment:
        raise ConfigError(f"one of servers is {server!r}: write nats://host[:port], or tls:// for TLS")
