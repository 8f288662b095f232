"""Whether the engine of the lock answers, and who holds it."""

from __future__ import annotations

from polcad.doctor.check import Check, State
from polcad.errors import ConfigError, UnavailableError
from polcad.standby_spec import StandbySpec

_ANSWER_S = 3.0
_UNAVAILABLE = 69


async def check_lock(spec: StandbySpec, lock: str) -> list[Check]:
    """Nothing where there is no standby. The engine is asked as a daemon that waits would ask it."""
    if not spec.servers:
        return []
    from polcad.standby_nats import NatsStore  # noqa: PLC0415  # its client is imported by who has a standby alone

    store = NatsStore(spec, lock, _ANSWER_S)
    try:
        spec.check()
        found = await store.read()
    except ConfigError as error:
        return [Check("standby", State.FAIL, str(error), "mend [standby]: docs/standby.md", 78)]
    except UnavailableError as error:
        remedy = "a leader leads on, and nobody would take over: see to NATS, docs/standby.md"
        return [Check("standby", State.FAIL, str(error), remedy, _UNAVAILABLE)]
    finally:
        await store.close()
    holder = found.claim.host if found else ""
    return [
        Check("standby", State.OK, f"NATS keeps the lock {lock}; {f'{holder} holds it' if holder else 'it is free'}")
    ]
