"""Signed plans: whoever can publish a plan can slow a row down, and with a signature only the daemon's key can.

A signature is the last member of the plan's JSON, so an agent that checks none reads the plan as before. It is Ed25519
over the topic, a line feed, and the payload as it was without that member: over the bytes themselves, so that no two
programs need to write JSON alike, and over the topic, so that a plan of one site is nothing at another. An old plan is
told by its sequence (`polcad.lease`) and, after a restart, by its time.

`sign` and `verify` are pure functions over bytes; keys are raw, of 32 bytes. Who uses neither imports no cryptography.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from polcad.errors import ConfigError, WireError
from polcad.model import Plan, Range
from polcad.secret_files import FilePath, read_secret
from polcad.wire import Message, decode

FIELD = "signature"
_SIGNED = re.compile(rb',"signature":"([A-Za-z0-9+/]{86}==)"\}')
_LENGTH = len(',"signature":""}') + 88
_PEM = re.compile(rb"-----BEGIN PUBLIC KEY-----[^-]+-----END PUBLIC KEY-----")


def sign(topic: str, payload: bytes, private_key: bytes) -> bytes:
    """The payload, a JSON object that is not empty, with its signature as the last member."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415  # only who signs

    signature = Ed25519PrivateKey.from_private_bytes(private_key).sign(_covered(topic, payload))
    return payload[:-1] + b',"signature":"' + base64.b64encode(signature) + b'"}'


def verify(topic: str, payload: bytes, public_keys: Sequence[bytes]) -> None:
    """WireError unless one of these keys signed just this, for this topic."""
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415  # only who checks
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415

    found = _SIGNED.fullmatch(payload[-_LENGTH:])
    if found is None:
        raise WireError(f"{topic}: it is not signed, and a signature is asked for")
    covered = _covered(topic, payload[:-_LENGTH] + b"}")
    for key in public_keys:
        try:
            Ed25519PublicKey.from_public_bytes(key).verify(base64.b64decode(found[1]), covered)
        except InvalidSignature:
            continue
        return
    raise WireError(f"{topic}: its signature is by no key that is trusted here")


def _covered(topic: str, payload: bytes) -> bytes:
    return topic.encode() + b"\n" + payload


@dataclass(frozen=True, slots=True)
class Trust:
    """Whose plans a node follows, and how far their time may be from the node's own."""

    public_keys: tuple[bytes, ...]
    max_age_s: float

    def plan(self, topic: str, payload: bytes, now_t: float) -> Plan:
        """The plan in a payload that nobody has looked at yet; WireError unless it is to be followed."""
        verify(topic, payload, self.public_keys)
        _, noun = decode(Message(topic, payload))
        if not isinstance(noun, Plan):
            raise WireError(f"{topic}: not a plan")
        self._check_age(topic, noun.t, now_t)
        return noun

    def check(self, topic: str, payload: bytes, said_t: float, now_t: float) -> None:
        """WireError unless a trusted key signed this payload, which says `said_t`, about now (Unix time, s)."""
        verify(topic, payload, self.public_keys)
        self._check_age(topic, said_t, now_t)

    def _check_age(self, topic: str, said_t: float, now_t: float) -> None:
        if abs(now_t - said_t) > self.max_age_s:
            raise WireError(
                f"{topic}: by this clock it was signed {now_t - said_t:.0f} s ago, and {self.max_age_s:g} s are let "
                "pass: it is replayed, or a clock is wrong"
            )


@dataclass(frozen=True, slots=True)
class SigningSpec:
    """Signed plans: the daemon signs where it has a key, and an agent that trusts a key follows nothing else."""

    key_file: FilePath = ""  # daemon: a private key of `polcad pki plan-key`, or credential:NAME; "": signs nothing
    trusted_file: FilePath = ""  # agent: keys of daemons, row under a site: of the site, in one file; "": looks at none
    max_age_s: Annotated[float, Range(1.0, 3600.0)] = 60.0  # agent: between a plan's time and its own clock, at most

    def signer(self, environ: Mapping[str, str] = os.environ) -> Signer | None:
        """What signs, None where nothing is to be signed; ConfigError for a key that cannot be used."""
        if not self.key_file:
            return None
        pem = read_secret(self.key_file, "signing.key_file", environ)
        return Signer(_private_key(pem, self.key_file))

    def trust(self, environ: Mapping[str, str] = os.environ) -> Trust | None:
        """Whom plans must be signed by, None where anyone may plan; ConfigError for keys that cannot be used."""
        if not self.trusted_file:
            return None
        blocks = _PEM.findall(read_secret(self.trusted_file, "signing.trusted_file", environ))
        if not blocks:
            raise ConfigError(f"signing.trusted_file={self.trusted_file!r} holds no public key in PEM")
        return Trust(tuple(_public_key(block, self.trusted_file) for block in blocks), self.max_age_s)


class Signer:
    """Signs with one private key, which it does not show."""

    def __init__(self, private_key: bytes) -> None:
        self._key = private_key

    def signed(self, message: Message) -> Message:
        """The message with its payload signed for its topic."""
        return message._replace(payload=sign(message.topic, message.payload, self._key))


def _private_key(pem: bytes, place: str) -> bytes:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415  # only who signs
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

    key = _loaded(lambda: load_pem_private_key(pem, password=None), "signing.key_file", place)
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"signing.key_file={place!r} is no Ed25519 key: make one by `polcad pki plan-key`")
    return key.private_bytes_raw()


def _public_key(pem: bytes, place: str) -> bytes:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415  # only who checks
    from cryptography.hazmat.primitives.serialization import load_pem_public_key  # noqa: PLC0415

    key = _loaded(lambda: load_pem_public_key(pem), "signing.trusted_file", place)
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError(f"signing.trusted_file={place!r} holds a key that is not Ed25519")
    return key.public_bytes_raw()


def _loaded(load: Any, key: str, place: str) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415

    try:
        return load()
    except (ValueError, TypeError, UnsupportedAlgorithm):  # its text may show what is in the file
        raise ConfigError(f"{key}={place!r} cannot be used: it is no unencrypted key in PEM") from None
