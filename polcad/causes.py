"""How long each cause has held rules of each domain: the time a row spent in T1, in T2, or under its brake."""

from __future__ import annotations

from polcad.model import RowStatus, Why

_LONGEST_S = 30.0  # between two ticks that belong together: nobody knows what held over a longer silence


class Causes:
    """Adds up one daemon's ticks; `seconds` is by scope and cause, from the first time of each on."""

    def __init__(self) -> None:
        self.seconds: dict[tuple[str, Why], float] = {}
        self._held: set[tuple[str, Why]] = set()
        self._t: float | None = None

    def note(self, status: RowStatus) -> None:
        """Take a tick: what held at the one before has held up to here."""
        step_s = 0.0 if self._t is None else status.t - self._t
        self._t = status.t
        for key in self._held:
            self.seconds[key] += step_s if 0.0 < step_s <= _LONGEST_S else 0.0
        self._held = {(domain.scope, rule.why) for domain in status.domains for rule in domain.rules}
        for key in sorted(self._held - self.seconds.keys()):
            self.seconds[key] = 0.0
