"""How to reach the broker: what an operator writes under ``[broker]``, or as one URL on a command line.

A password stands in a file (or in the environment variable POLCAD_BROKER_PASSWORD), never in the configuration, a URL,
a log line or an error's text. A server certificate is always checked: there is no option to skip it.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated
from urllib.parse import SplitResult, unquote, urlsplit

from polcad.errors import ConfigError
from polcad.model import Range, Text

PASSWORD_VARIABLE = "POLCAD_BROKER_PASSWORD"  # noqa: S105  # the name of a variable, not a secret
_PORTS = {"mqtt": 1883, "mqtts": 8883}

FilePath = Annotated[str, Text(4096)]


class Protocol(StrEnum):
    """The version of MQTT. 3.1.1 is spoken by all brokers; 5 lets a late plan expire on its way."""

    V311 = "3.1.1"
    V5 = "5"


@dataclass(frozen=True, slots=True)
class TlsSpec:
    """TLS to the broker: the CA that signed its certificate ("": the system's), and our certificate, if asked for."""

    ca: FilePath = ""
    cert: FilePath = ""
    key: FilePath = ""

    def context(self) -> ssl.SSLContext:
        """The TLS settings with the files loaded; ConfigError names the file that cannot be."""
        try:
            context = ssl.create_default_context(cafile=self.ca or None)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"broker.tls.ca={self.ca!r} cannot be read: {error}") from None
        if self.cert or self.key:
            try:
                context.load_cert_chain(self.cert, self.key or None)
            except (OSError, ssl.SSLError) as error:
                raise ConfigError(f"broker.tls.cert={self.cert!r}, key={self.key!r} cannot be read: {error}") from None
        return context


@dataclass(frozen=True, slots=True)
class BrokerSpec:
    """One broker and how to speak to it.

    `keepalive_s` bounds how long a dead connection goes unnoticed (a broker speaks the last will after 1.5 times it);
    `connect_timeout_s` is how long any answer may take; `retry_max_s` the longest wait between two tries to connect.
    """

    host: Annotated[str, Text(255)] = "127.0.0.1"
    port: Annotated[int, Range(1, 65535)] = 1883
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

    @property
    def url(self) -> str:
        """The spec for people to read: nothing secret in it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        user = f"{self.user}@" if self.user else ""
        return f"{'mqtts' if self.tls else 'mqtt'}://{user}{host}:{self.port}"

    def password(self, environ: Mapping[str, str]) -> str | None:
        """The password in force: of the environment, else of the file. ConfigError when the file cannot be read."""
        if PASSWORD_VARIABLE in environ:
            return environ[PASSWORD_VARIABLE]
        if not self.password_file:
            return None
        try:
            return Path(self.password_file).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text"
            raise ConfigError(f"broker.password_file={self.password_file!r} cannot be read: {reason}") from None


def _check(parts: SplitResult) -> None:
    """Refuse a URL that is not one of a broker; the text never repeats a password."""
    if parts.password is not None:
        raise ConfigError(f"broker URL: no password in it, please: use password_file or {PASSWORD_VARIABLE}")
    if parts.scheme not in _PORTS or not parts.hostname or parts.path not in {"", "/"} or parts.query or parts.fragment:
        raise ConfigError(f"broker URL {parts.geturl()!r}: write mqtt://[user@]host[:port], or mqtts:// for TLS")
