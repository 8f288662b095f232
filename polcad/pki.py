"""A small certificate authority, for those who have none: one folder with its key, and a certificate an identity.

* A client's certificate proves its identity (`polcad.access`) as common name and as DNS name, and only as a client:
  a stolen one cannot pose as the broker. The broker's is for servers only, but for nodes of a cluster: each comes to
  the others as a client.
* Keys are P-256, readable by their owner alone. The authority's own key is needed to issue, renew and revoke, nowhere
  else: keep the folder off the nodes and off the broker's host.
* A name has one key. A renewed certificate is for the same one, so only the certificate travels; the earlier ones are
  kept in mind, for whoever stole the key may use any of them. What is revoked is listed in ``ca.crl``.

``FOLDER/ca.crt ca.key ca.crl``, ``issued/NAME.crt NAME.key``, ``renewed/SERIAL.crt``, ``revoked/SERIAL.crt``.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from polcad.errors import ConfigError
from polcad.secret_files import write_file

_PRIVATE = 0o600
_EARLY = timedelta(minutes=5)  # for clients whose clock is a little behind


@dataclass(frozen=True, slots=True)
class Issued:
    """One certificate."""

    name: str
    path: Path
    ends: datetime
    hosts: tuple[str, ...] = ()  # of a server; () of a client

    def days_left(self, now: datetime) -> float:
        """Days until it expires; negative once it has."""
        return (self.ends - now) / timedelta(days=1)


def read_certificate(path: Path) -> Issued:
    """What a certificate file says; ConfigError when it is none. OSError when it cannot be read."""
    return _described(path, _certificate(path))


def create(folder: Path, name: str, days: float) -> Authority:
    """A new authority; ConfigError where there is one."""
    if (folder / "ca.key").exists():
        raise ConfigError(f"{folder} holds an authority already: issue from it, or choose another folder")
    for part in (folder, *(folder / name for name in ("issued", "renewed", "revoked"))):
        part.mkdir(mode=0o700, parents=True, exist_ok=True)
    key, subject = _new_key(), _name(name)
    certificate = (
        _builder(subject, subject, key.public_key(), days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(sign_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    write_file(folder / "ca.key", _pem(key), _PRIVATE)
    write_file(folder / "ca.crt", certificate.public_bytes(Encoding.PEM))
    authority = Authority(folder)
    authority.write_crl()
    return authority


class Authority:
    """The authority of a folder; ConfigError when there is none, or it cannot be used."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            self._certificate = _certificate(folder / "ca.crt")
            key = load_pem_private_key((folder / "ca.key").read_bytes(), password=None)
        except (OSError, ValueError, TypeError) as error:
            raise ConfigError(f"{folder}: no authority here that can be used ({error}): `polcad pki init`") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ConfigError(f"{folder / 'ca.key'}: not a key of `polcad pki init`")
        self._key = key

    def issue(self, name: str, days: float, hosts: Sequence[str] = (), *, cluster: bool = False) -> Issued:
        """A new key and certificate: of the client `name`, or of the server at `hosts`, or of all nodes of a `cluster`.

        ConfigError where the name has one: its key would stay good with nobody to remember it.
        """
        if self._path(name, "crt").exists():
            raise ConfigError(f"{self._path(name, 'crt')} is there: `polcad pki renew` it, or `revoke` it first")
        key = _new_key()
        certificate = self._certified(name, key.public_key(), days, hosts, cluster=cluster)
        write_file(self._path(name, "key"), _pem(key), _PRIVATE)
        return self._keep(name, certificate)

    def renew(self, name: str, days: float) -> Issued:
        """A new certificate for the key and the identity of an earlier one; ConfigError where there is none."""
        old = self._of(name)
        key = old.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise ConfigError(f"{self._path(name, 'crt')}: not a certificate of `polcad pki issue`")
        self._put("renewed", old)
        cluster = ExtendedKeyUsageOID.CLIENT_AUTH in _uses(old)
        return self._keep(name, self._certified(name, key, days, _hosts(old), cluster=cluster))

    def revoke(self, name: str) -> None:
        """List all certificates of the name as revoked, and forget its key; ConfigError where there is none."""
        self._put("revoked", self._of(name))
        for path in (self._folder / "renewed").glob("*.crt"):
            if read_certificate(path).name == name:
                path.replace(self._folder / "revoked" / path.name)
        self.write_crl()
        for ending in ("crt", "key"):
            self._path(name, ending).unlink(missing_ok=True)

    def issued(self) -> list[Issued]:
        """All certificates in use, the authority's own first, then by name."""
        paths = [self._folder / "ca.crt", *sorted((self._folder / "issued").glob("*.crt"))]
        return [read_certificate(path) for path in paths]

    def pins(self) -> list[str]:
        """The SHA-256 of every public key in use, in hexadecimal: for a broker that reads no revocation lists."""
        keys = (_certificate(each.path).public_key() for each in self.issued()[1:])
        return [sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest() for key in keys]

    def write_crl(self) -> None:
        """List what is revoked. The list lasts as long as the authority: an old one would shut everybody out."""
        now = datetime.now(UTC)
        listed = (
            x509.CertificateRevocationListBuilder(self._certificate.subject)
            .last_update(now - _EARLY)
            .next_update(self._certificate.not_valid_after_utc)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        for path in sorted((self._folder / "revoked").glob("*.crt")):
            serial = _certificate(path).serial_number
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now)
            listed = listed.add_revoked_certificate(entry.build())
        crl = listed.sign(self._key, hashes.SHA256())
        write_file(self._folder / "ca.crl", crl.public_bytes(Encoding.PEM))

    def _certified(
        self, name: str, key: ec.EllipticCurvePublicKey, days: float, hosts: Sequence[str], *, cluster: bool
    ) -> x509.Certificate:
        left = (self._certificate.not_valid_after_utc - datetime.now(UTC)) / timedelta(days=1)
        purposes = [ExtendedKeyUsageOID.SERVER_AUTH] if hosts else []
        if cluster or not hosts:
            purposes.append(ExtendedKeyUsageOID.CLIENT_AUTH)
        return (
            _builder(_name(name), self._certificate.subject, key, min(days, left))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(sign_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
            .add_extension(x509.SubjectAlternativeName(_alternatives(hosts or [name])), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )

    def _keep(self, name: str, certificate: x509.Certificate) -> Issued:
        path = self._path(name, "crt")
        write_file(path, certificate.public_bytes(Encoding.PEM))
        return _described(path, certificate)

    def _put(self, part: str, certificate: x509.Certificate) -> None:
        path = self._folder / part / f"{certificate.serial_number:x}.crt"
        write_file(path, certificate.public_bytes(Encoding.PEM))

    def _of(self, name: str) -> x509.Certificate:
        path = self._path(name, "crt")
        if not path.exists():
            raise ConfigError(f"{path}: there is no certificate of {name!r}: `polcad pki list` shows those there are")
        return _certificate(path)

    def _path(self, name: str, ending: str) -> Path:
        return self._folder / "issued" / f"{name}.{ending}"


def make_plan_key(folder: Path, row: str) -> tuple[Path, Path]:
    """A key to sign a row's plans with, and its public half; ConfigError rather than replace one."""
    private, public = folder / f"plan-{row}.key", folder / f"plan-{row}.pub"
    if private.exists():
        raise ConfigError(f"{private} is there already: nodes would refuse the plans of another key")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = ed25519.Ed25519PrivateKey.generate()
    write_file(private, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), _PRIVATE)
    write_file(public, key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: float
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder(issuer, subject, key, x509.random_serial_number())
        .not_valid_before(now - _EARLY)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _alternatives(hosts: Iterable[str]) -> Iterable[x509.GeneralName]:
    for host in hosts:
        try:
            yield x509.IPAddress(ipaddress.ip_address(host))
        except ValueError:
            yield x509.DNSName(host)


def _described(path: Path, certificate: x509.Certificate) -> Issued:
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    name = str(names[0].value) if names else ""
    return Issued(name, path, certificate.not_valid_after_utc, tuple(_hosts(certificate)))


def _hosts(certificate: x509.Certificate) -> list[str]:
    """The hosts of a server's certificate; none of a client's or an authority's."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [str(name.value) for name in names] if ExtendedKeyUsageOID.SERVER_AUTH in _uses(certificate) else []


def _uses(certificate: x509.Certificate) -> list[x509.ObjectIdentifier]:
    """What it may be used for; nothing where that is not said."""
    try:
        return list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound:
        return []


def _certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except ValueError:
        raise ConfigError(f"{path}: not a certificate in PEM") from None


def _name(common: str) -> x509.Name:
    try:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])
    except ValueError as error:  # X.509 has room for 64 characters
        raise ConfigError(f"{common!r} cannot stand in a certificate: {error}") from None


def _new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
