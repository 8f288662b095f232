"""Where the GPUs of a row, or of one rack, stand in the fleet's arrays: laid out once, used until a GPU moves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Indices = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Places:
    """`at`, `node_of`, `key` and `max_w` have one entry a GPU, `nodes` and `rack_of` one a node."""

    shape: tuple[int, int]  # racks, classes
    nodes: Indices
    rack_of: Indices
    at: Indices  # in the fleet's arrays of shape (nodes, width), row by row
    node_of: Indices
    key: Indices  # rack and class in one number
    max_w: Floats

    @classmethod
    def lay_out(
        cls, shape: tuple[int, int], present: Flags, class_of: Indices, rack_of: Indices, max_w: Floats, nodes: Indices
    ) -> Places:
        """The places of the `nodes`' GPUs; arrays of shape (nodes, width), `rack_of` of shape (nodes,)."""
        width = present.shape[1]
        at = (nodes[:, None] * width + np.arange(width))[present[nodes]]
        node_of = at // width
        key = rack_of[node_of] * shape[1] + class_of.take(at)
        return cls(shape, nodes, rack_of[nodes], at, node_of, key, max_w.take(at))

    def summed(self, values: Floats | None = None) -> Floats:
        """Sums of one value a GPU, or how many GPUs there are; shape (racks, classes)."""
        sums: Floats = np.bincount(self.key, values, minlength=self.shape[0] * self.shape[1]).astype(float)
        return sums.reshape(self.shape)
