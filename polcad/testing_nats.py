"""A real nats-server for tests and benchmarks, alone or as a cluster of three, on free ports of 127.0.0.1.

Each node has JetStream and an MQTT listener, for which NATS keeps retained messages, subscriptions and what awaits an
acknowledgement in JetStream: in a cluster, on three nodes. All is gone when the block ends and its folder is removed.
"""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Any

from polcad.broker_spec import BrokerSpec, TlsSpec
from polcad.testing_brokers import Broker, Server, free_port, program

CLUSTER_SIZE = 3
ALONE = """
server_name: $name
listen: 127.0.0.1:$port
http: 127.0.0.1:$monitor_port
jetstream { store_dir: "$store" }
mqtt { listen: 127.0.0.1:$mqtt_port }
"""
CLUSTERED = """
server_name: $name
listen: 127.0.0.1:$port
http: 127.0.0.1:$monitor_port
jetstream { store_dir: "$store" }
mqtt { listen: 127.0.0.1:$mqtt_port, stream_replicas: 3 }
cluster { name: polcad, listen: 127.0.0.1:$route_port, routes: [$routes] }
"""
_ANSWER_S = 5.0  # the longest that a question to a node may take
_CONNECT = b"\x10\x11\x00\x04MQTT\x04\x02\x00\x0a\x00\x05probe"  # a clean session of the client "probe", by MQTT 3.1.1
_CONNECTED = b"\x20\x02\x00\x00"
_DISCONNECT = b"\xe0\x00"


class NatsServer(Server):
    """One nats-server.

    `conf` is its configuration, in which ``$port`` (NATS), ``$mqtt_port``, ``$monitor_port``, ``$route_port``,
    ``$store``, ``$name`` and ``$routes`` stand for what was chosen. `size` nodes are to find each other before it is
    ready; RuntimeError when they do not. With `tls`, the certificate of a client that it lets in, it is asked by TLS.
    """

    def __init__(
        self, folder: Path, conf: str = ALONE, name: str = "n1", size: int = 1, tls: TlsSpec | None = None
    ) -> None:
        super().__init__(folder / f"nats-{name}.log")
        self.name, self._tls = name, tls
        self.client_port, self._port, self.monitor_port, self.route_port = (free_port() for _ in range(4))
        self._folder, self._text, self._size = folder, conf, size
        self.write(())

    def write(self, routes: Sequence[str]) -> None:
        """Write its configuration, with the routes to all nodes of its cluster."""
        text = Template(self._text).safe_substitute(
            name=self.name,
            port=self.client_port,
            mqtt_port=self._port,
            monitor_port=self.monitor_port,
            route_port=self.route_port,
            store=self._folder / f"nats-{self.name}",
            routes=", ".join(routes),
        )
        self._conf.write_text(text)

    @property
    def _conf(self) -> Path:
        return self.log.with_suffix(".conf")

    @property
    def port(self) -> int:
        """Where clients of MQTT find it."""
        return self._port

    @property
    def url(self) -> str:
        """Where clients of NATS itself find it."""
        return f"nats://127.0.0.1:{self.client_port}"

    def spec(self, name: str) -> BrokerSpec:
        """For everyone, this node alone."""
        del name
        return BrokerSpec(port=self._port)

    def command(self) -> Sequence[str | Path]:
        """The server with its configuration."""
        return [program("nats-server"), "-c", self._conf]

    def ready(self) -> bool:
        """Whether JetStream has a leader that knows all nodes, this one has caught up, and MQTT answers.

        Asked of all, it would never be well again after a restart: 2.9.10 calls a consumer that has nothing to deliver
        "not current".
        """
        meta = self._meta()
        found = bool(meta.get("leader")) and meta["cluster_size"] == self._size
        return found and self.ask("healthz?js-server-only=true").get("status") == "ok" and self._takes_mqtt()

    def leads(self) -> bool:
        """Whether it leads the cluster's JetStream now."""
        return bool(self._meta().get("leader") == self.name)

    def streams_led(self) -> set[str]:
        """The streams that it leads, MQTT's own too."""
        accounts = self.ask("jsz?streams=true&accounts=true").get("account_details", ())
        streams = (each for account in accounts for each in account.get("stream_detail", ()))
        return {each["name"] for each in streams if each.get("cluster", {}).get("leader") == self.name}

    def mqtt_clients(self) -> set[str]:
        """The names of its MQTT clients."""
        return {each["mqtt_client"] for each in self.ask("connz").get("connections", ()) if "mqtt_client" in each}

    def _meta(self) -> dict[str, Any]:
        """What it says of its cluster; a node alone is one that leads itself."""
        said = self.ask("jsz")
        meta: dict[str, Any] = said.get("meta_cluster", {"leader": self.name if said else "", "cluster_size": 1})
        return meta

    def ask(self, what: str) -> dict[str, Any]:
        """What its monitor says (``jsz``, ``healthz``, ``varz`` …); empty where there is no good answer."""
        url = f"http://127.0.0.1:{self.monitor_port}/{what}"
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=_ANSWER_S) as answer:
            found: dict[str, Any] = json.load(answer)
            return found
        return {}

    def _takes_mqtt(self) -> bool:
        """Whether an MQTT client is let in: the first one waits until NATS has made its streams."""
        with contextlib.suppress(OSError), self._connection() as there:
            there.sendall(_CONNECT)
            answer = there.recv(len(_CONNECTED))
            there.sendall(_DISCONNECT)
            return answer == _CONNECTED
        return False

    def _connection(self) -> socket.socket:
        plain = socket.create_connection(("127.0.0.1", self._port), _ANSWER_S)
        if self._tls is None:
            return plain
        with contextlib.ExitStack() as stack:
            stack.enter_context(plain)
            secured = self._tls.context().wrap_socket(plain, server_hostname="localhost")
            stack.pop_all()
            return secured


class NatsCluster(Broker):
    """Three nodes, each of which may be stopped, killed, paused and started again."""

    def __init__(self, folder: Path, conf: str = CLUSTERED, tls: TlsSpec | None = None) -> None:
        names = [f"n{number}" for number in range(1, CLUSTER_SIZE + 1)]
        self.nodes = [NatsServer(folder, conf, name, CLUSTER_SIZE, tls) for name in names]
        for node in self.nodes:
            node.write([f"nats://localhost:{each.route_port}" for each in self.nodes])

    @property
    def port(self) -> int:
        """The first node's, for MQTT."""
        return self.nodes[0].port

    def start(self) -> None:
        """Start all nodes, and wait until each serves."""
        for node in self.nodes:
            node.launch()
        for node in self.nodes:
            node.wait_ready()

    def stop(self, signal_number: int = signal.SIGKILL) -> None:
        """End all nodes; those that are asked nicely would first look for new leaders."""
        for node in self.nodes:
            node.stop(signal_number)

    def spec(self, name: str) -> BrokerSpec:
        """All nodes for everyone: a link takes any of them."""
        del name
        first, *others = (node.port for node in self.nodes)
        return BrokerSpec(port=first, more_hosts=tuple(f"127.0.0.1:{port}" for port in others))

    def leader(self, stream: str = "") -> NatsServer:
        """The node that leads a stream, or else JetStream itself; RuntimeError when there is none."""
        for node in self.nodes:
            if stream in node.streams_led() if stream else node.leads():
                return node
        raise RuntimeError(f"the cluster has no leader of {stream or 'JetStream'} now")
