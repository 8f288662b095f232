"""Certificates and keys as `polcad pki` makes them."""

import json
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from typer.testing import CliRunner

from polcad.cli import app
from polcad.errors import ConfigError
from polcad.pki import Authority, create, make_plan_key, read_certificate
from polcad.signing import SigningSpec, verify
from polcad.wire import Message

ROW = '[row]\nname = "r1"\nbudget_w = 20000\n[[node]]\nname = "n1"\npool = "chat"\n[[node]]\nname = "n2"\n'
Pki = Callable[..., Any]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    create(tmp_path / "pki", "test", 30.0)
    return tmp_path / "pki"


def certificate(folder: Path, name: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate((folder / "issued" / f"{name}.crt").read_bytes())


def test_a_certificate_is_for_one_identity_and_for_one_side_of_a_connection(folder: Path) -> None:
    authority = Authority(folder)
    node = authority.issue("n1", 7.0)
    authority.issue("broker.mqtt", 7.0, ["mqtt.example", "10.0.0.5", "::1"])
    assert node.name == "n1"
    assert node.days_left(datetime.now(UTC)) == pytest.approx(7.0, abs=0.01)
    for name, use in (("n1", ExtendedKeyUsageOID.CLIENT_AUTH), ("broker.mqtt", ExtendedKeyUsageOID.SERVER_AUTH)):
        found = certificate(folder, name).extensions
        assert list(found.get_extension_for_class(x509.ExtendedKeyUsage).value) == [use]
        assert not found.get_extension_for_class(x509.BasicConstraints).value.ca
    names = certificate(folder, "n1").extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["n1"]
    assert read_certificate(folder / "issued/broker.mqtt.crt").hosts == ("mqtt.example", "10.0.0.5", "::1")


def test_nodes_of_a_cluster_show_their_certificate_as_clients_too_also_once_it_is_renewed(folder: Path) -> None:
    authority = Authority(folder)
    authority.issue("broker.a", 7.0, ["a.example", "b.example"], cluster=True)
    for _ in range(2):
        uses = certificate(folder, "broker.a").extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert set(uses) == {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH}
        assert read_certificate(folder / "issued/broker.a.crt").hosts == ("a.example", "b.example")
        authority.renew("broker.a", 7.0)


def test_keys_are_their_owners_alone(folder: Path) -> None:
    Authority(folder).issue("n1", 7.0)
    make_plan_key(folder, "r1")
    modes = {path.name: path.stat().st_mode & 0o777 for path in folder.rglob("*.key")}
    assert modes == {"ca.key": 0o600, "n1.key": 0o600, "plan-r1.key": 0o600}
    assert folder.stat().st_mode & 0o777 == 0o700


def test_nothing_outlives_its_authority(folder: Path) -> None:
    assert Authority(folder).issue("n1", 3650.0).days_left(datetime.now(UTC)) == pytest.approx(30.0, abs=0.01)


def test_a_name_has_one_key_which_is_kept_by_a_renewal_and_never_replaced_unasked(folder: Path) -> None:
    authority = Authority(folder)
    authority.issue("n1", 1.0)
    before = certificate(folder, "n1")
    with pytest.raises(ConfigError, match=r"n1.crt is there: `polcad pki renew` it, or `revoke`"):
        authority.issue("n1", 7.0)
    authority.renew("n1", 7.0)
    after = certificate(folder, "n1")
    assert after.public_key() == before.public_key()
    assert after.not_valid_after_utc > before.not_valid_after_utc + timedelta(days=5)
    assert after.serial_number != before.serial_number


def test_what_is_revoked_is_listed_with_its_earlier_certificates_and_others_are_not(folder: Path) -> None:
    authority = Authority(folder)
    authority.issue("n1", 1.0)
    authority.issue("n2", 1.0)
    serials = {certificate(folder, "n1").serial_number}
    authority.renew("n1", 2.0)
    authority.renew("n2", 2.0)
    serials |= {certificate(folder, "n1").serial_number}
    authority.revoke("n1")
    listed = x509.load_pem_x509_crl((folder / "ca.crl").read_bytes())
    assert {entry.serial_number for entry in listed} == serials
    assert not list((folder / "issued").glob("n1.*"))
    with pytest.raises(ConfigError, match="there is no certificate of 'n1'"):
        authority.revoke("n1")


def test_an_authority_is_not_replaced_and_a_folder_without_one_says_so(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds an authority already"):
        create(folder, "again", 1.0)
    with pytest.raises(ConfigError, match="polcad pki init"):
        Authority(tmp_path)
    with pytest.raises(ConfigError, match="cannot stand in a certificate"):
        Authority(folder).issue("n" * 65, 1.0)


@pytest.mark.integration
def test_openssl_finds_the_certificates_good_and_a_revoked_one_bad(folder: Path) -> None:
    authority = Authority(folder)
    authority.issue("n1", 1.0)
    kept = (folder / "issued/n1.crt").read_bytes()
    (folder / "stolen.crt").write_bytes(kept)
    command = ["openssl", "verify", "-x509_strict", "-crl_check", "-purpose", "sslclient"]
    command += ["-CAfile", "ca.crt", "-CRLfile", "ca.crl", "stolen.crt"]
    assert subprocess.run(command, cwd=folder, check=False, capture_output=True).returncode == 0
    authority.revoke("n1")
    assert b"revoked" in subprocess.run(command, cwd=folder, check=False, capture_output=True).stderr


def test_a_plan_key_signs_what_its_public_half_believes(folder: Path) -> None:
    private, public = make_plan_key(folder, "r1")
    spec = SigningSpec(str(private), str(public))
    signer, trust = spec.signer(), spec.trust()
    assert signer is not None
    assert trust is not None
    verify("topic", signer.signed(Message("topic", b'{"a":1}')).payload, trust.public_keys)
    with pytest.raises(ConfigError, match="nodes would refuse"):
        make_plan_key(folder, "r1")


@pytest.fixture
def polcad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pki:
    monkeypatch.chdir(tmp_path)
    return lambda *words: CliRunner().invoke(app, list(words))


@pytest.mark.integration  # a dozen keys and commands
def test_an_inventory_gets_what_it_lacks_and_what_expires_soon_is_told_and_renewed(polcad: Pki, tmp_path: Path) -> None:
    (tmp_path / "r1.toml").write_text(ROW)
    assert polcad("pki", "init").exit_code == 0
    assert polcad("pki", "issue", "node", "n2", "--days", "5").exit_code == 0
    assert polcad("pki", "issue", "broker", "mqtt.example", "10.0.0.5").exit_code == 0
    told = polcad("pki", "inventory", "r1.toml", "--pool", "code")
    assert {line.split()[3] for line in told.output.splitlines()} == {
        *("n1", "daemon.r1", "pool.chat", "pool.code"),
        *(f"{role}.site" for role in ("operator", "reader", "scheduler", "orchestrator")),
    }
    soon = polcad("pki", "list", "--json")
    assert soon.exit_code == 1
    rows = json.loads(soon.output)["certificates"]
    assert (rows[0]["name"], len(rows)) == ("n2", 11)
    assert [line.split()[3] for line in polcad("pki", "renew").output.splitlines()] == ["n2"]
    assert polcad("pki", "list").exit_code == 0
    assert polcad("pki", "revoke", "n2").exit_code == 0
    assert len(json.loads(polcad("pki", "list", "--json").output)["certificates"]) == 10


@pytest.mark.parametrize("words", [("abacus", "n1"), ("node", "N 1"), ("node", "daemon.r1")])
def test_a_role_or_name_that_cannot_be_is_wrong_usage(polcad: Pki, words: tuple[str, str]) -> None:
    polcad("pki", "init")
    assert polcad("pki", "issue", *words).exit_code == 2


def test_the_brokers_files_are_written_for_all_rows_and_not_for_everybody_to_read(polcad: Pki, tmp_path: Path) -> None:
    for name in ("r1", "r2"):
        text = ROW.replace('"r1"', f'"{name}"').replace('"n', f'"{name}-n')
        (tmp_path / f"{name}.toml").write_text(text)
    assert polcad("broker-config", "r1.toml", "r2.toml", "--out", "etc", "--port", "8884").exit_code == 0
    acl = tmp_path / "etc/polcad.acl"
    assert {"user daemon.r1", "user daemon.r2", "user r1-n1", "user r2-n2"} <= set(acl.read_text().splitlines())
    assert acl.stat().st_mode & 0o777 == 0o640
    assert "listener 8884" in (tmp_path / "etc/polcad.conf").read_text()
    printed = polcad("broker-config", "r1.toml", "--pool", "code").output
    assert "topic write polcad/v1/site/load/code/+" in printed


def test_the_files_of_nats_are_written_for_each_node_with_the_keys_that_are_good(polcad: Pki, tmp_path: Path) -> None:
    (tmp_path / "r1.toml").write_text(ROW)
    polcad("pki", "init")
    polcad("pki", "issue", "node", "n1")
    hosts = [word for name in ("a", "b", "c") for word in ("--host", f"{name}.example")]
    nats = ("broker-config", "r1.toml", "--broker", "nats", *hosts)
    assert polcad(*nats, "--dir", "polcad-pki", "--out", "etc").exit_code == 0
    written = {path.name: path.read_text() for path in (tmp_path / "etc").iterdir()}
    assert set(written) == {"nats-users.conf", "a.example.conf", "b.example.conf", "c.example.conf"}
    (pin,) = Authority(tmp_path / "polcad-pki").pins()
    assert all(written[f"{name}.example.conf"].count(pin) == 2 for name in "abc")
    assert "pinned_certs" not in polcad(*nats).output
    assert polcad("broker-config", "r1.toml", "--host", "a.example").exit_code == 2
    assert "name three" in str(polcad("broker-config", "r1.toml", "--broker", "nats").exception)
