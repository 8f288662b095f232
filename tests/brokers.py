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
        return NatsCluster(folder)
    if kind is Kind.BRIDGE:
        return BridgedMosquittos(folder, bridge_conf())
    return Mosquitto(folder)


def page_block(title: str) -> str:
    """The block of the page on brokers that is a file of that name."""
    found = re.search(rf"^```[a-z]*\n# {re.escape(title)}\n(.*?)^```$", DOCS.read_text(), re.DOTALL | re.MULTILINE)
    assert found, f"{DOCS} has no block that begins with `# {title}`"
    return found[1]


def bridge_conf() -> list[str]:
    """The page's configuration of a bridge, on ports of ours, and for a row of the names that tests use."""
    text = page_block("/etc/mosquitto/conf.d/polcad-bridge.conf")
    for theirs, ours in (
        ("listener 1883", "listener {port} 127.0.0.1"),
        ("address upper.example:1883", "address 127.0.0.1:{upper}"),
        ("polcad/v1/site/row1/", "polcad/v1/site/row/"),
    ):
        assert theirs in text, theirs
        text = text.replace(theirs, ours)
    return text.splitlines()
