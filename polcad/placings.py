"""What the nodes of a row are placed as: what the scheduler last said, retained; else what the inventory says.

The inventory's word is retained on the broker too, so that a node learns it from there as it learns the scheduler's.
"""

from __future__ import annotations

from polcad.model import NodePlacement
from polcad.spec import RowSpec
from polcad.wire import Address, Message, encode


class Placings:
    """Of one row."""

    def __init__(self, site: str, row: RowSpec) -> None:
        self._inventory = {node.name: NodePlacement(node.name, node.placement) for node in row.nodes}
        self._topics = {node.name: Address(site, row.name, "placement", node.rack, node.name) for node in row.nodes}
        self._said: dict[str, NodePlacement] = {}
        self._all_said = False

    def of(self, node: str) -> NodePlacement:
        """What a node is placed as."""
        return self._said.get(node) or self._inventory.get(node) or NodePlacement(node)

    def take(self, node: str, said: NodePlacement | None) -> NodePlacement:
        """Hear what is retained for a node, or that it was taken back (None); what the node is placed as now."""
        if said is None:
            self._said.pop(node, None)
            self._all_said = False
        else:
            self._said[node] = said
        return self.of(node)

    def forget(self) -> None:
        """Know of nothing that is retained: a broker that comes back may have kept nothing."""
        self._said, self._all_said = {}, False

    def missing(self) -> list[Message]:
        """What the inventory says of listed nodes, where nothing is retained or it says otherwise now; told once."""
        if self._all_said:
            return []
        self._all_said = True
        return [encode(self._topics[node], wanted) for node, wanted in self._inventory.items() if self._lacks(wanted)]

    def _lacks(self, wanted: NodePlacement) -> bool:
        said = self._said.get(wanted.node)
        return said is None or (said.source == wanted.source and said != wanted)
