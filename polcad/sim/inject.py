"""What can go wrong on purpose, at a time: a brake, a silent meter, a dead daemon, a server that ignores its plan."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from polcad.errors import ConfigError

_SYNTAX = re.compile(r"(?P<fault>[a-z]+)(:(?P<server>\d+))?@(?P<at>\d+(\.\d+)?)\+(?P<length>\d+(\.\d+)?)")


class Fault(StrEnum):
    """What goes wrong."""

    BRAKE = "brake"  # something outside (a UPS) brakes every server
    METER = "meter"  # no readings
    DAEMON = "daemon"  # dead, then started anew
    IGNORE = "ignore"  # a server takes no setting; it stays as it is


@dataclass(frozen=True, slots=True)
class Injection:
    """One fault, from `at_s` since the start for `length_s`; `server` for the fault that has one."""

    fault: Fault
    at_s: float
    length_s: float
    server: int = 0

    @property
    def end_s(self) -> float:
        """When it is over."""
        return self.at_s + self.length_s

    @classmethod
    def parse(cls, text: str) -> Injection:
        """``brake@3600+30`` (at 3600 s for 30 s), ``meter@…``, ``daemon@…``, ``ignore:7@…`` (server 7)."""
        match = _SYNTAX.fullmatch(text)
        if (
            match is None
            or match["fault"] not in set(Fault)
            or (match["server"] is None) is (match["fault"] == Fault.IGNORE)
        ):
            raise ConfigError(
                f"{text!r} is no fault: say brake@AT+SECONDS, meter@…, daemon@… or ignore:SERVER@AT+SECONDS"
            )
        return cls(Fault(match["fault"]), float(match["at"]), float(match["length"]), int(match["server"] or 0))
