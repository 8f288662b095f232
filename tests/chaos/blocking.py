"""A policy that blocks its daemon: POLCA, which sleeps when it finds an order to."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from polcad.ports import Desire, View
from policies.polca import Polca


@dataclass(frozen=True, slots=True)
class Blocking(Polca):
    """Sleeps once for as many seconds as the file says that POLCAD_CHAOS_BLOCK names, where there is one."""

    def desired(self, view: View) -> Desire:
        """What POLCA wants, late."""
        order = Path(os.environ["POLCAD_CHAOS_BLOCK"])
        if order.exists():
            seconds = float(order.read_text())
            order.unlink()
            time.sleep(seconds)
        return Polca.desired(self, view)
