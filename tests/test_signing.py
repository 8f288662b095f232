"""Signatures over plans: by whom, of what, for which topic, and when."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from polcad.errors import ConfigError, WireError
from polcad.model import FREE, Plan
from polcad.signing import SigningSpec, Trust, sign, verify
from polcad.wire import Address, decode, encode

TO = Address("site", "row1", "plan")
PLAN = Plan("row1", 3, 9, 1e9, 5.0, FREE)
KEY, OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32)), Ed25519PrivateKey.from_private_bytes(bytes([1] * 32))
PUBLIC = KEY.public_key().public_bytes_raw()
PAYLOAD = encode(TO, PLAN).payload
SIGNED = sign(TO.topic, PAYLOAD, KEY.private_bytes_raw())


def test_a_signed_plan_is_believed_and_one_that_looks_at_no_signature_reads_it_as_before() -> None:
    verify(TO.topic, SIGNED, [OTHER.public_key().public_bytes_raw(), PUBLIC])
    assert decode(encode(TO, PLAN)._replace(payload=SIGNED)) == (TO, PLAN)
    assert {**json.loads(PAYLOAD), "signature": json.loads(SIGNED)["signature"]} == json.loads(SIGNED)


@pytest.mark.parametrize("at", [1, 30, len(PAYLOAD) - 3, len(PAYLOAD) + 20, len(SIGNED) - 5])
def test_a_changed_byte_anywhere_is_refused(at: int) -> None:
    changed = bytearray(SIGNED)
    changed[at] ^= 1
    with pytest.raises(WireError):
        verify(TO.topic, bytes(changed), [PUBLIC])


def test_what_is_unsigned_by_a_stranger_or_for_another_topic_is_refused() -> None:
    with pytest.raises(WireError, match="is not signed"):
        verify(TO.topic, PAYLOAD, [PUBLIC])
    with pytest.raises(WireError, match="is not signed"):
        verify(TO.topic, b"", [PUBLIC])
    with pytest.raises(WireError, match="no key that is trusted"):
        verify(TO.topic, SIGNED, [OTHER.public_key().public_bytes_raw()])
    with pytest.raises(WireError, match="no key that is trusted"):
        verify("polcad/v1/elsewhere/row1/plan", SIGNED, [PUBLIC])


def test_members_added_around_a_signature_are_refused() -> None:
    inside = SIGNED.replace(b'"seq":9', b'"seq":9,"seq":10')
    behind = SIGNED[:-1] + b',"seq":10}'
    twice = sign(TO.topic, SIGNED, OTHER.private_bytes_raw())
    for payload in (inside, behind, twice):
        with pytest.raises(WireError):
            verify(TO.topic, payload, [PUBLIC])


def test_an_old_plan_is_refused_and_so_is_one_of_a_clock_that_is_ahead() -> None:
    trust = Trust((PUBLIC,), max_age_s=60.0)
    trust.check(TO.topic, SIGNED, PLAN.t, PLAN.t + 59)
    for now_t in (PLAN.t + 61, PLAN.t - 61):
        with pytest.raises(WireError, match="replayed, or a clock is wrong"):
            trust.check(TO.topic, SIGNED, PLAN.t, now_t)


def pem_files(folder: Path) -> SigningSpec:
    private = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = [key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo) for key in (OTHER, KEY)]
    (folder / "plan.key").write_bytes(private)
    (folder / "plan.pub").write_bytes(b"".join(public))
    return SigningSpec(str(folder / "plan.key"), str(folder / "plan.pub"))


def test_keys_come_from_files_and_several_may_be_trusted_while_one_is_replaced(tmp_path: Path) -> None:
    spec = pem_files(tmp_path)
    signer, trust = spec.signer({}), spec.trust({})
    assert signer is not None
    assert trust is not None
    assert len(trust.public_keys) == 2
    trust.check(TO.topic, signer.signed(encode(TO, PLAN)).payload, PLAN.t, PLAN.t)
    assert SigningSpec().signer({}) is None
    assert SigningSpec().trust({}) is None


def test_a_key_may_be_a_credential(tmp_path: Path) -> None:
    pem_files(tmp_path)
    spec = SigningSpec(key_file="credential:plan.key")
    assert spec.signer({"CREDENTIALS_DIRECTORY": str(tmp_path)}) is not None
    with pytest.raises(ConfigError, match=r"signing.key_file.*LoadCredential"):
        spec.signer({})


def test_keys_that_cannot_be_used_are_named_and_not_shown(tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    bad.write_text("-----BEGIN PUBLIC KEY-----\nhunter2\n-----END PUBLIC KEY-----\n")
    for spec in (SigningSpec(key_file=str(bad)), SigningSpec(trusted_file=str(bad))):
        with pytest.raises(ConfigError, match="bad") as caught:
            spec.signer({}) or spec.trust({})
        assert "hunter2" not in str(caught.value)
    bad.write_text("")
    with pytest.raises(ConfigError, match="holds no public key"):
        SigningSpec(trusted_file=str(bad)).trust({})
    with pytest.raises(ConfigError, match="cannot be read"):
        SigningSpec(trusted_file=str(tmp_path / "gone")).trust({})


@pytest.mark.integration  # a second to import all of it
def test_who_neither_signs_nor_checks_imports_no_cryptography() -> None:
    code = "import sys, polcad.agent, polcad.daemon, polcad.mqtt; sys.exit('cryptography' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
