"""The row that the scale benches play: its configuration, and what its nodes say, as packets made beforehand.

Nodes of 8 GPUs at about 68 % of their budgets, in racks of 40, every rack with a budget. Beside them stand *probes*:
nodes with a rack and a budget of their own, which go over T1 for one message and fall back, again and again. The plan
that answers names the probe's rack, so each one tells how long the row took from a sample to a plan.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from benchmarks.mqtt import packet, telemetry
from polcad.model import Telemetry
from polcad.wire import Address, encode

GPUS, RACK_NODES, BOARD_W = 8, 40, 700.0
SITE = "site"
PROBES = 64
BUDGET_SHARE = 0.8  # of the boards' maximum
CALM_W, OVER_T1_W = 300.0, 475.0  # a GPU of a probe: 54 % and 85 % of its rack's budget
FIRST_SEQ = 1_000_000_000  # of ten digits, so that a packet is made once and only these change
GUARD: Mapping[str, float] = {"tick_s": 1.0, "dwell_s": 0.5}  # a probe is free again at the next tick


@dataclass(frozen=True, slots=True)
class Row:
    """A row of so many nodes, its probes included, and how often each speaks."""

    name: str
    nodes: int
    hz: float

    @property
    def rate(self) -> float:
        """Messages a second."""
        return self.nodes * self.hz

    @property
    def cycle(self) -> int:
        """Messages of a probe from one crossing to the next: three seconds, in which it is freed again."""
        return max(3, round(3 * self.hz))

    def rack(self, node: int) -> str:
        """The rack of a node; a probe has its own."""
        return f"p{node}" if self.is_probe(node) else f"r{node // RACK_NODES}"

    def is_probe(self, node: int) -> bool:
        """Whether the node is a probe: they stand evenly among the others, so that they speak at all times."""
        step = max(1, self.nodes // PROBES)
        return node % step == 0 and node // step < PROBES

    def config(self, port: int) -> str:
        """The daemon's configuration."""
        nodes = range(self.nodes)
        sizes: dict[str, int] = {}
        for node in nodes:
            sizes[self.rack(node)] = sizes.get(self.rack(node), 0) + 1
        each_w = BUDGET_SHARE * GPUS * BOARD_W
        head = [
            f'[site]\nname = "{SITE}"\n[row]\nname = "{self.name}"\nbudget_w = {each_w * self.nodes}',
            f'[broker]\nport = {port}\n[web]\nport = 0\n[log]\nlevel = "error"\n[guard]',
            *(f"{name} = {value}" for name, value in GUARD.items()),
        ]
        racks = [f'[[rack]]\nname = "{rack}"\nbudget_w = {each_w * size}' for rack, size in sizes.items()]
        return "\n".join([*head, *racks, *(f'[[node]]\nname = "n{n}"\nrack = "{self.rack(n)}"' for n in nodes)]) + "\n"

    def packets(self) -> Iterator[tuple[Packet, Packet | None]]:
        """What each node says, in the order of the nodes; of a probe, what it says when it is over T1 too."""
        for node in range(self.nodes):
            noun = telemetry(node, FIRST_SEQ)
            if self.is_probe(node):
                yield (
                    self._packet(node, telemetry(node, FIRST_SEQ, CALM_W)),
                    self._packet(node, telemetry(node, FIRST_SEQ, OVER_T1_W)),
                )
            else:
                yield self._packet(node, noun), None

    def _packet(self, node: int, noun: Telemetry) -> Packet:
        raw = packet(encode(Address(SITE, self.name, "telemetry", self.rack(node), noun.node), noun))
        return Packet(bytearray(raw), raw.index(b"%d" % FIRST_SEQ))


@dataclass(frozen=True, slots=True)
class Packet:
    """A publish of MQTT 3.1.1 whose sequence number stands `at` a place of its own."""

    raw: bytearray
    at: int

    def numbered(self, seq: bytes) -> bytearray:
        """The packet with another sequence number, of ten digits."""
        self.raw[self.at : self.at + 10] = seq
        return self.raw
