"""What the broker lets a client write, found by trying: MQTT 5 answers a message at QoS 1 with the reason of a refusal.

Older versions drop such a message without a word. The probes are never retained. It takes paho as it is, since aiomqtt
keeps the reason to itself.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from paho.mqtt.client import Client, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion

from polcad.broker_spec import BrokerSpec
from polcad.errors import UnavailableError

_REFUSED = 128  # reason codes from here on


def writable(
    spec: BrokerSpec, client_id: str, messages: Sequence[tuple[str, bytes]], environ: Mapping[str, str] = os.environ
) -> dict[str, bool]:
    """By topic, whether the broker took our message; UnavailableError when it does not tell. Blocks."""
    asked = _Asked(len(messages))
    client = Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=MQTTv5)
    client.connect_timeout = spec.connect_timeout_s
    client.username_pw_set(spec.user or None, spec.password(environ))
    if spec.tls:
        client.tls_set_context(spec.tls.context(environ))
    client.on_connect, client.on_publish = asked.connected, asked.published
    try:
        client.connect(spec.host, spec.port)
        client.loop_start()
        asked.wait(asked.up, spec)
        mids = {client.publish(topic, payload, 1).mid: topic for topic, payload in messages}
        asked.wait(asked.done, spec)
    except OSError as error:
        raise UnavailableError(f"broker {spec.url}: {error}") from None
    finally:
        client.disconnect()
        client.loop_stop()
    return {topic: asked.codes[mid] < _REFUSED for mid, topic in mids.items()}


class _Asked:
    """What the broker has answered so far."""

    def __init__(self, count: int) -> None:
        self.codes: dict[int, int] = {}
        self.up, self.done = threading.Event(), threading.Event()
        self._count, self._refusal = count, ""

    def connected(self, _client: Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            self._refusal = str(reason)
        self.up.set()

    def published(self, _client: Client, _data: Any, mid: int, reason: Any, _properties: Any) -> None:
        self.codes[mid] = reason.value
        if len(self.codes) == self._count:
            self.done.set()

    def wait(self, event: threading.Event, spec: BrokerSpec) -> None:
        if not event.wait(spec.connect_timeout_s) or self._refusal:
            why = self._refusal or f"no answer within {spec.connect_timeout_s:g} s"
            raise UnavailableError(f"broker {spec.url}: it does not tell what may be written in MQTT 5: {why}")
