"""A broker inside this process, for the demo and for tests: amqtt on 127.0.0.1, nothing kept on disk.

It speaks MQTT 3.1.1 only, takes some tens of milliseconds to reach a hundred clients, and greets a new one with what is
retained for the subscriptions of others too. A real row runs Mosquitto (docs/security.md).
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Mapping
from typing import Any

from amqtt.broker import Broker

from polcad.broker_spec import BrokerSpec

_ANONYMOUS = {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}
_CHATTER = ("amqtt", "transitions")


@contextlib.asynccontextmanager
async def embedded(port: int = 0, plugins: Mapping[str, Any] = _ANONYMOUS) -> AsyncIterator[BrokerSpec]:
    """A running broker, and how to reach it. Port 0 is any free one; `plugins` are amqtt's, by dotted name."""
    with _quiet():
        broker = Broker({"listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}}, "plugins": plugins})
        await broker.start()
        try:
            listener = broker._servers["default"].instance  # noqa: SLF001  # nothing else knows the port chosen
            yield BrokerSpec(port=listener.sockets[0].getsockname()[1])
        finally:
            await broker.shutdown()


@contextlib.contextmanager
def _quiet() -> Any:
    """Silence what amqtt says of each client that comes and goes."""
    loggers = [logging.getLogger(name) for name in _CHATTER]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
