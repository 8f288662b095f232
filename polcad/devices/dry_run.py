"""A device that sets nothing, for nodes that are only watched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from polcad.model import InForce, Outcome, Setpoint
from polcad.ports import Collector


class DryRunDevice:
    """A `polcad.ports.Device` that names the GPUs it was asked to set. It needs no option and no session."""

    def __init__(self, options: Mapping[str, Any], collector: Collector) -> None:
        del options, collector
        self._uuids: tuple[str, ...] = ()

    def apply(self, wanted: Mapping[str, Setpoint]) -> None:
        """Remember the names, set nothing."""
        self._uuids = tuple(dict.fromkeys((*self._uuids, *wanted)))

    def in_force(self) -> InForce:
        """Unmanaged and unknown, for every GPU named so far."""
        unknown = (None,) * len(self._uuids)
        return InForce(
            self._uuids, unknown, unknown, (Outcome.UNMANAGED,) * len(self._uuids), ("dry run",) * len(self._uuids)
        )
