from pathlib import Path

import msgspec
import pytest

from polcad.broker_spec import PASSWORD_VARIABLE, BrokerSpec, Protocol, TlsSpec
from polcad.codec import convert
from polcad.errors import ConfigError


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("mqtt://broker", BrokerSpec(host="broker")),
        ("mqtt://n%31@broker:1884/", BrokerSpec(host="broker", port=1884, user="n1")),
        ("mqtts://[::1]", BrokerSpec(host="::1", port=8883, tls=TlsSpec())),
        ("mqtts://daemon@10.0.0.1:443", BrokerSpec(host="10.0.0.1", port=443, user="daemon", tls=TlsSpec())),
    ],
)
def test_a_url_says_how_to_reach_a_broker(url: str, wanted: BrokerSpec) -> None:
    assert BrokerSpec.parse(url) == wanted
    assert BrokerSpec.parse(wanted.url) == wanted


@pytest.mark.parametrize(
    "url",
    [
        "",
        "broker",
        "broker:1883",
        "http://broker",
        "mqtt://",
        "mqtt://b:x",
        "mqtt://b:99999",
        "mqtt://b/x",
        "mqtt://b?q",
    ],
)
def test_what_is_no_broker_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="broker URL"):
        BrokerSpec.parse(url)


def test_a_password_in_a_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigError) as caught:
        BrokerSpec.parse("mqtt://daemon:hunter2@broker")
    assert "hunter2" not in str(caught.value)


def test_toml_becomes_a_spec() -> None:
    spec = convert({"host": "b", "port": 8883, "protocol": "5", "tls": {"ca": "/ca.crt"}}, BrokerSpec)
    assert spec == BrokerSpec(host="b", port=8883, protocol=Protocol.V5, tls=TlsSpec(ca="/ca.crt"))


def test_a_cluster_has_one_spec_a_node_that_differs_in_its_address_alone() -> None:
    spec = convert({"host": "a", "port": 1884, "user": "n1", "more_hosts": ["b", "c:1885", "[::1]:1886"]}, BrokerSpec)
    assert [(node.host, node.port) for node in spec.nodes()] == [("a", 1884), ("b", 1884), ("c", 1885), ("::1", 1886)]
    assert {(node.user, node.more_hosts) for node in spec.nodes()} == {("n1", ())}
    assert BrokerSpec(host="a").nodes() == (BrokerSpec(host="a"),)


@pytest.mark.parametrize("address", ["", "mqtt://b", "b:x", "b:0", "b:99999", "user@b", "b/x", "[::1"])
def test_what_is_no_address_of_a_node_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="more_hosts"):
        convert({"more_hosts": [address]}, BrokerSpec)


@pytest.mark.parametrize("wrong", [{"port": 0}, {"protocol": "4"}, {"password": "x"}, {"tls": {"insecure": True}}])
def test_toml_that_is_wrong_or_unsafe_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        convert(wrong, BrokerSpec)


def test_the_password_comes_from_a_file_or_a_credential(tmp_path: Path) -> None:
    path, other = tmp_path / "password", tmp_path / "other"
    path.write_text("of the file\n")
    other.write_text("of the other")
    spec = BrokerSpec(password_file=str(path))
    assert BrokerSpec().password({}) is None
    assert spec.password({}) == "of the file"
    assert spec.password({PASSWORD_VARIABLE: str(other)}) == "of the other"
    handed = BrokerSpec(password_file="credential:password")  # noqa: S106  # the name of a file
    assert handed.password({"CREDENTIALS_DIRECTORY": str(tmp_path)}) == "of the file"
    assert "of the file" not in repr(spec)


def test_a_credential_that_nobody_handed_over_is_an_error_with_its_remedy() -> None:
    with pytest.raises(ConfigError, match=r"password_file='credential:x'.*LoadCredential"):
        BrokerSpec(password_file="credential:x").password({})  # noqa: S106  # the name of a file
    with pytest.raises(ConfigError, match=r"broker.tls.key='credential:x'.*LoadCredential"):
        TlsSpec(cert="c", key="credential:x").context({})


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    gone = str(tmp_path / "gone")
    with pytest.raises(ConfigError, match="gone"):
        BrokerSpec(password_file=gone).password({})
    with pytest.raises(ConfigError, match="gone"):
        TlsSpec(ca=gone).context()
    with pytest.raises(ConfigError, match="gone"):
        TlsSpec(cert=gone).context()


def test_a_password_file_of_bytes_is_refused_without_showing_them(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_bytes(b"\xff\xfesecret")
    with pytest.raises(ConfigError) as caught:
        BrokerSpec(password_file=str(path)).password({})
    assert "secret" not in str(caught.value)
