"""How a configured daemon stands for what it leads: its part in the contest, and how it steps down.

Without `[standby]` there is no contest, and a daemon that is outranked ends for good.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from polcad.config import Config
from polcad.config.spec import host_name
from polcad.errors import OutrankedError, StandDownError
from polcad.standby import Contest


def contest_for(config: Config, lock: str, lease_s: float) -> Contest | None:
    """A daemon's part in the contest for what that lock stands for; None where no other daemon could lead."""
    spec = config.standby
    if not spec.servers:
        return None
    from polcad.standby_nats import NatsStore  # noqa: PLC0415  # its client is imported by who has a standby alone

    ttl_s = spec.ttl_s or lease_s
    return Contest(NatsStore(spec, lock, ttl_s / 2), spec.host or host_name(), ttl_s)


@contextlib.contextmanager
def standing_down(config: Config) -> Iterator[None]:
    """Make of an OutrankedError a StandDownError, where another start makes a standby."""
    try:
        yield
    except* OutrankedError as outranked:
        if not config.standby.servers:
            raise
        raise StandDownError(f"{outranked.exceptions[0]}; started again, it is the standby") from None
