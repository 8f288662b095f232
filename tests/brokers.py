"""The brokers that tests of whole rows run on: Mosquitto, or what `pytest --broker nats` or `bridge` asks for."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
from enum import StrEnum
from pathlib import Path

from polcad.testing_brokers import BridgedMosquittos, Broker, Mosquitto
from polcad.testing_nats import NatsCluster

DOCS = Path(__file__).parents[1] / "docs" / "brokers.md"


class Kind(StrEnum):
    """What carries the messages."""

    MOSQUITTO = "mosquitto"
    NATS = "nats"  # a cluster of three
    BRIDGE = "bridge"  # two Mosquittos: agents at one, daemon and people at the other


def broker_of(kind: Kind, folder: Path) -> AbstractContextManager[Broker]:
    """The broker of a kind, which starts with the block."""
    if kind is Kind.NATS:
        return NatsCluster(folder, nats_conf())
    if kind is Kind.BRIDGE:
        return BridgedMosquittos(folder, bridge_conf())
    return Mosquitto(folder)


def page_block(title: str) -> str:
    """The block of the page on brokers that is a file of that name."""
    found = re.search(rf"^```[a-z]*\n# {re.escape(title)}\n(.*?)^```$", DOCS.read_text(), re.DOTALL | re.MULTILINE)
    assert found, f"{DOCS} has no block that begins with `# {title}`"
    return found[1]


def nats_conf() -> str:
    """The page's configuration of a node, as a template for ports and folders of ours."""
    return replaced(
        page_block("/etc/nats-server.conf"),
        ("server_name: nats1", "server_name: $name"),
        ("0.0.0.0:4222", "127.0.0.1:$port"),
        ("127.0.0.1:8222", "127.0.0.1:$monitor_port"),
        ("/var/lib/nats", "$store"),
        ("0.0.0.0:1883", "127.0.0.1:$mqtt_port"),
        ("0.0.0.0:6222", "127.0.0.1:$route_port"),
        ("nats://nats1.example:6222, nats://nats2.example:6222, nats://nats3.example:6222", "$routes"),
    )


def open_conf(folder: Path) -> list[str]:
    """The page's configuration of a Mosquitto that lets everyone in, on a port and in a folder of ours."""
    return replaced(
        page_block("/etc/mosquitto/conf.d/polcad-open.conf"),
        ("listener 1883", "listener {port} 127.0.0.1"),
        ("/var/lib/mosquitto/", f"{folder}/"),
    ).splitlines()


def bridge_conf() -> list[str]:
    """The page's configuration of a bridge, on ports of ours, and for a row of the names that tests use."""
    return replaced(
        page_block("/etc/mosquitto/conf.d/polcad-bridge.conf"),
        ("listener 1883", "listener {port} 127.0.0.1"),
        ("address upper.example:1883", "address 127.0.0.1:{upper}"),
        ("polcad/v1/site/row1/", "polcad/v1/site/row/"),
    ).splitlines()


def replaced(text: str, *pairs: tuple[str, str]) -> str:
    """The text with each first of a pair, which must be there, replaced by the second."""
    for theirs, ours in pairs:
        assert theirs in text, theirs
        text = text.replace(theirs, ours)
    return text
